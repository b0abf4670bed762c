"""Tests of models/preprocess.py. What the original programs gave stands in golden files."""

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from models.decoding import Pixels, decode
from models.errors import ImageError, ImageTooLarge, SpecError
from models.preprocess import preprocess, ten_crops
from models.presets import PRESETS
from models.spec import CropOrigin, InputSpec, Resample
from tests.oracles import golden

LITE0 = PRESETS["efficientnet-lite0"]
RAW = replace(PRESETS["torch-224"], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
BYTES = replace(RAW, scale=1.0)
RESAMPLES: tuple[Resample, ...] = get_args(Resample)
PILLOW = {
    "pillow-bilinear": Image.Resampling.BILINEAR,
    "pillow-bicubic": Image.Resampling.BICUBIC,
}

Array = NDArray[np.float32]


def picture(height: int = 6, width: int = 9) -> Pixels:
    """A smooth picture without any symmetry, so that a turned or mirrored one is noticed."""
    rows, columns = np.mgrid[0:height, 0:width]
    levels = [20 + 20 * rows, 30 + 20 * columns, 200 - 10 * rows - 5 * columns]
    return np.stack(levels, axis=-1).astype(np.uint8)


def noise(height: int, width: int) -> Pixels:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- Torch7 ---------------------------------------------------------------------------------------

TRANSFORMED = [
    "120x90_scale41_crop37",
    "20x34_scale32_crop28",
    "32x50_scale32_crop29",
    "45x45_scale32_crop28",
    "61x83_scale32_crop28",
    "83x61_scale32_crop28",
]


def torch7_case(name: str) -> tuple[Pixels, int, int, dict[str, Array]]:
    arrays = dict(np.load(golden(f"torch7/preprocess/preprocess_{name}.npz")))
    match = re.search(r"scale(\d+)_crop(\d+)", name)
    assert match is not None
    pixels = np.ascontiguousarray(arrays["image_u8"].transpose(1, 2, 0))
    return pixels, int(match[1]), int(match[2]), arrays


@pytest.mark.parametrize("name", TRANSFORMED)
def test_scale_equals_torch7_bit_for_bit(name: str) -> None:
    """The bicubic resize of the shorter side is that of fb.resnet.torch, to the last bit."""
    pixels, resize, _, expected = torch7_case(name)
    height, width = expected["scaled"].shape[1:]
    got = preprocess(pixels, replace(RAW, resize=resize, crop=(height, width)))
    assert np.array_equal(got, expected["scaled"])


@pytest.mark.parametrize("name", TRANSFORMED)
def test_validation_transform_equals_torch7_bit_for_bit(name: str) -> None:
    """Resize, normalisation and centre crop together are those of fb.resnet.torch's evaluation."""
    pixels, resize, crop, expected = torch7_case(name)
    got = preprocess(pixels, replace(PRESETS["torch-224"], resize=resize, crop=(crop, crop)))
    assert np.array_equal(got, expected["validation"])


@pytest.mark.parametrize("name", TRANSFORMED)
def test_ten_crops_equal_torch7_bit_for_bit(name: str) -> None:
    """The ten views come in Torch7's order, from Torch7's corners, the mirrored ones as well."""
    pixels, resize, crop, expected = torch7_case(name)
    got = ten_crops(pixels, replace(PRESETS["torch-224"], resize=resize, crop=(crop, crop)))
    assert np.array_equal(got, expected["tencrop"])


def test_the_mirror_image_is_torch7s() -> None:
    """Without resize and crop the sixth view is `image.hflip` of the image."""
    arrays = dict(np.load(golden("torch7/preprocess/preprocess_bicubic_sizes.npz")))
    pixels = np.ascontiguousarray(arrays["image_u8"].transpose(1, 2, 0))
    got = ten_crops(pixels, replace(RAW, resize=37, crop=(37, 53)))
    assert np.array_equal(got[5], arrays["hflip"])


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("origin", get_args(CropOrigin))
def test_the_first_of_ten_crops_is_the_only_one_of_one(
    resample: Resample, origin: CropOrigin
) -> None:
    """Whatever the resize and the crop's origin are, ten crops begin with the centre crop."""
    spec = replace(RAW, resize=20, crop=(15, 13), resample=resample, crop_origin=origin)
    got = ten_crops(noise(33, 47), spec)
    assert got.shape == (10, 3, 15, 13)
    assert np.array_equal(got[0], preprocess(noise(33, 47), spec))


# --- OpenCV and MXNet -----------------------------------------------------------------------------


def records(name: str) -> Iterator[bytes]:
    """Yield the images of a record file.

    Source: dmlc-core recordio.h (magic number, 29 bits of length, padding to four bytes) and MXNet
    src/io/image_recordio.h (24 bytes of header, then further labels, then the image).
    """
    data, at = golden(f"mxnet/recordio/{name}").read_bytes(), 0
    while at < len(data):
        magic, length, labels = struct.unpack_from("<3I", data, at)
        assert magic == 0xCED7230A
        yield data[at + 8 + 24 + 4 * labels : at + 8 + length]
        at += 8 + (length + 3) // 4 * 4


def mxnet_images(case: str) -> Iterator[tuple[Pixels, dict[str, Any], Array]]:
    """Yield the pixels of a record, the iterator's options, and what MXNet made of it."""
    entry = json.loads(golden("mxnet/recordio/iter-manifest.json").read_text())[case]
    expected = np.load(golden("mxnet/recordio/iter-expected.npz"))[case]
    for data, array in zip(records(entry["rec"]), expected, strict=False):
        yield decode(data), entry["options"], array


CROPPED = ["val-center-crop", "crop480-center", "gray-source", "cifar-pad4-center", "cifar-scale"]


@pytest.mark.parametrize("case", CROPPED)
def test_the_centre_crop_is_mxnets_to_the_byte(case: str) -> None:
    """A record that is as large as it should be is decoded, cut and scaled as MXNet does it."""
    for pixels, options, expected in mxnet_images(case):
        spec = replace(
            PRESETS["mxnet-224"],
            resize=min(pixels.shape[:2]),
            crop=expected.shape[1:],
            scale=options.get("scale", 1.0),
        )
        assert np.array_equal(preprocess(pixels, spec), expected)


def test_records_of_256_need_nothing_but_the_preset() -> None:
    """`mxnet-224` is what MXNet's evaluation makes of the records that its tools write."""
    for pixels, _, expected in mxnet_images("val-center-crop"):
        assert np.array_equal(preprocess(pixels, PRESETS["mxnet-224"]), expected)


def test_the_shorter_side_is_resized_as_mxnet_resizes_it() -> None:
    """Larger images get the bytes that MXNet's `resize=256` gives them."""
    for pixels, options, expected in mxnet_images("resize256"):
        spec = replace(PRESETS["mxnet-224"], resize=options["resize"])
        assert np.array_equal(preprocess(pixels, spec), expected)


def test_too_small_an_image_is_enlarged_as_mxnet_enlarges_it() -> None:
    """An image below the crop's size gets the bytes that MXNet gives it."""
    for pixels, _, expected in mxnet_images("small-upscale"):
        spec = replace(PRESETS["mxnet-224"], resize=300, crop=(300, 300))
        assert np.array_equal(preprocess(pixels, spec), expected)


def test_mean_and_std_are_mxnets() -> None:
    """MXNet multiplies with 1/std where we divide: one float32 step of numbers up to 2.6."""
    for pixels, options, expected in mxnet_images("cifar-mean-std"):
        mean, std = ([options[f"{what}_{colour}"] for colour in "rgb"] for what in ("mean", "std"))
        spec = replace(PRESETS["mxnet-cifar10"], mean=tuple(mean), std=tuple(std))
        assert np.abs(preprocess(pixels, spec) - expected).max() <= 2.0**-22


def test_squash_is_what_predict_py_does() -> None:
    """`mxnet-224-squash` gives the bytes of one call of cv2.resize, channels first."""
    pixels = noise(300, 410)
    expected = cv2.resize(pixels, (224, 224)).transpose(2, 0, 1)
    assert np.array_equal(preprocess(pixels, PRESETS["mxnet-224-squash"]), expected)


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (299, 342)])
def test_gluon_normalises_what_opencv_resized(size: int, resize: int) -> None:
    """The shorter side, the middle, bytes / 255, then ImageNet's mean and std, in this order."""
    pixels = noise(400, 501)
    resized = cv2.resize(pixels, (resize * 501 // 400, resize))
    top, left = (resize - size) // 2, (resized.shape[1] - size) // 2
    crop = resized[top : top + size, left : left + size].transpose(2, 0, 1).astype(float) / 255
    mean, std = (
        np.reshape(one, (3, 1, 1)) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    ours = preprocess(pixels, PRESETS[f"gluon-{size}"])
    assert np.abs(ours - (crop - mean) / std).max() <= 2.0**-21  # float32 steps of up to 2.6


# --- Pillow, torchvision, timm --------------------------------------------------------------------


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


@pytest.mark.parametrize("resample", PILLOW)
def test_pillow_resizes_bytes_then_crops_then_normalises(resample: Resample) -> None:
    """The steps and their order are those of a PIL pipeline: bytes until after the crop."""
    spec = replace(LITE0, resample=resample, resize=7, crop=(5, 6))
    image = Image.fromarray(picture(10, 15))
    resized = np.asarray(image.resize((10, 7), PILLOW[resample]))  # floor(15 * 7 / 10) = 10
    expected = (resized[1:6, 2:8].astype(np.float32) - 127) / 128
    assert np.array_equal(preprocess(picture(10, 15), spec), expected.transpose(2, 0, 1))


SIDES = st.integers(1, 60)


def pillow_resized(pixels: Pixels, size: tuple[int, int], resample: Resample) -> Pixels:
    """Return what Pillow up to 12 gives in one call: along the rows first, whatever the shape."""
    width, height = size
    narrow = Image.fromarray(pixels).resize((width, len(pixels)), PILLOW[resample])
    return np.asarray(narrow.resize((width, height), PILLOW[resample]))


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(sorted(PILLOW)))
@settings(max_examples=200)
def test_what_the_crop_leaves_out_is_not_needed(
    height: int, width: int, resize: int, crop: int, resample: Resample
) -> None:
    """Resizing only as far as the crop reaches changes no byte of it."""
    crop = min(crop, resize)
    spec = replace(BYTES, resample=resample, resize=resize, crop=(crop, crop), crop_origin="floor")
    pixels = noise(height, width)
    shorter, longer = sorted((height, width))
    longer = longer * resize // shorter
    size = (longer, resize) if width >= height else (resize, longer)
    resized = pillow_resized(pixels, size, resample)
    top, left = (size[1] - crop) // 2, (size[0] - crop) // 2
    expected = resized[top : top + crop, left : left + crop].transpose(2, 0, 1)
    assert np.array_equal(preprocess(pixels, spec), expected)


@pytest.mark.parametrize("resample", PILLOW)
@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (900, 100)], ids=str)
def test_a_squash_begins_with_the_rows(resample: Resample, shape: tuple[int, int]) -> None:
    """The order of the two passes is that of the time, whichever the installed Pillow prefers."""
    spec = replace(BYTES, resample=resample, resize_mode="exact", resize=64, crop=(64, 64))
    expected = pillow_resized(noise(*shape), (64, 64), resample)
    assert np.array_equal(preprocess(noise(*shape), spec), expected.transpose(2, 0, 1))


