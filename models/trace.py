"""A module -> the middle form: the inverse of `build`; how architecture classes are compared."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from models.errors import ArtifactError, MisfitError
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
    wiring = module.graph if isinstance(module, fx.GraphModule) else _wiring(module)
    given = [node for node in wiring.nodes if node.op == "placeholder"]
    names = numbered("input", len(given))
    inputs = tuple(Input(name, tuple(shape)) for name, shape in zip(names, shapes, strict=True))
    reader = _Reader(dict(module.named_modules()), dict(zip(given, names, strict=True)))
    for node in wiring.nodes:
        if node.op != "placeholder":
            reader.take(node)
    graph = Graph(inputs, tuple(reader.nodes), reader.outputs, dynamic, tuple(reader.ties))
    return Network(graph, reader.tensors)


def _wiring(module: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(module)
    except fx.proxy.TraceError as error:  # `if` or a loop over what a tensor holds
        raise ArtifactError(f"{type(module).__name__}: {error}") from error


class _Reader:
    """Turns fx nodes into ours, one after the other."""

    def __init__(self, layers: dict[str, nn.Module], inputs: dict[fx.Node, str]) -> None:
        self.layers = layers
        self.nodes: list[Node] = []
        self.outputs: tuple[str, ...] = ()
        self.ties: list[tuple[str, str]] = []
        self.tensors: dict[str, Array] = {}
        self._names = inputs
        self._owners: dict[int, str] = {}

    def take(self, node: fx.Node) -> None:
        layer = self.layers.get(str(node.target))
        if node.op == "output":
            given = node.args[0]
            outputs = given if isinstance(given, (tuple, list)) else (given,)
            self.outputs = self._sources("output", outputs)
        elif node.op == "call_module" and type(layer) in OP_NAMES and not node.kwargs:
            self._layer(node, str(node.target))
        elif node.op == "call_function" and node.target in _FUNCTIONS:
            self._add(node, node.name, *_called(node))
        else:
            raise ArtifactError(
                f"{node.name}: {node.op} {node.target} has no word in graphs: write it with the "
                "layers of models/ops.py, +, a constant factor, torch.cat and torch.flatten"
            )

    def _layer(self, node: fx.Node, path: str) -> None:
        layer = self.layers[path]
        calls = sum(1 for name in self._names.values() if name.partition("@")[0] == path)
        name = f"{path}@{calls + 1}" if calls else path  # a layer that is used again
        try:
            attrs = attrs_of(layer)
        except MisfitError as error:
            raise ArtifactError(f"{path}: {error}") from error
        self._add(node, name, OP_NAMES[type(layer)], node.args, attrs)
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
        self.nodes.append(Node(name, op, self._sources(name, inputs), attrs))

    def _sources(self, reader: str, values: Sequence[Any]) -> tuple[str, ...]:
        if strange := [value for value in values if not isinstance(value, fx.Node)]:
            raise ArtifactError(f"{reader}: takes {strange[0]!r}, expected tensors")
        return tuple(self._names[value] for value in values)


Called = tuple[str, Sequence[Any], dict[str, Any]]


def _mul(x: Any, y: Any) -> Called:
    tensor, factor = (x, y) if isinstance(x, fx.Node) else (y, x)
    if isinstance(factor, fx.Node):
        raise ArtifactError(
            f"{tensor.name} * {factor.name}: a product of tensors has no word in graphs"
        )
    return "Scale", (tensor,), {"factor": float(factor)}


def _called(node: fx.Node) -> Called:
    try:
        return _FUNCTIONS[node.target](*node.args, **node.kwargs)
    except (TypeError, ValueError) as error:  # another spelling, such as `axis` for `dim`
        raise ArtifactError(
            f"{node.name}: {node.args} {dict(node.kwargs)}: arguments that have no word in graphs"
        ) from error


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
