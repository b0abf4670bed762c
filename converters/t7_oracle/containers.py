"""Modules that run others.

Source: the Lua file of the class in torch/nn; DataParallelTable.lua in torch/cunn; Inception.lua
and FireModule.lua in Element-Research/dpnn; the inn classes in szagoruyko/imagine-nn.
"""

import math
from collections.abc import Iterable

import numpy as np

from converters.t7_oracle.interpreter import Layer, leaves, on_any, on_table, on_tensor
from converters.t7_oracle.tensor import Array, Tensor, Value, zeros


@on_any(
    "nn.Sequential",
    "nn.SpatialLPPooling",
    "nn.Maxout",
    "nn.LayerNormalization",
    "inn.SpatialSameResponseNormalization",
)
def sequential(layer: Layer, x: Value) -> Value:
    """Each module takes what the one before gave (Sequential.lua, and classes derived from it)."""
    for index in range(len(layer.modules())):
        x = layer.child(index, x)
    return x


@on_tensor("nn.CReLU")
def crelu(layer: Layer, x: Tensor) -> Value:
    """The modules see {x, -x} joined along the features, as matrices (CReLU.lua)."""
    batched = x.rank == layer.whole("nInputDims") + 1
    joined = sequential(layer, x.view((x.shape[0] if batched else 1, -1)))
    axis = 1 if batched else 0
    sizes = list(x.shape)
    sizes[axis] *= 2
    return layer.tensor(joined).resize(tuple(sizes))


@on_any("nn.ConcatTable")
def concat_table(layer: Layer, x: Value) -> Value:
    """Every module takes the input; the results go into one table (ConcatTable.lua)."""
    return _refilled(layer, (x for _ in layer.modules()))


@on_table("nn.ParallelTable")
def parallel_table(layer: Layer, x: list[Value]) -> Value:
    """The i-th module takes the i-th entry (ParallelTable.lua)."""
    count = len(layer.modules())
    if len(x) < count:
        raise layer.refused(f"{count} modules, and a table of {len(x)}")
    return _refilled(layer, (x[index] for index in range(count)))


def _refilled(layer: Layer, inputs: Iterable[Value]) -> Value:
    # One table for the module's life, filled entry by entry: who kept it sees the new ones. It may
    # be the very table that the inputs come from.
    table = layer.table
    for index, x in enumerate(inputs):
        result = layer.child(index, x)
        if index < len(table):
            table[index] = result
        else:
            table.append(result)
    return table


@on_table("nn.MapTable")
def map_table(layer: Layer, x: list[Value]) -> Value:
    """One module for every entry (MapTable.lua).

    From the second entry on a clone runs, with an output of its own. Clones are in the file after a
    forward pass; else they are copies of the module. All go by the path of the first.
    """
    stored = len(layer.modules())
    around = layer.run.clones
    results: list[Value] = []
    for index, entry in enumerate(x):
        try:
            if index >= stored:
                layer.run.clones = (*around, (id(layer.object), index))
            results.append(layer.child(index if index < stored else 0, entry, "0"))
        finally:
            layer.run.clones = around
    return results


@on_any(
    "nn.Decorator",
    "nn.DontCast",
    "nn.NaN",
    "nn.Profile",
    "nn.GPU",
    "nn.FireModule",
)
def decorator(layer: Layer, x: Value) -> Value:
    """The result of the one module inside (Decorator.lua, NaN.lua, GPU.lua on one device)."""
    return layer.child(0, x)


@on_tensor("nn.Inception")
def inception(layer: Layer, x: Tensor) -> Value:
    """As a decorator; an image alone becomes a batch of one (`toBatch`, `fromBatch`)."""
    if layer.ranked(x, 3, 4).rank == 4:
        return layer.child(0, x)
    result = layer.tensor(layer.child(0, x.view((1, *x.shape))))
    return result.view(result.shape[1:])


@on_any("nn.DataParallelTable")
def data_parallel_table(layer: Layer, x: Value) -> Value:
    """The first replica runs on a copy of the whole input; its result is copied too.

    Source: cunn DataParallelTable.lua, `_distribute` and `_concat` with one device. Files of
    version 1 keep every replica; they have the same weights.
    """
    leaves(x)  # raises for a table that holds itself
    inputs = _copied(layer.state.kept.get("inputGpu"), x)
    layer.state.kept["inputGpu"] = inputs
    return _copied(layer.state.output, layer.child(0, inputs))


