"""Tests of models/preprocess.py. What Torch7 and Pillow gave stands in golden files."""

import io
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from models.errors import ImageError, ImageTooLarge, SpecError
from models.preprocess import Size, Window, decode, preprocess, resize_torch7
from models.presets import PRESETS
from models.spec import InputSpec, Resample
from tests.oracles import ROOT, golden

LITE0 = PRESETS["efficientnet-lite0"]
RAW = replace(PRESETS["torch-224"], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
JPEG_ATOL = 6  # levels of 255: what JPEG of quality 95 does to a smooth picture

Array = NDArray[np.float32]


# --- decode ---------------------------------------------------------------------------------------


def picture(height: int = 6, width: int = 9) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry, so that a turned or mirrored one is noticed."""
    rows, columns = np.mgrid[0:height, 0:width]
    levels = [20 + 20 * rows, 30 + 20 * columns, 200 - 10 * rows - 5 * columns]
    return np.stack(levels, axis=-1).astype(np.uint8)


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes, **options: bool) -> NDArray[np.uint8]:
    image = decode(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


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
    got = pixels(stored(RGB, kind, **lossless.get(kind, {})))
    difference = np.abs(got.astype(int) - picture()).max()
    assert difference <= (JPEG_ATOL if kind == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_opaque_modes_become_rgb_as_pillow_converts_them(mode: str) -> None:
    """Black and white, grey and palette become the colours that they stand for."""
    image = RGB.convert(mode)
    assert np.array_equal(pixels(stored(image, "PNG")), np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb() -> None:
    """A CMYK file, as image editors write them, gives the colours it was made of."""
    assert np.array_equal(pixels(stored(RGB.convert("CMYK"), "TIFF")), picture())


def test_cmyk_jpeg_is_not_inverted() -> None:
    """A CMYK JPEG, whose inks are stored inverted, comes out the right way round."""
    got = pixels(stored(RGB.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(got.astype(int) - picture()).max() <= JPEG_ATOL


def on_white(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    opacity = alpha[..., None] / 255
    return colours * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_shows_white_behind_the_image(mode: str) -> None:
    """Transparency is composed with white: none leaves the pixel as it is, full leaves white."""
    image = RGBA.convert(mode)
    expected = on_white(np.asarray(image.convert("RGB")), picture()[..., 0])
    assert np.abs(pixels(stored(image, "PNG")) - expected).max() <= 0.5 + 1e-9  # rounded once


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    """An alpha channel of 255 leaves every bit of the colours."""
    opaque = RGB.copy()
    opaque.putalpha(255)
    assert np.array_equal(pixels(stored(opaque, "PNG")), picture())


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_white(kind: str) -> None:
    """The palette colour that is declared transparent is white, the others are themselves."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    got = pixels(stored(image, kind, transparency=0))
    assert got.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_palette_entries_with_alpha_are_composed_with_white() -> None:
    """A PNG palette with an alpha value for each entry is honoured, and warns of nothing."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    got = pixels(stored(image, "PNG", transparency=bytes([0, 255])))
    assert got.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_palette_with_an_alpha_channel_is_composed_with_white() -> None:
    """Mode PA, which TIFF files can hold, shows white where it is transparent."""
    image = RGB.convert("P").convert("PA")
    image.putalpha(0)
    assert (pixels(stored(image, "TIFF")) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    """The 65,536 levels of 16-bit grey are spread over the 256 of the result."""
    levels = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    got = pixels(stored(Image.fromarray(levels), kind))
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
    assert pixels(png(1, 1, 16, 2, row)).tolist() == [[[0, 128, 255]]]


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
    got = pixels(stored(RGB, kind, exif=tagged(orientation)))
    assert np.array_equal(got, TURNED[orientation](picture()))


def test_exif_orientation_can_be_ignored() -> None:
    """With orientation=False the pixels come as stored, as the original programs read them."""
    data = stored(RGB, "PNG", exif=tagged(6))
    assert np.array_equal(pixels(data, orientation=False), picture())


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    """A number outside 1 to 8 means upright."""
    got = pixels(stored(RGB, "PNG", exif=tagged(orientation)))
    assert np.array_equal(got, picture())


def test_damaged_exif_does_not_cost_the_image() -> None:
    """Good pixels beside unreadable EXIF data are shown as they are stored."""
    data = stored(RGB, "PNG", exif=b"Exif\0\0no TIFF header")
    assert np.array_equal(pixels(data), picture())


def test_the_first_frame_stands_for_an_animation() -> None:
    """Of several frames the first is taken."""
    data = stored(
        RGB, "WebP", save_all=True, append_images=[Image.new("RGB", RGB.size)], lossless=True
    )
    assert np.array_equal(pixels(data), picture())


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


def test_a_bomb_is_refused() -> None:
    """Sizes that Pillow itself refuses give the same error as those that only we refuse."""
    with pytest.raises(
        ImageTooLarge, match="found too many pixels .*, expected at most 50,000,000"
    ):
        decode(png(2**31 - 1, 2**31 - 1, 8, 2, b""))


def test_the_limit_can_be_set() -> None:
    """max_pixels counts width times height; an image of just that many passes."""
    data = stored(RGB, "PNG")
    assert decode(data, max_pixels=54).size == (9, 6)
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


def test_pillow_warns_nobody() -> None:
    """Even where warnings are errors, a good image with odd metadata decodes in silence."""
    data = stored(RGB, "TIFF").replace(struct.pack("<HH", 259, 3), struct.pack("<HH", 259, 99), 1)
    program = (
        "import sys; from models.preprocess import decode\n"
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
        image = decode(data, max_pixels=1_000_000)
    except ImageError:
        return
    assert image.mode == "RGB"


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


# --- preprocess: Torch7 ---------------------------------------------------------------------------

TRANSFORMED = [
    "120x90_scale41_crop37",
    "20x34_scale32_crop28",
    "32x50_scale32_crop29",
    "45x45_scale32_crop28",
    "61x83_scale32_crop28",
    "83x61_scale32_crop28",
]


def torch7_case(name: str) -> tuple[Image.Image, int, int, dict[str, Array]]:
    arrays = dict(np.load(golden(f"torch7/preprocess/preprocess_{name}.npz")))
    match = re.search(r"scale(\d+)_crop(\d+)", name)
    assert match is not None
    return as_image(arrays), int(match[1]), int(match[2]), arrays


def as_image(arrays: dict[str, Array]) -> Image.Image:
    return Image.fromarray(arrays["image_u8"].transpose(1, 2, 0))


@pytest.mark.parametrize("name", TRANSFORMED)
def test_scale_equals_torch7_bit_for_bit(name: str) -> None:
    """The bicubic resize of the shorter side is that of fb.resnet.torch, to the last bit."""
    image, resize, _, expected = torch7_case(name)
    height, width = expected["scaled"].shape[1:]
    got = preprocess(image, replace(RAW, resize=resize, crop=(height, width)))
    assert np.array_equal(got, expected["scaled"])


@pytest.mark.parametrize("name", TRANSFORMED)
def test_validation_transform_equals_torch7_bit_for_bit(name: str) -> None:
    """Resize, normalisation and centre crop together are those of fb.resnet.torch's evaluation."""
    image, resize, crop, expected = torch7_case(name)
    got = preprocess(image, replace(PRESETS["torch-224"], resize=resize, crop=(crop, crop)))
    assert np.array_equal(got, expected["validation"])


@pytest.mark.parametrize(
    ("name", "resample"),
    [
        ("to_20x30", "torch7-bicubic"),
        ("to_70x90", "torch7-bicubic"),
        ("same_height", "torch7-bicubic"),
        ("bilinear_20x30", "torch7-bilinear"),
    ],
)
def test_image_scale_equals_torch7_bit_for_bit(name: str, resample: Resample) -> None:
    """Any size, also one that keeps the height, comes out as `image.scale` makes it."""
    arrays = dict(np.load(golden("torch7/preprocess/preprocess_bicubic_sizes.npz")))
    size = Size(*arrays[name].shape[1:])
    window = Window(range(size.height), range(size.width))
    got = resize_torch7(as_image(arrays), replace(RAW, resample=resample), size, window)
    assert np.array_equal(got, arrays[name])


def scale_row(row: Array, length: int, resample: str) -> Array:
    """torch/image's loop over one row, sample by sample.

    Source: torch/image generic/image.c, Main_scaleCubic_rowcol and Main_scaleLinear_rowcol.
    """
    if length == len(row):
        return row
    if len(row) == 1:
        return np.repeat(row, length)
    if resample == "torch7-bilinear" and length < len(row):
        return area_row(row, length)
    f32 = np.float32
    scale = f32(len(row) - 1) / f32(max(length - 1, 1))
    result = np.empty(length, np.float32)
    for index in range(length - 1):
        at = f32(index) * scale
        low = int(at)
        x = at - f32(low)
        p1, p2 = row[low], row[low + 1]
        if resample == "torch7-bilinear":
            result[index] = (1 - x) * p1 + x * p2
            continue
        p0 = row[low - 1] if low > 0 else 2 * p1 - p2
        p3 = row[low + 2] if low + 2 < len(row) else 2 * p2 - p1
        inner = (p2 - p0) + x * ((2 * p0 - 5 * p1 + 4 * p2 - p3) + x * (3 * (p1 - p2) + p3 - p0))
        result[index] = float(p1) + 0.5 * float(x) * float(inner)
    result[-1] = row[-1]
    return result


def area_row(row: Array, length: int) -> Array:
    f32 = np.float32
    scale = f32(len(row)) / f32(length)
    result = np.empty(length, np.float32)
    low, before = 0, f32(0)
    for index in range(length):
        at = f32(index + 1) * scale
        high = int(at)
        behind = at - f32(high)
        total, weight = (1 - before) * row[low], 1 - before
        for middle in range(low + 1, high):
            total, weight = total + row[middle], weight + f32(1)
        if high < len(row):
            total, weight = total + behind * row[high], weight + behind
        result[index] = total / weight
        low, before = high, behind
    return result


SIDES = st.integers(1, 24)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["torch7-bicubic", "torch7-bilinear"]))
@settings(max_examples=150)
def test_resize_equals_the_loop_of_the_original(
    height: int, width: int, target_height: int, target_width: int, resample: Resample
) -> None:
    """For all sizes, larger, smaller, equal or one, the result is that of the original's loop."""
    noise = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3))
    image = Image.fromarray(noise.astype(np.uint8))
    window = Window(range(target_height), range(target_width))
    spec = replace(RAW, resample=resample)
    got = resize_torch7(image, spec, Size(target_height, target_width), window)
    for plane, result in zip((noise / 255).astype(np.float32).transpose(2, 0, 1), got, strict=True):
        narrow = np.stack([scale_row(row, target_width, resample) for row in plane])
        columns = [scale_row(column, target_height, resample) for column in narrow.T]
        assert np.array_equal(result, np.stack(columns, axis=1))


