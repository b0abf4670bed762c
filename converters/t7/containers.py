"""Rules of containers: what runs, on what, and how results are put together."""

import math
from collections.abc import Iterator

from converters.t7.memory import Handle
from converters.t7.module import MAX_DEPTH, Module
from converters.t7.network import Run, Tree, layer
from converters.t7.objects import LuaTable, TorchObject, walk
from converters.t7.shapes import viewed
from converters.t7.tables import joined


@layer(
    "nn.Sequential",
    "nn.SpatialLPPooling",
    "nn.Maxout",
    "nn.LayerNormalization",
    "inn.SpatialSameResponseNormalization",
)
def sequential(run: Run, module: Module, x: Tree) -> Tree:
    """One module after the other; some classes only fill themselves with modules (`nn/*.lua`)."""
    for child in module.children():
        x = run.forward(child, x)
    return x


@layer("nn.Decorator", "nn.DontCast", "nn.NaN", "nn.Profile", "nn.GPU", "nn.FireModule")
def decorator(run: Run, module: Module, x: Tree) -> Tree:
    """The module inside: types, devices and checks decide no number (`nn/Decorator.lua`).

    Some keep it in a field as well, or parts of it (`nn/Profile.lua`, `dpnn/FireModule.lua`).
    """
    return run.forward(module.only_child(), x)


@layer("nn.Inception")
def inception(run: Run, module: Module, x: Tree) -> Tree:
    """The module inside, on a batch of one for an image alone (`dpnn/Inception.lua`)."""
    given = run.image(module, x)
    if len(given.shape) == 4:
        return run.forward(module.only_child(), x)
    batch = viewed(run, module, given, (1, *given.shape), f"{module.name}.batch")
    output = run.tensor(module, run.forward(module.only_child(), batch))
    return viewed(run, module, output, output.shape[1:], f"{module.name}.single")


@layer("nn.DataParallelTable")
def data_parallel_table(run: Run, module: Module, x: Tree) -> Tree:
    """The first replica, on a copy of the batch; the others hold the same weights.

    Version 1 kept one replica for each GPU in `modules` (`cunn/DataParallelTable.lua`, `__read`).
    Outputs are put together along `dimension`, which gives the same as one GPU if it is the batch.
    """
    gpus = module.source.fields.get("gpuAssignments")
    if module.integer("dimension", 1) != 1 and isinstance(gpus, LuaTable) and len(gpus) > 1:
        raise module.unsupported("splits its input along another dimension than the batch")
    if not (children := module.children()):
        raise module.error("modules", "no module", "one")
    first, *replicas = children
    run.ledger.claimed.update(id(one) for other in replicas for one in walk(other.source))
    output = run.forward(first, _copied(run, module, x))
    if isinstance(output, Handle):
        return run.fresh(module, run.read(output))
    return run.table_of(module, [_copied(run, module, one) for one in output])


def _copied(run: Run, module: Module, tree: Tree, depth: int = 0) -> Tree:
    run.spend(module, 1)
    if isinstance(tree, Handle):
        return run.new(run.read(tree))
    if depth == MAX_DEPTH:
        raise module.unsupported(f"tables nested more than {MAX_DEPTH} deep")
    return [_copied(run, module, branch, depth + 1) for branch in tree]


@layer("nn.ConcatTable")
def concat_table(run: Run, module: Module, x: Tree) -> Tree:
    """Every module on the same input, which they may change in place for those that come after."""
    return run.table_of(module, (run.forward(child, x) for child in module.children()))


@layer("nn.ParallelTable")
def parallel_table(run: Run, module: Module, x: Tree) -> Tree:
    """Module i on entry i; entries that are left over are dropped (`nn/ParallelTable.lua`)."""
    children = module.children()
    return run.table_of(module, _each(run, module, children, x))


def _each(run: Run, module: Module, children: list[Module], x: Tree) -> Iterator[Tree]:
    """Run module i on what is entry i by then: an earlier one may have filled that table anew."""
    for index, child in enumerate(children):
        if index >= len(entries := run.entries(module, x)):
            count = len(children)
            raise module.unsupported(f"{count} modules, its input is a table of {len(entries)}")
        yield run.forward(child, entries[index])


@layer("nn.MapTable")
def map_table(run: Run, module: Module, x: Tree) -> Tree:
    """One module on every entry, by copies of it that share its weights (`nn/MapTable.lua`).

    A file has the copies that were needed so far; `shared` false lets their weights differ.
    """
    children, count = module.children(), len(run.entries(module, x))
    if not children:
        raise module.error("modules", "no module", "one")
    clones = run.clones.setdefault(id(module.source), [])
    while len(children) + len(clones) < count:
        clones.append(_cloned(run, children[0]))
    copies = [Module(clone, children[0].path, run.ledger) for clone in clones]
    return [*_each(run, module, [*children, *copies][:count], x)]