TORCHVISION = [name for name, spec in PRESETS.items() if name.startswith(("lornatang", "timm"))]


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (480, 481), (90, 130)])
def test_torchvision_conventions_are_torchvisions_steps(name: str, shape: tuple[int, int]) -> None:
    """Resize, CenterCrop, ToTensor and Normalize one after the other give the same float32.

    Source: pytorch/vision transforms/functional.py: the longer side is truncated, a crop begins at
    Python's round of half the margin, bytes are divided by 255, means are subtracted in float32.
    """
    spec, pixels = PRESETS[name], noise(*shape)
    height, width = shape
    size = (spec.resize, spec.resize)
    if spec.resize_mode == "shorter":
        longer = int(spec.resize * max(shape) / min(shape))
        size = (longer, spec.resize) if width > height else (spec.resize, longer)
    resized = pillow_resized(pixels, size, spec.resample)
    top, left = (round((side - 299) / 2.0) for side in resized.shape[:2])
    tensor = resized[top : top + 299, left : left + 299].astype(np.float32) / np.float32(255)
    expected = (tensor - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    assert np.array_equal(preprocess(pixels, spec), expected.transpose(2, 0, 1))


# --- the rest of the spec -------------------------------------------------------------------------


@pytest.mark.parametrize("resample", [*PILLOW, "opencv-bilinear"])
def test_a_strip_that_would_fill_the_memory_is_refused(resample: Resample) -> None:
    """Bytes are resized before the crop, so a very narrow image is refused, not enlarged."""
    with pytest.raises(
        ImageTooLarge, match="found 1,000 x 1 pixels, .* 256,000 x 256, expected at"
    ):
        preprocess(np.zeros((1, 1000, 3), np.uint8), replace(LITE0, resample=resample))


@pytest.mark.parametrize("resample", RESAMPLES)
def test_ten_crops_of_a_strip_are_refused(resample: Resample) -> None:
    """The corners need the whole image, whatever resizes it."""
    with pytest.raises(ImageTooLarge, match="found 1 x 1,000 pixels, .* 256 x 256,000, expected"):
        ten_crops(np.zeros((1000, 1, 3), np.uint8), replace(LITE0, resample=resample))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(500, 375), (1, 1), (3, 600), (299, 299), (328, 400)])