@given(SIDES, SIDES, st.sampled_from(["torch7-bicubic", "torch7-bilinear"]), st.data())
@settings(max_examples=100)
def test_a_window_is_a_cut_out_of_the_whole(
    target_height: int, target_width: int, resample: Resample, data: st.DataObject
) -> None:
    """Computing only what the crop keeps changes no bit of it."""
    image = Image.fromarray(picture(11, 13))
    spec, size = replace(RAW, resample=resample), Size(target_height, target_width)
    rows, columns = (range(*data.draw(spans(length))) for length in size)
    whole = resize_torch7(image, spec, size, Window(range(target_height), range(target_width)))
    got = resize_torch7(image, spec, size, Window(rows, columns))
    assert np.array_equal(got, whole[:, rows.start : rows.stop, columns.start : columns.stop])


def spans(length: int) -> st.SearchStrategy[tuple[int, int]]:
    starts = st.integers(0, length - 1)
    return starts.flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, length)))


# --- preprocess: Pillow ---------------------------------------------------------------------------


def photographs() -> list[str]:
    text = golden("pretrained/images_20.json").read_text(encoding="utf-8")
    return [entry["name"] for entry in json.loads(text)]


def test_efficientnet_lite0_crops_are_those_of_the_original_to_the_byte() -> None:
    """Twenty photographs, grey, small and turned ones among them, give the original's pixels."""
    expected = np.load(golden("pretrained/images_20.npz"))
    crops = dict(zip(expected["names"].tolist(), expected["crops_u8"], strict=True))
    differing = []
    for name in photographs():
        data = golden(f"pretrained/images/{name}").read_bytes()
        batch_row = preprocess(decode(data, orientation=False), LITE0)
        if not np.array_equal(batch_row * 128 + 127, crops[name]):  # exact in float32
            differing.append(name)
    assert differing == []


