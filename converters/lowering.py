"""What both formats share on the way from a file's layers to the middle form.

A format has rules, one a layer or operator. A rule adds nodes through a `Lowering`, which names
them, asks torch.nn for their shapes, checks the tensors that come with them, and remembers which
tensors are one and the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from models.errors import FormatError, MisfitError, UnsupportedLayer, WeightMismatch
from models.graph import MAX_ELEMENTS, Array, Graph, Inferred, Input, Network, Node, Shape, float32

MAX_PARAMETERS = 1 << 29  # VGG, the largest of the time, has 144 million
MAX_NODES = 100_000  # a shared layer may be reached on exponentially many paths

R = TypeVar("R", bound=Callable[..., Any])


class Infer(Protocol):
    """Shape inference, passed in so that a file can be inspected without loading torch."""

    def __call__(self, op: str, attrs: Mapping[str, Any], shapes: Sequence[Shape]) -> Inferred:
        """Return the op's attributes in one spelling, the tensors it needs, and its output's shape.

        Raises:
            MisfitError: The attributes, or the input shapes, do not fit.
        """


class Value(NamedTuple):
    """A tensor of the graph: the node (or input) that gives it, and its shape."""

    name: str
    shape: Shape


class Call(NamedTuple):
    """One run of one layer of the file, and the nodes that hold its outputs, where any does."""

    path: str
    class_name: str
    outputs: tuple[str | None, ...]


class Lowered(NamedTuple):
    """A network, the shapes of its outputs for the input shapes that it was lowered at, and how.

    The calls are in the order in which they end; they carry the names that nodes have here, before
    an architecture gives them others.
    """

    network: Network
    shapes: tuple[Shape, ...]
    calls: tuple[Call, ...] = ()


class Rules(Generic[R]):
    """One rule for each layer class of a format."""

    def __init__(self) -> None:
        self._rules: dict[str, R] = {}

    def __call__(self, *names: str) -> Callable[[R], R]:
        """Register the decorated function for these class names."""

        def register(rule: R) -> R:
            for name in names:
                if name in self._rules:
                    raise ValueError(f"two rules for {name}")
                self._rules[name] = rule
            return rule

        return register

    def __getitem__(self, name: str) -> R:
        return self._rules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rules

    def names(self) -> list[str]:
        """Return every class that has a rule, sorted."""
        return sorted(self._rules)


class Lowering:
    """A graph and its tensors, while rules add to them."""

    def __init__(self, source: Path, infer: Infer) -> None:
        self.source = source
        self._infer = infer
        self._inputs: list[Input] = []
        self._nodes: list[Node] = []
        self._names: dict[str, int] = {}  # how many of that name there have been
        self._tensors: dict[str, Array] = {}
        self._ties: list[tuple[str, str]] = []
        # With the array itself: another could get its address once it is gone.
        self._owners: dict[tuple[Any, ...], tuple[str, Array]] = {}
        self._misshapen: list[str] = []
        self._parameters = 0

    def input(self, name: str, shape: Shape) -> Value:
        """Add an input of the graph."""
        self._inputs.append(Input(name, shape))
        self._names[name] = 1
        return Value(name, shape)

    def add(
        self,
        at: str,
        op: str,
        *inputs: Value,
        tensors: Mapping[str, Array] | None = None,
        **attrs: Any,
    ) -> Value:
        """Add a node named `at` (or `at_2`, ... where that is taken) and return its tensor.

        Raises:
            FormatError: Torch refuses the attributes, or the input shapes.
            UnsupportedLayer: The file unfolds into more nodes than any network has.
        """
        if len(self._nodes) >= MAX_NODES:
            raise UnsupportedLayer(
                self.source, [(at, f"the network unfolds into more than {MAX_NODES:,} operations")]
            )
        shapes = [value.shape for value in inputs]
        try:
            inferred = self._infer(op, attrs, shapes)
        except MisfitError as error:
            found = " and ".join("x".join(map(str, shape)) for shape in shapes)
            raise FormatError(
                self.source,
                f"layer {at}",
                found=f"an input of {found or 'nothing'}",
                expected=f"one that {op} takes ({error})",
            ) from error
        if math.prod(inferred.shape) > MAX_ELEMENTS:
            shape = "x".join(map(str, inferred.shape))
            raise UnsupportedLayer(
                self.source, [(at, f"{op} would give {shape}, {MAX_ELEMENTS:,} numbers at most")]
            )
        name = self._unique(at)
        self._nodes.append(Node(name, op, tuple(value.name for value in inputs), inferred.attrs))
        self._own(name, inferred.tensors, tensors or {})
        return Value(name, inferred.shape)

    def _unique(self, at: str) -> str:
        name, count = at, self._names.get(at, 0)
        while name in self._names:
            count += 1
            name = f"{at}_{count}"
        self._names[at], self._names[name] = max(count, 1), 1
        return name

    def _own(self, node: str, wanted: Mapping[str, Shape], given: Mapping[str, Array]) -> None:
        for tensor, shape in wanted.items():
            name = f"{node}.{tensor}"
            array = given.get(tensor)
            if array is None or array.shape != shape:
                self._misshapen.append(
                    f"{name} is {'absent' if array is None else array.shape}, expected {shape}"
                )
                continue
            self._parameters += array.size
            if self._parameters > MAX_PARAMETERS:  # views that overlap can ask for any number
                raise UnsupportedLayer(
                    self.source, [(node, f"more than {MAX_PARAMETERS:,} numbers in all layers")]
                )
            owner, _ = self._owners.setdefault(_place(array), (name, array))
            if owner == name:
                self._tensors[name] = float32(array)
            else:
                self._ties.append((name, owner))

    def network(self, outputs: Sequence[Value]) -> Network:
        """Return what was added, computed as far as `outputs`.

        Raises:
            WeightMismatch: Tensors have other shapes than their layers say, all of them listed.
        """
        if self._misshapen:
            raise WeightMismatch(str(self.source), misshapen=self._misshapen)
        given = {value.name for value in self._inputs}
        ends = [
            self.add("identity", "Identity", end) if end.name in given else end for end in outputs
        ]
        graph = Graph(
            tuple(self._inputs),
            tuple(self._nodes),
            tuple(end.name for end in ends),
            ties=tuple(self._ties),
        )
        return Network(graph, self._tensors)


def check_floats(source: Path, name: str, array: Array) -> None:
    """Raise FormatError unless a stored array holds numbers that a layer can compute with."""
    if array.dtype.kind != "f":
        raise FormatError(
            source, f"array {name}", found=f"{array.dtype} numbers", expected="floats"
        )


def borrowed(net: Lowering, graph: Graph, tensors: Mapping[str, Array]) -> Lowered:
    """Return a known graph with the tensors of a file that has no wiring of its own.

    Raises:
        WeightMismatch: A tensor has another shape than its layer.
    """
    values = {given.name: net.input(given.name, given.shape) for given in graph.inputs}
    by_layer: dict[str, dict[str, Array]] = {}
    for key, array in tensors.items():
        layer, _, tensor = key.rpartition(".")
        by_layer.setdefault(layer, {})[tensor] = array
    for name, op, inputs, attrs in graph.nodes:
        sources = (values[one] for one in inputs)
        values[name] = net.add(name, op, *sources, tensors=by_layer.get(name), **attrs)
    ends = [values[name] for name in graph.outputs]
    return Lowered(net.network(ends), tuple(end.shape for end in ends))


def _place(array: Array) -> tuple[Any, ...]:
    """Return what two views share only if they are the same view of the same memory."""
    return array.ctypes.data, array.shape, array.strides, array.dtype.str, array.size or id(array)
