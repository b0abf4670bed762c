"""The records of a `.t7` file, assembled into the objects they describe.

What a record consists of is the same in every layout; how its ints, longs, doubles and bytes are
spelled is not, and comes from a subclass: `binary.py` or `text.py`. Nothing is executed and nothing
is believed before it is checked, so reading takes memory for the objects alone, whatever sizes the
file claims.

Source: torch/torch7 File.lua (records), generic/Tensor.c, generic/Storage.c and Generator.c
(payloads); torch/nn GPU.lua and torch/cunn DataParallelTable.lua (classes that write two objects).
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from converters.t7.objects import (
    STORAGE_CLASSES,
    TENSOR_CLASSES,
    Function,
    LuaBoolean,
    LuaTable,
    Storage,
    T7File,
    Tensor,
    TorchObject,
)

NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN = range(6)
FUNCTION, LEGACY_RECUR_FUNCTION, RECUR_FUNCTION = 6, 7, 8

MAX_DIMENSIONS = 64  # numpy's own limit; the formats of the time stop at 5
MAX_CLASS_NAME = 200  # for one line of an error; Torch7's longest have 40

# struct THGenerator: its 624 words of state, each an unsigned long, begin after three longs and
# two ints less padding; lib/TH/THRandom.h. The second is that of machines whose long has 4 bytes.
GENERATOR_BYTES, GENERATOR_BYTES_LONG_4 = 5048, 2544
_STATE = slice(24, 24 + 624 * 8)

NOTHING = object()


class Records(ABC):
    """Reads one object and everything it holds, without recursion: files nest without limit."""

    def __init__(self, file: T7File) -> None:
        self.file = file
        self.at = 0
        self.objects: dict[int, Any] = {}
        self.texts: dict[bytes, str] = {}
        self.classes: dict[bytes, str] = {}

    @abstractmethod
    def read_int(self) -> int:
        """Read an int: 4 bytes, or a word of text."""

    @abstractmethod
    def read_double(self) -> float:
        """Read a double."""

    @abstractmethod
    def read_longs(self, count: int) -> tuple[int, ...]:
        """Read `count` longs."""

    @abstractmethod
    def read_bytes(self, length: int, what: str) -> bytes:
        """Read `length` bytes; `what` names them should the file be shorter."""

    @abstractmethod
    def step_over(self, class_name: str, size: int) -> Storage:
        """Return a storage over the next `size` numbers, and go on after them."""

    def read(self) -> Any:
        """Return the object at the start of the file.

        Raises:
            FormatError: The file is cut short or contradicts itself.
        """
        stack: list[tuple[Any, int, Any]] = []  # (holder, values left, key): who waits for a value
        holder: Any = None
        left, key = 0, NOTHING
        while True:
            value, awaited = self.record()
            if awaited:
                stack.append((holder, left, key))
                holder, left, key = value, awaited, NOTHING
            while True:
                if not awaited:  # hand the value to who waits for it
                    if holder is None:
                        return value
                    if type(holder) is not LuaTable:
                        self._complete(holder, value, left)
                        left -= 1
                    elif key is NOTHING:
                        key = self.key(value)
                    else:
                        holder[key] = value
                        if value is None:  # in Lua a key with a nil value is an absent key
                            del holder[key]
                        key = NOTHING
                        left -= 1
                awaited = 0
                if left and key is NOTHING and type(holder) is LuaTable:
                    left, key = self.plain_pairs(holder, left)
                if left:
                    break
                value = holder  # who waits for nothing more is itself a value
                holder, left, key = stack.pop()

    def plain_pairs(self, _table: LuaTable, left: int) -> tuple[int, Any]:
        """Read pairs of strings, numbers and booleans ahead, if that is cheaper than one by one.

        Returns how many of the table's pairs are left, and the key of the next if it was read.
        """
        return left, NOTHING

    def record(self) -> tuple[Any, int]:
        """Read a record's head: its value, and how many values or pairs complete it."""
        start = self.at
        tag = self.read_int()
        if tag == STRING:
            return self.string(), 0
        if tag == NUMBER:
            return self.read_double(), 0
        if tag == TABLE:
            return self.table()
        if tag == TORCH:
            return self.torch_object()
        if tag == BOOLEAN:
            return self.read_int() == 1, 0
        if tag == NIL:
            return None, 0
        if tag in (FUNCTION, LEGACY_RECUR_FUNCTION, RECUR_FUNCTION):
            return self.function(tag)
        raise self.file.error(start, f"type id {tag}", "0 to 8: the file is damaged, or no .t7")

    def string(self) -> str | bytes:
        """Read a string."""
        raw = self.read_bytes(self.read_int(), "string")
        text = self.texts.get(raw)
        return self.text(raw) if text is None else text

    def text(self, raw: bytes) -> str | bytes:
        """Return a string's bytes as text if they are UTF-8, else as they are."""
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return raw
        if len(raw) < 64:  # field names return thousands of times
            self.texts[raw] = text
        return text

    def table(self) -> tuple[Any, int]:
        """Read a table's head."""
        index = self.read_int()
        value = self.objects.get(index)
        if value is not None:
            return value, 0
        start = self.at
        count = self.read_int()
        if count < 0:
            raise self.file.error(start, f"a table of {count:,} entries", "0 or more")
        self.objects[index] = value = LuaTable()
        return value, count

    def torch_object(self) -> tuple[Any, int]:
        """Read the head of an object, a tensor or a storage."""
        index = self.read_int()
        value = self.objects.get(index)
        if value is not None:
            return value, 0
        name, version = self.class_record()
        awaited = 1
        if name in STORAGE_CLASSES:
            value, awaited = self._storage(name), 0
        elif name in TENSOR_CLASSES:
            value = self._tensor(name, version)
        else:
            value = TorchObject(name, version)
            if name == "torch.Generator":
                value.payload, awaited = self._generator(), 0
            elif name == "nn.GPU" or (name == "nn.DataParallelTable" and version > 1):
                awaited = 2
        self.objects[index] = value
        return value, awaited

    def function(self, tag: int) -> tuple[Any, int]:
        """Read a function's bytecode; its upvalues follow."""
        index = None
        if tag != FUNCTION:  # the oldest record has no index
            index = self.read_int()
            value = self.objects.get(index)
            if value is not None:
                return value, 0
        value = Function(tag, self.read_bytes(self.read_int(), "function"))
        if index is not None:
            self.objects[index] = value
        return value, 1

    def class_record(self) -> tuple[str, int]:
        """Read a version, which the oldest files lack, and a class name."""
        start = self.at
        name = self._class_name()
        if name == "V 1":  # nearly always
            return self._class_name(), 1
        if not name.startswith("V "):
            return name, 0
        digits = name[2:]
        if not digits.isdecimal() or len(digits) > 9:
            raise self.file.error(start, f"version {digits[:40]!r}", "a small whole number")
        return self._class_name(), int(digits)

    def _class_name(self) -> str:
        start = self.at
        raw = self.read_bytes(self.read_int(), "class name")
        name = self.classes.get(raw)
        if name is None:
            name = raw[: MAX_CLASS_NAME + 1].decode(errors="replace")
            if "\ufffd" in name or not name.isprintable() or not 0 < len(raw) <= MAX_CLASS_NAME:
                raise self.file.error(
                    start,
                    f"class name {raw[:40]!r}",
                    f"a name of 1 to {MAX_CLASS_NAME} printable characters",
                )
            self.classes[raw] = name
        return name

    def _storage(self, class_name: str) -> Storage:
        start = self.at
        (size,) = self.read_longs(1)
        if size < 0:
            raise self.file.error(start, f"a storage of {size:,} numbers", "0 or more")
        return self.step_over(class_name, size)

    def _tensor(self, class_name: str, version: int) -> Tensor:
        start = self.at
        rank = self.read_int()
        if not 0 <= rank <= MAX_DIMENSIONS:
            raise self.file.error(
                start, f"a tensor of {rank:,} dimensions", f"0 to {MAX_DIMENSIONS}"
            )
        longs = self.read_longs(2 * rank + 1)
        shape, strides, offset = longs[:rank], longs[rank:-1], longs[-1]
        if rank and min(longs[:-1]) < 0:
            raise self.file.error(start, f"sizes {shape} and strides {strides}", "none below 0")
        if rank and offset < 1:
            raise self.file.error(start, f"storage offset {offset:,}", "1 or more")
        return Tensor((class_name, version), self.file, start, (shape, strides, offset - 1))

    def _generator(self) -> bytes:
        """Read the raw struct of a `torch.Generator`, as the machine that wrote it had it.

        A word of state has 32 bits: in a long of 8 bytes, the same half of all of them is zero.
        """
        head = self.file.data[self.at : self.at + _STATE.stop]
        words = np.frombuffer(head[_STATE], "u4") if len(head) == _STATE.stop else None
        if words is not None and not words.reshape(-1, 2).any(axis=0).all():
            return self.read_bytes(GENERATOR_BYTES, "generator")
        return self.read_bytes(GENERATOR_BYTES_LONG_4, "generator")

    def key(self, value: Any) -> Any:
        """Return the key of a table that a value is."""
        if value is None or value != value:
            raise self.file.error(self.at, "nil or NaN as a table key", "any other value")
        if type(value) is bool:
            return LuaBoolean(value)
        return value

    def _complete(self, holder: Any, value: Any, left: int) -> None:
        """Give a tensor its storage, an object its fields, a function its upvalues."""
        if isinstance(holder, Tensor):
            if value is not None and not isinstance(value, Storage):
                raise self.file.error(self.at, f"{kind(value)} as a tensor's storage", "a storage")
            if value is not None and value.dtype != TENSOR_CLASSES[holder.class_name]:
                raise self.file.error(
                    self.at, f"{holder.class_name} over {value.class_name}", "one type"
                )
            holder.storage = value
        elif isinstance(holder, TorchObject):
            if left == 2:
                holder.payload = value
            elif isinstance(value, LuaTable):
                holder.fields = value
            else:
                raise self.file.error(
                    self.at, f"{kind(value)} as the fields of {holder.class_name}", "a table"
                )
        else:
            holder.upvalues = value


def kind(value: Any) -> str:
    """Return what a value is, in Lua's words."""
    if value is None:
        return "nil"
    names = {LuaTable: "a table", str: "a string", bytes: "a string", bool: "a boolean"}
    return names.get(type(value)) or ("a number" if isinstance(value, float) else repr(value))
