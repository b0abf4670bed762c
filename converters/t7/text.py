"""Text records: numbers as words and lines, strings and bytes as they are.

Torch7 ends what it writes at once with a newline: an int, the sizes of a tensor, a string's bytes,
the numbers of a storage. Numbers of one piece have a space between them; nothing, such as an empty
string, has no newline either. Reading, as C's scanf, skips any white space before a number. The
size of a `long` plays no part.

Source: torch/torch7 lib/TH/THDiskFile.c, READ_WRITE_METHODS and THDiskFile_readLong.
"""

import re
from typing import Any

import numpy.typing as npt

from converters.t7.decimals import parse
from converters.t7.objects import STORAGE_CLASSES, Storage, T7File
from converters.t7.records import Records

_SPACE = rb"[ \t\n\v\f\r]"
_INTEGER = re.compile(_SPACE + rb"*([+-]?[0-9]{1,20})(?=" + _SPACE + rb")\n?")
_DECIMAL = re.compile(
    _SPACE
    + rb"*([+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?(?:e[+-]?[0-9]{1,9})?|inf|nan))(?="
    + _SPACE
    + rb")\n?"
)
INT, LONG = 1 << 31, 1 << 63


class TextRecords(Records):
    """Reads records whose numbers are text."""

    def read_int(self) -> int:
        """Read a whole number of 32 bits."""
        return self._integer(INT)

    def read_double(self) -> float:
        """Read a number as Lua's "%.17g" writes it."""
        return float(self._word(_DECIMAL, "a number"))

    def read_longs(self, count: int) -> tuple[int, ...]:
        """Read whole numbers of 64 bits."""
        return tuple(self._integer(LONG) for _ in range(count))

    def read_bytes(self, length: int, what: str) -> bytes:
        """Read bytes as they are, and the newline after them."""
        start = self._skip(length, what)
        return self.file.data[start : start + length]

    def step_over(self, class_name: str, size: int) -> Storage:
        """Step over the line of numbers; they are read when they are asked for."""
        start = self.at
        if STORAGE_CLASSES[class_name].itemsize == 1:
            return Storage(class_name, self.file, self._skip(size, "storage"), size)
        end = start
        if size:
            end = self.file.data.find(b"\n", start)
            length = (self.file.size if end < 0 else end) - start
            if end < 0 or length < 2 * size - 1:  # a digit each, and spaces between them
                raise self.file.error(
                    start, f"a line of {length:,} bytes", f"{size:,} numbers and a newline"
                )
            self.at = end + 1
        return TextStorage(class_name, self.file, (start, end), size)

    def _skip(self, length: int, what: str) -> int:
        """Step over bytes and the newline after them; return where they start."""
        start, left = self.at, self.file.size - self.at
        if not 0 <= length <= left:
            raise self.file.error(
                start, f"a {what} of {length:,} bytes", f"0 to the {left:,} that are left"
            )
        self.at += length
        if length and self.file.data[self.at : self.at + 1] == b"\n":
            self.at += 1
        return start

    def _integer(self, limit: int) -> int:
        start = self.at
        value = int(self._word(_INTEGER, "a whole number"))
        if not -limit <= value < limit:
            raise self.file.error(start, f"{value}", f"a number of {limit.bit_length()} bits")
        return value

    def _word(self, form: re.Pattern[bytes], what: str) -> bytes:
        found = form.match(self.file.data, self.at)
        if found is None:
            there = bytes(self.file.data[self.at : self.at + 40])
            raise self.file.error(self.at, f"{there!r}" if there else "the end of the file", what)
        self.at = found.end()
        return found[1]


class TextStorage(Storage):
    """A storage whose numbers are a line of the file."""

    __slots__ = ("end",)

    def __init__(self, class_name: str, file: T7File, span: tuple[int, int], size: int) -> None:
        super().__init__(class_name, file, span[0], size)
        self.end = span[1]

    def _read(self) -> npt.NDArray[Any]:
        return parse(self.file, (self.at, self.end), self.size, self.dtype)
