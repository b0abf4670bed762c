"""MXNet's RecordIO: many images with their labels in one file, read where they lie.

A record is one part or several. A part is the magic number, a word of 3 bits of kind and 29 bits of
length, that many bytes, and zeros up to a multiple of 4. Where a record's own bytes have the magic
number at a multiple of 4 it is cut in two there and the number left out, so that in a file the
magic number, at a multiple of 4, always begins a part.

An image's record begins with a header: how many labels follow it (0: the header's own counts), a
label, and two numbers; then the labels, then the bytes of an image file.

Source: dmlc/dmlc-core include/dmlc/recordio.h, src/recordio.cc; apache/mxnet
src/io/image_recordio.h, python/mxnet/recordio.py.
"""

import mmap
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import FormatError, some

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
MAX_LENGTH = 2**29 - 1  # of a part, and for the writer of a record
WHOLE, FIRST, MIDDLE, LAST = range(4)  # kinds of parts

_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")


class Damage(NamedTuple):
    """A place in a file where no record can be read."""

    at: int
    found: str
    expected: str


class Record(NamedTuple):
    """What a record holds.

    Attributes:
        labels: One or more; the first is the class.
        key: The image's number in the list that the file was made from.
        key2: A second number, which MXNet's tools leave 0.
        payload: The bytes of an image file.
    """

    labels: NDArray[np.float32]
    key: int
    key2: int
    payload: bytes


