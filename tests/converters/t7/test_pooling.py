"""Pooling, unpooling and normalisation across maps are what their definitions say."""

from typing import Any

import numpy as np
import pytest

from models.graph import Shape
from tests.t7_writer import Module
from tests.torch7 import box, check, check_refused, each, nn

IMAGES = (2, 3, 7, 8)
ODD = (2, 3, 9, 9)


def pool(class_name: str, **fields: Any) -> Module:
    window = {"kW": 2, "kH": 3, "dW": 2, "dH": 1, "padW": 0, "padH": 0}
    given = {**window, "ceil_mode": False, "divide": True, "count_include_pad": True, **fields}
    return Module(class_name, **{name: value for name, value in given.items() if value is not None})


def unpooled(*inside: Module, **fields: Any) -> Module:
    pooling = pool("nn.SpatialMaxPooling", **fields)
    unpooling = nn("SpatialMaxUnpooling", pooling=pooling)
    return box("Sequential", pooling, *inside, unpooling)


def lrn(class_name: str = "nn.SpatialCrossMapLRN", **fields: Any) -> Module:
    given = {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 2, **fields}
    return Module(class_name, **{name: value for name, value in given.items() if value is not None})


MAX, AVERAGE = "nn.SpatialMaxPooling", "nn.SpatialAveragePooling"
CUDNN_MAX, CUDNN_AVERAGE = "cudnn.SpatialMaxPooling", "cudnn.SpatialAveragePooling"
WIDE: dict[str, Any] = {"kW": 3, "kH": 3, "dW": 2, "dH": 2}
SUMS = {"weight": np.array([2, -1, 3], "f4"), "bias": np.array([1, 2, -3], "f4")}
CASES = {
    "max": (pool(MAX), IMAGES),
    "max-image": (pool(MAX), IMAGES[1:]),
    "max-old": (pool(MAX, padW=None, padH=None, ceil_mode=None), IMAGES),
    "max-ceil": (pool(MAX, **WIDE, ceil_mode=True), (2, 3, 8, 8)),
    "max-ceil-padded": (pool(MAX, **WIDE, ceil_mode=True, padW=1, padH=1), IMAGES),
    "max-ceil-drops": (pool(MAX, kW=2, kH=2, dW=3, dH=3, ceil_mode=True, padW=1, padH=1), ODD),
    "max-ceil-drops-one": (
        pool(MAX, kW=2, kH=2, dW=3, dH=3, ceil_mode=True, padW=1, padH=1),
        (2, 3, 9, 10),
    ),
    "max-dilated": (
        pool("nn.SpatialDilatedMaxPooling", dilationW=2, dilationH=2, padW=1, padH=1),
        IMAGES,
    ),
    "cudnn-max-ceil": (pool(CUDNN_MAX, **WIDE, ceil_mode=True), (2, 3, 8, 8)),
    "inn-max": (pool("inn.SpatialMaxPooling", **WIDE, ceil_mode=None), (2, 3, 8, 8)),
    "average": (pool(AVERAGE), IMAGES),
    "average-image": (pool(AVERAGE), IMAGES[1:]),
    "average-padded": (pool(AVERAGE, padW=1, padH=1), IMAGES),
    "average-padding-left-out": (
        pool(AVERAGE, padW=1, padH=1, count_include_pad=False),
        IMAGES,
    ),
    "average-ceil": (pool(AVERAGE, **WIDE, ceil_mode=True), (2, 3, 8, 8)),
    "average-ceil-padded": (pool(AVERAGE, **WIDE, ceil_mode=True, padW=1, padH=1), (2, 3, 8, 8)),
    "average-ceil-padding-left-out": (
        pool(AVERAGE, **WIDE, ceil_mode=True, padW=1, padH=1, count_include_pad=False),
        (2, 3, 8, 8),
    ),
    "average-before-ceil": (pool(AVERAGE, ceil_mode=None, padW=1, padH=1), IMAGES),
    "average-sum": (pool(AVERAGE, divide=None), IMAGES),
    "average-sum-padding-left-out": (
        pool(AVERAGE, divide=False, count_include_pad=False, padW=1, padH=1),
        IMAGES,
    ),
    "cudnn-average": (pool(CUDNN_AVERAGE, divide=None), IMAGES),
    "cudnn-average-padded": (
        pool(CUDNN_AVERAGE, padW=1, padH=1, count_include_pad=False),
        IMAGES,
    ),
    "cudnn-average-before-ceil": (pool(CUDNN_AVERAGE, ceil_mode=None, padW=1, padH=1), IMAGES),
    "cudnn-average-ceil-exact": (
        pool(CUDNN_AVERAGE, kW=3, kH=3, ceil_mode=True, dW=2, dH=2),
        (2, 3, 7, 9),
    ),
    "unpool": (unpooled(kW=2, kH=2, dW=2, dH=2), (2, 3, 8, 8)),
    "unpool-changed": (
        unpooled(nn("MulConstant", constant_scalar=-2, inplace=True), kW=2, kH=2, dW=2, dH=2),
        (2, 3, 8, 8),
    ),
    "unpool-odd": (unpooled(kW=2, kH=2, dW=2, dH=2), (2, 3, 7, 9)),
    "adaptive-max": (nn("SpatialAdaptiveMaxPooling", H=3, W=4), IMAGES),
    "adaptive-max-image": (nn("SpatialAdaptiveMaxPooling", H=3, W=4), IMAGES[1:]),
    "adaptive-average": (nn("SpatialAdaptiveAveragePooling", H=2, W=3), IMAGES),
    "adaptive-average-more": (nn("SpatialAdaptiveAveragePooling", H=9, W=3), IMAGES),
    "sub-sampling": (nn("SpatialSubSampling", kW=2, kH=3, dW=2, dH=1, **SUMS), IMAGES),
    "sub-sampling-image": (nn("SpatialSubSampling", kW=2, kH=3, **SUMS), IMAGES[1:]),
    "lrn": (lrn(), IMAGES),
    "lrn-image": (lrn(), IMAGES[1:]),
    "lrn-wide": (lrn(size=7), IMAGES),
    "inn-lrn": (lrn("inn.SpatialCrossResponseNormalization"), IMAGES),
    "cudnn-lrn": (lrn("cudnn.SpatialCrossMapLRN"), IMAGES),
    "cudnn-lrn-old": (lrn("cudnn.SpatialCrossMapLRN", k=None, K=3), IMAGES),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule, with and without a batch."""
    check(module, shapes)


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (pool(MAX), (2, 3), "takes images, its input has 2 dimensions"),
        (pool(MAX, kW=0), IMAGES, r"found kH, kW = \(3, 0\), expected 1 or more"),
        (pool(MAX, kH=9), IMAGES, "expected one that MaxPool2d takes"),
        (pool(MAX, kW=1, kH=1, dW=3, dH=3, ceil_mode=True), ODD,
         "window that lies wholly outside the image"),
        (pool(CUDNN_AVERAGE, kW=3, kH=3, ceil_mode=True), (2, 3, 8, 8),
         "windows that stick out of the image"),
        (pool(CUDNN_AVERAGE, divide=False), IMAGES, "divide is false, which cudnn refuses as well"),
        (pool(AVERAGE, kW=None), IMAGES, "found kW = nil, expected a finite number"),
        (nn("SpatialMaxUnpooling", pooling=pool(MAX)), IMAGES, "that it undoes did not run before"),
        (unpooled(), IMAGES[1:], "unpools an image without a batch dimension"),
        (nn("SpatialAdaptiveMaxPooling", H=0, W=1), IMAGES, r"H, W = \(0, 1\), expected 1 to"),
        (nn("SpatialAdaptiveMaxPooling", H=61, W=1), (1, 1, 61, 61), "round differently"),
        (lrn(size=4), IMAGES, "a window of 4 maps has no centre"),
        (lrn(), (2, 3), "takes images, its input has 2 dimensions"),
    ],
)  # fmt: skip
def test_windows_that_are_not_exact_are_refused(module: Module, shape: Shape, message: str) -> None:
    """A setting without an exact form, a field out of range, or an input that does not fit."""
    check_refused(module, [shape], message)


def test_unpooling_knows_where_the_maximum_was() -> None:
    """What is written into the pooled tensor afterwards does not move the maxima."""
    window = {"kW": 2, "kH": 1, "dW": 2, "dH": 1, "padW": 0, "padH": 0}
    first, second = (nn("SpatialMaxPooling", **window) for _ in range(2))
    negate = nn("MulConstant", constant_scalar=-1, inplace=True)
    undone = box("Sequential", second, nn("SpatialMaxUnpooling", pooling=first))
    check(box("ConcatTable", first, negate, undone), [(2, 1, 1, 4)])
