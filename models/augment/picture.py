"""An image whose size is known before it is decoded, and that is decoded no larger than needed."""

import simplejpeg

from models.decoding import MAX_PIXELS, Pixels, decode
from models.geometry import Size


class Picture:
    """An encoded image, or pixels.

    Images are taken as they are stored, not turned as their EXIF data says: so did all programs
    whose training is repeated here.

    Attributes:
        size: Before any reduction.
    """

    size: Size

    def __init__(self, image: bytes | Pixels) -> None:
        """Read the header, or decode all of what is no plain JPEG.

        Raises:
            ImageError: The image cannot be decoded.
        """
        self._encoded, self._pixels = b"", None
        if isinstance(image, bytes) and (size := _jpeg_size(image)):
            self._encoded, self.size = image, size
            return
        self._pixels = decode(image, orientation=False) if isinstance(image, bytes) else image
        self.size = Size(*self._pixels.shape[:2])

    def pixels(self, least: Size | None = None) -> Pixels:
        """Return the image, height x width x 3.

        Args:
            least: If half, a quarter or an eighth of the size is at least this, a JPEG is decoded
                to that: the averages of its pixels cost less than the pixels. (Other fractions
                cost more.)

        Raises:
            ImageError: The image cannot be decoded.
        """
        if self._pixels is not None:
            return self._pixels
        height, width = least or self.size
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                self._encoded, "RGB", min_height=height, min_width=width, min_factor=2
            )
        except ValueError:  # Pillow judges what simplejpeg finds odd
            return decode(self._encoded, orientation=False)
        return pixels


def _jpeg_size(data: bytes) -> Size | None:
    """Return the size of a grey or colour JPEG; None for what Pillow has to look at."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    plain = colours in ("Gray", "YCbCr", "RGB") and height * width <= MAX_PIXELS
    return Size(height, width) if plain else None
