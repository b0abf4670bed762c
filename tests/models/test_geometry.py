"""Tests of models/geometry.py."""

from dataclasses import replace
from typing import get_args

import pytest

from models.errors import SpecError
from models.geometry import Size, Window, centre, five, resized, whole
from models.presets import PRESETS
from models.spec import Resample

SPEC = replace(PRESETS["torch-224"], resize=3, crop=(2, 3))
RESAMPLES: tuple[Resample, ...] = get_args(Resample)


@pytest.mark.parametrize("resample", RESAMPLES)
def test_the_longer_side_is_truncated(resample: Resample) -> None:
    """5 x 7 with its shorter side made 3 has a longer side of 4 (4.2)."""
    spec = replace(SPEC, resample=resample)
    assert resized(Size(5, 7), spec) == Size(3, 4)
    assert resized(Size(7, 5), spec) == Size(4, 3)


@pytest.mark.parametrize("resample", RESAMPLES)
def test_fb_resnet_truncates_what_lua_computes(resample: Resample) -> None:
    """47/41 * 328 is 376 exactly; fb.resnet.torch rounds the quotient first and truncates to 375.

    The loader of ENet multiplies first, as the programs that do not use Torch7 do.
    """
    longer = 375 if resample == "torch7-bicubic" else 376
    assert resized(Size(41, 47), replace(SPEC, resize=328, resample=resample)) == Size(328, longer)


def test_an_image_that_has_the_size_is_left_alone() -> None:
    """61 x 7 with its shorter side made 7 stays 61 long, though 61/7 * 7 truncates to 60."""
    assert int(61 / 7 * 7) == 60
    assert resized(Size(7, 61), replace(SPEC, resize=7)) == Size(7, 61)


def test_exact_is_a_square() -> None:
    """`exact` does not look at the aspect ratio."""
    assert resized(Size(5, 7), replace(SPEC, resize_mode="exact")) == Size(3, 3)


@pytest.mark.parametrize(
    ("name", "size", "first"),
    [
        ("torch-299", Size(328, 437), (15, 69)),  # of 14.5 and 69
        ("lornatang-299", Size(342, 456), (22, 78)),  # of 21.5 and 78.5: to the even neighbour
        ("mxnet-224", Size(256, 341), (16, 58)),  # of 58.5
    ],
)
def test_the_centre_begins_where_the_original_begins_it(
    name: str, size: Size, first: tuple[int, int]
) -> None:
    """Odd margins of real presets, computed by hand from the original's line."""
    rows, columns = centre(size, PRESETS[name])
    assert (rows.start, columns.start) == first
    assert (len(rows), len(columns)) == PRESETS[name].crop


def test_the_corners_touch_the_border() -> None:
    """Four of the five windows are the corners, the upper ones first, each from left to right."""
    middle, *corners = five(Size(6, 8), SPEC)
    assert middle == centre(Size(6, 8), SPEC)
    assert corners == [
        Window(range(2), range(3)),
        Window(range(2), range(5, 8)),
        Window(range(4, 6), range(3)),
        Window(range(4, 6), range(5, 8)),
    ]


def test_a_window_of_everything() -> None:
    """`whole` leaves nothing out."""
    assert whole(Size(2, 5)) == Window(range(2), range(5))


@pytest.mark.parametrize("size", [Size(1, 9), Size(9, 2)])
def test_a_crop_that_does_not_fit_is_refused(size: Size) -> None:
    """The message names both sizes and the convention that contradicts itself."""
    match = f"crop 2x3 does not fit into the resized image of {size.height}x{size.width} pixels"
    with pytest.raises(SpecError, match=match):
        centre(size, SPEC)
    with pytest.raises(SpecError, match=match):
        five(size, SPEC)
