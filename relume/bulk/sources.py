"""What the arguments name, cut into parts: the same ones in every process, without a word."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.errors import DataError, some
from relume.bulk import recordio, tables, tars
from relume.bulk.parts import Files, Part
from relume.bulk.places import is_url, named_by, size
from relume.bulk.tables import Columns

CONTAINERS = (*recordio.ENDINGS, *tables.ENDINGS, *tars.ENDINGS)  # of many images


def planned(arguments: Sequence[str], count: int, columns: Columns) -> list[Part]:
    """Return the parts of all that the arguments name, image files first.

    Args:
        arguments: Files, folders and patterns, on this machine or as URLs.
        count: How many images a part has, where it can be chosen.
        columns: Of Parquet files.

    Raises:
        DataError: Something is named twice or not there, there is no image, or a store cannot be
            reached.
        FormatError: A file that holds images is damaged so that none can be found in it.
        OSError: Such a file is missing or closed to us.
    """
    named = [(argument, list(named_by(argument))) for argument in arguments]
    if absent := [one for one, names in named if len(names) == 1 and _is_absent(one, names[0])]:
        raise DataError(f"{some(absent)}: no such file or folder, and no pattern of any")
    names = [name for _, several in named for name in several]
    if twice := _twice(names):
        raise DataError(f"named more than once, so they would be classified twice: {some(twice)}")
    if empty := [name for name in names if not is_url(name) and os.path.isdir(name)]:
        raise DataError(
            f"{some(empty)}: no image in it; of other files, name a pattern, such as '*.tar'"
        )
    parts = list(_parts(names, count, columns))
    if not parts:
        raise DataError(f"{some(arguments)}: no image in it")
    return parts


def _is_absent(argument: str, name: str) -> bool:
    """Return whether an argument is what it names, and is not there."""
    is_itself = not is_url(argument) and Path(argument) == Path(name)
    return is_itself and not os.path.lexists(name)


def digest(parts: Sequence[Part]) -> str:
    """Return 64 hexadecimal digits that change with what is to be done.

    That is the names of images, the names and lengths of what holds images, and their places.
    """
    lines = hashlib.sha256()
    for part in parts:
        lines.update(f"{part!r}\n".encode())
    return lines.hexdigest()


def _twice(names: Sequence[str]) -> list[str]:
    """Return the names of what another name means already; links to files are files."""
    seen: set[str] = set()
    folders: dict[str, str] = {}  # to where they lead: a question for each file takes too long
    twice: dict[str, None] = {}
    for name in names:
        path = name.removeprefix("file://")
        if not is_url(path):
            folder, last = os.path.split(path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            path = os.path.join(folders[folder], last)
        if path in seen:
            twice[name] = None
        seen.add(path)
    return list(twice)


def _parts(names: Sequence[str], count: int, columns: Columns) -> Iterator[Part]:
    files = [name for name in names if not name.lower().endswith(CONTAINERS)]
    for begin in range(0, len(files), count):
        yield Files(tuple(files[begin : begin + count]))
    for name in names:
        if name.lower().endswith(recordio.ENDINGS):
            yield from recordio.parts_of(name, count)
        elif name.lower().endswith(tables.ENDINGS):
            yield from tables.parts_of(name, count, columns)
        elif name.lower().endswith(tars.ENDINGS):
            yield tars.Members(name, size(name))
