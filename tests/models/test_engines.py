"""Engines give one network's numbers, say what they are, and are caught if they do not."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import openvino_engine, session
from models.engines import EngineOptions, OnnxCpu, OnnxCuda, check_engine, open_engine
from models.errors import ArtifactError, DeviceError, ParityError
from models.self_test import SelfTest, pictures
from models.session import BoundRun, Session, sharing_sessions
from tests.oracles import ROOT
from tests.tiny_onnx import INPUT, SIDE, Tiny

CPU = EngineOptions(device="cpu", threads=2)
OPENVINO = replace(CPU, engine="openvino")
ATOL = 1e-5  # a product of 192 numbers, summed in another order
has_openvino = pytest.mark.skipif(
    not any((Path(path) / "openvino").is_dir() for path in sys.path), reason="needs OpenVINO"
)


def annotated(path: Path, tiny: Tiny | None = None, **texts: str) -> Path:
    """Write a tiny artifact with more metadata."""
    model = (tiny or Tiny()).model()
    for key, value in texts.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def self_test(path: Path, *, off: float = 0.0) -> str:
    """Return the self-test of an artifact; `off` by so much."""
    outputs = Session(path).run(pictures(INPUT))[0]
    return SelfTest(outputs + np.float32(off), 1e-5).to_json()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return a tiny artifact."""
    return Tiny().write(tmp_path / "tiny.onnx")


@pytest.mark.parametrize(
    "options", [CPU, pytest.param(OPENVINO, marks=has_openvino)], ids=["onnxruntime", "openvino"]
)
def test_both_ways_to_run_give_the_same_numbers(tiny: Path, options: EngineOptions) -> None:
    """Alone on all cores or one of several: the answer is the network's."""
    engine = open_engine(tiny, options)
    batch = np.random.default_rng(7).standard_normal((5, 3, SIDE, SIDE), np.float32)
    expected = Session(tiny).run(batch)[0]
    for alone in (True, False):
        assert np.abs(engine.run(batch, alone=alone) - expected).max() <= ATOL
    assert (engine.lanes, engine.device, engine.precision) == (2, "cpu", "float32")
    assert engine.name.startswith(options.engine)
    assert engine.reason.startswith("cpu: ")
    assert engine.metadata["model_spec"]
    assert len(engine.inputs) == 1
    name, shape = engine.inputs[0]
    assert name == "image"
    assert list(shape[1:]) == [3, SIDE, SIDE]
    assert not isinstance(shape[0], int)


