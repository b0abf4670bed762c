"""What counts when two networks are compared, what does not, and what comes of being equal."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.build import build
from models.fingerprint import align, fingerprint, head_size
from models.graph import Graph, Input, Network, Node
from models.verify import run
from tests.small_networks import CLASSIFIER, SHARED, Layer, batches, chain, filled, graph_of, graphs

LINEAR = {"in_features": 3, "out_features": 3}
BRANCHES = graph_of(
    [(2, 3)],
    Layer("left", "Linear", ("input",), LINEAR),
    Layer("right", "Linear", ("input",), LINEAR),
    Layer("act", "ReLU", ("right",)),
    Layer("join", "Concat", ("left", "act"), {"dim": 1}),
    Layer("head", "Linear", ("join",), {"in_features": 6, "out_features": 5}),
)
BRANCHES_TIED = replace(BRANCHES, ties=(("right.weight", "left.weight"),))


def with_node(graph: Graph, name: str, **changes: Any) -> Graph:
    """Return the graph with one node replaced; `attrs` are added to the node's own."""
    found = graph.node(name)
    assert found is not None
    new = found._replace(**{**changes, "attrs": found.attrs | changes.get("attrs", {})})
    return replace(graph, nodes=tuple(new if node is found else node for node in graph.nodes))


def renamed(graph: Graph, rename: Callable[[str], str]) -> Graph:
    """Return the graph with other names of its nodes."""
    names = {node.name: rename(node.name) for node in graph.nodes}

    def tensor(name: str) -> str:
        node, _, last = name.rpartition(".")
        return f"{names[node]}.{last}"

    return replace(
        graph,
        nodes=tuple(
            Node(
                names[node.name],
                node.op,
                tuple(names.get(one, one) for one in node.inputs),
                node.attrs,
            )
            for node in graph.nodes
        ),
        outputs=tuple(names[name] for name in graph.outputs),
        ties=tuple((tensor(name), tensor(owner)) for name, owner in graph.ties),
    )


def reordered(graph: Graph, pick: Callable[[int], int]) -> Graph:
    """Return the graph with its nodes in another order in which it can run."""
    placed = {one.name for one in graph.inputs}
    waiting, order = list(graph.nodes), []
    while waiting:
        ready = [node for node in waiting if placed.issuperset(node.inputs)]
        node = ready[pick(len(ready))]
        waiting.remove(node)
        placed.add(node.name)
        order.append(node)
    return replace(graph, nodes=tuple(order))


@pytest.mark.parametrize("graph", [CLASSIFIER, SHARED, BRANCHES, BRANCHES_TIED])
def test_names_and_order_do_not_count(graph: Graph) -> None:
    """The same layers wired the same way are the same structure."""
    other = reordered(renamed(graph, lambda name: f"model.{name}_x"), lambda count: count - 1)
    assert other != graph
    assert fingerprint(other) == fingerprint(graph)


@given(graphs(), st.data())
def test_no_order_of_the_nodes_changes_the_fingerprint(graph: Graph, data: st.DataObject) -> None:
    """Every order in which a graph can run has the same fingerprint."""
    other = reordered(graph, lambda count: data.draw(st.integers(0, count - 1)))
    assert fingerprint(other) == fingerprint(graph)


@given(graphs())
def test_no_name_changes_the_fingerprint(graph: Graph) -> None:
    """Names of nodes are for people."""
    assert fingerprint(renamed(graph, lambda name: f"z.{name}")) == fingerprint(graph)


DIFFERENT = {
    "another op": with_node(BRANCHES, "act", op="ReLU6"),
    "another attribute": with_node(BRANCHES, "join", attrs={"dim": 0}),
    "another width that is not the head's": with_node(BRANCHES, "left", attrs={"out_features": 4}),
    "no bias": with_node(BRANCHES, "left", attrs={"bias": False}),
    "another input of the head": with_node(BRANCHES, "head", attrs={"in_features": 7}),
    "another wiring": with_node(BRANCHES, "act", inputs=("left",)),
    "swapped inputs": with_node(BRANCHES, "join", inputs=("act", "left")),
    "another output": replace(BRANCHES, outputs=("join",)),
    "one more output": replace(BRANCHES, outputs=("head", "join")),
    "one more output, first": replace(BRANCHES, outputs=("join", "head")),
    "one tie": BRANCHES_TIED,
    "another tie": replace(BRANCHES, ties=(("right.bias", "left.bias"),)),
    "a layer that no output needs": replace(
        BRANCHES, nodes=(*BRANCHES.nodes, Node("extra", "ReLU", ("input",), {}))
    ),
}


@pytest.mark.parametrize("graph", DIFFERENT.values(), ids=DIFFERENT)
def test_what_changes_the_computation_changes_the_fingerprint(graph: Graph) -> None:
    """Ops, attributes, wiring, outputs and shared weights count."""
    assert fingerprint(graph) != fingerprint(BRANCHES)


def test_all_these_differences_differ_from_each_other() -> None:
    """No two of the changed networks are taken for the same."""
    assert len({fingerprint(graph) for graph in DIFFERENT.values()}) == len(DIFFERENT)


def test_one_layer_twice_is_not_two_layers() -> None:
    """Adding a tensor to itself differs from adding two equal layers with weights of their own."""
    twice = graph_of(
        [(2, 3)],
        Layer("a", "Linear", ("input",), LINEAR),
        Layer("sum", "Add", ("a", "a")),
    )
    two = graph_of(
        [(2, 3)],
        Layer("a", "Linear", ("input",), LINEAR),
        Layer("b", "Linear", ("input",), LINEAR),
        Layer("sum", "Add", ("a", "b")),
    )
    assert fingerprint(twice) != fingerprint(two)


