"""What a `.t7` file describes: Lua's tables and functions, Torch's objects, tensors and storages.

Source: torch/torch7 generic/Tensor.c and generic/Storage.c.
"""

import math
import mmap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import FormatError

# Of a view that repeats its storage: a file of a few bytes must not ask for more.
MAX_EXPANDED = 1 << 22

_ITEM_TYPES = {
    "Byte": "u1",
    "Char": "i1",
    "Short": "<i2",
    "Int": "<i4",
    "Long": "<i8",
    "Half": "<f2",
    "Float": "<f4",
    "Double": "<f8",
}


def _classes(suffix: str) -> dict[str, np.dtype[Any]]:
    # cutorch: torch.CudaTensor holds floats, torch.CudaLongTensor longs; the bytes are the same.
    names = {f"torch.{kind}{suffix}": np.dtype(item) for kind, item in _ITEM_TYPES.items()}
    gpu = {f"torch.Cuda{kind}{suffix}": np.dtype(item) for kind, item in _ITEM_TYPES.items()}
    del gpu[f"torch.CudaFloat{suffix}"]
    return {**names, **gpu, f"torch.Cuda{suffix}": np.dtype("<f4")}


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
    """An object of any class but tensors and storages: its class name and its fields."""

    __slots__ = ("class_name", "fields", "version")

    def __init__(self, class_name: str, version: int) -> None:
        self.class_name = class_name
        self.version = version
        self.fields = LuaTable()

    def __repr__(self) -> str:
        return f"<{self.class_name}>"


class Storage:
    """A run of numbers in the file: `size` items from byte `at`."""

    __slots__ = ("at", "class_name", "file", "size")

    def __init__(self, class_name: str, file: "T7File", at: int, size: int) -> None:
        self.class_name = class_name
        self.file = file
        self.at = at
        self.size = size

    def __repr__(self) -> str:
        return f"<{self.class_name} of {self.size}>"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its items in the file."""
        return STORAGE_CLASSES[self.class_name]

    def array(self) -> npt.NDArray[Any]:
        """Return all of it as a read-only array over the file, without copying."""
        return np.ndarray((self.size,), self.dtype, buffer=self.file.data, offset=self.at)


class Tensor:
    """A view of a storage; sizes, strides and offset count elements, the offset from 0."""

    __slots__ = ("at", "class_name", "file", "offset", "shape", "storage", "strides")

    def __init__(
        self,
        class_name: str,
        file: "T7File",
        at: int,
        geometry: tuple[tuple[int, ...], tuple[int, ...], int],
    ) -> None:
        self.class_name = class_name
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

    def array(self) -> npt.NDArray[Any]:
        """Return a read-only array over the file, without copying.

        Raises:
            FormatError: The view reaches outside its storage.
        """
        dtype = TENSOR_CLASSES[self.class_name]
        if self.size == 0:
            return np.empty(0, dtype)  # Torch7's empty tensors have no shape worth keeping
        held = self.storage.size if self.storage is not None else 0
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)
        )
        if self.storage is None or last >= held:
            raise self.file.error(
                self.at,
                f"a tensor that reaches element {last + 1:,}",
                f"at most {held:,}: its storage's size",
            )
        if self.size > max(held, MAX_EXPANDED):
            raise self.file.error(
                self.at,
                f"{self.size:,} elements repeated from {held:,}",
                f"at most {MAX_EXPANDED:,}",
            )
        try:
            return np.ndarray(
                self.shape,
                dtype,
                buffer=self.file.data,
                offset=self.storage.at + self.offset * dtype.itemsize,
                strides=[step * dtype.itemsize for step in self.strides],
            )
        except (ValueError, OverflowError) as error:  # a stride beyond memory, of a size of 1
            raise self.file.error(
                self.at, f"strides {self.strides}", "strides within the storage"
            ) from error


class Function:
    """A Lua function: kept as opaque bytes, never run."""

    __slots__ = ("bytecode", "record_type", "upvalues")

    def __init__(self, record_type: int, bytecode: bytes) -> None:
        self.record_type = record_type
        self.bytecode = bytecode
        self.upvalues: Any = None

    def __repr__(self) -> str:
        return "<function>"


class T7File:
    """A mapped `.t7` file."""

    def __init__(self, path: Path, data: mmap.mmap | bytes) -> None:
        self.path = path
        self.data = data
        self.size = len(data)

    def error(self, at: int, found: str, expected: str) -> FormatError:
        """Return an error that names the file and the byte."""
        return FormatError(self.path, at, found=found, expected=expected)


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
            waiting.append(value.fields)
        elif isinstance(value, Tensor):
            waiting.append(value.storage)
        elif isinstance(value, Function):
            waiting.append(value.upvalues)