def test_every_preset_takes_every_shape(name: str, size: tuple[int, int]) -> None:
    """The row of a batch is float32, contiguous, finite and 3 x crop, whatever the image's size."""
    row = preprocess(noise(*size), PRESETS[name])
    assert row.dtype == np.float32
    assert row.shape == (3, *PRESETS[name].crop)
    assert row.flags.c_contiguous
    assert np.isfinite(row).all()


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize(("origin", "first"), [("ceil", 2), ("floor", 1), ("half-even", 2)])
def test_an_odd_margin_goes_where_the_spec_says(
    resample: Resample, origin: CropOrigin, first: int
) -> None:
    """A crop of 4 out of 7 begins at 2 or at 1: the programs of the time disagree about it."""
    spec = replace(BYTES, resize=7, crop=(4, 4), resample=resample, crop_origin=origin)
    expected = picture(7, 7)[first : first + 4, first : first + 4]
    assert np.array_equal(preprocess(picture(7, 7), spec), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("resample", RESAMPLES)
def test_bgr_networks_get_their_order(resample: Resample) -> None:
    """Channels come in the spec's order, and mean and std are in that order too."""
    spec = replace(BYTES, resize=4, crop=(4, 4), resample=resample, order="BGR")
    got = preprocess(picture(4, 4), replace(spec, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0)))
    expected = (picture(4, 4)[..., ::-1] - np.array([1.0, 2.0, 3.0])) / np.array([1.0, 2.0, 4.0])
    assert np.array_equal(got, expected.transpose(2, 0, 1).astype(np.float32))
    assert got.flags.c_contiguous


