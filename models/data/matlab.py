"""One array of structs out of a MATLAB 5 file: ImageNet's devkit names its classes in one.

Source: MathWorks, MAT-File Format, version 5 (level 5): tags, small elements, array flags.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.errors import FormatError

HEADER = 128
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR = 1, 2, 4  # classes of arrays; numbers have 6 to 15
NUMBERS = {
    **{1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"},
    **{12: "<i8", 13: "<u8"},
}
TEXTS = {16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
MOST = 2**26  # bytes of an unpacked variable; the devkit's has less than a megabyte

Value = str | float | None
Struct = dict[str, Value]


def structs(path: Path | str, data: bytes, name: str) -> list[Struct]:
    """Return the structs of the array of that name, those fields that are text or one number.

    Args:
        path: For messages.
        data: The whole file.
        name: Of the variable.

    Raises:
        FormatError: This is no such file, it is damaged, or it has no such array.
    """
    if data[124:128] != b"\x00\x01IM":
        raise FormatError(path, 0, found=repr(data[:20]), expected="a little-endian MATLAB 5 file")
    try:
        for kind, content in _elements(data[HEADER:]):
            if kind == COMPRESSED:
                unpacked = zlib.decompressobj().decompress(content, MOST)
                kind, content = next(_elements(unpacked))
            if kind == MATRIX:
                shape, found, rest = _array(content)
                if found == name and shape[0] == STRUCT:
                    return _structs(rest, int(np.prod(shape[1:])))
    except (StopIteration, ValueError, KeyError, struct.error, zlib.error, OverflowError) as error:
        raise FormatError(path, "a variable", found=f"damage ({error})", expected=name) from error
    raise FormatError(path, "its end", found="no such variable", expected=f"structs {name}")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of one element after the other; small ones have both in 8 bytes."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:
            kind, size, begin, at = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            begin = at + 8
            at = begin + size + (-size % 8 if kind != COMPRESSED else 0)
        if begin + size > len(data):
            raise ValueError(f"{size:,} bytes wanted, {len(data) - begin:,} left")
        yield kind, data[begin : begin + size]


def _array(content: bytes) -> tuple[tuple[int, ...], str, Iterator[tuple[int, bytes]]]:
    """Return an array's class and dimensions, its name, and its further elements."""
    elements = _elements(content)
    (_, flags), (_, dimensions), (_, name) = next(elements), next(elements), next(elements)
    sizes = np.frombuffer(dimensions, "<i4").tolist()
    return (flags[0], *sizes), name.decode("ascii"), elements


def _structs(elements: Iterator[tuple[int, bytes]], count: int) -> list[Struct]:
    (_, width), (_, names) = next(elements), next(elements)
    (size,) = struct.unpack_from("<i", width)
    fields = [
        names[begin : begin + size].split(b"\0")[0].decode("ascii")
        for begin in range(0, len(names), size)
    ]
    return [{field: _value(*next(elements)) for field in fields} for _ in range(count)]


def _value(kind: int, content: bytes) -> Value:
    """Return a field: text, one number, or None for what is neither."""
    if kind != MATRIX or not content:
        return None
    (array, *_), _, elements = _array(content)
    if array in (CELL, STRUCT):
        return None
    kind, numbers = next(elements)
    if array == CHAR:
        return numbers.decode(TEXTS.get(kind, "utf-16-le" if kind == 4 else "latin-1"))
    values = np.frombuffer(numbers, NUMBERS[kind])
    return float(values[0]) if values.size == 1 else None
