"""Tests of models/image_network.py."""

from dataclasses import replace

import numpy as np
import pytest

from models.errors import ArtifactError, SpecError
from models.image_network import ImageNetwork
from models.session import Session
from models.spec import Output
from tests.tiny_onnx import SIDE, Tiny, spec

IMAGE = [("image", ("N", 3, SIDE, SIDE))]
CLASSES = len(spec().labels)


def fake(output: Output, *rows: np.ndarray) -> ImageNetwork:
    """Return a network whose last layer gives these rows."""
    return ImageNetwork("a test", spec(output=output), IMAGE, lambda _: np.stack(rows))


def row(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(CLASSES).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    result: np.ndarray = powers / powers.sum()
    return result


def batch(*shape: int) -> np.ndarray:
    return np.zeros((*shape, 3, SIDE, SIDE), np.float32)


def test_a_row_of_logits_becomes_probabilities() -> None:
    """N images give N rows, each a softmax of the last layer."""
    got = fake("logits", row(0), row(1)).probabilities(batch(2))
    assert got == pytest.approx(np.stack([softmax(row(0)), softmax(row(1))]), abs=1e-6)


@pytest.mark.parametrize("output", ["logits", "log_probabilities"])
def test_views_are_averaged_before_the_softmax(output: Output) -> None:
    """Two views of one image count by the mean of the last layer, and the answer adds up to 1."""
    rows = [row(0), row(1)]
    if output == "log_probabilities":
        rows = [np.log(softmax(one)).astype(np.float32) for one in rows]
    got = fake(output, *rows).probabilities(batch(1, 2))
    assert got == pytest.approx(softmax(np.mean(rows, axis=0))[None], abs=1e-6)


def test_views_of_probabilities_are_averaged_as_they_are() -> None:
    """A network that ends with a softmax gives the mean of its answers."""
    rows = [softmax(row(0)).astype(np.float32), softmax(row(1)).astype(np.float32)]
    got = fake("probabilities", *rows).probabilities(batch(1, 2))
    assert got == pytest.approx(np.mean(rows, axis=0)[None], abs=1e-6)


def test_a_fixed_batch_of_one_is_run_one_by_one() -> None:
    """An artifact that takes one image at a time gives for several what it gives for each."""
    images = np.random.default_rng(0).random((3, 3, SIDE, SIDE), dtype=np.float32)
    one, any_number = (
        ImageNetwork.of_session(Session(tiny.bytes())) for tiny in (Tiny(batch=1), Tiny())
    )
    assert (one.fixed_batch, any_number.fixed_batch) == (1, None)
    assert one.probabilities(images) == pytest.approx(any_number.probabilities(images), abs=1e-6)


def test_a_network_without_images_is_refused() -> None:
    """Without an input convention there is nothing to classify images with."""
    with pytest.raises(SpecError, match="a test: takes no image, so it classifies none: .* preset"):
        ImageNetwork("a test", spec(given=None), IMAGE, lambda batch: batch)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([*IMAGE, ("other", (2,))], "found the inputs image, other, expected one: the image"),
        ([("image", (4, 3, SIDE, SIDE))], "found a batch size of 4, expected 1 or any"),
        ([("image", ())], "found a batch size of 0, expected 1 or any"),
    ],
    ids=["two inputs", "batch of four", "no dimension"],
)
def test_inputs_that_are_no_images_are_refused(
    inputs: list[tuple[str, tuple[int | str, ...]]], message: str
) -> None:
    """What the network takes is looked at before any image is."""
    with pytest.raises(ArtifactError, match=f"a test: {message}"):
        ImageNetwork("a test", spec(), inputs, lambda batch: batch)


def test_another_number_of_outputs_is_refused() -> None:
    """Outputs and labels are as many, or the message says both numbers."""
    network = fake("logits", row(0)[:-1])
    match = rf"found an output of shape \(1, {CLASSES - 1}\), expected \(1, {CLASSES}\): one number"
    with pytest.raises(ArtifactError, match=match):
        network.probabilities(batch(1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    """NaN and infinity among the outputs never become an answer."""
    odd = row(0)
    odd[2] = value
    with pytest.raises(ArtifactError, match="a test: found NaN or infinity among its outputs"):
        fake("logits", odd).probabilities(batch(1))


def test_a_class_that_is_impossible_is_an_answer() -> None:
    """A log-probability of minus infinity is a probability of 0."""
    odd = np.log(softmax(row(0))).astype(np.float32)
    odd[2] = -np.inf
    assert fake("log_probabilities", odd).probabilities(batch(1))[0, 2] == 0
    labelled = replace(spec(), output="log_probabilities")
    network = ImageNetwork("a test", labelled, IMAGE, lambda _: np.stack([odd, odd]))
    assert network.probabilities(batch(1, 2))[0, 2] == 0
