"""Layers that move elements: views, copies of parts, padding, enlarging, and sums over a dimension.

Source: the Lua file of the class in torch/nn, utils.lua (addSingletonDimension), and
lib/THNN/generic/Spatial{Reflection,Replication}Padding.c, SpatialUpSampling{Nearest,Bilinear}.c.
"""

import math

import numpy as np

from converters.t7.objects import LuaTable
from converters.t7_oracle.interpreter import Layer, on_tensor
from converters.t7_oracle.tensor import Array, Tensor, Value, check_size, zeros


@on_tensor("nn.View")
def view(layer: Layer, x: Tensor) -> Value:
    """The same memory in another shape, with a batch before it where one is left (View.lua)."""
    size = layer.sizes("size")
    elements = math.prod(one for one in size if one >= 0)
    own_rank = layer.whole("numInputDims", x.rank, least=0)
    if own_rank > x.rank:
        raise layer.refused(f"takes {own_rank} dimensions or more, its input has {x.rank}")
    inner = math.prod(x.shape[x.rank - own_rank :])
    if not elements or inner % elements:
        raise layer.refused(f"a view of {x.shape} as {size}")
    batch = 1 if -1 in size else inner // elements
    batch *= math.prod(x.shape[: x.rank - own_rank])
    alone = batch == 1 and x.rank == own_rank
    return layer.output.set(x.view(size if alone else (batch, *size)))


@on_tensor("nn.Reshape")
def reshape(layer: Layer, x: Tensor) -> Value:
    """Another shape, after the batch dimension where there is one (Reshape.lua).

    Without the field `batchMode` there is none where the numbers of elements agree and the first
    size is not 1.
    """
    x = layer.contiguous(x)
    size = layer.sizes("size")
    whole = x.count == math.prod(size) and x.shape[0] != 1
    if layer.get("batchMode") is False or (not layer.has("batchMode") and whole):
        return layer.output.set(x.view(size))
    return layer.output.set(x.view((x.shape[0], *size)))


@on_tensor("nn.Collapse")
def collapse(layer: Layer, x: Tensor) -> Value:
    """The last `nInputDim` dimensions in one (Collapse.lua)."""
    batched = x.rank > layer.whole("nInputDim")
    shape = (x.shape[0], -1) if batched else (-1,)
    return layer.output.set(layer.contiguous(x).view(shape))


@on_tensor("nn.Contiguous")
def contiguous(layer: Layer, x: Tensor) -> Value:
    """The input itself if it has no gaps, else a copy without (Contiguous.lua)."""
    if x.contiguous:
        return layer.output.set(x)
    if layer.output.memory is x.memory:
        layer.output.set(Tensor())
    return layer.output.copy(x)


@on_tensor("nn.Copy")
def copy(layer: Layer, x: Tensor) -> Value:
    """A copy; between equal types the input, by a function that the object holds (Copy.lua)."""
    return x if layer.has("updateOutput") else layer.output.copy(x)


@on_tensor("nn.GradientReversal", "nn.ZeroGrad")
def same(layer: Layer, x: Tensor) -> Value:
    """A view of the whole input (GradientReversal.lua, ZeroGrad.lua)."""
    return layer.output.set(x)


@on_tensor("nn.Squeeze")
def squeeze(layer: Layer, x: Tensor) -> Value:
    """Without dimensions of size 1; a batch of one stays (Squeeze.lua)."""
    batched = layer.has("numInputDims") and x.rank == layer.whole("numInputDims") + 1
    if layer.has("dim"):
        squeezed = x.squeeze(layer.whole("dim", least=1) - 1 + batched)
    else:
        squeezed = x.squeeze()
        if batched and x.shape[0] == 1:
            squeezed = squeezed.view((1, *squeezed.shape))
    return layer.output.set(squeezed)


@on_tensor("nn.Unsqueeze")
def unsqueeze(layer: Layer, x: Tensor) -> Value:
    """One dimension of size 1 more (Unsqueeze.lua). The first input settles `numInputDims`."""
    own = layer.state.kept.setdefault("numInputDims", layer.whole("numInputDims", x.rank))
    if x.rank < own:
        raise layer.refused(f"takes {own} dimensions or more, its input has {x.rank}")
    return layer.output.set(x.insert(layer.whole("pos") - 1 + x.rank - own, 1, 1))


