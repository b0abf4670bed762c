"""Lornatang's augmentation is held against torchvision 0.28's transforms of Pillow images."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.augment import augmentation
from models.augment.crops import cut, window
from models.augment.draws import generator
from models.augment.lornatang import (
    BINS,
    OPERATIONS,
    SIGNED,
    STRENGTHS,
    Wide,
    drawn_box,
    drawn_strength,
    resized,
)
from models.augment.picture import Picture
from models.geometry import Size, Window
from models.presets import preset
from tests.oracles import golden

SPEC = preset("lornatang-299")
SEEDS = np.random.default_rng(7)


@pytest.fixture(scope="module")
def torchvision() -> dict[str, np.ndarray]:
    with np.load(golden("torchvision/transforms.npz")) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_gives_torchvisions_bytes(
    name: str, torchvision: dict[str, np.ndarray]
) -> None:
    """The weakest, a middle and the strongest of each operation, of both signs."""
    image = Image.fromarray(torchvision["pixels"])
    found = {key: key.split("/")[1] for key in torchvision if key.startswith(f"{name}/")}
    assert found
    for key, strength in found.items():
        ours = np.asarray(OPERATIONS[name](image, float(strength)))
        assert (ours == torchvision[key]).all(), key


def test_strengths_are_torchvisions(torchvision: dict[str, np.ndarray]) -> None:
    """The same operations in the same order, 31 strengths each, of both signs where it has them."""
    named = [key.split("/")[1] for key in torchvision if key.startswith("signed/")]
    assert list(OPERATIONS) == named
    for name in named:
        assert (name in SIGNED) == bool(torchvision[f"signed/{name}"])
        wanted = torchvision.get(f"strengths/{name}")
        assert (name in STRENGTHS) == (wanted is not None)
        if wanted is not None:
            assert np.allclose(STRENGTHS[name], wanted, atol=1e-5)  # float32 there


def test_rotations_and_crops_are_torchvisions(torchvision: dict[str, np.ndarray]) -> None:
    """A rotation takes the nearest pixel, a resized crop Pillow's antialiased average."""
    pixels = torchvision["pixels"]
    for key, wanted in torchvision.items():
        kind, _, numbers = key.partition("/")
        if kind == "rotated":
            ours = Image.fromarray(pixels).rotate(float(numbers))
            assert (np.asarray(ours) == wanted).all(), key
        if kind == "crop":
            top, left, height, width = map(int, numbers.split(","))
            part = cut(Picture(pixels), window(top, left, height, width), 16)
            assert (np.asarray(resized(part, 16)) == wanted).all(), key


def test_boxes_are_drawn_as_torchvision_does() -> None:
    """Areas are uniform from 8 %, ratios log-uniform from 3/4 to 4/3, every place is reached."""
    size, draw = Size(2000, 2000), np.random.default_rng(0)
    boxes = [drawn_box(size, draw) for _ in range(4000)]
    height, width = np.array([(len(rows), len(columns)) for rows, columns in boxes]).T
    ends = [(one.start, one.stop) for box in boxes for one in box]
    assert np.min(ends) == 0
    assert np.max(ends) == 2000
    share = width * height / 4e6
    assert share.min() >= 0.0799
    assert np.median(share[share < 0.7]) == pytest.approx(0.39, abs=0.02)  # below 3/4 all fit
    ratio = np.log(width / height) / np.log(4 / 3)
    assert np.abs(ratio[share < 0.7]).max() <= 1.01
    assert np.mean(ratio[share < 0.7]) == pytest.approx(0, abs=0.05)
    assert np.var(ratio[share < 0.7]) == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize(
    ("size", "box"),
    [(Size(10, 1000), window(0, 493, 10, 13)), (Size(1000, 10), window(493, 0, 13, 10))],
)
def test_a_strip_gives_its_middle(size: Size, box: Window) -> None:
    """Where no box fits, the middle is taken in the nearest allowed shape."""
    assert drawn_box(size, np.random.default_rng(1)) == box


def test_strengths_are_drawn_evenly() -> None:
    """Each of 31 strengths comes up, with either sign; what has no strength draws none."""
    draw = np.random.default_rng(0)
    drawn = [drawn_strength("Rotate", draw) for _ in range(6000)]
    assert len(set(drawn)) == 2 * BINS - 1
    assert {drawn_strength("Posterize", draw) for _ in range(500)} == {8, 7, 6, 5, 4, 3, 2}
    assert {drawn_strength("Equalize", draw) for _ in range(9)} == {0.0}


def test_a_view_is_a_function_of_seed_epoch_and_index() -> None:
    """The same three numbers give the same view; normalisation is the preset's."""
    image = SEEDS.integers(0, 256, (90, 120, 3)).astype(np.uint8)
    assert augmentation("lornatang-299") == Wide(SPEC, 299)
    augment = Wide(SPEC, 64)
    first: Any = augment(image, generator(1, 2, 3))
    assert first.pixels.shape == (64, 64, 3)
    white = first.matrix @ np.full(3, 255, np.float32) + first.vector
    assert np.allclose(white, (1 - np.array(SPEC.mean)) / SPEC.std, atol=1e-5)
    assert (first.pixels == augment(image, generator(1, 2, 3)).pixels).all()
    assert (first.pixels != augment(image, generator(1, 2, 4)).pixels).any()
