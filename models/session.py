"""One onnxruntime session for all who run an artifact: verify, classify, evaluate, the service."""

import contextlib
import importlib
import importlib.metadata
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from models.errors import ArtifactError, DeviceError
from models.spec import ModelSpec

Device = Literal["cuda", "cpu"]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# TensorFloat-32, onnxruntime's default on GPUs since 2020, keeps ten bits of a product: then the
# service would not give the numbers that were verified.
EXACT_CUDA = (CUDA, {"use_tf32": "0"})

ERROR, FATAL = 3, 4  # onnxruntime's names for what it logs: 2 is warning

# What onnxruntime puts before the sentence that helps: its code, our own path, its C++ signature.
_PREFIXES = (
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from .* failed:"),
    re.compile(r"/\S+:\d+ [^(]*\(.*?\) (?=[A-Z])"),
    re.compile(r"This is an invalid model\. "),
)
_REASON_LENGTH = 200  # one line of a terminal or two; graph errors may list every node


class Session:
    """A loaded ONNX model on the device that it really got.

    Attributes:
        where: The model's file, for messages.
        input_names: Names of the inputs, in the order `run` takes them.
        input_shapes: Their shapes; a free dimension is a name or None.
        output_names: Names of the outputs, in the order `run` gives them.
        metadata: The texts that the file carries besides the network.
        device: What computes.
        reason: One line that says what computes, and why.
        version: Of onnxruntime.
    """

    def __init__(
        self,
        model: Path | bytes,
        device: Literal["auto", "cuda", "cpu"] = "cpu",
        threads: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Load `model`; `auto` takes the GPU when it really can be had.

        Args:
            model: An .onnx file, or the bytes of one.
            device: Where it is to run; `cuda` is never answered with the CPU.
            threads: Threads within one operator on the CPU; None leaves it to onnxruntime.
            options: Further entries of onnxruntime's session configuration, or `save_to`: where to
                write the graph as it is run here; or `as_is`: it was written so.

        Raises:
            ArtifactError: The file is missing, no ONNX model, or damaged.
            DeviceError: CUDA was asked for and cannot be had, or onnxruntime is not usable.
        """
        self.where = "the model's bytes" if isinstance(model, bytes) else str(model)
        if isinstance(model, Path) and not model.is_file():
            what = "a folder, expected an .onnx file" if model.is_dir() else "no such file"
            raise ArtifactError(f"{self.where}: {what}")
        self._runtime = runtime()
        self.version: str = self._runtime.__version__
        self._options = dict(options or {})
        self._session, self.device, self.reason = self._open(model, device, threads)
        self.input_names = tuple(value.name for value in self._session.get_inputs())
        self.input_shapes = tuple(tuple(value.shape) for value in self._session.get_inputs())
        self.output_names = tuple(value.name for value in self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    @property
    def spec(self) -> ModelSpec:
        """What a user of the model must know, read from the file itself.

        Raises:
            ArtifactError: The file carries no spec, or one that this relume cannot read.
        """
        return ModelSpec.of_metadata(self.metadata, self.where)

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return every output for `inputs`, both in the order of their names.

        Raises:
            ArtifactError: The model does not take these inputs, or fails on them.
        """
        if len(inputs) != len(self.input_names):
            raise ArtifactError(
                f"{self.where}: found {len(inputs)} inputs, "
                f"expected {len(self.input_names)}: {', '.join(self.input_names)}"
            )
        feed = dict(zip(self.input_names, inputs, strict=True))
        try:
            return list(self._session.run(None, feed))
        except _failures() as error:
            raise ArtifactError(f"{self.where}: cannot run: {_short(error)}") from error

    def _open(
        self, model: Path | bytes, device: str, threads: int | None
    ) -> tuple[Any, Device, str]:
        if device == "cpu":
            return self._create(model, [CPU], threads), "cpu", "cpu: asked for"
        if CUDA not in self._runtime.get_available_providers():
            why = f"onnxruntime {self._runtime.__version__} is installed without CUDA"
            cure = "pip uninstall onnxruntime, then pip install 'relume[gpu]'"
        else:
            session, why = self._try_cuda(model, threads)
            if session is not None:
                return session, "cuda", f"cuda: {'asked for' if device == 'cuda' else why}"
            cure = "`nvidia-smi` must list a GPU; pip install 'relume[gpu]' brings the libraries"
        if device == "cuda":
            raise DeviceError(f"CUDA was asked for, and {why}: {cure}; or ask for the device cpu")
        return self._create(model, [CPU], threads), "cpu", f"cpu: {why}"

    def _try_cuda(self, model: Path | bytes, threads: int | None) -> tuple[Any | None, str]:
        """Return a session on the GPU, or None, and why it came to that.

        A build with CUDA on a machine without only logs so and computes on the CPU, hence the look
        at what the session got.
        """
        version = self._runtime.__version__
        said = io.StringIO()
        with contextlib.redirect_stdout(said), self._logging(FATAL):
            if hasattr(self._runtime, "preload_dlls"):
                self._runtime.preload_dlls()
            try:
                session = self._create(model, [EXACT_CUDA, CPU], threads, enable_fallback=0)
            except (RuntimeError, ValueError) as error:  # what a provider that fails to start gives
                return None, f"onnxruntime-gpu {version} could not start CUDA: {_short(error)}"
        if CUDA in session.get_providers():
            return session, f"onnxruntime-gpu {version} got it"
        first = said.getvalue().partition("\n")[0] or "no driver or no GPU was found"
        return None, f"onnxruntime-gpu {version} fell back to the CPU: {first}"

    def _create(
        self,
        model: Path | bytes,
        providers: list[Any],
        threads: int | None,
        **options: int,
    ) -> Any:
        settings = self._runtime.SessionOptions()
        settings.log_severity_level = ERROR
        if threads is not None:
            settings.intra_op_num_threads = threads
        for key, value in self._options.items():
            self._set(settings, key, value)
        source = model if isinstance(model, bytes) else str(model)
        try:
            return self._runtime.InferenceSession(source, settings, providers=providers, **options)
        except _failures() as error:
            raise ArtifactError(
                f"{self.where}: not an ONNX model that onnxruntime {self._runtime.__version__} "
                f"can load: {_short(error)}"
            ) from error

    def _set(self, settings: Any, key: str, value: str) -> None:
        if key == "save_to":
            settings.optimized_model_filepath = value
        elif key == "as_is":
            settings.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        else:
            settings.add_session_config_entry(key, value)

    @contextlib.contextmanager
    def _logging(self, severity: int) -> Iterator[None]:
        self._runtime.set_default_logger_severity(severity)
        try:
            yield
        finally:
            self._runtime.set_default_logger_severity(ERROR)


class BoundRun:
    """Runs batches of one size through memory that is laid out on the device once."""

    def __init__(self, session: Session, size: int) -> None:
        """Prepare the memory; `size` rows of the model's only input, which is float32."""
        self._session = session
        self._run = session._session
        shape = (size, *session.input_shapes[0][1:])
        value = session._runtime.OrtValue
        self._input = value.ortvalue_from_shape_and_type(shape, np.float32, session.device)
        self._binding = self._run.io_binding()
        self._binding.bind_ortvalue_input(session.input_names[0], self._input)
        self._binding.bind_output(session.output_names[0], session.device)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the first output for a batch of that size.

        Raises:
            ArtifactError: The model fails on it.
        """
        # RuntimeError: rows of another shape
        kinds: tuple[type[Exception], ...] = (RuntimeError, *_failures())
        try:
            self._input.update_inplace(np.ascontiguousarray(batch))
            self._run.run_with_iobinding(self._binding)
            output: np.ndarray = self._binding.copy_outputs_to_cpu()[0]
        except kinds as error:
            raise ArtifactError(f"{self._session.where}: cannot run: {_short(error)}") from error
        return output


def sharing_sessions(model: Path, threads: Sequence[int]) -> list[Session]:
    """Return sessions on the CPU, each with so many threads, that hold the weights once.

    A session lays the weights out for its kernels in memory of its own. So the graph is laid out
    once and written to a temporary folder, its weights in a file beside it, which every session
    maps. The maps outlive the files, so nothing is left behind.

    Raises:
        ArtifactError: The file is missing, no ONNX model, or damaged.
        DeviceError: onnxruntime is not usable.

    Source: onnxruntime include/onnxruntime/core/session/onnxruntime_session_options_config_keys.h.
    """
    if len(set(threads)) == 1:
        return [Session(model, "cpu", threads[0])] * len(threads)
    with tempfile.TemporaryDirectory(prefix="relume-") as folder:
        laid_out = Path(folder) / "model.onnx"
        external = "session.optimized_model_external_initializers_"
        first = Session(
            model,
            "cpu",
            1,
            {
                "save_to": str(laid_out),
                f"{external}file_name": "weights",
                f"{external}min_size_in_bytes": "1024",
                "session.disable_prepacking": "1",  # it is not run
            },
        )
        del first
        sessions = [Session(laid_out, "cpu", count, {"as_is": "1"}) for count in threads]
    for session in sessions:
        session.where = str(model)
    return sessions


def runtime() -> ModuleType:
    """Return the onnxruntime that is installed, quiet below errors and without its telemetry.

    It is imported here and not above, so that the rest of relume works, and can say what to do,
    where none or a broken one is installed.

    Raises:
        DeviceError: There is none, or two that have overwritten each other's files.

    Source: onnxruntime Privacy.md, on what it sends and what stops that.
    """
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise DeviceError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall onnxruntime onnxruntime-gpu, "
            "then pip install 'relume[cpu]' or 'relume[gpu]'"
        )
    # From 1.29 on it reports each model that is loaded to its maker, unless told before its import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        module = importlib.import_module("onnxruntime")
        module.set_default_logger_severity(ERROR)
    except (ImportError, AttributeError) as error:  # left-overs of an uninstall import as empty
        raise DeviceError(
            f"onnxruntime cannot be imported ({error}): pip install 'relume[cpu]', "
            "or pip install 'relume[gpu]' for an NVIDIA GPU"
        ) from error
    return module


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _failures() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises; its classes have no ancestor of their own."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return tuple(kind for kind in kinds if issubclass(kind, Exception))


def _short(error: Exception) -> str:
    """Return the sentence of `error` that helps, without onnxruntime's own whereabouts."""
    text = " ".join(str(error).split())
    for prefix in _PREFIXES:
        text = prefix.sub("", text, count=1)
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]}…"
