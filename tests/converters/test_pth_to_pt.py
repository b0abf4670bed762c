"""The doorway for PyTorch checkpoints, as its users call it."""

import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.cli import convert
from models.architectures import create
from models.checkpoint import load
from models.presets import PRESETS
from models.session import Session
from models.verify import run
from tests.converters.pth.checkpoints import CLASSES, lineage, state
from tests.converters.pth.test_lineages import (
    EVERY_FILE,
    FILES,
    NOISE_FACTOR,
    as_the_convention_has_it,
)
from tests.oracles import ROOT, golden

KEYS = {"source", "sha256", "format", "architecture", "parameters", "input", "pt", "onnx", "verify"}
LORNATANG = lineage("Lornatang", "inception_v3")


def converted(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Run the doorway's function with --json and return what it printed."""
    status = convert([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return dict(json.loads(printed.out))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A training checkpoint of a thin Inception-v3, packed as such files are kept."""
    averaged, raw = (state(LORNATANG, seed, aux_logits=True) for seed in (1, 2))
    plain = tmp_path / "thin.pth.tar"
    torch.save({"epoch": 3, "state_dict": raw, "ema_state_dict": averaged}, plain)
    path = tmp_path / "thin.pth.tar.xz"
    path.write_bytes(lzma.compress(plain.read_bytes(), preset=0))
    plain.unlink()
    return path


def test_the_contract(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a flag: both artifacts beside the source, the averaged weights, all keys."""
    found = converted(capsys, packed)
    assert found.keys() >= KEYS
    assert (found["name"], found["format"]) == ("thin", "pytorch-zip")
    assert (found["architecture"], found["classes"]) == ("inception_v3", CLASSES)
    assert (found["decided_by"], found["input"]["mean"]) == ("names", [0.5, 0.5, 0.5])
    assert "the averaged weights, ema_state_dict; --raw takes state_dict" in found["notes"]
    assert any("the auxiliary head, aux, 12 tensors" in note for note in found["notes"])
    module, spec = load(found["pt"])
    assert spec.input == PRESETS["torchvision-299"]
    ours = module.state_dict()["classifier.weight"]
    assert torch.equal(ours, state(LORNATANG, 1, aux_logits=True)["fc.weight"])
    session = Session(Path(found["onnx"]))
    assert (session.input_names, session.output_names) == (("input",), ("output",))


def test_raw_takes_the_other_weights(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says that it did."""
    found = converted(capsys, packed, "--raw", "--no-onnx", "--safetensors", "--name", "raw")
    assert found["notes"][0] == "the raw weights, state_dict, not the averaged ema_state_dict"
    ours = load(found["safetensors"]).module.state_dict()["classifier.weight"]
    assert torch.equal(ours, state(LORNATANG, 2, aux_logits=True)["fc.weight"])


def test_what_was_done_is_printed(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each note, and why images enter as they do."""
    assert convert([str(packed), "--no-onnx", "--input", "timm-299-0.875"]) == 0
    printed = capsys.readouterr().out
    assert "  note        the averaged weights, ema_state_dict; --raw takes state_dict\n" in printed
    assert "because --input says so" in printed


def test_own_weights_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state dictionary of our own class needs its name, and its convention follows."""
    torch.manual_seed(0)
    torch.save(create("fb_resnet_18", width_divisor=8).state_dict(), tmp_path / "own.pth")
    found = converted(capsys, tmp_path / "own.pth", "--architecture", "fb_resnet_18", "--no-onnx")
    assert (found["architecture"], found["input"]["resample"]) == ("fb_resnet_18", "torch7-bicubic")


def test_errors_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that needs more than tensors is not opened."""
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 3), path)
    assert convert([str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = (one for one in printed.err.splitlines() if one.startswith("error: "))
    assert "tensors alone: torch.save(model.state_dict(), FILE)" in line
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_doorway_works_from_any_directory(tmp_path: Path) -> None:
    """`python converters/pth_to_pt.py` finds its packages wherever it is called."""
    doorway = ROOT / "converters" / "pth_to_pt.py"
    done = subprocess.run(
        [sys.executable, str(doorway), "gone.pth"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "gone.pth: no such file" in done.stderr


@pytest.mark.slow
@EVERY_FILE
def test_original_files_through_both_artifacts(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole files need no flag, and give their programs' outputs through .pt and ONNX."""
    found = converted(capsys, golden(f"pytorch/{file}.pth.tar.xz"), "-o", tmp_path)
    assert found["architecture"] == FILES[file][1]
    expected = np.load(golden(f"pytorch/{file}.npz"))
    x = as_the_convention_has_it(file, expected["input"])
    noise = np.abs(expected["output"] - expected["output_float64_rounded"]).max()
    for ours in (*run(load(found["pt"]).module, [x]), *Session(Path(found["onnx"])).run(x)):
        assert np.abs(ours - expected["output"]).max() <= NOISE_FACTOR * noise
