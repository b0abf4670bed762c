"""Layers with weights are what their definitions say."""

from typing import Any

import numpy as np
import pytest

from models.errors import WeightMismatch
from models.graph import Array, Shape
from tests.t7_writer import Module, Sizes
from tests.torch7 import box, check, check_refused, each, lowered, nn, outputs

IMAGES = (2, 4, 6, 7)
WINDOW: dict[str, Any] = {"kW": 2, "kH": 3, "dW": 2, "dH": 1, "padW": 1, "padH": 0}


def weights(*shape: int) -> Array:
    """Return weights that no two of are the same."""
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype("f4")


def conv(class_name: str, weight: Array, bias: Array | None = None, **fields: Any) -> Module:
    """Return a convolution of 4 planes to 6; None leaves a field out."""
    given = {"nInputPlane": 4, "nOutputPlane": 6, **WINDOW, "weight": weight, "bias": bias}
    return Module(class_name, **{k: v for k, v in {**given, **fields}.items() if v is not None})


def linear(weight: Array, bias: Array | None = None, **fields: Any) -> Module:
    given = {"weight": weight, "bias": bias, **fields}
    return nn("Linear", **{name: value for name, value in given.items() if value is not None})


def norm(class_name: str, **fields: Any) -> Module:
    statistics = {"running_mean": weights(4), "running_var": weights(4) ** 2 + 0.5}
    affine = {"weight": weights(4) + 2, "bias": weights(4) - 1}
    given = {**statistics, **affine, "eps": 1e-3, "momentum": 0.1, **fields}
    return Module(class_name, **{name: value for name, value in given.items() if value is not None})