def _cloned(run: Run, module: Module) -> TorchObject:
    """Return a copy of a module and of all it holds, but for tensors and storages."""
    root = module.source
    copies: dict[int, TorchObject | LuaTable] = {}
    found = list(walk(root))
    run.spend(module, len(found))
    for one in found:
        if isinstance(one, TorchObject):
            copies[id(one)] = TorchObject(one.class_name, one.version)
        elif isinstance(one, LuaTable):
            copies[id(one)] = LuaTable()
    for one in found:
        copy = copies.get(id(one))
        if isinstance(copy, TorchObject):
            fields = copies[id(one.fields)]
            assert isinstance(fields, LuaTable)
            copy.fields = fields
        elif copy is not None:
            copy.update((copies.get(id(k), k), copies.get(id(v), v)) for k, v in one.items())
    clone = copies[id(root)]
    assert isinstance(clone, TorchObject)
    return clone


@layer("nn.Parallel")
def parallel(run: Run, module: Module, x: Tree) -> Tree:
    """Module i on entry i of `inputDimension`; outputs joined along `outputDimension`."""
    given = run.tensor(module, x)
    dim = module.integer("inputDimension") - 1
    children = module.children()
    if len(given.shape) < 2 or not 0 <= dim < len(given.shape):
        raise module.error("inputDimension", dim + 1, f"1 to {len(given.shape)}, of two or more")
    if len(children) < given.shape[dim]:
        raise module.unsupported(f"{len(children)} modules for {given.shape[dim]} entries")
    parts = [
        run.tensor(module, run.forward(children[index], given.selected(dim, index)))
        for index in range(given.shape[dim])
    ]
    values = [run.read(part) for part in parts]
    at = f"{module.name}.join"
    return joined(run, module, at, values, module.integer("outputDimension") - 1)


@layer("nn.Concat")
def concat(run: Run, module: Module, x: Tree) -> Tree:
    """Outputs of all modules joined along `dimension`, which counts from 1 and includes the batch.

    They are copied once all have run (`nn/Concat.lua`), so what a later one writes in place shows.
    """
    parts = [run.tensor(module, run.forward(child, x)) for child in module.children()]
    values = [run.read(part) for part in parts]
    return joined(run, module, f"{module.name}.join", values, module.integer("dimension") - 1)


@layer("nn.DepthConcat")
def depth_concat(run: Run, module: Module, x: Tree) -> Tree:
    """Outputs of all modules joined along `dimension`, smaller ones centred in zeros.

    An odd margin goes behind: the start is `floor((size - own) / 2) + 1` (`nn/DepthConcat.lua`).
    """
    dim = module.integer("dimension") - 1
    parts = [run.tensor(module, run.forward(child, x)) for child in module.children()]
    if len({len(part.shape) for part in parts}) > 1:
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
    return joined(run, module, f"{module.name}.join", framed, dim)


@layer("nn.Bottle")
def bottle(run: Run, module: Module, x: Tree) -> Tree:
    """The module inside on `nInputDim` dimensions: those in front are made one and come back.

    Both ways are views (`nn/Bottle.lua`), so a module inside that works in place changes the input.
    """
    given = run.tensor(module, x)
    taken = module.integer("nInputDim", 2)
    gives = module.integer("nOutputDim", taken)
    kept = len(given.shape) - taken + 1
    if kept <= 1:
        return run.view(module, run.tensor(module, run.forward(module.only_child(), x)))
    inside = viewed(run, module, given, (-1, *given.shape[kept:]), f"{module.name}.flat")
    output = run.tensor(module, run.forward(module.only_child(), inside))
    if len(output.shape) != gives:
        raise module.unsupported(f"its module gives {len(output.shape)} dimensions, not {gives}")
    front = given.shape[: kept - 1]
    if output.shape[0] % math.prod(front):
        raise module.unsupported(f"{output.shape[0]} entries do not come back to {front}")
    shape = (*front, output.shape[0] // math.prod(front), *output.shape[1:])
    return run.view(module, viewed(run, module, output, shape, f"{module.name}.back"))


@layer("nn.CReLU")
def crelu(run: Run, module: Module, x: Tree) -> Tree:
    """The modules inside on a sample as one vector, then twice as many planes (`nn/CReLU.lua`)."""
    given = run.tensor(module, x)
    shape = given.shape
    is_batch = len(shape) == module.integer("nInputDims") + 1
    flat = (-1, math.prod(shape[1:])) if is_batch else (1, -1)
    inside: Tree = viewed(run, module, given, flat, f"{module.name}.flat")
    for child in module.children():
        inside = run.forward(child, inside)
    output = run.tensor(module, inside)
    doubled = (-1, 2 * shape[1], *shape[2:]) if is_batch else (2 * shape[0], *shape[1:])
    return run.view(module, viewed(run, module, output, doubled, f"{module.name}.back"))
