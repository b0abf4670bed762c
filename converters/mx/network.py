"""MXNet's operators -> nodes: what a rule sees of its operator and of the run it is part of."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from converters.lowering import Call, Lowered, Lowering, Rules, Value, check_floats
from converters.mx.naming import plain
from converters.mx.settings import Settings
from converters.mx.symbol import UNVERSIONED, Entry, Symbol, SymbolNode
from models.errors import FormatError, SpecError, UnsupportedLayer, WeightMismatch
from models.graph import Array, Shape, numbered

NULL = "null"  # a variable
ARRAYS = ("weight", "bias", "gamma", "beta", "moving_mean", "moving_var")
LABEL = "label"  # what a loss compares with; no output depends on it


class Operand(NamedTuple):
    """What an operator reads: a tensor of the network, or a stored array."""

    value: Value | None
    array: Array | None


Outputs = Value | list[Value]  # where an operator has several
Rule = Callable[["Run", "Operator"], Outputs]
RULES: Rules[Rule] = Rules()
_INPUTS: dict[str, tuple[str, ...]] = {}
_VARYING: set[str] = set()


def operator(
    *names: str, inputs: tuple[str, ...] = ("data",), varying: bool = False
) -> Callable[[Rule], Rule]:
    """Register a rule for operators of these names, and what their inputs are called.

    Those among `ARRAYS` are stored in the file, and a `label` counts for nothing; all others, and
    all without a name, are tensors of the network. Which there are may vary with the settings:
    then the rule has to say it, by `Operator.expect`.
    """
    for name in names:
        _INPUTS[name] = inputs
        if varying:
            _VARYING.add(name)
    return RULES(*names)


class Operator:
    """One operator of a symbol, as its rule sees it."""

    def __init__(self, run: "Run", index: int) -> None:
        node = run.symbol.nodes[index]
        self._run = run
        self._index = index
        self.op = node.op
        self.path = node.name
        self.name = plain(node.name or node.op)
        self.at = f"layer {node.name} ({node.op})"
        self.settings = Settings(run.path, self.at, node.attributes)
        self.inputs = node.inputs
        self.version = run.symbol.version
        if node.op not in _VARYING:
            self.expect(*_INPUTS[node.op])

    def expect(self, *names: str) -> None:
        """Say which inputs there are by these settings; a label may be missing.

        Before 0.9 the arrays that training does not learn were no inputs: they have the operator's
        name and their own (src/nnvm/legacy_json_util.cc, `UpgradeJSON_000800_000900`).

        Raises:
            FormatError: There are fewer inputs, or more.
        """
        count = len(self.inputs)
        may_miss = {LABEL, *(ARRAYS if self.version <= UNVERSIONED else ())}
        if count > len(names) or not set(names[count:]) <= may_miss:
            raise self._misfed(f"{count} inputs", f"{len(names)}: {', '.join(names)}")

    def expect_as_many(self) -> None:
        """Say that there are as many inputs as the setting `num_args` says.

        Raises:
            FormatError: There are fewer or more, or none.
        """
        count = self.settings.integer("num_args", len(self.inputs))
        if count != len(self.inputs) or not count:
            raise self._misfed(f"{len(self.inputs)} inputs", f"num_args, {max(count, 1)}")

    def value(self, index: int = 0) -> Value:
        """Return an input that has to be a tensor of the network."""
        found = self.operand(index)
        if found.value is None:
            raise self.unsupported("reads a stored array where it takes the network's tensors")
        return found.value

    def values(self) -> list[Value]:
        """Return all inputs, which have to be tensors of the network."""
        return [self.value(index) for index in range(len(self.inputs))]

    def operand(self, index: int) -> Operand:
        """Return an input that may be either."""
        return self._run.operand(self.inputs[index])

    def reads(self, value: Value) -> bool:
        """Tell whether a tensor is one of the inputs."""
        return any(self._run.values.get(entry) is value for entry in self.inputs)

    def ends_alone(self) -> bool:
        """Tell whether the first output is the network's only one."""
        return self._run.symbol.heads == (Entry(self._index, 0),)

    def array(self, name: str) -> Array | None:
        """Return a stored array by what the operator calls it; one that is missing is noted."""
        index = _INPUTS[self.op].index(name)
        if index >= len(self.inputs):
            return self._run.stored(f"{self.path}_{name}")
        source = self._run.symbol.nodes[self.inputs[index].node]
        if source.op != NULL:
            raise self.unsupported(f"its {name} is computed by the network, by {source.name}")
        return self._run.stored(source.name)

    def tensors(self, **arrays: str) -> dict[str, Array]:
        """Return stored arrays under torch's names for them."""
        found = {ours: self.array(theirs) for ours, theirs in arrays.items()}
        return {name: array for name, array in found.items() if array is not None}

    def check_rank(self, value: Value, takes: str, least: int, most: int | None = None) -> None:
        """Raise UnsupportedLayer if a tensor has fewer or more dimensions than `takes`, a noun."""
        rank = len(value.shape)
        if rank < least or (most is not None and rank > most):
            raise self.unsupported(f"takes {takes}, its input has {rank} dimensions")

    def unsupported(self, reason: str) -> UnsupportedLayer:
        """Return the error for a setting that has no exact form."""
        return UnsupportedLayer(self._run.path, [(self.path, f"{self.op}: {reason}")])

    def _misfed(self, found: str, expected: str) -> FormatError:
        return FormatError(self._run.path, self.at, found=found, expected=expected)


