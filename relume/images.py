"""Images that wait to be read: files that arguments name, or whatever else gives bytes."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from models.decoding import MAX_PIXELS
from models.errors import ImageError, ImageTooLarge

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_BYTES = 8 * MAX_PIXELS  # of a file: the most that 16-bit colour with transparency can need


class Image(NamedTuple):
    """An image's name, and what returns the bytes of its file, or raises ImageError or OSError."""

    name: str
    read: Callable[[], bytes]


def image_file(path: Path) -> Image:
    """Return the image of a file, which is opened when it is read."""
    return Image(str(path), partial(_read, path))


def found(arguments: Iterable[str]) -> Iterator[Path]:
    """Yield the files that the arguments name, in their order; within a folder, sorted.

    Of a folder those count whose suffix is an image's. What is not there is yielded as it was
    given, so that it fails by its name.
    """
    for argument in arguments:
        path = Path(argument)
        if os.path.isdir(argument):
            yield from _images_in(path) or [path]
        elif os.path.exists(argument) or not glob.has_magic(argument):
            yield path
        else:
            matches = sorted(glob.glob(argument, recursive=True))
            files = [Path(match) for match in matches if not os.path.isdir(match)]
            yield from files or [path]


def _images_in(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error

    files = (
        Path(root, name) for root, _, names in os.walk(folder, onerror=refuse) for name in names
    )
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ImageError(f"found a folder without {', '.join(SUFFIXES)}")
    if path.exists() and not path.is_file():
        raise ImageError("found no regular file")
    try:
        size = path.stat().st_size
    except ValueError as error:  # a zero byte, or what the system's encoding lacks
        raise ImageError(f"found what cannot be a path ({error})") from error
    if size > MAX_BYTES:
        raise ImageTooLarge(f"found {size:,} bytes, expected at most {MAX_BYTES:,} of an image")
    return path.read_bytes()
