"""Torch7's `image.scale`, to the last bit, of only what a crop keeps.

Corners are aligned, numbers are float32, nothing is clamped. Bicubic runs through four samples
(Catmull-Rom) without antialiasing, and beyond the border the image goes on as a straight line;
bilinear averages over an interval where it shrinks.

Source: torch/image generic/image.c, Main_scaleBicubic and Main_scaleBilinear: along the rows first,
then along the columns.
"""

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.decoding import Pixels
from models.geometry import Size, Window

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Filter = Literal["torch7-bicubic", "torch7-bilinear"]

BLOCK = 2**16  # numbers that are worked on at a time: more leave the cache, fewer cost calls
KEPT_BYTES = 2**24  # of one temporary; a photograph of 12 megapixels needs as much


def scale(pixels: Pixels, levels: Floats, method: Filter, size: Size, window: Window) -> Floats:
    """Return what `window` keeps of the pixels resized to `size`.

    Args:
        pixels: Height x width x 3.
        levels: The number that stands for each of the 256 bytes: Torch7 resizes numbers.
        method: Torch7's filter.
        size: Of the whole resized image.
        window: Of which these rows and columns are wanted.

    Returns:
        3 x height x width, not contiguous; the next call in this thread overwrites it.
    """
    rows = _axis(method, pixels.shape[0], size.height, window.rows, 3 * len(window.columns))
    columns = _axis(method, pixels.shape[1], size.width, window.columns, 3 * len(rows.used))
    # The axis that is resized comes first, so that a sample is one long block of memory.
    used = cv2.transpose(pixels[rows.used])[columns.used]
    numbers = _scratch.array("numbers", (len(used), 3 * len(rows.used)))
    cv2.LUT(used.reshape(numbers.shape), levels, dst=numbers)
    narrow = _scratch.array("narrow", (len(window.columns), numbers.shape[1]))
    columns.combine(numbers, narrow)
    upright = _scratch.array("upright", narrow.shape[::-1])  # rows and channels x columns
    cv2.transpose(narrow, dst=upright)
    planes: Floats = _scratch.array("planes", (len(window.rows), 3 * len(window.columns)))
    rows.combine(upright.reshape(len(rows.used), -1), planes)
    return planes.reshape(len(planes), 3, -1).transpose(1, 0, 2)


class Axis(NamedTuple):
    """How one axis is resized.

    Attributes:
        used: The source samples that count, in order.
        combine: Makes targets x N, its second argument, of used x N, its first.
    """

    used: Indices
    combine: Callable[[Floats, Floats], None]


@lru_cache(maxsize=256)  # most images of a collection have one of a few sizes
def _axis(method: Filter, source: int, target: int, window: range, lanes: int) -> Axis:
    """Return how `source` samples become those of `target` samples that are in the window.

    `lanes` is how many numbers a sample has.
    """
    if source in (1, target):
        taps = np.arange(window.start, window.stop).clip(0, source - 1)
        used, taps = _renumbered(taps)
        return Axis(used, partial(_copied, taps=taps))
    if method == "torch7-bicubic":
        return _cubic_axis(source, target, window, lanes)
    if target < source:
        return _area_axis(source, target, window)
    return _linear_axis(source, target, window)


def _renumbered(taps: Indices) -> tuple[Indices, Indices]:
    used, numbers = np.unique(taps, return_inverse=True)
    return used, numbers.reshape(taps.shape)


class _Cubics(NamedTuple):
    """Polynomials of neighbouring targets.

    Attributes:
        targets: Where they are among the targets.
        taps: 4 x polynomials: the samples that each runs through.
        before: Which of them lack their first sample, which lies before the border.
        behind: Which of them lack their last sample.
        at: For each target its polynomial, where several targets share one.
        x: For each target how far it lies behind its second sample, targets x 1.
    """

    targets: slice
    taps: Indices
    before: NDArray[np.bool_]
    behind: NDArray[np.bool_]
    at: Indices | None
    x: Floats


