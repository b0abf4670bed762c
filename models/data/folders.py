"""Images in folders, one for each class: `train/n01440764/n01440764_18.JPEG`."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from models.data.samples import digest_of, listed
from models.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Folders:
    """The images of a folder's folders; the sorted names of those are the classes."""

    def __init__(self, root: Path, classes: Sequence[str] | None = None) -> None:
        """List the images.

        Args:
            root: The folder that has a folder for each class.
            classes: The classes that there must be, such as those of the training images.

        Raises:
            DataError: Class folders are missing, too many, or without an image.
        """
        self.name, self._root = str(root), root
        self.classes = class_names(root)
        _check_classes(root, self.classes, tuple(classes or self.classes))
        files: list[bytes] = []
        counts = []
        for name in self.classes:
            paths = sorted(images_in(root / name))
            files.extend(os.fsencode(path.relative_to(root)) for path in paths)
            counts.append(len(paths))
        if empty := [name for name, count in zip(self.classes, counts, strict=True) if not count]:
            raise DataError(
                f"{root}: {len(empty):,} of {len(counts):,} class folders have no image "
                f"({', '.join(SUFFIXES)}): {listed(empty)}"
            )
        self._files = np.array(files)  # one block of memory, which forked workers share
        self.labels = np.repeat(np.arange(len(counts)), counts)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, sizes and labels."""
        sizes = np.array([self.path(index).stat().st_size for index in range(len(self))])
        return digest_of("\n".join(self.classes).encode(), self._files, sizes, self.labels)

    def path(self, index: int) -> Path:
        """Return the file of an image."""
        return self._root / os.fsdecode(self._files[index])

    def read(self, index: int) -> bytes:
        """Return the bytes of an image's file."""
        return self.path(index).read_bytes()

    def where(self, index: int) -> str:
        """Return the file of an image."""
        return str(self.path(index))


def class_names(root: Path) -> tuple[str, ...]:
    """Return the classes of a folder: the names of its folders, sorted.

    Raises:
        DataError: There are none.
    """
    names = tuple(sorted(one.name for one in os.scandir(root) if one.is_dir()))
    if not names:
        raise DataError(f"{root}: found no folders, expected one for each class")
    return names


def images_in(folder: Path) -> Iterator[Path]:
    """Yield the images of a folder and its folders, in no order."""

    def refuse(error: OSError) -> None:
        raise error

    for root, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield Path(root, name)


def _check_classes(root: Path, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if missing := sorted(set(wanted) - set(found)):
        raise DataError(
            f"{root}: {len(missing):,} of {len(wanted):,} class folders are missing: "
            f"{listed(missing)}"
        )
    if unknown := sorted(set(found) - set(wanted)):
        raise DataError(
            f"{root}: found {len(unknown):,} folders that are no class of the training images: "
            f"{listed(unknown)}"
        )
