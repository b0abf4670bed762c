"""Evaluation's views: the centre, or ten crops, exactly as an artifact's user prepares them."""

from dataclasses import dataclass

import numpy as np

from models.augment.view import View
from models.decoding import Pixels, decode
from models.preprocess import preprocess, ten_crops
from models.spec import InputSpec


@dataclass(frozen=True)
class Evaluation:
    """The network's input itself, float32; nothing is drawn.

    Attributes:
        spec: How images enter the network.
        ten: The centre, the corners and their mirror images instead of the centre.
    """

    spec: InputSpec
    ten: bool = False

    def __call__(self, image: bytes | Pixels, draw: np.random.Generator) -> View:
        """Return the view of an image: height x width x 3, or ten of them."""
        pixels = decode(image, orientation=False) if isinstance(image, bytes) else image
        row = (ten_crops if self.ten else preprocess)(pixels, self.spec)
        return View(np.moveaxis(row, -3, -1), np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
