"""MXNet's augmentation is held against what MXNet 1.9.1 made of the same draws."""

import json
from typing import Any

import numpy as np
import pytest

from models.augment import augmentation
from models.augment.crops import bordered, shorter_side
from models.augment.draws import generator
from models.augment.mxnet_family import (
    GREY,
    Levels,
    Shift,
    Warp,
    drawn_shift,
    drawn_warp,
    shifted,
    warped,
    warped_size,
)
from models.data.records import RecordFile
from models.decoding import Pixels, decode
from models.errors import ImageError, SpecError
from models.geometry import Size
from models.presets import preset
from tests.oracles import golden

# OpenCV rounds colours to bytes before and after HLS: where its version differs by one, hue may.
MAX_DIFF, MEAN_DIFF = 6, 0.002  # the largest of an independent recomputation with OpenCV: 6, 0.001


def cases() -> list[Any]:
    levels = {"level1": 6, "level2": 8, "level3": 8, "cifar-crop28": 12}
    return [(name, index) for name, count in levels.items() for index in range(count)]


def manifest() -> dict[str, Any]:
    path = golden("mxnet/recordio/train-aug-manifest.json")
    return json.loads(path.read_text(encoding="utf-8"))


def stored(rec: str, index: int) -> Pixels:
    record = RecordFile(golden(f"mxnet/recordio/{rec}")).record(index)
    return decode(record.payload, orientation=False)


@pytest.mark.parametrize(("name", "index"), cases())
def test_the_drawn_parameters_give_mxnets_pixels(name: str, index: int) -> None:
    """Warp, crop, colours and mirror of levels 1, 2 and 3, one by one with MXNet's draws."""
    entry = manifest()[name]
    drawn = entry["params"][index]
    with np.load(golden("mxnet/recordio/train-aug-expected.npz")) as expected:
        wanted = expected[name][index].transpose(1, 2, 0)
    size = wanted.shape[0]
    pixels = stored(entry["rec"], drawn["record"])
    top, left = drawn["crop_y"], drawn["crop_x"]
    if "max_random_scale" in entry["options"]:
        warp = Warp(drawn["shear"], drawn["angle"], drawn["scale"], drawn["ratio"])
        assert list(warped_size(Size(*pixels.shape[:2]), warp)) == drawn["warped_size"]
        pixels = warped(pixels, warp, Size(top + size, left + size))
    crop = pixels[top : top + size, left : left + size]
    if "random_h" in entry["options"]:
        crop = shifted(crop, Shift(drawn["dh"], drawn["dl"], drawn["ds"]))
    found = crop[:, ::-1] if drawn["mirror"] else crop
    apart = np.abs(found.astype(int) - wanted)
    exact = "level1" in name or "cifar" in name
    assert apart.max() <= (0 if exact else MAX_DIFF)
    assert apart.mean() <= (0 if exact else MEAN_DIFF)


