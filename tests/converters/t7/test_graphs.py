"""nngraph's networks give what their definitions say."""

from typing import Any

import pytest

from tests.t7_writer import Module, Table
from tests.torch7 import box, check, check_refused, nn

SHAPE = (2, 3)


class Node:
    """A node while a graph is put together: what it runs, and what feeds it."""

    def __init__(self, module: Module | None, *parents: "Node", **data: Any) -> None:
        self.parents = parents
        places: dict[Any, Any] = {}
        known = {"module": module, **data}
        self.data = Table({name: value for name, value in known.items() if value is not None})
        for place, parent in enumerate(parents, 1):
            places[parent.data] = place
        self.data.items = {**self.data.items, "mapindex": places}
        self.written = Module("nngraph.Node", data=self.data, children=[])
        for parent in parents:
            parent.written.fields["children"].append(self.written)


def graph(*nodes: Node, outputs: int = 1, **fields: Any) -> Module:
    """Return the module of nodes in the order in which they run, the input first, the end last."""
    start, end = nodes[0], nodes[-1]
    last = Module("nngraph.Node", data=end.data, children=[])
    last.fields["children"] = [node.written for node in end.parents][:outputs]
    modules = [node.data.items["module"] for node in nodes if "module" in node.data.items]
    found = {
        "modules": modules,
        "innode": start.written,
        "outnode": last,
        "forwardnodes": [node.written for node in nodes],
        "nInputs": 1,
    }
    return Module("nn.gModule", **{**found, **fields})


def times(factor: float, *, inplace: bool = False) -> Module:
    return nn("MulConstant", constant_scalar=factor, inplace=inplace)


def residual(**fields: Any) -> Module:
    start = Node(None)
    first = Node(times(2), start)
    second = Node(times(3, inplace=True), start)
    both = Node(nn("CSubTable"), second, first)
    return graph(start, first, second, both, Node(None, both), **fields)


def test_in_place_nodes_show_in_the_order_of_the_file() -> None:
    """A node sees what those that ran before it made of a tensor."""
    check(residual(), [SHAPE])


def test_the_number_of_inputs_may_be_missing() -> None:
    """Old graphs do not say it: then the children of the input node are counted."""
    start = Node(None)
    network = graph(start, first := Node(times(2), start), Node(None, first))
    del network.fields["nInputs"]
    check(network, [SHAPE])


def test_a_node_splits_a_table() -> None:
    """A node without a module hands on its input, one with a selectindex an entry of it."""
    start = Node(None)
    pair = Node(box("ConcatTable", times(2), times(3)), start, nSplitOutputs=2)
    one, other = (Node(None, pair, selectindex=index) for index in (1, 2))
    less = Node(nn("CSubTable"), other, one)
    check(graph(start, pair, one, other, less, Node(None, less)), [SHAPE])


def test_several_inputs_and_outputs() -> None:
    """Several inputs are a table, which nodes split; several outputs are a table."""
    start = Node(None)
    one, other = (Node(None, start, selectindex=index) for index in (1, 2))
    both = Node(nn("CAddTable"), one, other)
    end = Node(None, both, one)
    check(graph(start, one, other, both, end, outputs=2, nInputs=2), [SHAPE, SHAPE])


def test_tables_of_one() -> None:
    """Nngraph's own modules wrap an element in a table, and take it out."""
    wrapped = box("Sequential", Module("nngraph.JustTable"), Module("nngraph.JustElement"))
    check(wrapped, [SHAPE])
    check(box("Sequential", Module("nngraph.JustTable"), nn("CAddTable")), [SHAPE])
    check_refused(
        Module("nngraph.JustElement"), [SHAPE, SHAPE], "takes a table of one, its input is one of 2"
    )


def test_a_table_of_one_is_filled_anew() -> None:
    """Who kept such a table sees its next entry."""
    just = Module("nngraph.JustTable")
    both = box("ConcatTable", just, box("Sequential", times(5), just))
    check(box("Sequential", both, nn("FlattenTable")), [SHAPE])


def bare(**data: Any) -> Module:
    """Return a graph of one node between input and end, whose data is changed."""
    start = Node(None)
    middle = Node(times(2), start)
    network = graph(start, middle, Node(None, middle))
    middle.data.items = {**middle.data.items, **data}
    return network


def cut() -> Module:
    """Return a graph whose second node lacks its first input."""
    start = Node(None)
    lost = Node(times(2))
    return graph(start, both := Node(nn("CAddTable"), lost, start), Node(None, both))


OTHER = Module("nngraph.Node", data=Table({}), children=[])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (residual(nInputs=2), "its input is not a table of tensors"),
        (residual(innode=None), "found innode = nil, expected an nngraph.Node"),
        (residual(outnode=3), "found outnode = 3.0, expected an nngraph.Node"),
        (residual(forwardnodes=None), "found forwardnodes = nil, expected a table of nodes"),
        (residual(forwardnodes=[3]), "found forwardnodes = 3.0, expected a table of nodes"),
        (residual(forwardnodes=[OTHER]), r"a node has the inputs \[\], not 1, 2, \.\.\."),
        (
            residual(innode=Module("nngraph.Node", children=[])),
            "found data of a node = nil, expected a table",
        ),
        (
            residual(innode=Module("nngraph.Node", data={})),
            "children of a node = nil, expected a",
        ),
        (
            residual(innode=Module("nngraph.Node", data={}, children=[1])),
            r"children of a node = \[1.0\], expected nodes",
        ),
        (residual(modules=[times(2)]), "found modules = .*, expected every module of the nodes"),
        (
            bare(mapindex={}),
            "found mapindex of a node = a table, expected the place of every parent",
        ),
        (bare(nSplitOutputs=2), "a node is split in other parts than it gives"),
        (bare(selectindex=1), "its input is not a table of tensors"),
        (cut(), r"a node has the inputs \[2\], not 1, 2, \.\.\."),
    ],
)
def test_damaged_graphs_are_refused(module: Module, message: str) -> None:
    """Nodes that do not hang together."""
    check_refused(module, [SHAPE], message)


def test_an_entry_that_is_not_there_is_refused() -> None:
    """A split takes entries of the table that it gets."""
    start = Node(None)
    third = Node(None, start, selectindex=3)
    network = graph(start, third, Node(None, third), nInputs=2)
    check_refused(network, [SHAPE, SHAPE], "a split takes entry 3 of 2")


def test_other_inputs_than_the_graph_takes_are_refused() -> None:
    """A table has as many entries as the graph has inputs."""
    start = Node(None)
    network = graph(start, first := Node(nn("CAddTable"), start), Node(None, first), nInputs=3)
    check_refused(network, [SHAPE, SHAPE], "takes 3 inputs, its input is a table of 2")
