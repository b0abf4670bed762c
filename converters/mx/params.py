"""`.params` files become arrays: MXNet's list of NDArrays, with or without names.

The file is mapped, never loaded: a dense array is a read-only view of it. One file may hold arrays
of several layouts, since a list may be put together from what other releases saved:

    list   = 0x112, 0 (both 8 bytes), count (8), arrays, count of names (8), names
    name   = length (8), UTF-8
    V0     = dimensions (4), sizes (4 each), device (4 + 4), type (4), numbers      to MXNet 0.10
    V1     = 0xF993FAC8, dimensions (4), sizes (8 each), device, type, numbers      0.11
    V2     = 0xF993FAC9, storage (4), [sizes of what is stored], as V1, ...         from 0.12
    V3     = 0xF993FACA, as V2, where 0 dimensions are a number and a size may be 0

Source: apache/mxnet src/ndarray/ndarray.cc (`NDArray::Load`, `LegacyLoad`), include/mxnet/tuple.h.
All numbers are little-endian: MXNet wrote the machine's own, and ran on no other.
"""

import math
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.signatures import LENGTH, described
from models.errors import FormatError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

MAGIC = 0x112
EXPECTED = "an MXNet .params file (12 01 00 ...)"
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DENSE, ROW_SPARSE, CSR = range(3)
STORED = {DENSE: "dense", ROW_SPARSE: "row_sparse", CSR: "csr"}
PARTS = {DENSE: 0, ROW_SPARSE: 1, CSR: 2}  # index arrays: rows; or row pointers, then columns
BFLOAT16 = 12
# Source: 3rdparty/mshadow/mshadow/base.h, `TypeFlag`.
TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f8"),
    2: np.dtype("<f2"),
    3: np.dtype("u1"),
    4: np.dtype("<i4"),
    5: np.dtype("i1"),
    6: np.dtype("<i8"),
    7: np.dtype("?"),
    8: np.dtype("<i2"),
    9: np.dtype("<u2"),
    10: np.dtype("<u4"),
    11: np.dtype("<u8"),
    BFLOAT16: np.dtype("<u2"),  # the upper half of a float32
}
INDICES = (4, 6, 10, 11)
MAX_DIMENSIONS = 32
MAX_ARRAYS = 100_000  # ResNet of 1001 layers has 7,000; a placeholder is 4 bytes of zeros
LARGEST_EMPTY = 1 << 40  # an array's sizes but those of 0: numpy has bounds, the file sets none
MAX_DENSE = 1 << 22  # numbers that sparse arrays of a small file may unfold to, all together


class Params(NamedTuple):
    """What a `.params` file holds.

    Attributes:
        arrays: By name, or by place from "0" where the file has no names; None is a placeholder.
        named: Whether the file has names.
        versions: Layouts that its arrays have, such as `V2`.
    """

    arrays: dict[str, Array | None]
    named: bool
    versions: tuple[str, ...]


def is_params(head: bytes) -> bool:
    """Tell whether a file that begins so is a list of NDArrays."""
    return head[:8] == struct.pack("<Q", MAGIC)


def read(path: Path, name: Path | None = None) -> Params:
    """Return the arrays of a file; errors call it `name`.

    Raises:
        FormatError: The file is no `.params`, is cut short, or contradicts itself.
        OSError: The file cannot be opened.
    """
    name = name or path
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # mmap cannot map an empty file
            return read_data(name, b"")
    return read_data(name, data)


def read_data(name: Path, data: mmap.mmap | bytes) -> Params:
    """Return the arrays of a file that is in memory; see `read`."""
    return _Reader(name, data).read()


