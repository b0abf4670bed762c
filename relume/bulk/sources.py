"""What the arguments name, cut into parts: the same ones in every process, without a word."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from models.errors import DataError, some
from relume.bulk import recordio, tables, tars
from relume.bulk.parts import Files, Part
from relume.bulk.places import is_url, named_by, size
from relume.bulk.tables import Columns


def planned(arguments: Sequence[str], count: int, columns: Columns) -> list[Part]:
    """Return the parts of all that the arguments name, image files first.

    Args:
        arguments: Files, folders and patterns, on this machine or as URLs.
        count: How many images a part has, where it can be chosen.
        columns: Of Parquet files.

    Raises:
        DataError: Something is named twice, there is no image, or a store cannot be reached.
        FormatError: A file that holds images is damaged so that none can be found in it.
        OSError: Such a file is missing or closed to us.
    """
    names = [name for argument in arguments for name in named_by(argument)]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(f"named more than once, so they would be classified twice: {some(twice)}")
    if empty := [name for name in names if not is_url(name) and os.path.isdir(name)]:
        raise DataError(
            f"{some(empty)}: no image in it; of other files, name a pattern, such as '*.tar'"
        )
    parts = list(_parts(names, count, columns))
    if not parts:
        raise DataError(f"{some(arguments)}: no image in it")
    return parts


def digest(parts: Sequence[Part]) -> str:
    """Return 64 hexadecimal digits that change with what is to be done.

    That is the names of images, the names and lengths of what holds images, and their places.
    """
    lines = hashlib.sha256()
    for part in parts:
        lines.update(f"{part!r}\n".encode())
    return lines.hexdigest()


def _parts(names: Sequence[str], count: int, columns: Columns) -> Iterator[Part]:
    containers = tuple(one for kind in (recordio, tables, tars) for one in kind.ENDINGS)
    files = [name for name in names if not name.lower().endswith(containers)]
    for begin in range(0, len(files), count):
        yield Files(tuple(files[begin : begin + count]))
    for name in names:
        if name.lower().endswith(recordio.ENDINGS):
            yield from recordio.parts_of(name, count)
        elif name.lower().endswith(tables.ENDINGS):
            yield from tables.parts_of(name, count, columns)
        elif name.lower().endswith(tars.ENDINGS):
            yield tars.Members(name, size(name))
