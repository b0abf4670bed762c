"""MXNet's default augmenter, as the ResNets of 2016 used it at levels 1, 2 and 3.

1 crops and mirrors; 2 also scales, stretches and shifts hue, saturation and lightness; 3 also
rotates and shears. Everything is done on bytes, and hue does not wrap around.

Source: apache/mxnet src/io/image_aug_default.cc; tornadomeet/ResNet train_resnet.py for the levels,
data/README.md for the records: short side 480 for levels 2 and 3, 256 for level 1.
"""

from dataclasses import dataclass
from math import cos, radians, sin
from typing import NamedTuple

import cv2
import numpy as np

from models.augment.colour import normalised
from models.augment.crops import bordered, mirrored, random_crop, shorter_side, view
from models.augment.picture import Picture
from models.augment.view import View
from models.decoding import Pixels
from models.errors import ImageError
from models.geometry import Size
from models.spec import InputSpec

GREY = (127, 127, 127)  # around what is warped or has a border
LIMITS = (180, 255, 255)  # of hue, lightness and saturation as bytes


class Warp(NamedTuple):
    """One affine map of an image.

    Attributes:
        shear: Of the columns, in rows.
        angle: In whole degrees.
        scale: Of the canvas and the image on it.
        ratio: Of width to height, beyond the image's own.
    """

    shear: float
    angle: int
    scale: float
    ratio: float


class Shift(NamedTuple):
    """What is added to hue, lightness and saturation."""

    hue: int
    lightness: int
    saturation: int


@dataclass(frozen=True)
class Levels:
    """MXNet's augmentation of one level.

    Attributes:
        spec: Names the normalisation, which was the network's own first layer.
        size: Of the crop.
        level: 1, 2 or 3.
        side: The shorter side of the records: images of another are resized first; None takes them
            as they are.
        border: Padding of CIFAR's images.
    """

    spec: InputSpec
    size: int
    level: int
    side: int | None
    border: int = 0

    def __call__(self, image: bytes | Pixels, draw: np.random.Generator) -> View:
        """Return the view of an image."""
        picture = Picture(image)
        pixels = picture.pixels()
        if self.side is not None:
            pixels = shorter_side(pixels, self.side)
        if self.level == 1:
            crop = random_crop(bordered(pixels, self.border, GREY), self.size, draw)
        else:
            crop = self._warped_crop(pixels, draw)
        return view(mirrored(crop, draw), normalised(self.spec))

    def _warped_crop(self, pixels: Pixels, draw: np.random.Generator) -> Pixels:
        warp = drawn_warp(self.level, draw)
        canvas = warped_size(Size(*pixels.shape[:2]), warp)
        if min(canvas) < self.size:
            found = f"{canvas.width} x {canvas.height}"
            raise ImageError(f"found {found} pixels, expected at least {self.size} x {self.size}")
        top, left = (int(draw.integers(length - self.size + 1)) for length in canvas)
        crop = warped(pixels, warp, Size(top + self.size, left + self.size))[top:, left:]
        return shifted(crop, drawn_shift(draw))


def drawn_warp(level: int, draw: np.random.Generator) -> Warp:
    """Return the warp of an image at level 2 or 3."""
    shear = draw.uniform(-0.1, 0.1) if level == 3 else 0.0
    angle = int(draw.integers(-10, 10, endpoint=True)) if level == 3 else 0
    return Warp(shear, angle, draw.uniform(0.533, 1.0), draw.uniform(0.75, 1.25))


def drawn_shift(draw: np.random.Generator) -> Shift:
    """Return the shift of an image's colours, truncated towards 0 as C does."""
    hue, saturation, lightness = (int(draw.uniform(-most, most)) for most in (36, 50, 50))
    return Shift(hue, lightness, saturation)


def warped_size(size: Size, warp: Warp) -> Size:
    """Return the size of the canvas that an image is warped onto; a part of a pixel is cut off."""
    height, width = (int(np.float32(warp.scale) * np.float32(length)) for length in size)
    return Size(height, width)


def warped(pixels: Pixels, warp: Warp, part: Size) -> Pixels:
    """Return the upper left part of the canvas; the numbers are float32 as the original's."""
    height, width = (np.float32(length) for length in pixels.shape[:2])
    shear, scale, ratio = (np.float32(value) for value in (warp.shear, warp.scale, warp.ratio))
    a, b = np.float32(cos(radians(warp.angle))), np.float32(sin(radians(warp.angle)))
    hs = 2 * scale / (1 + ratio)
    ws = ratio * hs
    matrix = np.zeros((2, 3), np.float32)
    matrix[0, :2] = hs * a - shear * b * ws, hs * b + shear * a * ws
    matrix[1, :2] = -b * ws, a * ws
    matrix[0, 2] = (scale * width - (matrix[0, 0] * width + matrix[0, 1] * height)) / 2
    matrix[1, 2] = (scale * height - (matrix[1, 0] * width + matrix[1, 1] * height)) / 2
    canvas = cv2.warpAffine(
        *(pixels, matrix, (part.width, part.height)),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=GREY,
    )
    return np.asarray(canvas, np.uint8)


def shifted(pixels: Pixels, shift: Shift) -> Pixels:
    """Return the pixels with the shift added to hue, lightness and saturation, each cut off."""
    values = np.arange(256)
    table = [np.clip(values + one, 0, most) for one, most in zip(shift, LIMITS, strict=True)]
    hls = cv2.cvtColor(pixels, cv2.COLOR_RGB2HLS)
    hls = cv2.LUT(hls, np.stack(table, axis=-1).astype(np.uint8)[None])
    return np.asarray(cv2.cvtColor(hls, cv2.COLOR_HLS2RGB), np.uint8)
