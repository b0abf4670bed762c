"""What all families do with pixels: crop, mirror, put a border around them."""

from collections.abc import Sequence
from math import ceil

import cv2
import numpy as np

from models.augment.colour import Colours
from models.augment.picture import Picture
from models.augment.view import View
from models.decoding import Pixels
from models.errors import ImageError, ImageTooLarge
from models.geometry import Size, Window
from models.preprocess import MAX_RESIZED_PIXELS

TRIES = 10  # at a random box that fits, in both programs that draw one


def view(pixels: Pixels, colours: Colours) -> View:
    """Return a view whose pixels are one block of memory."""
    matrix, vector = (numbers.astype(np.float32) for numbers in colours)
    return View(np.ascontiguousarray(pixels), matrix, vector)


def mirrored(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Return the image or its mirror image, with equal probability."""
    return np.asarray(cv2.flip(pixels, 1), np.uint8) if draw.random() < 0.5 else pixels


def upside_down(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Return the image or what it is upside down in a mirror, with equal probability."""
    return np.asarray(cv2.flip(pixels, 0), np.uint8) if draw.random() < 0.5 else pixels


def random_crop(pixels: Pixels, size: int, draw: np.random.Generator) -> Pixels:
    """Return a square of the image, wherever it fits with equal probability.

    Raises:
        ImageError: The image is smaller.
    """
    height, width = pixels.shape[:2]
    if height < size or width < size:
        raise ImageError(f"found {width} x {height} pixels, expected at least {size} x {size}")
    top, left = draw.integers(height - size + 1), draw.integers(width - size + 1)
    return pixels[top : top + size, left : left + size]


def bordered(pixels: Pixels, border: int, colour: Sequence[int]) -> Pixels:
    """Return the image with a border of one colour."""
    if not border:
        return pixels
    height, width, _ = pixels.shape
    whole = np.empty((height + 2 * border, width + 2 * border, 3), np.uint8)
    whole[:] = colour
    whole[border : border + height, border : border + width] = pixels
    return whole


def window(top: int, left: int, height: int, width: int) -> Window:
    """Return the rows and columns of a box."""
    return Window(range(top, top + height), range(left, left + width))


def cut(picture: Picture, box: Window, size: int) -> Pixels:
    """Return a part of an image that is to become a square of `size`.

    If it is shrunk to half or less, the image is decoded at a fraction of its size, and the part's
    edges are rounded to its pixels.
    """
    given = picture.size
    factor = min(max(size / len(box.rows), size / len(box.columns)), 1)
    pixels = picture.pixels(Size(ceil(given.height * factor), ceil(given.width * factor)))
    down, across = pixels.shape[0] / given.height, pixels.shape[1] / given.width
    return pixels[_scaled(box.rows, down), _scaled(box.columns, across)]


def _scaled(places: range, ratio: float) -> slice:
    begin, end = round(places.start * ratio), round(places.stop * ratio)
    return slice(begin, max(end, begin + 1))


def shorter_side(pixels: Pixels, side: int) -> Pixels:
    """Return the image with its shorter side resized, bilinear, as im2rec does.

    Raises:
        ImageTooLarge: The image is so narrow that resizing it takes too much memory.

    Source: apache/mxnet tools/im2rec.py, image_encode.
    """
    height, width = pixels.shape[:2]
    if min(height, width) == side:
        return pixels
    if height > width:
        height, width = height * side // width, side
    else:
        height, width = side, width * side // height
    if height * width > MAX_RESIZED_PIXELS:
        found = f"{pixels.shape[1]:,} x {pixels.shape[0]:,}, resized {width:,} x {height:,} pixels"
        raise ImageTooLarge(f"found {found}, expected at most {MAX_RESIZED_PIXELS:,}")
    return np.asarray(cv2.resize(pixels, (width, height)), np.uint8)  # bilinear by default