@pytest.mark.parametrize(
    "options", [CPU, pytest.param(OPENVINO, marks=has_openvino)], ids=["onnxruntime", "openvino"]
)
def test_runs_at_the_same_time_keep_their_own_answers(tiny: Path, options: EngineOptions) -> None:
    """More threads than lanes, each with its own rows, and every answer is its own."""
    engine = open_engine(tiny, options)
    generator = np.random.default_rng(11)
    batches = [
        generator.standard_normal((1 + at % 3, 3, SIDE, SIDE), np.float32) for at in range(8)
    ]
    expected = [Session(tiny).run(batch)[0] for batch in batches]
    wrong: list[int] = []

    def work(at: int) -> None:
        for _ in range(20):
            if np.abs(engine.run(batches[at], alone=at == 0) - expected[at]).max() > ATOL:
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_sessions_that_share_weights_leave_nothing_behind(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that they were opened from is gone, they name the model, and they work."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(session.tempfile, "tempdir", str(scratch))
    wide, narrow = sharing_sessions(tiny, [2, 1])
    assert list(scratch.iterdir()) == []
    assert wide.where == narrow.where == str(tiny)
    batch = pictures(INPUT)
    np.testing.assert_array_equal(wide.run(batch)[0], narrow.run(batch)[0])
    assert wide.metadata == Session(tiny).metadata


def test_one_thread_needs_one_session(tiny: Path) -> None:
    """On one core both ways are the same."""
    wide, narrow = sharing_sessions(tiny, [1, 1])
    assert wide is narrow


def test_bound_memory_gives_the_same_numbers(tiny: Path) -> None:
    """Runs through memory laid out once do not mix with those before; the CPU is a device, too."""
    opened = Session(tiny)
    run = BoundRun(opened, 2)
    generator = np.random.default_rng(5)
    outputs = []
    for _ in range(3):
        batch = generator.standard_normal((2, 3, SIDE, SIDE), np.float32)
        outputs.append((run.run(batch), opened.run(batch)[0]))
    for bound, plain in outputs:
        np.testing.assert_array_equal(bound, plain)
    with pytest.raises(ArtifactError, match=r"tiny\.onnx: cannot run: "):
        run.run(np.zeros((3, 3, SIDE, SIDE), np.float32))


@pytest.mark.parametrize(("most", "sizes"), [(1, (1,)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_a_gpu_meets_few_batch_sizes(tiny: Path, most: int, sizes: tuple[int, ...]) -> None:
    """Batches are filled up to the next of them, and the filling is not in the answer."""
    engine = OnnxCuda(Session(tiny), most)
    assert engine.sizes == sizes
    rows = np.random.default_rng(3).standard_normal((most, 3, SIDE, SIDE), np.float32)
    for count in range(1, most + 1):
        batch = rows[:count]
        got = engine.run(batch, alone=False)
        np.testing.assert_allclose(got, Session(tiny).run(batch)[0], atol=ATOL)
    assert set(engine._bound) <= set(sizes)


def test_a_gpu_takes_a_fixed_batch_one_by_one(tmp_path: Path) -> None:
    """A file of one image at a time is warmed up for that."""
    engine = OnnxCuda(Session(Tiny(batch=1).write(tmp_path / "one.onnx")), 8)
    assert engine.sizes == (1,)
    assert engine.run(pictures(INPUT)[:1], alone=True).shape == (1, 7)


def test_auto_takes_what_there_is_and_says_why(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA the CPU runs it; the reason is onnxruntime's."""
    monkeypatch.setattr(session.runtime(), "get_available_providers", lambda: [session.CPU])
    engine = open_engine(tiny, replace(CPU, device="auto"))
    assert isinstance(engine, OnnxCpu)
    assert "is installed without CUDA" in engine.reason


def test_onnxruntime_has_no_bf16(tiny: Path) -> None:
    """A precision that would not be computed is refused, with what would."""
    with pytest.raises(DeviceError, match="bf16 was asked for, and onnxruntime computes in what"):
        open_engine(tiny, replace(CPU, precision="bf16"))


@has_openvino
def test_openvino_refuses_what_it_cannot_do(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU, a file that is not there or no model, and bfloat16 on cores without it."""
    with pytest.raises(DeviceError, match="CUDA was asked for, which OpenVINO does not have"):
        open_engine(tiny, replace(OPENVINO, device="cuda"))
    with pytest.raises(ArtifactError, match=r"gone\.onnx: no such file"):
        open_engine(tmp_path / "gone.onnx", OPENVINO)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    with pytest.raises(
        ArtifactError, match=r"bad\.onnx: not an ONNX model that openvino .* load: "
    ):
        open_engine(bad, OPENVINO)
    with pytest.raises(ArtifactError, match=r"tiny\.onnx: cannot run: "):
        open_engine(tiny, OPENVINO).run(np.zeros((1, 3, 4, 4), np.float32), alone=True)

    class Old:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    with pytest.raises(DeviceError, match="this processor does not compute in it"):
        openvino_engine._refuse_emulation(Old(), "bf16")


def test_without_openvino_the_extra_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional, so its absence is a sentence."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceError, match=r"OpenVINO cannot be imported .*relume\[openvino\]"):
        open_engine(tiny, OPENVINO)


@has_openvino
def test_openvino_reports_to_nobody(tiny: Path, tmp_path: Path) -> None:
    """Its telemetry writes an id into the home folder before it sends; none is written."""
    code = (
        "import sys; from pathlib import Path; from models.engines import *; "
        "open_engine(Path(sys.argv[1]), EngineOptions(engine='openvino', device='cpu'))"
    )
    environ = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, str(tiny)], check=True, cwd=ROOT, env=environ)
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize(
    "options", [CPU, pytest.param(OPENVINO, marks=has_openvino)], ids=["onnxruntime", "openvino"]
)
def test_an_engine_is_held_against_the_self_test(
    tiny: Path, tmp_path: Path, options: EngineOptions
) -> None:
    """The right numbers pass and the margin is told; a self-test that is off is an error."""
    good = annotated(tmp_path / "good.onnx", self_test=self_test(tiny))
    said = check_engine(open_engine(good, options), INPUT)
    assert said.startswith("the artifact's self-test: off by ")
    bad = annotated(tmp_path / "bad.onnx", self_test=self_test(tiny, off=1e-3))
    with pytest.raises(ParityError, match=rf"bad\.onnx: {options.engine} .*: differs from the"):
        check_engine(open_engine(bad, options), INPUT)


class Wrong(OnnxCpu):
    """An engine that gives something else when it is not alone."""

    def run(self, batch: np.ndarray, *, alone: bool) -> np.ndarray:
        return super().run(batch, alone=alone) + (0 if alone else 1)


def test_an_old_artifact_is_held_against_onnxruntime(tiny: Path) -> None:
    """Without a self-test the measured engine stands in, so a wrong one is found all the same."""
    said = check_engine(open_engine(tiny, CPU), INPUT)
    assert said == "onnxruntime, for want of a self-test: off by 0% of what float32 may be"
    with pytest.raises(ParityError, match="differs from the artifact's self-test by 1[.,]"):
        check_engine(Wrong(tiny, CPU, "cpu: here"), INPUT)


def test_every_batch_size_is_checked(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that is wrong at one size only is found; a fixed size is the only one run."""
    sizes: list[int] = []
    engine = OnnxCuda(Session(tiny), 5)
    plain = engine.run

    def spied(batch: np.ndarray, *, alone: bool) -> np.ndarray:
        sizes.append(len(batch))
        return plain(batch, alone=alone) + (len(batch) == 5)

    monkeypatch.setattr(engine, "run", spied)
    with pytest.raises(ParityError, match="differs from the artifact's self-test"):
        check_engine(engine, INPUT)
    assert sizes == [1, 1, 2, 4, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged precision"),
        ("[]", "damaged precision"),
        pytest.param("[" * 200_000, "damaged precision", id="deep"),
        (json.dumps({"name": "int4"}), "found the precision 'int4', expected fp16 or int8"),
    ],
)
def test_a_precision_that_cannot_be_read_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    """A file that says it holds something unknown is not served as float32."""
    path = annotated(tmp_path / "odd.onnx", precision=text)
    with pytest.raises(ArtifactError, match=rf"odd\.onnx: {message}"):
        open_engine(path, CPU)


@pytest.mark.parametrize("options", [CPU, pytest.param(OPENVINO, marks=has_openvino)])
def test_a_file_says_its_precision(tmp_path: Path, options: EngineOptions) -> None:
    """What was quantised is called so, whatever runs it."""
    path = annotated(tmp_path / "q.onnx", precision=json.dumps({"name": "int8"}))
    assert open_engine(path, options).precision == "int8"