def weight_normed(child: Module, weight: Array, output: int, **fields: Any) -> Module:
    """Return a WeightNorm as its files have it: v and g, and no weight."""
    count = weight.shape[output - 1]
    v = weights(count, weight.size // count)
    sizes = list(weight.shape)
    sizes.insert(0, sizes.pop(output - 1))
    kept = {"weightSize": Sizes(*weight.shape), "viewOut": Sizes(*sizes), "outputDim": output}
    return box("WeightNorm", child, v=v, g=weights(count) + 2, **{**kept, **fields})


NN, MM, CUDNN = "nn.SpatialConvolution", "nn.SpatialConvolutionMM", "cudnn.SpatialConvolution"
FULL, CUDNN_FULL = "nn.SpatialFullConvolution", "cudnn.SpatialFullConvolution"
DEPTHWISE = "nn.SpatialDepthWiseConvolution"
KERNELS = weights(6, 4, 3, 2)
TURNED = weights(4, 6, 3, 2)
CONNECTIONS = np.array([[1, 1], [2, 1], [4, 3], [1, 2], [1, 2]], "f4")
MAPS = {"connTable": CONNECTIONS, "weight": weights(5, 3, 2), "bias": weights(6), "padW": None}
FILTERS = {"weight": weights(3, 4, 3, 2), "nOutputPlane": 3}
CASES = {
    "linear": (linear(weights(3, 5), weights(3)), (2, 5)),
    "linear-vector": (linear(weights(3, 5), weights(3)), (5,)),
    "linear-without-bias": (linear(weights(3, 5), bias=np.zeros(0, "f4")), (2, 5)),
    "convolution": (conv(NN, KERNELS, weights(6)), IMAGES),
    "convolution-image": (conv(NN, KERNELS, weights(6)), IMAGES[1:]),
    "convolution-flat": (conv(NN, KERNELS.reshape(6, -1), weights(6)), IMAGES),
    "convolution-old": (
        conv(NN, KERNELS, weights(6), padding=1, padW=None, padH=None, dW=None, dH=None),
        IMAGES,
    ),
    "convolution-both-paddings": (conv(NN, KERNELS, padding=0), IMAGES),
    "convolution-mm": (conv(MM, KERNELS.reshape(6, -1), weights(6)), IMAGES),
    "convolution-dilated": (
        conv("nn.SpatialDilatedConvolution", KERNELS, dilationW=2, dilationH=1),
        IMAGES,
    ),
    "cudnn": (conv(CUDNN, KERNELS, weights(6)), IMAGES),
    "cudnn-groups": (conv(CUDNN, weights(6, 2, 3, 2), weights(6), groups=2), IMAGES),
    "cudnn-padding": (conv(CUDNN, KERNELS, padding=1), IMAGES),
    "full": (conv(FULL, TURNED, weights(6)), IMAGES),
    "full-image": (conv(FULL, TURNED, weights(6)), IMAGES[1:]),
    "full-adjusted": (conv(FULL, TURNED, adjW=1, adjH=0), IMAGES),
    "full-like": (conv(FULL, TURNED, dH=2), IMAGES, (2, 1, 13, 12)),
    "full-like-odd": (conv(FULL, TURNED, dH=2), IMAGES, (2, 1, 14, 13)),
    "cudnn-full": (conv(CUDNN_FULL, TURNED, weights(6)), IMAGES),
    "depthwise": (conv(DEPTHWISE, bias=weights(3, 4), **FILTERS), IMAGES),
    "depthwise-flat": (
        conv(DEPTHWISE, **{**FILTERS, "weight": weights(3, 4, 6)}, padH=1),
        IMAGES,
    ),
    "depthwise-one-padding": (conv(DEPTHWISE, **FILTERS, padding=1), IMAGES),
    "map": (conv("nn.SpatialConvolutionMap", **MAPS), IMAGES),
    "map-image": (conv("nn.SpatialConvolutionMap", **MAPS), IMAGES[1:]),
    "batch-norm": (norm("nn.BatchNormalization"), (3, 4)),
    "batch-norm-sample": (norm("nn.BatchNormalization"), (4,)),
    "batch-norm-plain": (norm("nn.BatchNormalization", weight=None, bias=None), (3, 4)),
    "batch-norm-scale": (norm("nn.SpatialBatchNormalization", bias=None), IMAGES),
    "batch-norm-shift": (norm("nn.SpatialBatchNormalization", weight=None), IMAGES),
    "batch-norm-image": (norm("nn.SpatialBatchNormalization"), IMAGES[1:]),
    "batch-norm-old": (
        norm("nn.SpatialBatchNormalization", running_var=None, running_std=weights(4) + 2),
        IMAGES,
    ),
    "cudnn-batch-norm": (norm("cudnn.BatchNormalization"), (3, 4)),
    "cudnn-spatial-batch-norm": (norm("cudnn.SpatialBatchNormalization"), IMAGES),
    "prelu": (nn("PReLU", nOutputPlane=0, weight=weights(1)), IMAGES),
    "prelu-planes": (nn("PReLU", nOutputPlane=4, weight=weights(4)), IMAGES),
    "prelu-rows": (nn("PReLU", nOutputPlane=4, weight=weights(4)), (3, 4)),
    "prelu-cube": (nn("PReLU", nOutputPlane=4, weight=weights(4)), (3, 4, 5)),
    "prelu-vector": (nn("PReLU", nOutputPlane=4, weight=weights(4)), (4,)),
    "mul": (nn("Mul", weight=weights(1)), (2, 3)),
    "cmul-sample": (nn("CMul", weight=weights(3, 4)), (2, 3, 4)),
    "cmul-whole": (nn("CMul", weight=weights(3, 2)), (2, 3)),
    "cmul-broadcast": (nn("CMul", weight=weights(1, 4, 1, 1)), IMAGES),
    "cmul-flat": (nn("CMul", weight=weights(12)), (2, 3, 4)),
    "add": (nn("Add", bias=weights(3), scalar=False), (2, 3)),
    "add-sample": (nn("Add", bias=weights(12), scalar=False), (2, 3, 4)),
    "add-same": (nn("Add", bias=weights(3), scalar=False), (3,)),
    "add-scalar": (nn("Add", bias=weights(1), scalar=True), (2, 3)),
    "cadd-sample": (nn("CAdd", bias=weights(3, 4)), (2, 3, 4)),
    "cadd-broadcast": (nn("CAdd", bias=weights(1, 4, 1, 1)), IMAGES),
    "const-affine": (Module("inn.ConstAffine", a=weights(4), b=weights(4) + 1), IMAGES),
    "const-affine-rows": (Module("inn.ConstAffine", a=weights(4), b=weights(4) + 1), (3, 4)),
    "const-affine-inplace": (
        box(
            "ConcatTable",
            nn("Identity"),
            Module("inn.ConstAffine", a=weights(4), b=weights(4) + 1, inplace=True),
        ),
        IMAGES,
    ),
    "weight-norm": (weight_normed(linear(weights(3, 5), weights(3)), weights(3, 5), 1), (2, 5)),
    "weight-norm-second": (weight_normed(conv(FULL, TURNED), TURNED, 2), IMAGES),
    "weight-norm-first-of-four": (weight_normed(conv(NN, KERNELS), KERNELS, 1), IMAGES),
    "linear-weight-norm": (
        nn("LinearWeightNorm", v=weights(3, 5), g=weights(3, 1) + 2, bias=weights(3), eps=1e-16),
        (2, 5),
    ),
    "linear-weight-norm-bounded": (
        nn("LinearWeightNorm", v=weights(3, 5) * 0.01, g=weights(3, 1), eps=0.5),
        (2, 5),
    ),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule, with and without a batch."""
    check(module, shapes)


def test_a_sample_that_is_normalised_becomes_a_batch() -> None:
    """BatchNormalization gives the very tensor that came in a batch dimension."""
    both = box("ConcatTable", nn("Identity"), norm("nn.BatchNormalization"))
    kept, _ = check(both, [(4,)])
    assert kept.shape == (1, 4)


def test_a_copy_that_is_normalised_leaves_its_source() -> None:
    """A tensor with gaps is copied first, so its holders see nothing."""
    entry = box("Sequential", nn("SplitTable", dimension=2), nn("SelectTable", index=1))
    both = box("ConcatTable", nn("Identity"), norm("nn.BatchNormalization"))
    kept, _ = check(box("Sequential", entry, both), [(4, 2)])
    assert kept.shape == (4,)


def test_depthwise_filters_are_interleaved_by_plane() -> None:
    """The weight has filters first, the output planes first."""
    weight = np.arange(6, dtype="f4").reshape(2, 3, 1, 1)  # 2 filters for each of 3 planes
    bias = 10 * np.arange(6, dtype="f4").reshape(2, 3)
    fields = {"nInputPlane": 3, "nOutputPlane": 2, "kW": 1, "kH": 1, "dW": 1, "dH": 1}
    module = Module(DEPTHWISE, weight=weight, bias=bias, **fields)
    (output,) = outputs(module, [np.ones((1, 3, 1, 1), "f4")])
    np.testing.assert_array_equal(output.ravel(), (weight[..., 0, 0] + bias).T.ravel())


@pytest.mark.parametrize(
    ("module", "shapes", "message"),
    [
        (linear(weights(2, 3)), [IMAGES], "takes a vector or a matrix, its input has 4 dimensions"),
        (linear(np.ones(3, "f4")), [(2, 3)], r"found weight = \(3,\), expected two dimensions"),
        (linear(weights(2, 3)), [(2, 4)], "expected one that Linear takes"),
        (nn("Linear"), [(2, 3)], "found weight = nil, expected a tensor"),
        (nn("Linear", weight=np.ones((2, 3), "i8")), [(2, 3)], "expected a tensor of floats"),
        (conv(NN, KERNELS), [(3,)], "takes images, its input has 1 dimensions"),
        (conv(NN, KERNELS, dW=0), [IMAGES], r"found dH, dW = \(1, 0\), expected 1 or more"),
        (conv(NN, KERNELS, kW="wide"), [IMAGES],
         r"layer \(the whole file\) \(nn.SpatialConvolution\): found kW = 'wide', expected"),
        (conv(NN, KERNELS, kW=1.5), [IMAGES], "found kW = 1.5, expected a whole number"),
        (conv(NN, KERNELS), [(2, 5, 6, 7)], "an input of 2x5x6x7, expected one that Conv2d takes"),
        (conv(CUDNN, KERNELS, groups=3), [IMAGES], "expected one that Conv2d takes"),
        (conv(FULL, TURNED), [IMAGES, IMAGES, IMAGES],
         "takes a tensor or a table of 2, its input is one of 3"),
        (conv(CUDNN_FULL, TURNED), [IMAGES, IMAGES], "its input is a table of 2, not a tensor"),
        (conv("nn.SpatialConvolutionMap", **{**MAPS, "connTable": weights(5, 3)}), [IMAGES],
         r"found connTable = \(5, 3\), expected a pair for each of \(5, 3, 2\)"),
        (conv("nn.SpatialConvolutionMap", **{**MAPS, "connTable": 7 * CONNECTIONS}), [IMAGES],
         "expected planes 1 to 4, 6"),
        (norm("nn.BatchNormalization"), [(3, 5)], "expected one that BatchNorm1d takes"),
        (nn("CMul", weight=weights(5)), [(2, 3)], r"\(5,\), expected numbers for \(2, 3\), or for"),
        (nn("CAdd", bias=weights(4)), [(2, 3)], r"found bias = \(4,\), expected numbers for"),
        (weight_normed(linear(weights(3, 5)), weights(3, 5), 1, outputDim=3), [(2, 5)],
         r"found outputDim, weightSize = \(3, \[3, 5\]\), expected 15 numbers"),
        (weight_normed(linear(weights(3, 5)), weights(3, 5), 1, weightSize=Sizes(3, 4)), [(2, 5)],
         r"found outputDim, weightSize = \(1, \[3, 4\]\), expected 15 numbers"),
        (box("WeightNorm", linear(weights(3, 5)), linear(weights(3, 5))), [(2, 5)],
         "found modules = '2 modules', expected one"),
        (Module("inn.ConstAffine", a=weights(4), b=weights(4)), [IMAGES[1:]],
         "takes 2 or 4 dimensions, its input has 3"),
    ],
)  # fmt: skip
def test_fields_that_do_not_fit_are_refused(
    module: Module, shapes: list[Shape], message: str
) -> None:
    """A field that is missing, of the wrong kind or out of range, or an input that does not fit."""
    check_refused(module, shapes, message)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (conv(NN, KERNELS[:, :3]), r"0\.weight is \(6, 3, 3, 2\), expected \(6, 4, 3, 2\)"),
        (conv(DEPTHWISE, weights(3, 4, 2), nOutputPlane=3), r"0\.weight is \(3, 4, 2\), expected"),
        (conv(DEPTHWISE, **FILTERS, bias=weights(5)), r"0\.bias is \(5,\), expected \(12,\)"),
        (norm("nn.SpatialBatchNormalization", bias=weights(3)), r"0\.bias is \(3,\), expected"),
        (nn("PReLU", nOutputPlane=4, weight=weights(3)), r"0\.weight is \(3,\), expected \(4,\)"),
    ],
)
def test_weights_of_other_shapes_are_refused(module: Module, message: str) -> None:
    """A weight that its layer's other fields contradict."""
    with pytest.raises(WeightMismatch, match=message):
        lowered(box("Sequential", module), [IMAGES])