class Run:
    """One evaluation of a symbol, written down as nodes instead of computed."""

    def __init__(
        self, path: Path, symbol: Symbol, arrays: Mapping[str, Array], net: Lowering
    ) -> None:
        self.path = path
        self.symbol = symbol
        self.net = net
        self.missing: dict[str, None] = {}
        self.calls: list[Call] = []
        self._arrays = arrays
        self.values: dict[Entry, Value] = {}

    def evaluate(self, shapes: Sequence[Shape]) -> list[Value]:
        """Apply the rules of all operators that the outputs need, and return the outputs."""
        given = variables(self.symbol, self._arrays)
        if len(shapes) != len(given):
            names = ", ".join(self.symbol.nodes[index].name for index in given)
            raise SpecError(
                f"{self.path}: {len(shapes)} shapes for {len(given)} inputs: {names}; are arrays "
                "missing from the file? If not: --input none --input-shape 'A;B'"
            )
        for name, index, shape in zip(numbered("input", len(given)), given, shapes, strict=True):
            self.values[Entry(index, 0)] = self.net.input(name, shape)
        for index in reachable(self.symbol):
            node = self.symbol.nodes[index]
            if node.op != NULL:
                self._apply(index, node)
        return [self._head(entry) for entry in self.symbol.heads]

    def operand(self, entry: Entry) -> Operand:
        """Return what an operator reads from another node."""
        source = self.symbol.nodes[entry.node]
        if entry in self.values:
            return Operand(self.values[entry], None)
        if source.op == NULL and entry.output == 0:
            return Operand(None, self.stored(source.name))
        count = sum(one.node == entry.node for one in self.values)
        raise FormatError(
            self.path,
            f"layer {source.name} ({source.op})",
            found=f"its output {entry.output} in use",
            expected="output 0 only" if count < 2 else f"outputs 0 to {count - 1}",
        )

    def stored(self, name: str) -> Array | None:
        """Return an array of the file; one that is not there is noted."""
        array = self._arrays.get(name)
        if array is None:
            self.missing[name] = None
            return None
        check_floats(self.net.source, name, array)
        return array

    def _apply(self, index: int, node: SymbolNode) -> None:
        found = Operator(self, index)
        outputs = RULES[node.op](self, found)
        found.settings.check_all_read()
        values = outputs if isinstance(outputs, list) else [outputs]
        for output, value in enumerate(values):
            self.values[Entry(index, output)] = value
        # What an operator passes on is not what MXNet's gives: a softmax that was left out.
        names = tuple(None if found.reads(value) else value.name for value in values)
        self.calls.append(Call(node.name, node.op, names))

    def _head(self, entry: Entry) -> Value:
        found = self.operand(entry)
        if found.value is None:
            name = self.symbol.nodes[entry.node].name
            raise UnsupportedLayer(self.path, [(name, "the network's output is a stored array")])
        return found.value


def lower(
    path: Path, symbol: Symbol, arrays: Mapping[str, Array], shapes: Sequence[Shape], net: Lowering
) -> Lowered:
    """Return the network that a symbol computes with a file's arrays.

    Raises:
        UnsupportedLayer: Operators without a rule, all of them; or one without an exact form.
        FormatError: A setting is missing or of the wrong kind, or shapes do not fit.
        WeightMismatch: Arrays are missing, or have the wrong shape.
    """
    check_operators(path, symbol)
    run = Run(path, symbol, arrays, net)
    ends = run.evaluate(shapes)
    if run.missing:
        unread = set(arrays).difference(names_read(symbol))
        raise WeightMismatch(str(net.source), missing=list(run.missing), unexpected=sorted(unread))
    return Lowered(net.network(ends), tuple(end.shape for end in ends), tuple(run.calls))


def check_operators(path: Path, symbol: Symbol) -> None:
    """Raise UnsupportedLayer for all operators without a rule that the outputs need."""
    nodes = needed(symbol)
    unknown = [(node.name, node.op) for node in nodes if node.op != NULL and node.op not in RULES]
    if unknown:
        raise UnsupportedLayer(path, unknown)


def reachable(symbol: Symbol) -> list[int]:
    """Return the nodes that the outputs need, in the file's order."""
    found: set[int] = set()
    waiting = [entry.node for entry in symbol.heads]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting.extend(entry.node for entry, _ in _read(symbol.nodes[index]))
    return sorted(found)


def _read(node: SymbolNode) -> list[tuple[Entry, str]]:
    """Return a node's inputs and what they are called, but for labels, which nothing depends on."""
    names = (*_INPUTS.get(node.op, ()), *[""] * len(node.inputs))
    return [pair for pair in zip(node.inputs, names, strict=False) if pair[1] != LABEL]


def needed(symbol: Symbol) -> list[SymbolNode]:
    """Return what `reachable` does, the nodes themselves."""
    return [symbol.nodes[index] for index in reachable(symbol)]


def variables(symbol: Symbol, arrays: Mapping[str, Array]) -> list[int]:
    """Return the variables through which data enters: not stored, nor meant to be, nor labels."""
    data = {entry.node for entry in symbol.heads}
    for node in needed(symbol):
        data |= {entry.node for entry, name in _read(node) if name not in ARRAYS}
    return [
        index
        for index in reachable(symbol)
        if symbol.nodes[index].op == NULL
        and index in data
        and symbol.nodes[index].name not in arrays
    ]


def names_read(symbol: Symbol) -> list[str]:
    """Return the names of variables and arrays that operators read, as inputs or without saying."""
    nodes = needed(symbol)
    found = [node.name for node in nodes if node.op == NULL]
    if symbol.version <= UNVERSIONED:
        found += [
            f"{node.name}_{name}"
            for node in nodes
            for name in _INPUTS.get(node.op, ())[len(node.inputs) :]
            if name in ARRAYS
        ]
    return found
