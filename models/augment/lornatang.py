"""Lornatang's augmentation: torchvision's transforms of Pillow images, one after the other.

Source: Lornatang/InceptionV4-PyTorch dataset.py; pytorch/vision torchvision/transforms:
transforms.py (RandomResizedCrop, RandomRotation), autoaugment.py (TrivialAugmentWide).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, exp, log, sqrt

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from models.augment.colour import normalised
from models.augment.crops import TRIES, cut, mirrored, upside_down, view, window
from models.augment.picture import Picture
from models.augment.view import View
from models.decoding import Pixels
from models.geometry import Size, Window
from models.spec import InputSpec

RATIOS = (3 / 4, 4 / 3)
BINS = 31  # strengths from which one is drawn
MOST_DEGREES = 270


@dataclass(frozen=True)
class Wide:
    """A resized crop, one operation of TrivialAugmentWide, a rotation and two flips."""

    spec: InputSpec
    size: int

    def __call__(self, image: bytes | Pixels, draw: np.random.Generator) -> View:
        """Return the view of an image."""
        picture = Picture(image)
        box = drawn_box(picture.size, draw)
        crop = resized(cut(picture, box, self.size), self.size)
        name = tuple(OPERATIONS)[draw.integers(len(OPERATIONS))]
        strength = drawn_strength(name, draw)
        varied = OPERATIONS[name](crop, strength)
        turned = varied.rotate(draw.uniform(0, MOST_DEGREES))
        pixels = upside_down(mirrored(np.asarray(turned), draw), draw)
        return view(pixels, normalised(self.spec))


def drawn_box(size: Size, draw: np.random.Generator) -> Window:
    """Return a part of random area and shape; as much of the middle as may be if none fits."""
    for _ in range(TRIES):
        area = draw.uniform(0.08, 1.0) * size.height * size.width
        ratio = exp(draw.uniform(log(RATIOS[0]), log(RATIOS[1])))
        width, height = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < width <= size.width and 0 < height <= size.height:
            top = int(draw.integers(size.height - height + 1))
            left = int(draw.integers(size.width - width + 1))
            return window(top, left, height, width)
    width = min(size.width, round(size.height * RATIOS[1]))
    height = min(size.height, round(size.width / RATIOS[0]))
    top, left = (size.height - height) // 2, (size.width - width) // 2
    return window(top, left, height, width)


def resized(pixels: Pixels, size: int) -> Image.Image:
    """Return a crop as a square, by Pillow's antialiased bilinear."""
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)


def drawn_strength(name: str, draw: np.random.Generator) -> float:
    """Return one of the strengths of an operation, of either sign where it has one."""
    if name not in STRENGTHS:
        return 0.0
    strength = float(STRENGTHS[name][draw.integers(BINS)])
    return -strength if name in SIGNED and draw.random() < 0.5 else strength


def _affine(image: Image.Image, coefficients: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


Operation = Callable[[Image.Image, float], Image.Image]

OPERATIONS: dict[str, Operation] = {
    "Identity": lambda image, _: image,
    "ShearX": lambda image, by: _affine(image, (1, by, 0, 0, 1, 0)),
    "ShearY": lambda image, by: _affine(image, (1, 0, 0, by, 1, 0)),
    "TranslateX": lambda image, by: _affine(image, (1, 0, -int(by), 0, 1, 0)),
    "TranslateY": lambda image, by: _affine(image, (1, 0, 0, 0, 1, -int(by))),
    "Rotate": lambda image, degrees: image.rotate(degrees),
    "Brightness": lambda image, by: ImageEnhance.Brightness(image).enhance(1 + by),
    "Color": lambda image, by: ImageEnhance.Color(image).enhance(1 + by),
    "Contrast": lambda image, by: ImageEnhance.Contrast(image).enhance(1 + by),
    "Sharpness": lambda image, by: ImageEnhance.Sharpness(image).enhance(1 + by),
    "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "Solarize": lambda image, above: ImageOps.solarize(image, ceil(above)),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
}
STRENGTHS = {
    "ShearX": np.linspace(0, 0.99, BINS),
    "ShearY": np.linspace(0, 0.99, BINS),
    "TranslateX": np.linspace(0, 32, BINS),
    "TranslateY": np.linspace(0, 32, BINS),
    "Rotate": np.linspace(0, 135, BINS),
    "Brightness": np.linspace(0, 0.99, BINS),
    "Color": np.linspace(0, 0.99, BINS),
    "Contrast": np.linspace(0, 0.99, BINS),
    "Sharpness": np.linspace(0, 0.99, BINS),
    "Posterize": 8 - np.rint(np.arange(BINS) / ((BINS - 1) / 6)),
    "Solarize": np.linspace(255, 0, BINS),
}
SIGNED = STRENGTHS.keys() - {"Posterize", "Solarize"}
