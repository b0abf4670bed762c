"""Tests of models/decoding.py."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from models.decoding import PREFIX, decode, refuse_others
from models.errors import ImageError, ImageTooLarge
from tests.oracles import ROOT, golden

JPEG_ATOL = 6  # levels of 255: what JPEG of quality 95 does to a smooth picture


def picture(height: int = 6, width: int = 9) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry, so that a turned or mirrored one is noticed."""
    rows, columns = np.mgrid[0:height, 0:width]
    levels = [20 + 20 * rows, 30 + 20 * columns, 200 - 10 * rows - 5 * columns]
    return np.stack(levels, axis=-1).astype(np.uint8)


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


RGB = Image.fromarray(picture())
RGBA = RGB.copy()
RGBA.putalpha(Image.fromarray(picture()[..., 0]))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WebP", "JPEG"])
def test_every_accepted_format_gives_its_pixels(kind: str) -> None:
    """Each of the six formats decodes to the picture that was stored."""
    lossless: dict[str, dict[str, Any]] = {
        "WebP": {"lossless": True},
        "JPEG": {"quality": 95, "subsampling": 0},
    }
    got = decode(stored(RGB, kind, **lossless.get(kind, {})))
    difference = np.abs(got.astype(int) - picture()).max()
    assert difference <= (JPEG_ATOL if kind == "JPEG" else 0)


def as_pillow(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (33, 47), (250, 131)])
@pytest.mark.parametrize("quality", [10, 75, 95])
@pytest.mark.parametrize(
    "options",
    [
        *({"subsampling": sampling} for sampling in range(3)),
        {"progressive": True},
        {"keep_rgb": True},
        {"grey": True},
    ],
    ids=["4:4:4", "4:2:2", "4:2:0", "progressive", "RGB inside", "grey"],
)
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(
    size: tuple[int, int], quality: int, options: dict[str, Any]
) -> None:
    """The faster decoder changes no pixel, whatever a JPEG's colours, sampling and order are."""
    noise = np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    if "grey" in options:
        image, options = image.convert("L"), {}
    data = stored(image, "JPEG", quality=quality, **options)
    assert np.array_equal(decode(data), as_pillow(data))


