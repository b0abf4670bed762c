"""Torch's augmentations: one matrix against the original's steps, crops against what is drawn."""

import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from models import torch7_scale
from models.augment import augmentation
from models.augment.colour import (
    EIGENVALUES,
    EIGENVECTORS,
    GREY,
    Jitter,
    drawn_jitter,
    jittered,
    normalised,
)
from models.augment.crops import cut, window
from models.augment.draws import generator
from models.augment.picture import Picture
from models.augment.torch_family import RandomCrop, RandomSizedCrop, drawn_box
from models.decoding import decode
from models.errors import ImageError
from models.geometry import Size, Window
from models.presets import preset

SPEC = preset("torch-224")
# float64 both ways, another order of sums; the view's numbers are then rounded to float32.
STEPS_ATOL = 1e-12
FLOAT32_ATOL = 4e-6


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture, of which JPEG keeps nearly all."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(x / width * draw.uniform(3, 9) + y / height * draw.uniform(3, 9)) for _ in range(3)
    ]
    return (127.5 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)


def as_jpeg(pixels: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 95, "RGB", "444")


def step_by_step(pixels: np.ndarray, jitter: Jitter) -> np.ndarray:
    """The original's eight passes over an image of numbers 0 to 1, then mean and std."""
    image = pixels / 255

    def blended(other: np.ndarray | float, factor: float) -> np.ndarray:
        return image * factor + (1 - factor) * other

    for step in jitter.order:
        grey = (image * GREY).sum(axis=-1, keepdims=True)
        factor = jitter.factors[step]
        image = blended([0, grey.mean(), grey][step], factor)
    light = (EIGENVECTORS * np.array(jitter.lighting) * EIGENVALUES).sum(axis=1)
    return (image + light - SPEC.mean) / SPEC.std


@pytest.mark.parametrize("seed", range(20))
def test_one_matrix_is_all_of_the_colour_steps(seed: int) -> None:
    """Jitter in any order, lighting and normalisation equal the step-by-step form."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    jitter = drawn_jitter(np.random.default_rng(seed))
    matrix, vector = jittered(jitter, pixels.mean(axis=(0, 1)), SPEC)
    found = pixels @ matrix.T + vector
    assert np.abs(found - step_by_step(pixels, jitter)).max() <= STEPS_ATOL


def test_jitter_is_drawn_as_the_original_does() -> None:
    """Factors are uniform within 0.4 of 1, all orders come up, lighting is normal(0, 0.1)."""
    draw = np.random.default_rng(0)
    drawn = [drawn_jitter(draw) for _ in range(6000)]
    factors = np.array([one.factors for one in drawn])
    assert factors.min() == pytest.approx(0.6, abs=1e-3)
    assert factors.max() == pytest.approx(1.4, abs=1e-3)
    assert len({one.order for one in drawn}) == 6
    assert np.std([one.lighting for one in drawn]) == pytest.approx(0.1, rel=0.03)


def test_boxes_are_drawn_as_the_original_does() -> None:
    """Areas uniform from 8 %, ratios uniform from 3/4 to 4/3 and then swapped or not."""
    size, draw = Size(2000, 2000), np.random.default_rng(0)
    boxes = [box for _ in range(6000) if (box := drawn_box(size, draw))]
    assert len(boxes) >= 5990
    height, width = np.array([(len(rows), len(columns)) for rows, columns in boxes]).T
    small = height * width < 0.7 * 4e6  # all of these fit
    assert (height * width).min() >= 0.0799 * 4e6
    assert np.median((height * width)[small]) == pytest.approx(0.39 * 4e6, rel=0.03)
    ratio = (width / height)[small]
    assert 0.749 <= ratio.min() <= ratio.max() <= 1.335
    # of uniform(3/4, 4/3) or its inverse: the mean of both, not 1 as of a log-uniform one
    inverse = np.log((4 / 3) / (3 / 4)) / (4 / 3 - 3 / 4)
    assert ratio.mean() == pytest.approx(((3 / 4 + 4 / 3) / 2 + inverse) / 2, abs=0.01)
    ends = [(one.start, one.stop) for box in boxes for one in box]
    assert np.min(ends) == 0
    assert np.max(ends) == 2000


@pytest.mark.parametrize("size", [Size(20, 2000), Size(2000, 20)])
def test_a_strip_gives_its_middle(size: Size) -> None:
    """Where none of ten boxes fits, the middle square is taken."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[990 if size.height > 20 else 0 :, 990 if size.width > 20 else 0 :] = 255
    pixels[1010 if size.height > 20 else 20 :, 1010 if size.width > 20 else 20 :] = 0
    view = RandomSizedCrop(SPEC, 32)(pixels, generator(0, 0, 0))
    assert (view.pixels == 255).all()


def test_a_crop_shows_its_part_of_the_image() -> None:
    """The view of a slope in each direction has the mean of the box that was drawn."""
    y, x = np.mgrid[:150, :200]
    pixels = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)
    augment = augmentation("torch-224")
    for index in range(20):
        box = drawn_box(Size(150, 200), generator(5, 1, index))
        assert box is not None
        view = augment(pixels, generator(5, 1, index))
        assert view.pixels.shape == (224, 224, 3)
        middle = [np.mean(box.rows), np.mean(box.columns), 0]
        assert np.allclose(view.pixels.mean(axis=(0, 1)), middle, atol=0.6)