@on_tensor("nn.Transpose")
def transpose(layer: Layer, x: Tensor) -> Value:
    """A copy with dimensions exchanged, pair by pair (Transpose.lua)."""
    offset = x.rank - layer.whole("numInputDims") if layer.has("numInputDims") else 0
    values = x.array
    for pair in layer.entry("permutations").array():
        ends = pair.array() if isinstance(pair, LuaTable) else []
        if len(ends) != 2 or not all(type(end) is float and end.is_integer() for end in ends):
            raise layer.wrong("permutations", "pairs of dimensions")
        values = np.swapaxes(values, *(layer.axis(int(end) + offset, x.rank) for end in ends))
    return layer.give(values)


@on_tensor("nn.Select")
def select(layer: Layer, x: Tensor) -> Value:
    """A copy of one slice (Select.lua)."""
    axis = layer.axis(layer.whole("dimension"), x.rank)
    index = layer.whole("index")
    at = index + x.shape[axis] if index < 0 else index - 1
    return layer.give(x.select(axis, at).array)


@on_tensor("nn.Narrow")
def narrow(layer: Layer, x: Tensor) -> Value:
    """A copy of a range along a dimension; negative lengths count from the end (Narrow.lua)."""
    axis = layer.axis(layer.whole("dimension"), x.rank)
    size, index = x.shape[axis], layer.whole("index")
    length = layer.whole("length")
    if length < 0:
        length = size - index + length + 2
    if index < 0:
        index, length = 1, size - length
    if not (index >= 1 and 1 <= length <= size - index + 1):
        raise layer.refused(f"takes {length} from {index} on of {size}")
    return layer.give(np.take(x.array, range(index - 1, index - 1 + length), axis))


@on_tensor("nn.Replicate")
def replicate(layer: Layer, x: Tensor) -> Value:
    """A new dimension that repeats the input without copying it (Replicate.lua)."""
    batched = layer.has("ndim") and x.rank > layer.whole("ndim")
    axis = layer.whole("dim", 1, least=1) - 1 + batched
    return layer.output.set(x.insert(axis, layer.whole("nfeatures", least=1), 0))


@on_tensor("nn.Padding")
def padding(layer: Layer, x: Tensor) -> Value:
    """`pad` values more along a dimension: after it, before it, or at `index` (Padding.lua)."""
    dimension, pad = layer.whole("dim"), layer.whole("pad")
    if layer.has("nInputDim") and x.rank != layer.whole("nInputDim"):
        dimension += 1
    axis = layer.axis(dimension, x.rank)
    size, at = x.shape[axis], layer.whole("index", 1)
    if pad > 0:
        at = size - at + 2
    if not 1 <= at <= size + 1:
        raise layer.refused(f"pads at {at} of {size}")
    sizes = list(x.shape)
    sizes[axis] += abs(pad)
    padded = zeros(sizes) + layer.number("value")
    target, source = np.moveaxis(padded, axis, 0), np.moveaxis(x.array, axis, 0)
    target[: at - 1] = source[: at - 1]
    target[at - 1 + abs(pad) :] = source[at - 1 :]
    return layer.give(padded)


@on_tensor("nn.SpatialZeroPadding")
def zero_padding(layer: Layer, x: Tensor) -> Value:
    """Zeros around the image; negative padding crops (SpatialZeroPadding.lua)."""
    layer.ranked(x, 3, 4)
    part, target = [slice(None)] * (x.rank - 2), [slice(None)] * (x.rank - 2)
    sizes = list(x.shape)
    for axis, (before, after) in zip((x.rank - 2, x.rank - 1), _sides(layer), strict=True):
        first, last = max(-before, 0), x.shape[axis] - max(-after, 0)
        if first >= last:
            raise layer.refused(f"crops {x.shape[axis]} by {-before} and {-after}")
        sizes[axis] += before + after
        part.append(slice(first, last))
        target.append(slice(max(before, 0), max(before, 0) + last - first))
    padded = zeros(sizes)
    padded[tuple(target)] = x.array[tuple(part)]
    return layer.give(padded)


