"""What an augmentation makes of an image."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.decoding import Pixels


class View(NamedTuple):
    """One image as the network will see it, its colours still to be mapped.

    Attributes:
        pixels: Height x width x 3, RGB, bytes; the network's input is `matrix @ colour + vector`.
            Or float32, and then already the network's input; ten crops have one dimension more.
        matrix: 3 x 3: jitter, lighting and normalisation as one map of colours 0 to 255.
        vector: 3, of the same map.
    """

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    matrix: NDArray[np.float32]
    vector: NDArray[np.float32]


class Augmentation(Protocol):
    """Turns an image into a view; all its chance comes from the generator."""

    def __call__(self, image: bytes | Pixels, draw: np.random.Generator) -> View:
        """Return the view of an encoded image or of pixels.

        Raises:
            ImageError: The image cannot be decoded, or not be used.
        """
