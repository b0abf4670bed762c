"""Tests of models/torch7_scale.py. What Torch7 gave stands in golden files."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import torch7_scale
from models.geometry import Size, Window, whole
from models.torch7_scale import Filter, scale
from tests.oracles import golden

LEVELS = (np.arange(256) / 255).astype(np.float32)

Array = NDArray[np.float32]


def scaled(pixels: NDArray[np.uint8], method: Filter, size: Size, window: Window) -> Array:
    return scale(pixels, LEVELS, method, size, window).copy()


@pytest.mark.parametrize(
    ("name", "resample"),
    [
        ("to_20x30", "torch7-bicubic"),
        ("to_70x90", "torch7-bicubic"),
        ("same_height", "torch7-bicubic"),
        ("bilinear_20x30", "torch7-bilinear"),
    ],
)
def test_image_scale_equals_torch7_bit_for_bit(name: str, resample: Filter) -> None:
    """Any size, also one that keeps the height, comes out as `image.scale` makes it."""
    arrays = dict(np.load(golden("torch7/preprocess/preprocess_bicubic_sizes.npz")))
    size = Size(*arrays[name].shape[1:])
    got = scaled(arrays["image_u8"].transpose(1, 2, 0), resample, size, whole(size))
    assert np.array_equal(got, arrays[name])


def scale_row(row: Array, length: int, resample: str) -> Array:
    """torch/image's loop over one row, sample by sample.

    Source: torch/image generic/image.c, Main_scaleCubic_rowcol and Main_scaleLinear_rowcol.
    """
    if length == len(row):
        return row
    if len(row) == 1:
        return np.repeat(row, length)
    if resample == "torch7-bilinear" and length < len(row):
        return area_row(row, length)
    f32 = np.float32
    scale = f32(len(row) - 1) / f32(max(length - 1, 1))
    result = np.empty(length, np.float32)
    for index in range(length - 1):
        at = f32(index) * scale
        low = int(at)
        x = at - f32(low)
        p1, p2 = row[low], row[low + 1]
        if resample == "torch7-bilinear":
            result[index] = (1 - x) * p1 + x * p2
            continue
        p0 = row[low - 1] if low > 0 else 2 * p1 - p2
        p3 = row[low + 2] if low + 2 < len(row) else 2 * p2 - p1
        inner = (p2 - p0) + x * ((2 * p0 - 5 * p1 + 4 * p2 - p3) + x * (3 * (p1 - p2) + p3 - p0))
        result[index] = float(p1) + 0.5 * float(x) * float(inner)
    result[-1] = row[-1]
    return result


def area_row(row: Array, length: int) -> Array:
    f32 = np.float32
    scale = f32(len(row)) / f32(length)
    result = np.empty(length, np.float32)
    low, before = 0, f32(0)
    for index in range(length):
        at = f32(index + 1) * scale
        high = int(at)
        behind = at - f32(high)
        total, weight = (1 - before) * row[low], 1 - before
        for middle in range(low + 1, high):
            total, weight = total + row[middle], weight + f32(1)
        if high < len(row):
            total, weight = total + behind * row[high], weight + behind
        result[index] = total / weight
        low, before = high, behind
    return result


SIDES = st.integers(1, 24)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["torch7-bicubic", "torch7-bilinear"]))
@settings(max_examples=150)
def test_resize_equals_the_loop_of_the_original(
    height: int, width: int, target_height: int, target_width: int, resample: Filter
) -> None:
    """For all sizes, larger, smaller, equal or one, the result is that of the original's loop."""
    noise = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3))
    size = Size(target_height, target_width)
    got = scaled(noise.astype(np.uint8), resample, size, whole(size))
    for plane, result in zip((noise / 255).astype(np.float32).transpose(2, 0, 1), got, strict=True):
        narrow = np.stack([scale_row(row, target_width, resample) for row in plane])
        columns = [scale_row(column, target_height, resample) for column in narrow.T]
        assert np.array_equal(result, np.stack(columns, axis=1))


@given(SIDES, SIDES, st.sampled_from(["torch7-bicubic", "torch7-bilinear"]), st.data())
@settings(max_examples=100)
def test_a_window_is_a_cut_out_of_the_whole(
    target_height: int, target_width: int, resample: Filter, data: st.DataObject
) -> None:
    """Computing only what the crop keeps changes no bit of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    size = Size(target_height, target_width)
    rows, columns = (range(*data.draw(spans(length))) for length in size)
    everything = scaled(pixels, resample, size, whole(size))
    got = scaled(pixels, resample, size, Window(rows, columns))
    assert np.array_equal(got, everything[:, rows.start : rows.stop, columns.start : columns.stop])


def spans(length: int) -> st.SearchStrategy[tuple[int, int]]:
    starts = st.integers(0, length - 1)
    return starts.flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, length)))


def test_blocks_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of targets is worked on at a time, the result is the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    size = Size(33, 77)  # shrinks along one axis, enlarges along the other
    expected = scaled(pixels, "torch7-bicubic", size, whole(size))
    for block in (1, 100, 1000):
        monkeypatch.setattr(torch7_scale, "BLOCK", block)
        torch7_scale._axis.cache_clear()
        assert np.array_equal(scaled(pixels, "torch7-bicubic", size, whole(size)), expected)
    torch7_scale._axis.cache_clear()


def test_threads_do_not_share_their_temporaries() -> None:
    """Images resized at the same time in several threads come out as they do one by one."""
    rng = np.random.default_rng(0)
    size = Size(90, 110)
    images = [rng.integers(0, 256, (60 + 7 * k, 80, 3), dtype=np.uint8) for k in range(4)]
    expected = [scaled(image, "torch7-bicubic", size, whole(size)) for image in images]
    differing: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            got = scaled(images[index], "torch7-bicubic", size, whole(size))
            if not np.array_equal(got, expected[index]):
                differing.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differing == []
