"""OpenVINO on the CPU, an extra: the same .onnx file, in bfloat16 and int8 where the cores can."""

import importlib
import queue
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from models.cores import usable_cores
from models.engines import BATCH_CPU, Engine, EngineOptions, Shape, stored_precision
from models.errors import ArtifactError, DeviceError
from models.self_test import PICTURES

_HINTS = {"float32": "f32", "bf16": "bf16"}
_REASON_LENGTH = 200


class OpenVino(Engine):
    """OpenVINO on the CPU: one run on all cores, or one on each."""

    def __init__(self, model: Path, options: EngineOptions) -> None:
        """Compile the model twice: for one run, and for one on each core.

        Raises:
            ArtifactError: The file is missing, no ONNX model, or damaged.
            DeviceError: OpenVINO is not installed, or cannot do here what was asked for.
        """
        if options.device == "cuda":
            raise DeviceError("CUDA was asked for, which OpenVINO does not have: use onnxruntime")
        if not model.is_file():
            raise ArtifactError(f"{model}: no such file")
        self._openvino = runtime()
        core = self._openvino.Core()
        _refuse_emulation(core, options.precision)
        self.where, self.device = str(model), "cpu"
        self.name = f"openvino {self._openvino.__version__.partition('-')[0]}"
        self.reason = "cpu: OpenVINO was asked for"
        self.lanes = options.threads or usable_cores()
        self.max_batch = options.max_batch or BATCH_CPU
        self.sizes = (min(PICTURES, self.max_batch),)
        try:
            network = core.read_model(str(model))
            self.inputs = _inputs(network)
            self.metadata = _metadata(network)
            self._wide = _Requests(self._compiled(core, network, options, streams=1), 1)
            self._narrow = _Requests(
                self._compiled(core, network, options, streams=self.lanes), self.lanes
            )
        except RuntimeError as error:  # all that OpenVINO raises
            raise ArtifactError(
                f"{model}: not an ONNX model that {self.name} can load: {_short(error)}"
            ) from error
        stored = stored_precision(self.metadata, self.where)
        self.precision = stored if stored != "float32" else options.precision

    def run(self, batch: np.ndarray, *, alone: bool) -> np.ndarray:
        """Return the first output for a batch; `alone` lends it every core."""
        try:
            return (self._wide if alone else self._narrow).run(batch)
        except RuntimeError as error:
            raise ArtifactError(f"{self.where}: cannot run: {_short(error)}") from error

    def _compiled(self, core: Any, network: Any, options: EngineOptions, *, streams: int) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[options.precision],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": self.lanes,
            "ENABLE_CPU_PINNING": False,  # the cores are shared with decoding, and with others
        }
        return core.compile_model(network, "CPU", settings)


class _Requests:
    """As many requests as may run at once; each has memory of its own."""

    def __init__(self, compiled: Any, count: int) -> None:
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(compiled.create_infer_request())

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the first output, as an array of its own."""
        request = self._free.get()
        try:
            request.infer([np.ascontiguousarray(batch)], share_inputs=True)
            output: np.ndarray = np.array(request.get_output_tensor(0).data)
        finally:
            self._free.put(request)
        return output


def _refuse_emulation(core: Any, precision: str) -> None:
    """Raise DeviceError for bfloat16 on cores without it, which would be computed in float32."""
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise DeviceError(
            "bf16 was asked for, and this processor does not compute in it: ask for float32, or "
            "make an int8 file by `relume quantize`"
        )


def _inputs(network: Any) -> Sequence[tuple[str, Shape]]:
    return [
        (
            one.get_any_name(),
            [None if size.is_dynamic else size.get_length() for size in one.get_partial_shape()],
        )
        for one in network.inputs
    ]


def _metadata(network: Any) -> Mapping[str, str]:
    """Return the texts that the file carries, which OpenVINO keeps as of the `framework`."""
    if not network.has_rt_info("framework"):
        return {}
    texts: dict[str, Any] = network.get_rt_info("framework").astype(dict)
    return {key: str(network.get_rt_info(["framework", key]).astype(str)) for key in texts}


def runtime() -> ModuleType:
    """Return the OpenVINO that is installed, without its telemetry.

    Raises:
        DeviceError: There is none.
    """
    without_telemetry()
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise DeviceError(
            f"OpenVINO cannot be imported ({error}): pip install 'relume[openvino]'"
        ) from error


def without_telemetry() -> None:
    """Refuse the import of the package by which OpenVINO and NNCF report to their maker.

    Source: openvino tools/ovc/openvino/tools/ovc/telemetry_utils.py and nncf telemetry/wrapper.py;
    both do without `openvino_telemetry` where it cannot be imported.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # None refuses the import


def _short(error: Exception) -> str:
    """Return the last sentence of OpenVINO's message; before it come its own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in reversed(lines) if not line.startswith("Exception from")), "?")
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]}…"
