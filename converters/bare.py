"""The tensors of a `.t7` under their names in the file: a `.safetensors` without a network.

Nothing is translated, so no layer needs a rule, and neither torch nor a graph is involved: the
bytes go from the mapped file straight into the new one, while a second thread takes the digest.
docs/converting.md says what is in the result.

Source: huggingface/safetensors README.md, Format.
"""

import hashlib
import json
import mmap
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from converters.t7 import T7Source
from converters.t7.contents import key_text, role
from converters.t7.module import Ledger, Module, modules
from converters.t7.objects import MAX_EXPANDED, TENSOR_CLASSES, Tensor
from models.errors import FormatError
from models.files import writing

FORMAT = "relume-tensors"
SCHEMA = 1
MAX_HEADER = 100_000_000  # bytes; what the safetensors library reads

# Bytes for one of the file: text of two characters may be a double, and views may overlap.
MAX_GROWTH = 4

CHUNK = 1 << 20
PART = 1 << 24  # bytes that are worth a wait for the disk

_TYPES = {
    **{f"i{size}": f"I{8 * size}" for size in (1, 2, 4, 8)},
    **{f"f{size}": f"F{8 * size}" for size in (2, 4, 8)},
    "u1": "U8",
}


class Bare(NamedTuple):
    """What was written.

    Attributes:
        names: Of the tensors that are stored, in the order of the modules.
        shared: Further names of those, by name: what it is stored as.
        parameters: Learned numbers, shared ones once.
        statistics: Numbers of running statistics.
        bytes: Size of the file.
        sha256: Digest of the source, unpacked.
    """

    names: tuple[str, ...]
    shared: dict[str, str]
    parameters: int
    statistics: int
    bytes: int
    sha256: str


class _Found(NamedTuple):
    """What a file has to be written."""

    tensors: dict[str, Tensor]
    shared: dict[str, str]
    classes: dict[str, str]
    numbers: Counter[str]  # by role


def write_tensors(path: Path, name: Path, target: Path) -> Bare:
    """Write every learned tensor and running statistic of the `.t7` at `path` to `target`.

    Each has its own type and shape. Errors and the result call the source `name`, where `path` is
    its unpacked copy.

    Raises:
        FormatError: The file is no `.t7`, is damaged, holds no module, or its tensors lie outside
            their storages.
    """
    with ThreadPoolExecutor(2) as pool, writing() as files:
        digest = pool.submit(_digest, path)
        found = _found(T7Source(path, name), name)
        _check_size(found, path, name)
        stored = _ordered(found.tensors)
        start = len(_header(found, stored, name, ""))
        with files.new(target).open("wb") as file:
            file.seek(start)
            flushed = []
            for _ in _copied(path, name, stored.values(), file):
                flushed.append(pool.submit(os.fsync, file.fileno()))  # the disk works meanwhile
            size = file.tell()
            for one in flushed:
                one.result()
            file.seek(0)
            file.write(_header(found, stored, name, digest.result()))
    numbers = found.numbers
    return Bare(
        tuple(found.tensors),
        found.shared,
        numbers["parameter"],
        numbers["statistic"],
        size,
        digest.result(),
    )


def _check_size(found: _Found, path: Path, name: Path) -> None:
    """Raise FormatError if the tensors are more than the file can hold, overlapping or repeated."""
    needed = sum(tensor.array().nbytes for tensor in found.tensors.values())
    most = MAX_GROWTH * path.stat().st_size + MAX_EXPANDED
    if needed > most:
        raise FormatError(
            name, 0, found=f"tensors of {needed:,} bytes together", expected=f"at most {most:,}"
        )


