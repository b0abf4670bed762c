"""Larger images are what their definitions say."""

import pytest

from models.graph import Shape
from tests.t7_writer import Module
from tests.torch7 import check, check_refused, each, nn

IMAGES = (2, 4, 3, 5)
CASES = {
    "nearest": (nn("SpatialUpSamplingNearest", scale_factor=3), IMAGES),
    "nearest-image": (nn("SpatialUpSamplingNearest", scale_factor=2), IMAGES[1:]),
    "bilinear": (nn("SpatialUpSamplingBilinear", scale_factor=3), IMAGES),
    "bilinear-image": (nn("SpatialUpSamplingBilinear", scale_factor=2), IMAGES[1:]),
    "bilinear-size": (nn("SpatialUpSamplingBilinear", oheight=7, owidth=4), IMAGES),
    "bilinear-one-pixel": (nn("SpatialUpSamplingBilinear", oheight=1, owidth=9), IMAGES),
    "up-nearest": (nn("UpSampling", scale_factor=2, mode="nearest"), IMAGES),
    "up-linear": (nn("UpSampling", scale_factor=2, mode="linear"), IMAGES),
    "up-linear-size": (nn("UpSampling", oheight=7, owidth=4, mode="linear"), IMAGES),
    "shuffle": (nn("PixelShuffle", upscaleFactor=2), IMAGES),
    "shuffle-image": (nn("PixelShuffle", upscaleFactor=2), IMAGES[1:]),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule, with and without a batch."""
    check(module, shapes)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn("UpSampling", mode="cubic"), "found mode = 'cubic', expected nearest or linear"),
        (nn("SpatialUpSamplingBilinear", oheight=0, owidth=2), r"\(0, 2\), expected a size of 1"),
        (nn("SpatialUpSamplingBilinear"), "found oheight = nil, expected a finite number"),
        (nn("SpatialUpSamplingNearest", scale_factor=0), "expected one that UpsamplingNearest2d"),
        (nn("SpatialUpSamplingNearest", scale_factor=1.5), "1.5, expected a whole number"),
        (nn("PixelShuffle", upscaleFactor=3), "expected one that PixelShuffle takes"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(module: Module, message: str) -> None:
    """A factor or a size that gives no image."""
    check_refused(module, [IMAGES], message)
