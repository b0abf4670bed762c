"""The Open Inference Protocol, version 2, for the clients of KServe and Triton: tensors in and out.

Source: kserve/open-inference-protocol specification/protocol/inference_rest.md, and the binary
tensor data extension of triton-inference-server/server docs/protocol/extension_binary_data.md.
"""

import asyncio
import json
import math
from typing import Any, TypeGuard

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.intake import parsed
from service.pipeline import Answer, Pipeline
from service.problems import Refusal
from service.routes import BINARY, StateDep, header, refusals
from service.served import Served
from service.waiting import answered

LENGTH = "Inference-Header-Content-Length"
BYTES = 4  # of an FP32
LENGTH_DIGITS = 20  # more than any body has; Python reads no number of thousands

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


class Live(BaseModel):
    """The process lives."""

    live: bool


class Ready(BaseModel):
    """It can be asked."""

    ready: bool


class ModelReady(Ready):
    """The model can be asked."""

    name: str


class Server(BaseModel):
    """Who serves."""

    name: str
    version: str
    extensions: list[str]


class Described(BaseModel):
    """One tensor of a model."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 is any number.")


class Metadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Described]
    outputs: list[Described]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "efficientnet_lite0",
                "versions": ["e4d13c0719b3"],
                "platform": "onnx_onnxv1",
                "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 224, 224]}],
                "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 1000]}],
            }
        }
    )


class Given(BaseModel):
    """A tensor of the answer."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] | None = None


class Parameters(BaseModel):
    """What the answer says of itself."""

    precision: str = Field(description="What the network is computed in: float32, bf16, ...")


