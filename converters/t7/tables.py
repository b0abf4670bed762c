"""Rules of layers that take a table, or make one."""

import math
from collections.abc import Sequence

from converters.lowering import Value
from converters.t7.memory import Handle, batched
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer


def joined(run: Run, module: Module, at: str, parts: Sequence[Value], dim: int) -> Handle:
    """Return tensors one after the other along `dim`, which counts from 0."""
    if not parts:
        raise module.unsupported("joins nothing: it holds no modules")
    if not 0 <= dim < len(parts[0].shape):
        raise module.error("dimension", dim + 1, f"1 to {len(parts[0].shape)}: its input's rank")
    return run.fresh(module, run.net.add(at, "Concat", *parts, dim=dim))


def positive_dimension(module: Module, rank: int) -> int:
    """Return `dimension`, from 0: it counts from the end if negative, or leaves out a batch.

    With `nInputDims` the dimension is meant without the batch: it moves by one when the input has
    one dimension more (`_getPositiveDimension` in `nn/JoinTable.lua`, `nn/SplitTable.lua`, ...).
    """
    dim = module.integer("dimension", 1)
    if dim < 0:
        dim += rank + 1
    elif module.has("nInputDims") and rank == module.integer("nInputDims") + 1:
        dim += 1
    if not 1 <= dim <= rank:
        raise module.error("dimension", module.integer("dimension", 1), f"1 to {rank}")
    return dim - 1


def _reduced(run: Run, module: Module, x: Tree, op: str, *, in_place: bool = False) -> Handle:
    """Fold a table from left to right, in the module's output.

    That is a copy of the first operand, or a view of it. Another operand may be that very tensor,
    from the call before: then it takes part as it is by now.
    """
    first, *others = run.table(module, x)
    output = run.view(module, first) if in_place else run.fresh(module, run.read(first))
    for other in others:
        operand = _operand(run, module, output, other)
        run.write(module, output, run.net.add(module.name, op, run.read(output), operand))
    return output


def _operand(run: Run, module: Module, first: Handle, other: Handle) -> Value:
    """Return what a tensor holds in the shape of another.

    Torch7 goes by the number of elements, in order (`TH/generic/THTensorMath.c`, `cadd`), which
    decides what nn.LayerNormalization gives for a batch.
    """
    if math.prod(other.shape) != math.prod(first.shape):
        raise module.unsupported(f"combines tensors of shapes {first.shape} and {other.shape}")
    value = run.read(other)
    if other.shape == first.shape:
        return value
    return run.net.add(f"{module.name}_operand", "Reshape", value, shape=batched(first.shape))


@layer("nn.CAddTable")
def cadd_table(run: Run, module: Module, x: Tree) -> Tree:
    """Sum of a table, left to right.

    With `inplace` the sum is written into the first operand (`nn/CAddTable.lua`: `output:set`), so
    an operand that is the same tensor as the first adds the sum so far, and others see it too.
    """
    return _reduced(run, module, x, "Add", in_place=module.flag("inplace"))


@layer("nn.CMulTable")
def cmul_table(run: Run, module: Module, x: Tree) -> Tree:
    """Product of a table (`nn/CMulTable.lua`)."""
    return _reduced(run, module, x, "Mul")


@layer("nn.CMaxTable")
def cmax_table(run: Run, module: Module, x: Tree) -> Tree:
    """The largest of each element (`nn/CMaxTable.lua`)."""
    return _reduced(run, module, x, "Maximum")


@layer("nn.CMinTable")
def cmin_table(run: Run, module: Module, x: Tree) -> Tree:
    """The smallest of each element (`nn/CMinTable.lua`)."""
    return _reduced(run, module, x, "Minimum")


@layer("nn.CSubTable")
def csub_table(run: Run, module: Module, x: Tree) -> Tree:
    """The first less the second; more are not looked at (`nn/CSubTable.lua`)."""
    return _reduced(run, module, [*_first_two(run, module, x)], "Sub")


@layer("nn.CDivTable")
def cdiv_table(run: Run, module: Module, x: Tree) -> Tree:
    """The first by the second; more are not looked at (`nn/CDivTable.lua`)."""
    return _reduced(run, module, [*_first_two(run, module, x)], "Div")


def _first_two(run: Run, module: Module, x: Tree) -> tuple[Tree, Tree]:
    entries = run.entries(module, x)
    if len(entries) < 2:
        raise module.unsupported(f"takes a table of two, its input is one of {len(entries)}")
    return entries[0], entries[1]


@layer("nn.CAddTensorTable")
def cadd_tensor_table(run: Run, module: Module, x: Tree) -> Tree:
    """The first entry added to every entry of the second (`nn/CAddTensorTable.lua`)."""
    added, others = _first_two(run, module, x)
    first = run.tensor(module, added)
    sums: list[Tree] = []
    for other in run.table(module, others):
        operand = _operand(run, module, first, other)
        sums.append(run.new(run.net.add(module.name, "Add", operand, run.read(first))))
    return sums


@layer("nn.MM")
def matrix_product(run: Run, module: Module, x: Tree) -> Tree:
    """Product of two matrices or batches of them, each transposed if asked (`nn/MM.lua`)."""
    first, second = (run.tensor(module, entry) for entry in _first_two(run, module, x))
    rank = len(first.shape)
    if rank not in (2, 3) or len(second.shape) != rank:
        raise module.unsupported(f"multiplies tensors of {rank} and {len(second.shape)} dimensions")
    dims = [*range(rank - 2), rank - 1, rank - 2]
    values = []
    for handle, flag in ((first, "transA"), (second, "transB")):
        value = run.read(handle)
        if module.flag(flag):
            value = run.net.add(f"{module.name}_{flag}", "Permute", value, dims=dims)
        values.append(value)
    return run.fresh(module, run.net.add(module.name, "MatMul", *values))


