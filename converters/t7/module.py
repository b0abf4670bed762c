"""One module of a file: its place in the network, and its fields with their types checked."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from converters.t7.objects import LuaTable, Storage, Tensor, TorchObject
from converters.t7.reader import kind
from models.errors import FormatError, UnsupportedLayer
from models.graph import Array

# Modules that are not in `modules` (nn/SpatialSubtractiveNormalization.lua and its siblings).
INNER = ("meanestimator", "stdestimator", "normalizer")


MAX_DEPTH = 100  # containers inside containers, Inception-ResNet-v2 has 8; torch copies recursively
MAX_SIZES = 16  # dimensions of a shape; Torch7's longest have 6


class Ledger:
    """What all modules of one reading share: the file, and which of its tensors were asked for."""

    def __init__(self, path: Path, numbers: Mapping[int, Array] | None = None) -> None:
        """Note the file's name for errors; `numbers`, by tensor id, stand in for the file's."""
        self.path = path
        self.numbers = numbers or {}
        self.claimed: set[int] = set()


class Module:
    """A module of the file and its place in the network; fields are read with types checked."""

    def __init__(
        self,
        source: TorchObject,
        path: str,
        ledger: Ledger,
        made: Mapping[str, Array] | None = None,
    ) -> None:
        self.source = source
        self.path = path
        self.ledger = ledger
        self.made = made or {}  # tensors that another module computes, in place of the file's

    @property
    def name(self) -> str:
        """What its nodes are called: its path, or `layer` for a module that is the whole file."""
        return self.path or "layer"

    def error(self, field: str, found: Any, expected: str) -> FormatError:
        """Return an error that names this layer."""
        at = f"layer {self.path or '(the whole file)'} ({self.source.class_name})"
        shown = kind(found) if isinstance(found, LuaTable) or found is None else repr(found)[:60]
        return FormatError(self.ledger.path, at, found=f"{field} = {shown}", expected=expected)

    def unsupported(self, reason: str) -> UnsupportedLayer:
        """Return an error that says why this layer, whose class has a rule, cannot be exact."""
        return UnsupportedLayer(
            self.ledger.path, [(self.path, f"{self.source.class_name}: {reason}")]
        )

    def has(self, field: str) -> bool:
        """Tell whether a field is there at all."""
        return field in self.source.fields

    def number(self, field: str, default: float | None = None) -> float:
        """Return a field that is a number."""
        value = self.source.fields.get(field, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, float | int)
            or not math.isfinite(value)
        ):
            raise self.error(field, value, "a finite number")
        return float(value)

    def integer(self, field: str, default: int | None = None) -> int:
        """Return a field that is a whole number, as Lua writes one."""
        value = self.number(field, default)
        if not value.is_integer() or abs(value) > 2**31:
            raise self.error(field, value, "a whole number")
        return int(value)

    def count(self, field: str) -> int:
        """Return a field that is a whole number of 1 or more."""
        value = self.integer(field)
        if value < 1:
            raise self.error(field, value, "1 or more")
        return value

    def flag(self, field: str, default: bool = False) -> bool:
        """Return a field as Lua takes it in a condition: only nil and false are false."""
        value = self.source.fields.get(field, default)
        return value is not None and value is not False

    def sizes(self, field: str) -> tuple[int, ...]:
        """Return a field that is a LongStorage of sizes."""
        value = self.source.fields.get(field)
        if not isinstance(value, Storage) or value.dtype.kind != "i":
            raise self.error(field, value, "a LongStorage")
        if value.size > MAX_SIZES:
            raise self.error(field, value, f"a LongStorage of at most {MAX_SIZES} sizes")
        return tuple(int(size) for size in value.array())

    def tensor(self, field: str) -> Array:
        """Return a field that is a tensor of any precision, and note that it was used."""
        if field in self.made:
            return self.made[field]
        value = self.source.fields.get(field)
        if not isinstance(value, Tensor):
            raise self.error(field, value, "a tensor")
        array = self.ledger.numbers.get(id(value))
        if array is None:
            array = value.array()
        if array.dtype.kind != "f":
            raise self.error(field, value, "a tensor of floats")
        self.ledger.claimed.add(id(value))
        return array

    def optional(self, field: str) -> Array | None:
        """Return a field that is a tensor; None where it is absent or empty, as no bias is."""
        value = self.source.fields.get(field)
        empty = value is None or (isinstance(value, Tensor) and value.size == 0)
        return None if empty and field not in self.made else self.tensor(field)

    def claim(self, field: str) -> None:
        """Note that a field holds nothing that the network needs."""
        self.ledger.claimed.add(id(self.source.fields.get(field)))

    def children(self) -> list["Module"]:
        """Return the modules inside, in Lua's order, named from 0 as torch.nn names them."""
        table = self.source.fields.get("modules")
        if not isinstance(table, LuaTable):
            raise self.error("modules", table, "a table of modules")
        found = table.array()
        if len(found) != len(table):
            raise self.error("modules", f"{len(table)} entries", f"1 to {len(table)} without a gap")
        return [self.child(child, index) for index, child in enumerate(found)]

    def child(self, source: Any, index: int) -> "Module":
        """Return one module inside this one."""
        if not isinstance(source, TorchObject):
            raise self.error(f"modules[{index + 1}]", source, "a module")
        return Module(source, self._below(str(index)), self.ledger)

    def only_child(self) -> "Module":
        """Return the module that this one wraps."""
        children = self.children()
        if len(children) != 1:
            raise self.error("modules", f"{len(children)} modules", "one")
        return children[0]

    def inner(self, field: str) -> "Module":
        """Return a module that is kept in a field of its own."""
        source = self.source.fields.get(field)
        if not isinstance(source, TorchObject):
            raise self.error(field, source, "a module")
        return Module(source, self._below(field), self.ledger)

    def _below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def with_tensors(self, **made: Array) -> "Module":
        """Return the same module with tensors that are computed, in place of the file's."""
        return Module(self.source, self.path, self.ledger, made)


def modules(top: Module) -> Iterator[Module]:
    """Yield every module once, with the first path that leads to it, in the order of Lua.

    Raises:
        UnsupportedLayer: They nest deeper than any network's.
        FormatError: What should be a table of modules is none.
    """
    seen: set[int] = set()  # modules, and tables of them: several may share one
    waiting = [top]
    while waiting:
        module = waiting.pop()
        if id(module.source) in seen:
            continue
        seen.add(id(module.source))
        if module.path.count(".") >= MAX_DEPTH:
            raise module.unsupported(f"modules nested more than {MAX_DEPTH} deep")
        yield module
        fields = module.source.fields
        waiting.extend(
            module.inner(name) for name in INNER if isinstance(fields.get(name), TorchObject)
        )
        table = fields.get("modules")
        if isinstance(table, LuaTable) and id(table) not in seen:
            seen.add(id(table))
            waiting.extend(reversed(module.children()))
