"""`relume inspect` says what a file holds, without torch and without its numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from converters.sources import find
from converters.summary import inspect, summary
from tests.oracles import golden
from tests.t7_writer import Module, Shared, View, write


def test_counts_are_the_converters(tmp_path: Path) -> None:
    """Parameters are counted once where they are shared; statistics and gradients are apart."""
    shared = View(Shared(np.ones(6, "f4")), (2, 3), (3, 1))
    first = Module("nn.Linear", weight=shared, gradWeight=np.ones((2, 3), "f4"))
    second = Module("nn.Linear", weight=View(shared.storage, (2, 3), (3, 1)))
    norm = Module(
        "nn.BatchNormalization", running_mean=np.ones(4, "f4"), running_var=np.ones(4, "f4")
    )
    modules = [first, second, norm, Module("nn.Mystery")]
    found = summary(find(write(tmp_path / "net.t7", Module("nn.Sequential", modules=modules))))
    assert found["parameters"] == 6
    assert found["statistics"] == 8
    assert found["state_tensors"] == 1
    assert found["without_rule"] == ["nn.Mystery"]
    assert found["layers"]["nn.Linear"] == 2


def test_the_full_network(capsys: pytest.CaptureFixture[str]) -> None:
    """Inception-ResNet-v2 is described as the converter describes it."""
    source = golden("torch7/irv2/irv2_full.t7.xz")
    assert inspect([str(source)]) == 0
    printed = capsys.readouterr().out
    for part in (
        "irv2_full.t7.xz: torch7-binary, 126,985,969 bytes",
        "cudnn.SpatialConvolution 132",
        "parameters  31,574,440 in 398 tensors (torch.CudaTensor)",
        "statistics  79,968",
    ):
        assert part in printed


def test_layers_without_a_rule_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who asks first learns what will be refused."""
    path = write(tmp_path / "net.t7", Module("nn.Mystery"))
    assert inspect([str(path)]) == 0
    assert "no rule     nn.Mystery" in capsys.readouterr().out
    assert inspect([str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["without_rule"] == ["nn.Mystery"]


def test_a_bad_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no checkpoint ends as in every command."""
    path = tmp_path / "x.t7"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert inspect([str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "error: " in printed.err
    assert "found a PNG image" in printed.err
