"""Writes `.t7` records in any layout, as Torch7's own `File:writeObject` does, for tests."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.t7.objects import NATIVE, Layout

KINDS = {
    "f2": "Half",
    "f4": "Float",
    "f8": "Double",
    "i1": "Char",
    "i2": "Short",
    "i4": "Int",
    "i8": "Long",
    "u1": "Byte",
}


class Shared:
    """A storage that several tensors view."""

    def __init__(self, numbers: Any, kind: str = "Float") -> None:
        self.numbers = np.asarray(numbers)
        self.kind = kind


class View:
    """A tensor over a `Shared` storage: sizes, strides and offset in elements from 0."""

    def __init__(self, storage: Shared | None, shape: Any, strides: Any, offset: int = 0) -> None:
        self.storage, self.shape, self.strides, self.offset = storage, shape, strides, offset


class Module:
    """An object of a class, with fields; `modules` may be a list."""

    def __init__(self, class_name: str, /, **fields: Any) -> None:
        self.class_name = class_name
        self.fields = fields

    def __repr__(self) -> str:
        """Say the class and the fields, as an example that fails is shown."""
        fields = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{self.class_name}({fields})"


class Table:
    """A Lua table that may be a key of another, as those of a graph's nodes are."""

    def __init__(self, items: Mapping[Any, Any]) -> None:
        self.items = items


class Raw:
    """An object of a class that writes its bytes as they are, as torch.Generator does."""

    def __init__(self, class_name: str, content: bytes) -> None:
        self.class_name, self.content = class_name, content


class Sizes:
    """A LongStorage, as nn.View keeps its size."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes

    def __repr__(self) -> str:
        """Say the sizes."""
        return f"Sizes{self.sizes}"


def t7(value: Any, layout: Layout = NATIVE) -> bytes:
    """Return the file that holds `value`; objects that are the same are written once."""
    return b"".join(_Writer(layout).object(value))


def write(path: Path, value: Any, layout: Layout = NATIVE) -> Path:
    """Write `value` to a file and return its path."""
    path.write_bytes(t7(value, layout))
    return path


class _Writer:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.indices: dict[int, int] = {}
        self.kept: list[Any] = []  # so that ids stay unique

    def ints(self, *values: int) -> bytes:
        if self.layout.text:
            return b"".join(b"%d\n" % value for value in values)
        return struct.pack(f"{self.layout.order}{len(values)}i", *values)

    def longs(self, *values: int) -> bytes:
        if self.layout.text:
            return b" ".join(b"%d" % value for value in values) + b"\n" * bool(values)
        form = f"{len(values)}{'q' if self.layout.long == 8 else 'i'}"
        return struct.pack(self.layout.order + form, *values)

    def double(self, value: float) -> bytes:
        if self.layout.text:
            return b"%.17g\n" % value
        return struct.pack(f"{self.layout.order}d", value)

    def text(self, text: str | bytes) -> bytes:
        raw = text if isinstance(text, bytes) else text.encode()
        return self.ints(len(raw)) + raw + b"\n" * (self.layout.text and bool(raw))

    def numbers(self, numbers: Any) -> bytes:
        if not self.layout.text:
            return numbers.astype(self.layout.stored(numbers.dtype)).tobytes()
        if numbers.itemsize == 1:
            return numbers.tobytes() + b"\n" * bool(numbers.size)
        form = {"f2": "%.9g", "f4": "%.9g", "f8": "%.17g"}.get(numbers.dtype.str[1:], "%d")
        line = " ".join(form % value for value in numbers.ravel().tolist())
        return line.encode() + b"\n" * bool(numbers.size)

    def index(self, value: Any) -> tuple[int, bool]:
        self.kept.append(value)
        known = id(value) in self.indices
        return self.indices.setdefault(id(value), len(self.indices) + 1), known

    def object(self, value: Any) -> list[bytes]:
        if value is None:
            return [self.ints(0)]
        if isinstance(value, bool):
            return [self.ints(5, value)]
        if isinstance(value, (int, float)):
            return [self.ints(1), self.double(value)]
        if isinstance(value, (str, bytes)):
            return [self.ints(2), self.text(value)]
        if isinstance(value, (list, Mapping)):
            return self.table(value)
        if isinstance(value, Table):
            self.kept.append(value)
            return self.table(value.items)
        return self.torch(value)

    def table(self, value: Any) -> list[bytes]:
        index, known = self.index(value)
        head = [self.ints(3, index)]
        if known:
            return head
        pairs = enumerate(value, 1) if isinstance(value, list) else value.items()
        items = [piece for key, item in pairs for piece in self.object(key) + self.object(item)]
        return [*head, self.ints(len(value)), *items]

    def torch(self, value: Any) -> list[bytes]:
        index, known = self.index(value)
        head = [self.ints(4, index)]
        if known:
            return head
        head.append(self.text("V 1"))
        if isinstance(value, Module):
            return [*head, self.text(value.class_name), *self.table(value.fields)]
        if isinstance(value, Raw):
            end = b"\n" * self.layout.text
            return [*head, self.text(value.class_name), value.content, end]
        if isinstance(value, Sizes):
            value = Shared(np.array(value.sizes, "i8"), "Long")
        if isinstance(value, Shared):
            name, numbers = f"torch.{value.kind}Storage", value.numbers
            return [*head, self.text(name), self.longs(numbers.size), self.numbers(numbers)]
        if isinstance(value, np.ndarray):
            steps = [step // value.itemsize for step in np.ascontiguousarray(value).strides]
            value = View(
                Shared(np.ascontiguousarray(value), KINDS[value.dtype.str[1:]]), value.shape, steps
            )
        kind = value.storage.kind if value.storage is not None else "Float"
        geometry = [
            self.ints(len(value.shape)),
            self.longs(*value.shape),
            self.longs(*value.strides),
            self.longs(value.offset + 1),
        ]
        return [*head, self.text(f"torch.{kind}Tensor"), *geometry, *self.object(value.storage)]
