"""Errors in percent, counted over images once, and as the original programs counted them."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.training.processes import Processes

TOP = 5
NORMAL_95 = 1.959964  # two-sided 95 % of a normal distribution
Ahead = NDArray[np.int64]


def ahead_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes stand before the right one; equal scores count in class order."""
    right = logits.gather(1, labels[:, None])
    index = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > right) | ((logits == right) & (index < labels[:, None]))
    return (before | right.isnan()).sum(1)


def wrong(ahead: Tensor) -> Tensor:
    """Return how many are not the first guess, and how many not within the first five."""
    return torch.stack([(ahead >= 1).sum(), (ahead >= TOP).sum()])


class Interval(NamedTuple):
    """An error in percent and its 95 % confidence interval."""

    error: float
    low: float
    high: float


def interval(ahead: Ahead, top: int) -> Interval:
    """Return the share of images whose class is not within the first `top`.

    Wilson's interval, which holds at 0 and 100 % as well.
    """
    count = len(ahead)
    share = float(np.mean(ahead >= top))
    spread = NORMAL_95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = NORMAL_95 / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return Interval(100 * share, 100 * low, 100 * high)


def as_mean_of_batches(ahead: Ahead, top: int, batch_size: int) -> float:
    """Return the plain mean of the batches' errors, the short last one counting as a whole one.

    Source: lim0606/fb.resnet.torch train.lua, Trainer:test.
    """
    starts = range(0, len(ahead), batch_size)
    return 100 * float(np.mean([np.mean(ahead[i : i + batch_size] >= top) for i in starts]))


def as_whole_batches(ahead: Ahead, top: int, batch_size: int) -> float:
    """Return the error over whole batches, the last one filled up with the first images.

    Source: MXNet's ImageRecordIter with round_batch, whose padding FeedForward's metric counts.
    """
    surplus = -len(ahead) % batch_size
    return 100 * float(np.mean(np.concatenate([ahead, np.resize(ahead, surplus)]) >= top))


def gathered(ahead: Tensor, processes: Processes) -> Ahead:
    """Return every process's ahead in the order of the images, where this process leads."""
    found = [one for one in processes.gather(ahead.cpu()) if one is not None]
    numbers: Ahead = torch.cat(found).numpy() if found else np.zeros(0, np.int64)
    return numbers
