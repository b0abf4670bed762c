"""Linear layers and convolutions.

Source: the Lua file of the class in torch/nn, lib/THNN/generic/*.c; SpatialConvolution.lua and
SpatialFullConvolution.lua in soumith/cudnn.torch. A convolution unfolds the image into columns, one
for each place of the kernel, and multiplies (SpatialConvolutionMM.c, unfold.c).
"""

from dataclasses import dataclass, replace

import numpy as np

from converters.t7_oracle.interpreter import Layer, on_any, on_tensor
from converters.t7_oracle.tensor import Array, Tensor, Value, check_size, zeros

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A kernel's sizes and how it moves; height first."""

    size: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def extent(self, axis: int) -> int:
        """How many pixels the kernel spans."""
        return self.dilation[axis] * (self.size[axis] - 1) + 1


def _images(layer: Layer, x: Tensor) -> Array:
    """Return a batch of images; one image becomes a batch of one."""
    values = layer.ranked(x, 3, 4).array
    return values if x.rank == 4 else values[None]


def _given(layer: Layer, x: Tensor, images: Array) -> Tensor:
    return layer.give(images if x.rank == 4 else images[0])


def _columns(image: Array, window: Window) -> tuple[Array, Pair]:
    """Return planes x kernel by places, and how many places there are down and across."""
    planes, *sizes = image.shape
    up, left = window.padding
    padded = image
    if up or left:
        padded = zeros((planes, sizes[0] + 2 * up, sizes[1] + 2 * left))
        padded[:, up : up + sizes[0], left : left + sizes[1]] = image
    spans = (window.extent(0), window.extent(1))
    if padded.shape[1] < spans[0] or padded.shape[2] < spans[1]:
        raise ValueError(f"an image of {tuple(sizes)} is smaller than the kernel {spans}")
    places = np.lib.stride_tricks.sliding_window_view(padded, spans, (1, 2))
    places = places[
        :, :: window.stride[0], :: window.stride[1], :: window.dilation[0], :: window.dilation[1]
    ]
    _, down, across, *kernel = places.shape
    check_size(places.shape)
    columns = places.transpose(0, 3, 4, 1, 2).reshape(planes * kernel[0] * kernel[1], down * across)
    return columns, (down, across)


def _convolved(images: Array, weight: Array, window: Window) -> Array:
    """Return the convolution; `weight` is outputs x inputs x kernel, in one matrix or not."""
    weight = weight.reshape(len(weight), -1)
    results = []
    for image in images:
        columns, (down, across) = _columns(image, window)
        results.append((weight @ columns).reshape(-1, down, across))
    return np.stack(results)


def _window(layer: Layer, *, both_sides: bool = False) -> Window:
    """Return the window of a layer; old files lack a stride or padding that they do not use.

    With `both_sides`, a field `padding` stands for the padding of every side and goes first.
    """
    padding = layer.pair("pad", 0)
    if both_sides and layer.has("padding"):
        sides = layer.whole("padding", least=0)
        padding = (sides, sides)
    return Window(layer.pair("k", least=1), layer.pair("d", 1, least=1), padding)


def _check_planes(layer: Layer, images: Array, planes: int) -> None:
    if images.shape[1] != planes:
        raise layer.refused(f"takes {planes} planes, its input has {images.shape[1]}")


def _bias(layer: Layer, planes: int) -> Array | float:
    """Return what is added to every plane, in a shape that fits images; 0 where there is none."""
    bias = layer.maybe("bias")
    if bias is None:
        return 0.0
    if bias.size != planes:
        raise layer.refused(f"{bias.size} biases for {planes} planes")
    return bias.reshape(-1, 1, 1)


@on_tensor("nn.Linear")
def linear(layer: Layer, x: Tensor) -> Value:
    """A matrix times a vector, or times every row, plus a bias (Linear.lua)."""
    return _linear(layer, x, layer.weight("weight"))


