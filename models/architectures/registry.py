"""Network classes by name, and how a file is recognised as one of them.

A name stands for one structure at any width and with any number of classes. Recognition costs one
look at the graph (how many sums it has, what its last layer reads and gives) and then one trace
without numbers for each class that could have given it; only an equal fingerprint counts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from models.errors import ArtifactError, SpecError
from models.fingerprint import align, fingerprint, head_size
from models.graph import Graph, Network, Shape
from models.presets import PRESETS
from models.spec import InputSpec
from models.trace import trace

Arguments = dict[str, Any]

SHRUNK = 32  # times at most, from image to last pooling: sizes further apart leave other maps


class Facts(NamedTuple):
    """What `docs/models.md` says of an architecture besides what can be computed.

    Attributes:
        source: Repository and file that the class was written from.
        published: Error in percent that the original's authors report, first guess / first five.
        verified: What the tests hold the class to.
    """

    source: str
    published: str | None
    verified: str


class Architecture(NamedTuple):
    """A class of networks: `create(num_classes=..., width_divisor=...)` gives one to be trained.

    Attributes:
        name: What users type.
        title: What it is, in a line.
        create: The class, with what the name says of depth and kind filled in.
        size: Height and width of the images that it is made for.
        residuals: How many sums of two tensors its graph has.
        features: How many numbers its classifier reads at full width.
        preset: How images enter, where the structure tells; the name of a preset.
        facts: For the page of models.
        arguments: What `create` needs to give this graph, where widths are not all divided alike.
    """

    name: str
    title: str
    create: Callable[..., nn.Module]
    size: int
    residuals: int
    features: int
    preset: str | None
    facts: Facts
    arguments: Callable[[Graph], Arguments | None] | None = None

    @property
    def input(self) -> InputSpec | None:
        """How images enter, if the structure tells."""
        return PRESETS[self.preset] if self.preset else None


class Recognised(NamedTuple):
    """A network that is a known architecture, under that architecture's tensor names.

    `architecture.create(**arguments)` is a module that its tensors load into.
    """

    architecture: Architecture
    network: Network
    arguments: Arguments


ARCHITECTURES: dict[str, Architecture] = {}  # those that were published, in the order of the docs
ALIASES: dict[str, str] = {}  # other names under which a structure was published
_ALL: dict[str, Architecture] = {}  # and every other depth and kind that the same rule allows
_BY_RESIDUALS: dict[int, list[Architecture]] = {}


def register(entry: Architecture, *, listed: bool = True) -> None:
    """Make an architecture known; one that is not listed is found by name and recognised only."""
    if entry.name in _ALL or entry.name in ALIASES:
        raise ValueError(f"{entry.name}: that name is registered already")
    _ALL[entry.name] = entry
    _BY_RESIDUALS.setdefault(entry.residuals, []).append(entry)
    if listed:
        ARCHITECTURES[entry.name] = entry


def alias(name: str, meant: str) -> None:
    """Register a second name of a structure."""
    if name in _ALL or name in ALIASES:
        raise ValueError(f"{name}: that name is registered already")
    ALIASES[name] = _ALL[meant].name


def find(name: str) -> Architecture:
    """Return the architecture of that name.

    Raises:
        SpecError: There is none; the message lists what there is.
    """
    entry = _ALL.get(ALIASES.get(name, name))
    if entry is None:
        raise SpecError(
            f"no architecture {name}; there are {', '.join([*ARCHITECTURES, *ALIASES])}, "
            "and other depths of these families"
        )
    return entry


def create(name: str, *, num_classes: int = 1000, width_divisor: int = 1, **more: Any) -> nn.Module:
    """Return a new network of that architecture, initialised as its original was.

    What else a class takes, such as `aux_logits` of Inception-v3, is handed on to it.

    Raises:
        SpecError: There is no such architecture; the message lists what there is.
    """
    return find(name).create(num_classes=num_classes, width_divisor=width_divisor, **more)


def traced(entry: Architecture, arguments: Arguments, *inputs: Shape) -> Graph:
    """Return the graph that a class computes in evaluation mode, without giving it numbers."""
    with torch.device("meta"):
        module = entry.create(**arguments).eval()
    return trace(module, inputs).graph


def recognise(network: Network) -> Recognised | None:
    """Return the architecture that a network is by structure, and the network in its names."""
    graph = network.graph
    shapes = [given.shape for given in graph.inputs]
    sums = sum(node.op == "Add" for node in graph.nodes)
    candidates = [
        (entry, arguments)
        for entry in _BY_RESIDUALS.get(sums, ())
        if _fits(entry, shapes) and (arguments := _proposed(entry, graph)) is not None
    ]
    wanted = fingerprint(graph) if candidates else None
    for entry, arguments in candidates:
        try:
            target = traced(entry, arguments, *shapes)
        except (ArtifactError, ValueError):  # not made for so few channels, or for these inputs
            continue
        if fingerprint(target) == wanted:
            return Recognised(entry, align(network, target), arguments)
    return None


def _fits(entry: Architecture, shapes: Sequence[Shape]) -> bool:
    """Tell whether these are images of about the size that an architecture is made for."""
    return len(shapes) == 1 and all(abs(size - entry.size) < SHRUNK for size in shapes[0][2:])


def _proposed(entry: Architecture, graph: Graph) -> Arguments | None:
    """Return the arguments with which this class might give such a graph, or None."""
    if entry.arguments is not None:
        return entry.arguments(graph)
    head = head_size(graph)
    if head is None or entry.features % head.inputs:
        return None
    return {"num_classes": head.outputs, "width_divisor": entry.features // head.inputs}
