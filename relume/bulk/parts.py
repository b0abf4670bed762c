"""What the images of a run are cut into: the unit that is done whole or done again."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from models.errors import DataError, ImageError
from relume.bulk.places import KEPT, OR_SKIPPED, image_bytes, is_url
from relume.images import Image


class Part(Protocol):
    """Images that are classified together; where they are, not what is in them.

    It travels to whoever does it, and its `repr` says all that it is.
    """

    @property
    def remote(self) -> bool:
        """Whether each image is fetched by itself, which takes waiting more than work."""
        ...

    def images(self) -> Iterator[Image]:
        """Yield the images, in an order that is always the same.

        Raises:
            DataError: The store that they are in cannot be reached.
        """
        ...


@dataclass(frozen=True)
class Files:
    """Image files, each by its path or URL."""

    names: tuple[str, ...]

    @property
    def remote(self) -> bool:
        """Whether there are URLs among them."""
        return any(map(is_url, self.names))

    def images(self) -> Iterator[Image]:
        """Yield an image for each name."""
        for name in self.names:
            yield Image(name, partial(image_bytes, name))


def skipped(image: Image) -> Image:
    """Return an image that is broken where its server or store cannot be reached."""

    def read() -> bytes:
        try:
            return image.read()
        except DataError as error:
            raise ImageError(str(error).removesuffix(OR_SKIPPED).removesuffix(KEPT)) from error

    return Image(image.name, read)


def failing(name: str, error: Exception) -> Image:
    """Return an image that fails when it is read, with what is known already."""

    def read() -> bytes:
        raise error

    return Image(name, read)
