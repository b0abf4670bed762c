"""What a `.t7` file describes: Lua's tables and functions, Torch's objects, tensors and storages.

Source: torch/torch7 generic/Tensor.c and generic/Storage.c.
"""

import math
import mmap
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.errors import FormatError

# Of a view that repeats its storage: a file of a few bytes must not ask for more.
MAX_EXPANDED = 1 << 22

_ITEM_TYPES = {
    "Byte": "u1",
    "Char": "i1",
    "Short": "i2",
    "Int": "i4",
    "Long": "i8",
    "Half": "f2",
    "Float": "f4",
    "Double": "f8",
}


def _classes(suffix: str) -> dict[str, np.dtype[Any]]:
    # cutorch: torch.CudaTensor holds floats, torch.CudaLongTensor longs; the bytes are the same.
    names = {f"torch.{kind}{suffix}": np.dtype(item) for kind, item in _ITEM_TYPES.items()}
    gpu = {f"torch.Cuda{kind}{suffix}": np.dtype(item) for kind, item in _ITEM_TYPES.items()}
    del gpu[f"torch.CudaFloat{suffix}"]
    return {**names, **gpu, f"torch.Cuda{suffix}": np.dtype("f4")}


TENSOR_CLASSES = _classes("Tensor")
STORAGE_CLASSES = _classes("Storage")


class LuaTable(dict[Any, Any]):
    """A Lua table: equal only to itself, and usable as a key, as in Lua."""

    __slots__ = ()
    __hash__ = object.__hash__  # type: ignore[assignment]  # identity, as Lua has it

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def array(self) -> list[Any]:
        """Return the values at 1, 2, ... up to the first gap: what Lua's `ipairs` visits."""
        values: list[Any] = []
        while (value := self.get(len(values) + 1)) is not None:
            values.append(value)
        return values


class LuaBoolean(Enum):
    """A boolean used as a table key; Python would take True for the key 1."""

    TRUE = True
    FALSE = False


class TorchObject:
    """An object of any class but tensors and storages: its class name and its fields.

    `payload` is what a class writes besides its fields: the GPU list of an `nn.DataParallelTable`,
    `{type, device}` of an `nn.GPU`, the raw bytes of a `torch.Generator`; None for all others.
    """

    __slots__ = ("class_name", "fields", "payload", "version")

    def __init__(self, class_name: str, version: int) -> None:
        self.class_name = class_name
        self.version = version
        self.fields = LuaTable()
        self.payload: Any = None

    def __repr__(self) -> str:
        return f"<{self.class_name}>"


class Storage:
    """A run of numbers in the file: `size` items from byte `at`; nothing is read before `array`."""

    __slots__ = ("_array", "at", "class_name", "file", "size")

    def __init__(self, class_name: str, file: "T7File", at: int, size: int) -> None:
        self.class_name = class_name
        self.file = file
        self.at = at
        self.size = size
        self._array: npt.NDArray[Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.class_name} of {self.size}>"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its items in memory."""
        return STORAGE_CLASSES[self.class_name]

    def array(self) -> npt.NDArray[Any]:
        """Return all of it, read-only: a view of the file wherever its bytes are the machine's.

        Raises:
            FormatError: The storage is text that is not as many numbers as it says.
        """
        if self._array is None:
            self._array = self._read()
            self._array.flags.writeable = False
        return self._array

    def _read(self) -> npt.NDArray[Any]:
        stored = self.file.layout.stored(self.dtype)
        found = np.ndarray((self.size,), stored, buffer=self.file.data, offset=self.at)
        return found.astype(self.dtype, copy=False)


class _Wrong(NamedTuple):
    """What is wrong with a tensor, in one sentence and as errors say it."""

    said: str
    found: str
    expected: str


