"""Runs a module tree as Torch7 does in evaluation mode, call by call.

Every class has a definition: a function of the module's fields, its input and its state, restated
from Lua and C. A module has one output that its next call writes again, as in Torch7. Activations
stored in the file are not read: modules start as after `clearState`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from converters.t7.objects import TorchObject
from converters.t7_oracle.fields import Fields
from converters.t7_oracle.tensor import Array, Tensor, Value
from models.errors import UnsupportedLayer

MAX_DEPTH = 100  # modules inside modules; the deepest networks of the time nest below 20
MAX_CALLS = 100_000  # a file of modules that share modules can ask for 2^100
MAX_ENTRIES = 10_000  # of one table, those of its tables included


@dataclass(frozen=True)
class Call:
    """One call of a module: where it is in the tree, and what it gave, tables flattened."""

    path: str
    class_name: str
    outputs: tuple[Array, ...]


@dataclass
class State:
    """What a module keeps from call to call."""

    output: Value = field(default_factory=Tensor)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


class Layer(Fields):
    """A module during a call: its fields, its state, and the way to the modules it holds."""

    def __init__(self, run: "Run", module: TorchObject, path: str, state: State) -> None:
        super().__init__(module, path, run.source)
        self.run = run
        self.state = state

    @property
    def output(self) -> Tensor:
        """The module's output, of modules whose output is always a tensor."""
        assert isinstance(self.state.output, Tensor)
        return self.state.output

    @property
    def table(self) -> list[Value]:
        """The module's output, of modules whose output is always a table."""
        if not isinstance(self.state.output, list):
            self.state.output = []
        return self.state.output

    def maybe(self, name: str) -> Array | None:
        """Return a tensor's numbers, those that were computed for the module before stored ones."""
        computed = self.run.computed.get((id(self.object), name))
        return super().maybe(name) if computed is None else computed

    def buffer(self, name: str) -> Tensor:
        """Return a tensor that the module keeps beside its output."""
        return self.state.buffers.setdefault(name, Tensor())

    def give(self, values: npt.ArrayLike) -> Tensor:
        """Write the output."""
        return self.output.write(values)

    def contiguous(self, x: Tensor) -> Tensor:
        """Return the tensor, or a copy without gaps that the module keeps."""
        return x if x.contiguous else self.buffer("_input").copy(x)

    def child(self, index: int, x: Value, name: str | None = None) -> Value:
        """Call the module at `index`, from 0, of the field `modules`, by its index or a name."""
        modules = self.modules()
        if not 0 <= index < len(modules):
            raise self.refused(f"its module {index + 1} does not exist")
        name = str(index) if name is None else name
        return self.run.call(modules[index], f"{self.path}.{name}" if self.path else name, x)

    def inner(self, name: str, x: Value) -> Value:
        """Call a module that another field holds; its calls are not reported."""
        self.run.quiet += 1
        try:
            return self.run.call(self.module(name), f"{self.path} ({name})".lstrip(), x)
        finally:
            self.run.quiet -= 1


Definition: TypeAlias = Callable[[Layer, Any], Value]
DEFINITIONS: dict[str, Definition] = {}


def _register(names: Sequence[str], definition: Definition) -> None:
    for name in names:
        if name in DEFINITIONS:
            raise ValueError(f"{name} has two definitions")
        DEFINITIONS[name] = definition


def on_any(*names: str) -> Callable[[Callable[[Layer, Value], Value]], Definition]:
    """Register a definition for these classes that takes a tensor or a table."""

    def register(definition: Callable[[Layer, Value], Value]) -> Definition:
        _register(names, definition)
        return definition

    return register


def on_tensor(*names: str) -> Callable[[Callable[[Layer, Tensor], Value]], Definition]:
    """Register a definition for these classes that takes one tensor."""

    def register(definition: Callable[[Layer, Tensor], Value]) -> Definition:
        def checked(layer: Layer, x: Value) -> Value:
            return definition(layer, layer.tensor(x))

        _register(names, checked)
        return checked

    return register


def on_table(*names: str) -> Callable[[Callable[[Layer, list[Value]], Value]], Definition]:
    """Register a definition for these classes that takes a table."""

    def register(definition: Callable[[Layer, list[Value]], Value]) -> Definition:
        def checked(layer: Layer, x: Value) -> Value:
            return definition(layer, layer.entries(x))

        _register(names, checked)
        return checked

    return register


