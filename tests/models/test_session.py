"""One session type: what it loads, where it really runs, and what it says when it cannot."""

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models import session
from models.errors import ArtifactError, DeviceError
from models.session import CPU, CUDA, Session
from tests.tiny_onnx import LABELS, SIDE, Tiny, spec, weight

onnxruntime = session.runtime()  # not imported above: that would start its telemetry
BATCH = np.linspace(-1, 1, 2 * 3 * SIDE * SIDE, dtype=np.float32).reshape(2, 3, SIDE, SIDE)
ROOT = Path(__file__).resolve().parents[2]
ATOL = 1e-5  # sums of 192 products below 1 in float32


def test_a_file_and_its_bytes_are_the_same_model(tmp_path: Path) -> None:
    """A path and the content behind it give equal sessions, named as the file names things."""
    path = Tiny().write(tmp_path / "tiny.onnx")
    for model in (path, path.read_bytes()):
        loaded = Session(model)
        assert loaded.input_names == ("image",)
        assert loaded.input_shapes == (("N", 3, SIDE, SIDE),)
        assert loaded.output_names == ("logits",)
        (logits,) = loaded.run(BATCH)
        np.testing.assert_allclose(logits, BATCH.reshape(2, -1) @ weight() * 4, atol=ATOL)


def test_the_spec_is_read_from_the_file() -> None:
    """An artifact describes itself: labels, input and name need no second file."""
    loaded = Session(Tiny().bytes())
    assert loaded.spec == spec()
    assert set(loaded.metadata) == {"model_spec"}


def test_a_file_without_spec_is_not_ours() -> None:
    """An ONNX model from elsewhere says what it lacks, once its spec is asked for."""
    foreign = Session(Tiny(spec=None).bytes())
    with pytest.raises(ArtifactError, match="model's bytes: carries no model_spec: it was not wri"):
        _ = foreign.spec


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"no model at all", "Protobuf parsing failed", id="foreign bytes"),
        pytest.param(Tiny().bytes()[:-10], "Protobuf parsing failed", id="cut off"),
        pytest.param(b"", "(No graph was found|ModelProto)", id="empty"),
        pytest.param(Tiny(operator="Nope").bytes(), "In Node.*No Op registered", id="operator"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    """The file, and onnxruntime's own reason without its code, paths and stack."""
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)
    with pytest.raises(
        ArtifactError,
        match=rf"odd\.onnx: not an ONNX model that onnxruntime [\d.]+ can load: .*{reason}",
    ) as caught:
        Session(path)
    assert "\n" not in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    """What is not a file is said to be none, before onnxruntime sees it."""
    with pytest.raises(ArtifactError, match=r"gone\.onnx: no such file"):
        Session(tmp_path / "gone.onnx")
    with pytest.raises(ArtifactError, match="a folder, expected an .onnx file"):
        Session(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param([BATCH[:, :2]], "cannot run: Got invalid dimensions", id="shape"),
        pytest.param([BATCH.astype(np.float64)], "cannot run: Unexpected input data", id="type"),
        pytest.param([], "found 0 inputs, expected 1: image", id="none"),
        pytest.param([BATCH, BATCH], "found 2 inputs, expected 1: image", id="two"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: list[np.ndarray], message: str) -> None:
    """An input of another number, shape or type is our error, in one line."""
    with pytest.raises(ArtifactError, match=message) as caught:
        Session(Tiny().bytes()).run(*inputs)
    assert "\n" not in str(caught.value)


def test_a_long_reason_is_cut() -> None:
    """A reason that goes on for pages ends after a line or two."""
    assert len(session._short(ValueError("word " * 1000))) < 210


def test_the_cpu_serves_when_asked() -> None:
    """The device cpu is the CPU, with as many threads as wanted."""
    loaded = Session(Tiny().bytes(), "cpu", threads=1)
    assert (loaded.device, loaded.reason) == ("cpu", "cpu: asked for")
    assert loaded._session.get_session_options().intra_op_num_threads == 1


class FakeRuntime:
    """An onnxruntime-gpu: `got` are the providers that its sessions end up with."""

    __version__ = "1.0"
    SessionOptions = onnxruntime.SessionOptions

    def __init__(self, got: list[str] | Exception, said: str = "") -> None:
        self.got, self.said = got, said
        self.severities: list[int] = []
        self.asked: list[list[Any]] = []

    def get_available_providers(self) -> list[str]:
        """List what the build contains, as onnxruntime-gpu does on every machine."""
        return [CUDA, CPU]

    def set_default_logger_severity(self, severity: int) -> None:
        """Note the severity."""
        self.severities.append(severity)

    def preload_dlls(self) -> None:
        """Print what is missing to stdout, as onnxruntime-gpu does."""
        print(self.said)

    def InferenceSession(self, *args: Any, providers: list[Any], **options: int) -> object:
        """Return a session on the CPU if that is asked for, else one that got `got`."""
        self.asked.append(providers)
        if providers == [CPU]:
            return onnxruntime.InferenceSession(*args, providers=providers)
        if isinstance(self.got, Exception):
            raise self.got
        assert options == {"enable_fallback": 0}
        value = SimpleNamespace(name="image", shape=["N"])
        return SimpleNamespace(
            get_providers=lambda: self.got,
            get_inputs=lambda: [value],
            get_outputs=lambda: [value],
            get_modelmeta=lambda: SimpleNamespace(custom_metadata_map={}),
        )


def use(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime) -> FakeRuntime:
    """Let sessions find `runtime` installed."""
    monkeypatch.setattr(session, "runtime", lambda: runtime)
    return runtime


@pytest.mark.parametrize(
    ("device", "reason"),
    [("cuda", "cuda: asked for"), ("auto", "cuda: onnxruntime-gpu 1.0 got it")],
)
def test_cuda_serves_when_it_was_really_got(
    monkeypatch: pytest.MonkeyPatch, device: Any, reason: str
) -> None:
    """Both `cuda` and `auto` run on the GPU when the session says that it does."""
    runtime = use(monkeypatch, FakeRuntime([CUDA, CPU]))
    loaded = Session(b"", device)
    assert (loaded.device, loaded.reason) == ("cuda", reason)
    assert runtime.asked == [[(CUDA, {"use_tf32": "0"}), CPU]]


@pytest.mark.parametrize(
    ("runtime", "why"),
    [
        pytest.param(
            FakeRuntime([CPU]),
            "onnxruntime-gpu 1.0 fell back to the CPU: no driver or no GPU was found",
            id="silent fallback",
        ),
        pytest.param(
            FakeRuntime([CPU], said="Failed to load libcublas.so.13: not found\nmore"),
            "onnxruntime-gpu 1.0 fell back to the CPU: Failed to load libcublas.so.13: not found",
            id="library missing",
        ),
        pytest.param(
            FakeRuntime(RuntimeError("CUDA failure 100: no CUDA-capable device is detected")),
            "onnxruntime-gpu 1.0 could not start CUDA: "
            "CUDA failure 100: no CUDA-capable device is detected",
            id="provider fails",
        ),
    ],
)
def test_a_gpu_build_without_gpu_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runtime: FakeRuntime,
    why: str,
) -> None:
    """`cuda` refuses and says why; `auto` takes the CPU and says why; both without other noise."""
    use(monkeypatch, runtime)
    with pytest.raises(DeviceError, match="CUDA was asked for, and ") as caught:
        Session(Tiny().bytes(), "cuda")
    assert str(caught.value) == (
        f"CUDA was asked for, and {why}: `nvidia-smi` must list a GPU; "
        "pip install 'relume[gpu]' brings the libraries; or ask for the device cpu"
    )
    loaded = Session(Tiny().bytes(), "auto")
    assert (loaded.device, loaded.reason) == ("cpu", f"cpu: {why}")
    assert runtime.severities[-1] == session.ERROR
    assert capsys.readouterr() == ("", "")


