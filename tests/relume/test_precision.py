"""Lower precision is measured before it is served, and refused where it names other classes."""

import json
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from models.engines import EngineOptions, check_engine, open_engine
from models.image_network import ImageNetwork
from models.session import Session
from relume import precision, verify
from relume.__main__ import main
from tests.models.test_engines import annotated, has_openvino, self_test
from tests.tiny_onnx import INPUT, Tiny

COLOURS = ("red", "lime", "blue", "orange", "teal", "navy")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the converters that others wrote


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of pictures of one colour, and one file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for colour in COLOURS:
        Image.new("RGB", (12, 12), colour).save(folder / f"{colour}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a tiny artifact with its self-test."""
    plain = Tiny().write(tmp_path / "tiny.onnx")
    return annotated(tmp_path / "net.onnx", self_test=self_test(plain))


def test_fp16_is_written_with_what_was_measured(
    model: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file has its own name and says what it is, of what, and how often it agrees."""
    arguments = ["quantize", str(model), "--precision", "fp16", "--images", str(images), "--json"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["precision"], told["top1"], told["top5"]) == ("fp16", 1.0, 1.0)
    assert told["images"] == len(COLOURS)
    assert "left out: " in err
    target = model.with_name("net-fp16.onnx")
    engine = open_engine(target, EngineOptions(device="cpu"))
    assert engine.precision == "fp16"
    assert json.loads(engine.metadata["model_spec"])["name"] == "net-fp16"
    stored = json.loads(engine.metadata["precision"])
    assert (stored["name"], stored["top1"], stored["images"]) == ("fp16", 1.0, len(COLOURS))
    assert len(stored["of"]) == 64
    assert check_engine(engine, INPUT).startswith("the artifact's self-test: off by ")
    assert main(arguments) == 1
    assert "already there" in capsys.readouterr().err


def test_pictures_are_read_as_they_are_needed(
    model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the cores that the process may use; rows of a large folder never lie in memory at once."""
    read: list[bytes] = []
    decode = precision.decode

    def counted(data: bytes) -> np.ndarray:
        read.append(data)
        return decode(data)

    monkeypatch.setattr(precision, "usable_cores", lambda: 1)
    monkeypatch.setattr(precision, "decode", counted)
    network = ImageNetwork.of_session(Session(model))
    rows = precision._rows([images / "red.png"] * 40, network)
    next(rows)
    time.sleep(0.1)
    assert len(read) <= 4  # one that is taken, two ahead, and one for a thread that has just begun
    assert len(list(rows)) == 39


@pytest.mark.skipif(find_spec("nncf") is None, reason="needs NNCF")
@pytest.mark.slow
def test_int8_is_calibrated_on_half_and_measured_on_the_rest(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of bytes that names the same classes, whatever runs it."""
    model = tmp_path / "net.onnx"
    generator = np.random.default_rng(1)
    proto = Tiny().model()
    weight = generator.standard_normal((3, 3, 3, 3)).astype(np.float32) / 10
    weight[:, :, 1, 1] += np.eye(3, dtype=np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "conv"))
    node = onnx.helper.make_node("Conv", ["image", "conv"], ["seen"], pads=[1, 1, 1, 1])
    proto.graph.node[0].input[0] = "seen"
    proto.graph.node.insert(0, node)
    model.write_bytes(proto.SerializeToString())
    assert main(["quantize", str(model), "--images", str(images), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["precision"], told["top1"], told["images"]) == ("int8", 1.0, 3)
    written = onnx.load(model.with_name("net-int8.onnx"))
    assert "QuantizeLinear" in {node.op_type for node in written.graph.node}


@has_openvino
def test_bf16_is_measured(
    model: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's precision is held against float32 without writing anything."""
    before = set(model.parent.iterdir())
    monkeypatch.setattr("models.openvino_engine._refuse_emulation", lambda core, name: None)
    arguments = [str(model), "--precision", "bf16", "--images", str(images)]
    assert verify.main(arguments) == 0
    assert "  bf16        top-1 1.000, top-5 1.000 of float32's on 6 images" in (
        capsys.readouterr().out
    )
    assert set(model.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("out", "cure"),
    [
        ("small.onnx", "-o {0} --name small writes that file"),
        ("there", "-o {0} --name there writes that file"),
    ],
)
def test_a_file_in_place_of_the_folder(
    out: str, cure: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before a picture is looked at, with what to type."""
    (tmp_path / "there").write_bytes(b"a file")
    arguments = [str(model), "--images", "gone", "-o", str(tmp_path / out)]
    assert precision.quantize(arguments) == 1
    said = f"error: -o {tmp_path / out}: expected a folder; {cure.format(tmp_path)}"
    assert capsys.readouterr().err == f"{said} (relume explain spec-error)\n"


def test_the_folder_of_the_result_is_made(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `relume convert` makes it."""
    monkeypatch.setattr(precision, "_compared", lambda *given: precision.Agreement(1, 1, 0, 9))
    out = tmp_path / "new" / "folder"
    arguments = [str(model), "--images", str(images), "--precision", "fp16", "-o", str(out)]
    assert precision.quantize(arguments) == 0
    assert [one.name for one in out.iterdir()] == [f"{model.stem}-fp16.onnx"]


def test_too_little_agreement_writes_nothing(
    model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The share, the bound and what to do are said; no file is left."""
    found = precision.Agreement(0.9, 0.8, 0.3, 10)
    monkeypatch.setattr(precision, "_compared", lambda *given: found)
    out = tmp_path / "out"
    out.mkdir()
    arguments = [str(model), "--precision", "fp16", "--images", str(images), "-o", str(out)]
    assert precision.quantize(arguments) == 1
    assert capsys.readouterr().err.endswith(
        "in fp16 the best class is float32's on 90.0% of 10 images, expected at least 97.0%: serve "
        "float32, or allow less with --min-agreement (relume explain parity-error)\n"
    )
    assert list(out.iterdir()) == []
    assert precision.quantize([*arguments, "--min-agreement", "0.9"]) == 0


def test_what_cannot_be_lowered_is_refused(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is lower already, and too few pictures."""
    lower = annotated(tmp_path / "lower.onnx", precision=json.dumps({"name": "int8"}))
    assert precision.quantize([str(lower), "--images", str(images)]) == 1
    assert "is of lower precision already: give the float32 file" in capsys.readouterr().err
    one = str(images / "red.png")
    assert precision.quantize([str(model), "--images", one]) == 1
    assert "--images: found 1, expected 2 pictures at least" in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_no_measure(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Agreement on nothing is not agreement."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    pair = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert precision.quantize([str(model), "--precision", "fp16", "--images", *pair]) == 1
    assert "--images: found no picture that can be read" in capsys.readouterr().err


def test_verify_goes_to_the_checkpoints_without_a_precision(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`relume verify FILE.t7` is what it was; its help has the flags of the other."""
    with pytest.raises(SystemExit, match="0"):
        verify.main(["--help"])
    assert "--precision {bf16,int8,fp16}" in capsys.readouterr().out