def _ordered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in the order in which they are written.

    Wide types first, so that every tensor starts at a multiple of its item's size; then as they lie
    in the file, so that neighbours are copied together.
    """

    def place(one: tuple[str, Tensor]) -> tuple[int, int, int]:
        tensor = one[1]
        at = tensor.storage.at if tensor.storage is not None else 0
        return -TENSOR_CLASSES[tensor.class_name].itemsize, at, tensor.offset

    return dict(sorted(tensors.items(), key=place))


def _copied(path: Path, name: Path, tensors: Iterable[Tensor], target: BinaryIO) -> Iterator[None]:
    """Write the elements of all tensors, one after the other, little-endian, in large parts."""
    buffer = memoryview(bytearray(CHUNK))
    part = 0
    with path.open("rb", buffering=0) as source:
        for piece in _pieces(tensors):
            if isinstance(piece, Tensor):
                array = piece.array()
                little = array.astype(array.dtype.newbyteorder("<"), copy=False)
                target.write(np.ascontiguousarray(little).data)
                continue
            source.seek(piece.start)
            left = len(piece)
            while left:
                count = source.readinto(buffer[:left])
                if not count:
                    raise FormatError(
                        name, piece.stop - left, found="the end", expected=f"{left:,} bytes"
                    )
                part += target.write(buffer[:count])
                left -= count
                if part >= PART:
                    part = 0
                    yield


def _pieces(tensors: Iterable[Tensor]) -> list[range | Tensor]:
    """Return which bytes of the file to copy as they are, and which tensors to write instead.

    Reading is cheaper than to have a mapped file's pages looked up one by one.
    """
    pieces: list[range | Tensor] = []
    for tensor in tensors:
        span = _span(tensor)
        if span is None:
            pieces.append(tensor)
        elif pieces and isinstance(last := pieces[-1], range) and last.stop == span.start:
            pieces[-1] = range(last.start, span.stop)
        else:
            pieces.append(span)
    return pieces


def _span(tensor: Tensor) -> range | None:
    """Return the bytes of the file that are a tensor's elements in their order, little-endian."""
    array, storage = tensor.array(), tensor.storage
    little = array.dtype.newbyteorder("<")
    if storage is None or storage.file.layout.text or not array.flags.c_contiguous:
        return None
    if storage.file.layout.stored(array.dtype) != little:
        return None
    start = storage.at + tensor.offset * array.itemsize
    return range(start, start + array.nbytes)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, in one step, for another thread to work meanwhile."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:  # which mmap refuses
            return hashlib.sha256().hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return hashlib.sha256(data).hexdigest()


def _found(source: T7Source, name: Path) -> _Found:
    """Return the tensors that are no state, by name; those that are one only once."""
    found = _Found({}, {}, {}, Counter())
    places: dict[tuple[object, ...], str] = {}
    for module in modules(Module(source.root, "", Ledger(name))):
        found.classes[module.path] = module.source.class_name
        for field, value in module.source.fields.items():
            kind = role(field)
            if not isinstance(value, Tensor) or not value.size or kind == "state":
                continue
            own = field if isinstance(field, str) else key_text(field)
            full = f"{module.path}.{own}" if module.path else own
            if full in found.tensors or full in found.shared or full == "__metadata__":
                raise FormatError(name, full[:80], found="a name that is taken", expected="another")
            owner = places.setdefault(value.place, full)
            if owner != full:
                found.shared[full] = owner
                continue
            found.tensors[full] = value
            found.numbers[kind] += value.size
    return found


def _header(found: _Found, stored: Mapping[str, Tensor], name: Path, digest: str) -> bytes:
    """Return what precedes the numbers: a length of 8 bytes, and that much JSON."""
    metadata = {
        "format": FORMAT,
        "schema": str(SCHEMA),
        "source": name.name.encode(errors="backslashreplace").decode(),
        "sha256": f"{digest:64}",  # as long without one
        "classes": json.dumps(found.classes),
        "shared": json.dumps(found.shared),
    }
    entries: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for full, tensor in stored.items():
        dtype = TENSOR_CLASSES[tensor.class_name]
        span = [at, at := at + tensor.size * dtype.itemsize]
        entries[full] = {
            "dtype": _TYPES[f"{dtype.kind}{dtype.itemsize}"],
            "shape": tensor.shape,
            "data_offsets": span,
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of 8
    if len(text) > MAX_HEADER:
        raise FormatError(
            name, 0, found=f"names of {len(text):,} bytes", expected=f"at most {MAX_HEADER:,}"
        )
    return struct.pack("<Q", len(text)) + text