def test_a_cpu_build_cannot_give_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """With onnxruntime for the CPU, `cuda` names the package to change and `auto` takes the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(
        DeviceError,
        match=r"without CUDA: pip uninstall onnxruntime, then pip install 'relume\[gpu\]'",
    ):
        Session(Tiny().bytes(), "cuda")
    loaded = Session(Tiny().bytes(), "auto")
    assert loaded.device == "cpu"
    assert loaded.reason.endswith("is installed without CUDA")


def test_two_runtimes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages at once is an error with its cure, not a coin toss."""
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: name)
    with pytest.raises(
        DeviceError,
        match=r"overwrite each other: pip uninstall onnxruntime onnxruntime-gpu, then pip install "
        r"'relume\[cpu\]' or 'relume\[gpu\]'",
    ):
        Session(Tiny().bytes())


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(ModuleNotFoundError("No module named 'onnxruntime'"), id="none"),
        pytest.param(SimpleNamespace(), id="left-overs"),
    ],
)
def test_no_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    """Without onnxruntime, or with the empty folder that an uninstall leaves, the cure is named."""

    def import_module(name: str) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(
        DeviceError,
        match=r"cannot be imported \((No module named 'onnxruntime'|.*no attribute.*)\): "
        r"pip install 'relume\[cpu\]', or pip install 'relume\[gpu\]' for an NVIDIA GPU",
    ):
        session.runtime()


def test_the_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """Loading a model leaves no device id and no queue of events behind, as telemetry would."""
    code = "from models.session import runtime; runtime().SessionOptions()"
    hidden = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environ = {key: value for key, value in os.environ.items() if key not in hidden}
    environ["HOME"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", code], check=True, env=environ, cwd=ROOT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_the_gpu_computes_what_the_cpu_computes() -> None:
    """On a machine with a GPU and onnxruntime-gpu, both devices agree."""
    if CUDA not in onnxruntime.get_available_providers() or shutil.which("nvidia-smi") is None:
        pytest.skip("needs an NVIDIA GPU and pip install 'relume[gpu]'")
    on_gpu, on_cpu = Session(Tiny().bytes(), "cuda"), Session(Tiny().bytes(), "cpu")
    assert on_gpu.device == "cuda"
    np.testing.assert_allclose(
        on_gpu.run(BATCH)[0],
        on_cpu.run(BATCH)[0],
        atol=1e-2,  # TF32 keeps ten bits
    )
    assert on_gpu.run(BATCH)[0].shape == (2, len(LABELS))
