"""Arrays of MXNet without a symbol, with the graph that an architecture lends them."""

import json
import lzma
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converters.cli import convert
from converters.lending import LentSource
from converters.mx import MXSource, params
from converters.mx.params import V3
from converters.packing import unpacked
from converters.sources import find
from models.architectures import create
from models.build import build
from models.errors import FormatError, SpecError, WeightMismatch
from models.ops import infer
from models.presets import PRESETS
from models.verify import run
from tests.mx_writer import params as written
from tests.oracles import golden
from tests.t7_writer import Module, write

SAVED = "mxnet/gluon/mx1.2-resnet_v2-tiny.save_parameters.params"
BOUND = 1e-3  # x std(logits), as for every network of Gluon's
TINY = "mxnet/resnet/imagenet-18-tiny-v191-0000.params"


def altered(folder: Path, changes: Mapping[str, np.ndarray | None]) -> Path:
    """Write the saved parameters with some of them changed, added, or left out."""
    arrays = {**params.read(golden(SAVED)).arrays, **changes}
    path = folder / "altered.params"
    path.write_bytes(written({key: one for key, one in arrays.items() if one is not None}, V3))
    return path


def test_saved_parameters_equal_mxnet() -> None:
    """A `save_parameters` file gives the logits of the network that it was saved from."""
    theirs = np.load(golden("mxnet/gluon/mx1.2-resnet_v2-tiny-expected.npz"))
    batch = (theirs["images"].astype(np.float32) - np.float32(127.5)) / 64
    source = LentSource(golden(SAVED), architecture="gluon_resnet_v2_10")
    assert source.notes == ("the graph is that of gluon_resnet_v2_10: the file has none",)
    (logits,) = run(build(source.lower([batch.shape], infer).network), [batch])
    assert np.abs(logits - theirs["logits"]).max() <= BOUND * theirs["logits"].std()
    np.testing.assert_array_equal(logits.argmax(1), theirs["logits"].argmax(1))


# Networks that MXNet exported, at the zoo's own number of layers, by the zoo's names.
EXPORTED = {
    "mobilenet0.25": "mobilenet0.25",
    "resnet18_v1-narrow": "resnet18_v1",
    "squeezenet1.1": "squeezenet1.1",
    "inceptionv3": "inceptionv3",
}


def stored(file: str) -> dict[str, np.ndarray]:
    """Return the arrays of an exported network by their counted names, the prefix cut off."""
    with unpacked(golden(f"mxnet/gluon/{file}-0000.params.xz")) as plain:
        arrays = params.read(plain).arrays
    return {
        re.sub(r"^(arg|aux):[a-z]+[0-9v]+_", "", name): one
        for name, one in arrays.items()
        if one is not None
    }