class Run:
    """One forward pass."""

    def __init__(self, source: str | Path, report: Callable[[Call], object]) -> None:
        self.source = source
        self.report = report
        self.states: dict[tuple[int, tuple[tuple[int, int], ...]], State] = {}
        self.computed: dict[tuple[int, str], Array] = {}  # weights by module and field
        self.clones: tuple[tuple[int, int], ...] = ()  # which clone of which MapTable is running
        self.depth = 0
        self.quiet = 0
        self.calls = 0
        self.raised: Exception | None = None

    def state(self, module: TorchObject) -> State:
        """Return what a module, of the clone that is running, keeps from call to call."""
        return self.states.setdefault((id(module), self.clones), State())

    def call(self, module: TorchObject, path: str, x: Value) -> Value:
        """Call a module and report what it gave.

        Raises:
            UnsupportedLayer: A class without definition, or an input that it does not take.
            FormatError: A field that is missing or wrong.
        """
        name = module.class_name
        self.calls += 1
        if self.depth == MAX_DEPTH:
            raise self.refused(path, f"{name}: modules nest more than {MAX_DEPTH} deep")
        if self.calls > MAX_CALLS:
            raise self.refused(path, f"{name}: more than {MAX_CALLS:,} calls of modules")
        definition = DEFINITIONS.get(name)
        if definition is None:
            raise self.refused(path, name)
        state = self.state(module)
        self.depth += 1
        try:
            state.output = definition(Layer(self, module, path, state), x)
            outputs = tuple(one.array.copy() for one in leaves(state.output))
        except (ValueError, IndexError, ArithmeticError, MemoryError) as error:
            if error is self.raised:
                raise
            raise self.refused(path, f"{name}: {error}") from error
        self.depth -= 1
        if not self.quiet:
            self.tell(Call(path, name, outputs))
        return state.output

    def tell(self, call: Call) -> None:
        """Report a call; what the caller raises is kept apart from errors of definitions."""
        try:
            self.report(call)
        except Exception as error:
            self.raised = error
            raise

    def refused(self, path: str, what: str) -> UnsupportedLayer:
        """Return the error for a module that cannot be run."""
        return UnsupportedLayer(self.source, [(path, what)])


def leaves(value: Value) -> list[Tensor]:
    """Return a value's tensors, those of nested tables in order.

    Raises:
        ValueError: A table holds itself, nests too deep, or has too many entries.
    """
    found: list[Tensor] = []
    waiting: list[tuple[Value, int]] = [(value, 0)]
    seen = 0
    while waiting:
        one, depth = waiting.pop()
        seen += 1
        if isinstance(one, Tensor):
            found.append(one)
        elif depth == MAX_DEPTH:
            raise ValueError(f"a table that nests more than {MAX_DEPTH} deep")
        else:
            waiting.extend((entry, depth + 1) for entry in reversed(one))
        if seen + len(waiting) > MAX_ENTRIES:
            raise ValueError(f"a table of more than {MAX_ENTRIES:,} entries")
    return found


def follow(
    root: TorchObject,
    inputs: Sequence[npt.ArrayLike],
    source: str | Path,
    report: Callable[[Call], object],
) -> None:
    """Run a module tree in float64 and report every call as it completes, the root's last.

    Args:
        root: What `torch.load` returns.
        inputs: One array is a tensor, several are a table of them.
        source: What errors call the file.
        report: Gets each call; its arrays are copies.

    Raises:
        UnsupportedLayer: A class without definition, or an input that it does not take.
        FormatError: A field that is missing or wrong.
    """
    try:
        tensors: list[Value] = [Tensor.of(one) for one in inputs]
    except ValueError as error:
        raise UnsupportedLayer(source, [("", f"its input: {error}")]) from error
    with np.errstate(all="ignore"):  # log of 0, overflow: Torch7 gives inf and NaN without a word
        Run(source, report).call(root, "", tensors[0] if len(tensors) == 1 else tensors)


def run(root: TorchObject, inputs: Sequence[npt.ArrayLike], source: str | Path) -> list[Call]:
    """Return every call of a forward pass in order of completion; see `follow`."""
    calls: list[Call] = []
    follow(root, inputs, source, calls.append)
    return calls