@layer("nn.JoinTable")
def join_table(run: Run, module: Module, x: Tree) -> Tree:
    """Tensors one after the other along `dimension` (`nn/JoinTable.lua`)."""
    parts = run.table(module, x)
    dim = positive_dimension(module, len(parts[0].shape))
    return joined(run, module, module.name, [run.read(part) for part in parts], dim)


@layer("nn.SplitTable")
def split_table(run: Run, module: Module, x: Tree) -> Tree:
    """The entries of one dimension, as views of the input (`nn/SplitTable.lua`)."""
    given = run.tensor(module, x)
    if len(given.shape) < 2:
        raise module.unsupported("splits a vector into numbers")
    dim = positive_dimension(module, len(given.shape))
    parts: list[Tree] = []
    for index in range(given.shape[dim]):
        part = given.selected(dim, index)
        value = run.net.add(module.name, "Select", run.read(given), dim=dim, index=index)
        part.memory.know(part.steps, value)
        parts.append(part)
    return parts


@layer("nn.SelectTable")
def select_table(run: Run, module: Module, x: Tree) -> Tree:
    """One entry of the table, which counts from the end if negative (`nn/SelectTable.lua`)."""
    entries, index = run.entries(module, x), module.integer("index")
    place = index + len(entries) if index < 0 else index - 1
    if not 0 <= place < len(entries):
        raise module.error("index", index, f"1 to {len(entries)}: its input's length")
    return entries[place]


@layer("nn.NarrowTable")
def narrow_table(run: Run, module: Module, x: Tree) -> Tree:
    """`length` entries from `offset`, fewer at the table's end (`nn/NarrowTable.lua`)."""
    start, length = module.integer("offset") - 1, module.integer("length", 1)
    entries = run.entries(module, x)[start : start + length] if start >= 0 and length > 0 else []
    if not entries:
        raise module.error("offset, length", (start + 1, length), "a part of the input's table")
    return run.table_of(module, entries)


@layer("nn.FlattenTable")
def flatten_table(run: Run, module: Module, x: Tree) -> Tree:
    """All tensors of nested tables, depth first (`nn/FlattenTable.lua`)."""
    return [*run.leaves(module, run.entries(module, x))]


@layer("nn.ZipTable")
def zip_table(run: Run, module: Module, x: Tree) -> Tree:
    """A table of tables with the two levels exchanged (`nn/ZipTable.lua`)."""
    rows = [run.entries(module, row) for row in run.entries(module, x)]
    if len({len(row) for row in rows}) > 1:
        raise module.unsupported("zips tables of different lengths")
    return [list(column) for column in zip(*rows, strict=True)]


@layer("nn.ZipTableOneToMany")
def zip_table_one_to_many(run: Run, module: Module, x: Tree) -> Tree:
    """`{a, {b, c}}` becomes `{{a, b}, {a, c}}` (`nn/ZipTableOneToMany.lua`)."""
    first, others = _first_two(run, module, x)
    return [[first, other] for other in run.entries(module, others)]


@layer("nn.MixtureTable")
def mixture_table(run: Run, module: Module, x: Tree) -> Tree:
    """Experts weighted by a gater: `{gater, {expert, ...}}`, or experts joined in one tensor.

    `dim` is where the experts are, or would be, in a tensor of all of them; 2 unless said otherwise
    for a batch, 1 for a sample (`nn/MixtureTable.lua`).
    """
    given, experts = _first_two(run, module, x)
    gater = run.tensor(module, given)
    is_batch = len(gater.shape) > 1
    dim = module.integer("dim", 2 if is_batch else 1) - 1
    several = [experts] if isinstance(experts, Handle) else run.table(module, experts)
    rank = len(several[0].shape) + (several[0] is not experts)
    if len(gater.shape) > 2:
        raise module.unsupported(f"takes gates of 1 or 2 dimensions, not {len(gater.shape)}")
    if not int(is_batch) <= dim < rank:
        raise module.error("dim", dim + 1, f"{1 + int(is_batch)} to {rank}")
    shape = [1] * rank
    shape[0], shape[dim] = gater.shape[0] if is_batch else 1, gater.shape[-1]
    gates = run.net.add(
        f"{module.name}_gates", "Reshape", run.read(gater), shape=batched(tuple(shape))
    )
    if several[0] is not experts:
        return run.fresh(module, _mixed(run, module, several, gates, dim))
    weighted = run.net.add(f"{module.name}_weighted", "Mul", run.read(several[0]), gates)
    return run.fresh(module, run.net.add(module.name, "Sum", weighted, dim=dim, keepdim=False))


def _mixed(run: Run, module: Module, experts: list[Handle], gates: Value, dim: int) -> Value:
    if len(experts) != gates.shape[dim]:
        raise module.unsupported(f"{gates.shape[dim]} gates for {len(experts)} experts")
    total: Value | None = None
    for index, expert in enumerate(experts):
        gate = run.net.add(f"{module.name}_gate", "Select", gates, dim=dim, index=index)
        part = run.net.add(f"{module.name}_weighted", "Mul", run.read(expert), gate)
        total = part if total is None else run.net.add(module.name, "Add", total, part)
    assert total is not None  # a table has an entry
    return total
