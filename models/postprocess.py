"""From a network's output to named classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.spec import Label, Output


@dataclass(frozen=True)
class Prediction:
    """A class and how probable the network finds it."""

    index: int
    wnid: str | None
    label: str
    probability: float


def probabilities(output: np.ndarray, kind: Output) -> np.ndarray:
    """Return the probability of each class.

    Args:
        output: N x K, as the network's last layer gave it.
        kind: What that layer gives; the spec says so.

    Returns:
        N x K float32.
    """
    values = output.astype(np.float32, copy=False)
    if kind == "probabilities":
        return values
    if kind == "log_probabilities":
        return np.exp(values)
    powers = np.exp(values - values.max(axis=1, keepdims=True))  # the largest is e^0: no overflow
    normalised: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return normalised


def top_k(row: np.ndarray, labels: Sequence[Label], k: int) -> list[Prediction]:
    """Return the `k` most probable classes, or all where there are fewer, best first.

    Args:
        row: K probabilities; of equal ones the lower index comes first.
        labels: K classes.
        k: How many are wanted.
    """
    best = np.argsort(-row, kind="stable")[:k]
    return [
        Prediction(int(index), labels[index].wnid, labels[index].name, float(row[index]))
        for index in best
    ]