@on_tensor("nn.LinearWeightNorm")
def linear_weight_norm(layer: Layer, x: Tensor) -> Value:
    """Linear, with the weight g * v / |v| row by row unless it is stored (LinearWeightNorm.lua)."""
    if layer.get("train") is False and layer.maybe("weight") is not None:
        return _linear(layer, x, layer.weight("weight"))
    v, g = layer.weight("v"), layer.weight("g")
    norm = np.maximum(np.sqrt((v**2).sum(1)), layer.number("eps", 1e-16))
    return _linear(layer, x, v * (g.ravel() / norm)[:, None])


def _linear(layer: Layer, x: Tensor, weight: Array) -> Value:
    bias = layer.maybe("bias")
    values = layer.ranked(x, 1, 2).array @ weight.T
    return layer.give(values if bias is None else values + np.broadcast_to(bias, values.shape))


@on_tensor("nn.SpatialConvolution", "nn.SpatialConvolutionMM")
def convolution(layer: Layer, x: Tensor) -> Value:
    """A convolution; the weight may be stored as a matrix (SpatialConvolution.lua, ...MM.lua)."""
    images, weight = _images(layer, x), layer.weight("weight")
    window = _window(layer, both_sides=True)
    _check_planes(layer, images, weight[0].size // (window.size[0] * window.size[1]))
    return _given(layer, x, _convolved(images, weight, window) + _bias(layer, len(weight)))


@on_tensor("nn.SpatialDilatedConvolution")
def dilated_convolution(layer: Layer, x: Tensor) -> Value:
    """A convolution whose kernel leaves pixels out (SpatialDilatedConvolution.c)."""
    images, weight = _images(layer, x), layer.weight("weight")
    window = replace(_window(layer), dilation=layer.pair("dilation", 1, least=1))
    _check_planes(layer, images, weight[0].size // (window.size[0] * window.size[1]))
    return _given(layer, x, _convolved(images, weight, window) + _bias(layer, len(weight)))


@on_tensor("cudnn.SpatialConvolution")
def cudnn_convolution(layer: Layer, x: Tensor) -> Value:
    """A convolution by groups of planes; cudnn does not know the field `padding`."""
    images, groups = _images(layer, x), layer.whole("groups", 1, least=1)
    window = _window(layer)
    inputs, outputs = layer.whole("nInputPlane", least=1), layer.whole("nOutputPlane", least=1)
    if inputs % groups or outputs % groups:
        raise layer.refused(f"{groups} groups of {inputs} and {outputs} planes")
    weight = layer.weight("weight").reshape(outputs, inputs // groups, *window.size)
    _check_planes(layer, images, inputs)
    pairs = zip(np.split(images, groups, 1), np.split(weight, groups), strict=True)
    joined = np.concatenate([_convolved(part, filters, window) for part, filters in pairs], 1)
    return _given(layer, x, joined + _bias(layer, outputs))


@on_tensor("nn.SpatialDepthWiseConvolution")
def depthwise_convolution(layer: Layer, x: Tensor) -> Value:
    """Filters for every plane by itself; the results of a plane follow each other.

    Weight and bias have the filters first, then the planes. Source: cunn
    SpatialDepthWiseConvolution.cu. The CPU code (THNN) takes height for width: for images that are
    not square it gives other numbers.
    """
    images, window = _images(layer, x), _window(layer, both_sides=True)
    weight = layer.weight("weight")
    weight = weight.reshape(len(weight), -1, window.size[0] * window.size[1])
    filters, planes, _ = weight.shape
    _check_planes(layer, images, planes)
    parts = [
        _convolved(images[:, plane : plane + 1], weight[:, plane], window)
        for plane in range(planes)
    ]
    bias = _bias(layer, filters * planes)
    if isinstance(bias, np.ndarray):
        bias = bias.reshape(filters, planes).T.reshape(-1, 1, 1)
    return _given(layer, x, np.concatenate(parts, 1) + bias)


@on_any("nn.SpatialFullConvolution", "cudnn.SpatialFullConvolution")
def full_convolution(layer: Layer, x: Value) -> Value:
    """A convolution turned round: every pixel adds a kernel to the result.

    A table {x, like} makes the result as large as `like`, with nn. Source:
    SpatialFullConvolution.lua, SpatialFullDilatedConvolution.c.
    """
    window, adjustment = _window(layer), layer.pair("adj", 0)
    if isinstance(x, list) and layer.name.startswith("nn.") and len(x) > 1:
        like = layer.tensor(x[1])
        adjustment = (_adjustment(window, 0, like), _adjustment(window, 1, like))
        x = x[0]
    tensor = layer.tensor(x)
    if any(more >= step for more, step in zip(adjustment, window.stride, strict=True)):
        raise layer.refused(f"adds {adjustment} to a result of stride {window.stride}")
    images, weight = _images(layer, tensor), layer.weight("weight")
    inputs, outputs = layer.whole("nInputPlane", least=1), layer.whole("nOutputPlane", least=1)
    weight = weight.reshape(inputs, outputs, *window.size)
    _check_planes(layer, images, inputs)
    result = np.stack([_spread(image, weight, window, adjustment) for image in images])
    return _given(layer, tensor, result + _bias(layer, outputs))


def _adjustment(window: Window, axis: int, like: Tensor) -> int:
    size = like.shape[like.rank - 2 + axis]
    return (size + 2 * window.padding[axis] - window.size[axis]) % window.stride[axis]


def _spread(image: Array, weight: Array, window: Window, adjustment: Pair) -> Array:
    """Return one image's result: columns of kernels, added up where they overlap (col2im)."""
    inputs, height, width = image.shape
    (kh, kw), (dh, dw), (up, left) = window.size, window.stride, window.padding
    columns = weight.reshape(inputs, -1).T @ image.reshape(inputs, -1)
    columns = columns.reshape(-1, kh, kw, height, width)
    down = (height - 1) * dh + kh + adjustment[0]
    across = (width - 1) * dw + kw + adjustment[1]
    result = zeros((len(columns), down, across))
    for y in range(kh):
        for z in range(kw):
            ends = (y + (height - 1) * dh + 1, z + (width - 1) * dw + 1)
            result[:, y : ends[0] : dh, z : ends[1] : dw] += columns[:, y, z]
    cut = result[:, up : down - up, left : across - left]
    check_size(cut.shape)
    return cut


@on_tensor("nn.SpatialConvolutionMap")
def convolution_map(layer: Layer, x: Tensor) -> Value:
    """Single kernels between the planes that a table pairs (SpatialConvolutionMap.c)."""
    images, weight, pairs = _images(layer, x), layer.weight("weight"), layer.weight("connTable")
    if weight.ndim != 3 or pairs.shape != (len(weight), 2):
        raise layer.refused(f"{pairs.shape} pairs for a weight of {weight.shape}")
    dense = zeros((layer.whole("nOutputPlane", least=1), images.shape[1], *weight.shape[1:]))
    sources, targets = pairs.astype(np.int64).T - 1
    if min(sources.min(), targets.min()) < 0:
        raise layer.wrong("connTable", "planes from 1 on")
    np.add.at(dense, (targets, sources), weight)
    window = Window((weight.shape[1], weight.shape[2]), layer.pair("d", 1, least=1))
    return _given(layer, x, _convolved(images, dense, window) + _bias(layer, len(dense)))


@on_tensor("nn.SpatialSubSampling")
def sub_sampling(layer: Layer, x: Tensor) -> Value:
    """Window sums times a weight, plus a bias, plane by plane (SpatialSubSampling.c)."""
    images, window = (
        _images(layer, x),
        Window(layer.pair("k", least=1), layer.pair("d", 1, least=1)),
    )
    weight = layer.weight("weight")
    _check_planes(layer, images, weight.size)
    ones = np.ones((1, window.size[0] * window.size[1]))
    sums = [_convolved(images[:, at : at + 1], ones, window) for at in range(weight.size)]
    scaled = np.concatenate(sums, 1) * weight.reshape(-1, 1, 1)
    return _given(layer, x, scaled + _bias(layer, weight.size))
