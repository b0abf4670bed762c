"""From outputs to named classes."""

import numpy as np
import pytest

from models.postprocess import Prediction, probabilities, top_k
from models.spec import Label, Output

LOGITS = np.array([[1.0, 3.0, 2.0], [-5.0, 0.0, 5.0]], np.float32)
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
ATOL = 1e-7  # one float32 rounding of a number below 1

LABELS = (Label("n00000001", "a"), Label(None, "b"), Label(None, "c"))


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        pytest.param(LOGITS, "logits", id="logits"),
        pytest.param(np.log(SOFTMAX), "log_probabilities", id="log_probabilities"),
        pytest.param(SOFTMAX, "probabilities", id="probabilities"),
    ],
)
def test_every_kind_of_output_gives_the_same_probabilities(
    output: np.ndarray, kind: Output
) -> None:
    """What the last layer gives does not matter to who reads the probabilities."""
    got = probabilities(output, kind)
    np.testing.assert_allclose(got, SOFTMAX, rtol=0, atol=ATOL)
    assert got.dtype == np.float32


def test_half_precision_outputs_give_float32() -> None:
    """An output in float16 is summed up in float32."""
    assert probabilities(LOGITS.astype(np.float16), "logits").dtype == np.float32


def test_large_logits_do_not_overflow() -> None:
    """Logits beyond what float32 can exponentiate still give probabilities."""
    got = probabilities(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], np.float32), "logits")
    np.testing.assert_array_equal(got, [[1, 0], [0.5, 0.5]])


def test_top_k_is_sorted_and_named() -> None:
    """The most probable class comes first, with its index, WordNet id and name."""
    best = top_k(np.array([0.25, 0.125, 0.625], np.float32), LABELS, 2)
    assert best == [Prediction(2, None, "c", 0.625), Prediction(0, "n00000001", "a", 0.25)]


def test_equal_probabilities_keep_their_order() -> None:
    """Of equally probable classes the lower index comes first."""
    row = np.full(3, 1 / 3, np.float32)
    assert [prediction.index for prediction in top_k(row, LABELS, 3)] == [0, 1, 2]


def test_more_than_all_is_all() -> None:
    """A network of three classes has a top 3, whoever asks for five."""
    assert len(top_k(np.array([0.5, 0.25, 0.25], np.float32), LABELS, 5)) == 3
