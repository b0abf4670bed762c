"""Bytes of a binary `.t7` file -> the objects they describe.

The file is mapped, never loaded: a storage becomes its place in the file, and an array over it is
a read-only view until somebody copies it. Nothing is executed and nothing is believed before it is
checked, so reading takes memory for the objects alone, whatever sizes the file claims.

Source: torch/torch7 File.lua (records), generic/Tensor.c and generic/Storage.c (payloads).
"""

import mmap
import struct
from pathlib import Path
from typing import Any

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
from models.errors import FormatError

NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN = range(6)
FUNCTION, LEGACY_RECUR_FUNCTION, RECUR_FUNCTION = 6, 7, 8

MAX_DIMENSIONS = 64  # numpy's own limit; the formats of the time stop at 5
MAX_CLASS_NAME = 200  # for one line of an error; Torch7's longest have 40

# Of a tensor of each rank: sizes, strides and the storage offset, all longs.
_GEOMETRIES = [struct.Struct(f"<{2 * rank + 1}q") for rank in range(MAX_DIMENSIONS + 1)]


def read(path: Path, name: Path | None = None) -> Any:
    """Return the first object of a file: what `torch.load` returns. Errors call the file `name`.

    Raises:
        FormatError: The file is no binary `.t7`, is cut short, or contradicts itself.
        OSError: The file cannot be opened.
    """
    name = name or path
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # mmap cannot map an empty file
            raise FormatError(name, 0, found="an empty file", expected="a .t7 file") from error
    return _Reader(T7File(name, data)).read()


