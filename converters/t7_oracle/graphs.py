"""nngraph: modules on the nodes of a graph.

Source: torch/nngraph JustElement.lua, JustTable.lua; gmodule.lua, `runForwardFunction`. The nodes
of the forward graph and those of the backward one share their `data` tables; `mapindex` says which
input of a node another one feeds.
"""

from typing import Any

from converters.t7.objects import LuaTable, TorchObject
from converters.t7_oracle.interpreter import Layer, on_any, on_table
from converters.t7_oracle.tensor import Value


@on_table("nngraph.JustElement")
def just_element(layer: Layer, x: list[Value]) -> Value:
    """The only entry of a table."""
    if len(x) != 1:
        raise layer.refused(f"takes a table of one, its input is one of {len(x)}")
    return x[0]


@on_any("nngraph.JustTable")
def just_table(layer: Layer, x: Value) -> Value:
    """A table of one entry, the same table in every call."""
    layer.table[:] = [x]
    return layer.table


@on_any("nn.gModule")
def gmodule(layer: Layer, x: Value) -> Value:
    """Evaluate the nodes in the stored order; the last one's inputs are the result."""
    nodes = layer.entry("forwardnodes").array()
    innode, outnode = _Node(layer, layer.get("innode")), _Node(layer, layer.get("outnode"))
    wanted = layer.whole("nInputs", len(innode.children()))
    given = [x] if wanted <= 1 else layer.entries(x)
    if len(given) != wanted:
        raise layer.refused(f"{wanted} inputs, and a table of {len(given)}")
    for node in nodes:
        _Node(layer, node).input.clear()
    innode.input[:] = given
    for node in nodes:
        _evaluate(layer, _Node(layer, node))
    return outnode.input[0] if len(outnode.children()) == 1 else outnode.input


class _Node:
    """A node: its data, and the inputs that reached it, one list for the life of the module."""

    def __init__(self, layer: Layer, node: Any) -> None:
        if not isinstance(node, TorchObject) or not isinstance(node.fields.get("data"), LuaTable):
            raise layer.wrong("forwardnodes", "nodes with data")
        self.layer = layer
        self.node = node
        self.data: LuaTable = node.fields["data"]
        self.input: list[Value] = layer.state.kept.setdefault(f"input {id(self.data)}", [])

    def children(self) -> list[Any]:
        children = self.node.fields.get("children")
        if not isinstance(children, LuaTable):
            raise self.layer.wrong("forwardnodes", "nodes with children")
        return children.array()

    def propagate(self, value: Value) -> None:
        """Hand the value to the nodes that take it, each at the place kept for this one."""
        for child in (_Node(self.layer, one) for one in self.children()):
            places = child.data.get("mapindex")
            place = places.get(self.data) if isinstance(places, LuaTable) else None
            if type(place) is not float or not place.is_integer() or not 0 < place <= 1000:
                raise self.layer.wrong("forwardnodes", "nodes that say where an input goes")
            missing: Any = None  # filled before its node's turn, see _evaluate
            child.input.extend([missing] * (int(place) - len(child.input)))
            if child.input[int(place) - 1] is not None:
                raise self.layer.refused("two nodes feed one input")
            child.input[int(place) - 1] = value


def _evaluate(layer: Layer, node: _Node) -> None:
    if not all(value is not None for value in node.input):
        raise layer.refused("a node comes before one that feeds it")
    module = node.data.get("module")
    selected = node.data.get("selectindex")
    x: Value = node.input[0] if len(node.input) == 1 else node.input
    if selected is not None:
        entries = layer.entries(x)
        if type(selected) is not float:
            raise layer.wrong("forwardnodes", "nodes that select a number")
        if selected not in range(1, len(entries) + 1):
            raise layer.refused(f"selects entry {selected:g} of a table of {len(entries)}")
        node.propagate(entries[int(selected) - 1])
    elif module is None:  # a node without a module hands on what it gets
        node.propagate(x)
    else:
        index = next((at for at, one in enumerate(layer.modules()) if one is module), -1)
        node.propagate(layer.child(index, x))
