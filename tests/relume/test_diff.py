"""`relume diff`: two checkpoints of any formats, and the status that diff(1) would give."""

import gzip
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.cli import convert
from models.presets import PRESETS
from relume.diff import main
from tests import mx_writer
from tests.oracles import ROOT, golden
from tests.t7_writer import Module, Sizes, write

SIDE = 8
ENET = ("--input", "enet-224")
WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("f4")
HEAD = np.random.default_rng(1).standard_normal((5, 4 * 36)).astype("f4")


def torch7(weight: np.ndarray = WEIGHT, head: np.ndarray = HEAD, *more: Module) -> Module:
    """Return a classifier of images of 8 x 8: a convolution, ReLU, and a linear layer."""
    window = {"kW": 3, "kH": 3, "dW": 1, "dH": 1, "padW": 0, "padH": 0}
    conv = {"nInputPlane": 3, "nOutputPlane": 4, "weight": weight, "bias": np.ones(4, "f4")}
    return Module(
        "nn.Sequential",
        modules=[
            Module("nn.SpatialConvolution", **window, **conv),
            Module("nn.ReLU", inplace=True, threshold=0, val=0),
            Module("nn.View", size=Sizes(4 * 36)),
            Module("nn.Linear", weight=head, bias=np.zeros(len(head), "f4")),
            *more,
        ],
    )


def mxnet(folder: Path, weight: np.ndarray = WEIGHT) -> Path:
    """Write the same network as MXNet does, and return its prefix."""
    arrays = {
        "conv_weight": weight,
        "conv_bias": np.ones(4, "f4"),
        "fc_weight": HEAD,
        "fc_bias": np.zeros(5, "f4"),
    }
    text = mx_writer.symbol(
        *(mx_writer.node("null", name) for name in ("data", *arrays)),
        mx_writer.node("Convolution", "conv", [0, 1, 2], kernel="(3, 3)", num_filter="4"),
        mx_writer.node("Activation", "relu", [5], act_type="relu"),
        mx_writer.node("Flatten", "flat", [6]),
        mx_writer.node("FullyConnected", "fc", [7, 3, 4], num_hidden="5"),
    )
    mx_writer.checkpoint(folder, text, {f"arg:{name}": one for name, one in arrays.items()})
    return folder / "net"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An input convention for images of 8 x 8."""
    path = tmp_path / "small.json"
    given = {**asdict(PRESETS["torch-224"]), "resize": SIDE, "crop": [SIDE, SIDE]}
    path.write_text(json.dumps(given))
    return path


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """The classifier as Torch7 writes it."""
    return write(tmp_path / "a.t7", torch7())


def compared(capsys: pytest.CaptureFixture[str], status: int, *arguments: object) -> dict[str, Any]:
    """Run the command with --json, expect that status, and return what it printed."""
    assert main([*map(str, arguments), "--json"]) == status, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out))


def shown(capsys: pytest.CaptureFixture[str], status: int, *arguments: object) -> list[str]:
    """Run the command, expect that status, and return the lines that it printed."""
    assert main([*map(str, arguments)]) == status, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


def test_a_checkpoint_equals_its_artifacts(
    original: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights through .t7, .t7.gz, .pt and .safetensors are equal; no flag is needed."""
    flags = ["--input", str(small), "--no-onnx", "--safetensors", "-o", str(tmp_path)]
    assert convert([str(original), *flags]) == 0
    packed = tmp_path / "packed.t7.gz"
    packed.write_bytes(gzip.compress(original.read_bytes()))
    capsys.readouterr()
    found = compared(capsys, 0, original, tmp_path / "a.pt")
    assert found["equal"]
    assert found["same_input"] is None  # the .t7 does not tell
    assert found["a"]["sha256"] != found["b"]["sha256"]
    assert found["tensors"] == 4
    assert shown(capsys, 0, packed, tmp_path / "a.safetensors")[0] == "same network; same weights"
    assert compared(capsys, 0, tmp_path / "a.pt", tmp_path / "a.safetensors")["same_input"] is True