@pytest.mark.parametrize("box", [window(100, 200, 900, 1100), window(0, 0, 1200, 1600)])
def test_a_large_part_is_decoded_at_a_fraction(box: Window) -> None:
    """Half, a quarter or an eighth of a JPEG shows the same part as all of it."""
    pixels = picture(1200, 1600)
    small = cut(Picture(as_jpeg(pixels)), box, 224)
    factor = len(box.rows) // small.shape[0]
    assert factor == 4
    assert min(small.shape[:2]) >= 224
    part = pixels[box.rows.start : box.rows.stop, box.columns.start : box.columns.stop]
    mean = part.reshape(small.shape[0], factor, small.shape[1], factor, 3).mean(axis=(1, 3))
    assert np.abs(small - mean).mean() <= 1


def test_the_views_map_is_the_normalisation() -> None:
    """Without jitter white becomes (1 - mean) / std."""
    matrix, vector = normalised(SPEC)
    assert np.allclose(matrix @ [255, 255, 255] + vector, (1 - np.array(SPEC.mean)) / SPEC.std)


class Drawn:
    """A generator that gives what it is told."""

    def __init__(self, *values: float) -> None:
        self._values = iter(values)

    def uniform(self, low: float, high: float) -> float:
        value = next(self._values)
        assert low <= value <= high
        return value

    def random(self) -> float:
        return next(self._values)

    def integers(self, most: int) -> int:
        value = int(next(self._values))
        assert value < most
        return value


@pytest.mark.parametrize("mirror", [False, True])
def test_enet_crops_the_image_that_torch_resized(mirror: bool) -> None:
    """The crop is Torch's bilinear resize of the whole image, rounded to bytes."""
    pixels, spec = picture(300, 410), preset("enet-224")
    whole = Size(256, 410 * 256 // 300)
    levels = np.arange(256, dtype=np.float32)
    everything = Window(range(whole.height), range(whole.width))
    wanted = torch7_scale.scale(pixels, levels, "torch7-bilinear", whole, everything)
    wanted = wanted[:, 8:232, 101:325].transpose(1, 2, 0).copy()
    draw: Any = Drawn(7.2, 100.9, 0.1 if mirror else 0.9)  # rounded up, never the first
    view = augmentation("enet-224")(pixels, draw)
    found = view.pixels[:, ::-1] if mirror else view.pixels
    assert np.abs(found - wanted).max() <= 0.5 + 1e-4
    assert np.allclose(view.matrix, normalised(spec).matrix, atol=FLOAT32_ATOL)


def test_enet_takes_what_has_just_the_crops_size() -> None:
    """Nothing is drawn beyond the image."""
    pixels = picture(256, 256)
    view = RandomCrop(preset("enet-224"), 256)(pixels, generator(0, 0, 0))
    assert (view.pixels == pixels).all() or (view.pixels == pixels[:, ::-1]).all()
    with pytest.raises(ImageError, match="found 256 pixels after resizing, expected at least 300"):
        RandomCrop(preset("enet-224"), 300)(pixels, generator(0, 0, 0))


@pytest.mark.parametrize("name", ["torch-cifar10", "torch-cifar100"])
def test_cifars_border_is_the_mean_colour(name: str) -> None:
    """Around a CIFAR image is what becomes zero, to half a byte; the crop may take 4 of it."""
    pixels, spec = picture(32, 32), preset(name)
    draw: Any = Drawn(0.9, 0, 8)
    view = augmentation(name)(pixels, draw)
    assert (view.pixels[4:, :-4] == pixels[:-4, 4:]).all()
    numbers = view.pixels @ view.matrix.T + view.vector
    assert np.abs(numbers[:4]).max() <= 0.5 / min(spec.std) + FLOAT32_ATOL
    assert np.abs(numbers[:, -4:]).max() <= 0.5 / min(spec.std) + FLOAT32_ATOL


def test_crops_and_mirrors_of_cifar_come_equally_often() -> None:
    """81 places, half of them mirrored."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[16, 12] = 255
    augment = augmentation("torch-cifar10")
    views = [augment(pixels, generator(0, 1, index)).pixels for index in range(3000)]
    places = [divmod(int(one[..., 0].argmax()), 32) for one in views]
    assert {row for row, _ in places} == set(range(12, 21))
    assert {column for _, column in places} == set(range(8, 24))  # 8 to 16, mirrored 15 to 23
    assert np.mean([column >= 16 for _, column in places]) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("name", ["torch-299", "torch-224", "torch-cifar10", "enet-224"])
def test_a_view_is_a_function_of_seed_epoch_and_index(name: str) -> None:
    """The same three numbers give the same view, colours included; others another."""
    small = "cifar" in name
    image = picture(32, 32) if small else as_jpeg(picture(300, 400))
    augment = augmentation(name)
    first, again = (augment(image, generator(1, 2, 3)) for _ in range(2))
    assert first.pixels.shape == (*preset(name).crop, 3)
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (first.pixels != augment(image, generator(*other)).pixels).any()


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture(60, 80)).convert(mode).save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG"),
        encoded("JPEG", "L"),
        encoded("JPEG", "CMYK"),
        encoded("PNG"),
        encoded("WEBP"),
        encoded("JPEG", progressive=True),
    ],
    ids=["jpeg", "grey", "cmyk", "png", "webp", "progressive"],
)
def test_a_picture_has_the_pixels_of_the_one_decoder(data: bytes) -> None:
    """Whatever decodes an image, the pixels are those that the service sees."""
    one = Picture(data)
    assert one.size == (60, 80)
    assert (one.pixels() == decode(data, orientation=False)).all()


def test_a_truncated_jpeg_is_our_error() -> None:
    """A header that is good does not make the image so."""
    data = as_jpeg(picture(200, 200))
    with pytest.raises(ImageError, match="truncated or damaged"):
        Picture(data[: len(data) // 3]).pixels()
    with pytest.raises(ImageError, match="expected a whole JPEG"):
        Picture(b"no image at all")
