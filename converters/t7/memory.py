"""Torch7's memory: tensors that are views of one storage, and layers that write into it.

A module that works in place changes the tensor for everybody who holds it, so `ReLU(true)` in one
branch changes what the other branch reads. A `Memory` knows what its storage holds now; a `Handle`
is a tensor object over it, reached by steps such as "entry 2 of dimension 1". Writing through a
handle gives the memory a new value, and whoever reads it later, by any steps, reads that value. The
graph that comes out has no in-place operations and computes what Torch7 computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from converters.lowering import Lowering, Value
from models.errors import UnsupportedLayer
from models.graph import Shape

Add = Callable[..., Value]  # Lowering.add: name, op, inputs, attributes


class Step(Protocol):
    """One way to look at a part of a memory, or at all of it in another shape; moves no number."""

    def look(self, add: Add, whole: Value) -> Value:
        """Return what is seen of `whole`."""

    def write(self, add: Add, whole: Value, part: Value) -> Value:
        """Return `whole` with `part` in the place that is looked at."""


@dataclass(frozen=True)
class Reshaped:
    """All of it, in another shape."""

    whole: Shape
    shape: Shape

    def look(self, add: Add, whole: Value) -> Value:
        """Return the same numbers in the new shape."""
        return add(f"{whole.name}_view", "Reshape", whole, shape=batched(self.shape))

    def write(self, add: Add, whole: Value | None, part: Value) -> Value:
        """Return the numbers in the old shape; what was there does not matter."""
        return add(f"{part.name}_view", "Reshape", part, shape=batched(self.whole))


@dataclass(frozen=True)
class Selected:
    """Entry `index` of dimension `dim`, which disappears; both count from 0."""

    whole: Shape
    dim: int
    index: int

    def look(self, add: Add, whole: Value) -> Value:
        """Return the entry."""
        return add(f"{whole.name}_view", "Select", whole, dim=self.dim, index=self.index)

    def write(self, add: Add, whole: Value, part: Value) -> Value:
        """Return all entries, one of them new."""
        shape = (*self.whole[: self.dim], 1, *self.whole[self.dim + 1 :])
        parts = [add(f"{part.name}_entry", "Reshape", part, shape=batched(shape))]
        behind = self.whole[self.dim] - self.index - 1
        for start, length, place in ((0, self.index, 0), (self.index + 1, behind, 2)):
            if length:
                rest = add(
                    f"{part.name}_rest", "Narrow", whole, dim=self.dim, start=start, length=length
                )
                parts.insert(place, rest)
        return add(f"{part.name}_written", "Concat", *parts, dim=self.dim)


@dataclass(frozen=True)
class Replicated:
    """The same numbers `count` times along a new dimension, as stride 0 gives them."""

    dim: int
    count: int

    def look(self, add: Add, whole: Value) -> Value:
        """Return the copies."""
        return add(f"{whole.name}_view", "Replicate", whole, dim=self.dim, count=self.count)

    def write(self, add: Add, whole: Value, part: Value) -> Value:
        """Never: `Run.write` refuses what several places share."""
        raise AssertionError("a replicated tensor was written to")


Steps = tuple[Step, ...]


class Memory:
    """What a storage holds: its value, and the ways of looking at it that are known already."""

    def __init__(self, net: Lowering, value: Value) -> None:
        self._net = net
        self._name = value.name
        self.shape = value.shape
        self._values: dict[Steps, Value] = {(): value}

    def fill(self, value: Value) -> None:
        """Replace all of it."""
        self._values = {(): value}

    def lose(self) -> None:
        """Forget it: its owner asked for memory of another size."""
        self._values = {}

    def known(self, steps: Steps) -> Value | None:
        """Return what these steps show, where nothing has to be added to the graph for it."""
        return self._values.get(steps)

    def know(self, steps: Steps, value: Value) -> Value:
        """Note that these steps show `value`; where that was known, return what is known."""
        return self._values.setdefault(steps, value)

    def read(self, steps: Steps) -> Value:
        """Return what these steps show now.

        Raises:
            UnsupportedLayer: The owner of the memory has resized it since.
        """
        if not self._values:
            reason = "is still read after the module ran again and gave another shape"
            raise UnsupportedLayer(self._net.source, [(self._name, reason)])
        if steps not in self._values:
            if steps:
                whole = self.read(steps[:-1])
                self._values[steps] = steps[-1].look(self._net.add, whole)
            else:  # written in another shape: see `write`
                ((step,), value) = next(iter(self._values.items()))
                self._values[steps] = step.write(self._net.add, value, value)
        return self._values[steps]

    def write(self, steps: Steps, value: Value) -> None:
        """Replace what these steps show."""
        if len(steps) == 1 and isinstance(steps[0], Reshaped):
            self._values = {steps: value}  # the other shapes once somebody asks for them
        elif steps:
            front, last = steps[:-1], steps[-1]
            self.write(front, last.write(self._net.add, self.read(front), value))
            self._values[steps] = value
        else:
            self.fill(value)


class Handle:
    """A tensor object of Lua: a shape over a memory that others may share.

    Every module has one for its output, which a second call of the same module sets anew: who kept
    the first result sees the second (`self.output` in each file of torch/nn).
    """

    def __init__(
        self, memory: Memory, shape: Shape, steps: Steps = (), *, contiguous: bool = True
    ) -> None:
        self.memory = memory
        self.shape = shape
        self.steps = steps
        self.contiguous = contiguous

    def set(self, other: "Handle") -> "Handle":
        """Become a view of the same numbers as `other`, as Torch's `tensor:set` does."""
        self.memory, self.shape = other.memory, other.shape
        self.steps, self.contiguous = other.steps, other.contiguous
        return self

    def reshaped(self, shape: Shape) -> "Handle":
        """Return the same memory in another shape; two such steps are one."""
        steps, whole = self.steps, self.shape
        if steps and isinstance(last := steps[-1], Reshaped):
            steps, whole = steps[:-1], last.whole
        if shape != whole:
            steps = (*steps, Reshaped(whole, shape))
        return Handle(self.memory, shape, steps, contiguous=self.contiguous)

    def selected(self, dim: int, index: int) -> "Handle":
        """Return one entry of a dimension."""
        shape = self.shape[:dim] + self.shape[dim + 1 :]
        contiguous = self.contiguous and all(size == 1 for size in self.shape[:dim])
        step = Selected(self.shape, dim, index)
        return Handle(self.memory, shape or (1,), (*self.steps, step), contiguous=contiguous)

    def replicated(self, dim: int, count: int) -> "Handle":
        """Return the tensor repeated along a new dimension."""
        shape = (*self.shape[:dim], count, *self.shape[dim:])
        steps = (*self.steps, Replicated(dim, count))
        return Handle(self.memory, shape, steps, contiguous=self.contiguous and count == 1)

    @property
    def repeats(self) -> bool:
        """Whether several of its elements are one number in memory."""
        return any(isinstance(step, Replicated) and step.count > 1 for step in self.steps)


def batched(shape: Shape) -> list[int]:
    """Return a shape whose first dimension is whatever the number of elements makes it."""
    return [-1, *shape[1:]]