# The warps of ImageRecordIter with one choice instead of a range; it divides scale and ratio so.
FIXED = {
    "scale0.533": Warp(0, 0, 0.533, 1),
    "scale0.75": Warp(0, 0, 0.75, 1),
    "rotate10": Warp(0, 10, 1, 1),
    "aspect1.25-scale0.6": Warp(0, 0, 0.6, 1.25),
    "aspect0.75-scale0.6": Warp(0, 0, 0.6, 0.75),
    "rotate7-aspect1.1-scale0.533": Warp(0, 7, 0.533, 1.1),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_warp_gives_the_iterators_centre(name: str) -> None:
    """Scaled and rotated images of the real iterator, centre crop."""
    with np.load(golden("mxnet/recordio/iter-expected.npz")) as expected:
        wanted = expected[name].transpose(0, 2, 3, 1)
    for index, one in enumerate(wanted):
        pixels = stored("sample_480_q90.rec", index)
        canvas = warped_size(Size(*pixels.shape[:2]), FIXED[name])
        whole = warped(pixels, FIXED[name], canvas)
        top, left = ((length - 224) // 2 for length in canvas)
        crop = whole[top : top + 224, left : left + 224]
        apart = np.abs(crop.astype(int) - one)
        assert apart.max() <= 1
        assert apart.mean() <= MEAN_DIFF


def test_a_border_is_grey() -> None:
    """CIFAR's images get four grey rows and columns; the iterator's centre crop undoes them."""
    with np.load(golden("mxnet/recordio/iter-expected.npz")) as expected:
        wanted = expected["cifar-pad4-center"].transpose(0, 2, 3, 1)
    for index, one in enumerate(wanted):
        whole = bordered(stored("cifar_like.rec", index), 4, GREY)
        assert whole.shape == (40, 40, 3)
        assert (whole[4:36, 4:36] == one).all()
        assert (whole[:4] == 127).all()


def test_the_shorter_side_is_resized_as_im2rec_does() -> None:
    """A resize of the iterator, which rounds the longer side as im2rec does."""
    with np.load(golden("mxnet/recordio/iter-expected.npz")) as expected:
        wanted = expected["resize256"].transpose(0, 2, 3, 1)
    for index, one in enumerate(wanted):
        small = shorter_side(stored("sample_480_q90.rec", index), 256)
        top, left = ((length - 224) // 2 for length in small.shape[:2])
        assert np.abs(small[top : top + 224, left : left + 224].astype(int) - one).max() <= 1


def test_hue_does_not_wrap_around() -> None:
    """Red made redder stays red: hue is cut off at 0 and 180."""
    for colour, by in (((200, 30, 31), 36), ((200, 31, 30), -36)):  # hues of nearly 180 and 0
        red = np.full((2, 2, 3), colour, np.uint8)
        assert np.abs(shifted(red, Shift(by, 0, 0)).astype(int) - red).max() <= 2


def test_draws_stay_within_their_ranges() -> None:
    """Each level draws what it should, over the whole range."""
    draw = np.random.default_rng(0)
    warps = {level: [drawn_warp(level, draw) for _ in range(2000)] for level in (2, 3)}
    assert {(one.shear, one.angle) for one in warps[2]} == {(0, 0)}
    assert {one.angle for one in warps[3]} == set(range(-10, 11))
    for field, low, high in (("scale", 0.533, 1), ("ratio", 0.75, 1.25), ("shear", -0.1, 0.1)):
        values = [getattr(one, field) for one in warps[3]]
        assert low <= min(values) <= low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) <= max(values) <= high
    shifts = [drawn_shift(draw) for _ in range(20_000)]
    for field, most in (("hue", 36), ("lightness", 50), ("saturation", 50)):
        values = [getattr(one, field) for one in shifts]
        assert (min(values), max(values)) == (
            -most + 1,
            most - 1,
        )  # truncated: the end is never hit
        assert values.count(0) / values.count(1) == pytest.approx(2, rel=0.3)  # both sides of 0


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_view_is_a_function_of_seed_epoch_and_index(level: int) -> None:
    """The same three numbers give the same view; another epoch or image another."""
    image = RecordFile(golden("mxnet/recordio/sample_480_q90.rec")).record(0).payload
    augment = augmentation("mxnet-224", level=level)
    first = augment(image, generator(1, 2, 3))
    assert first.pixels.shape == (224, 224, 3)
    assert first.pixels.flags["C_CONTIGUOUS"]
    assert (first.matrix == np.eye(3)).all()
    assert (first.vector == 0).all()
    assert (first.pixels == augment(image, generator(1, 2, 3)).pixels).all()
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (first.pixels != augment(image, generator(*other)).pixels).any()


def test_level_1_takes_256_and_the_others_480() -> None:
    """Images of another size become what the records of that level held."""
    assert [augmentation("mxnet-224", level=one).side for one in (1, 2, 3)] == [256, 480, 480]  # type: ignore[attr-defined]
    assert augmentation("mxnet-cifar10", level=3) == Levels(preset("mxnet-cifar10"), 32, 1, 32, 4)


@pytest.mark.parametrize("name", ["mxnet-cifar10", "torch-cifar10"])
def test_smaller_images_are_enlarged_as_for_evaluation(name: str) -> None:
    """Fashion-MNIST's 28 x 28 become CIFAR's 32 x 32 before the border, in training as well."""
    pixels = np.full((28, 28, 3), 200, np.uint8)
    view = augmentation(name)(pixels, generator(0, 0, 0))
    bright = (view.pixels == 200).all(axis=2)
    assert view.pixels.shape == (32, 32, 3)
    assert bright.any(axis=0).sum() >= 28  # the border is 4
    shown = [augmentation(name)(pixels, generator(0, 0, i)).pixels for i in range(300)]
    assert max((one == 200).sum() for one in shown) == 32 * 32 * 3


def test_an_image_smaller_than_the_crop_is_refused() -> None:
    """MXNet stops there as well; nothing is enlarged unasked."""
    small = np.zeros((100, 120, 3), np.uint8)
    spec = preset("mxnet-224")
    with pytest.raises(ImageError, match="found 120 x 100 pixels, expected at least 224 x 224"):
        Levels(spec, 224, 1, None)(small, generator(0, 0, 0))
    with pytest.raises(ImageError, match=r"found \d+ x \d+ pixels, expected at least 224 x 224"):
        Levels(spec, 224, 3, None)(small, generator(0, 0, 0))


def test_there_are_three_levels() -> None:
    """Another level is refused by the flag's name."""
    with pytest.raises(SpecError, match="--aug-level 4: expected 1, 2 or 3"):
        augmentation("mxnet-224", level=4)
    with pytest.raises(SpecError, match="mxnet-224-squash: no training is known"):
        augmentation("mxnet-224-squash")
