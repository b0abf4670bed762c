"""MXNet's doorway: from a `.params` and its symbol to verified artifacts, or to one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.cli import convert, verify
from converters.summary import inspect
from models.build import build
from models.checkpoint import read
from models.postprocess import probabilities
from models.session import Session
from models.verify import run
from tests.mx_writer import checkpoint, node, symbol
from tests.oracles import ROOT, golden

RELATIVE = 1e-6
MANIFEST = json.loads(golden("mxnet/malformed/manifest.json").read_text(encoding="utf-8"))
NETS = [name for name in MANIFEST if name.startswith("net-")]
SHAPE = ["--input", "none", "--input-shape", "2,3,8,8"]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Return the undamaged little network, in a folder of its own."""
    for part in ("symbol.json", "0000.params"):
        shutil.copyfile(golden(f"mxnet/malformed/net-good-{part}"), tmp_path / f"net-{part}")
    return tmp_path / "net-0000.params"


def test_both_artifacts_equal_mxnet(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The contract is that of every format: two files, one JSON object, MXNet's own numbers."""
    assert convert([str(good), *SHAPE, "--json", "--verify", "full"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["name"], said["output"]) == ("mxnet-params-v2", "net", "logits")
    assert said["layers"]["Convolution"] == 1
    compared = said["comparison"]  # all operators but the softmax that is left out
    assert (compared["layers"], compared["uncompared"]) == (sum(said["layers"].values()) - 1, 1)
    assert said["notes"] == [
        "SoftmaxOutput is softmax and its loss in one: the network ends with the logits before it"
    ]
    theirs = np.load(golden("mxnet/malformed/net-good-expected.npz"))
    (ours,) = run(build(read(Path(said["pt"])).network), [theirs["data"]])
    (onnx,) = Session(Path(said["onnx"])).run(theirs["data"])
    for logits in (ours, onnx):
        softmax = probabilities(logits, "logits")
        assert np.abs(softmax - theirs["softmax"]).max() <= RELATIVE


def outcome(name: str, out: Path) -> int:
    params = golden(f"mxnet/malformed/{name}-0000.params")
    return convert([str(params), *SHAPE, "-o", str(out), "--no-onnx"])


@pytest.mark.parametrize("name", NETS)
def test_damaged_networks(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every network that was damaged for this ends as its list says, refused without a trace."""
    refused = outcome(name, tmp_path / "out")
    assert ("be refused" if refused else "convert") in MANIFEST[name]["should"] or (
        not refused and "accepted by name" in MANIFEST[name]["should"]
    )
    said = capsys.readouterr()
    if refused:
        assert said.err.splitlines()[-1].startswith("error: ")
        assert not list((tmp_path / "out").glob("*"))


def test_arrays_that_nobody_reads_are_told(tmp_path: Path, capsys: Any) -> None:
    """MXNet ignores them; so does the conversion, and says so."""
    assert outcome("net-extra-param", tmp_path) == 0
    assert "note        no operator reads fc9_weight" in capsys.readouterr().out


def test_inspect_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing of it where all is there."""
    assert inspect([str(golden("mxnet/malformed/net-missing-weight-0000.params"))]) == 0
    assert "missing     fc1_weight\n" in capsys.readouterr().out
    assert inspect([str(golden("mxnet/malformed/net-good-0000.params")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == []


def test_statistics_under_another_prefix_are_used(tmp_path: Path) -> None:
    """A hand-edited file has the moving mean as `arg:`; its numbers count, not zeros."""
    assert outcome("net-aux-stored-as-arg", tmp_path) == 0
    assert outcome("net-good", tmp_path) == 0
    edited, good = (
        torch.load(tmp_path / f"net-{name}.pt", weights_only=True)["state_dict"]
        for name in ("aux-stored-as-arg", "good")
    )
    assert torch.equal(edited["bn0.running_mean"], good["bn0.running_mean"])


def test_half_precision_is_widened(tmp_path: Path) -> None:
    """Weights of 16 bits are the float32 numbers that they stand for."""
    assert outcome("net-fp16-weights", tmp_path) == 0
    state = torch.load(tmp_path / "net-fp16-weights.pt", weights_only=True)["state_dict"]
    assert state["fc1.weight"].dtype == torch.float32


def test_verify_and_inspect_take_it(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By file, by folder, and by prefix and epoch."""
    assert verify([str(good.parent), *SHAPE]) == 0
    assert "runs of layers equal to the original's" in capsys.readouterr().out
    assert inspect([str(good.with_name("net")), "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("net-0000.params: mxnet-params-v2, ")
    for part in (
        "symbol      net-symbol.json",
        "inputs      data",
        "Convolution 1",
        "epoch       0",
    ):
        assert part in said
    assert inspect([str(good), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["without_rule"] == []
    assert sum(one["elements"] for one in found["contents"]) == found["parameters"] + 8
    good.with_name("net-symbol.json").unlink()
    assert inspect([str(good)]) == 0
    assert "symbol      none beside the file" in capsys.readouterr().out


def test_without_its_symbol_it_is_one_line(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The graph is not in the arrays."""
    good.with_name("net-symbol.json").unlink()
    assert convert([str(good), *SHAPE]) == 1
    assert "no symbol beside it, which has the graph: --symbol FILE" in capsys.readouterr().err


def test_tensors_alone(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a network; of a PyTorch checkpoint they are what it is."""
    bare = ["--only", "safetensors", "--verify", "none", "--json"]
    good.with_name("net-symbol.json").unlink()
    assert convert([str(good), *bare]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Path(found["safetensors"]).name == "net.safetensors"
    assert found["format"] == "relume-tensors"
    torch.save({"weight": torch.zeros(2)}, good.with_name("x.pth"))
    assert convert([str(good.with_name("x.pth")), *bare]) == 1
    assert "--verify none writes the tensors of Torch7 and MXNet, which" in capsys.readouterr().err


def test_inspect_shows_nothing_that_moves_a_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are a stranger's: they are shown escaped, and not all of a thousand."""
    nodes = [
        node("null", "data"),
        *(node(f"\x1b[2J\ud800{index}", "x", [0]) for index in range(99)),
    ]
    heads = range(1, 100)
    path = checkpoint(tmp_path, symbol(*nodes, heads=heads), {"\x07": np.ones(2, "f4")})
    assert inspect([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "no rule     \\x1b[2J\\ud8000, " in printed
    assert " and 91 more" in printed
    assert "not read    \\x07" in printed
    assert all(line.isprintable() for line in printed.splitlines())
    assert "parameters" not in printed


def test_the_doorway_works_from_any_directory(good: Path) -> None:
    """The script finds its own clone."""
    script = ROOT / "converters" / "mxnet_to_pt.py"
    done = subprocess.run(
        [sys.executable, str(script), str(good), *SHAPE, "--no-onnx", "--name", "made"],
        cwd=good.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (good.parent / "made.pt").exists()
