"""`relume inspect` says what a file holds, without torch and without its numbers."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.summary import inspect, shown, summary
from models.errors import FormatError
from tests.oracles import ROOT, golden
from tests.t7_writer import Module, Shared, View, write

MAX_PRINTED = 200_000  # characters: 1,000 lines of a table 100 wide, and an account


def test_counts_are_the_converters(tmp_path: Path) -> None:
    """Parameters are counted once where they are shared; statistics and gradients are apart."""
    shared = View(Shared(np.ones(6, "f4")), (2, 3), (3, 1))
    first = Module("nn.Linear", weight=shared, gradWeight=np.ones((2, 3), "f4"))
    second = Module("nn.Linear", weight=View(shared.storage, (2, 3), (3, 1)))
    norm = Module(
        "nn.BatchNormalization", running_mean=np.ones(4, "f4"), running_var=np.ones(4, "f4")
    )
    modules = [first, second, norm, Module("nn.Mystery")]
    found = summary(write(tmp_path / "net.t7", Module("nn.Sequential", modules=modules)))
    assert (found["parameters"], found["parameter_bytes"]) == (6, 24)
    assert (found["statistics"], found["statistic_bytes"]) == (8, 32)
    assert (found["state_tensors"], found["state_bytes"]) == (1, 24)
    assert found["state"] == {"gradWeight": {"tensors": 1, "bytes": 24}}
    assert found["without_rule"] == ["nn.Mystery"]
    assert found["layers"]["nn.Linear"] == 2
    assert found["storage_bytes"] == 24 + 24 + 32


def test_the_full_network(capsys: pytest.CaptureFixture[str]) -> None:
    """Inception-ResNet-v2 is described as the converter describes it, its like blocks in one."""
    source = golden("torch7/irv2/irv2_full.t7.xz")
    assert inspect([str(source), "--depth", "1"]) == 0
    printed_ = capsys.readouterr().out
    for part in (
        "irv2_full.t7.xz: torch7-binary, 126,985,969 bytes",
        "cudnn.SpatialConvolution 132",
        "parameters  31,574,440 in 398 tensors (torch.CudaTensor)",
        "statistics  79,968",
        "8 to 16",
    ):
        assert part in printed_


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
    printed_ = capsys.readouterr()
    assert printed_.out == ""
    assert "error: " in printed_.err
    assert "found a PNG image" in printed_.err


def test_a_depth_is_a_whole_number(capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is a usage error."""
    with pytest.raises(SystemExit, match="2"):
        inspect(["x.t7", "--depth", "-1"])
    assert "'-1' is not a whole number from 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "folder", ["checkpoints", "eras", "layers", "malformed", "models", "serialization"]
)
def test_every_file_is_described_or_refused(folder: str) -> None:
    """Whatever a file holds, and however deep, the answer is JSON and of bounded length."""
    described = 0
    for path in sorted(golden(f"torch7/{folder}").rglob("*.t7*")):
        try:
            found = summary(path)
        except FormatError:
            continue
        text = json.dumps(found, allow_nan=False)
        assert len(shown(json.loads(text), 100)) < MAX_PRINTED, path
        assert len(text) < 1_000 + 100 * found["bytes"], path
        described += 1
    assert described


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("native", "little-endian with a long of 8 bytes"),
        ("b32", "little-endian with a long of 4 bytes"),
        ("bigendian", "big-endian with a long of 8 bytes"),
        ("bigendian_b32", "big-endian with a long of 4 bytes"),
    ],
)
def test_the_layout_is_told(name: str, layout: str) -> None:
    """How a file spells its numbers is said, and changes nothing of what is in it."""
    found = summary(golden(f"torch7/serialization/layout_{name}.t7"))
    assert (found["format"], found["layout"]) == ("torch7-binary", layout)
    assert (found["parameters"], found["other_elements"]) == (8, 66)


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        (b"3\n1\n0\n", "text"),
        (struct.pack("<id", 1, 2.0), "little-endian with a long of 8 bytes"),
        (struct.pack(">id", 1, 2.0), "big-endian with a long of 8 bytes"),
        (bytes(4), "little-endian with a long of 8 bytes"),
    ],
    ids=["text", "little", "big", "nil"],
)
def test_the_layout_of_a_file_without_tensors(tmp_path: Path, content: bytes, layout: str) -> None:
    """Its first type id tells the byte order."""
    path = tmp_path / "x.t7"
    path.write_bytes(content)
    found = summary(path)
    assert found["layout"] == layout
    assert found["format"] == ("torch7-text" if layout == "text" else "torch7-binary")


def test_a_folder_is_the_model_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is the `latest.t7` of a training script, with the epoch and the optimizer's state."""
    model = write(tmp_path / "model_3.t7", Module("nn.Linear", weight=np.ones((2, 3), "f4")))
    state = write(tmp_path / "optimState_3.t7", {"dfdx": np.ones(6, "f4")})
    names = {"modelFile": model.name, "optimFile": state.name, "epoch": 3}
    latest = write(tmp_path / "latest.t7", names)
    for source in (tmp_path, latest):
        found = summary(source)
        assert found["source"] == str(model)
        assert (found["epoch"], found["optimizer"]) == (3, str(state))
        assert found["parameters"] == 6
    assert inspect([str(latest)]) == 0
    assert "epoch       3\n  optimizer   optimState_3.t7\n" in capsys.readouterr().out


def test_a_pointer_to_nowhere_speaks_for_itself(tmp_path: Path) -> None:
    """A `latest.t7` without its model is a table like any other."""
    found = summary(write(tmp_path / "latest.t7", {"modelFile": "gone.t7", "epoch": 3}))
    assert found["source"] == str(tmp_path / "latest.t7")
    assert found["contents"][0]["values"] == {"modelFile": "gone.t7", "epoch": 3}


@pytest.mark.parametrize("at", ["", "latest.t7"])
def test_a_damaged_model_is_no_other_file(
    at: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the model that is pointed to is cut short, nothing is said in its name."""
    model = write(tmp_path / "model_3.t7", Module("nn.Linear", weight=np.ones((2, 3), "f4")))
    model.write_bytes(model.read_bytes()[:-5])
    write(tmp_path / "latest.t7", {"modelFile": model.name})
    assert inspect([str(tmp_path / at), "--json"]) == 1
    printed_ = capsys.readouterr()
    assert printed_.out == ""
    assert printed_.err.startswith(f"error: {model}: byte ")


@pytest.mark.parametrize(("flags", "loaded"), [(["--json"], False), ([], True)])
def test_only_people_wait_for_rich(flags: list[str], loaded: bool) -> None:
    """What makes tables is imported for tables."""
    code = (
        "import sys; from converters.summary import inspect;"
        f"inspect(['examples/efficientnet_lite0.t7', *{flags}]);"
        "sys.exit('rich' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=False
    )
    assert done.returncode == loaded
