"""Two networks compared layer by layer: where their structures part, where their weights differ.

Layers are paired by structure, in the order in which `models.fingerprint` goes through a graph, so
that neither names nor formats matter. Weights are compared as float32, which networks compute in.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.fingerprint import Placed, Structure, fingerprint, head_size, structure
from models.folding import folded, folded_graph
from models.graph import Array, Network, Shape

CHUNK = 1 << 20  # numbers compared at once: copies of a tensor stay small
_NORMS = {"BatchNorm1d", "BatchNorm2d"}


class Parting(NamedTuple):
    """Where two structures part: the place in the order, from 1, and what each has there.

    A network that has come to its end has its outputs there.
    """

    place: int
    a: str
    b: str


class Setting(NamedTuple):
    """A setting that two layers of the same kind and place do not share."""

    a: str
    b: str
    op: str
    key: str
    values: tuple[Any, Any]


class Apart(NamedTuple):
    """How far a tensor of one network is from that of the other.

    Attributes:
        a: Its name in the first network.
        b: Its name in the second.
        op: The layer's kind.
        shapes: In the first and the second; where they are not equal nothing else is known.
        size: How many numbers it has, the larger of both.
        differing: How many numbers are not equal; a NaN equals a NaN.
        max_abs: The largest difference, infinite where only one of two numbers is finite.
        scale: The largest finite magnitude in either.
        cosine: Of the angle between both; None where one is zero.
        half: Whether both are equal once they are rounded to half precision.
    """

    a: str
    b: str
    op: str
    shapes: tuple[Shape, Shape]
    size: int
    differing: int
    max_abs: float
    scale: float
    cosine: float | None
    half: bool

    @property
    def relative(self) -> float:
        """The largest difference as a part of the scale."""
        return self.max_abs / self.scale if self.scale else self.max_abs

    def within(self, tolerance: float) -> bool:
        """Tell whether both are equal, to that part of the largest magnitude."""
        return self.shapes[0] == self.shapes[1] and self.relative <= tolerance


class Difference(NamedTuple):
    """What the comparison of two networks found.

    Attributes:
        layers: How many layers were paired, with weights or without.
        parting: Where the structures part; the layers before it are paired all the same.
        settings: What paired layers are set to differently, in order; the number of classes is not
            among them.
        classes: Of both, where the last layer alone decides the output.
        norms: How many BatchNorms of each were folded into the layer before them to compare.
        shared: Whether both share tensors between the same layers, and leave the same unused.
        tensors: Every tensor of paired layers, in order.
    """

    layers: int
    parting: Parting | None
    settings: tuple[Setting, ...]
    classes: tuple[int, int] | None
    norms: tuple[int, int]
    shared: bool
    tensors: tuple[Apart, ...]

    @property
    def same_network(self) -> bool:
        """Whether both have the same structure, whatever they weigh and how many classes."""
        return self.parting is None and not self.settings and self.shared

    def differing(self, tolerance: float) -> list[Apart]:
        """Return the tensors that are not equal to that part of their largest magnitude."""
        return [one for one in self.tensors if not one.within(tolerance)]


def compare(a: Network, b: Network) -> Difference:
    """Return what differs between two networks.

    Where one has BatchNorms that the other has in its convolutions, both are compared folded.
    """
    ours, theirs = structure(a.graph), structure(b.graph)
    parting, norms = _parting(ours, theirs), (0, 0)
    if parting is not None:
        plain, others = structure(folded_graph(a.graph)), structure(folded_graph(b.graph))
        if _parting(plain, others) is None:
            norms = _norms(ours) - _norms(plain), _norms(theirs) - _norms(others)
            a, b, ours, theirs, parting = folded(a), folded(b), plain, others, None
    end = parting.place - 1 if parting else len(ours.nodes)
    pairs = list(zip(ours.nodes[:end], theirs.nodes[:end], strict=True))
    settings = tuple(one for pair in pairs for one in _settings(*pair))
    sizes = head_size(a.graph), head_size(b.graph)
    return Difference(
        layers=len(pairs),
        parting=parting,
        settings=settings,
        classes=(sizes[0].outputs, sizes[1].outputs) if sizes[0] and sizes[1] else None,
        norms=norms,
        shared=bool(parting or settings) or fingerprint(a.graph) == fingerprint(b.graph),
        tensors=tuple(_tensors(a, b, pairs)),
    )


def _norms(one: Structure) -> int:
    return sum(placed.node.op in _NORMS for placed in one.nodes)


def _parting(a: Structure, b: Structure) -> Parting | None:
    """Return the first place where the kinds of layers, or what they read, are not the same."""
    for place, (ours, theirs) in enumerate(zip(a.nodes, b.nodes, strict=False)):
        if ours.node.op != theirs.node.op or ours.inputs != theirs.inputs:
            return Parting(place + 1, _described(ours), _described(theirs))
    end = min(len(a.nodes), len(b.nodes))
    if len(a.nodes) == len(b.nodes) and a.outputs == b.outputs:
        return None
    return Parting(end + 1, _at(a, end), _at(b, end))


def _at(one: Structure, place: int) -> str:
    if place < len(one.nodes):
        return _described(one.nodes[place])
    outputs = (one.nodes[index].node.name if index >= 0 else "input" for index in one.outputs)
    return f"the end: outputs {', '.join(outputs)}"


def _described(placed: Placed) -> str:
    """Return a layer as its constructor is called, and what it reads."""
    settings = ", ".join(f"{key}={value}" for key, value in placed.attrs)
    node = placed.node
    return f"{node.name}: {node.op}({settings}) of {', '.join(node.inputs)}"


def _settings(a: Placed, b: Placed) -> Iterator[Setting]:
    ours, theirs = dict(a.attrs), dict(b.attrs)
    for key in sorted(ours.keys() | theirs.keys()):
        if (values := (ours.get(key), theirs.get(key)))[0] != values[1]:
            yield Setting(a.node.name, b.node.name, a.node.op, key, values)


def _tensors(a: Network, b: Network, pairs: Sequence[tuple[Placed, Placed]]) -> Iterator[Apart]:
    """Compare the tensors that paired layers both have; settings say which one has alone."""
    ours, theirs = _by_layer(a), _by_layer(b)
    for one, other in pairs:
        left, right = ours.get(one.node.name, {}), theirs.get(other.node.name, {})
        for tensor in filter(right.__contains__, left):
            names = f"{one.node.name}.{tensor}", f"{other.node.name}.{tensor}"
            yield _apart(names, one.node.op, left[tensor], right[tensor])


def _by_layer(network: Network) -> dict[str, dict[str, Array]]:
    """Return every layer's tensors, those of another layer that it shares as well."""
    owned = [*network.tensors.items()]
    owned += [(name, network.tensors[owner]) for name, owner in network.graph.ties]
    found: dict[str, dict[str, Array]] = {}
    for name, array in owned:
        node, _, tensor = name.rpartition(".")
        found.setdefault(node, {})[tensor] = array
    return found


