"""From the bytes of an image file to RGB pixels: the one decoder of all that reads images."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from models.errors import ImageError, ImageTooLarge

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF")
ACCEPTED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
PREFIX = 16  # bytes of a file, by which Pillow tells formats apart
MAX_PIXELS = 50_000_000  # phones give 48 million; decoding takes up to 15 bytes of memory each

# A scan of a few bytes goes over every pixel. libtiff allows a JPEG within a TIFF a hundred, too
# (libtiff/tif_jpeg.c); encoders write ten. Segments hold up to 64 kB, and two come with a scan.
MAX_SCANS = 100
MAX_SEGMENTS = 2000
_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")  # not a restart, nor a stuffed zero
_SOI, _EOI, _SOS = b"\xd8", b"\xd9", b"\xda"

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

# Pillow warns of large sizes, which `decode` limits itself, and of odd metadata, which it ignores.
# Once for the process: warnings.catch_warnings would change the filters under other threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

Pixels = NDArray[np.uint8]


def decode(data: bytes, *, orientation: bool = True, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the pixels that the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file hold.

    Grey, palette, CMYK and YCbCr become RGB by Pillow's conversion, without colour profiles. What
    is transparent shows white, as on a page. Of 16 bits a channel the upper eight are taken. Of
    several frames or pages the first is taken.

    Args:
        data: The whole file.
        orientation: Turn the image as its EXIF data says, if they can be read (a TIFF: always).
        max_pixels: Limit for width times height, checked before any pixel is decoded; Pillow's own
            is 178,956,970.

    Returns:
        Height x width x 3, RGB, contiguous; it may be read-only.

    Raises:
        ImageTooLarge: The image has more pixels.
        ImageError: The bytes are of no such file, or of a truncated or damaged one.
    """
    _limit_scans(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _limit_pixels(image, max_pixels)
            pixels = _jpeg_pixels(image, data)
            if pixels is None:
                image.load()
                pixels = _rgb_pixels(image)
            return _upright(pixels, image) if orientation else pixels
    except UnidentifiedImageError as error:
        raise _no_image(data, len(data)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\((\d+) pixels\)", str(error))  # Pillow's limit is above any of ours
        count = f"{int(found[1]):,}" if found else "too many"
        raise ImageTooLarge(f"found {count} pixels, expected at most {max_pixels:,}") from error
    except _DAMAGED as error:
        what = str(error) or type(error).__name__
        raise ImageError(
            f"found a truncated or damaged file ({what}), expected a whole {ACCEPTED}"
        ) from error


def refuse_others(prefix: bytes, length: int) -> None:
    """Raise ImageError where a file is no image whatever follows, so that it need not be read.

    Args:
        prefix: The first `PREFIX` bytes; all, if there are fewer.
        length: Of the file.
    """
    Image.init()
    accepting = [Image.OPEN[name.upper()][1] for name in FORMATS]
    if not any(accept is None or accept(prefix) is True for accept in accepting):
        raise _no_image(prefix, length)


def _no_image(prefix: bytes, length: int) -> ImageError:
    begin = f"{length:,} bytes that begin with {prefix[:8]!r}" if length else "no bytes"
    return ImageError(f"found {begin}, expected a whole {ACCEPTED}")


def _limit_scans(data: bytes) -> None:
    """Refuse a JPEG that is small and takes hours; what comes after its end is not looked at.

    Source: libjpeg jdmarker.c, next_marker and jpeg_resync_to_restart.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return
    at = scans = segments = 0
    while (found := _SEGMENT.search(data, at)) and found[1] != _EOI:
        at = found.end()
        scans += found[1] == _SOS
        segments += 1
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise ImageError(
                f"found a JPEG of more than {MAX_SCANS} scans or {MAX_SEGMENTS:,} segments, "
                "expected one that a camera or a program for pictures wrote"
            )
        if found[1] != _SOI:
            at += int.from_bytes(data[at : at + 2])


def _limit_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # it also holds one whole tile in memory
        width = max(width, image.tag_v2.get(TiffImagePlugin.TILEWIDTH, 0))
        height = max(height, image.tag_v2.get(TiffImagePlugin.TILELENGTH, 0))
    if width * height > max_pixels:
        raise ImageTooLarge(f"found {width:,} x {height:,} pixels, expected at most {max_pixels:,}")


def _jpeg_pixels(image: Image.Image, data: bytes) -> Pixels | None:
    """Return the pixels of a grey or colour JPEG without any fault, None for all others.

    simplejpeg has the library that Pillow has, with the same settings, so the pixels are the same;
    it is twice as fast because it writes them once. What it finds odd is left to Pillow to judge.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode not in ("L", "RGB"):
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != image.size:
            return None
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return pixels


def _rgb_pixels(image: Image.Image) -> Pixels:
    if image.mode in _WIDE_GREY:
        grey = (np.asarray(image) >> 8).astype(np.uint8)  # as Pillow reads 16-bit colour
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode not in _CONVERTIBLE:
        raise ImageError(
            f"found pixels of kind {image.mode}, expected up to 16 unsigned bits a channel in "
            "black and white, grey, palette, RGB, CMYK or YCbCr"
        )
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(picture, mask=picture)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _upright(pixels: Pixels, image: Image.Image) -> Pixels:
    if image.format == "TIFF":  # Pillow has turned it while loading
        return pixels
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED:  # the pixels are good: a viewer would show them as stored, too
        return pixels
    if orientation not in range(2, 9):
        return pixels
    if orientation >= 5:  # stored as columns
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