@pytest.mark.parametrize("resample", RESAMPLES)
def test_exact_mode_squashes_both_sides(resample: Resample) -> None:
    """`exact` gives a square of that size whatever the aspect ratio."""
    spec = replace(RAW, resize_mode="exact", resize=5, crop=(5, 5), resample=resample)
    assert preprocess(noise(10, 30), spec).shape == (3, 5, 5)


@pytest.mark.parametrize("resample", RESAMPLES)
def test_pixels_are_only_read(resample: Resample) -> None:
    """The decoded image may be shared and read-only; preprocessing changes nothing of it."""
    pixels = noise(40, 30)
    pixels.flags.writeable = False
    before = pixels.copy()
    preprocess(pixels, replace(RAW, resize=20, crop=(16, 16), resample=resample))
    assert np.array_equal(pixels, before)


def test_a_crop_that_does_not_fit_is_a_contradiction_of_the_spec() -> None:
    """A crop larger than the resized image is an error that prints the spec."""
    spec: InputSpec = replace(RAW, resize=20, crop=(10, 21))
    with pytest.raises(SpecError, match=r"crop 10x21 does not .* 20x20 pixels: shorter 20 torch7"):
        preprocess(noise(40, 40), spec)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grey", "four channels", "numbers", "no row"],
)
def test_what_is_not_pixels_is_refused(array: Any) -> None:
    """`preprocess` takes what `decode` returns, and says so."""
    with pytest.raises(ImageError, match="found an array of shape .* as decode returns them"):
        preprocess(array, RAW)
