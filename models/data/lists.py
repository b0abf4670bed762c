"""MXNet's `.lst`: a line for each image, its number, its labels and its file, with tabs between.

Source: apache/mxnet tools/im2rec.py, list_image, make_list, write_list, read_list.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from models.data.folders import class_names, images_in
from models.data.samples import listed
from models.errors import DataError, FormatError

IM2REC_SEED = 100


class Entry(NamedTuple):
    """An image of a list.

    Attributes:
        key: Its number, which becomes the record's key.
        labels: One or more; the first is the class.
        file: Relative to the folder of the images.
    """

    key: int
    labels: tuple[float, ...]
    file: str


def entries_in(root: Path, *, shuffle: bool) -> list[Entry]:
    """Return the images of a folder of class folders as im2rec lists them.

    Numbers and labels follow the sorted names. The shuffle is im2rec's own, always the same.

    Raises:
        DataError: A class folder has no image.
    """
    names: list[tuple[int, str]] = []
    empty = []
    for label, name in enumerate(class_names(root)):
        paths = sorted(images_in(root / name))
        names.extend((label, str(path.relative_to(root))) for path in paths)
        empty += [] if paths else [name]
    if empty:
        raise DataError(f"{root}: {len(empty):,} class folders have no image: {listed(empty)}")
    entries = [Entry(key, (label,), file) for key, (label, file) in enumerate(names)]
    if shuffle:
        random.Random(IM2REC_SEED).shuffle(entries)
    return entries


def read_list(path: Path) -> list[Entry]:
    """Return the images of a `.lst`.

    Raises:
        FormatError: A line has no number, no label or no file.
    """
    entries = []
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            first, *labels = line.rstrip("\r\n").split("\t")
            try:
                entries.append(Entry(int(first), tuple(map(float, labels[:-1])), labels[-1]))
                good = len(labels) > 1 and bool(labels[-1])
            except (ValueError, IndexError):
                good = False
            if not good:
                wanted = "a number, labels and a file, with tabs between"
                raise FormatError(path, f"line {number:,}", found=repr(line[:60]), expected=wanted)
    return entries


def write_list(path: Path, entries: Iterable[Entry]) -> None:
    """Write a `.lst` as im2rec does, byte for byte."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for key, labels, file in entries:
            lines.write("\t".join([str(key), *(f"{label:f}" for label in labels), file]) + "\n")
