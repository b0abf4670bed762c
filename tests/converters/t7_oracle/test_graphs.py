"""How the oracle evaluates the graphs of nngraph."""

from pathlib import Path
from typing import Any

import pytest

from models.errors import FormatError, UnsupportedLayer
from tests.converters.t7_oracle.modules import X, ran, times
from tests.t7_writer import Module

PAIR = (X, 2 * X)


class Data(dict[str, Any]):
    """The data table of a graph node, which keys of other tables are."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # identity, as Lua has it

    def __eq__(self, other: object) -> bool:
        return self is other


def graph(
    contents: list[dict[str, Any]], edges: list[tuple[int, int, float]], **fields: Any
) -> Module:
    """Return a gModule: what its nodes hold, in order; edges are source, target, place there."""
    nodes = [Module("nngraph.Node", data=Data(content), children=[]) for content in contents]
    for source, target, place in edges:
        nodes[source].fields["children"].append(nodes[target])
        places = nodes[target].fields["data"].setdefault("mapindex", {})
        places[nodes[source].fields["data"]] = place
    sources = [nodes[source] for source, target, _ in edges if target == len(nodes) - 1]
    outnode = Module("nngraph.Node", data=nodes[-1].fields["data"], children=sources)
    modules = [content["module"] for content in contents if "module" in content]
    given = {"modules": modules, "forwardnodes": nodes, "innode": nodes[0], "outnode": outnode}
    return Module("nn.gModule", **{**given, "nInputs": 1, **fields})


def test_a_graph_reports_modules_by_their_index(tmp_path: Path) -> None:
    """Calls of a graph go by the index in `modules`; operands by `mapindex`, not by order."""
    contents = [{}, *({"module": one} for one in (times(3), times(2), Module("nn.CSubTable"))), {}]
    module = graph(contents, [(0, 1, 1), (0, 2, 1), (1, 3, 2), (2, 3, 1), (3, 4, 1)])
    calls = ran(tmp_path, module)
    assert [call.path for call in calls] == ["0", "1", "2", ""]
    assert calls[-1].outputs[0].tolist() == (-X).tolist()


CHAIN: list[tuple[int, int, float]] = [(0, 1, 1), (1, 2, 1)]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (graph([{}, {}, {}], CHAIN, nInputs=3), "3 inputs, and a table of 2"),
        (graph([{}, {}, {}], [(0, 1, 2), (1, 2, 1)]), "a node comes before one that feeds it"),
        (graph([{}, {}, {}], [*CHAIN, (0, 2, 1)]), "two nodes feed one input"),
        (graph([{}, {"selectindex": 3}, {}], CHAIN), "selects entry 3 of a table of 2"),
        (graph([{}, {"module": times(1)}, {}], CHAIN, modules=[]), "its module 0 does not exist"),
    ],
    ids=["inputs", "order", "sources", "selectindex", "modules"],
)
def test_a_graph_without_sense_is_refused(tmp_path: Path, module: Module, message: str) -> None:
    """Graphs that nngraph could not evaluate are refused."""
    with pytest.raises(UnsupportedLayer, match=message):
        ran(tmp_path, module, *PAIR)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (graph([{}, {}, {}], CHAIN, innode=1), "expected nodes with data"),
        (graph([{}, {}, {}], [(0, 1, 0.5), (1, 2, 1)]), "nodes that say where an input goes"),
        (graph([{}, {"selectindex": "x"}, {}], CHAIN), "nodes that select a number"),
        (graph([{}, {}, {}], CHAIN, innode=Module("nngraph.Node", data={})), "with children"),
    ],
    ids=["innode", "place", "selectindex", "children"],
)
def test_a_broken_graph_is_named(tmp_path: Path, module: Module, message: str) -> None:
    """Nodes without what nngraph stores in them are named."""
    with pytest.raises(FormatError, match=message):
        ran(tmp_path, module, *PAIR)
