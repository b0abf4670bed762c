"""A module -> the middle form: the inverse of `build`; how architecture classes are compared."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from models.errors import ArtifactError
from models.graph import Array, Graph, Input, Network, Node, Shape, numbered
from models.ops import OP_NAMES, attrs_of, tensor_shapes


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in OP_NAMES


def trace(module: nn.Module, shapes: Sequence[Shape], *, dynamic: bool = True) -> Network:
    """Return the network that a module computes, for inputs of the given shapes.

    The module may call the layers of `models.ops`, add two tensors, multiply by a number,
    concatenate and flatten; what it computes otherwise is refused.

    Raises:
        ArtifactError: The module does something that the middle form has no word for.
    """
    wiring = module.graph if isinstance(module, fx.GraphModule) else _Tracer().trace(module)
    layers = dict(module.named_modules())
    reader = _Reader(layers, numbered("input", len(shapes)))
    for node in wiring.nodes:
        reader.take(node)
    inputs = tuple(
        Input(name, tuple(shape)) for name, shape in zip(reader.inputs, shapes, strict=True)
    )
    graph = Graph(inputs, tuple(reader.nodes), reader.outputs, dynamic, tuple(reader.ties))
    return Network(graph, reader.tensors)


class _Reader:
    """Turns fx nodes into ours, one after the other."""

    def __init__(self, layers: dict[str, nn.Module], inputs: tuple[str, ...]) -> None:
        self.layers = layers
        self.inputs = inputs
        self.nodes: list[Node] = []
        self.outputs: tuple[str, ...] = ()
        self.ties: list[tuple[str, str]] = []
        self.tensors: dict[str, Array] = {}
        self._names: dict[fx.Node, str] = {}
        self._owners: dict[int, str] = {}

    def take(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._names[node] = self.inputs[len(self._names)]
        elif node.op == "output":
            given = node.args[0]
            self.outputs = self._sources(given if isinstance(given, (tuple, list)) else (given,))
        elif node.op == "call_module":
            self._layer(node)
        elif node.op in ("call_function", "call_method") and node.target in _FUNCTIONS:
            op, inputs, attrs = _FUNCTIONS[node.target](*node.args, **node.kwargs)
            self._add(node, node.name, op, inputs, attrs)
        else:
            raise ArtifactError(
                f"{node.name}: {node.op} {node.target} has no word in graphs: write it with the "
                "layers of models/ops.py, +, a constant factor, torch.cat and torch.flatten"
            )

    def _layer(self, node: fx.Node) -> None:
        path = str(node.target)
        layer = self.layers[path]
        calls = sum(1 for name in self._names.values() if name.partition("@")[0] == path)
        name = f"{path}@{calls + 1}" if calls else path  # a layer that is used again
        self._add(node, name, OP_NAMES[type(layer)], node.args, attrs_of(layer))
        state = layer.state_dict(keep_vars=True)
        for tensor in tensor_shapes(layer):
            value = state[tensor]
            owner = self._owners.setdefault(id(value), f"{name}.{tensor}")
            if owner != f"{name}.{tensor}":
                self.ties.append((f"{name}.{tensor}", owner))
            elif not value.is_meta:
                self.tensors[owner] = value.detach().cpu().numpy()

    def _add(
        self, node: fx.Node, name: str, op: str, inputs: Sequence[Any], attrs: dict[str, Any]
    ) -> None:
        self._names[node] = name
        self.nodes.append(Node(name, op, self._sources(inputs), attrs))

    def _sources(self, nodes: Sequence[Any]) -> tuple[str, ...]:
        return tuple(self._names[node] for node in nodes)


Called = tuple[str, Sequence[Any], dict[str, Any]]


def _mul(x: Any, y: Any) -> Called:
    tensor, factor = (x, y) if isinstance(x, fx.Node) else (y, x)
    if isinstance(factor, fx.Node):
        raise ArtifactError(
            f"{tensor.name} * {factor.name}: a product of tensors has no word in graphs"
        )
    return "Scale", (tensor,), {"factor": float(factor)}


_FUNCTIONS: dict[Any, Callable[..., Called]] = {
    operator.add: lambda x, y: ("Add", (x, y), {}),
    torch.cat: lambda tensors, dim=0: ("Concat", tensors, {"dim": dim}),
    torch.flatten: lambda x, start_dim=0, end_dim=-1: (
        "Flatten",
        (x,),
        {"start_dim": start_dim, "end_dim": end_dim},
    ),
    operator.mul: _mul,
}