class _Reader:
    """Reads one object and everything it holds, without recursion: files nest without limit."""

    def __init__(self, file: T7File) -> None:
        self.file = file
        self.at = 0
        self.objects: dict[int, Any] = {}
        self.texts: dict[bytes, str] = {}

    def read(self) -> Any:
        """Return the object at the start of the file."""
        _check_first_bytes(self.file)
        try:
            return self._read_all()
        except struct.error as error:  # every fixed-size read past the end of the file
            raise self.file.error(
                self.at, "the end of the file", "more bytes: the file is cut short"
            ) from error

    def _read_all(self) -> Any:
        # The one hot loop of the project: a file has tens of thousands of records, and the loop
        # should cost less than reading its bytes does. Hence local names, and plain pairs inline.
        data, objects = self.file.data, self.objects
        int32, double = struct.Struct("<i").unpack_from, struct.Struct("<d").unpack_from
        text, texts = self._text, self.texts
        stack: list[tuple[Any, int, Any]] = []  # (holder, pairs left, key): who waits for a value
        nothing = object()
        holder: Any = None
        left, key = 0, nothing
        at = 0
        while True:
            self.at = at
            (tag,) = int32(data, at)
            if tag == STRING:
                (length,) = int32(data, at + 4)
                at += 8
                value: Any = texts.get(data[at : at + length])
                if value is None or len(value) != length:
                    value = text(at, length)
                at += length
            elif tag == NUMBER:
                (value,) = double(data, at + 4)
                at += 12
            elif tag == BOOLEAN:
                value = int32(data, at + 4)[0] != 0
                at += 8
            elif tag == NIL:
                value = None
                at += 4
            elif tag == TABLE:
                (index,) = int32(data, at + 4)
                at += 8
                value = objects.get(index)
                if value is None:
                    (count,) = int32(data, at)
                    at += 4
                    if count < 0:
                        raise self.file.error(at - 4, f"a table of {count:,} entries", "0 or more")
                    objects[index] = value = LuaTable()
                    if count:
                        stack.append((holder, left, key))
                        holder, left, key = value, count, nothing
                        continue
            elif tag == TORCH:
                (index,) = int32(data, at + 4)
                value = objects.get(index)
                at += 8
                if value is None:
                    self.at = at
                    value, awaited = self._torch_object(index)
                    at = self.at
                    if awaited:
                        stack.append((holder, left, key))
                        holder, left, key = value, 1, nothing
                        continue
            elif tag in (FUNCTION, LEGACY_RECUR_FUNCTION, RECUR_FUNCTION):
                value, awaited = self._function(tag)
                at = self.at
                if awaited:
                    stack.append((holder, left, key))
                    holder, left, key = value, 1, nothing
                    continue
            else:
                raise self.file.error(
                    at, f"type id {tag}", "0 to 8: the file is damaged, or no .t7"
                )
            # Hand the value to who waits for it; what is complete by that is itself a value.
            while True:
                if holder is None:
                    return value
                if type(holder) is not LuaTable:
                    self._complete(holder, value)
                elif key is nothing:
                    key = value if type(value) is str else self._key(value)
                    break
                else:
                    if value is not None:  # in Lua a key with a nil value is an absent key
                        holder[key] = value
                    key = nothing
                    left -= 1
                    if left:
                        break
                value = holder
                holder, left, key = stack.pop()

    def _key(self, value: Any) -> Any:
        if value is None or value != value:
            raise self.file.error(self.at, "nil or NaN as a table key", "any other value")
        if type(value) is bool:
            return LuaBoolean(value)
        return value

    def _text(self, at: int, length: int) -> str | bytes:
        raw = self.file.data[at : at + length] if length >= 0 else b""
        if len(raw) != length:
            left = self.file.size - at
            raise self.file.error(
                at - 4, f"a string of {length:,} bytes", f"0 to the {left:,} that are left"
            )
        if (known := self.texts.get(raw)) is not None:
            return known
        try:
            string = raw.decode()
        except UnicodeDecodeError:
            return raw
        if length < 64:  # field and class names return thousands of times
            self.texts[raw] = string
        return string

    def _counted(self, what: str) -> str:
        (length,) = struct.unpack_from("<i", self.file.data, self.at)
        self.at += 4
        value = self._text(self.at, length)
        self.at += length
        if not isinstance(value, str):
            raise self.file.error(self.at - length, f"{what} {value[:40]!r}", "text")
        return value

    def _torch_object(self, index: int) -> tuple[Any, bool]:
        """Read a class record's head; True where one more object follows that completes it."""
        name, version = self._class_name()
        if name in STORAGE_CLASSES:
            value: Any = self._storage(name)
        elif name in TENSOR_CLASSES:
            value = self._tensor(name)
        else:
            value = TorchObject(name, version)
        self.objects[index] = value
        return value, not isinstance(value, Storage)

    def _class_name(self) -> tuple[str, int]:
        """Read a version, which the oldest files lack, and a class name."""
        start = self.at
        name = self._counted("class name")
        if name == "V 1":  # nearly always
            return self._printable(self._counted("class name")), 1
        if not name.startswith("V "):
            return self._printable(name), 0
        digits = name[2:]
        if not digits.isdecimal() or len(digits) > 9:
            raise self.file.error(start, f"version {digits[:40]!r}", "a small whole number")
        return self._printable(self._counted("class name")), int(digits)

    def _printable(self, name: str) -> str:
        if not name.isprintable() or not 0 < len(name) <= MAX_CLASS_NAME:
            raise self.file.error(
                self.at, f"class name {name[:40]!r}", f"a name of 1 to {MAX_CLASS_NAME} characters"
            )
        return name

    def _storage(self, class_name: str) -> Storage:
        (size,) = struct.unpack_from("<q", self.file.data, self.at)
        self.at += 8
        width, left = STORAGE_CLASSES[class_name].itemsize, self.file.size - self.at
        if not 0 <= size * width <= left:
            raise self.file.error(
                self.at - 8,
                f"a storage of {size:,} x {width} bytes",
                f"at most the {left:,} bytes left",
            )
        value = Storage(class_name, self.file, self.at, size)
        self.at += size * width
        return value

    def _tensor(self, class_name: str) -> Tensor:
        at = self.at
        (rank,) = struct.unpack_from("<i", self.file.data, at)
        if not 0 <= rank <= MAX_DIMENSIONS:
            raise self.file.error(at, f"a tensor of {rank:,} dimensions", f"0 to {MAX_DIMENSIONS}")
        longs = _GEOMETRIES[rank].unpack_from(self.file.data, at + 4)
        self.at += 4 + 8 * len(longs)
        shape, strides, offset = longs[:rank], longs[rank:-1], longs[-1]
        if rank and min(longs[:-1]) < 0:
            raise self.file.error(at, f"sizes {shape} and strides {strides}", "none below 0")
        if rank and offset < 1:
            raise self.file.error(self.at - 8, f"storage offset {offset}", "1 or more")
        return Tensor(class_name, self.file, at, (shape, strides, offset - 1))

    def _function(self, tag: int) -> tuple[Any, bool]:
        at = self.at + 4
        index = None
        if tag != FUNCTION:  # the oldest record has no index
            (index,) = struct.unpack_from("<i", self.file.data, at)
            at += 4
            if (known := self.objects.get(index)) is not None:
                self.at = at
                return known, False
        (length,) = struct.unpack_from("<i", self.file.data, at)
        at += 4
        left = self.file.size - at
        if not 0 <= length <= left:
            raise self.file.error(
                at - 4, f"a function of {length:,} bytes", f"0 to the {left:,} that are left"
            )
        value = Function(tag, self.file.data[at : at + length])
        if index is not None:
            self.objects[index] = value
        self.at = at + length
        return value, True

    def _complete(self, holder: Any, value: Any) -> None:
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
            if not isinstance(value, LuaTable):
                raise self.file.error(
                    self.at, f"{kind(value)} as the fields of {holder.class_name}", "a table"
                )
            holder.fields = value
        else:
            holder.upvalues = value


def kind(value: Any) -> str:
    """Return what a value is, in Lua's words."""
    if value is None:
        return "nil"
    names = {LuaTable: "a table", str: "a string", bytes: "a string", bool: "a boolean"}
    return names.get(type(value)) or ("a number" if isinstance(value, float) else repr(value))


def _check_first_bytes(file: T7File) -> None:
    """Name what the file is, where its first bytes tell that it is no binary `.t7`."""
    head = bytes(file.data[:4])
    if len(head) == 4 and 0 <= struct.unpack("<i", head)[0] <= RECUR_FUNCTION:
        return
    others = {
        b"PK\x03\x04": "a zip archive: a PyTorch checkpoint?",
        b"\x89PNG": "a PNG image",
        b"\xfd7zX": "xz-compressed data",
        b"\x1f\x8b": "gzip-compressed data",
        b"\x80\x02": "a Python pickle: a PyTorch checkpoint?",
        b"\x12\x01\x00\x00": "an MXNet .params file",
    }
    found = next((what for magic, what in others.items() if head.startswith(magic)), None)
    if found is None and head[:1].isdigit() and head[1:2] in b"\r\n":
        found = "a .t7 in text format"
    raise file.error(
        0, found or f"bytes {head.hex(' ')}", "a binary .t7: type id 0 to 8, little-endian"
    )
