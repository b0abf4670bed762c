"""Writes binary `.t7` records, as Torch7's own `File:writeObject` does, for tests."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte"}


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


class Sizes:
    """A LongStorage, as nn.View keeps its size."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes

    def __repr__(self) -> str:
        """Say the sizes."""
        return f"Sizes{self.sizes}"


def t7(value: Any) -> bytes:
    """Return the file that holds `value`; objects that are the same are written once."""
    return b"".join(_Writer().object(value))


def write(path: Path, value: Any) -> Path:
    """Write `value` to a file and return its path."""
    path.write_bytes(t7(value))
    return path


def _text(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<i", len(raw)) + raw


class _Writer:
    def __init__(self) -> None:
        self.indices: dict[int, int] = {}
        self.kept: list[Any] = []  # so that ids stay unique

    def index(self, value: Any) -> tuple[int, bool]:
        self.kept.append(value)
        known = id(value) in self.indices
        return self.indices.setdefault(id(value), len(self.indices) + 1), known

    def object(self, value: Any) -> list[bytes]:
        if value is None:
            return [struct.pack("<i", 0)]
        if isinstance(value, bool):
            return [struct.pack("<ii", 5, value)]
        if isinstance(value, (int, float)):
            return [struct.pack("<id", 1, value)]
        if isinstance(value, (str, bytes)):
            return [struct.pack("<i", 2), _text(value)]
        if isinstance(value, (list, Mapping)):
            return self.table(value)
        if isinstance(value, Table):
            self.kept.append(value)
            return self.table(value.items)
        return self.torch(value)

    def table(self, value: Any) -> list[bytes]:
        index, known = self.index(value)
        head = [struct.pack("<ii", 3, index)]
        if known:
            return head
        pairs = enumerate(value, 1) if isinstance(value, list) else value.items()
        items = [piece for key, item in pairs for piece in self.object(key) + self.object(item)]
        return [*head, struct.pack("<i", len(value)), *items]

    def torch(self, value: Any) -> list[bytes]:
        index, known = self.index(value)
        head = [struct.pack("<ii", 4, index)]
        if known:
            return head
        head.append(_text("V 1"))
        if isinstance(value, Module):
            return [*head, _text(value.class_name), *self.table(value.fields)]
        if isinstance(value, Sizes):
            return [
                *head,
                _text("torch.LongStorage"),
                struct.pack(f"<q{len(value.sizes)}q", len(value.sizes), *value.sizes),
            ]
        if isinstance(value, Shared):
            numbers = value.numbers
            return [
                *head,
                _text(f"torch.{value.kind}Storage"),
                struct.pack("<q", numbers.size),
                numbers.tobytes(),
            ]
        if isinstance(value, np.ndarray):
            steps = [step // value.itemsize for step in np.ascontiguousarray(value).strides]
            value = View(
                Shared(np.ascontiguousarray(value), KINDS[value.dtype.str[1:]]), value.shape, steps
            )
        kind = value.storage.kind if value.storage is not None else "Float"
        rank = len(value.shape)
        geometry = struct.pack(
            f"<i{2 * rank + 1}q", rank, *value.shape, *value.strides, value.offset + 1
        )
        return [*head, _text(f"torch.{kind}Tensor"), geometry, *self.object(value.storage)]