def _sides(layer: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    return (
        (layer.whole("pad_t"), layer.whole("pad_b")),
        (layer.whole("pad_l"), layer.whole("pad_r")),
    )


@on_tensor("nn.SpatialReflectionPadding", "nn.SpatialReplicationPadding")
def copying_padding(layer: Layer, x: Tensor) -> Value:
    """The image mirrored at its border, or its border repeated (Spatial...Padding.c)."""
    layer.ranked(x, 3, 4)
    values = x.array
    for axis, (before, after) in zip((-2, -1), _sides(layer), strict=True):
        size = x.shape[axis]
        check_size((max(before, 0) + size + max(after, 0),))
        at = np.arange(size + before + after)
        if layer.name == "nn.SpatialReflectionPadding":
            source = np.where(at < before, before * 2 - at, at)
            source = np.where(at >= size + before, (size + before - 1) * 2 - at, source)
        else:
            source = np.clip(at, before, size + before - 1)
        source = source - max(before, 0) + max(-before, 0)
        if not source.size or source.min() < 0 or source.max() >= size:
            raise layer.refused(f"pads {size} by {before} and {after}")
        values = np.take(values, source, axis)
    return layer.give(values)


@on_tensor("nn.SpatialUpSamplingNearest")
def up_sampling_nearest(layer: Layer, x: Tensor) -> Value:
    """Every pixel becomes a square (SpatialUpSamplingNearest.c)."""
    factor = layer.whole("scale_factor", least=1)
    layer.ranked(x, 3, 4)
    check_size((*x.shape[:-2], x.shape[-2] * factor, x.shape[-1] * factor))
    return layer.give(np.repeat(np.repeat(x.array, factor, -2), factor, -1))


@on_tensor("nn.SpatialUpSamplingBilinear")
def up_sampling_bilinear(layer: Layer, x: Tensor) -> Value:
    """Between the four nearest pixels, corners on corners (SpatialUpSamplingBilinear.c)."""
    layer.ranked(x, 3, 4)
    height, width = x.shape[-2:]
    if layer.has("scale_factor"):
        factor = layer.whole("scale_factor", least=1)
        target = (height * factor, width * factor)
    else:
        target = (layer.whole("oheight", least=1), layer.whole("owidth", least=1))
    check_size((*x.shape[:-2], *target))
    rows = _between_neighbours(x.array, target[0], -2)
    return layer.give(_between_neighbours(rows, target[1], -1))


def _between_neighbours(values: Array, target: int, axis: int) -> Array:
    size = values.shape[axis]
    if target == size:
        return values
    # places are float32 in the C code, whatever the tensor's type
    ratio = np.float32(size - 1) / np.float32(target - 1) if target > 1 else np.float32(0)
    place = ratio * np.arange(target, dtype=np.float32)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    sizes = [-1 if at == axis else 1 for at in range(-values.ndim, 0)]
    weight = (place - low.astype(np.float32)).astype(np.float64).reshape(sizes)
    before, after = np.take(values, low, axis), np.take(values, high, axis)
    between: Array = (1 - weight) * before + weight * after
    return between


@on_tensor("nn.UpSampling")
def up_sampling(layer: Layer, x: Tensor) -> Value:
    """One of the two above, by its field `mode`, for batches of images (UpSampling.lua)."""
    layer.ranked(x, 4)
    if layer.get("mode") == "nearest":
        return up_sampling_nearest(layer, x)
    return up_sampling_bilinear(layer, x)


@on_tensor("nn.PixelShuffle")
def pixel_shuffle(layer: Layer, x: Tensor) -> Value:
    """Groups of planes become squares of pixels (PixelShuffle.lua)."""
    layer.ranked(x, 3, 4)
    factor = layer.whole("upscaleFactor", least=1)
    *batch, planes, height, width = x.shape
    channels = planes // factor**2
    parts = x.elements((-1, channels, factor, factor, height, width))
    shuffled = parts.transpose(0, 1, 4, 2, 5, 3)
    sizes = (*batch, channels, height * factor, width * factor)
    return layer.buffer("_shuffleOut").write(shuffled).view(sizes)


@on_tensor("nn.Sum", "nn.Mean")
def total(layer: Layer, x: Tensor) -> Value:
    """The sum or mean along a dimension, which goes unless `squeeze` is false (Sum.lua)."""
    axis = layer.batched_axis(x.rank, "dimension", "nInputDims")
    values = x.array.sum(axis, keepdims=True)
    if layer.name == "nn.Mean" or layer.flag("sizeAverage"):
        values = values / x.shape[axis]
    out = layer.give(values)
    if layer.flag("squeeze", default=True) and out.rank > 1:
        out.set(out.select(axis, 0))
    return out


@on_tensor("nn.Max", "nn.Min")
def extreme(layer: Layer, x: Tensor) -> Value:
    """The largest or smallest along a dimension, which goes (Max.lua, Min.lua)."""
    axis = layer.batched_axis(x.rank, "dimension", "nInputDims")
    choose = np.max if layer.name == "nn.Max" else np.min
    found = layer.buffer("_output").write(choose(x.array, axis=axis, keepdims=True))
    return layer.output.set(found.select(axis, 0) if x.rank > 1 else found)