def _apart(names: tuple[str, str], op: str, a: Array, b: Array) -> Apart:
    shapes = a.shape, b.shape
    if a.shape != b.shape:
        count = max(a.size, b.size)
        return Apart(*names, op, shapes, count, count, math.inf, 0.0, None, False)
    differing, max_abs, scale, half = 0, 0.0, 0.0, True
    dot = norm_a = norm_b = 0.0
    for one, other in _chunks(np.atleast_1d(a), np.atleast_1d(b)):
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large for half, NaN
            same = (one == other) | (np.isnan(one) & np.isnan(other))
            apart = np.where(same, 0, np.abs(one - other))
            half &= np.array_equal(one.astype(np.float16), other.astype(np.float16), equal_nan=True)
        differing += int(np.count_nonzero(~same))
        max_abs = max(max_abs, float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max()))
        finite = np.isfinite(one) & np.isfinite(other)
        one, other = one[finite], other[finite]
        scale = max(scale, float(np.abs(one).max(initial=0)), float(np.abs(other).max(initial=0)))
        dot += float(one @ other)
        norm_a, norm_b = norm_a + float(one @ one), norm_b + float(other @ other)
    norm = math.sqrt(norm_a) * math.sqrt(norm_b)
    cosine = dot / norm if norm else None
    return Apart(*names, op, shapes, a.size, differing, max_abs, scale, cosine, half)


def _chunks(a: Array, b: Array) -> Iterator[tuple[Array, Array]]:
    """Yield both in pieces of some rows, in float64."""
    if not a.size:
        return
    rows = max(CHUNK // (a.size // len(a)), 1)
    for start in range(0, len(a), rows):
        end = start + rows
        yield a[start:end].astype(np.float64), b[start:end].astype(np.float64)
