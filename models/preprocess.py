"""From the bytes of an image to the numbers a network was trained on: decode, then preprocess.

Two families of resizes are here, and they differ by whole pixel values:

- `torch7-*` is `image.scale` of torch/image on numbers that were scaled first. Corners are aligned,
  bicubic is not antialiased and overshoots are kept. Equal to Torch7 bit for bit.
- `pillow-*` is Pillow's antialiased `Image.resize` on bytes, which are scaled afterwards.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from models.errors import ImageError, ImageTooLarge, SpecError
from models.spec import InputSpec

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF")
ACCEPTED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"

# A strip of 400:1 whose shorter side becomes 256; Pillow resizes all of it before the crop.
MAX_RESIZED_PIXELS = 400 * 256 * 256

# What Pillow's parsers raise on damaged bytes; Warning is there for a caller who made them errors.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
_WIDE_GREY = ("I;16", "I;16B", "I;16L")
_CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")

# EXIF orientation -> what turns the stored rows into the picture
_UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOW = {
    "pillow-bilinear": Image.Resampling.BILINEAR,
    "pillow-bicubic": Image.Resampling.BICUBIC,
}

# Pillow warns of large sizes, which `decode` limits itself, and of odd metadata, which it ignores.
# Once for the process: warnings.catch_warnings would change the filters under other threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Indices = NDArray[np.intp]


def decode(data: bytes, *, orientation: bool = True, max_pixels: int = 50_000_000) -> Image.Image:
    """Return the RGB image that the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file hold.

    Grey, palette, CMYK and YCbCr become RGB by Pillow's conversion, without colour profiles. What
    is transparent shows white, as on a page. Of 16 bits a channel the upper eight are taken. Of
    several frames or pages the first is taken.

    Args:
        data: The whole file.
        orientation: Turn the image as its EXIF data says, if they can be read. (That of a TIFF
            belongs to its pixel layout and is honoured always.)
        max_pixels: Limit for width times height, checked before any pixel is decoded. Pillow has
            its own, 178,956,970, for those who set more.

    Raises:
        ImageTooLarge: The image has more pixels.
        ImageError: The bytes are of no such file, or of a truncated or damaged one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _limit_pixels(image, max_pixels)
            image.load()
            return _to_rgb(_upright(image) if orientation else image)
    except UnidentifiedImageError as error:
        begin = f"{len(data):,} bytes that begin with {data[:8]!r}" if data else "no bytes"
        raise ImageError(f"found {begin}, expected a whole {ACCEPTED}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = str(error).rstrip(".")
        raise ImageTooLarge(
            f"found too many pixels ({reason}), expected at most {max_pixels:,}"
        ) from error
    except _DAMAGED as error:
        what = str(error) or type(error).__name__
        raise ImageError(
            f"found a truncated or damaged file ({what}), expected a whole {ACCEPTED}"
        ) from error


def _limit_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # it also holds one whole tile in memory
        width = max(width, image.tag_v2.get(TiffImagePlugin.TILEWIDTH, 0))
        height = max(height, image.tag_v2.get(TiffImagePlugin.TILELENGTH, 0))
    if width * height > max_pixels:
        raise ImageTooLarge(f"found {width:,} x {height:,} pixels, expected at most {max_pixels:,}")


def _upright(image: Image.Image) -> Image.Image:
    if image.format == "TIFF":  # Pillow has turned it while loading
        return image
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except _DAMAGED:  # the pixels are good: a viewer would show them as stored, too
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE_GREY:
        grey = (np.asarray(image) >> 8).astype(np.uint8)  # as Pillow reads 16-bit colour
        return Image.fromarray(grey).convert("RGB")
    if image.mode not in _CONVERTIBLE:
        raise ImageError(
            f"found pixels of kind {image.mode}, expected up to 16 unsigned bits a channel in "
            "black and white, grey, palette, RGB, CMYK or YCbCr"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(picture, mask=picture)
    return paper


def preprocess(image: Image.Image, spec: InputSpec) -> Floats:
    """Return the image as the network wants it: 3 x H x W, contiguous, in its units and order.

    Args:
        image: RGB, as `decode` returns it.
        spec: The input convention that the artifact carries.

    Raises:
        ImageError: The image is not RGB.
        ImageTooLarge: It is so narrow that resizing it takes too much memory.
        SpecError: The crop is larger than the resized image.

    Source: facebook/fb.resnet.torch datasets/transforms.lua (Scale, ColorNormalize, CenterCrop).
    """
    if image.mode != "RGB":
        raise ImageError(f"found an image of mode {image.mode}, expected RGB, as decode returns it")
    size = _resized(image, spec)
    window = _crop_window(size, spec)
    resize = _resize_pillow if spec.resample in _PILLOW else resize_torch7
    scaled = resize(image, spec, size, window)
    if spec.order == "BGR":
        scaled = scaled[::-1]
    mean, std = (np.array(value, np.float32).reshape(3, 1, 1) for value in (spec.mean, spec.std))
    return np.ascontiguousarray((scaled - mean) / std)


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


class Window(NamedTuple):
    """The rows and columns of the resized image that the crop keeps."""

    rows: range
    columns: range


def _resized(image: Image.Image, spec: InputSpec) -> Size:
    if spec.resize_mode == "exact":
        return Size(spec.resize, spec.resize)
    shorter, longer = sorted(image.size)
    if shorter == spec.resize:
        return Size(image.height, image.width)
    if spec.resample in _PILLOW:
        longer = longer * spec.resize // shorter
    else:  # in Lua's order of operations: the quotient is rounded before the product is truncated
        longer = int(longer / shorter * spec.resize)
    return Size(longer, spec.resize) if image.width < image.height else Size(spec.resize, longer)


def _crop_window(size: Size, spec: InputSpec) -> Window:
    height, width = spec.crop
    if height > size.height or width > size.width:
        raise SpecError(
            f"crop {height}x{width} does not fit into the resized image of "
            f"{size.height}x{size.width} pixels: {spec}"
        )
    odd = 1 if spec.crop_origin == "ceil" else 0
    top, left = (size.height - height + odd) // 2, (size.width - width + odd) // 2
    return Window(range(top, top + height), range(left, left + width))


def _resize_pillow(image: Image.Image, spec: InputSpec, size: Size, window: Window) -> Floats:
    if size.height * size.width > MAX_RESIZED_PIXELS:
        raise ImageTooLarge(
            f"found {image.width:,} x {image.height:,} pixels, which resizing would make "
            f"{size.width:,} x {size.height:,}, expected at most {MAX_RESIZED_PIXELS:,} in all: "
            "crop the image first"
        )
    resized = image.resize((size.width, size.height), _PILLOW[spec.resample])
    rows, columns = window
    cropped = resized.crop((columns.start, rows.start, columns.stop, rows.stop))
    return np.asarray(cropped).transpose(2, 0, 1).astype(np.float32) * np.float32(spec.scale)


class Axis(NamedTuple):
    """How one axis is resized.

    Attributes:
        taps: Taps x targets: the source samples that make each target sample.
        combine: Makes the targets of the samples at the taps, which come one tap at a time.
    """

    taps: Indices
    combine: Callable[[Iterable[Floats]], Floats]

    def resample(self, sample: Callable[[Indices], Floats]) -> Floats:
        """Return targets x N, given how to look up source samples: indices -> count x N."""
        return self.combine(sample(tap) for tap in self.taps)


def resize_torch7(image: Image.Image, spec: InputSpec, size: Size, window: Window) -> Floats:
    """Resize as torch/image `image.scale` does, and compute only what the crop keeps.

    Source: torch/image generic/image.c, Main_scaleBicubic and Main_scaleBilinear: along the rows
    first, then along the columns, in float32.
    """
    axis = _cubic_axis if spec.resample == "torch7-bicubic" else _linear_axis
    used_rows, rows = _renumbered(axis(image.height, size.height, window.rows))
    used_columns, columns = _renumbered(axis(image.width, size.width, window.columns))
    used = np.asarray(image)[used_rows].take(used_columns, axis=1)
    scaled = (np.arange(256) * spec.scale).astype(np.float32)  # of each byte, rounded once
    # One channel at a time, so that temporaries stay small: the allocator keeps them at hand.
    planes = used.transpose(2, 1, 0)  # 3 x columns x rows
    return np.stack([_resize_plane(plane, rows, columns, scaled) for plane in planes])


def _resize_plane(plane: Pixels, rows: Axis, columns: Axis, scaled: Floats) -> Floats:
    plane = plane.copy()  # contiguous: a sample is then one block of memory
    narrow = columns.resample(lambda tap: scaled[plane[tap]]).T.copy()
    return rows.resample(lambda tap: narrow[tap])


def _renumbered(axis: Axis) -> tuple[Indices, Axis]:
    used, taps = np.unique(axis.taps, return_inverse=True)
    return used, axis._replace(taps=taps.reshape(axis.taps.shape))


def _cubic_axis(source: int, target: int, window: range) -> Axis:
    """Catmull-Rom through four samples; beyond the border the source goes on as a straight line.

    Source: torch/image generic/image.c, Main_scaleCubic_rowcol. (Of a source of one sample it
    leaves the last target unwritten; here it is written like the others.)
    """
    if source in (1, target):
        return _copied(source, window)
    low, fraction = _aligned(source, target, window)
    taps = low + np.arange(-1, 3)[:, None]
    combine = partial(_cubic, x=_column(fraction), first=taps[0] < 0, last=taps[3] >= source)
    return Axis(taps.clip(0, source - 1), combine)


def _cubic(
    samples: Iterable[Floats], *, x: Floats, first: NDArray[np.bool_], last: NDArray[np.bool_]
) -> Floats:
    """Evaluate the polynomial as C does: in float32, its last product and sum in float64."""
    p0, p1, p2, p3 = samples
    p0[first] = 2 * p1[first] - p2[first]
    p3[last] = 2 * p2[last] - p1[last]
    a1 = p2 - p0
    a2 = 2 * p0 - 5 * p1 + 4 * p2 - p3
    a3 = 3 * (p1 - p2) + p3 - p0
    return (p1 + 0.5 * x.astype(np.float64) * (a1 + x * (a2 + x * a3))).astype(np.float32)


def _linear_axis(source: int, target: int, window: range) -> Axis:
    """Interpolate between two samples to enlarge, average over an interval to shrink.

    Source: torch/image generic/image.c, Main_scaleLinear_rowcol.
    """
    if source in (1, target):
        return _copied(source, window)
    if target < source:
        return _area_axis(source, target, window)
    low, fraction = _aligned(source, target, window)
    taps = (low + np.arange(2)[:, None]).clip(0, source - 1)
    weights = np.stack([1 - fraction, fraction])
    return Axis(taps, partial(_weighted, weights=weights, total=np.ones_like(fraction)))


def _area_axis(source: int, target: int, window: range) -> Axis:
    scale = np.float32(source) / np.float32(target)
    edges = np.arange(window.start, window.stop + 1).astype(np.float32) * scale
    low = edges.astype(np.intp)
    fraction = edges - low.astype(np.float32)
    reach = (low[1:] - low[:-1]).max() + 1
    taps = low[:-1] + np.arange(reach)[:, None]
    inside = np.where(taps < low[1:], np.float32(1), np.where(taps == low[1:], fraction[1:], 0))
    weights = np.where(taps < source, inside, 0).astype(np.float32)
    weights[0] = 1 - fraction[:-1]
    total = np.add.accumulate(weights)[-1]  # one after the other, as C does
    return Axis(taps.clip(0, source - 1), partial(_weighted, weights=weights, total=total))


def _weighted(samples: Iterable[Floats], *, weights: Floats, total: Floats) -> Floats:
    sums: Floats = np.zeros(1, np.float32)
    for sample, weight in zip(samples, weights, strict=True):
        sums = sums + _column(weight) * sample
    return sums / _column(total)


def _aligned(source: int, target: int, window: range) -> tuple[Indices, Floats]:
    """Return for each target the source sample at or before it, and how far behind it lies."""
    scale = np.float32(source - 1) / np.float32(max(target - 1, 1))
    at = np.arange(window.start, window.stop).astype(np.float32) * scale
    if window.stop == target:
        at[-1] = source - 1  # set, not computed
    low = at.astype(np.intp)
    return low, at - low.astype(np.float32)


def _copied(source: int, window: range) -> Axis:
    taps = np.arange(window.start, window.stop).clip(0, source - 1)
    return Axis(taps[None], lambda samples: next(iter(samples)))


def _column(values: Floats) -> Floats:
    return values.reshape(-1, 1)
