"""Binary records: numbers as bytes, in either byte order, with a `long` of 4 or 8 bytes.

Source: torch/torch7 lib/TH/THDiskFile.c.
"""

import struct
from typing import Any

from converters.t7.objects import STORAGE_CLASSES, LuaTable, Storage, T7File
from converters.t7.records import BOOLEAN, MAX_CLASS_NAME, NOTHING, NUMBER, STRING, Records


class BinaryRecords(Records):
    """Reads records whose numbers are bytes."""

    def __init__(self, file: T7File) -> None:
        super().__init__(file)
        layout = file.layout
        self.met_longs = False
        self._int = struct.Struct(f"{layout.order}i").unpack_from
        self._double = struct.Struct(f"{layout.order}d").unpack_from
        self._head = struct.Struct(f"{layout.order}i3si").unpack_from
        self._long = f"{layout.order}%d{'q' if layout.long == 8 else 'i'}"
        self._longs: dict[int, struct.Struct] = {}
        self._widths = {
            name: layout.stored(dtype).itemsize for name, dtype in STORAGE_CLASSES.items()
        }

    def read(self) -> Any:
        """Return the object at the start of the file; see `Records.read`."""
        try:
            return super().read()
        except struct.error as error:  # every fixed-size read past the end of the file
            raise self.file.error(
                self.at, "the end of the file", "more bytes: the file is cut short"
            ) from error

    def plain_pairs(self, table: LuaTable, left: int) -> tuple[int, Any]:
        """Read the pairs that lead, as long as they are plain; see `Records.plain_pairs`.

        The one hot spot: most records of a file are field names and plain values.
        """
        data, size, texts = self.file.data, self.file.size, self.texts
        int_, double = self._int, self._double
        at = self.at
        key = NOTHING
        while left:
            self.at = at
            (tag,) = int_(data, at)
            if tag == STRING:
                (length,) = int_(data, at + 4)
                end = at + 8 + length
                if length < 0 or end > size:
                    break
                raw = data[at + 8 : end]
                value: Any = texts.get(raw)
                if value is None:
                    value = self.text(raw)
                at = end
            elif tag == NUMBER:
                (value,) = double(data, at + 4)
                at += 12
            elif tag == BOOLEAN:
                value = int_(data, at + 4)[0] == 1
                at += 8
            else:
                break
            if key is NOTHING:
                key = value if tag == STRING else self.key(value)
            else:
                table[key] = value
                key = NOTHING
                left -= 1
        self.at = at
        return left, key

    def read_int(self) -> int:
        """Read 4 bytes."""
        value: int = self._int(self.file.data, self.at)[0]
        self.at += 4
        return value

    def read_double(self) -> float:
        """Read 8 bytes."""
        value: float = self._double(self.file.data, self.at)[0]
        self.at += 8
        return value

    def read_longs(self, count: int) -> tuple[int, ...]:
        """Read `count` times 4 or 8 bytes."""
        self.met_longs = True
        form = self._longs.get(count)
        if form is None:
            form = self._longs[count] = struct.Struct(self._long % count)
        values = form.unpack_from(self.file.data, self.at)
        self.at += form.size
        return values

    def read_bytes(self, length: int, what: str) -> bytes:
        """Read `length` bytes that the file must have."""
        left = self.file.size - self.at
        if not 0 <= length <= left:
            raise self.file.error(
                self.at - 4, f"a {what} of {length:,} bytes", f"0 to the {left:,} that are left"
            )
        start, self.at = self.at, self.at + length
        return self.file.data[start : self.at]

    def step_over(self, class_name: str, size: int) -> Storage:
        """Step over the numbers; they are read when they are asked for."""
        width = self._widths[class_name]
        left = self.file.size - self.at
        if size * width > left:
            raise self.file.error(
                self.at - self.file.layout.long,
                f"a storage of {size:,} x {width} bytes",
                f"at most the {left:,} bytes left",
            )
        start, self.at = self.at, self.at + size * width
        return Storage(class_name, self.file, start, size)

    def class_record(self) -> tuple[str, int]:
        """Read a version and a class name, nearly always "V 1" and a name that is known."""
        data, at = self.file.data, self.at
        length, version, size = self._head(data, at) if self.file.size - at > 11 else (0, b"", 0)
        if length == 3 and version == b"V 1" and 0 <= size <= MAX_CLASS_NAME:
            raw = data[at + 11 : at + 11 + size]
            name = self.classes.get(raw)
            if name is not None and len(raw) == size:
                self.at = at + 11 + size
                return name, 1
        return super().class_record()
