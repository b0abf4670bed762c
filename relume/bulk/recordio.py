"""Images within MXNet's RecordIO files, named by their place in the file."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data.records import LAST, MAGIC, MAX_LENGTH, WHOLE, RecordFile, read_record
from models.errors import DataError, FormatError, ImageError
from relume.bulk.parts import failing
from relume.bulk.places import exists, is_url, opened, size
from relume.images import MAX_BYTES, Image

ENDINGS = (".rec",)
_PART = struct.Struct("<II")


@dataclass(frozen=True)
class Records:
    """Records of a file that lie behind each other.

    Attributes:
        name: The `.rec`.
        first: The number of the first one in the file, from 0.
        offsets: Where each begins, and where the last one ends.
    """

    name: str
    first: int
    offsets: tuple[int, ...]
    remote = False

    def images(self) -> Iterator[Image]:
        """Yield the images; a damaged record is one that fails."""
        with opened(self.name) as file:
            for number, at in enumerate(self.offsets[:-1]):
                name = f"{self.name}#{self.first + number}"
                length = max(self.offsets[number + 1] - at, 0)  # the file may end before
                file.seek(at)
                data = file.read(min(length, MAX_BYTES))
                try:
                    payload = read_record(data, self.name, at).payload
                except FormatError as error:
                    yield failing(name, ImageError(str(error)))
                else:
                    yield Image(name, partial(bytes, payload))


def parts_of(name: str, count: int) -> Iterator[Records]:
    """Yield the records of a `.rec`, so many at a time.

    Its `.idx` says where they are; without one the file is walked, if it is on this machine.

    Raises:
        DataError: There is no `.idx` to a file elsewhere.
        FormatError: The `.idx` is damaged, or does not reach from the first record to the last.
    """
    index = f"{name[: -len(ENDINGS[0])]}.idx"
    if exists(index):
        offsets = _indexed(index)
        _refuse_gaps(name, index, offsets)
    elif is_url(name):
        raise DataError(f"{name}: has no {index}, without which all of it would be fetched to look")
    else:
        offsets = _walked(name)
    bounds = [*offsets.tolist(), size(name)]
    for first in range(0, len(offsets), count):
        yield Records(name, first, tuple(bounds[first : first + count + 1]))


def _indexed(name: str) -> NDArray[np.int64]:
    """Return where records begin, in the order of the file; an index may have another."""
    with opened(name) as file:
        lines = file.read().splitlines()
    offsets = np.empty(len(lines), np.int64)
    for number, line in enumerate(lines):
        try:
            _, offsets[number] = map(int, line.split(b"\t"))
        except (ValueError, OverflowError) as error:
            found, place = repr(line[:40])[1:], f"line {number + 1:,}"
            raise FormatError(name, place, found=found, expected="a key and an offset") from error
    return np.unique(offsets)


def _refuse_gaps(name: str, index: str, offsets: NDArray[np.int64]) -> None:
    """Raise FormatError where records lie before the first one of the index, or behind its last.

    A gap in between is met where the record before it is read, and so is damage.
    """
    length = size(name)
    advice = "; without the .idx the records of a file here are found as well"
    first = int(offsets[0]) if len(offsets) else length
    if first != 0:
        found = f"a first record at byte {first:,}" if len(offsets) else "no record"
        raise FormatError(index, "its records", found=found, expected=f"one at byte 0{advice}")
    if len(offsets) and (end := _end(name, int(offsets[-1]))) is not None and end < length:
        found = f"a last record that ends at byte {end:,}"
        wanted = f"one that ends where the .rec does, at byte {length:,}{advice}"
        raise FormatError(index, "its records", found=found, expected=wanted)


def _end(name: str, at: int) -> int | None:
    """Return where the record at `at` ends, None where it is damaged or not there."""
    with opened(name) as file:
        while True:
            file.seek(at)
            header = file.read(_PART.size)
            if len(header) < _PART.size:
                return None
            magic, word = _PART.unpack(header)
            if magic != MAGIC:
                return None
            at += _PART.size + ((word & MAX_LENGTH) + 3 & ~3)
            if word >> 29 in (WHOLE, LAST):
                return at


def _walked(name: str) -> NDArray[np.int64]:
    """Return where records begin, and where damage does."""
    file = RecordFile(Path(name), damage="skip")
    return np.union1d(file.offsets, np.array([one.at for one in file.damage], np.int64))