class _Reader:
    """Reads records from the start of a mapped file to its end."""

    def __init__(self, name: Path, data: mmap.mmap | bytes) -> None:
        self._name = name
        self._data = data
        self._size = len(data)
        self._bytes = np.frombuffer(data, np.uint8)
        self._at = 0
        self._unfolded = 0
        self._versions: dict[str, None] = {}  # a set that keeps its order
        self._forms: dict[str, struct.Struct] = {}

    def read(self) -> Params:
        if not is_params(self._data[:8]):
            raise self._error(0, described(self._data[:LENGTH]), EXPECTED)
        self._at = 8
        self._take("Q")  # reserved
        count = self._count("arrays", 4)  # a placeholder of V0 has no more
        if count > MAX_ARRAYS:
            raise self._error(16, f"{count:,} arrays", f"at most {MAX_ARRAYS:,}")
        arrays = [self._array() for _ in range(count)]
        at = self._at
        named = self._count("names", 8)
        if named not in (0, count):
            raise self._error(at, f"{named:,} names", f"{count:,}, one for each array, or none")
        names = self._names(named) if named else [str(index) for index in range(count)]
        return Params(dict(zip(names, arrays, strict=True)), bool(named), tuple(self._versions))

    def _names(self, count: int) -> list[str]:
        names: dict[str, None] = {}
        for _ in range(count):
            at = self._at
            (length,) = self._take("Q")
            if length > self._size - self._at:
                raise self._error(
                    at, f"a name of {length:,} bytes", f"at most the {self._left():,} left"
                )
            raw = self._data[self._at : self._at + length]
            self._at += length
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                raise self._error(at, f"the name {raw[:60]!r}", "UTF-8") from error
            if text in names:
                raise self._error(
                    at, f"the name {text[:60]!r} a second time", "another name for each array"
                )
            names[text] = None
        return list(names)

    def _array(self) -> Array | None:
        start = self._at
        (first,) = self._take("I")
        if first in (V2, V3):
            return self._typed(start, first)
        self._versions["V1" if first == V1 else "V0"] = None
        shape = self._shape(start, "q") if first == V1 else self._sizes(start, first, "I")
        if not shape:
            return None
        if 0 in shape:
            raise self._error(start, f"an array of {_by(shape)}", "sizes of 1 or more")
        return self._dense(shape, self._type())

    def _typed(self, start: int, version: int) -> Array | None:
        """Read an array that says how it is stored."""
        self._versions["V3" if version == V3 else "V2"] = None
        (storage,) = self._take("i")
        if storage not in STORED or (version == V3 and storage != DENSE):
            raise self._error(
                start + 4, f"storage type {storage}", "0 (dense), or in V2 1 or 2 (sparse)"
            )
        held = self._shape(self._at, "q") if storage != DENSE else ()
        unknown = version == V3
        shape = self._shape(self._at, "q", unknown=unknown)
        if shape is None or not (shape or unknown):
            return None
        if 0 in shape and not unknown:
            raise self._error(start, f"an array of {_by(shape)}", "sizes of 1 or more")
        kind = self._type()
        if storage == DENSE:
            return self._dense(shape, kind)
        return self._sparse(start, storage, shape, held, kind)

    def _shape(self, start: int, code: str, *, unknown: bool = False) -> Any:
        """Read a number of dimensions and their sizes; None where V3 says that it is unknown."""
        (count,) = self._take("i")
        if unknown and count == -1:
            return None
        shape = self._sizes(start, count, code)
        return None if unknown and -1 in shape else self._checked(start, shape)

    def _sizes(self, start: int, count: int, code: str) -> Shape:
        if not 0 <= count <= MAX_DIMENSIONS:
            raise self._error(
                start,
                f"an array of {count:,} dimensions ({count & 0xFFFFFFFF:#x})",
                f"0 to {MAX_DIMENSIONS}",
            )
        return self._take(f"{count}{code}")

    def _checked(self, start: int, shape: Shape) -> Shape:
        if shape and min(shape) < 0:
            raise self._error(start, f"sizes {_by(shape)}", "none below 0")
        return shape

    def _type(self) -> int:
        """Step over the device, which says nothing about the numbers, and read their type."""
        *_, kind = self._take("iii")
        if kind not in TYPES:
            raise self._error(self._at - 4, f"type {kind}", f"0 to {max(TYPES)}")
        return int(kind)

    def _dense(self, shape: Shape, kind: int) -> Array:
        dtype = TYPES[kind]
        size = math.prod(shape)
        if not size and math.prod(one or 1 for one in shape) > LARGEST_EMPTY:
            raise self._error(self._at, f"no numbers of sizes {_by(shape)}", "sizes that exist")
        end = self._at + size * dtype.itemsize
        if end > self._size:
            raise self._error(
                self._at,
                f"{_by(shape)} numbers of {dtype.itemsize} bytes",
                f"at most the {self._left():,} bytes left",
            )
        raw = self._bytes[self._at : end]
        self._at = end
        if kind == BFLOAT16:
            return _widened(raw.view(dtype)).reshape(shape)
        return (raw != 0 if dtype.kind == "b" else raw.view(dtype)).reshape(shape)

    def _sparse(self, start: int, storage: int, shape: Shape, held: Shape, kind: int) -> Array:
        """Read the numbers that are not 0 and where they are, and return the whole array.

        There are as many numbers as indices; what the file calls their shape may be the memory that
        was set aside for them (`NDArray::SetTBlob`). The checks are those that MXNet makes where it
        is asked to (`CheckFormat`, both in src/ndarray/ndarray.cc).
        """
        wanted: list[tuple[Shape, int]] = []
        for _ in range(PARTS[storage]):
            (index,) = self._take("i")
            if index not in INDICES:
                raise self._error(
                    self._at - 4, f"indices of type {index}", "whole numbers of 4 or 8 bytes"
                )
            wanted.append((self._shape(self._at, "q"), index))
        counted = wanted[-1][0]
        numbers = self._dense((*counted, *held[1:]) if storage == ROW_SPARSE else counted, kind)
        indices = [self._dense(*one).astype(np.int64) for one in wanted]
        self._unfolded += math.prod(shape)
        if self._unfolded > max(MAX_DENSE, self._size):
            raise self._error(
                start,
                f"sparse arrays of {self._unfolded:,} numbers, nearly all 0",
                f"at most {max(MAX_DENSE, self._size):,}",
            )
        fill = _rows if storage == ROW_SPARSE else _csr
        whole = np.zeros(shape, numbers.dtype)
        if wrong := fill(whole, numbers, indices):
            raise self._error(
                start,
                f"a {STORED[storage]} array of {_by(shape)} {wrong}",
                "places inside, once",
            )
        return whole

    def _count(self, what: str, least: int) -> int:
        """Read how many follow, of `least` bytes each."""
        (count,) = self._take("Q")
        if count * least > self._left():
            raise self._error(
                self._at - 8,
                f"{count:,} {what}",
                f"at most {self._left() // least:,} in the {self._left():,} bytes left",
            )
        return int(count)

    def _take(self, code: str) -> tuple[Any, ...]:
        form = self._forms.get(code)
        if form is None:
            form = self._forms[code] = struct.Struct(f"<{code}")
        at, self._at = self._at, self._at + form.size
        if self._at > self._size:
            raise self._error(at, "the end of the file", "more bytes: the file is cut short")
        return form.unpack_from(self._data, at)

    def _left(self) -> int:
        return self._size - self._at

    def _error(self, at: int, found: str, expected: str) -> FormatError:
        return FormatError(self._name, at, found=found, expected=expected)