def structural(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return arrays by the structural names that MXNet has for these counted ones."""
    zoo = json.loads(lzma.decompress(golden("mxnet/zoo/parameters.json.xz").read_bytes()))[name]
    return {
        key: arrays[counted.removeprefix(zoo["prefix"])]
        for key, (counted, _) in zoo["parameters"].items()
    }


@pytest.mark.parametrize("file", EXPORTED)
def test_the_zoos_files_equal_mxnet(tmp_path: Path, file: str) -> None:
    """Exported arrays without their symbol, files of before 1.2, and later ones: MXNet's logits."""
    zoo = EXPORTED[file]
    theirs = np.load(golden(f"mxnet/gluon/{file}-expected.npz"))
    spec = PRESETS["gluon-299" if zoo == "inceptionv3" else "gluon-224"]
    mean, std = (np.float32(one).reshape(3, 1, 1) for one in (spec.mean, spec.std))
    batch = (theirs["images"] / np.float32(255) - mean) / std
    counted = stored(file)
    networks = []
    spellings = {
        "exported": {f"arg:net0_{name}": one for name, one in counted.items()},
        "before-1.2": counted,
        "structural": structural(counted, zoo),
    }
    for name, spelling in spellings.items():
        path = tmp_path / f"{name}.params"
        path.write_bytes(written(spelling))
        source = LentSource(path, architecture=f"gluon_{zoo}")
        assert source.input is spec
        networks.append(source.lower([batch.shape], infer).network)
    exported, saved, last = networks
    assert exported.graph == saved.graph == last.graph
    for other in (exported, saved):
        assert other.tensors.keys() == last.tensors.keys()
        assert all(np.array_equal(other.tensors[key], one) for key, one in last.tensors.items())
    (logits,) = run(build(last), [batch])
    assert np.abs(logits - theirs["logits"]).max() <= BOUND * theirs["logits"].std()
    np.testing.assert_array_equal(logits.argmax(1), theirs["logits"].argmax(1))


def test_widths_are_read_off_the_arrays(tmp_path: Path) -> None:
    """A network of a quarter of the widths is that of the full width as well."""
    path = tmp_path / "zoo.params"
    path.write_bytes(written(stored("mobilenet0.25")))
    shape = (1, 3, 64, 64)
    whole, quarter = (
        LentSource(path, architecture=f"gluon_mobilenet{one}").lower([shape], infer)
        for one in ("1.0", "0.25")
    )
    assert whole.network.graph == quarter.network.graph
    assert whole.shapes == ((1, 1000),)


def test_what_no_array_shows_is_told(tmp_path: Path) -> None:
    """Names that are counted may be of MXNet 1.0, where ResNet-v1 halved images elsewhere."""
    with torch.device("meta"):
        module = create("gluon_resnet_v1_50", width_divisor=16)
    words = {nn.BatchNorm2d: {"weight": "gamma", "bias": "beta"}}
    arrays = {
        f"{name}_{words.get(type(layer), {}).get(tensor, tensor)}": np.ones(tuple(one.shape), "f4")
        for name, layer in (
            (name, module.get_submodule(key)) for key, name in module.counted_names().items()
        )
        for tensor, one in layer.state_dict().items()
        if tensor != "num_batches_tracked"
    }
    path = tmp_path / "zoo.params"
    path.write_bytes(written(arrays))
    _, warning = LentSource(path, architecture="gluon_resnet_v1_50").notes
    assert warning.endswith("is another one: --architecture gluon_resnet_v1_50_until_1.0")
    assert len(LentSource(path, architecture="gluon_resnet_v1_50_until_1.0").notes) == 1


def test_a_counted_name_that_is_missing(tmp_path: Path) -> None:
    """It is called what the file would call it."""
    arrays = stored("squeezenet1.1")
    del arrays["conv3_bias"]
    path = tmp_path / "zoo.params"
    path.write_bytes(written({f"net0_{name}": one for name, one in arrays.items()}))
    with pytest.raises(
        WeightMismatch, match=r"as gluon_squeezenet1\.1: .*missing: net0_conv3_bias"
    ):
        LentSource(path, architecture="gluon_squeezenet1.1")


def test_widths_that_the_class_cannot_have(tmp_path: Path) -> None:
    """A bottleneck of version 1 has a quarter of its channels inside: of 3 there is none."""
    with torch.device("meta"):
        module = create("gluon_resnet_v1_50", width_divisor=16)
    arrays = {
        name: np.zeros(tuple(one.shape), np.float32)
        for name, one in module.state_dict().items()
        if "num_batches" not in name
    }
    arrays["features.4.0.body.6.weight"] = np.zeros((3, 1, 1, 1), np.float32)
    path = tmp_path / "zoo.params"
    path.write_bytes(written(arrays))
    with pytest.raises(SpecError, match="as gluon_resnet_v1_50: 3 channels divided by 4: none is"):
        LentSource(path, architecture="gluon_resnet_v1_50")


def test_a_lost_symbol_is_made_up_for() -> None:
    """The arrays of tornadomeet's ResNet, under the names of its symbol, are the same network."""
    path = golden(TINY)
    lent = LentSource(path, architecture="resnet_v2_18")
    own = MXSource(path, symbol_path=path.with_name("imagenet-18-tiny-v191-symbol.json"))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64)).astype(np.float32)
    shape = (1, 3, 224, 224)
    batch = np.tile(pixels, (1, 1, 4, 4))[:, :, :224, :224]
    ours, theirs = (
        run(build(one.lower([shape], infer).network), [batch])[0] for one in (lent, own)
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_a_scale_that_stays_one_is_not_taken(tmp_path: Path) -> None:
    """What the file holds as the first scale counts for nothing, as with a symbol."""
    path = altered(tmp_path, {"features.0.gamma": np.full(3, 7, "f4")})
    network = LentSource(path, architecture="gluon_resnet_v2_10").lower([(1, 3, 96, 96)], infer)
    np.testing.assert_array_equal(network.network.tensors["features.0.weight"], 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output.bias": None}, "missing: output.bias"),
        ({"output.weight": None}, "missing: output.weight"),
        ({"more": np.ones(2, "f4")}, "unexpected: more"),
        (
            {"features.2.gamma": np.ones(9, "f4")},
            "misshapen: features.2.gamma is (9,), expected (8,)",
        ),
        (
            {"features.1.weight": np.ones((0, 3, 7, 7), "f4")},
            "misshapen: features.1.weight is (0, 3, 7, 7), expected a width first",
        ),
        ({"output.weight": np.array(5, "f4")}, "output.weight is (), expected a width first"),
    ],
    ids=["missing", "missing, and needed for the widths", "unexpected", "misshapen", "0", "none"],
)
def test_every_name_and_shape_has_to_match(
    tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    """One array too few, too many or of another shape, and it is not that network."""
    with pytest.raises(WeightMismatch, match=re.escape("as gluon_resnet_v2_10: tensors do not m")):
        LentSource(altered(tmp_path, changes), architecture="gluon_resnet_v2_10")
    with pytest.raises(WeightMismatch, match=re.escape(message)):
        LentSource(altered(tmp_path, changes), architecture="gluon_resnet_v2_10")


def test_numbers_that_no_layer_has(tmp_path: Path) -> None:
    """Weights are floats."""
    path = altered(tmp_path, {"output.bias": np.ones(10, "i4")})
    with pytest.raises(FormatError, match=r"array output\.bias: found int32 numbers, expected flo"):
        LentSource(path, architecture="gluon_resnet_v2_10")


def test_another_depth_is_refused() -> None:
    """A network of more units has names that the file lacks."""
    with pytest.raises(WeightMismatch, match=r"missing: features\.5\.1\.bn1\.gamma"):
        LentSource(golden(SAVED), architecture="gluon_resnet_v2_18")


def test_what_cannot_be_lent(tmp_path: Path) -> None:
    """Architectures without MXNet names, several inputs, other formats."""
    with pytest.raises(SpecError, match="--architecture fb_resnet_18: MXNet has no names for its"):
        LentSource(golden(SAVED), architecture="fb_resnet_18")
    source = LentSource(golden(SAVED), architecture="gluon_resnet_v2_10")
    with pytest.raises(SpecError, match=r"shapes \[\(2, 3\)\], expected one batch of images"):
        source.lower([(2, 3)], infer)
    with pytest.raises(SpecError, match="images of 96 x 64, expected square ones: gluon_re"):
        source.lower([(2, 3, 96, 64)], infer)
    with pytest.raises(SpecError, match="without a symbol there is nothing to be held against"):
        source.follow([], print)
    with pytest.raises(SpecError, match="the state of an MXNet optimizer is not read"):
        source.sgd(tmp_path)
    path = write(tmp_path / "x.t7", Module("nn.Identity"))
    with pytest.raises(SpecError, match="--architecture goes with MXNet arrays or a PyTorch ch"):
        find(path, architecture="resnet_v2_18")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flag of the doorway; the note says whose graph it is."""
    arguments = ["--architecture", "gluon_resnet_v2_10", "--input", "none", "--no-onnx"]
    shape = ["--input-shape", "2,3,96,96"]
    assert convert([str(golden(SAVED)), *arguments, *shape, "-o", str(tmp_path)]) == 0
    assert "note        the graph is that of gluon_resnet_v2_10" in capsys.readouterr().out