class Tensor:
    """A view of a storage; sizes, strides and offset count elements, the offset from 0."""

    __slots__ = ("at", "class_name", "file", "offset", "shape", "storage", "strides", "version")

    def __init__(
        self,
        class_record: tuple[str, int],
        file: "T7File",
        at: int,
        geometry: tuple[tuple[int, ...], tuple[int, ...], int],
    ) -> None:
        self.class_name, self.version = class_record
        self.file = file
        self.at = at
        self.shape, self.strides, self.offset = geometry
        self.storage: Storage | None = None

    def __repr__(self) -> str:
        return f"<{self.class_name} {'x'.join(map(str, self.shape)) or 'empty'}>"

    @property
    def size(self) -> int:
        """How many elements the view has; 0 for a tensor without dimensions, as in Torch7."""
        return math.prod(self.shape) if self.shape else 0

    @property
    def place(self) -> tuple[object, ...]:
        """Which elements of which storage it looks at; equal for what is one and the same."""
        return id(self.storage), self.offset, self.shape, self.strides

    def last(self) -> int:
        """Return the index in the storage of the last element; only of a tensor that has some."""
        steps = zip(self.shape, self.strides, strict=True)
        return self.offset + sum((size - 1) * step for size, step in steps)

    def array(self) -> npt.NDArray[Any]:
        """Return a read-only view of the storage's array, without copying.

        Raises:
            FormatError: The view reaches outside its storage, or the storage is no numbers.
        """
        if wrong := self._wrong():
            raise self.file.error(self.at, wrong.found, wrong.expected)
        if self.storage is None or self.size == 0:  # without a shape worth keeping
            return np.empty(0, TENSOR_CLASSES[self.class_name])
        base = self.storage.array()
        steps = [step * base.itemsize for step in self.strides]
        return np.ndarray(self.shape, base.dtype, base, self.offset * base.itemsize, steps)

    def problem(self) -> str | None:
        """Return what `array` would refuse of the view; None where its elements are there."""
        wrong = self._wrong()
        return wrong.said if wrong else None

    def _wrong(self) -> _Wrong | None:
        if self.size == 0:
            return None
        held, last = self.storage.size if self.storage is not None else 0, self.last()
        if last >= held:
            return _Wrong(
                f"reaches element {last + 1:,} of a storage of {held:,}",
                f"a tensor that reaches element {last + 1:,}",
                f"at most {held:,}: its storage's size",
            )
        if self.size > max(held, MAX_EXPANDED):
            return _Wrong(
                f"repeats {held:,} elements as {self.size:,}",
                f"{self.size:,} elements repeated from {held:,}",
                f"at most {MAX_EXPANDED:,}",
            )
        # The stride of a size of 1 leads nowhere, yet numpy has to hold it, in bytes.
        if max(self.strides) * TENSOR_CLASSES[self.class_name].itemsize > sys.maxsize:
            found = f"strides {self.strides}"
            return _Wrong(f"has {found}, beyond memory", found, "strides within the storage")
        return None


class Function:
    """A Lua function: kept as opaque bytes, never run."""

    __slots__ = ("bytecode", "record_type", "upvalues")

    def __init__(self, record_type: int, bytecode: bytes) -> None:
        self.record_type = record_type
        self.bytecode = bytecode
        self.upvalues: Any = None

    def __repr__(self) -> str:
        return "<function>"


@dataclass(frozen=True)
class Layout:
    """How a file spells its numbers: `order` as in `struct`, and bytes of a `long`."""

    order: str
    long: int
    text: bool = False

    def __str__(self) -> str:
        order = "little" if self.order == "<" else "big"
        return "text" if self.text else f"{order}-endian with a long of {self.long} bytes"

    @property
    def format(self) -> str:
        """What artifacts call it."""
        return "torch7-text" if self.text else "torch7-binary"

    def stored(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type of items in a binary file that are `dtype` in memory."""
        width = self.long if dtype == np.int64 else dtype.itemsize
        return np.dtype(f"{self.order}{dtype.kind}{width}")


NATIVE = Layout("<", 8)  # what 64-bit PCs wrote: nearly every file
TEXT = Layout("<", 8, text=True)


class T7File:
    """A mapped `.t7` file, and the layout it is read in."""

    def __init__(self, path: Path, data: mmap.mmap | bytes, layout: Layout = NATIVE) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.layout = layout

    def error(self, at: int, found: str, expected: str) -> FormatError:
        """Return an error that names the file, the byte, and the layout if it is a rare one."""
        read_as = "" if self.layout == NATIVE else f" (read as {self.layout})"
        return FormatError(self.path, at, found=found + read_as, expected=expected)


def walk(root: Any) -> Iterator[Any]:
    """Yield every table, object, tensor, storage and function below `root`, each once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (str, bytes, float, bool, LuaBoolean)) or value is None:
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, LuaTable):
            waiting.extend(value.keys())
            waiting.extend(value.values())
        elif isinstance(value, TorchObject):
            waiting.extend((value.payload, value.fields))
        elif isinstance(value, Tensor):
            waiting.append(value.storage)
        elif isinstance(value, Function):
            waiting.append(value.upvalues)
