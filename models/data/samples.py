"""What training and evaluation know of a data set: labelled images by index."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.decoding import Pixels
from models.errors import DataError

SHOWN = 8  # names in a message

Labels = NDArray[np.int64]


class Samples(Protocol):
    """Labelled images by index; reading one is safe from any process.

    Attributes:
        name: Of the data set, for messages.
        classes: Their names, in the order of the network's outputs.
        labels: One for each image, all within the classes.
    """

    name: str
    classes: tuple[str, ...]
    labels: Labels

    @property
    def digest(self) -> str:
        """SHA-256 over names, sizes and labels: two runs with the same had the same images."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | Pixels:
        """Return an image: the bytes of its file, or its pixels, height x width x 3."""

    def where(self, index: int) -> str:
        """Return how an image is named in messages."""


class Arrays:
    """Images that are in memory: CIFAR, Fashion-MNIST, digits."""

    def __init__(
        self, name: str, classes: Sequence[str], pixels: NDArray[np.uint8], labels: Labels
    ) -> None:
        """Take pixels (N x height x width x 3, or x 1 for grey) and their labels.

        Raises:
            DataError: A label is of no class, or there are not as many labels as images.
        """
        if len(pixels) != len(labels):
            raise DataError(f"{name}: found {len(labels):,} labels of {len(pixels):,} images")
        self.name, self.classes, self.labels = name, tuple(classes), labels
        self._pixels = pixels
        check_labels(self)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """SHA-256 over shape, pixels and labels."""
        shape = ",".join(map(str, self._pixels.shape)).encode()
        return digest_of(shape, np.ascontiguousarray(self._pixels), self.labels)

    def read(self, index: int) -> Pixels:
        """Return the pixels of an image; a grey one has three equal channels."""
        pixels = self._pixels[index]
        return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)

    def where(self, index: int) -> str:
        """Return the data set and the image's number."""
        return f"{self.name}: image {index:,}"


def check_labels(samples: Samples) -> None:
    """Raise DataError if a label is of no class, naming the first images and their number."""
    count = len(samples.classes)
    wrong = np.flatnonzero((samples.labels < 0) | (samples.labels >= count))
    if len(wrong):
        named = "; ".join(f"{samples.where(i)}: {samples.labels[i]}" for i in wrong[:SHOWN])
        raise DataError(
            f"found {len(wrong):,} labels out of range, expected 0 to {count - 1:,}: {named}"
            f"{some_more(len(wrong))}"
        )


def some_more(count: int) -> str:
    """Return ` and N more` for a list of which only the first are shown."""
    return f" and {count - SHOWN:,} more" if count > SHOWN else ""


def listed(names: Sequence[str]) -> str:
    """Return the first of many names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + some_more(len(names))


def digest_of(*parts: bytes | NDArray[np.generic]) -> str:
    """Return the SHA-256 of bytes and contiguous arrays, each with its length before it."""
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.reshape(-1).view(np.uint8).data
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()