class RecordFile:
    """The records of a `.rec`, in the order of the file.

    Opening it goes from each record's header to the next, so that damage is known before the first
    image is asked for. An `.idx` beside it must agree with what is found.

    Attributes:
        path: The `.rec`.
        offsets: Where each readable record begins.
        keys: The records' keys as the `.idx` has them, None without one.
        damage: What could not be read, in the order of the file.
    """

    def __init__(self, path: Path, *, damage: Literal["refuse", "skip"] = "refuse") -> None:
        """Map a file and find its records.

        Args:
            path: The `.rec`.
            damage: `skip` leaves out what cannot be read; it stands in the attribute.

        Raises:
            FormatError: There is damage and it is not to be skipped, or the `.idx` does not fit.
        """
        self.path = path
        self._data = _mapped(path)
        self.offsets, self.damage = _walk(self._data)
        if damage == "refuse":
            refuse(path, self.damage)
        self.keys = None if self.damage else _keys(path.with_suffix(".idx"), self.offsets)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_data"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _data=_mapped(state["path"]))

    def raw(self, index: int) -> bytes:
        """Return a record's bytes, its parts joined."""
        return _joined(self._data, int(self.offsets[index]))

    def record(self, index: int) -> Record:
        """Return an image's record.

        Raises:
            FormatError: It is too short for its header or its labels.
        """
        return _image(self.raw(index), self.path, int(self.offsets[index]))

    def labels(self, index: int) -> NDArray[np.float32]:
        """Return the labels of a record; of most, only the header is touched.

        Raises:
            FormatError: It is too short for its header or its labels.
        """
        at = int(self.offsets[index])
        kind, length, _ = _part(self._data, at)
        if kind == WHOLE and length >= _HEADER.size:
            count, label, _, _ = _HEADER.unpack_from(self._data, at + 8)
            if count == 0:
                return np.array([label], np.float32)
        return _labels(self.raw(index), self.path, at)[0]

    def part(self, count: int, index: int) -> range:
        """Return the records that MXNet's reader of part `index` out of `count` gets.

        The file's bytes are divided evenly; a record belongs to the part in which it begins.

        Source: dmlc/dmlc-core src/io/input_split_base.cc, ResetPartition.
        """
        share = _padded(-(-len(self._data) // count))
        begin, end = np.searchsorted(self.offsets, [share * index, share * (index + 1)])
        return range(int(begin), int(end))


def read_record(data: bytes, path: str | Path, at: int) -> Record:
    """Return the one record that `data` holds, which a file has from byte `at` on.

    Raises:
        FormatError: It is damaged, no image's, or not the only one.
    """
    try:
        end = _end(data, 0)
    except _BrokenError as error:
        found, wanted = error.args
        raise FormatError(path, at, found=found, expected=wanted) from error
    if end != len(data):
        found = f"{len(data) - end:,} bytes behind a record"
        raise FormatError(path, at + end, found=found, expected="the next record of the index")
    return _image(_joined(data, 0), path, at)


def refuse(path: Path, damage: Sequence[Damage]) -> None:
    """Raise FormatError if there is damage: the first place in full, then how many there are."""
    if damage:
        first, *more = damage
        places = some([f"{one.at:,}" for one in more])
        others = f"; {len(damage):,} damaged places, the others at byte {places}"
        advice = ". --on-bad skip leaves out what is damaged"
        wanted = first.expected + (others if more else "") + advice
        raise FormatError(path, first.at, found=first.found, expected=wanted)


def _joined(data: mmap.mmap | bytes, at: int) -> bytes:
    """Return the bytes of the record at `at`, its parts joined."""
    pieces = []
    while True:
        kind, length, following = _part(data, at)
        pieces.append(data[at + 8 : at + 8 + length])
        if kind in (WHOLE, LAST):
            return MAGIC_BYTES.join(pieces)
        at = following


def _image(raw: bytes, path: str | Path, at: int) -> Record:
    labels, start = _labels(raw, path, at)
    _, _, key, key2 = _HEADER.unpack_from(raw)
    return Record(labels, key, key2, raw[start:])


def _labels(raw: bytes, path: str | Path, at: int) -> tuple[NDArray[np.float32], int]:
    """Return a record's labels and where its payload begins."""
    found = f"a record of {len(raw):,} bytes"
    if len(raw) < _HEADER.size:
        wanted = f"at least {_HEADER.size} for an image's header"
        raise FormatError(path, at, found=found, expected=wanted)
    count, label, _, _ = _HEADER.unpack_from(raw)
    if count == 0:
        return np.array([label], np.float32), _HEADER.size
    start = _HEADER.size + 4 * count
    if start > len(raw):
        wanted = f"{start:,} for a header of {count:,} labels"
        raise FormatError(path, at, found=found, expected=wanted)
    return np.frombuffer(raw, "<f4", count, _HEADER.size), start


def _mapped(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return b""  # nothing cannot be mapped
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class _BrokenError(Exception):
    """A part that cannot be read: what was found and expected."""


def _walk(data: mmap.mmap | bytes) -> tuple[NDArray[np.int64], tuple[Damage, ...]]:
    """Return where records begin, and where none can be read; after damage the next one counts."""
    offsets, damage, at = array("q"), [], 0
    _advise(data, "MADV_RANDOM")  # or the system reads ahead what is skipped: all of it
    while at < len(data):
        try:
            following = _end(data, at)
        except _BrokenError as error:
            damage.append(Damage(at, *error.args))
            following = _resumed(data, at + 4)
        else:
            offsets.append(at)
        at = following
    _advise(data, "MADV_NORMAL")
    return np.array(offsets, np.int64), tuple(damage)


def _advise(data: mmap.mmap | bytes, advice: str) -> None:
    if isinstance(data, mmap.mmap) and hasattr(mmap, advice):  # not on every system
        data.madvise(getattr(mmap, advice))


def _end(data: mmap.mmap | bytes, at: int) -> int:
    """Return where the record at `at` ends."""
    kind, _, following = _part(data, at)
    if kind == WHOLE:
        return following
    if kind != FIRST:
        raise _BrokenError(f"a part of kind {kind}", f"{WHOLE} or {FIRST} at a record's beginning")
    while kind != LAST:
        if following == len(data):
            raise _BrokenError("the end of the file", "the record's next part")
        kind, _, following = _part(data, following)
        if kind not in (MIDDLE, LAST):
            raise _BrokenError(f"a part of kind {kind}", f"{MIDDLE} or {LAST} inside a record")
    return following


def _part(data: mmap.mmap | bytes, at: int) -> tuple[int, int, int]:
    """Return a part's kind and length, and where the next one begins."""
    left = len(data) - at - 8
    if left < 0:
        raise _BrokenError(f"{left + 8} bytes at the end of the file", "a part's header of 8")
    magic, word = _PART.unpack_from(data, at)
    if magic != MAGIC:
        raise _BrokenError(f"{magic:#010x}", f"the magic number {MAGIC:#x}")
    length = word & MAX_LENGTH
    if _padded(length) > left:
        raise _BrokenError(f"{left:,} bytes left in the file", f"{length:,} of a part")
    return word >> 29, length, at + 8 + _padded(length)


def _resumed(data: mmap.mmap | bytes, at: int) -> int:
    """Return where the next record begins; the end of the file where none does."""
    while (at := data.find(MAGIC_BYTES, at)) >= 0:
        if at % 4 == 0 and at + 8 <= len(data):
            _, word = _PART.unpack_from(data, at)
            if word >> 29 in (WHOLE, FIRST):
                return at
        at += 1
    return len(data)


def _padded(length: int) -> int:
    return (length + 3) & ~3


def _keys(path: Path, offsets: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the records' keys from an `.idx`, None if there is no such file."""
    if not path.exists():
        return None
    keys = np.empty(len(offsets), np.int64)
    seen = np.zeros(len(offsets), bool)
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            key, at = map(int, line.split(b"\t"))
        except ValueError as error:
            raise FormatError(
                path, f"line {number:,}", found=repr(line[:40])[1:], expected="a key and an offset"
            ) from error
        place = int(np.searchsorted(offsets, at))
        if place == len(offsets) or offsets[place] != at:
            raise FormatError(
                path, f"line {number:,}", found=f"offset {at:,}", expected="where a record begins"
            )
        keys[place], seen[place] = key, True
    if not seen.all():
        raise FormatError(
            path,
            "its end",
            found=f"{seen.sum():,} records",
            expected=f"the {len(offsets):,} of the .rec; without the .idx they are found as well",
        )
    return keys


def packed(labels: Sequence[float], key: int, payload: bytes) -> bytes:
    """Return the bytes of an image's record, as `mxnet.recordio.pack` makes them.

    One label stands in the header, several follow it.
    """
    if len(labels) == 1:
        return _HEADER.pack(0, labels[0], key, 0) + payload
    numbers = np.asarray(labels, "<f4").tobytes()
    return _HEADER.pack(len(labels), 0.0, key, 0) + numbers + payload


class RecordWriter:
    """Writes records and their index, byte for byte as MXNet's MXIndexedRecordIO does."""

    def __init__(self, rec: Path, idx: Path) -> None:
        """Begin two files."""
        self._rec: IO[bytes] = rec.open("wb")
        self._idx: IO[bytes] = idx.open("wb")

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._rec.close()
        self._idx.close()

    def write(self, key: int, record: bytes) -> None:
        """Append a record.

        Raises:
            FormatError: The record is too long for the format.
        """
        if len(record) > MAX_LENGTH:
            raise FormatError(
                self._rec.name,
                f"record {key}",
                found=f"{len(record):,} bytes",
                expected=f"at most {MAX_LENGTH:,}",
            )
        self._idx.write(b"%d\t%d\n" % (key, self._rec.tell()))
        pieces = _cut(record)
        for number, piece in enumerate(pieces, start=1):
            kind = MIDDLE
            if number in (1, len(pieces)):
                kind = FIRST if number == 1 else LAST
            word = (WHOLE if len(pieces) == 1 else kind) << 29 | len(piece)
            self._rec.write(_PART.pack(MAGIC, word) + piece)
        self._rec.write(bytes(_padded(len(record)) - len(record)))


def _cut(record: bytes) -> list[bytes]:
    """Return a record cut where it has the magic number at a multiple of 4, without the number."""
    pieces, start, at = [], 0, 0
    while (at := record.find(MAGIC_BYTES, at)) >= 0:
        if at % 4:
            at += 1
        else:
            pieces.append(record[start:at])
            start = at = at + 4
    return [*pieces, record[start:]]
