"""What the networks of Gluon's model zoo have in common: names, arrangement, first values.

Source: apache/mxnet python/mxnet/gluon/block.py, contrib/nn/basic_layers.py, initializer.py,
example/gluon/image_classification.py.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.architectures.registry import Arguments, Facts
from models.graph import Graph

SHRUNK = 32  # times, from image to the last maps

_KINDS = {nn.Conv2d: "conv", nn.Linear: "dense", nn.BatchNorm2d: "batchnorm"}
_OUTPUTS = {"Conv2d": "out_channels", "Linear": "out_features"}


VERIFIED = (
    "symbols that MXNet wrote for every network of the zoo have these operators, settings, wiring, "
    "names and shapes"
)


def facts(file: str) -> Facts:
    """Return what the page of models says of a network that the zoo defines in this file."""
    return Facts(f"apache/mxnet gluon/model_zoo/vision/{file}", None, VERIFIED)


class GluonNetwork(nn.Module):
    """Normalised RGB images -> logits: `features`, then `output`.

    Attributes:
        scopes: Before 1.2 names were not structural but counted by kind of layer, with a prefix in
            some parts of a network: the prefix by the part's structural name.
        sized: Whether layers depend on how large the images are, so that the class takes a `size`.
    """

    scopes: ClassVar[Mapping[str, str]] = {}
    sized: ClassVar[bool] = False

    features: nn.Sequential
    output: nn.Module

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W)
        logits: Tensor = self.output(self.features(x))  # (N, classes)
        return logits

    def width_layers(self) -> list[str]:
        """Return the layers that have the `widths` which the class takes as outputs, in order."""
        return []

    def reset_parameters(self) -> None:
        """Initialise as the examples do, `Xavier(magnitude=2)`; BatchNorm 1 and 0.

        Source: MXNet initializer.py: uniform up to sqrt(magnitude / mean of fan-in and fan-out).
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.weight
                mean = (weight[0].numel() + weight[:, 0].numel()) / 2
                bound = math.sqrt(2 / mean)
                nn.init.uniform_(weight, -bound, bound)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def counted_names(self) -> dict[str, str]:
        """Return what each layer is called in files of before 1.2, less the network's own prefix.

        Source: block.py `_BlockScope.create`: the kind of a layer and how many there were of it
        in this scope; a scope that does not end with an underscore is a name that was given.
        """
        counts: Counter[str] = Counter()
        names = {}
        for layer, module in self.named_modules():
            if type(module) in _KINDS:
                within = [part for part in self.scopes if f"{layer}.".startswith(f"{part}.")]
                scope = self.scopes[max(within, key=len)] if within else ""
                kind = f"{scope}{_KINDS[type(module)]}"
                names[layer] = (
                    f"{kind}{counts[kind]}" if scope.endswith("_") or not scope else scope
                )
                counts[kind] += 1
        return names


class Concurrent(nn.Sequential):
    """Several ways from one input, joined by channels."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, sum of C, H', W')
        return torch.cat([way(x) for way in self], 1)


def in_places(places: Iterable[nn.Module | Sequence[nn.Module]]) -> nn.Sequential:
    """Return layers in a row, called by their places, as Gluon counts them.

    Several layers that are one of Gluon's, such as a Dense that flattens before and activates
    after, have one place: what has weights there is called by it.
    """
    held = nn.Sequential()
    for place, given in enumerate(places):
        for module in [given] if isinstance(given, nn.Module) else given:
            alone = isinstance(given, nn.Module) or type(module) in _KINDS
            held.add_module(f"{place}" if alone else f"{place}_{type(module).__name__}", module)
    return held


def normed(conv: nn.Conv2d, *after: nn.Module) -> list[nn.Module]:
    """Return a convolution, its BatchNorm, and what follows."""
    return [conv, nn.BatchNorm2d(conv.out_channels), *after]


def weighted(network: nn.Module) -> list[str]:
    """Return the names of all convolutions and linear layers, in Gluon's order."""
    return [name for name, one in network.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)]


def widths_at(places: Iterable[int], count: int) -> Callable[[Graph], Arguments | None]:
    """Return the function that reads classes and widths off a graph of so many layers with weights.

    Of them, those at `places` have the widths as outputs; the last has the classes.
    """

    def arguments(graph: Graph) -> Arguments | None:
        layers = [node for node in graph.nodes if node.op in _OUTPUTS]
        if len(layers) != count:
            return None
        outputs = [int(node.attrs[_OUTPUTS[node.op]]) for node in layers]
        return {"num_classes": outputs[-1], "widths": tuple(outputs[place] for place in places)}

    return arguments
