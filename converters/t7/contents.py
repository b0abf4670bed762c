"""What is in a `.t7`, whatever it is: every value at its place, and who else refers to it.

Nothing is refused and nothing is repeated. What cannot be part of a network is listed as well as
what can, a second reference names the place of the first, and of a file that nests or branches
without end a bounded part is listed and the rest is counted.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from converters.t7.module import INNER, MAX_DEPTH
from converters.t7.network import STATE_FIELDS, layer
from converters.t7.objects import (
    Function,
    LuaBoolean,
    LuaTable,
    Storage,
    Tensor,
    TorchObject,
    walk,
)
from converters.t7.text import TextStorage
from models.graph import is_statistic

MAX_ENTRIES = 100_000
MAX_PATH = 1_000  # characters
MAX_KEY = 60
MAX_TEXT = 200
MAX_VALUES = 1_000  # of one table

# Every nn.Module has the last two from its constructor (nn/Module.lua).
_OF_MODULES = ("modules", "output", "gradInput")

Scalar = str | int | float | bool | dict[str, str] | None


@dataclass(slots=True, eq=False)
class Entry:
    """One value of the file, or a reference to one.

    Attributes:
        name: Its key, as `path` ends.
        kind: `module`, `object`, `table`, `tensor`, `storage`, `function`, `reference`, or for a
            file that is one plain value `string`, `number`, `boolean` or `nil`.
        value: As the reader gave it.
        role: What it is to the module that holds it: `parameter`, `statistic` or `state` for a
            tensor, `module`; `other` where none of these.
        inside: Whether a module holds it, at whatever depth.
        path: Where it is: `modules` by their index from 0, fields and keys as Lua writes them.
        values: What it holds that is plain, by key; `more_values` have been left out.
        empty: Fields that are tensors without elements and without a storage.
        of: Of a reference: the path of what it refers to.
        cycle: Of a reference: that is around it.
    """

    name: str
    kind: str
    value: Any
    depth: int
    parent: "Entry | None"
    path: str
    role: str
    inside: bool
    values: dict[str, Scalar] = field(default_factory=dict)
    more_values: int = 0
    empty: list[str] = field(default_factory=list)
    of: str | None = None
    cycle: bool = False


# What will be an entry: its name, the value, its role.
_Child = tuple[str, Any, str]


class Contents:
    """The entries of a file in the order of their paths, holders before what they hold."""

    def __init__(self, root: Any) -> None:
        self.entries: list[Entry] = []
        self.modules: dict[int, tuple[str, TorchObject]] = {}  # by id: the path, the module
        self.not_listed = 0
        self._roles: dict[int, str] = {}
        self._holders: dict[int, TorchObject] = {}  # by id of what several objects may share
        self._listed: dict[int, Entry] = {}
        if self._list(root):
            self.not_listed += self._hidden(root)

    def classes(self) -> Counter[str]:
        """Return the classes of the modules and how many there are of each."""
        return Counter(module.class_name for _, module in self.modules.values())

    def without_rule(self) -> list[str]:
        """Return the classes of modules that no rule covers, sorted."""
        return sorted(name for name in self.classes() if name not in layer)

    def _list(self, root: Any) -> bool:
        """List everything below `root`; tell whether some of it had to be left out."""
        waiting: list[tuple[_Child, Entry | None]] = [(("", root, "other"), None)]
        cut = False
        while waiting:
            (name, value, role_), parent = waiting.pop()
            depth = parent.depth + 1 if parent else 0
            path = _joined(parent.path if parent else "", name)
            if len(self.entries) >= MAX_ENTRIES or depth > MAX_DEPTH or len(path) > MAX_PATH:
                cut = True
                self.not_listed += id(value) in self._listed  # a reference
                continue
            inside = parent is not None and (parent.inside or parent.kind == "module")
            kind = self._kind(value, path, inside)
            entry = Entry(name, kind, value, depth, parent, path, role_, inside)
            self.entries.append(entry)
            if entry.kind == "reference":
                self._refer(entry)
                continue
            self._listed[id(value)] = entry
            entry.role = self._roles.get(id(value), role_)
            waiting.extend((child, entry) for child in reversed(self._below(entry, role_)))
        return cut

    def _kind(self, value: Any, path: str, inside: bool) -> str:
        kind = _KINDS.get(type(value))
        if kind is None:
            return _PLAIN_KINDS[type(value)]
        if id(value) in self._listed:
            return "reference"
        if kind == "object":
            # What a module has in a field of its own is no layer: nobody calls it but that module.
            if not inside and id(value) not in self.modules and _is_module(value, path):
                self._claim(value, path)
            if id(value) in self.modules:
                return "module" if self.modules[id(value)][0] == path else "reference"
        return kind

    def _claim(self, top: TorchObject, path: str) -> None:
        """Note the place of every module of a network before anything else can refer to it.

        The order is that of `converters.t7.module.modules`, so the paths are the same.
        """
        waiting = [(top, path, 0)]
        while waiting:
            module, path, depth = waiting.pop()
            if id(module) in self.modules:
                continue
            self.modules[id(module)] = path, module
            if self._holders.setdefault(id(module.fields), module) is module:
                for key, value in module.fields.items():
                    if isinstance(value, Tensor) and (known := role(key)) != "state":
                        self._roles.setdefault(id(value), known)
            if depth < MAX_DEPTH and len(path) < MAX_PATH:
                self._holders.setdefault(id(module.fields.get("modules")), module)
                below = self._submodules(module)
                waiting.extend(
                    (child, _joined(path, name), depth + 1) for name, child in reversed(below)
                )

    def _submodules(self, module: TorchObject) -> list[tuple[str, TorchObject]]:
        """Return the modules inside by name, as `converters.t7.module.modules` has them.

        What stands among them and is no module is passed over, for the caller to list, and so is a
        table of modules that another module has as well and had first.
        """
        table = module.fields.get("modules")
        held: list[Any] = []
        if isinstance(table, LuaTable) and self._holders.get(id(table)) is module:
            held = table.array()
        return [
            (str(index), one) for index, one in enumerate(held) if isinstance(one, TorchObject)
        ] + [
            (name, module.fields[name])
            for name in reversed(INNER)
            if isinstance(module.fields.get(name), TorchObject)
        ]

    def _hidden(self, root: Any) -> int:
        """Count the tables, objects, tensors and functions of the file that are not listed."""
        parts: set[int] = set()  # of an object, and no value by itself
        count = 0
        for value in walk(root):
            if isinstance(value, TorchObject):
                inside = value.fields.get("modules")
                parts |= {id(value.fields), id(inside) if isinstance(inside, LuaTable) else 0}
            elif isinstance(value, Storage) or (isinstance(value, Tensor) and _is_empty(value)):
                continue
            count += id(value) not in self._listed and id(value) not in parts
        return count

    def _refer(self, entry: Entry) -> None:
        there = self._listed.get(id(entry.value))
        entry.of = there.path if there else self.modules[id(entry.value)][0]
        around = entry.parent
        while around is not None and around is not there:
            around = around.parent
        entry.cycle = there is not None and around is there

    def _below(self, entry: Entry, role_: str) -> list[_Child]:
        """Return what an entry holds and is listed by itself, and note the rest in the entry."""
        value = entry.value
        if isinstance(value, Function):
            held = value.upvalues
            return [("upvalues", held, role_)] if type(held) in _KINDS else []
        if isinstance(value, LuaTable):
            return self._pairs(entry, value, role_)
        if not isinstance(value, TorchObject):
            return []
        payload = value.payload
        extra = [("payload", payload, role_)] if isinstance(payload, LuaTable) else []
        fields: list[_Child] = [("fields", value.fields, role_)]  # where another object has them
        if self._listed.setdefault(id(value.fields), entry) is entry:
            fields = self._pairs(entry, value.fields, role_)
        if entry.kind != "module":
            return extra + fields
        below: list[_Child] = [(name, child, "module") for name, child in self._submodules(value)]
        listed = {name for name, _, _ in below}
        table = value.fields.get("modules")
        if isinstance(table, LuaTable) and len(table) == sum(one.isdigit() for one in listed):
            listed.add("modules")  # nothing but modules in it
        own = [(name, held, role(name)) for name, held, _ in fields if name not in listed]
        tensors = [one for one in own if isinstance(one[1], Tensor)]
        others = [
            (name, held, "state" if role_ == "state" else "other")
            for name, held, role_ in own
            if not isinstance(held, Tensor)
        ]
        return tensors + below + extra + others

    def _pairs(self, entry: Entry, table: LuaTable, role_: str) -> list[_Child]:
        """Return what a table holds and is listed by itself; note its plain values in the entry."""
        below: list[_Child] = []
        values = entry.values
        for index, (key, value) in enumerate(table.items(), 1):
            if type(key) in _KINDS:
                below.append((f"[key {index}]", key, role_))
                name = f"[of key {index}]"
            else:
                name = key_text(key)
            kind = _KINDS.get(type(value))
            if kind is None:
                if len(values) < MAX_VALUES and name not in values:
                    values[name] = plain(value)
                else:
                    entry.more_values += 1
            elif kind == "tensor" and _is_empty(value):
                entry.empty.append(name)
            else:
                below.append((name, value, role_))
        return below


# What gets an entry of its own, and what does so only as the whole file.
_KINDS: dict[type, str] = {
    LuaTable: "table",
    TorchObject: "object",
    Tensor: "tensor",
    Storage: "storage",
    TextStorage: "storage",
    Function: "function",
}
_PLAIN_KINDS: dict[type, str] = {
    str: "string",
    bytes: "string",
    float: "number",
    bool: "boolean",
    type(None): "nil",
}


def _is_empty(tensor: Tensor) -> bool:
    return (tensor.storage is None or tensor.storage.size == 0) and tensor.size == 0


def _is_module(value: TorchObject, path: str) -> bool:
    """Tell whether an object is a module as far as its class, its fields and its place say."""
    if value.class_name.startswith("torch."):  # such as torch.Generator
        return False
    known = value.class_name in layer or any(name in value.fields for name in _OF_MODULES)
    return known or not path


def role(field: Any) -> str:
    """Return what a tensor is to its module, by the field that holds it."""
    if field in STATE_FIELDS:
        return "state"
    # batch normalisation of 2015 kept 1 / sqrt(variance + eps)
    return "statistic" if is_statistic(str(field)) or field == "running_std" else "parameter"


@lru_cache  # field names return thousands of times
def key_text(key: Any) -> str:
    """Return a key as Lua writes it: a name as it is, all others in brackets."""
    if isinstance(key, str) and key.isidentifier() and len(key) <= MAX_KEY:
        return key
    if isinstance(key, LuaBoolean):
        return f"[{str(key.value).lower()}]"
    shown = plain(key, MAX_KEY)
    quoted = isinstance(key, str | bytes)
    return f"[{json.dumps(shown, ensure_ascii=False) if quoted else shown}]"


def plain(value: Any, most: int = MAX_TEXT) -> Scalar:
    """Return a number, a string, a boolean or nil as JSON can hold it, long strings cut short.

    JSON has no infinity and no NaN: they become `{"number": "inf"}` and the like.
    """
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 2**53:
            return int(value) if value or math.copysign(1, value) > 0 else value  # -0.0
        return value if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, str) and len(value) > most:
        return f"{value[:most]}... and {len(value) - most:,} more"
    found: Scalar = value
    return found


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and not name.startswith("[") else path + name
