"""Torch7's tensors in float64: views of a growing memory, with the aliasing that Torch7 has.

A tensor is a geometry over a memory; `set`, `view`, `select` share it, `resize` keeps it and lets
it grow for everybody who shares it. So a layer that works in place, and a module that is called
twice, are seen by whoever holds their tensor.

Source: torch/torch7 generic/Tensor.c (views), lib/TH/generic/THTensor.c (resizeNd, set, squeeze),
Tensor.lua (view).
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Shape: TypeAlias = tuple[int, ...]

MAX_ELEMENTS = 1 << 28  # of one tensor: 2 GiB; a field of a few bytes must not ask for more


def check_size(shape: Sequence[int]) -> None:
    """Raise ValueError for a shape that no tensor here may have."""
    if any(size < 1 for size in shape):
        raise ValueError(f"sizes {tuple(shape)} leave no element")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"sizes {tuple(shape)} are more than {MAX_ELEMENTS:,} elements")


def zeros(shape: Sequence[int]) -> Array:
    """Return an array of zeros of a shape that a tensor may have; ValueError for another."""
    check_size(shape)
    return np.zeros(shape)


def contiguous_strides(shape: Shape) -> Shape:
    """Return the steps, in elements, of a tensor that lies in memory without gaps."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


class Memory:
    """A run of numbers that tensors share: Torch7's storage."""

    __slots__ = ("data",)

    def __init__(self, data: Array | None = None) -> None:
        self.data: Array = np.zeros(0) if data is None else data

    def grow(self, size: int) -> None:
        """Make room for `size` elements, keeping those there are."""
        if size > self.data.size:
            data = np.zeros(size)
            data[: self.data.size] = self.data
            self.data = data


class Tensor:
    """A view of a memory; axes count from 0. A new one is empty until it is written or set."""

    __slots__ = ("memory", "offset", "shape", "strides")

    def __init__(
        self, memory: Memory | None = None, offset: int = 0, shape: Shape = (), strides: Shape = ()
    ) -> None:
        if shape:
            check_size(shape)
        self.memory = memory or Memory()
        self.offset = offset
        self.shape = shape
        self.strides = strides

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "Tensor":
        """Return a tensor that holds a copy of the values."""
        array = np.array(values, np.float64, order="C", ndmin=1)
        return cls(Memory(array.ravel()), 0, array.shape, contiguous_strides(array.shape))

    @property
    def rank(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    @property
    def count(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def array(self) -> Array:
        """Its elements, to read and to write, for as long as the memory does not grow."""
        strides = [8 * step for step in self.strides]
        return np.ndarray(self.shape, np.float64, self.memory.data, 8 * self.offset, strides)

    @property
    def contiguous(self) -> bool:
        """True where the elements lie in memory in order and without gaps."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1:
                if stride != step:
                    return False
                step *= size
        return True

    def resize(self, shape: Shape) -> "Tensor":
        """Take this shape; a tensor that has it keeps its strides, another becomes contiguous."""
        if shape != self.shape:
            check_size(shape)
            self.shape, self.strides = shape, contiguous_strides(shape)
            self.memory.grow(self.offset + math.prod(shape))
        return self

    def write(self, values: npt.ArrayLike) -> "Tensor":
        """Take the shape of the values and hold a copy of them."""
        array = np.atleast_1d(np.asarray(values, np.float64))
        self.resize(array.shape).array[...] = array
        return self

    def copy(self, other: "Tensor") -> "Tensor":
        """Torch7's `resizeAs(other):copy(other)`."""
        if other is not self:
            self.write(other.array)
        return self

    def set(self, other: "Tensor") -> "Tensor":
        """Become the same view of the same memory as `other`."""
        self.memory, self.offset = other.memory, other.offset
        self.shape, self.strides = other.shape, other.strides
        return self

    def elements(self, shape: Shape) -> Array:
        """Return the elements in another shape of as many; ValueError where not as many.

        Torch7's `add`, `cmul` and the like go by the number of elements, not by the shape.
        """
        return self.array.reshape(shape)

    def view(self, shape: Sequence[int]) -> "Tensor":
        """Return the same memory in another shape, one of whose sizes may be -1."""
        if not self.contiguous:
            raise ValueError("a view of a tensor that is not contiguous")
        sizes = list(shape)
        if sizes.count(-1) == 1:
            known = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = self.count // known if known > 0 else 0
        if math.prod(sizes) != self.count or min(sizes, default=0) < 1:
            raise ValueError(f"a view of {self.shape} as {tuple(shape)}")
        target = tuple(sizes)
        return Tensor(self.memory, self.offset, target, contiguous_strides(target))

    def select(self, axis: int, index: int) -> "Tensor":
        """Return one slice along an axis, without the axis."""
        if not (0 <= axis < self.rank > 1 and 0 <= index < self.shape[axis]):
            raise ValueError(f"slice {index + 1} along dimension {axis + 1} of {self.shape}")
        return Tensor(
            self.memory,
            self.offset + index * self.strides[axis],
            self.shape[:axis] + self.shape[axis + 1 :],
            self.strides[:axis] + self.strides[axis + 1 :],
        )

    def insert(self, axis: int, size: int, stride: int) -> "Tensor":
        """Return a view with one dimension more; of stride 0 it repeats the elements."""
        if not 0 <= axis <= self.rank:
            raise ValueError(f"a dimension before {axis + 1} of {self.shape}")
        return Tensor(
            self.memory,
            self.offset,
            (*self.shape[:axis], size, *self.shape[axis:]),
            (*self.strides[:axis], stride, *self.strides[axis:]),
        )

    def squeeze(self, axis: int | None = None) -> "Tensor":
        """Return a view without the dimensions of size 1, or without that one if it has size 1."""
        if axis is not None and not 0 <= axis < self.rank:
            raise ValueError(f"dimension {axis + 1} of {self.shape}")
        kept = [
            at
            for at in range(self.rank)
            if self.shape[at] != 1 or (axis is not None and at != axis)
        ]
        kept = kept or [0]  # one dimension stays
        return Tensor(
            self.memory,
            self.offset,
            tuple(self.shape[at] for at in kept),
            tuple(self.strides[at] for at in kept),
        )


Value: TypeAlias = Tensor | list["Value"]  # what a module takes and gives; a list is a Lua table
