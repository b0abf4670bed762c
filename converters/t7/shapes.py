"""Rules that change a shape: views of the same memory, and copies of a part of it."""

import math
from typing import Any

from converters.t7.memory import Handle, batched
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer
from converters.t7.objects import TENSOR_CLASSES, Function, LuaTable, Tensor
from models.graph import Shape


def viewed(run: Run, module: Module, given: Handle, shape: Shape, at: str) -> Handle:
    """Return the same memory in another shape, in which one size may be -1; the node is named `at`.

    Wherever the first size is, the graph leaves it open: a batch may be of any size.
    """
    if not given.contiguous:
        raise module.unsupported("views a tensor that is not contiguous, as Torch7 refuses to")
    if len(shape) == 2 and len(given.shape) > 1 and shape[0] == given.shape[0]:
        rest = math.prod(given.shape[1:])
        if shape[1] in (-1, rest):
            flat = given.reshaped((shape[0], rest))
            return _seen(run, given, flat, at, "Flatten", {"start_dim": 1, "end_dim": -1})
    held, told = math.prod(given.shape), math.prod(n for n in shape if n != -1)
    full = tuple(held // max(told, 1) if n == -1 else n for n in shape)
    if min(full) < 1 or math.prod(full) != held:
        raise module.unsupported(f"views a tensor of shape {given.shape} as {shape}")
    size = list(shape) if -1 in shape[1:] else batched(shape)
    return _seen(run, given, given.reshaped(full), at, "Reshape", {"shape": size})


def _seen(run: Run, given: Handle, view: Handle, at: str, op: str, attrs: dict[str, Any]) -> Handle:
    """Return a view of `given`, with a node for what it shows unless there is one already."""
    if view.memory.known(view.steps) is None:
        view.memory.know(view.steps, run.net.add(at, op, run.read(given), **attrs))
    return view


def singletons(run: Run, given: Handle, view: Handle, at: str) -> Handle:
    """Return a view that differs by dimensions of one entry, with a node for what it shows."""
    return _seen(run, given, view, at, "Reshape", {"shape": batched(view.shape)})


def gapless(run: Run, module: Module, given: Handle) -> Handle:
    """Return the tensor, or a copy that the module keeps if it is not contiguous."""
    return given if given.contiguous else run.kept(module, "_input", run.read(given))


@layer("nn.Identity", "nn.L1Penalty", "nn.PrintSize")
def identity(run: Run, module: Module, x: Tree) -> Tree:
    """The very tensor that came in, or the table."""
    return x


@layer("nn.GradientReversal", "nn.ZeroGrad")
def same_memory(run: Run, module: Module, x: Tree) -> Tree:
    """The same numbers: only gradients differ (`nn/GradientReversal.lua`: `output:set`)."""
    return run.view(module, run.tensor(module, x))


@layer("nn.Contiguous")
def contiguous(run: Run, module: Module, x: Tree) -> Tree:
    """The same numbers, copied only where they are not contiguous (`nn/Contiguous.lua`)."""
    given = run.tensor(module, x)
    return run.view(module, given) if given.contiguous else run.fresh(module, run.read(given))


@layer("nn.Copy")
def copy(run: Run, module: Module, x: Tree) -> Tree:
    """A copy in another type; for one type the very tensor, by a method of its own.

    Source: `nn/Copy.lua`; where types are equal the constructor replaces `updateOutput`.
    """
    given = run.tensor(module, x)
    output = module.source.fields.get("output")
    if isinstance(output, Tensor) and TENSOR_CLASSES[output.class_name].kind != "f":
        raise module.unsupported(f"rounds to {output.class_name}")
    if isinstance(module.source.fields.get("updateOutput"), Function):
        return given
    return run.fresh(module, run.read(given))


@layer("nn.View")
def view(run: Run, module: Module, x: Tree) -> Tree:
    """The same memory in another shape, with the batch dimension kept where there is one.

    `numInputDims` says how many dimensions one sample has; what is before them is the batch.
    Without it, elements left over make the batch, and a batch of one disappears (`nn/View.lua`,
    `batchsize`).
    """
    given = run.tensor(module, x)
    size = module.sizes("size")
    rank = len(given.shape)
    sample = min(module.integer("numInputDims"), rank) if module.has("numInputDims") else rank
    held, wanted = math.prod(given.shape[rank - sample :]), math.prod(n for n in size if n >= 0)
    if wanted == 0 or held % wanted:
        raise module.error("size", size, f"a shape for {held:,} elements")
    batch = 1 if -1 in size else held // wanted
    batch *= math.prod(given.shape[: rank - sample])
    if batch == 1 and (not module.has("numInputDims") or rank <= module.integer("numInputDims")):
        return run.view(module, viewed(run, module, given, size, module.name))
    return run.view(module, viewed(run, module, given, (batch, *size), module.name))


@layer("nn.Reshape")
def reshape(run: Run, module: Module, x: Tree) -> Tree:
    """The same memory in another shape, copied first if it is not contiguous.

    `batchMode` unset means: a batch unless the elements match without one; an input whose first
    dimension is 1 is a batch in any case (`nn/Reshape.lua`).
    """
    given = gapless(run, module, run.tensor(module, x))
    size = module.sizes("size")
    if module.has("batchMode"):
        is_batch = module.flag("batchMode")
    else:
        is_batch = math.prod(given.shape) != math.prod(size) or given.shape[:1] == (1,)
    shape = (*given.shape[:1], *size) if is_batch else size
    return run.view(module, viewed(run, module, given, shape, module.name))


@layer("nn.Collapse")
def collapse(run: Run, module: Module, x: Tree) -> Tree:
    """A sample as one vector; more than `nInputDim` dimensions are a batch (`nn/Collapse.lua`)."""
    given = gapless(run, module, run.tensor(module, x))
    is_batch = len(given.shape) > module.integer("nInputDim")
    shape = (given.shape[0], -1) if is_batch else (-1,)
    return run.view(module, viewed(run, module, given, shape, module.name))


@layer("nn.Squeeze")
def squeeze(run: Run, module: Module, x: Tree) -> Tree:
    """Without dimensions of one entry: all of them, or `dim` alone.

    With `numInputDims`, `dim` leaves out the batch, and a batch of one stays (`nn/Squeeze.lua`).
    """
    given = run.tensor(module, x)
    rank = len(given.shape)
    is_batch = module.has("numInputDims") and rank == module.integer("numInputDims") + 1
    if module.has("dim"):
        dim = module.integer("dim") - 1 + is_batch
        if not is_batch <= dim < rank:
            raise module.error("dim", module.integer("dim"), f"1 to {rank - is_batch}")
        dropped = {dim} if given.shape[dim] == 1 and rank > 1 else set()
    else:
        dropped = {i for i, size in enumerate(given.shape) if size == 1}
    view = given.squeezed(dropped)
    if is_batch and 0 in dropped:
        view = view.unsqueezed(0)
    return run.view(module, singletons(run, given, view, module.name))


@layer("nn.Unsqueeze")
def unsqueeze(run: Run, module: Module, x: Tree) -> Tree:
    """With a dimension of one entry at `pos`, which leaves out a batch (`nn/Unsqueeze.lua`)."""
    given = run.tensor(module, x)
    rank = len(given.shape)
    pos = module.integer("pos") + rank - module.integer("numInputDims", rank) - 1
    if not 0 <= pos <= rank:
        raise module.error("pos", pos + 1, f"1 to {rank + 1}")
    return run.view(module, singletons(run, given, given.unsqueezed(pos), module.name))


@layer("nn.Replicate")
def replicate(run: Run, module: Module, x: Tree) -> Tree:
    """The same memory `nfeatures` times along a new dimension.

    `dim` leaves out a batch, which is what more than `ndim` dimensions have (`nn/Replicate.lua`).
    """
    given = run.tensor(module, x)
    rank = len(given.shape)
    is_batch = module.has("ndim") and rank > module.integer("ndim")
    dim, count = module.integer("dim", 1) - 1 + is_batch, module.integer("nfeatures")
    if not 0 <= dim <= rank or count < 1:
        raise module.error("dim, nfeatures", (dim + 1, count), f"1 to {rank + 1}, and 1 or more")
    value = run.net.add(module.name, "Replicate", run.read(given), dim=dim, count=count)
    return run.view(module, given.replicated(dim, count), value)


@layer("nn.Transpose")
def transpose(run: Run, module: Module, x: Tree) -> Tree:
    """Pairs of dimensions exchanged, one pair after the other, as a copy (`nn/Transpose.lua`)."""
    given = run.tensor(module, x)
    rank = len(given.shape)
    offset = rank - module.integer("numInputDims") if module.has("numInputDims") else 0
    pairs = module.source.fields.get("permutations")
    if not isinstance(pairs, LuaTable):
        raise module.error("permutations", pairs, "a table of pairs")
    order = list(range(rank))
    for pair in pairs.array():
        first, second = (pair.get(1), pair.get(2)) if isinstance(pair, LuaTable) else (0, 0)
        dims = [
            int(dim) - 1 + offset if isinstance(dim, float) and dim.is_integer() else -1
            for dim in (first, second)
        ]
        if not all(0 <= dim < rank for dim in dims):
            raise module.error("permutations", (first, second), f"two of 1 to {rank - offset}")
        order[dims[0]], order[dims[1]] = order[dims[1]], order[dims[0]]
    return run.fresh(module, run.net.add(module.name, "Permute", run.read(given), dims=order))


@layer("nn.Select")
def select(run: Run, module: Module, x: Tree) -> Tree:
    """A copy of one entry of a dimension; both count from the end if negative (`nn/Select.lua`)."""
    given = run.tensor(module, x)
    rank = len(given.shape)
    if rank < 2:
        raise module.unsupported("selects a number of a vector")
    dim = _from_end(module, "dimension", rank)
    index = _from_end(module, "index", given.shape[dim])
    value = run.net.add(module.name, "Select", run.read(given), dim=dim, index=index)
    return run.fresh(module, value)


def _from_end(module: Module, field: str, count: int) -> int:
    """Return a field that counts from 1, or from the end if negative, as a count from 0."""
    given = module.integer(field)
    place = given + count if given < 0 else given - 1
    if not 0 <= place < count:
        raise module.error(field, given, f"1 to {count}, or negative")
    return place


@layer("nn.Narrow")
def narrow(run: Run, module: Module, x: Tree) -> Tree:
    """A copy of `length` entries of a dimension from `index`.

    A negative length counts from the end; a negative index takes the first entries, as many as are
    left of the dimension by `length` (`nn/Narrow.lua`).
    """
    given = run.tensor(module, x)
    dim = _from_end(module, "dimension", len(given.shape))
    size, index, length = given.shape[dim], module.integer("index"), module.integer("length", 1)
    if length < 0:
        length = size - index + length + 2
    if index < 0:
        index, length = 1, size - length
    if not (index >= 1 and length >= 1 and index + length - 1 <= size):
        raise module.error("index, length", (index, length), f"a part of {size}")
    value = run.read(given)
    value = run.net.add(module.name, "Narrow", value, dim=dim, start=index - 1, length=length)
    return run.fresh(module, value)
