"""Local contrast normalisation is what its definition says."""

from typing import Any

import numpy as np
import pytest

from models.graph import Array, Shape
from tests.t7_writer import Module
from tests.torch7 import box, check, check_refused, each, nn, numbers

PLANES = 3
IMAGES = (2, PLANES, 6, 7)


def convolution(weight: Array) -> Module:
    outputs, inputs, height, width = weight.shape
    window = {"kW": width, "kH": height, "dW": 1, "dH": 1, "padW": 0, "padH": 0}
    planes = {"nInputPlane": inputs, "nOutputPlane": outputs}
    bias = np.zeros(outputs, "f4")
    return nn("SpatialConvolution", **window, **planes, weight=weight, bias=bias)


def estimator(kernel: Array, *before: Module, after: tuple[Module, ...] = ()) -> Module:
    """Return what SpatialSubtractiveNormalization's constructor builds for a kernel.

    A vector is applied in both directions, to each plane alone first, then to their sum.
    """
    height, width = kernel.shape if kernel.ndim == 2 else (kernel.size, kernel.size)
    sides = {"pad_l": width // 2, "pad_r": width // 2, "pad_t": height // 2, "pad_b": height // 2}
    if kernel.ndim == 2:
        convolved = [convolution(np.stack([kernel] * PLANES)[None])]
    else:
        table = np.array([[plane, plane] for plane in range(1, PLANES + 1)], "f4")
        rows = nn(
            "SpatialConvolutionMap",
            **{"kW": kernel.size, "kH": 1, "dW": 1, "dH": 1},
            **{"nInputPlane": PLANES, "nOutputPlane": PLANES, "connTable": table},
            weight=np.stack([kernel[None]] * PLANES),
            bias=np.zeros(PLANES, "f4"),
        )
        convolved = [rows, convolution(np.stack([kernel[:, None]] * PLANES)[None])]
    spread = nn("Replicate", nfeatures=PLANES, dim=1, ndim=3)
    return box("Sequential", *before, nn("SpatialZeroPadding", **sides), *convolved, spread, *after)


def scaled(kernel: Array) -> Array:
    """Return a kernel as the constructors scale it: two passes of a vector give the square."""
    total = kernel.sum() * PLANES
    return (kernel / (total if kernel.ndim == 2 else np.sqrt(total * kernel.sum()))).astype("f4")


def subtractive(kernel: Array) -> Module:
    return nn(
        "SpatialSubtractiveNormalization",
        meanestimator=estimator(scaled(kernel)),
        subtractor=nn("CSubTable"),
        divider=nn("CDivTable"),
        kernel=kernel,
        coef=np.ones((1, 1, 1), "f4"),
    )


def divisive(kernel: Array, threshold: float) -> Module:
    value = threshold / 2
    return nn(
        "SpatialDivisiveNormalization",
        meanestimator=estimator(scaled(kernel)),
        stdestimator=estimator(scaled(kernel), nn("Square"), after=(nn("Sqrt"),)),
        normalizer=nn("CDivTable"),
        divider=nn("CDivTable"),
        thresholder=nn("Threshold", threshold=threshold, val=value),
        threshold=threshold,
        thresval=value,
        kernel=kernel,
    )


FLAT, SKEWED = np.ones((3, 5), "f4"), 1 + numbers(3, 3) ** 2
VECTOR = np.array([1, 2, 1], "f4")
CONTRASTIVE = nn(
    "SpatialContrastiveNormalization",
    normalizer=box("Sequential", subtractive(VECTOR), divisive(VECTOR, 1e-4)),
)
CASES = {
    "subtractive": (subtractive(SKEWED), IMAGES),
    "subtractive-image": (subtractive(FLAT), IMAGES[1:]),
    "subtractive-vector": (subtractive(VECTOR), IMAGES),
    "subtractive-one-batch-as-planes": (subtractive(SKEWED), (PLANES, *IMAGES[1:])),
    "divisive": (divisive(SKEWED, 1e-4), IMAGES),
    "divisive-image": (divisive(FLAT, 1e-4), IMAGES[1:]),
    "divisive-threshold": (divisive(FLAT, 0.9), IMAGES),
    "divisive-vector": (divisive(VECTOR, 0.9), IMAGES),
    "contrastive": (CONTRASTIVE, IMAGES),
    "contrastive-image": (CONTRASTIVE, IMAGES[1:]),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Kernels of both kinds, thresholds that matter and that do not, with and without a batch."""
    check(module, shapes)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({}, (2, 3), "takes images, its input has 2 dimensions"),
        ({"meanestimator": None}, IMAGES, "found meanestimator = nil, expected a module"),
    ],
)
def test_what_is_no_image_is_refused(fields: dict[str, Any], shape: Shape, message: str) -> None:
    """An input without planes, or a module without its estimator."""
    module = subtractive(FLAT)
    module.fields = {**module.fields, **fields}
    check_refused(module, [shape], message)
