"""Modules that take or give tables: sums of several inputs, joining, choosing, splitting.

Source: the Lua file of the class in torch/nn.
"""

import numpy as np

from converters.t7_oracle.interpreter import Layer, leaves, on_any, on_table, on_tensor
from converters.t7_oracle.tensor import Tensor, Value


@on_table("nn.CAddTable")
def cadd_table(layer: Layer, x: list[Value]) -> Value:
    """The sum; in place it is built in the first entry (CAddTable.lua)."""
    first, *others = layer.tensors(x)
    out = layer.output.set(first) if layer.flag("inplace") else layer.output.copy(first)
    for other in others:
        out.array[...] += other.elements(out.shape)
    return out


@on_table("nn.CSubTable")
def csub_table(layer: Layer, x: list[Value]) -> Value:
    """The first entry minus the second (CSubTable.lua)."""
    first, second = _two(layer, x)
    out = layer.output.copy(first)
    out.array[...] -= second.elements(out.shape)
    return out


@on_table("nn.CMulTable")
def cmul_table(layer: Layer, x: list[Value]) -> Value:
    """The product (CMulTable.lua)."""
    first, *others = layer.tensors(x)
    out = layer.output.copy(first)
    for other in others:
        out.array[...] *= other.elements(out.shape)
    return out


@on_table("nn.CDivTable")
def cdiv_table(layer: Layer, x: list[Value]) -> Value:
    """The first entry divided by the second (CDivTable.lua)."""
    first, second = _two(layer, x)
    out = layer.output.copy(first)
    out.array[...] /= second.elements(out.shape)
    return out


@on_table("nn.CMaxTable")
def cmax_table(layer: Layer, x: list[Value]) -> Value:
    """The largest; an entry replaces only what is smaller than it (CMaxTable.lua)."""
    first, *others = layer.tensors(x)
    out = layer.output.copy(first)
    for other in others:
        values = other.elements(out.shape)
        np.copyto(out.array, values, where=values > out.array)
    return out


@on_table("nn.CMinTable")
def cmin_table(layer: Layer, x: list[Value]) -> Value:
    """The smallest; an entry replaces only what is larger than it (CMinTable.lua)."""
    first, *others = layer.tensors(x)
    out = layer.output.copy(first)
    for other in others:
        values = other.elements(out.shape)
        np.copyto(out.array, values, where=values < out.array)
    return out


def _two(layer: Layer, x: list[Value]) -> tuple[Tensor, Tensor]:
    tensors = layer.tensors(x)
    if len(tensors) < 2:
        raise layer.refused("takes two entries, its table has one")
    return tensors[0], tensors[1]


@on_table("nn.CAddTensorTable")
def cadd_tensor_table(layer: Layer, x: list[Value]) -> Value:
    """The first entry is added to every tensor of the second (CAddTensorTable.lua)."""
    if len(x) < 2:
        raise layer.refused("takes a tensor and a table")
    added, others = layer.tensor(x[0]), layer.tensors(x[1])
    return [Tensor.of(other.elements(added.shape) + added.array) for other in others]


@on_table("nn.JoinTable")
def join_table(layer: Layer, x: list[Value]) -> Value:
    """The entries one after the other along a dimension (JoinTable.lua)."""
    parts = layer.tensors(x)
    axis = layer.batched_axis(parts[0].rank, "dimension", "nInputDims")
    return layer.give(np.concatenate([part.array for part in parts], axis))


@on_table("nn.SelectTable")
def select_table(layer: Layer, x: list[Value]) -> Value:
    """One entry, counted from the end where the index is negative (SelectTable.lua)."""
    index = layer.whole("index")
    at = index + len(x) if index < 0 else index - 1
    if not 0 <= at < len(x):
        raise layer.refused(f"selects entry {index} of a table of {len(x)}")
    return x[at]


@on_table("nn.NarrowTable")
def narrow_table(layer: Layer, x: list[Value]) -> Value:
    """`length` entries from `offset` on, as far as there are any (NarrowTable.lua)."""
    start, length = layer.whole("offset", least=1) - 1, layer.whole("length", least=0)
    entries = x[start : start + length]
    layer.table[:] = entries
    return layer.table


@on_table("nn.FlattenTable")
def flatten_table(layer: Layer, x: list[Value]) -> Value:
    """The tensors of nested tables in one table (FlattenTable.lua)."""
    return [*leaves(x)]


@on_tensor("nn.SplitTable")
def split_table(layer: Layer, x: Tensor) -> Value:
    """The slices along a dimension, sharing the input's memory (SplitTable.lua)."""
    axis = layer.batched_axis(x.rank, "dimension", "nInputDims")
    return [x.select(axis, index) for index in range(x.shape[axis])]


@on_table("nn.ZipTable")
def zip_table(layer: Layer, x: list[Value]) -> Value:
    """A table of tables with rows and columns exchanged (ZipTable.lua)."""
    rows = [layer.entries(row) for row in x]
    return [list(column) for column in zip(*rows, strict=True)]


@on_table("nn.ZipTableOneToMany")
def zip_table_one_to_many(layer: Layer, x: list[Value]) -> Value:
    """The first entry paired with each of the second's (ZipTableOneToMany.lua)."""
    if len(x) != 2:
        raise layer.refused("takes an entry and a table")
    return [[x[0], other] for other in layer.entries(x[1])]


@on_table("nn.MixtureTable")
def mixture_table(layer: Layer, x: list[Value]) -> Value:
    """Experts weighted by a gate and summed (MixtureTable.lua).

    Experts come as a table, or as one tensor with an axis of its own for them.
    """
    if len(x) < 2:
        raise layer.refused("takes a gate and experts")
    gate = layer.tensor(x[0]).array
    batched = gate.ndim > 1
    dim = layer.whole("dim", 2 if batched else 1)
    if isinstance(x[1], list):
        experts = np.stack([expert.array for expert in layer.tensors(x[1])], dim - 1)
    else:
        experts = layer.tensor(x[1]).array
    sizes = [1] * experts.ndim
    if batched:
        sizes[0] = gate.shape[0]
    sizes[layer.axis(dim, experts.ndim)] = gate.shape[-1]
    weights = np.broadcast_to(gate.reshape(sizes), experts.shape)
    return layer.give((weights * experts).sum(dim - 1))


@on_table("nn.MM")
def mm(layer: Layer, x: list[Value]) -> Value:
    """The product of two matrices, or of two batches of them (MM.lua)."""
    first, second = (layer.ranked(one, 2, 3).array for one in _two(layer, x))
    if first.ndim != second.ndim:
        raise layer.refused("takes two matrices or two batches of them")
    first = np.swapaxes(first, -1, -2) if layer.flag("transA") else first
    second = np.swapaxes(second, -1, -2) if layer.flag("transB") else second
    return layer.give(np.matmul(first, second))


@on_any("nn.Identity", "nn.L1Penalty", "nn.PrintSize")
def identity(layer: Layer, x: Value) -> Value:
    """The very value that came in (Identity.lua, L1Penalty.lua, PrintSize.lua)."""
    return x
