"""Images within MXNet's RecordIO files, named by their place in the file."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data.records import RecordFile, read_record
from models.errors import DataError, FormatError, ImageError
from relume.bulk.parts import failing
from relume.bulk.places import exists, is_url, opened, size
from relume.images import MAX_BYTES, Image

ENDINGS = (".rec",)


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
        FormatError: The `.idx` is damaged.
    """
    index = f"{name.removesuffix(ENDINGS[0])}.idx"
    if exists(index):
        offsets = _indexed(index)
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


def _walked(name: str) -> NDArray[np.int64]:
    """Return where records begin, and where damage does."""
    file = RecordFile(Path(name), damage="skip")
    return np.union1d(file.offsets, np.array([one.at for one in file.damage], np.int64))
