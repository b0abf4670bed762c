"""Comparing two networks by structure: names and numbers do not count.

Two graphs have the same fingerprint when the same operators with the same attributes are wired the
same way. What inference cannot see is left out: Dropout and Identity, and BatchNorm's momentum. So
is the width of the last layer, because a network fine-tuned to other classes is still that network.
"""

import hashlib
import json
from typing import Any, NamedTuple

from models.graph import Graph, Network, Node, renamed

_TRANSPARENT = {"Dropout", "Dropout2d", "Identity"}
_UNSEEN = {"momentum"}
_HEADS = {"Linear": ("in_features", "out_features"), "Conv2d": ("in_channels", "out_channels")}


def canonical_order(graph: Graph) -> list[Node]:
    """Return the nodes depth first from the outputs, inputs left to right, each after those."""
    nodes = {node.name: node for node in graph.nodes}
    order: list[Node] = []
    placed = {given.name for given in graph.inputs}
    waiting = [(name, False) for name in reversed(graph.outputs)]
    while waiting:
        name, inputs_placed = waiting.pop()
        if name in placed:
            continue
        if not inputs_placed:
            waiting.append((name, True))
            waiting.extend((source, False) for source in reversed(nodes[name].inputs))
            continue
        placed.add(name)
        order.append(nodes[name])
    return [node for node in order if node.op not in _TRANSPARENT]


class Placed(NamedTuple):
    """A node by what counts of it.

    Attributes:
        node: The node.
        attrs: Its settings that inference sees, sorted.
        inputs: Where in the order its inputs are; the graph's own are -1, -2, ...
    """

    node: Node
    attrs: list[tuple[str, Any]]
    inputs: list[int]


class Structure(NamedTuple):
    """The nodes that count, in canonical order, and the places of the outputs."""

    nodes: list[Placed]
    outputs: list[int]


def structure(graph: Graph) -> Structure:
    """Return what counts of a graph, without what inference cannot see."""
    nodes = {node.name: node for node in graph.nodes}
    head = _head(graph, nodes)

    def source(name: str) -> str:
        while name in nodes and nodes[name].op in _TRANSPARENT:
            (name,) = nodes[name].inputs
        return name

    numbers = {given.name: -1 - index for index, given in enumerate(graph.inputs)}
    placed = []
    for index, node in enumerate(canonical_order(graph)):
        unseen = _UNSEEN | ({_HEADS[node.op][1]} if node is head else set())
        attrs = sorted((key, value) for key, value in node.attrs.items() if key not in unseen)
        placed.append(Placed(node, attrs, [numbers[source(name)] for name in node.inputs]))
        numbers[node.name] = index
    return Structure(placed, [numbers[source(name)] for name in graph.outputs])


def fingerprint(graph: Graph) -> str:
    """Return 64 hexadecimal digits that two graphs share exactly when their structure is equal."""
    placed, outputs = structure(graph)
    lines: list[Any] = [[node.op, attrs, inputs] for node, attrs, inputs in placed]
    lines.append(outputs)
    numbers = {one.node.name: index for index, one in enumerate(placed)}
    read = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    lines.extend("unused input" for given in graph.inputs if given.name not in read)
    unused = (node for node in graph.nodes if node.name not in numbers)
    lines.extend(sorted(node.op for node in unused if node.op not in _TRANSPARENT))
    groups: dict[str, list[str]] = {}  # which of them is the owner depends on the nodes' order
    for name, owner in graph.ties:
        groups.setdefault(owner, [owner]).append(name)
    shared = sorted(sorted(_place(name, numbers) for name in group) for group in groups.values())
    return hashlib.sha256(json.dumps([lines, shared]).encode()).hexdigest()


def _place(tensor: str, numbers: dict[str, int]) -> tuple[int, str]:
    node, _, parameter = tensor.rpartition(".")
    return numbers.get(node, len(numbers)), parameter  # a node that no output needs has none


def _head(graph: Graph, nodes: dict[str, Node]) -> Node | None:
    """Return the last layer with weights, if the output is computed from it alone."""
    if len(graph.outputs) != 1:
        return None
    node = nodes.get(graph.outputs[0])
    while node is not None and node.op not in _HEADS and len(node.inputs) == 1:
        node = nodes.get(node.inputs[0])
    return node if node is not None and node.op in _HEADS else None


class HeadSize(NamedTuple):
    """How many numbers the last layer with weights reads, and how many classes it tells apart."""

    inputs: int
    outputs: int


def head_size(graph: Graph) -> HeadSize | None:
    """Return the size of the last layer with weights, if the output is computed from one alone."""
    head = _head(graph, {node.name: node for node in graph.nodes})
    if head is None:
        return None
    inputs, outputs = _HEADS[head.op]
    return HeadSize(int(head.attrs[inputs]), int(head.attrs[outputs]))


def align(network: Network, target: Graph) -> Network:
    """Return `network` in the names and the node order of `target`, its equal by fingerprint."""
    pairs = list(zip(canonical_order(network.graph), canonical_order(target), strict=True))
    names = {ours.name: theirs.name for ours, theirs in pairs}
    attrs = {
        theirs.name: ours.attrs for ours, theirs in pairs
    }  # momentum and classes are the file's
    nodes = tuple(node._replace(attrs=attrs.get(node.name, node.attrs)) for node in target.nodes)
    inputs = dict(zip((given.name for given in target.inputs), network.graph.inputs, strict=True))
    readers = tuple(
        node._replace(
            inputs=tuple(inputs[name].name if name in inputs else name for name in node.inputs)
        )
        for node in nodes
    )
    graph = Graph(network.graph.inputs, readers, target.outputs, dynamic=network.graph.dynamic)
    return renamed(network, graph, names)
