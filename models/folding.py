"""BatchNorm folded into the layer before it, as programs for inference do to a network."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from models.graph import Array, Graph, Network, Node, float32

_TAKERS = {"BatchNorm1d": "Linear", "BatchNorm2d": "Conv2d"}


def folded(network: Network) -> Network:
    """Return the network with each BatchNorm in the weights of the layer that it alone follows.

    An Identity takes its place, so that wiring and names stay. Computed in float64, rounded once.
    """
    tensors = dict(network.tensors)
    for layer, norm in _foldable(network.graph):
        _fold(layer, norm, tensors)
    return Network(folded_graph(network.graph), tensors)


def folded_graph(graph: Graph) -> Graph:
    """Return what `folded` makes of the graph."""
    nodes = {node.name: node for node in graph.nodes}
    for layer, norm in _foldable(graph):
        nodes[layer.name] = layer._replace(attrs=layer.attrs | {"bias": True})
        nodes[norm.name] = Node(norm.name, "Identity", norm.inputs, {})
    return replace(graph, nodes=tuple(nodes.values()))


def _foldable(graph: Graph) -> list[tuple[Node, Node]]:
    """Return the layers that a BatchNorm alone reads, with it, unless either is shared."""
    nodes = {node.name: node for node in graph.nodes}
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(graph.outputs)
    shared = {name.rpartition(".")[0] for pair in graph.ties for name in pair}
    norms = [node for node in graph.nodes if node.op in _TAKERS and node.inputs[0] in nodes]
    pairs = [(nodes[norm.inputs[0]], norm) for norm in norms]
    return [
        (layer, norm)
        for layer, norm in pairs
        if layer.op == _TAKERS[norm.op]
        and readers[layer.name] == 1
        and shared.isdisjoint((layer.name, norm.name))
    ]


def _fold(layer: Node, norm: Node, tensors: dict[str, Array]) -> None:
    """Put what a BatchNorm does into the weight and the bias of the layer before it."""

    def taken(node: Node, tensor: str, without: float) -> Any:
        array = tensors.pop(f"{node.name}.{tensor}", None)
        return without if array is None else array.astype(np.float64)

    variance, mean = taken(norm, "running_var", 1), taken(norm, "running_mean", 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a broken variance stays one
        factor = taken(norm, "weight", 1) / np.sqrt(variance + norm.attrs["eps"])
        weight = taken(layer, "weight", 1)
        bias = taken(norm, "bias", 0) + (taken(layer, "bias", 0) - mean) * factor
        by_output = factor.reshape(-1, *[1] * (weight.ndim - 1))
        tensors[f"{layer.name}.weight"] = float32(weight * by_output)
        tensors[f"{layer.name}.bias"] = float32(bias)
