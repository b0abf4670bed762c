"""Torch's own augmentations: fb.resnet.torch's for ImageNet and CIFAR, and ENet's.

What is drawn is drawn as the originals do. Two things are bytes here that were numbers there: a
resized crop is rounded (and what a cubic throws beyond 0 or 255 is cut off), and so is the colour
around a CIFAR image, by at most half a byte. ImageNet's crop is resized by OpenCV's cubic, which
like Torch's does not antialias, but places samples half a pixel apart and has -0.75 for Torch's
-0.5; Torch's own takes 17 times as long.
"""

from dataclasses import dataclass
from math import ceil, sqrt

import cv2
import numpy as np

from models import geometry, torch7_scale
from models.augment.colour import drawn_jitter, jittered, normalised
from models.augment.crops import (
    TRIES,
    bordered,
    cut,
    mirrored,
    random_crop,
    shorter_side,
    view,
    window,
)
from models.augment.picture import Picture
from models.augment.view import View
from models.decoding import Pixels
from models.errors import ImageError
from models.geometry import Size, Window
from models.spec import InputSpec
from models.torch7_scale import Floats

BYTES: Floats = np.arange(256, dtype=np.float32)


@dataclass(frozen=True)
class RandomSizedCrop:
    """A crop of random size and shape, colour jitter, lighting, mirrored or not.

    Source: lim0606/fb.resnet.torch datasets/imagenet.lua, preprocess; datasets/transforms.lua.
    """

    spec: InputSpec
    size: int

    def __call__(self, image: bytes | Pixels, draw: np.random.Generator) -> View:
        """Return the view of an image."""
        picture = Picture(image)
        box = drawn_box(picture.size, draw) or _middle(picture.size)
        square = (self.size, self.size)
        crop = cv2.resize(cut(picture, box, self.size), square, interpolation=cv2.INTER_CUBIC)
        pixels = np.asarray(crop, np.uint8)
        mean = np.array(cv2.mean(pixels)[:3])
        colours = jittered(drawn_jitter(draw), mean, self.spec)
        return view(mirrored(pixels, draw), colours)


@dataclass(frozen=True)
class PaddedCrop:
    """A crop of the image with a border of the mean colour, mirrored or not: for CIFAR.

    Images of another size than the crop are resized to it first.

    Source: facebook/fb.resnet.torch datasets/cifar10.lua, preprocess.
    """

    spec: InputSpec
    size: int
    border: int = 4

    def __call__(self, image: bytes | Pixels, draw: np.random.Generator) -> View:
        """Return the view of an image."""
        colour = [round(mean / self.spec.scale) for mean in self.spec.mean]
        pixels = mirrored(shorter_side(Picture(image).pixels(), self.size), draw)
        pixels = bordered(pixels, self.border, colour)
        return view(random_crop(pixels, self.size, draw), normalised(self.spec))


@dataclass(frozen=True)
class RandomCrop:
    """A crop of the image resized as for evaluation, mirrored or not: ENet's.

    Source: soumith/imagenet-multiGPU.torch donkey.lua, trainHook, whose crop never begins at the
    first row or column.
    """

    spec: InputSpec
    size: int

    def __call__(self, image: bytes | Pixels, draw: np.random.Generator) -> View:
        """Return the view of an image."""
        picture = Picture(image)
        whole = geometry.resized(picture.size, self.spec)
        top, left = (_origin(whole[axis], self.size, draw) for axis in (0, 1))
        part = window(top, left, self.size, self.size)
        pixels = picture.pixels(whole)
        if whole == pixels.shape[:2]:
            pixels = pixels[top : top + self.size, left : left + self.size]
        else:
            numbers = torch7_scale.scale(pixels, BYTES, "torch7-bilinear", whole, part)
            planes = (cv2.convertScaleAbs(plane) for plane in numbers)  # rounded; none is negative
            pixels = np.asarray(cv2.merge(tuple(planes)), np.uint8)
        return view(mirrored(pixels, draw), normalised(self.spec))


def _origin(whole: int, size: int, draw: np.random.Generator) -> int:
    if whole < size:
        raise ImageError(f"found {whole} pixels after resizing, expected at least {size}")
    return min(ceil(draw.uniform(1e-2, max(whole - size, 1e-2))), whole - size)


def drawn_box(size: Size, draw: np.random.Generator) -> Window | None:
    """Return a part of random area and shape; None if none of ten fits."""
    for _ in range(TRIES):
        area = draw.uniform(0.08, 1.0) * size.height * size.width
        ratio = draw.uniform(3 / 4, 4 / 3)
        width, height = _rounded(sqrt(area * ratio)), _rounded(sqrt(area / ratio))
        if draw.random() < 0.5:
            width, height = height, width
        if height <= size.height and width <= size.width:
            top = int(draw.integers(size.height - height + 1))
            left = int(draw.integers(size.width - width + 1))
            return window(top, left, height, width)
    return None


def _rounded(value: float) -> int:
    return max(int(value + 0.5), 1)  # a crop of no pixel would stop the original


def _middle(size: Size) -> Window:
    """Return the square that a centre crop shows once the shorter side has been resized to it."""
    side = min(size)
    top, left = ceil((size.height - side) / 2), ceil((size.width - side) / 2)
    return window(top, left, side, side)
