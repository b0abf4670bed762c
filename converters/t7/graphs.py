"""Rules of nngraph: a network stored as a graph of nodes."""

from collections.abc import Iterator

from converters.t7.memory import Handle
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer
from converters.t7.objects import LuaTable, TorchObject


@layer("nngraph.JustElement")
def just_element(run: Run, module: Module, x: Tree) -> Tree:
    """The only entry of a table (`nngraph/JustElement.lua`)."""
    entries = run.entries(module, x)
    if len(entries) != 1:
        raise module.unsupported(f"takes a table of one, its input is one of {len(entries)}")
    return entries[0]


@layer("nngraph.JustTable")
def just_table(run: Run, module: Module, x: Tree) -> Tree:
    """A table of one entry (`nngraph/JustTable.lua`)."""
    return run.table_of(module, [x])


@layer("nn.gModule")
def gmodule(run: Run, module: Module, x: Tree) -> Tree:
    """All nodes in stored order; each gives its output to its children.

    A child knows a parent's place among its inputs by `mapindex`, whose keys are the `data` tables
    of the parents. One input is handed over as it is, several as a table. A node without a module
    is a split if it has a `selectindex`, else it passes its input on. The last node holds the
    network's outputs (`nngraph/gmodule.lua`, `runForwardFunction`).
    """
    inputs: dict[int, dict[int, Tree]] = {}
    start, end = _node(module, "innode"), _node(module, "outnode")
    count = module.integer("nInputs", len(_children(module, start)))
    given = [x] if count <= 1 else run.entries(module, x)
    if len(given) != max(count, 1):
        raise module.unsupported(f"takes {count} inputs, its input is a table of {len(given)}")
    inputs[id(_data(module, start))] = dict(enumerate(given, 1))
    children = {id(child.source): child for child in module.children()}
    for node in _nodes(module):
        data = _data(module, node)
        output = _evaluated(run, module, data, inputs.get(id(data), {}), children)
        edges = _children(module, node)
        run.spend(module, len(edges))
        for child in edges:
            inputs.setdefault(id(_data(module, child)), {})[_place(module, child, data)] = output
    outputs = _gathered(module, inputs.get(id(_data(module, end)), {}))
    if len(_children(module, end)) == 1:
        return outputs[0]
    return run.table_of(module, outputs)


def _evaluated(
    run: Run,
    module: Module,
    data: LuaTable,
    inputs: dict[int, Tree],
    children: dict[int, Module],
) -> Tree:
    """Return what one node gives."""
    entries = _gathered(module, inputs)
    given = entries[0] if len(entries) == 1 else entries
    select, source = data.get("selectindex"), data.get("module")
    if isinstance(select, float):
        table = run.entries(module, given)
        if not 1 <= select <= len(table):
            raise module.unsupported(f"a split takes entry {select:g} of {len(table)}")
        return table[int(select) - 1]
    if source is None:
        return given
    if id(source) not in children:
        raise module.error("modules", source, "every module of the nodes")
    output = run.forward(children[id(source)], given)
    splits = data.get("nSplitOutputs")
    if splits is not None and (isinstance(output, Handle) or len(output) != splits):
        raise module.unsupported("a node is split in other parts than it gives")
    return output


def _gathered(module: Module, inputs: dict[int, Tree]) -> list[Tree]:
    """Return a node's inputs in order."""
    if not inputs or sorted(inputs) != list(range(1, len(inputs) + 1)):
        raise module.unsupported(f"a node has the inputs {sorted(inputs)}, not 1, 2, ...")
    return [inputs[place] for place in sorted(inputs)]


def _node(module: Module, field: str) -> TorchObject:
    node = module.source.fields.get(field)
    if not isinstance(node, TorchObject):
        raise module.error(field, node, "an nngraph.Node")
    return node


def _nodes(module: Module) -> Iterator[TorchObject]:
    listed = module.source.fields.get("forwardnodes")
    if not isinstance(listed, LuaTable):
        raise module.error("forwardnodes", listed, "a table of nodes")
    for node in listed.array():
        if not isinstance(node, TorchObject):
            raise module.error("forwardnodes", node, "a table of nodes")
        yield node


def _data(module: Module, node: TorchObject) -> LuaTable:
    return _table(module, node, "data")


def _children(module: Module, node: TorchObject) -> list[TorchObject]:
    found = _table(module, node, "children").array()
    if not all(isinstance(child, TorchObject) for child in found):
        raise module.error("children of a node", found, "nodes")
    return found


def _place(module: Module, child: TorchObject, data: LuaTable) -> int:
    places = _data(module, child).get("mapindex")
    place = places.get(data) if isinstance(places, LuaTable) else None
    if not isinstance(place, float) or not place.is_integer():
        raise module.error("mapindex of a node", places, "the place of every parent")
    return int(place)


def _table(module: Module, node: TorchObject, field: str) -> LuaTable:
    found = node.fields.get(field)
    if not isinstance(found, LuaTable):
        raise module.error(f"{field} of a node", found, "a table")
    return found
