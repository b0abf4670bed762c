"""Images in an MXNet `.rec`."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from models.data.records import Damage, RecordFile, refuse
from models.data.samples import check_labels, digest_of
from models.errors import DataError, FormatError

CLASSES = "classes.txt"  # beside the records: their names, a line each


class Packed:
    """The images of a `.rec`; a record's first label is its class.

    Attributes:
        damage: What was left out, with `damage="skip"`.
    """

    def __init__(
        self, path: Path, classes: int | None, damage: Literal["refuse", "skip"] = "refuse"
    ) -> None:
        """Read where the records are, and their labels.

        Args:
            path: The `.rec`.
            classes: How many there are; None takes those of `classes.txt` beside the file, and
                without one as many as the labels need.
            damage: Whether damaged records are refused or left out.

        Raises:
            FormatError: Records are damaged.
            DataError: There are no records, a label is no whole number or of no class, or
                `classes.txt` does not have as many as there should be.
        """
        self.name = str(path)
        self._file = RecordFile(path, damage=damage)
        self._records, labels, broken = self._labels()
        if damage == "refuse":
            refuse(path, broken)
        self.damage = tuple(sorted(self._file.damage + broken))
        if not len(labels):
            raise DataError(f"{path}: found no record of an image")
        self.labels = labels.astype(np.int64)
        if len(odd := np.flatnonzero(self.labels != labels)):
            raise DataError(
                f"{self.where(odd[0])}: found label {labels[odd[0]]:g}, expected a whole number "
                f"of a class; {len(odd):,} such records"
            )
        self.classes = _classes(path, classes, int(self.labels.max()) + 1)
        check_labels(self)

    def _labels(self) -> tuple[np.ndarray, np.ndarray, tuple[Damage, ...]]:
        """Return the records that have labels, their first ones, and what has none."""
        labels = np.empty(len(self._file), np.float32)
        broken = {}
        for index in range(len(labels)):
            try:
                labels[index] = self._file.labels(index)[0]
            except FormatError:
                at = int(self._file.offsets[index])
                broken[index] = Damage(at, "a record too short for its header", "an image's record")
        records = np.delete(np.arange(len(labels)), list(broken))
        return records, labels[records], tuple(broken.values())

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the places of the records, which tell their sizes, and labels."""
        offsets = self._file.offsets[self._records]
        return digest_of("\n".join(self.classes).encode(), offsets, self.labels)

    def read(self, index: int) -> bytes:
        """Return the bytes of an image file."""
        return self._file.record(int(self._records[index])).payload

    def where(self, index: int) -> str:
        """Return the file, and the record's number and place in it."""
        record = int(self._records[index])
        return f"{self.name}: record {record:,} at byte {self._file.offsets[record]:,}"


def _classes(path: Path, count: int | None, needed: int) -> tuple[str, ...]:
    names = path.with_name(CLASSES)
    if not names.exists():
        return tuple(map(str, range(needed if count is None else count)))
    found = read_classes(names)
    if count is not None and len(found) != count:
        raise DataError(f"{names}: found {len(found):,} classes, expected {count:,}")
    return found


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the names of classes that `write_classes` wrote, or anybody else, a line each."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return tuple(text.removesuffix("\n").split("\n"))


def write_classes(path: Path, names: Sequence[str]) -> None:
    """Write the names of classes; they may be those of folders, which can have any bytes."""
    text = "".join(f"{name}\n" for name in names)
    path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
