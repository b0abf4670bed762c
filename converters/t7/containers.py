"""Rules of containers and of tables: what runs, on what, and how results are put together."""

from collections.abc import Sequence

from converters.lowering import Value
from converters.t7.network import Handle, Module, Run, Tree, layer


@layer("nn.Sequential")
def sequential(run: Run, module: Module, x: Tree) -> Tree:
    """One module after the other."""
    for child in module.children():
        x = run.forward(child, x)
    return x


@layer("nn.ConcatTable")
def concat_table(run: Run, module: Module, x: Tree) -> Tree:
    """Every module on the same input, which they may change in place for those that come after."""
    return run.table_of(module, [run.forward(child, x) for child in module.children()])


@layer("nn.Concat")
def concat(run: Run, module: Module, x: Tree) -> Tree:
    """Outputs of all modules joined along `dimension`, which counts from 1 and includes the batch.

    They are copied once all have run (`nn/Concat.lua`), so what a later one writes in place shows.
    """
    parts = [run.tensor(module, run.forward(child, x)) for child in module.children()]
    values = [run.read(part) for part in parts]
    return _joined(run, module, f"{module.name}.join", values, module.integer("dimension") - 1)


@layer("nn.DepthConcat")
def depth_concat(run: Run, module: Module, x: Tree) -> Tree:
    """Outputs of all modules joined along `dimension`, smaller ones centred in zeros.

    An odd margin goes behind: the start is `floor((size - own) / 2) + 1` (`nn/DepthConcat.lua`).
    """
    dim = module.integer("dimension") - 1
    parts = [run.tensor(module, run.forward(child, x)) for child in module.children()]
    if len({len(part.shape) for part in parts}) != 1:
        raise module.unsupported("its parts differ in rank")
    size = [max(lengths) for lengths in zip(*(part.shape for part in parts), strict=True)]
    framed = []
    for part in parts:
        margins = [0 if i == dim else size[i] - length for i, length in enumerate(part.shape)]
        padding = [n for margin in reversed(margins) for n in (margin // 2, margin - margin // 2)]
        value = run.read(part)
        if any(margins):
            value = run.net.add(f"{module.name}.frame", "Pad", value, padding=padding, value=0.0)
        framed.append(value)
    return _joined(run, module, f"{module.name}.join", framed, dim)


@layer("nn.CAddTable")
def cadd_table(run: Run, module: Module, x: Tree) -> Tree:
    """Sum of a table, left to right.

    With `inplace` the sum is written into the first operand (`nn/CAddTable.lua`: `output:set`), so
    an operand that is the same tensor as the first adds the sum so far, and others see it too.
    """
    first, *others = run.table(module, x)
    total, in_place = run.read(first), module.flag("inplace")
    for other in others:
        if other.shape != first.shape:
            raise module.unsupported(f"adds tensors of shapes {first.shape} and {other.shape}")
        total = run.net.add(module.name, "Add", total, run.read(other))
        if in_place:
            run.write(module, first, total)
    return run.view(module, first, total) if in_place else run.fresh(module, total)


@layer("nn.JoinTable")
def join_table(run: Run, module: Module, x: Tree) -> Tree:
    """Tensors one after the other; `dimension` counts from 1, or from the end if negative.

    With `nInputDims` the dimension is meant without the batch: it moves by one when the first
    tensor has one dimension more (`nn/JoinTable.lua`, `_getPositiveDimension`).
    """
    parts = run.table(module, x)
    rank = len(parts[0].shape)
    dim = module.integer("dimension")
    if dim < 0:
        dim += rank + 1
    elif module.has("nInputDims") and rank == module.integer("nInputDims") + 1:
        dim += 1
    return _joined(run, module, module.name, [run.read(part) for part in parts], dim - 1)


def _joined(run: Run, module: Module, at: str, parts: Sequence[Value], dim: int) -> Handle:
    if not parts:
        raise module.unsupported("joins nothing: it holds no modules")
    if not 0 <= dim < len(parts[0].shape):
        raise module.error("dimension", dim + 1, f"1 to {len(parts[0].shape)}: its input's rank")
    return run.fresh(module, run.net.add(at, "Concat", *parts, dim=dim))


@layer("nn.Identity")
def identity(run: Run, module: Module, x: Tree) -> Tree:
    """The very tensor that came in, or the table."""
    return x