def _copied(target: Value | None, value: Value) -> Value:
    if isinstance(value, Tensor):
        return (target if isinstance(target, Tensor) else Tensor()).copy(value)
    if not isinstance(target, list) or len(target) != len(value):
        target = [Tensor() for _ in value]
    for index, entry in enumerate(value):
        target[index] = _copied(target[index], entry)
    return target


@on_tensor("nn.Bottle")
def bottle(layer: Layer, x: Tensor) -> Value:
    """The dimensions before the last `nInputDim` - 1 become one for the module (Bottle.lua)."""
    inner_rank = layer.whole("nInputDim", 2, least=1)
    lead = x.rank - inner_rank + 1
    if lead <= 1:
        return layer.output.set(layer.tensor(layer.child(0, x)))
    before = x.shape[: lead - 1]
    result = layer.tensor(layer.child(0, x.view((-1, *x.shape[lead:]))))
    layer.ranked(result, layer.whole("nOutputDim", inner_rank, least=1))
    rows = result.shape[0] // math.prod(before)
    return layer.output.set(result.view((*before, rows, *result.shape[1:])))


@on_any("nn.WeightNorm")
def weight_norm(layer: Layer, x: Value) -> Value:
    """The module's weight is g * v / |v|, row by row of the output dimension (WeightNorm.lua).

    Files hold no weight: it is computed when a file is read.
    """
    inner = layer.modules()[0]
    if not (layer.has("weight") and layer.get("train") is False):
        layer.run.computed[id(inner), "weight"] = _normed_weight(layer)
    return layer.output.set(layer.tensor(layer.child(0, x)))


def _normed_weight(layer: Layer) -> Array:
    v, g = layer.weight("v"), layer.weight("g")
    norm = np.sqrt((v.reshape(len(v), -1) ** 2).sum(1) + 10e-5)  # as written: 1e-4
    rows = v.reshape(len(v), -1) * (g.ravel() / norm)[:, None]
    axis = layer.whole("outputDim", 1, least=1) - 1
    moved = rows.reshape(layer.sizes("viewOut"))  # the output dimension first
    return np.moveaxis(moved, 0, axis)


@on_any("nn.Concat")
def concat(layer: Layer, x: Value) -> Value:
    """Every module takes the input; the results are joined when all have run (Concat.lua)."""
    results = _all(layer, x)
    return _joined(layer, results, layer.whole("dimension"))


def _all(layer: Layer, x: Value) -> list[Tensor]:
    results = [layer.tensor(layer.child(index, x)) for index in range(len(layer.modules()))]
    if not results:
        raise layer.refused("joins nothing")
    return results


def _joined(layer: Layer, parts: list[Tensor], dimension: int) -> Value:
    axis = layer.axis(dimension, parts[0].rank)
    return layer.give(np.concatenate([part.array for part in parts], axis))


@on_any("nn.DepthConcat")
def depth_concat(layer: Layer, x: Value) -> Value:
    """As Concat; parts smaller than the largest are centred in zeros (DepthConcat.lua)."""
    parts = _all(layer, x)
    axis = layer.axis(layer.whole("dimension"), parts[0].rank)
    sizes = [max(lengths) for lengths in zip(*(part.shape for part in parts), strict=True)]
    sizes[axis] = sum(part.shape[axis] for part in parts)
    joined = zeros(sizes)
    at = 0
    for part in parts:
        # math.floor((outputSize - currentSize) / 2 + 1), counted from 0
        starts = [(size - own) // 2 for size, own in zip(sizes, part.shape, strict=True)]
        starts[axis] = at
        at += part.shape[axis]
        window = zip(starts, part.shape, strict=True)
        joined[tuple(slice(start, start + own) for start, own in window)] = part.array
    return layer.give(joined)


@on_tensor("nn.Parallel")
def parallel(layer: Layer, x: Tensor) -> Value:
    """The i-th module takes the i-th slice; the results are joined (Parallel.lua)."""
    axis = layer.axis(layer.whole("inputDimension"), x.rank)
    slices = [x.select(axis, index) for index in range(x.shape[axis])]
    results = [layer.tensor(layer.child(index, one)) for index, one in enumerate(slices)]
    return _joined(layer, results, layer.whole("outputDimension"))