def test_torch7_and_mxnet_meet(
    original: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prefix and an epoch are one checkpoint; tensors of both formats are paired by structure."""
    lines = shown(capsys, 0, mxnet(tmp_path), 0, original, "--input", small)
    assert lines[0] == "same network; same weights"
    other = WEIGHT.copy()
    other[1, 2, 0, 0] += 1
    mxnet(tmp_path, other)
    lines = shown(capsys, 1, original, tmp_path / "net", "0", "--input", small)
    assert lines[0] == (
        "same network; weights differ in 1 of 4 tensors, first 0.weight | conv.weight"
    )
    assert any("1 of 108 (0.9%)" in line for line in lines)


def test_one_trained_network_in_two_frameworks(capsys: pytest.CaptureFixture[str]) -> None:
    """Torch7's and MXNet's files of it are paired; the first has its large weights rounded."""
    files = (
        ROOT / "examples" / "efficientnet_lite0.t7",
        golden("pretrained/efficientnet_lite0.json"),
    )
    found = compared(capsys, 1, files[0], files[1].with_suffix(""), 0)
    assert found["same_network"]
    assert found["same_input"]
    assert found["tensors"] == 247
    assert len(found["differing"]) == 50  # 49 convolutions and the linear layer
    assert all(one["half"] for one in found["differing"])


def test_vintages_of_a_file_are_equal(capsys: pytest.CaptureFixture[str]) -> None:
    """The same weights saved by MXNet before 0.9 and by 1.9."""
    files = (golden(f"mxnet/resnet/imagenet-18-tiny-{one}-0000.params") for one in ("v08", "v191"))
    assert shown(capsys, 0, *files)[0] == "same network; same weights"


def test_tolerance(
    original: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half precision is told, and within a tolerance the weights are the same."""
    half = write(tmp_path / "half.t7", torch7(WEIGHT.astype("f2"), HEAD.astype("f2")))
    lines = shown(capsys, 1, original, half, "--input", small)
    assert lines[0] == (
        "same network; weights differ in 2 of 4 tensors, first 0.weight; equal as half precision"
    )
    lines = shown(capsys, 0, original, half, "--input", small, "--tolerance", "1e-3")
    assert lines[0] == "same network; same weights, to 0.001 of the largest"


def test_other_classes(
    original: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network fine-tuned to other classes is that network, with another last layer."""
    ten = write(tmp_path / "ten.t7", torch7(head=np.ones((10, 144), "f4")))
    lines = shown(capsys, 1, original, ten, "--input", small)
    assert lines[0].startswith("same network but for its classes, 5 and 10; weights differ in 2 of")
    assert any(line.endswith("Linear  shapes 5x144 | 10x144") for line in lines)
    found = compared(capsys, 1, original, ten, "--input", small)
    assert found["classes"] == [5, 10]
    assert [one["max_abs"] for one in found["differing"]] == [None, None]  # JSON has no infinity


def test_other_networks(
    original: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where two networks part is shown, with what each has there."""
    longer = write(tmp_path / "b.t7", torch7(WEIGHT, HEAD, Module("nn.LogSoftMax")))
    lines = shown(capsys, 1, original, longer, "--input", small)
    assert lines[0] == "networks differ, from layer 5 on; before that, same weights"
    assert [line for line in lines if line.startswith("    ")] == [
        "    a         the end: outputs 3",
        "    b         4: LogSoftmax(dim=1) of 3",
    ]


def test_other_images(
    original: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights behind other pixels answer otherwise: that is a difference, and said."""
    other = tmp_path / "other.json"
    other.write_text(small.read_text().replace('"RGB"', '"BGR"'))
    for name, preset in (("one", small), ("two", other)):
        flags = ["--input", str(preset), "--no-onnx", "--name", name]
        assert convert([str(original), *flags]) == 0
    capsys.readouterr()
    lines = shown(capsys, 1, tmp_path / "one.pt", tmp_path / "two.pt")
    assert lines[0] == "same network; same weights; images enter in different ways"
    assert "BGR" in next(line for line in lines if line.startswith("  input b"))


def test_networks_that_take_no_image(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any network can be compared at the shapes that it takes."""
    bare = ("--input", "none", "--input-shape", f"2,3,{SIDE},{SIDE}")
    assert shown(capsys, 0, original, original, *bare)[0] == "same network; same weights"


def test_many_tensors_are_cut_to_the_worst(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty rows are shown unless all are asked for."""
    source = golden("torch7/models/enet_v3_div4.t7")
    content = a_little_off(tmp_path, source, capsys)
    lines = shown(capsys, 1, source, content)
    (more,) = (line for line in lines if line.startswith("... and "))
    assert more.endswith("less far apart; --all lists them")
    everything = shown(capsys, 1, source, content, "--all")
    hidden = int(more.split()[2].replace(",", ""))
    assert len(everything) == len(lines) - 1 + hidden
    assert everything[0].startswith(f"same network; weights differ in {20 + hidden} of ")


def a_little_off(folder: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return the artifact of a checkpoint with every number a little off."""
    assert convert([str(source), "-o", str(folder), "--name", "off", "--no-onnx", *ENET]) == 0
    capsys.readouterr()
    content = torch.load(folder / "off.pt", weights_only=True)
    content["state_dict"] = {name: one * 1.5 + 1 for name, one in content["state_dict"].items()}
    torch.save(content, folder / "off.pt")
    return folder / "off.pt"


TROUBLE = {
    "one": (["{a}"], "1 checkpoints given, expected two to compare"),
    "three": (["{a}", "{a}", "{a}"], "3 checkpoints given, expected two"),
    "none there": (["{a}", "nothing.t7"], "nothing.t7"),
    "no file": (["/dev/null", "/dev/null"], "/dev/null: found a device or a pipe, expected a fi"),
    "a picture": (["{a}", "{root}/examples/cat.jpg"], "found a JPEG image, expected a checkpoint"),
    "onnx": (
        ["{a}", "x.onnx"],
        r"x\.onnx: an \.onnx has its BatchNorms folded .* compare the \.pt",
    ),
    "not known": (["{a}", "{a}"], "how images enter this network is not in the file"),
    "no preset": (["{a}", "{a}", "--input", "odd"], "--input odd: no such preset"),
}


@pytest.mark.parametrize(("arguments", "said"), TROUBLE.values(), ids=TROUBLE)
def test_trouble_is_2(
    arguments: list[str], said: str, original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be compared neither differs nor is equal."""
    given = [one.format(a=original, root=ROOT) for one in arguments]
    assert main(given) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(said, printed.err)


def test_a_damaged_artifact_is_trouble(
    original: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told to be relume's, and to be damaged, rather than to be no checkpoint."""
    assert convert([str(original), "--input", str(small), "--no-onnx"]) == 0
    damaged = tmp_path / "a.pt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    capsys.readouterr()
    assert main([str(original), str(damaged)]) == 2
    assert "not a .pt of relume, or damaged" in capsys.readouterr().err
