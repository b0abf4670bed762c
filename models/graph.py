"""The middle form: a network as constructor calls in torch.nn's words, and its tensors."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.errors import ArtifactError

# `build` has fx write the names into Python source that it then runs: nothing else may be in them.
_NAME = re.compile(r"[\w@-]+(\.[\w@-]+)*", re.ASCII)

MAX_ELEMENTS = 1 << 28  # of one tensor, a gigabyte: a file of a few bytes may ask for any size

Shape = tuple[int, ...]
Array = npt.NDArray[Any]


class Input(NamedTuple):
    """An input of a graph, and the shape it was lowered at."""

    name: str
    shape: Shape


class Node(NamedTuple):
    """One tensor: what `op(**attrs)` of `models.ops` gives for the tensors named by `inputs`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: dict[str, Any]


class Inferred(NamedTuple):
    """What an op makes of its attributes and input shapes, found without computing anything."""

    attrs: dict[str, Any]
    tensors: dict[str, Shape]
    shape: Shape


@dataclass(frozen=True)
class Graph:
    """A network without its numbers, in an order in which it can run.

    Attributes:
        inputs: Named `input`, or `input_1`, `input_2`, ...
        nodes: Each refers to inputs and to nodes before it only.
        outputs: Names of nodes.
        dynamic: Whether the first dimension of every input may have any size.
        ties: `(name, owner)` pairs of tensors that are one tensor, such as the weights of a layer
            that is used twice; only the owner is stored.
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    dynamic: bool = False
    ties: tuple[tuple[str, str], ...] = ()

    def node(self, name: str) -> Node | None:
        """Return the node of that name; None for an input's name."""
        return next((node for node in self.nodes if node.name == name), None)

    def output_names(self) -> tuple[str, ...]:
        """Return what the outputs are called in ONNX: `output`, or `output_1`, `output_2`, ..."""
        return numbered("output", len(self.outputs))

    def to_json(self) -> str:
        """Return the graph as JSON text that `from_json` reads back to an equal value."""
        return json.dumps(
            {
                "inputs": self.inputs,
                "nodes": self.nodes,
                "outputs": self.outputs,
                "dynamic": self.dynamic,
                "ties": self.ties,
            }
        )

    @classmethod
    def from_json(cls, text: str, where: str = "graph") -> "Graph":
        """Read a graph; `where` names its file in errors.

        Raises:
            ArtifactError: The text is no graph, or a node refers to what is not before it.
        """
        try:
            fields = json.loads(text)
            graph = cls(
                inputs=tuple(
                    Input(str(name), tuple(int(n) for n in shape))
                    for name, shape in fields["inputs"]
                ),
                nodes=tuple(
                    Node(str(name), str(op), tuple(str(source) for source in inputs), dict(attrs))
                    for name, op, inputs, attrs in fields["nodes"]
                ),
                outputs=tuple(str(name) for name in fields["outputs"]),
                dynamic=bool(fields["dynamic"]),
                ties=tuple((str(name), str(owner)) for name, owner in fields["ties"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ArtifactError(f"{where}: damaged graph: {error}") from error
        graph.check(where)
        return graph

    def check(self, where: str) -> None:
        """Raise ArtifactError unless names are plain and unique, and references point backwards."""
        names = tuple(given.name for given in self.inputs)
        if names != (wanted := numbered("input", len(names))):
            raise ArtifactError(f"{where}: inputs {list(names)}, expected {list(wanted)}")
        known = set(names)
        for node in self.nodes:
            if not _NAME.fullmatch(node.name):
                raise ArtifactError(
                    f"{where}: node {node.name!r}, expected letters, digits, _@- and single dots"
                )
            if missing := [source for source in node.inputs if source not in known]:
                raise ArtifactError(
                    f"{where}: node {node.name} reads {', '.join(missing)}, not yet there"
                )
            if node.name in known:
                raise ArtifactError(f"{where}: node {node.name} is there twice")
            known.add(node.name)
        if not self.outputs or (unknown := [name for name in self.outputs if name not in known]):
            raise ArtifactError(
                f"{where}: outputs {unknown if self.outputs else 'none'}, expected nodes"
            )


class Network(NamedTuple):
    """A graph and its numbers, `{"stem.0.weight": array}`; arrays may be views of a file."""

    graph: Graph
    tensors: dict[str, Array]

    @property
    def parameters(self) -> int:
        """How many learnable numbers there are, shared ones once; running statistics are not."""
        return sum(array.size for name, array in self.tensors.items() if not is_statistic(name))


def is_statistic(tensor: str) -> bool:
    """Tell whether a tensor is a running statistic, which training measures and does not learn."""
    return tensor.rpartition(".")[2] in ("running_mean", "running_var")


def numbered(stem: str, count: int) -> tuple[str, ...]:
    """Return `stem` alone for one, `stem_1`, `stem_2`, ... for several."""
    return (stem,) if count == 1 else tuple(f"{stem}_{index}" for index in range(1, count + 1))


def renamed(network: Network, graph: Graph, names: Mapping[str, str]) -> Network:
    """Return `graph` with the tensors of `network`, whose nodes `names` maps to the graph's."""

    def moved(tensor: str) -> str:
        node, _, parameter = tensor.rpartition(".")
        return f"{names[node]}.{parameter}"

    tensors = {moved(name): array for name, array in network.tensors.items()}
    ties = tuple((moved(name), moved(owner)) for name, owner in network.graph.ties)
    return Network(replace(graph, ties=ties), tensors)


def float32(array: Array) -> Array:
    """Return numbers as float32, without a copy where they are; what is too large is infinite."""
    with np.errstate(over="ignore"):  # verification finds what is not finite
        return array.astype(np.float32, copy=False)
