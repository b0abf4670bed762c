"""Pooling: the largest or the mean of windows, and the way back.

Source: the Lua file of the class in torch/nn, lib/THNN/generic/Spatial{DilatedMax,Average,
AdaptiveMax,AdaptiveAverage}Pooling.c, SpatialMaxUnpooling.c; Pooling.lua and
SpatialAveragePooling.lua in soumith/cudnn.torch. Windows are taken apart into columns and rows: a
maximum, its place and a sum come out the same.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.t7_oracle.interpreter import Layer, on_tensor
from converters.t7_oracle.tensor import Array, Tensor, Value, check_size, zeros

FLT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Axis:
    """Windows along one axis: how many, how they move, and the padding on either side."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    windows: int

    def offsets(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
        """Yield, for each element of a window, where it is in every window, and if inside."""
        starts = np.arange(self.windows) * self.stride - self.padding
        for element in range(self.kernel):
            places = starts + element * self.dilation
            inside = (places >= 0) & (places < self.size)
            if inside.any():
                yield np.clip(places, 0, self.size - 1), inside


def _axes(layer: Layer, x: Tensor, *, padded: bool = True, ceil: bool = False) -> tuple[Axis, Axis]:
    """Return the windows down and across, as nn counts them (SpatialDilatedMaxPooling.c)."""
    layer.ranked(x, 3, 4)
    kernels, strides = layer.pair("k", least=1), layer.pair("d", 1, least=1)
    paddings = layer.pair("pad", 0) if padded else (0, 0)
    dilations = layer.pair("dilation", 1, least=1)
    cudnn = layer.name.startswith("cudnn.")
    axes = []
    for at in range(2):
        size, kernel, stride, pad = x.shape[at - 2], kernels[at], strides[at], paddings[at]
        span = dilations[at] * (kernel - 1) + 1
        if not cudnn and pad > kernel // 2:
            raise layer.refused(f"padding {pad} is more than half of a kernel of {kernel}")
        steps = (size - span + 2 * pad) / stride
        windows = (math.ceil(steps) if ceil else math.floor(steps)) + 1
        # the last window starts inside the image or its first padding; cudnn does not see to it
        if not cudnn and any(paddings) and (windows - 1) * stride >= size + pad:
            windows -= 1
        if windows < 1:
            raise layer.refused(f"an image of {x.shape} is smaller than the kernel {kernels}")
        axes.append(Axis(size, kernel, stride, pad, dilations[at], windows))
    check_size((*x.shape[:-2], axes[0].windows, axes[1].windows))
    return axes[0], axes[1]


@on_tensor(
    "nn.SpatialMaxPooling",
    "nn.SpatialDilatedMaxPooling",
    "cudnn.SpatialMaxPooling",
    "inn.SpatialMaxPooling",
)
def max_pooling(layer: Layer, x: Tensor) -> Value:
    """The largest of each window; where it was is kept for unpooling."""
    ceil = layer.flag("ceil_mode") or layer.name == "inn.SpatialMaxPooling"
    down, across = _axes(layer, x, ceil=ceil)
    columns = np.broadcast_to(np.arange(x.shape[-1]), x.shape)
    values, columns = _largest(x.array, columns, across)
    rows = np.broadcast_to(np.arange(x.shape[-2])[:, None], values.shape)
    width = x.shape[-1]
    places = np.where(columns < 0, -1, rows * width + columns)
    values, places = _largest(np.swapaxes(values, -1, -2), np.swapaxes(places, -1, -2), down)
    layer.state.kept["indices"] = np.swapaxes(places, -1, -2)
    layer.state.kept["size"] = x.shape[-2:]
    return layer.give(np.swapaxes(values, -1, -2))


def _largest(
    values: Array, places: npt.NDArray[np.int64], axis: Axis
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the largest of each window along the last axis and its place, -1 where there is none.

    The first of equals counts, and NaN never does: the C code asks `val > maxval`.
    """
    best = np.full((*values.shape[:-1], axis.windows), -np.inf)
    where = np.full(best.shape, -1)
    for at, inside in axis.offsets():
        candidates = np.where(inside, values[..., at], -np.inf)
        larger = candidates > best
        np.copyto(best, candidates, where=larger)
        np.copyto(where, places[..., at], where=larger)
    return best, where


@on_tensor("nn.SpatialMaxUnpooling")
def max_unpooling(layer: Layer, x: Tensor) -> Value:
    """Every value goes back to the place that a pooling layer took its maximum from."""
    kept = layer.run.state(layer.module("pooling")).kept
    if "indices" not in kept:
        raise layer.refused("the pooling that it undoes did not run before it")
    places, (height, width) = kept["indices"], kept["size"]
    if places.shape != x.shape:
        raise layer.refused(f"undoes a pooling of {places.shape}, its input is {x.shape}")
    if places.min() < 0:
        raise layer.refused("undoes a pooling with a window without a maximum")
    result = zeros((*x.shape[:-2], height * width))
    rows = x.elements((-1, x.shape[-2] * x.shape[-1]))
    for plane, values, at in zip(
        result.reshape(-1, height * width), rows, places.reshape(rows.shape), strict=True
    ):
        plane[at] = values
    return layer.give(result.reshape(*x.shape[:-2], height, width))


@on_tensor("nn.SpatialAveragePooling")
def average_pooling(layer: Layer, x: Tensor) -> Value:
    """The mean of each window, with or without the padding in it (SpatialAveragePooling.c).

    Files from before the field `ceil_mode` have no padding; those from before `divide` want sums.
    """
    recent = layer.has("ceil_mode")
    down, across = _axes(layer, x, padded=recent, ceil=layer.flag("ceil_mode"))
    with_padding = not recent or layer.flag("count_include_pad")
    counts = _counts(down, with_padding)[:, None] * _counts(across, with_padding)
    means = _summed(x.array, down, across) / counts
    return layer.give(means if layer.flag("divide") else means * (down.kernel * across.kernel))


@on_tensor("cudnn.SpatialAveragePooling")
def cudnn_average_pooling(layer: Layer, x: Tensor) -> Value:
    """The mean of each window, padding included, whatever the fields say (cudnn's .lua).

    Where a window sticks out beyond the padding, cudnn's ceil mode counts all of it.
    """
    if layer.get("divide") is False:
        raise layer.refused("divide is false, which cudnn refuses")
    down, across = _axes(layer, x, padded=layer.has("ceil_mode"), ceil=layer.flag("ceil_mode"))
    return layer.give(_summed(x.array, down, across) / (down.kernel * across.kernel))


def _summed(values: Array, down: Axis, across: Axis) -> Array:
    for axis in (across, down):
        total = zeros((*values.shape[:-1], axis.windows))
        for at, inside in axis.offsets():
            total += np.where(inside, values[..., at], 0)
        values = np.swapaxes(total, -1, -2)
    return values


def _counts(axis: Axis, with_padding: bool) -> Array:
    """Return how many pixels each window is divided by along an axis."""
    start = np.arange(axis.windows) * axis.stride - axis.padding
    end = np.minimum(start + axis.kernel, axis.size + axis.padding)
    if not with_padding:
        start, end = np.maximum(start, 0), np.minimum(end, axis.size)
    return (end - start).astype(np.float64)


@on_tensor("nn.SpatialAdaptiveMaxPooling")
def adaptive_max_pooling(layer: Layer, x: Tensor) -> Value:
    """The largest of each of H x W parts (SpatialAdaptiveMaxPooling.c)."""

    def bounds(index: int, parts: int, size: int) -> tuple[np.float32, np.float32]:
        share = np.float32(parts), np.float32(size)
        return np.float32(index) / share[0] * share[1], np.float32(index + 1) / share[0] * share[1]

    values = layer.ranked(x, 3, 4).array
    # the C code starts from -FLT_MAX, and NaN is never larger
    values = np.where(values > -FLT_MAX, values, -FLT_MAX)
    return layer.give(_of_parts(layer, values, bounds, np.max))


@on_tensor("nn.SpatialAdaptiveAveragePooling")
def adaptive_average_pooling(layer: Layer, x: Tensor) -> Value:
    """The mean of each of H x W parts (SpatialAdaptiveAveragePooling.c)."""

    def bounds(index: int, parts: int, size: int) -> tuple[np.float32, np.float32]:
        part = np.float32(parts)
        return np.float32(index * size) / part, np.float32((index + 1) * size) / part

    return layer.give(_of_parts(layer, layer.ranked(x, 3, 4).array, bounds, np.mean))


def _of_parts(
    layer: Layer,
    values: Array,
    bounds: Callable[[int, int, int], tuple[np.float32, np.float32]],
    reduce: Callable[..., Array],
) -> Array:
    """Reduce parts across, then down; their bounds are float32, as in C."""
    down, across = layer.pair("", least=1)  # fields H and W
    check_size((*values.shape[:-2], down, across))
    for parts, axis in ((across, -1), (down, -2)):
        size, results = values.shape[axis], []
        for index in range(parts):
            start, end = bounds(index, parts, size)
            part = np.take(values, range(math.floor(start), math.ceil(end)), axis)
            results.append(reduce(part, axis=axis))
        values = np.stack(results, axis)
    return values
