"""The file becomes objects: which layout it is in, and the objects read in that layout.

The file is mapped, never loaded: a storage becomes its place in the file, and an array over it is
a read-only view until somebody copies it.
"""

import mmap
import struct
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from converters.signatures import LENGTH, described
from converters.t7.binary import BinaryRecords
from converters.t7.objects import NATIVE, TEXT, Layout, T7File, Tensor
from converters.t7.records import RECUR_FUNCTION, Records, kind
from converters.t7.text import TextRecords
from models.errors import FormatError

__all__ = ["kind", "read", "read_data"]


class Content(NamedTuple):
    """The first object of a file, and how the file spells its numbers."""

    root: Any
    layout: Layout


def read(path: Path, name: Path | None = None) -> Any:
    """Return the first object of a file: what `torch.load` returns; see `read_content`."""
    return read_content(path, name).root


def read_content(path: Path, name: Path | None = None) -> Content:
    """Return the first object of a file, and its layout. Errors call the file `name`.

    Raises:
        FormatError: The file is no `.t7`, is cut short, or contradicts itself.
        OSError: The file cannot be opened.
    """
    name = name or path
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # mmap cannot map an empty file
            raise FormatError(name, 0, found="an empty file", expected="a .t7 file") from error
    return _content(name, data)


def read_data(name: Path, data: mmap.mmap | bytes) -> Any:
    """Return the first object of a file whose bytes are at hand; see `read`."""
    return _content(name, data).root


def _content(name: Path, data: mmap.mmap | bytes) -> Content:
    order = _order(name, data)
    if order == "text":
        return Content(TextRecords(T7File(name, data, TEXT)).read(), TEXT)
    return _binary(name, data, order)


def _binary(name: Path, data: mmap.mmap | bytes, order: str) -> Content:
    """Read with a long of 8 bytes or, where that fails, of 4.

    Nothing in a file says which it is, but read with the wrong one it goes wrong at its first
    tensor or storage, since what follows is then no record. So 8 it is, unless only 4 gives a value
    and speaks for itself: every tensor lies in its storage, and there is one, or nothing is left
    over. A damaged file is thus not taken for one of the other kind. Where both fail, the error is
    that of 8, unless more of the tensors were sound with 4.
    """
    records = BinaryRecords(T7File(name, data, Layout(order, 8)))
    try:
        return Content(records.read(), records.file.layout)
    except FormatError as error:
        if not records.met_longs:
            raise
        evidence = sum(_sound(records))
        records.objects.clear()  # the memory is wanted
        traceback.clear_frames(error.__traceback__)
        others = BinaryRecords(T7File(name, data, Layout(order, 4)))
        try:
            value = others.read()
        except FormatError as other:
            raise (other if sum(_sound(others)) > evidence else error) from None
        sound = _sound(others)
        if all(sound) and (sound or others.at == len(data)):
            return Content(value, others.file.layout)
        raise


def _sound(records: Records) -> list[bool]:
    """Return, of each tensor with dimensions, whether it has elements and a storage around them."""
    found = (one for one in records.objects.values() if isinstance(one, Tensor) and one.shape)
    return [
        one.size > 0 and one.storage is not None and one.last() < one.storage.size for one in found
    ]


def order(head: bytes) -> str | None:
    """Return `<`, `>` or `text`, by the type id that every file starts with; None without one."""
    if head[:1] in b"012345678" and head[1:2] == b"\n":
        return "text"
    if len(head) >= 4:
        for found in "<>":
            if 0 <= struct.unpack(f"{found}i", head[:4])[0] <= RECUR_FUNCTION:
                return found
    return None


def _order(name: Path, data: mmap.mmap | bytes) -> str:
    """Return the order, or raise FormatError, which names what the file is if that is known."""
    head = bytes(data[:LENGTH])
    if (found := order(head)) is None:
        raise T7File(name, data, NATIVE).error(
            0, described(head), "a .t7: type id 0 to 8, as an int or a line of text"
        )
    return found