class Inferred(BaseModel):
    """What the network gave: its last layer, without any softmax that it lacks."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters
    outputs: list[Given]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model_name": "efficientnet_lite0",
                "model_version": "e4d13c0719b3",
                "parameters": {"precision": "float32"},
                "outputs": [
                    {"name": "output", "datatype": "FP32", "shape": [1, 2], "data": [7.1, -0.4]}
                ],
            }
        }
    )


_INFER = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name", "shape", "datatype", "data"],
                            "properties": {
                                "name": {"type": "string", "description": "As metadata has it."},
                                "shape": {"type": "array", "items": {"type": "integer"}},
                                "datatype": {"type": "string", "enum": ["FP32"]},
                                "data": {
                                    "type": "array",
                                    "items": {"type": "number"},
                                    "description": "As many numbers as the shape says.",
                                },
                            },
                        },
                    },
                },
            },
        },
        "application/octet-stream": {"schema": BINARY},
    },
}
_LENGTH_SENT = {
    "name": LENGTH,
    "in": "header",
    "description": "Bytes of the JSON, where raw tensors stand behind it.",
    "schema": {"type": "integer", "minimum": 0},
}
_RAW = {
    "content": {"application/octet-stream": {"schema": BINARY}},
    "headers": {LENGTH: header("Bytes of the JSON, where raw tensors stand behind it.")},
}


@router.get("")
async def server() -> Server:
    """Say who serves."""
    return Server(name="relume", version="2", extensions=["binary_tensor_data"])


@router.get("/health/live")
async def live() -> Live:
    """Say that the process lives."""
    return Live(live=True)


@router.get("/health/ready", responses=refusals(503))
async def ready(state: StateDep) -> Ready:
    """Say that every model can be asked."""
    state.catalog.require()
    return Ready(ready=True)


@router.get("/models/{name}/versions/{version}/ready", responses=refusals(401, 404, 503))
@router.get("/models/{name}/ready", responses=refusals(401, 404, 503))
async def model_ready(state: StateDep, name: str, version: str = "") -> ModelReady:
    """Say that a model can be asked."""
    return ModelReady(ready=True, name=_find(state, name, version).name)


@router.get("/models/{name}/versions/{version}", responses=refusals(401, 404, 503))
@router.get("/models/{name}", responses=refusals(401, 404, 503))
async def metadata(state: StateDep, name: str, version: str = "") -> Metadata:
    """Say what a model takes and gives."""
    served = _find(state, name, version)
    input_name, output_name = _names(served)
    shape = [-1 if served.network.fixed_batch is None else 1, 3, *served.network.input.crop]
    return Metadata(
        name=served.name,
        versions=[served.version],
        platform="onnx_onnxv1",
        inputs=[Described(name=input_name, datatype="FP32", shape=shape)],
        outputs=[
            Described(name=output_name, datatype="FP32", shape=[shape[0], len(served.spec.labels)])
        ],
    )


_STATUSES = {200: _RAW, **refusals(400, 401, 404, 408, 413, 422, 500, 503)}
_EXTRA = {"requestBody": _INFER, "parameters": [_LENGTH_SENT]}


@router.post(
    "/models/{name}/versions/{version}/infer",
    response_model=Inferred,
    responses=_STATUSES,
    openapi_extra=_EXTRA,
)
@router.post(
    "/models/{name}/infer", response_model=Inferred, responses=_STATUSES, openapi_extra=_EXTRA
)
async def infer(request: Request, state: StateDep, name: str, version: str = "") -> Response:
    """Run a batch that the client has preprocessed itself; as many rows as images may be sent."""
    body = await request.body()
    served = _find(state, name, version)
    asked, binary = _split(body, request.headers.get(LENGTH))
    rows = _batch(served, asked, binary, state.most_images(served))
    with served.pipeline.reserve(len(rows)) as pipeline:
        answers = await answered(request, _every(pipeline, rows), state.settings.request_s)
    for one in answers:
        took = {"queue": one.queue_ms, "inference": one.inference_ms}
        state.metrics.answered(served.name, took)
    return _answer(served, asked, np.stack([one.output for one in answers]))


async def _every(pipeline: Pipeline, rows: np.ndarray) -> list[Answer]:
    """Return what became of all rows, or raise the first error once all are done."""
    found = await asyncio.gather(*map(pipeline.row, rows), return_exceptions=True)
    answers = []
    for one in found:
        if isinstance(one, BaseException):
            raise one
        answers.append(one)
    return answers


def _find(state: Any, name: str, version: str) -> Served:
    found: Served = state.catalog.find(f"{name}@{version}" if version else name)
    return found


def _names(served: Served) -> tuple[str, str]:
    return served.engine.inputs[0][0], "output"


def _split(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    """Return the JSON of a request and the raw tensors behind it."""
    if length is None:
        return parsed(body), b""
    is_number = length.isdecimal() and len(length) <= LENGTH_DIGITS
    if not is_number or int(length) > len(body):
        found = length[:LENGTH_DIGITS]
        raise Refusal("malformed-request", f"{LENGTH}: found {found!r}, of {len(body)} bytes")
    return parsed(body[: int(length)]), body[int(length) :]


def _batch(served: Served, asked: dict[str, Any], binary: bytes, most: int) -> np.ndarray:
    """Return the rows of the only input."""
    inputs = asked.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refusal("invalid-request", "inputs: expected a list of one tensor")
    given, name = inputs[0], _names(served)[0]
    if given.get("name") != name or given.get("datatype") != "FP32":
        raise Refusal("invalid-request", f"inputs: expected {name!r} with the datatype FP32")
    shape, wanted = given.get("shape"), [3, *served.network.input.crop]
    if not _is_shape(shape, wanted, most):
        raise Refusal(
            "invalid-request", f"inputs: expected the shape [1 to {most}, {str(wanted)[1:]}"
        )
    numbers = _binary(given, binary) if "data" not in given else _listed(given["data"])
    if numbers.size != math.prod(shape):
        raise Refusal(
            "invalid-request", f"inputs: found {numbers.size:,} numbers for the shape {shape}"
        )
    if not np.isfinite(numbers).all():
        raise Refusal("invalid-request", "inputs: found NaN or infinity")
    return numbers.reshape(shape)


def _is_shape(shape: Any, row: list[int], most: int) -> TypeGuard[list[int]]:
    """Tell whether it is the shape of 1 to `most` rows; 3.0 and true are no sizes."""
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        return False
    return shape[1:] == row and 1 <= shape[0] <= most


def _binary(given: dict[str, Any], binary: bytes) -> np.ndarray:
    parameters = given.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if type(size) is not int or size != len(binary) or size % BYTES:
        raise Refusal("invalid-request", "inputs: expected data, or binary data of that size")
    return np.frombuffer(binary, "<f4").astype(np.float32)


def _listed(data: Any) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            return np.asarray(data, np.float64).astype(np.float32).ravel()
    except (ValueError, TypeError, OverflowError) as error:
        raise Refusal("invalid-request", "inputs: data: expected numbers only") from error


def _answer(served: Served, asked: dict[str, Any], output: np.ndarray) -> Response:
    name = _names(served)[1]
    tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(output.shape)}
    content: dict[str, Any] = {
        "model_name": served.name,
        "model_version": served.version,
        "parameters": {"precision": served.engine.precision},
    }
    if isinstance(asked.get("id"), str):
        content["id"] = asked["id"]
    if not _wants_binary(asked, name):
        tensor["data"] = output.ravel().tolist()
        return Response(json.dumps({**content, "outputs": [tensor]}), media_type="application/json")
    raw = output.astype("<f4").tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({**content, "outputs": [tensor]}).encode()
    return Response(
        head + raw, media_type="application/octet-stream", headers={LENGTH: str(len(head))}
    )


def _wants_binary(asked: dict[str, Any], name: str) -> bool:
    """Tell whether the output is wanted raw: by the request as a whole, or for this output."""
    every = asked.get("parameters")
    wanted = isinstance(every, dict) and every.get("binary_data_output") is True
    outputs = asked.get("outputs")
    for one in outputs if isinstance(outputs, list) else ():
        if not isinstance(one, dict) or one.get("name") != name:
            raise Refusal("invalid-request", f"outputs: there is only {name!r}")
        parameters = one.get("parameters")
        if isinstance(parameters, dict) and "binary_data" in parameters:
            wanted = parameters["binary_data"] is True
    return wanted
