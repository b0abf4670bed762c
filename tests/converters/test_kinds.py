"""What a conversion writes, by `--only` and `--verify`, and what `relume verify` says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from converters.cli import convert, pt_to_onnx, verify
from tests.oracles import ROOT, golden
from tests.t7_writer import Module, write

SHAPE = ["--input", "none", "--input-shape", "2,3,7,8"]


def linear() -> Module:
    """A convolution of one pixel and a root: a network that takes positive numbers only."""
    generator = np.random.default_rng(3)
    fields = {"nInputPlane": 3, "nOutputPlane": 2, "kW": 1, "kH": 1}
    weight = generator.uniform(0.1, 1, (2, 3, 1, 1)).astype("f4")
    convolution = Module("nn.SpatialConvolution", weight=weight, **fields)
    return Module("nn.Sequential", modules=[convolution, Module("nn.Sqrt")])


def inexpressible() -> Module:
    """Pooling that drops a window in one dimension and has a ragged one in the other."""
    fields = {"kW": 3, "kH": 2, "dW": 2, "dH": 2, "padW": 1, "padH": 1, "ceil_mode": True}
    pooling = Module("nn.SpatialMaxPooling", **fields)
    return Module("nn.Sequential", modules=[Module("nn.Identity"), pooling])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small network in a folder of its own."""
    return write(tmp_path / "net.t7", linear())


def printed(capsys: pytest.CaptureFixture[str], status: int) -> Any:
    output = capsys.readouterr()
    assert status == 0, output.err
    return json.loads(output.out)


def written(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if one != path)


@pytest.mark.parametrize("kind", ["pt", "onnx", "safetensors"])
def test_only_one_kind(path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` writes that artifact and no other."""
    found = printed(capsys, convert([str(path), *SHAPE, "--only", kind, "--json"]))
    assert written(path) == [f"net.{kind}"]
    assert [found[one] is not None for one in ("pt", "onnx", "safetensors")].count(True) == 1


def test_a_full_verification_is_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every run of a layer was compared, and is said to be equal."""
    found = printed(capsys, convert([str(path), *SHAPE, "--verify", "full", "--json"]))
    assert found["comparison"]["layers"] == 3
    assert convert([str(path), *SHAPE, "--verify", "full", "--force"]) == 0
    assert "definitions 3 runs of layers equal to the original's in float64" in (
        capsys.readouterr().out
    )


def test_verify_says_what_it_compared(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`relume verify` writes nothing and counts the runs, for programs and for people."""
    found = printed(capsys, verify([str(path), *SHAPE, "--json"]))
    assert found["layers"] == {"nn.Sequential": 1, "nn.SpatialConvolution": 1, "nn.Sqrt": 1}
    assert found["inputs"] == [[2, 3, 7, 8]]
    assert found["comparison"]["uncompared"] == 0
    assert verify([str(path), *SHAPE]) == 0
    lines = capsys.readouterr().out
    assert "net.t7: torch7-binary, sha256" in lines
    assert "definitions 3 runs of layers equal" in lines
    assert written(path) == []


def test_verify_names_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is one line."""
    assert verify([str(tmp_path / "no.t7"), *SHAPE]) == 1
    assert "no.t7: no such file" in capsys.readouterr().err


def test_text_files_are_called_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The artifact says which of Torch7's two formats its numbers come from."""
    source = golden("torch7/layers/ascii_model.t7")
    shape = ["--input", "none", "--input-shape", "2,2,6,6"]
    found = printed(
        capsys, convert([str(source), *shape, "--only", "pt", "-o", str(tmp_path), "--json"])
    )
    assert found["format"] == "torch7-text"


def test_tensors_alone_need_no_torch(path: Path) -> None:
    """`--only safetensors --verify none` neither loads torch nor makes a network."""
    code = (
        "import sys\nfrom converters.cli import convert\n"
        f"status = convert([{str(path)!r}, '--only', 'safetensors', '--verify', 'none'])\n"
        "sys.exit(status or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 under the names of the file" in done.stdout
    assert "neither a network nor verified" in done.stdout
    with safe_open(path.with_suffix(".safetensors"), "numpy") as file:
        assert list(file.keys()) == ["0.weight"]


def test_tensors_alone_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets the names, the digest and the path."""
    arguments = [str(path), "--only", "safetensors", "--verify", "none", "--json"]
    found = printed(capsys, convert(arguments))
    assert found["format"] == "relume-tensors"
    assert found["tensors"] == 1
    assert Path(found["safetensors"]).is_file()
    assert convert(arguments) == 1
    assert "already there; --force overwrites" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [[], ["--only", "pt"], ["--only", "safetensors", "--input", "torch-224"]]
)
def test_no_artifact_is_written_unverified(
    path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--verify none` goes with bare tensors alone."""
    assert convert([str(path), "--verify", "none", *flags]) == 1
    assert "--verify none: no artifact is written unverified" in capsys.readouterr().err
    assert written(path) == []


def test_what_onnx_cannot_express_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The `.pt` is written, an older `.onnx` goes, and the layer is named."""
    path = write(tmp_path / "net.t7", inexpressible())
    path.with_suffix(".onnx").write_text("of another network")
    found = printed(capsys, convert([str(path), *SHAPE, "--force", "--json"]))
    assert "ONNX cannot express 1 (MaxPool2d)" in found["no_onnx"]
    assert found["onnx"] is None
    assert written(path) == ["net.pt"]
    assert convert([str(path), *SHAPE, "--force"]) == 0
    assert "no .onnx    ONNX cannot express 1 (MaxPool2d)" in capsys.readouterr().out


def test_only_an_onnx_that_cannot_be_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asked for nothing else gets the reason as an error, and nothing is written."""
    path = write(tmp_path / "net.t7", inexpressible())
    assert convert([str(path), *SHAPE, "--only", "onnx"]) == 1
    assert "ONNX cannot express 1 (MaxPool2d)" in capsys.readouterr().err
    assert written(path) == []
    assert convert([str(path), *SHAPE, "--only", "pt"]) == 0
    capsys.readouterr()
    assert pt_to_onnx([str(path.with_suffix(".pt"))]) == 1
    assert "ONNX cannot express 1 (MaxPool2d)" in capsys.readouterr().err
    assert written(path) == ["net.pt"]


def test_a_folder_that_cannot_be_written_to_is_refused_first(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a conversion whose result has no place."""
    monkeypatch.setattr("os.access", lambda *_: False)
    assert convert([str(path), *SHAPE]) == 1
    error = capsys.readouterr().err
    assert "nothing can be written there; -o DIR chooses another folder" in error
    assert "translating" not in error


def test_what_a_file_is_comes_before_what_is_in_its_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ONNX file is no checkpoint, whatever lies beside it."""
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    assert convert([str(tmp_path / "net.onnx")]) == 1
    assert "found an ONNX file, which a conversion writes" in capsys.readouterr().err
