"""The fields of a module as Lua sees them, each checked before it is believed."""

from pathlib import Path
from typing import Any

import numpy as np

from converters.t7.objects import LuaTable, Storage, TorchObject
from converters.t7.objects import Tensor as StoredTensor
from converters.t7_oracle.tensor import MAX_ELEMENTS, Array, Tensor, Value
from models.errors import FormatError, UnsupportedLayer

MAX_KERNEL = 1 << 14  # of a window's side; more would only make a loop long


class Fields:
    """A module's fields, and the errors that name them."""

    def __init__(self, module: TorchObject, path: str, source: str | Path) -> None:
        self.object = module
        self.path = path
        self.source = source

    @property
    def name(self) -> str:
        """The module's class."""
        return self.object.class_name

    def get(self, name: str) -> Any:
        """Return a field as it is stored; None for nil."""
        return self.object.fields.get(name)

    def has(self, name: str) -> bool:
        """True where the field is not nil."""
        return self.get(name) is not None

    def flag(self, name: str, default: bool = False) -> bool:
        """Return Lua's truth of a field: all but nil and false is true."""
        value = self.get(name)
        return default if value is None else value is not False

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number; the default stands for nil."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not float:
            raise self.wrong(name, "a number")
        return value

    def whole(self, name: str, default: int | None = None, *, least: int | None = None) -> int:
        """Return a whole number, not below `least`; the default stands for nil."""
        value = self.number(name, default)
        if not float(value).is_integer() or abs(value) > MAX_ELEMENTS:
            raise self.wrong(name, "a whole number")
        if least is not None and value < least:
            raise self.wrong(name, f"{least} or more")
        return int(value)

    def pair(self, name: str, default: int | None = None, *, least: int = 0) -> tuple[int, int]:
        """Return the sizes `nameH` and `nameW` of a window, its stride or its padding."""
        sides = []
        for side in (f"{name}H", f"{name}W"):
            size = self.whole(side, default, least=least)
            if size > MAX_KERNEL:
                raise self.wrong(side, f"{MAX_KERNEL:,} or less")
            sides.append(size)
        return sides[0], sides[1]

    def maybe(self, name: str) -> Array | None:
        """Return a tensor's numbers as float64, None for nil and for a tensor of no elements."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, StoredTensor):
            raise self.wrong(name, "a tensor")
        return value.array().astype(np.float64) if value.size else None

    def weight(self, name: str) -> Array:
        """Return a tensor's numbers as float64."""
        value = self.maybe(name)
        if value is None:
            raise self.wrong(name, "a tensor")
        return value

    def sizes(self, name: str) -> tuple[int, ...]:
        """Return the numbers of a LongStorage."""
        value = self.get(name)
        if not isinstance(value, Storage) or not 0 < value.size <= 16:
            raise self.wrong(name, "a LongStorage of up to 16 sizes")
        return tuple(int(size) for size in value.array())

    def entry(self, name: str) -> LuaTable:
        """Return a table."""
        value = self.get(name)
        if not isinstance(value, LuaTable):
            raise self.wrong(name, "a table")
        return value

    def module(self, name: str) -> TorchObject:
        """Return a module that a field holds."""
        value = self.get(name)
        if not isinstance(value, TorchObject):
            raise self.wrong(name, "a module")
        return value

    def modules(self) -> list[TorchObject]:
        """Return the modules of a container."""
        found = self.entry("modules").array()
        if not all(isinstance(module, TorchObject) for module in found):
            raise self.wrong("modules", "modules only")
        return found

    def axis(self, dimension: int, rank: int) -> int:
        """Return a dimension, counted from 1 or from the end, as an axis from 0."""
        axis = dimension - 1 if dimension > 0 else dimension + rank
        if not 0 <= axis < rank or dimension == 0:
            raise self.refused(f"dimension {dimension} of a tensor of {rank}")
        return axis

    def batched_axis(self, rank: int, name: str, rank_name: str) -> int:
        """Return the axis of a field `dimension`; a batch before `nInputDims` others moves it on.

        Source: nn JoinTable.lua, SplitTable.lua, Sum.lua, Max.lua: `_getPositiveDimension`.
        """
        dimension = self.whole(name)
        if dimension > 0 and self.has(rank_name) and rank == self.whole(rank_name) + 1:
            dimension += 1
        return self.axis(dimension, rank)

    def tensor(self, x: Value) -> Tensor:
        """Return an input that has to be a tensor."""
        if not isinstance(x, Tensor):
            raise self.refused("takes a tensor, its input is a table")
        return x

    def entries(self, x: Value) -> list[Value]:
        """Return the entries of an input that has to be a table of at least one."""
        if not isinstance(x, list):
            raise self.refused("takes a table, its input is a tensor")
        if not x:
            raise self.refused("takes a table, its input has no entries")
        return x

    def tensors(self, x: Value) -> list[Tensor]:
        """Return the entries of an input that has to be a table of tensors."""
        return [self.tensor(entry) for entry in self.entries(x)]

    def ranked(self, x: Tensor, *ranks: int) -> Tensor:
        """Return an input that has to have as many dimensions as one of `ranks`."""
        if x.rank not in ranks:
            wanted = " or ".join(map(str, ranks))
            raise self.refused(f"takes {wanted} dimensions, its input has {x.rank}")
        return x

    def wrong(self, name: str, expected: str) -> FormatError:
        """Return the error for a field that is missing or wrong."""
        value = self.get(name)
        found = "nil" if value is None else _described(value)
        where = f"layer {self.path or '(the whole file)'} ({self.name})"
        return FormatError(self.source, where, found=f"{name} = {found}", expected=expected)

    def refused(self, reason: str) -> UnsupportedLayer:
        """Return the error for an input or a setting that the module has no result for."""
        return UnsupportedLayer(self.source, [(self.path, f"{self.name}: {reason}")])


def _described(value: Any) -> str:
    if isinstance(value, LuaTable):
        return "a table"
    return f"{value:g}" if type(value) is float else repr(value)[:60]