def _cubic_axis(source: int, target: int, window: range, lanes: int) -> Axis:
    """Draw a cubic polynomial through the four samples around each target.

    Source: torch/image generic/image.c, Main_scaleCubic_rowcol. (Of a source of one sample it
    leaves the last target unwritten; here it is written like the others.)
    """
    low, fraction = _aligned(source, target, window)
    used, _ = _renumbered((low + np.arange(-1, 3)[:, None]).clip(0, source - 1))
    count = max(BLOCK // lanes, 1)
    blocks = []
    for start in range(0, len(low), count):
        targets = slice(start, start + count)
        starts, at = np.unique(low[targets], return_inverse=True)
        taps = (starts + np.arange(-1, 3)[:, None]).clip(0, source - 1)
        blocks.append(
            _Cubics(
                targets,
                np.searchsorted(used, taps),
                starts < 1,
                starts + 2 >= source,
                None if len(starts) == len(at) else at,
                _column(fraction[targets]),
            )
        )
    return Axis(used, partial(_cubic, blocks=blocks))


def _cubic(samples: Floats, targets: Floats, *, blocks: Sequence[_Cubics]) -> None:
    """Evaluate the polynomials as C does: in float32, the last product and sum in float64.

    The coefficients depend on the samples alone: where several targets lie between the same two,
    they are computed once.
    """
    for block in blocks:
        p1, a1, a2, a3 = _coefficients(samples, block)
        if block.at is not None:
            p1, a1, a2, a3 = (
                _taken(one, block.at, f"{name} of targets")
                for name, one in {"p1": p1, "a1": a1, "a2": a2, "a3": a3}.items()
            )
        a3 *= block.x
        a3 += a2
        a3 *= block.x
        a3 += a1
        half = _scratch.array("half", a3.shape)
        half[...] = 0.5 * block.x
        value = _scratch.array("value", a3.shape, np.float64)
        value[...] = p1
        cv2.accumulateProduct(a3, half, value)  # float64; a product of two float32 is exact in it
        targets[block.targets] = value


def _coefficients(samples: Floats, block: _Cubics) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the second sample, and what is multiplied with x, x^2 and x^3 (all but a half)."""
    p0, p1, p2, p3 = (_taken(samples, tap, f"p{index}") for index, tap in enumerate(block.taps))
    p0[block.before] = 2 * p1[block.before] - p2[block.before]
    p3[block.behind] = 2 * p2[block.behind] - p1[block.behind]
    a2, a3, term = (_scratch.array(name, p1.shape) for name in ("a2", "a3", "term"))
    np.subtract(p1, p2, out=a3)
    a3 *= 3
    a3 += p3
    a3 -= p0
    np.multiply(p0, 2, out=a2)
    a2 -= np.multiply(p1, 5, out=term)
    a2 += np.multiply(p2, 4, out=term)
    a2 -= p3
    p2 -= p0
    return p1, p2, a2, a3


def _taken(samples: Floats, tap: Indices, name: str) -> Floats:
    wanted: Floats = _scratch.array(name, (len(tap), samples.shape[1]))
    samples.take(tap, axis=0, out=wanted, mode="clip")  # mode raise would copy once more
    return wanted


class _Scratch(threading.local):
    """Temporaries that a thread keeps: in fresh memory every page costs a fault."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Any:
        """Return an array with any content; the next one of that name overwrites it."""
        size = prod(shape) * np.dtype(dtype).itemsize
        if size > KEPT_BYTES:
            return np.empty(shape, dtype)
        if name not in self._kept or self._kept[name].size < size:
            self._kept[name] = np.empty(size, np.uint8)
        return self._kept[name][:size].view(dtype).reshape(shape)


_scratch = _Scratch()


def _linear_axis(source: int, target: int, window: range) -> Axis:
    """Interpolate between the two samples around each target.

    Source: torch/image generic/image.c, Main_scaleLinear_rowcol, which enlarges so.
    """
    low, fraction = _aligned(source, target, window)
    weights = np.stack([1 - fraction, fraction])
    used, taps = _renumbered((low + np.arange(2)[:, None]).clip(0, source - 1))
    total = np.ones_like(fraction)
    return Axis(used, partial(_weighted, taps=taps, weights=weights, total=total))


def _area_axis(source: int, target: int, window: range) -> Axis:
    """Average over the interval that each target covers.

    Source: torch/image generic/image.c, Main_scaleLinear_rowcol, which shrinks so.
    """
    ratio = np.float32(source) / np.float32(target)
    edges = np.arange(window.start, window.stop + 1).astype(np.float32) * ratio
    low = edges.astype(np.intp)
    fraction = edges - low.astype(np.float32)
    reach = (low[1:] - low[:-1]).max() + 1
    taps = low[:-1] + np.arange(reach)[:, None]
    inside = np.where(taps < low[1:], np.float32(1), np.where(taps == low[1:], fraction[1:], 0))
    weights = np.where(taps < source, inside, 0).astype(np.float32)
    weights[0] = 1 - fraction[:-1]
    total = np.add.accumulate(weights)[-1]  # one after the other, as C does
    used, taps = _renumbered(taps.clip(0, source - 1))
    return Axis(used, partial(_weighted, taps=taps, weights=weights, total=total))


def _copied(samples: Floats, targets: Floats, *, taps: Indices) -> None:
    samples.take(taps, axis=0, out=targets, mode="clip")


def _weighted(
    samples: Floats, targets: Floats, *, taps: Indices, weights: Floats, total: Floats
) -> None:
    samples.take(taps[0], axis=0, out=targets, mode="clip")
    targets *= _column(weights[0])
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        sample = _taken(samples, tap, "sample")
        sample *= _column(weight)
        targets += sample
    targets /= _column(total)


def _aligned(source: int, target: int, window: range) -> tuple[Indices, Floats]:
    """Return for each target the source sample at or before it, and how far behind it lies."""
    step = np.float32(source - 1) / np.float32(max(target - 1, 1))
    at = np.arange(window.start, window.stop).astype(np.float32) * step
    if window.stop == target:
        at[-1] = source - 1  # set, not computed
    low = at.astype(np.intp)
    return low, at - low.astype(np.float32)


def _column(values: Floats) -> Floats:
    return values[:, None]
