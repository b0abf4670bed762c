"""The Open Inference Protocol: tensors in and out, as JSON and raw."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from models.self_test import pictures
from models.session import Session
from service.inference_protocol import LENGTH
from service.pipeline import Pipeline
from tests.service.conftest import Serve
from tests.service.test_app import problem
from tests.tiny_onnx import INPUT, LABELS, SIDE, Tiny

pytestmark = pytest.mark.anyio
ROWS = pictures(INPUT)
ATOL = 1e-5  # a product of 192 numbers, in another order
INFER = "/v2/models/tiny/infer"


def tensor(**changes: Any) -> dict[str, Any]:
    """Return the request's only tensor."""
    given = {"name": "image", "shape": [2, 3, SIDE, SIDE], "datatype": "FP32"}
    return {**given, "data": ROWS.ravel().tolist(), **changes}


def raw(rows: np.ndarray, **changes: Any) -> dict[str, Any]:
    """Return a request whose tensor stands behind its JSON."""
    data = rows.astype("<f4").tobytes()
    given = tensor(parameters={"binary_data_size": len(data)})
    del given["data"]
    head = json.dumps({"inputs": [given], **changes}).encode()
    return {"content": head + data, "headers": {LENGTH: str(len(head))}}


@pytest.fixture
def expected() -> np.ndarray:
    """Return what onnxruntime gives for the rows."""
    return Session(Tiny().bytes()).run(ROWS)[0]


async def test_a_client_learns_what_there_is(serve: Serve) -> None:
    """Server, health, and what the model takes and gives, with and without its version."""
    async with serve() as client:
        answers = [(await client.get(f"/v2{path}")).json() for path in ("", "/health/live")]
        assert answers[0]["name"] == "relume"
        assert answers[1] == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        found = (await client.get("/v2/models/tiny")).json()
        (version,) = found["versions"]
        assert found["inputs"] == [
            {"name": "image", "datatype": "FP32", "shape": [-1, 3, SIDE, SIDE]}
        ]
        assert found["outputs"] == [
            {"name": "output", "datatype": "FP32", "shape": [-1, len(LABELS)]}
        ]
        assert (await client.get(f"/v2/models/tiny/versions/{version}")).json() == found
        ready = await client.get(f"/v2/models/tiny/versions/{version}/ready")
        assert ready.json() == {"ready": True, "name": "tiny"}
        assert (await client.get("/v2/models/other/ready")).status_code == 404


async def test_numbers_in_json_give_the_networks_own(serve: Serve, expected: np.ndarray) -> None:
    """The last layer as it is; the request's id comes back."""
    async with serve() as client:
        answer = await client.post(INFER, json={"id": "7", "inputs": [tensor()]})
        page = (await client.get("/metrics")).text
    for stage in ("queue", "inference"):
        assert f'relume_stage_seconds_count{{model="tiny",stage="{stage}"}} 2.0' in page
    assert 'stage="decode"' not in page
    content = answer.json()
    assert (content["id"], content["model_name"]) == ("7", "tiny")
    assert content["parameters"] == {"precision": "float32"}
    (output,) = content["outputs"]
    assert output["shape"] == [2, len(LABELS)]
    assert np.array(output["data"]) == pytest.approx(expected.ravel(), abs=ATOL)


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "output", "parameters": {"binary_data": True}}]},
    ],
    ids=["of all", "of this"],
)
async def test_raw_numbers_go_both_ways(
    serve: Serve, expected: np.ndarray, asked: dict[str, Any]
) -> None:
    """As Triton's clients send and want them."""
    async with serve() as client:
        answer = await client.post(INFER, **raw(ROWS, **asked))
    length = int(answer.headers[LENGTH])
    head = json.loads(answer.content[:length])
    size = head["outputs"][0]["parameters"]["binary_data_size"]
    assert size == len(answer.content) - length
    got = np.frombuffer(answer.content[length:], "<f4").reshape(expected.shape)
    np.testing.assert_allclose(got, expected, atol=ATOL)


@pytest.mark.parametrize(
    ("inputs", "detail"),
    [
        pytest.param([], "inputs: expected a list of one tensor", id="none"),
        pytest.param([tensor(), tensor()], "expected a list of one tensor", id="two"),
        pytest.param([tensor(name="x")], "expected 'image' with the datatype FP32", id="name"),
        pytest.param([tensor(datatype="INT8")], "with the datatype FP32", id="datatype"),
        pytest.param([tensor(shape=[2, 3, 4, 4])], "expected the shape [1 to 32, 3, 8", id="size"),
        pytest.param([tensor(shape=[0, 3, SIDE, SIDE])], "expected the shape", id="no rows"),
        pytest.param([tensor(shape=[99, 3, SIDE, SIDE])], "expected the shape", id="many"),
        pytest.param([tensor(shape=[])], "expected the shape", id="no shape"),
        pytest.param([tensor(shape=[2, 3.0, SIDE, SIDE])], "expected the shape", id="float"),
        pytest.param([tensor(shape=[True, 3, SIDE, SIDE])], "expected the shape", id="bool"),
        pytest.param([tensor(data=[1.0])], "found 1 numbers for the shape", id="numbers"),
        pytest.param([tensor(data=["x"])], "data: expected numbers only", id="text"),
        pytest.param([tensor(data=[[1], [1, 2]])], "expected numbers only", id="ragged"),
        pytest.param([tensor(data=[1e300] * ROWS.size)], "found NaN or infinity", id="too large"),
    ],
)
async def test_what_is_no_batch_is_a_problem(serve: Serve, inputs: Any, detail: str) -> None:
    """With `error`, as the protocol wants, beside our own members."""
    async with serve() as client:
        answer = await client.post(INFER, json={"inputs": inputs})
    assert problem(answer) == "invalid-request"
    assert detail in answer.json()["error"]


async def test_rows_that_never_fit_are_refused_for_good(serve: Serve) -> None:
    """More than may wait and run at once, that is."""
    async with serve(queue=1, max_batch=1) as client:
        many = tensor(shape=[3, 3, SIDE, SIDE])
        answer = await client.post(INFER, json={"inputs": [many]})
    assert "expected the shape [1 to 2, 3" in answer.json()["error"]


async def test_damaged_raw_requests_are_problems(serve: Serve) -> None:
    """A length that is none, or of more than there is, and another size than was said."""
    sent = raw(ROWS)
    async with serve() as client:
        for length in ("x", str(len(sent["content"]) + 1), "9" * 5000):
            answer = await client.post(INFER, content=sent["content"], headers={LENGTH: length})
            assert problem(answer) == "malformed-request"
        cut = {**sent, "content": sent["content"][:-4]}
        answer = await client.post(INFER, **cut)
        assert "expected data, or binary data of that size" in answer.json()["detail"]
        other = await client.post(INFER, **raw(ROWS, outputs=[{"name": "x"}]))
        assert other.json()["detail"] == "outputs: there is only 'output'"


async def test_a_row_that_fails_is_500(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the network is the service's, not the client's."""

    def fails(pipeline: Pipeline, jobs: list[object], alone: bool) -> None:
        raise ArithmeticError("broken")

    async with serve() as client:
        found = await client.get("/models")
        assert found.status_code == 200
        monkeypatch.setattr(Pipeline, "_run", fails)
        answer: httpx.Response = await client.post(INFER, json={"inputs": [tensor()]})
    assert problem(answer) == "internal-error"
