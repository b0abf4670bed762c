"""Borders are what their definitions say."""

import pytest

from models.graph import Shape
from tests.t7_writer import Module
from tests.torch7 import check, check_refused, each, nn

IMAGES = (2, 3, 4, 5)
SIDES = {"pad_l": 1, "pad_r": 2, "pad_t": 0, "pad_b": 3}
CASES = {
    "after": (nn("Padding", dim=2, pad=2, index=1, value=0.5), (2, 3)),
    "before": (nn("Padding", dim=2, pad=-2, index=1, value=0.5), (2, 3)),
    "inside-from-end": (nn("Padding", dim=2, pad=2, index=2, value=0.5), (2, 4)),
    "inside": (nn("Padding", dim=2, pad=-2, index=2, value=0.5), (2, 4)),
    "behind-all": (nn("Padding", dim=2, pad=-2, index=5, value=0.5), (2, 4)),
    "before-all": (nn("Padding", dim=2, pad=2, index=5, value=0.5), (2, 4)),
    "batch": (nn("Padding", dim=1, pad=1, index=1, value=0, nInputDim=2), (2, 3, 4)),
    "sample": (nn("Padding", dim=1, pad=1, index=1, value=0, nInputDim=2), (3, 4)),
    "first-of-three": (nn("Padding", dim=1, pad=-1, index=2, value=1), (2, 3, 4)),
    "nothing": (nn("Padding", dim=1, pad=0, index=1, value=1), (2, 3)),
    "zeros": (nn("SpatialZeroPadding", **SIDES), IMAGES),
    "zeros-image": (nn("SpatialZeroPadding", **SIDES), IMAGES[1:]),
    "zeros-crop": (nn("SpatialZeroPadding", pad_l=-1, pad_r=2, pad_t=1, pad_b=-2), IMAGES),
    "reflection": (nn("SpatialReflectionPadding", **SIDES), IMAGES),
    "reflection-image": (nn("SpatialReflectionPadding", **SIDES), IMAGES[1:]),
    "reflection-crop": (
        nn("SpatialReflectionPadding", pad_l=-1, pad_r=2, pad_t=1, pad_b=-2),
        IMAGES,
    ),
    "replication": (nn("SpatialReplicationPadding", **SIDES), IMAGES),
    "replication-image": (nn("SpatialReplicationPadding", **SIDES), IMAGES[1:]),
    "replication-crop": (
        nn("SpatialReplicationPadding", pad_l=-1, pad_r=2, pad_t=1, pad_b=-2),
        IMAGES,
    ),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule, with and without a batch."""
    check(module, shapes)


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn("Padding", dim=9, pad=1), IMAGES, "found dim = 9, expected 1 to 4"),
        (nn("Padding", dim=2, pad=1, index=9), IMAGES, "found index = 9, expected 1 to 4"),
        (nn("SpatialReflectionPadding", **SIDES), (2, 3), "takes images, its input has 2 dim"),
        (nn("SpatialReflectionPadding", **{**SIDES, "pad_l": 5}), IMAGES, "that ReflectionPad2d"),
        (nn("SpatialZeroPadding", **{**SIDES, "pad_l": -9}), IMAGES, "expected one that Pad takes"),
        (nn("SpatialZeroPadding"), IMAGES, "found pad_l = nil, expected a finite number"),
    ],
)  # fmt: skip
def test_borders_that_do_not_fit_are_refused(module: Module, shape: Shape, message: str) -> None:
    """A field out of its range, or an input that is no image."""
    check_refused(module, [shape], message)