def test_photographs_have_the_pixels_that_pillow_gives_them() -> None:
    """Twenty photographs decode to the pixels that Pillow decodes, bit for bit."""
    for path in sorted(golden("pretrained/images").iterdir()):
        data = path.read_bytes()
        assert np.array_equal(decode(data, orientation=False), as_pillow(data)), path.name


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_opaque_modes_become_rgb_as_pillow_converts_them(mode: str) -> None:
    """Black and white, grey and palette become the colours that they stand for."""
    image = RGB.convert(mode)
    assert np.array_equal(decode(stored(image, "PNG")), np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb() -> None:
    """A CMYK file, as image editors write them, gives the colours it was made of."""
    assert np.array_equal(decode(stored(RGB.convert("CMYK"), "TIFF")), picture())


def test_cmyk_jpeg_is_not_inverted() -> None:
    """A CMYK JPEG, whose inks are stored inverted, comes out the right way round."""
    got = decode(stored(RGB.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(got.astype(int) - picture()).max() <= JPEG_ATOL


def on_white(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    opacity = alpha[..., None] / 255
    return colours * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_shows_white_behind_the_image(mode: str) -> None:
    """Transparency is composed with white: none leaves the pixel as it is, full leaves white."""
    image = RGBA.convert(mode)
    expected = on_white(np.asarray(image.convert("RGB")), picture()[..., 0])
    assert np.abs(decode(stored(image, "PNG")) - expected).max() <= 0.5 + 1e-9  # rounded once


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    """An alpha channel of 255 leaves every bit of the colours."""
    opaque = RGB.copy()
    opaque.putalpha(255)
    assert np.array_equal(decode(stored(opaque, "PNG")), picture())


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_white(kind: str) -> None:
    """The palette colour that is declared transparent is white, the others are themselves."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    got = decode(stored(image, kind, transparency=0))
    assert got.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_palette_entries_with_alpha_are_composed_with_white() -> None:
    """A PNG palette with an alpha value for each entry is honoured, and warns of nothing."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    got = decode(stored(image, "PNG", transparency=bytes([0, 255])))
    assert got.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_palette_with_an_alpha_channel_is_composed_with_white() -> None:
    """Mode PA, which TIFF files can hold, shows white where it is transparent."""
    image = RGB.convert("P").convert("PA")
    image.putalpha(0)
    assert (decode(stored(image, "TIFF")) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    """The 65,536 levels of 16-bit grey are spread over the 256 of the result."""
    levels = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    got = decode(stored(Image.fromarray(levels), kind))
    assert got[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_16_bit_colour_is_scaled_as_grey_is() -> None:
    """The same 16-bit level gives the same byte in a colour file as in a grey one."""
    row = b"\0" + struct.pack(">3H", 255, 32768, 65535)  # filter 0, then one pixel
    assert decode(png(1, 1, 16, 2, row)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_pixels_without_a_range_are_refused(dtype: str) -> None:
    """Numbers of which nothing says what is white are an error, not a guess."""
    data = stored(Image.fromarray(np.zeros((2, 2), dtype)), "TIFF")
    with pytest.raises(ImageError, match="found pixels of kind [IF], expected up to 16 unsigned"):
        decode(data)


TURNED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(kind: str, orientation: int) -> None:
    """Each of the eight orientations shows the picture as a viewer does."""
    got = decode(stored(RGB, kind, exif=tagged(orientation)))
    assert np.array_equal(got, TURNED[orientation](picture()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg_is_honoured(orientation: int) -> None:
    """Cameras write JPEG: their eight orientations turn the stored pixels, and change none."""
    data = stored(RGB, "JPEG", exif=tagged(orientation))
    got, plain = decode(data), decode(data, orientation=False)
    assert np.array_equal(plain, as_pillow(data))
    assert np.array_equal(got, TURNED[orientation](plain))
    assert got.flags.c_contiguous


def test_exif_orientation_can_be_ignored() -> None:
    """With orientation=False the pixels come as stored, as the original programs read them."""
    data = stored(RGB, "PNG", exif=tagged(6))
    assert np.array_equal(decode(data, orientation=False), picture())


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    """A number outside 1 to 8 means upright."""
    got = decode(stored(RGB, "PNG", exif=tagged(orientation)))
    assert np.array_equal(got, picture())


def test_damaged_exif_does_not_cost_the_image() -> None:
    """Good pixels beside unreadable EXIF data are shown as they are stored."""
    data = stored(RGB, "PNG", exif=b"Exif\0\0no TIFF header")
    assert np.array_equal(decode(data), picture())


def test_the_first_frame_stands_for_an_animation() -> None:
    """Of several frames the first is taken."""
    data = stored(
        RGB, "WebP", save_all=True, append_images=[Image.new("RGB", RGB.size)], lossless=True
    )
    assert np.array_equal(decode(data), picture())


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "found no bytes"),
        (b"hello, world", r"found 12 bytes that begin with b'hello, w'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "found 24 bytes that begin with b'%!PS-Ado'"),
        (b"\xff\xd8\xff", "found 3 bytes"),
        (b"\x89PNG\r\n\x1a\n", "found 8 bytes"),
    ],
    ids=["empty", "text", "another format", "JPEG start only", "PNG start only"],
)
def test_bytes_of_no_image_are_named(data: bytes, found: str) -> None:
    """What is no image is an error that says what it is and what is accepted."""
    expected = "expected a whole JPEG, PNG, WebP, GIF, BMP or TIFF image"
    with pytest.raises(ImageError, match=f"{found}.*, {expected}"):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WebP", "JPEG"])
def test_the_first_bytes_tell_an_image(kind: str) -> None:
    """A file that could be decoded is never refused by how it begins."""
    refuse_others(stored(RGB, kind)[:PREFIX], 99)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"hello, world", b"RIFF1234WAVEfmt ", bytes(99)]
)
def test_the_first_bytes_tell_what_is_no_image(data: bytes) -> None:
    """What is refused by how it begins is what is refused whole, in the same words."""
    with pytest.raises(ImageError, match=r"^found .*, expected a whole JPEG") as whole:
        decode(data)
    with pytest.raises(ImageError, match=r"^found .*, expected a whole JPEG") as begin:
        refuse_others(data[:PREFIX], len(data))
    assert str(begin.value) == str(whole.value)


def test_a_format_that_pillow_knows_and_we_do_not_is_refused() -> None:
    """Only the documented formats are opened, whatever else Pillow could read."""
    with pytest.raises(ImageError, match="found .* bytes that begin with b'P6"):
        decode(stored(RGB, "PPM"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WebP", "JPEG"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    """An upload that broke off is an error, never a picture with a grey half."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = stored(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match="found .*, expected a whole JPEG, PNG"):
        decode(data[: len(data) // 2])


def test_damage_is_named() -> None:
    """Of a damaged file the error passes on what the decoder found."""
    data = stored(RGB, "PNG")
    with pytest.raises(ImageError, match=r"truncated or damaged file \(.*truncated.*\), expected"):
        decode(data[: data.index(b"IDAT") + 12])


def test_pixels_are_counted_before_they_are_decoded() -> None:
    """A file above the limit is refused by its header: here there is nothing else to read."""
    with pytest.raises(
        ImageTooLarge, match="found 9,000 x 9,000 pixels, expected at most 80,000,000"
    ):
        decode(png(9_000, 9_000, 8, 2, b""), max_pixels=80_000_000)


def test_a_jpeg_that_declares_too_many_pixels_is_refused() -> None:
    """The size that a JPEG's header declares is believed before a byte of it is reserved."""
    data = bytearray(stored(RGB, "JPEG"))
    at = data.index(b"\xff\xc0") + 5  # of the start of frame: its height, then its width
    data[at : at + 4] = struct.pack(">HH", 60_000, 50_000)
    with pytest.raises(ImageTooLarge, match=r"found 3,000,000,000 pixels, expected at most"):
        decode(bytes(data))


def test_a_bomb_is_refused() -> None:
    """Sizes that Pillow itself refuses give the same error as those that only we refuse."""
    with pytest.raises(ImageTooLarge, match=r"found [\d,]+ pixels, expected at most 50,000,000"):
        decode(png(2**31 - 1, 2**31 - 1, 8, 2, b""))


def test_the_limit_can_be_set() -> None:
    """max_pixels counts width times height; an image of just that many passes."""
    data = stored(RGB, "PNG")
    assert decode(data, max_pixels=54).shape == (6, 9, 3)
    with pytest.raises(ImageTooLarge, match="found 9 x 6 pixels, expected at most 53"):
        decode(data, max_pixels=53)


def test_a_tiff_tile_counts_as_pixels() -> None:
    """A small TIFF that declares a huge tile is refused: libtiff would hold the tile in memory."""
    body = zlib.compress(bytes(64))
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000}
    tags |= {324: 8 + 2 + 12 * 10 + 4, 325: len(body)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body
    with pytest.raises(ImageTooLarge, match="found 30,000 x 30,000 pixels"):
        decode(data)


def jpeg(**options: Any) -> bytes:
    """Return a grey JPEG of 16 x 16 pixels."""
    stream = io.BytesIO()
    Image.new("L", (16, 16), 90).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("arithmetic", [False, True], ids=["Huffman", "frame of another kind"])
def test_a_jpeg_of_endless_scans_is_refused(arithmetic: bool) -> None:
    """Each goes over every pixel and may be a few bytes: a small file would take hours."""
    data = jpeg(progressive=True)
    if arithmetic:
        data = data.replace(b"\xff\xc2", b"\xff\xca")
    last = data[data.rindex(b"\xff\xda") : -2]
    assert decode(jpeg(progressive=True)).shape == (16, 16, 3)
    with pytest.raises(ImageError, match="a JPEG of more than 100 scans"):
        decode(data[:-2] + last * 100 + data[-2:])


def test_a_jpeg_of_endless_segments_is_refused() -> None:
    """Whoever walks over five million empty comments is busy for seconds."""
    data = jpeg()
    with pytest.raises(ImageError, match="or 2,000 segments"):
        decode(data[:2] + b"\xff\xfe\0\2" * 2000 + data[2:])


def test_scans_outside_of_the_picture_do_not_count() -> None:
    """Phones put a film behind a photo and a smaller one into it, where any bytes may be."""
    data = jpeg()
    scans = b"\xff\xda" * 1000
    comment = b"\xff\xfe" + (len(scans) + 2).to_bytes(2) + scans
    assert decode(data[:2] + comment + data[2:] + scans).shape == (16, 16, 3)


def test_pillow_warns_nobody() -> None:
    """Even where warnings are errors, a good image with odd metadata decodes in silence."""
    data = stored(RGB, "TIFF").replace(struct.pack("<HH", 259, 3), struct.pack("<HH", 259, 99), 1)
    program = (
        "import sys; from models.decoding import decode\n"
        f"try: decode({data!r})\nexcept Exception as error: print(repr(error.__cause__))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert "Warning" not in done.stdout


SEEDS = [stored(RGB, kind, exif=tagged(6)) for kind in ("PNG", "TIFF", "WebP", "JPEG")]
SEEDS += [stored(RGB, "GIF"), stored(RGB, "BMP"), stored(RGB.quantize(4), "PNG", transparency=1)]


def decodes_or_refuses(data: bytes) -> None:
    try:
        pixels = decode(data, max_pixels=1_000_000)
    except ImageError:
        return
    assert pixels.shape[2:] == (3,)
    assert pixels.dtype == np.uint8


@given(st.data())
@settings(max_examples=200)
def test_of_a_damaged_jpeg_pillow_is_the_judge(data: st.DataObject) -> None:
    """What Pillow forgives has the pixels that Pillow makes of it; what it refuses is refused."""
    noise = np.random.default_rng(1).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    damaged = bytearray(stored(Image.fromarray(noise), "JPEG"))
    scan = damaged.index(b"\xff\xda")
    places = st.integers(scan, len(damaged) - 1)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=3)):
        damaged[at] = value
    cut = bytes(damaged[: data.draw(st.integers(scan, len(damaged)))])
    try:
        expected = as_pillow(cut)
    except OSError:
        with pytest.raises(ImageError, match="^found .*, expected a whole JPEG"):
            decode(cut)
    else:
        assert np.array_equal(decode(cut), expected)


@given(st.binary(max_size=200))
def test_random_bytes_are_an_image_or_our_error(data: bytes) -> None:
    """No bytes whatever make `decode` raise anything but ImageError."""
    decodes_or_refuses(data)


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=300)
def test_damaged_files_are_an_image_or_our_error(seed: bytes, data: st.DataObject) -> None:
    """A good file with some bytes changed and its end cut off decodes or is refused, no more."""
    damaged = bytearray(seed)
    places = st.integers(0, len(seed) - 1)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)):
        damaged[at] = value
    decodes_or_refuses(bytes(damaged[: data.draw(st.integers(0, len(seed)))]))