def test_the_owner_of_a_tie_does_not_count() -> None:
    """Which of three equal tensors is stored depends on the order of the nodes alone."""
    layers = ("Linear", LINEAR)
    graph = chain((2, 3), layers, layers, layers)
    first = replace(graph, ties=(("1.weight", "0.weight"), ("2.weight", "0.weight")))
    last = replace(graph, ties=(("0.weight", "2.weight"), ("1.weight", "2.weight")))
    assert fingerprint(first) == fingerprint(last) != fingerprint(graph)


def test_a_tie_with_a_layer_that_no_output_needs_is_no_crash() -> None:
    """Such a file is compared as any other, and equals itself only."""
    tied = replace(DIFFERENT["one more output"], outputs=("left",), ties=BRANCHES_TIED.ties)
    assert fingerprint(tied) == fingerprint(renamed(tied, str.upper))
    assert fingerprint(tied) != fingerprint(replace(tied, ties=()))


@pytest.mark.parametrize("op", ["Dropout", "Dropout2d", "Identity"])
@pytest.mark.parametrize("place", range(4))
def test_what_inference_does_not_see_does_not_count(op: str, place: int) -> None:
    """Layers that pass on what they get count nowhere: at the input, inside, at the output."""
    layers = [("Linear", LINEAR), ("ReLU", {}), ("Linear", LINEAR)]
    silent = (op, {} if op == "Identity" else {"p": 0.3})
    with_it = chain((2, 3, 4, 3), *layers[:place], silent, *layers[place:])
    assert fingerprint(with_it) == fingerprint(chain((2, 3, 4, 3), *layers))


@pytest.mark.parametrize(
    ("name", "attrs"),
    [("1", {"momentum": 0.9}), ("6", {"out_features": 1000})],
    ids=["momentum", "head width"],
)
def test_settings_of_training_do_not_count(name: str, attrs: dict[str, Any]) -> None:
    """A network fine-tuned to other classes, with another momentum, is still that network."""
    assert fingerprint(with_node(CLASSIFIER, name, attrs=attrs)) == fingerprint(CLASSIFIER)


def test_eps_counts() -> None:
    """BatchNorm's eps decides the output."""
    assert fingerprint(with_node(CLASSIFIER, "1", attrs={"eps": 1e-3})) != fingerprint(CLASSIFIER)


@pytest.mark.parametrize(
    ("graph", "size"),
    [
        (CLASSIFIER, (72, 6)),
        (chain((2, 3), ("Linear", LINEAR), ("LogSoftmax", {"dim": 1})), (3, 3)),
        (
            chain(
                (1, 2, 4, 4), ("Conv2d", {"in_channels": 2, "out_channels": 7, "kernel_size": 1})
            ),
            (2, 7),
        ),
        (chain((2, 3), ("ReLU", {})), None),
        (SHARED, None),
        (replace(BRANCHES, outputs=("head", "join")), None),
    ],
    ids=["linear", "before softmax", "convolution", "no weights", "a sum", "two outputs"],
)
def test_the_head_is_the_last_layer_with_weights(
    graph: Graph, size: tuple[int, int] | None
) -> None:
    """It gives as many numbers as there are classes, if the only output comes from it alone."""
    assert head_size(graph) == size


def outputs(network: Network) -> list[np.ndarray]:
    return run(build(network), batches([one.shape for one in network.graph.inputs]))


@pytest.mark.parametrize("graph", [CLASSIFIER, SHARED, BRANCHES, BRANCHES_TIED])
def test_align_renames_and_computes_the_same(graph: Graph) -> None:
    """The network under the class's names has the same numbers and bit-equal outputs."""
    network = filled(graph)
    target = reordered(renamed(graph, lambda name: f"model.{name}_x"), lambda count: count - 1)
    aligned = align(network, target)
    assert aligned.graph == replace(target, ties=aligned.graph.ties)
    assert set(aligned.graph.ties) == set(target.ties)
    assert aligned.tensors.keys() == filled(target).tensors.keys()
    for ours, theirs in zip(outputs(aligned), outputs(network), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_align_keeps_what_the_file_says() -> None:
    """Momentum, classes, input shape and the free batch size stay the file's; dropout may go."""
    network = filled(with_node(CLASSIFIER, "1", attrs={"momentum": 0.7}))
    layers = [(node.op, node.attrs) for node in CLASSIFIER.nodes if node.op != "Dropout"]
    target = chain((1, 3, 8, 8), *layers)
    aligned = align(network, with_node(target, "5", attrs={"out_features": 9}))
    assert aligned.graph.inputs == CLASSIFIER.inputs
    assert aligned.graph.dynamic
    norm, head = aligned.graph.node("1"), aligned.graph.node("5")
    assert norm is not None
    assert head is not None
    assert norm.attrs["momentum"] == 0.7
    assert head.attrs["out_features"] == 6
    np.testing.assert_array_equal(outputs(aligned)[0], outputs(network)[0])


def test_an_input_that_nobody_reads_counts() -> None:
    """A network with one more input is another network."""
    nodes = (Node("0", "ReLU", ("input_1",), {}),)
    one = Graph((Input("input_1", (2, 3)),), nodes, ("0",))
    two = Graph((Input("input_1", (2, 3)), Input("input_2", (2, 3))), nodes, ("0",))
    assert fingerprint(one) != fingerprint(two)


def test_the_order_of_inputs_counts() -> None:
    """Two inputs joined the other way round are another network."""
    joined, swapped = (
        graph_of([(2, 3), (2, 3)], Layer("join", "Concat", order, {"dim": 1}))
        for order in (("input_1", "input_2"), ("input_2", "input_1"))
    )
    assert fingerprint(joined) != fingerprint(swapped)
