"""Torch7's memory: tensors that are views of one storage, and layers that write into it.

A module that works in place changes the tensor for everybody who holds it, so `ReLU(true)` in one
branch changes what the other branch reads. A `Memory` knows what its storage holds now; a `Handle`
is a tensor object over it, reached by steps such as "entry 2 of dimension 1". Writing through a
handle gives the memory a new value, and whoever reads it later, by any steps, reads that value. The
graph that comes out has no in-place operations and computes what Torch7 computed.
"""

import math
from collections.abc import Callable, Set
from dataclasses import dataclass

from converters.lowering import Lowering, Value
from models.errors import UnsupportedLayer
from models.graph import Shape

Add = Callable[..., Value]  # Lowering.add: name, op, inputs, attributes


@dataclass(frozen=True)
class Reshaped:
    """All of it, in another shape."""

    whole: Shape
    shape: Shape

    def look(self, add: Add, whole: Value) -> Value:
        """Return the same numbers in the new shape."""
        return add(f"{whole.name}_view", "Reshape", whole, shape=batched(self.shape))

    def write(self, add: Add, whole: Value, part: Value) -> Value:
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


# Ways to look at a part of a memory, or at all of it in another shape; no number moves. What was
# written through one is put in its place; several places that share a number cannot be written to.
Steps = tuple[Reshaped | Selected | Replicated, ...]
MAX_STEPS = 64  # more than any chain of views


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

    def refused(self, reason: str) -> UnsupportedLayer:
        """Return an error that names the layer whose output this is."""
        return UnsupportedLayer(self._net.source, [(self._name, reason)])

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
            raise self.refused("is still read after the module ran again and gave another shape")
        if steps not in self._values:
            if steps:
                whole = self.read(steps[:-1])
                self._values[steps] = steps[-1].look(self._net.add, whole)
            else:  # written in another shape: see `write`
                ((step,), value) = next(iter(self._values.items()))
                assert isinstance(step, Reshaped)
                self._values[steps] = step.write(self._net.add, value, value)
        return self._values[steps]

    def write(self, steps: Steps, value: Value) -> None:
        """Replace what these steps show."""
        if len(steps) == 1 and isinstance(steps[0], Reshaped):
            self._values = {steps: value}  # the other shapes once somebody asks for them
        elif steps:
            front, last = steps[:-1], steps[-1]
            assert not isinstance(last, Replicated)  # refused by `Run.write`
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
        self, memory: Memory, shape: Shape, steps: Steps = (), strides: Shape | None = None
    ) -> None:
        if len(steps) > MAX_STEPS:
            raise memory.refused(f"is looked at through more than {MAX_STEPS} views of views")
        self.memory = memory
        self.shape = shape
        self.steps = steps
        self.strides = _strides(shape) if strides is None else strides

    def set(self, other: "Handle") -> "Handle":
        """Become a view of the same numbers as `other`, as Torch's `tensor:set` does."""
        self.memory, self.shape = other.memory, other.shape
        self.steps, self.strides = other.steps, other.strides
        return self

    def reshaped(self, shape: Shape) -> "Handle":
        """Return the same memory in another shape, of a tensor that is contiguous."""
        return self._shaped(shape, _strides(shape))

    def squeezed(self, dropped: Set[int]) -> "Handle":
        """Return the tensor without some dimensions of one entry; one dimension stays."""
        kept = [dim for dim in range(len(self.shape)) if dim not in dropped] or [0]
        shape = tuple(self.shape[dim] for dim in kept)
        return self._shaped(shape, tuple(self.strides[dim] for dim in kept))

    def unsqueezed(self, dim: int) -> "Handle":
        """Return the tensor with a new dimension of one entry."""
        shape = (*self.shape[:dim], 1, *self.shape[dim:])
        return self._shaped(shape, (*self.strides[:dim], 1, *self.strides[dim:]))

    def selected(self, dim: int, index: int) -> "Handle":
        """Return one entry of a dimension, of a tensor that has two or more."""
        shape, strides = ((*sizes[:dim], *sizes[dim + 1 :]) for sizes in (self.shape, self.strides))
        step = Selected(self.shape, dim, index)
        return Handle(self.memory, shape, (*self.steps, step), strides)

    def replicated(self, dim: int, count: int) -> "Handle":
        """Return the tensor repeated along a new dimension."""
        if count == 1:
            return self.unsqueezed(dim)
        shape = (*self.shape[:dim], count, *self.shape[dim:])
        strides = (*self.strides[:dim], 0, *self.strides[dim:])
        return Handle(self.memory, shape, (*self.steps, Replicated(dim, count)), strides)

    def _shaped(self, shape: Shape, strides: Shape) -> "Handle":
        """Return the same numbers in the same order; two such steps are one."""
        steps, whole = self.steps, self.shape
        if steps and isinstance(last := steps[-1], Reshaped):
            steps, whole = steps[:-1], last.whole
        if shape != whole:
            steps = (*steps, Reshaped(whole, shape))
        return Handle(self.memory, shape, steps, strides)

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie in memory in order and without gaps, as `isContiguous` says."""
        sizes = [(size, step) for size, step in zip(self.shape, self.strides, strict=True)]
        wanted = _strides(tuple(size for size, _ in sizes if size != 1))
        return tuple(step for size, step in sizes if size != 1) == wanted

    @property
    def repeats(self) -> bool:
        """Whether several of its elements are one number in memory."""
        return any(isinstance(step, Replicated) for step in self.steps)


def _strides(shape: Shape) -> Shape:
    """Return how far apart the entries of each dimension are without gaps."""
    return tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))


def batched(shape: Shape) -> list[int]:
    """Return a shape whose first dimension is whatever the number of elements makes it."""
    return [-1, *shape[1:]]
