"""An artifact says what it gives for two pictures, and an engine that gives otherwise is found."""

import re
from dataclasses import replace

import numpy as np
import pytest

from models.errors import ArtifactError, ParityError
from models.self_test import FLOAT32_BOUNDS, SHARES, SelfTest, pictures
from tests.tiny_onnx import INPUT, SIDE

OUTPUTS = np.array([[1, 2, 3], [3, 1, -2]], np.float32)
TEST = SelfTest(OUTPUTS, bound=1e-3)
TEXT = TEST.to_json()


def test_the_pictures_are_made_of_whole_numbers() -> None:
    """Anybody can make them from the formula in the docs; another spec scales the same pixels."""
    got = pictures(replace(INPUT, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0))
    assert got.shape == (2, 3, SIDE, SIDE)
    assert got.dtype == np.float32
    for picture, channel, y, x in ((0, 0, 0, 0), (0, 2, 7, 5), (1, 1, 6, 7)):
        rings = (y * y + x * x) * (3 + picture) // 64
        assert got[picture, channel, y, x] == (rings + (picture + 1) * x + 85 * channel) % 256
    assert pictures(INPUT) == pytest.approx(got / 127.5 - 1, abs=1e-6)


def test_a_test_survives_its_json() -> None:
    """What is read back is what was written, to the bit."""
    again = SelfTest.from_json(TEST.to_json())
    assert again.outputs.tobytes() == OUTPUTS.tobytes()
    assert again.bound == TEST.bound


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "damaged self-test", id="no JSON"),
        pytest.param("[]", "damaged self-test", id="no object"),
        pytest.param(
            TEST.to_json().replace('"bound": 0.001', '"bound": -1'), "damaged", id="bound"
        ),
        pytest.param(
            re.sub('"outputs": "[^"]*"', '"outputs": ""', TEST.to_json()), "damaged", id="0"
        ),
        pytest.param(
            TEXT.replace('"schema": 1', '"schema": 2'),
            "self-test schema 2, this relume reads 1: use the relume that wrote it",
            id="newer",
        ),
    ],
)
def test_what_is_no_test_is_refused(text: str, message: str) -> None:
    """Damage and newer forms are named with the file."""
    with pytest.raises(ArtifactError, match=f"^net.onnx: .*{message}"):
        SelfTest.from_json(text, "net.onnx")


def test_float32_is_held_to_rounding() -> None:
    """Up to the bounds that other orders of summing need; a little more is another network."""
    allowed = FLOAT32_BOUNDS * TEST.bound
    assert TEST.check(OUTPUTS + np.float32(0.9 * allowed), "float32", "it") == pytest.approx(
        0.9, rel=1e-3
    )
    with pytest.raises(ParityError, match="it: differs from the artifact's self-test by 0.0088"):
        TEST.check(OUTPUTS + np.float32(1.1 * allowed), "float32", "it")


@pytest.mark.parametrize("precision", SHARES)
def test_a_lower_precision_is_held_to_its_share(precision: str) -> None:
    """The share is of the largest answer, counted from the mean: 8/3 here."""
    largest = 8 / 3
    off = np.float32(0.9 * SHARES[precision] * largest)
    TEST.check(OUTPUTS + off, precision, "it")
    with pytest.raises(ParityError, match="this engine computes something else; choose another"):
        TEST.check(OUTPUTS + off / 0.9 * np.float32(1.1), precision, "it")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_is_no_answer(value: float) -> None:
    """NaN and infinity are found, though they compare as nothing."""
    with pytest.raises(ParityError, match="differs from the artifact's self-test by (nan|inf)"):
        TEST.check(np.full_like(OUTPUTS, value), "float32", "it")


def test_another_number_of_classes_is_found() -> None:
    """An engine that gives other shapes is not compared by broadcasting."""
    with pytest.raises(ParityError, match=r"gives \(2, 1\) for the self-test, expected \(2, 3\)"):
        TEST.check(OUTPUTS[:, :1], "float32", "it")
