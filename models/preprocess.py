"""From pixels to the numbers a network was trained on.

Three families of resizes are here, and they differ by whole pixel values; docs/preprocessing.md
shows how. A spec names its own.

- `torch7-*` is `image.scale` of torch/image on numbers that were scaled first, to the last bit.
- `opencv-bilinear` is OpenCV's `resize` of bytes, not antialiased, as MXNet's tools call it.
- `pillow-*` is Pillow's antialiased `Image.resize` of bytes, which torchvision and timm mean.
"""

from math import ceil, floor

import cv2
import numpy as np
from PIL import Image

from models import geometry, torch7_scale
from models.decoding import Pixels
from models.errors import ImageError, ImageTooLarge
from models.geometry import Size, Window
from models.spec import InputSpec
from models.torch7_scale import Floats

# A strip of 400:1 whose shorter side becomes 256: what is resized before the crop is limited to it.
MAX_RESIZED_PIXELS = 400 * 256 * 256

_PILLOW = {  # with the reach of the filter in samples, when it does not shrink
    "pillow-bilinear": (Image.Resampling.BILINEAR, 1),
    "pillow-bicubic": (Image.Resampling.BICUBIC, 2),
}

# Callers run one image a thread; OpenCV's own threads would fight with them over the same cores.
cv2.setNumThreads(1)


def preprocess(pixels: Pixels, spec: InputSpec) -> Floats:
    """Return the image as the network wants it: 3 x H x W, contiguous, in its units and order.

    Args:
        pixels: Height x width x 3, RGB, as `decode` returns them.
        spec: The input convention that the artifact carries.

    Raises:
        ImageError: These are no pixels of an RGB image.
        ImageTooLarge: The image is so narrow that resizing it takes too much memory.
        SpecError: The crop is larger than the resized image.

    Source: facebook/fb.resnet.torch datasets/transforms.lua (Scale, ColorNormalize, CenterCrop).
    """
    size = geometry.resized(_size(pixels), spec)
    return _normalised(pixels, spec, size, geometry.centre(size, spec))


def ten_crops(pixels: Pixels, spec: InputSpec) -> Floats:
    """Return the centre, the four corners, and the same of the mirror image: 10 x 3 x H x W.

    The arguments and errors are those of `preprocess`. The original adds up what the network's last
    layer gives for the ten, before any softmax.

    Source: facebook/fb.resnet.torch datasets/transforms.lua (TenCrop), test of main.lua -tenCrop.
    """
    size = geometry.resized(_size(pixels), spec)
    windows = geometry.five(size, spec)
    _limit_resized(pixels, size)
    image = _normalised(pixels, spec, size, geometry.whole(size))
    return np.stack(
        [
            view[:, rows.start : rows.stop, columns.start : columns.stop]
            for view in (image, image[..., ::-1])
            for rows, columns in windows
        ]
    )


def _size(pixels: Pixels) -> Size:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ImageError(
            f"found an array of shape {pixels.shape} and {pixels.dtype}, "
            "expected height x width x 3 bytes, as decode returns them"
        )
    return Size(*pixels.shape[:2])


def _normalised(pixels: Pixels, spec: InputSpec, size: Size, window: Window) -> Floats:
    levels = (np.arange(256) * spec.scale).astype(np.float32)  # of each byte, rounded once
    mean, std = (np.array(value, np.float32) for value in (spec.mean, spec.std))
    row = np.empty((3, len(window.rows), len(window.columns)), np.float32)
    places = (0, 1, 2) if spec.order == "RGB" else (2, 1, 0)
    if spec.resample in ("torch7-bicubic", "torch7-bilinear"):
        scaled = torch7_scale.scale(pixels, levels, spec.resample, size, window)
        for channel, place in enumerate(places):
            np.subtract(scaled[channel], mean[place], out=row[place])
            row[place] /= std[place]
        return row
    tables = (levels - mean[:, None]) / std[:, None]
    resized = _resized_bytes(pixels, spec, size, window)
    for place, plane in zip(places, cv2.split(resized), strict=True):
        cv2.LUT(plane, tables[place], dst=row[place])
    return row


def _resized_bytes(pixels: Pixels, spec: InputSpec, size: Size, window: Window) -> Pixels:
    _limit_resized(pixels, size)
    rows, columns = window
    if spec.resample == "opencv-bilinear":
        resized = np.empty((*size, 3), np.uint8)
        cv2.resize(pixels, (size.width, size.height), dst=resized, interpolation=cv2.INTER_LINEAR)
        return resized[rows.start : rows.stop, columns.start : columns.stop]
    return _resize_pillow(pixels, spec.resample, size, window)


def _limit_resized(pixels: Pixels, size: Size) -> None:
    if size.height * size.width > MAX_RESIZED_PIXELS:
        height, width, _ = pixels.shape
        raise ImageTooLarge(
            f"found {width:,} x {height:,} pixels, which resizing would make "
            f"{size.width:,} x {size.height:,}, expected at most {MAX_RESIZED_PIXELS:,} in all: "
            "crop the image first"
        )


def _resize_pillow(pixels: Pixels, resample: str, size: Size, window: Window) -> Pixels:
    """Resize as Pillow does, without the rows and columns that the crop leaves out.

    Pillow resizes along the rows, rounds to bytes, and resizes along the columns. In two steps the
    first needs only some rows, and the second only some columns; and the order is that of all
    Pillows of the time, while from 13 on a tall image that is squashed begins with the columns.

    Source: python-pillow/Pillow src/libImaging/Resample.c, ImagingResampleInner; pull request 9549.
    """
    method, reach = _PILLOW[resample]
    height = pixels.shape[0]
    rows, columns = window
    ratio = height / size.height
    reach = ceil(reach * max(ratio, 1)) + 1
    top = max(floor(rows.start * ratio) - reach, 0)
    bottom = min(ceil(rows.stop * ratio) + reach, height)
    narrow = Image.fromarray(pixels[top:bottom]).resize((size.width, bottom - top), method)
    narrow = narrow.crop((columns.start, 0, columns.stop, bottom - top))
    if (top, bottom) != (0, height):  # the second step needs to know where these rows are
        strip, narrow = narrow, Image.new("RGB", (len(columns), height))
        narrow.paste(strip, (0, top))
    resized = narrow.resize((len(columns), size.height), method)
    return np.asarray(resized.crop((0, rows.start, len(columns), rows.stop)))
