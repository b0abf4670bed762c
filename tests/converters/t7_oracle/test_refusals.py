"""What the oracle cannot run is refused by path and class, with the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.t7_oracle.interpreter import MAX_CALLS
from models.errors import FormatError, UnsupportedLayer
from tests.converters.t7_oracle.modules import X, box, ran, times
from tests.t7_writer import Module, Sizes


def linear(weight: Any) -> Module:
    return Module("nn.Linear", weight=np.array(weight, "f8"))


def shared(levels: int, name: str, *, leaf: Module | None = None) -> Module:
    module = leaf or Module("nn.Identity")
    for _ in range(levels):
        module = box(name, module, module)
    return module


def inside_itself() -> Module:
    module = box("Sequential")
    module.fields["modules"].append(module)
    return module


def holding_itself() -> Module:
    pair = box("ConcatTable", Module("nn.Identity"))
    return box("Sequential", pair, pair)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (inside_itself(), "nn.Sequential: modules nest more than 100 deep"),
        (shared(30, "Sequential"), f"more than {MAX_CALLS:,} calls of modules"),
        (shared(30, "ConcatTable"), "a table of more than 10,000 entries"),
        (shared(30, "ConcatTable", leaf=box("ConcatTable")), "a table of more than 10,000 entries"),
        (holding_itself(), "1: nn.ConcatTable: a table that nests more than 100 deep"),
        (box("Sequential", Module("nn.Nonesuch")), "0: nn.Nonesuch. A rule"),
        (Module("nn.CAddTable"), "nn.CAddTable: takes a table, its input is a tensor"),
        (box("Sequential", box("ConcatTable"), Module("nn.CAddTable")), "input has no entries"),
        (box("Sequential", box("ConcatTable"), Module("nn.Tanh")), "takes a tensor, its input is"),
        (linear(np.ones((2, 5))), "nn.Linear: matmul"),
        (Module("nn.View", size=Sizes(4)), r"nn.View: a view of \(2, 3\) as \(4,\)"),
        (Module("nn.View", size=Sizes(3), numInputDims=3), "takes 3 dimensions or more"),
        (Module("nn.Reshape", size=Sizes(5)), r"a view of \(2, 3\) as \(2, 5\)"),
        (
            box(
                "Sequential",
                Module("nn.Replicate", nfeatures=2, dim=1),
                Module("nn.View", size=Sizes(-1)),
            ),
            "a view of a tensor that is not contiguous",
        ),
        (Module("nn.Replicate", nfeatures=2**28), "are more than 268,435,456 elements"),
        (Module("nn.Replicate", nfeatures=2, dim=9), "a dimension before 9"),
        (Module("nn.Padding", dim=1, pad=-(2.0**27)), "are more than 268,435,456 elements"),
        (Module("nn.Padding", dim=9, pad=1, value=0), "dimension 9 of a tensor of 2"),
        (Module("nn.Padding", dim=1, pad=1, value=0, index=9), "pads at -5 of 2"),
        (Module("nn.Select", dimension=1, index=9), r"slice 9 along dimension 1 of \(2, 3\)"),
        (Module("nn.Squeeze", dim=7), r"dimension 7 of \(2, 3\)"),
        (Module("nn.Unsqueeze", pos=1, numInputDims=3), "takes 3 dimensions or more"),
        (Module("nn.Narrow", dimension=1, index=2, length=5), "takes 5 from 2 on of 2"),
        (Module("nn.SpatialMaxPooling", kW=2, kH=2), "takes 3 or 4 dimensions, its input has 2"),
        (Module("nn.Dropout", p=0.5, stochastic_inference=True), "draws random numbers"),
        (Module("nn.SpatialDropout", p=0.5, stochastic_inference=True), "draws random numbers"),
        (Module("nn.Threshold", threshold=0, val=1, inplace=True), "a value above the threshold"),
        (Module("nn.PReLU", nOutputPlane=2, weight=np.ones(2)), "2 planes, an input of"),
        (Module("nn.Add", bias=np.ones(2)), r"adds 2 numbers to an input of \(2, 3\)"),
        (Module("nn.AddConstant", constant_scalar=np.ones(2)), "adds 2 numbers"),
        (Module("nn.BatchNormalization", running_mean=np.ones(4), running_var=np.ones(4), eps=0),
         "normalises 4 planes, its input has 3"),
        (box("Concat", dimension=1), "joins nothing"),
        (box("Parallel", Module("nn.Identity"), inputDimension=1, outputDimension=1),
         "its module 2 does not exist"),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)  # fmt: skip
def test_what_cannot_run_is_refused(tmp_path: Path, module: Module, message: str) -> None:
    """An input or a setting without a result, or without an end, is refused by module and class."""
    with pytest.raises(UnsupportedLayer, match=message):
        ran(tmp_path, module)


def test_an_input_without_elements_is_refused(tmp_path: Path) -> None:
    """Torch7 has no tensor of no elements that a layer would take."""
    with pytest.raises(UnsupportedLayer, match=r"its input: sizes \(0, 3\) leave no element"):
        ran(tmp_path, times(2), np.zeros((0, 3)))


PAIR = (X, 2 * X)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (box("ParallelTable", times(1), times(1), times(1)), "3 modules, and a table of 2"),
        (Module("nn.SelectTable", index=3), "selects entry 3 of a table of 2"),
        (Module("nn.CAddTensorTable"), "takes a table, its input is a tensor"),
        (Module("nn.ZipTable"), "takes a table, its input is a tensor"),
        (Module("nn.ZipTableOneToMany"), "takes a table, its input is a tensor"),
        (
            box(
                "Sequential",
                box("ParallelTable", Module("nn.Unsqueeze", pos=1), Module("nn.Identity")),
                Module("nn.MM"),
            ),
            "takes two matrices or two batches",
        ),
        (Module("nn.MixtureTable", dim=9), "dimension 9 of a tensor of 2"),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)
def test_what_a_table_cannot_give_is_refused(tmp_path: Path, module: Module, message: str) -> None:
    """A table without the entries that a module takes is refused."""
    with pytest.raises(UnsupportedLayer, match=message):
        ran(tmp_path, module, *PAIR)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CSubTable", "takes two entries, its table has one"),
        ("CAddTensorTable", "takes a tensor and a table"),
        ("ZipTableOneToMany", "takes an entry and a table"),
        ("MixtureTable", "takes a gate and experts"),
    ],
)
def test_a_table_of_one_is_refused(tmp_path: Path, name: str, message: str) -> None:
    """Where two entries are wanted, one is refused."""
    network = box("Sequential", box("ConcatTable", Module("nn.Identity")), Module(f"nn.{name}"))
    with pytest.raises(UnsupportedLayer, match=f"1: nn.{name}: {message}"):
        ran(tmp_path, network)


IMAGE = np.ones((2, 3, 6, 6))
WINDOW: dict[str, Any] = {"kW": 3, "kH": 3, "dW": 1, "dH": 1, "padW": 0, "padH": 0}


def conv(name: str = "nn.SpatialConvolution", **fields: Any) -> Module:
    weight = np.ones((4, 3, 3, 3))
    given = {**WINDOW, "nInputPlane": 3, "nOutputPlane": 4, "weight": weight, **fields}
    return Module(name, **given)


def full(**fields: Any) -> Module:
    return conv("nn.SpatialFullConvolution", weight=np.ones((3, 4, 3, 3)), **fields)


def pool(name: str, **fields: Any) -> Module:
    return Module(name, **{**WINDOW, "ceil_mode": False, "divide": True, **fields})


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (conv(weight=np.ones((4, 2, 3, 3))), "takes 2 planes, its input has 3"),
        (conv(bias=np.ones(3)), "3 biases for 4 planes"),
        (conv(kW=7, weight=np.ones((4, 3, 3, 7))), "is smaller than the kernel"),
        (conv(padW=2**14, padH=2**14), "are more than 268,435,456 elements"),
        (conv("cudnn.SpatialConvolution", groups=2), "2 groups of 3 and 4 planes"),
        (full(adjW=1), r"adds \(0, 1\) to a result of stride \(1, 1\)"),
        (full(padW=9), "leave no element"),
        (conv("nn.SpatialConvolutionMap", weight=np.ones((4, 3, 3)), connTable=np.ones((3, 2))),
         r"\(3, 2\) pairs for a weight of \(4, 3, 3\)"),
        (pool("nn.SpatialMaxPooling", padW=2), "padding 2 is more than half of a kernel of 3"),
        (pool("nn.SpatialMaxPooling", kW=9), "is smaller than the kernel"),
        (pool("cudnn.SpatialAveragePooling", divide=False), "divide is false, which cudnn refuses"),
        (Module("nn.SpatialMaxUnpooling", pooling=pool("nn.SpatialMaxPooling")), "did not run"),
        (Module("nn.SpatialCrossMapLRN", size=4), "a window of 4 planes has no centre"),
        (Module("nn.SpatialZeroPadding", pad_l=-6, pad_r=0, pad_t=0, pad_b=0),
         "crops 6 by 6 and 0"),
        (Module("nn.SpatialReflectionPadding", pad_l=6, pad_r=0, pad_t=0, pad_b=0),
         "pads 6 by 6 and 0"),
        (Module("nn.SpatialUpSamplingNearest", scale_factor=2**14), "are more than 268,435,456"),
        (Module("nn.SpatialAdaptiveMaxPooling", W=2**14, H=2**14), "are more than 268,435,456"),
        (Module("nn.PixelShuffle", upscaleFactor=2), "cannot reshape"),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)  # fmt: skip
def test_what_an_image_cannot_give_is_refused(tmp_path: Path, module: Module, message: str) -> None:
    """Windows, planes and paddings that do not go with the image are refused."""
    with pytest.raises(UnsupportedLayer, match=message):
        ran(tmp_path, module, IMAGE)


def test_unpooling_what_was_not_pooled_is_refused(tmp_path: Path) -> None:
    """Places go with the tensor they were taken from, and every window has one."""
    pooling = pool("nn.SpatialMaxPooling", dW=3, dH=3)
    unpooling = Module("nn.SpatialMaxUnpooling", pooling=pooling)
    crop = Module("nn.SpatialZeroPadding", pad_l=-1, pad_r=0, pad_t=0, pad_b=0)
    with pytest.raises(UnsupportedLayer, match=r"undoes a pooling of \(2, 3, 2, 2\), its input"):
        ran(tmp_path, box("Sequential", pooling, crop, unpooling), IMAGE)
    with pytest.raises(UnsupportedLayer, match="a window without a maximum"):
        ran(tmp_path, box("Sequential", pooling, unpooling), IMAGE * np.nan)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (times("x"), r"layer \(the whole file\) \(nn.MulConstant\): found constant_scalar = 'x'"),  # type: ignore[arg-type]
        (box("Sequential", Module("nn.Dropout")), r"layer 0 \(nn.Dropout\): found p = nil"),
        (conv(kW=1.5), "found kW = 1.5, expected a whole number"),
        (conv(dW=0), "found dW = 0, expected 1 or more"),
        (conv(kW=2**15), "found kW = 32768, expected 16,384 or less"),
        (conv(weight=None), "found weight = nil, expected a tensor"),
        (conv(weight=1), "found weight = 1, expected a tensor"),
        (Module("nn.View", size=[2]), "found size = a table, expected a LongStorage"),
        (Module("nn.Sequential", modules=3), "found modules = 3, expected a table"),
        (Module("nn.Sequential", modules=[3]), "found modules = a table, expected modules only"),
        (Module("nn.SpatialMaxUnpooling"), "found pooling = nil, expected a module"),
        (Module("nn.Transpose", permutations=[[1]]), "permutations = a table, expected pairs"),
        (Module("nn.gModule", forwardnodes=[3]), "expected nodes with data"),
        (conv("nn.SpatialConvolutionMap", weight=np.ones((1, 3, 3)), connTable=np.zeros((1, 2))),
         "expected planes from 1 on"),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)  # fmt: skip
def test_broken_fields_are_named(tmp_path: Path, module: Module, message: str) -> None:
    """A field that is missing or of the wrong kind is named, with its layer."""
    with pytest.raises(FormatError, match=message):
        ran(tmp_path, module, IMAGE)
