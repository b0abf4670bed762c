"""Runs a symbol as MXNet does for inference, operator by operator, in float64.

Every operator has a definition: a function of its settings and its inputs, restated from the C++.
What a variable is follows from the file alone: a stored array, a label that nobody reads, or an
input of the network.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.mx.symbol import UNVERSIONED, Entry, Symbol, SymbolNode
from models.errors import UnsupportedLayer

Array = npt.NDArray[np.float64]

# Operators whose second input is a label, which inference does not read.
LOSSES = {
    "SoftmaxOutput",
    "Softmax",
    "LogisticRegressionOutput",
    "LinearRegressionOutput",
    "MAERegressionOutput",
    "SVMOutput",
}


@dataclass(frozen=True)
class Call:
    """One operator of the network, and what it gave."""

    path: str
    class_name: str
    outputs: tuple[Array, ...]


class Node:
    """An operator during a run: its settings, and the numbers that it reads."""

    def __init__(self, symbol: Symbol, node: SymbolNode, inputs: list[Array], source: Path) -> None:
        self.version = symbol.version
        self.inputs = inputs
        self.name = node.name
        self.op = node.op
        self._given = node.attributes
        self._source = source

    @property
    def x(self) -> Array:
        """The first input, which most operators have alone."""
        return self.inputs[0]

    def text(self, key: str, default: str = "") -> str:
        """Return a setting as it is written."""
        return self._given.get(key, default)

    def number(self, key: str, default: float = 0.0) -> float:
        """Return a setting that is a number."""
        found = self._given.get(key, "None")
        return default if found == "None" else float(found)

    def integer(self, key: str, default: int = 0) -> int:
        """Return a setting that is a whole number."""
        return int(self.number(key, default))

    def on(self, key: str, *, default: bool) -> bool:
        """Tell whether a setting is on."""
        return self._given.get(key, str(default)).lower() in ("true", "1")

    def numbers(self, key: str, default: Sequence[int] = ()) -> list[int]:
        """Return a setting that is a tuple of whole numbers."""
        return [int(one) for one in re.findall(r"-?\d+", self.text(key))] or list(default)

    def parts(self, key: str) -> list[int | None]:
        """Return a setting that is a tuple of whole numbers or None."""
        found = re.findall(r"-?\d+|None", self.text(key))
        return [None if one == "None" else int(one) for one in found]

    def refused(self, reason: str) -> UnsupportedLayer:
        """Return the error for what has no definition."""
        return UnsupportedLayer(self._source, [(self.name, f"{self.op}: {reason}")])


Definition = Callable[[Node], Array | list[Array]]
DEFINITIONS: dict[str, Definition] = {}


def defines(*names: str) -> Callable[[Definition], Definition]:
    """Make the decorated function the definition of operators of these names."""

    def register(definition: Definition) -> Definition:
        DEFINITIONS.update(dict.fromkeys(names, definition))
        return definition

    return register


def follow(
    symbol: Symbol,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    inputs: Sequence[npt.NDArray[np.generic]],
    source: Path,
    report: Callable[[Call], object],
) -> None:
    """Run the operators that the outputs need in the file's order, and report each.

    Raises:
        UnsupportedLayer: An operator has no definition, or a setting that it does not cover.
    """
    needed = _needed(symbol)
    given = iter(inputs)
    values: dict[Entry, Array] = {}
    for index, node in enumerate(symbol.nodes):
        if index not in needed:
            continue
        if node.op == "null":
            array = arrays[node.name] if node.name in arrays else next(given)
            values[Entry(index, 0)] = array.astype(np.float64)
            continue
        if node.op not in DEFINITIONS:
            raise UnsupportedLayer(source, [(node.name, node.op)])
        read = [values[one] for one in _read(node)]
        read += [arrays[name].astype(np.float64) for name in _left_out(symbol, node)]
        found = DEFINITIONS[node.op](Node(symbol, node, read, source))
        outputs = found if isinstance(found, list) else [found]
        values.update({Entry(index, place): one for place, one in enumerate(outputs)})
        report(Call(node.name, node.op, tuple(outputs)))


def _read(node: SymbolNode) -> tuple[Entry, ...]:
    return node.inputs[:1] if node.op in LOSSES else node.inputs


def _left_out(symbol: Symbol, node: SymbolNode) -> list[str]:
    """Return the statistics that an old symbol leaves out, by the names that MXNet gives them."""
    if symbol.version > UNVERSIONED or "BatchNorm" not in node.op:
        return []
    return [f"{node.name}_{one}" for one in ("moving_mean", "moving_var")][len(node.inputs) - 3 :]


def _needed(symbol: Symbol) -> set[int]:
    found: set[int] = set()
    waiting = [entry.node for entry in symbol.heads]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += [entry.node for entry in _read(symbol.nodes[index])]
    return found
