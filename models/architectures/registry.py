"""Network classes by name, and the structures by which a file is recognised as one of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from models.errors import SpecError
from models.fingerprint import align, fingerprint, head_width
from models.graph import Network
from models.presets import PRESETS
from models.spec import InputSpec
from models.trace import trace


class Architecture(NamedTuple):
    """A class of networks: `create(num_classes=...)` gives one, ready to be trained."""

    name: str
    title: str
    create: Callable[..., nn.Module]
    fingerprint: str
    input: InputSpec


class Recognised(NamedTuple):
    """A network that is a known architecture, under that architecture's tensor names."""

    architecture: Architecture
    network: Network


ARCHITECTURES: dict[str, Architecture] = {}
_BY_FINGERPRINT: dict[str, Architecture] = {}


def architecture(
    name: str, title: str, *, fingerprint: str, preset: str
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a module class; `fingerprint` is that of its traced graph, whatever its classes."""

    def register(module: type[nn.Module]) -> type[nn.Module]:
        if name in ARCHITECTURES or fingerprint in _BY_FINGERPRINT:
            raise ValueError(f"{name}: that name, or that structure, is registered already")
        entry = Architecture(name, title, module, fingerprint, PRESETS[preset])
        ARCHITECTURES[name] = _BY_FINGERPRINT[fingerprint] = entry
        return module

    return register


def create(name: str, *, num_classes: int = 1000) -> nn.Module:
    """Return a new network of that architecture, initialised as its original was.

    Raises:
        SpecError: There is no such architecture; the message lists what there is.
    """
    if name not in ARCHITECTURES:
        raise SpecError(f"no architecture {name}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name].create(num_classes=num_classes)


def recognise(network: Network) -> Recognised | None:
    """Return the architecture that a network is by structure, and the network in its names."""
    entry = _BY_FINGERPRINT.get(fingerprint(network.graph))
    classes = head_width(network.graph)
    if entry is None or classes is None:
        return None
    shapes = [given.shape for given in network.graph.inputs]
    with torch.device("meta"):  # its own weights are not wanted
        module = entry.create(num_classes=classes)
    target = trace(module, shapes).graph
    return Recognised(entry, align(network, target))