def _rows(whole: Array, numbers: Array, indices: Sequence[Array]) -> str | None:
    """Put whole rows into their places, or return what is wrong with these."""
    (rows,) = indices
    if rows.ndim != 1 or numbers.shape != (len(rows), *whole.shape[1:]):
        return f"with {_by(numbers.shape)} numbers for the rows {_by(rows.shape)}"
    if not _within(rows, len(whole)) or (np.diff(rows) <= 0).any():
        return f"with rows that do not rise from 0 to {len(whole) - 1:,}"
    whole[rows] = numbers
    return None


def _csr(whole: Array, numbers: Array, indices: Sequence[Array]) -> str | None:
    """Put numbers into the columns of each row, or return what is wrong with these."""
    pointers, columns = indices
    if whole.ndim != 2 or pointers.shape != (len(whole) + 1,) or columns.shape != numbers.shape:
        return f"with {_by(pointers.shape)} pointers, {_by(columns.shape)} columns"
    if numbers.ndim != 1 or pointers[0] != 0 or pointers[-1] != numbers.size:
        return f"with pointers from {pointers[0]} to {pointers[-1]}, not 0 to {numbers.size}"
    each = np.diff(pointers)
    if not _within(pointers, numbers.size + 1) or (each < 0).any():
        return "with pointers that fall"
    if not _within(columns, whole.shape[1]):
        return f"with columns outside 0 to {whole.shape[1] - 1:,}"
    places = np.repeat(np.arange(len(whole)), each) * whole.shape[1] + columns
    if (np.diff(places) <= 0).any():
        return "with columns that do not rise within a row"
    whole.reshape(-1)[places] = numbers
    return None


def _within(places: Array, end: int) -> bool:
    """Tell whether places lie from 0 to before an end; only then their differences are exact."""
    return not places.size or bool(places.min() >= 0 and places.max() < end)


def _widened(halves: Array) -> Array:
    """Return bfloat16 patterns as the float32 numbers that they are, exactly."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _by(shape: Shape) -> str:
    return " x ".join(f"{size:,}" for size in shape) or "no dimensions"