@pytest.mark.parametrize("resample", ["pillow-bilinear", "pillow-bicubic"])
def test_pillow_resizes_bytes_then_crops_then_normalises(resample: Resample) -> None:
    """The steps and their order are those of a PIL pipeline: bytes until after the crop."""
    image = Image.fromarray(picture(10, 15))
    filters = {
        "pillow-bilinear": Image.Resampling.BILINEAR,
        "pillow-bicubic": Image.Resampling.BICUBIC,
    }
    spec = replace(LITE0, resample=resample, resize=7, crop=(5, 6))
    resized = np.asarray(image.resize((10, 7), filters[resample]))  # floor(15 * 7 / 10) = 10
    expected = (resized[1:6, 2:8].astype(np.float32) - 127) / 128
    assert np.array_equal(preprocess(image, spec), expected.transpose(2, 0, 1))


def test_a_strip_that_would_fill_the_memory_is_refused() -> None:
    """Pillow resizes before the crop, so a very narrow image is refused instead of enlarged."""
    with pytest.raises(
        ImageTooLarge, match="found 1,000 x 1 pixels, .* 256,000 x 256, expected at"
    ):
        preprocess(Image.new("RGB", (1000, 1)), LITE0)


# --- preprocess: the rest of the spec -------------------------------------------------------------

