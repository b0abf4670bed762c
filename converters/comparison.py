"""A second execution as proof: the file's own definitions against the converted network.

Both run in float64 on the same input, so what they make of a layer differs by a billionth unless
the conversion changed its meaning. They are compared call by call, in the order in which the
original's modules finish; the first that differs is the one to look at.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import fx

from converters.formats import Executed, Source
from converters.lowering import Lowered
from models.build import build
from models.errors import ParityError
from models.graph import Array, Graph

# Of a layer's largest output. Weights that a rule computes are rounded to float32, by 6e-8 of each,
# and so are coordinates inside torch; what that makes of an output grows with depth, but less.
RELATIVE = 1e-6
SEED = 0


class Comparison(NamedTuple):
    """What was compared: runs of layers all of whose outputs the graph has, and how many others."""

    layers: int
    uncompared: int
    largest: float  # difference, of the layer's largest output
    at: str  # the path of that layer


def compare(source: Source, lowered: Lowered) -> Comparison:
    """Run the file's own definitions beside the network, on seeded normal noise.

    Raises:
        ParityError: A layer gives something else; the error names the first one.
        UnsupportedLayer: A layer has no such definition.
    """
    generator = np.random.default_rng(SEED)
    inputs = [
        generator.standard_normal(given.shape, np.float32) for given in lowered.network.graph.inputs
    ]
    judge = _Judge(source, lowered, inputs)
    source.follow([one.astype(np.float64) for one in inputs], judge.take)
    return judge.verdict()


class _Judge:
    """Holds every call of the original against the network, which runs only as far as needed."""

    def __init__(self, source: Source, lowered: Lowered, inputs: list[Array]) -> None:
        self._name = str(source.name)
        self._calls = lowered.calls
        self._graph = lowered.network.graph
        self._wanted = Counter(name for call in self._calls for name in call.outputs if name)
        self._values: dict[str, Array] = {
            given.name: array.astype(np.float64)
            for given, array in zip(self._graph.inputs, inputs, strict=True)
        }
        self._run = _outputs(build(lowered.network).double(), self._graph, inputs)
        self._taken = 0
        self._uncompared = 0
        self._largest = (0.0, "")

    def take(self, theirs: Executed) -> None:
        """Compare the next call."""
        if self._taken == len(self._calls):
            raise ParityError(
                f"{self._name}: {_layer(theirs)} runs once more than it was converted"
            )
        ours = self._calls[self._taken]
        self._taken += 1
        if ours.class_name != theirs.class_name or len(ours.outputs) != len(theirs.outputs):
            raise ParityError(
                f"{self._name}: layer {self._taken} to finish is {_layer(theirs)} with "
                f"{len(theirs.outputs)} outputs, converted was {ours.path} ({ours.class_name}) "
                f"with {len(ours.outputs)}"
            )
        self._uncompared += None in ours.outputs
        for name, output in zip(ours.outputs, theirs.outputs, strict=True):
            if name is not None:
                self._hold(theirs, name, self._value(name), output)

    def _value(self, name: str) -> Array:
        while name not in self._values:
            made, value = next(self._run)
            if self._wanted[made]:
                self._values[made] = value
        value = self._values[name]
        self._wanted[name] -= 1
        if not self._wanted[name] and name not in {given.name for given in self._graph.inputs}:
            del self._values[name]
        return value

    def _hold(self, call: Executed, name: str, ours: Array, theirs: Array) -> None:
        node = self._graph.node(name)
        where = f"{self._name}: {_layer(call)}, converted to {node.op if node else 'an input'}"
        if ours.shape != theirs.shape:
            raise ParityError(
                f"{where}: gives {_shown(ours.shape)}, the original {_shown(theirs.shape)}"
            )
        difference, scale = _apart(ours, theirs)
        if not difference <= RELATIVE * scale:
            raise ParityError(
                f"{where}: the first layer that differs, by {difference:.2e} where outputs reach "
                f"{scale:.2e} (bound {RELATIVE * scale:.2e})"
            )
        if scale and difference / scale > self._largest[0]:
            self._largest = difference / scale, call.path

    def verdict(self) -> Comparison:
        """Return what was found when all is compared."""
        if self._taken < len(self._calls):
            missing = self._calls[self._taken]
            raise ParityError(f"{self._name}: layer {missing.path} never ran in the original")
        return Comparison(self._taken - self._uncompared, self._uncompared, *self._largest)


def _apart(ours: Array, theirs: Array) -> tuple[float, float]:
    """Return the largest difference and the largest output; the same infinity or NaN is equal."""
    with np.errstate(invalid="ignore"):
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        differences = np.where(same, 0, np.abs(ours - theirs))
    finite = np.abs(theirs[np.isfinite(theirs)])
    return float(differences.max(initial=0)), float(finite.max(initial=0))


def _outputs(
    module: fx.GraphModule, graph: Graph, inputs: list[Array]
) -> Iterator[tuple[str, Array]]:
    """Yield every node's output in turn; what no later node reads is forgotten."""
    left = Counter(name for node in graph.nodes for name in node.inputs)
    values = {
        given.name: torch.from_numpy(array).double()
        for given, array in zip(graph.inputs, inputs, strict=True)
    }
    for node in graph.nodes:
        with torch.inference_mode():
            value = module.get_submodule(node.name)(*(values[name] for name in node.inputs))
        for name in node.inputs:
            left[name] -= 1
            if not left[name]:
                values.pop(name, None)
        if left[node.name]:
            values[node.name] = value
        yield node.name, value.numpy()


def _layer(call: Executed) -> str:
    return f"layer {call.path or '(the whole file)'} ({call.class_name})"


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
