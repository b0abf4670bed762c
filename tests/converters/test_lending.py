"""Arrays of MXNet without a symbol, with the graph that an architecture lends them."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from converters.cli import convert
from converters.lending import LentSource
from converters.mx import MXSource, params
from converters.mx.params import V3
from converters.sources import find
from models.build import build
from models.errors import FormatError, SpecError, WeightMismatch
from models.ops import infer
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