SAMPLES: list[Resample] = ["torch7-bicubic", "torch7-bilinear", "pillow-bilinear", "pillow-bicubic"]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(500, 375), (1, 1), (3, 900), (299, 299), (328, 400)])
def test_every_preset_takes_every_shape(name: str, size: tuple[int, int]) -> None:
    """The row of a batch is float32, contiguous, finite and 3 x crop, whatever the image's size."""
    row = preprocess(Image.new("RGB", size, "teal"), PRESETS[name])
    assert row.dtype == np.float32
    assert row.shape == (3, *PRESETS[name].crop)
    assert row.flags.c_contiguous
    assert np.isfinite(row).all()


@pytest.mark.parametrize("resample", SAMPLES)
@pytest.mark.parametrize(("origin", "first"), [("ceil", 2), ("floor", 1)])
def test_an_odd_margin_goes_where_the_spec_says(
    resample: Resample, origin: Literal["ceil", "floor"], first: int
) -> None:
    """A crop of 4 out of 7 begins at 2 or at 1: the programs of the time disagree about it."""
    image = Image.fromarray(picture(7, 7))
    spec = replace(RAW, resize=7, crop=(4, 4), scale=1.0, resample=resample, crop_origin=origin)
    expected = picture(7, 7)[first : first + 4, first : first + 4]
    assert np.array_equal(preprocess(image, spec), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("resample", SAMPLES)
def test_bgr_networks_get_their_order(resample: Resample) -> None:
    """Channels come in the spec's order, and mean and std are in that order too."""
    image = Image.fromarray(picture(4, 4))
    spec = replace(RAW, resize=4, crop=(4, 4), scale=1.0, resample=resample, order="BGR")
    got = preprocess(image, replace(spec, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0)))
    expected = (picture(4, 4)[..., ::-1] - np.array([1.0, 2.0, 3.0])) / np.array([1.0, 2.0, 4.0])
    assert np.array_equal(got, expected.transpose(2, 0, 1).astype(np.float32))
    assert got.flags.c_contiguous


@pytest.mark.parametrize("resample", SAMPLES)
def test_exact_mode_squashes_both_sides(resample: Resample) -> None:
    """`exact` gives a square of that size whatever the aspect ratio."""
    spec = replace(RAW, resize_mode="exact", resize=5, crop=(5, 5), resample=resample)
    assert preprocess(Image.new("RGB", (30, 10)), spec).shape == (3, 5, 5)


@pytest.mark.parametrize("resample", SAMPLES)
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "tall"])
def test_the_longer_side_is_truncated(resample: Resample, wide: bool) -> None:
    """5 x 7 with its shorter side made 3 has a longer side of 4 (4.2): 4 is there, 5 is not."""
    image = Image.new("RGB", (7, 5) if wide else (5, 7))
    spec = replace(RAW, resize=3, crop=(3, 4) if wide else (4, 3), resample=resample)
    assert preprocess(image, spec).shape == (3, *spec.crop)
    with pytest.raises(SpecError, match=r"does not fit into the resized image of (3x4|4x3) pixels"):
        preprocess(image, replace(spec, crop=(3, 5) if wide else (5, 3)))


@pytest.mark.parametrize(("resample", "longer"), [("torch7-bicubic", 375), ("pillow-bicubic", 376)])
def test_torch7_truncates_what_lua_computes(resample: Resample, longer: int) -> None:
    """47/41 * 328 is 376 exactly, but Lua rounds the quotient first and truncates to 375."""
    image, spec = Image.new("RGB", (47, 41)), replace(RAW, resize=328, resample=resample)
    assert preprocess(image, replace(spec, crop=(328, longer))).shape == (3, 328, longer)
    with pytest.raises(SpecError, match=f"image of 328x{longer} pixels"):
        preprocess(image, replace(spec, crop=(328, longer + 1)))


def test_an_image_that_has_the_size_is_left_alone() -> None:
    """61 x 7 with its shorter side made 7 stays 61 long, though 61/7 * 7 truncates to 60."""
    image = Image.fromarray(picture(7, 61))
    got = preprocess(image, replace(RAW, resize=7, crop=(7, 61), scale=1.0))
    assert np.array_equal(got, picture(7, 61).transpose(2, 0, 1))


def test_a_crop_that_does_not_fit_is_a_contradiction_of_the_spec() -> None:
    """A crop larger than the resized image is an error that prints the spec."""
    spec: InputSpec = replace(RAW, resize=20, crop=(10, 21))
    with pytest.raises(SpecError, match=r"crop 10x21 does not .* 20x20 pixels: shorter 20 torch7"):
        preprocess(Image.new("RGB", (40, 40)), spec)


def test_an_image_that_is_not_rgb_is_refused() -> None:
    """`preprocess` takes what `decode` returns, and says so."""
    with pytest.raises(ImageError, match="found an image of mode L, expected RGB, as decode"):
        preprocess(Image.new("L", (4, 4)), RAW)
