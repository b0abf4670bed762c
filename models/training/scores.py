"""Errors in percent, counted over images once, and as the original programs counted them."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.augment.device import apply
from models.augment.evaluation import Evaluation
from models.data.loader import OnBad, batches
from models.data.order import Sequential
from models.data.samples import Samples
from models.training.processes import Processes

TOP = 5
NORMAL_95 = 1.959964  # two-sided 95 % of a normal distribution
UNREAD = -1
Ahead = NDArray[np.int64]


def ahead_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes stand before the right one; equal scores count in class order."""
    right = logits.gather(1, labels[:, None])
    index = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > right) | ((logits == right) & (index < labels[:, None]))
    return (before | right.isnan()).sum(1)


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


class Feed(NamedTuple):
    """How images come: in batches of so many, made by so many workers, and if one is unreadable."""

    batch_size: int
    workers: int
    on_bad: OnBad = "fail"


def score(
    forward: Callable[[Tensor], Tensor],
    samples: Samples,
    view: Evaluation,
    processes: Processes,
    feed: Feed,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, batch by batch, this process's images and how many classes stand before the right one.

    Of ten crops the outputs are summed, not the probabilities, as the Torch7 programs do.
    """
    order = Sequential(len(samples))
    made = batches(
        samples,
        order,
        view,
        epoch=1,
        batch_size=feed.batch_size,
        rank=processes.rank,
        world=processes.world,
        workers=feed.workers,
        on_bad=feed.on_bad,
    )
    for batch in made:
        if not len(batch.labels):
            continue
        on_device = (one.to(processes.device, non_blocking=True) for one in batch[:3])
        images = apply(*on_device)
        logits = forward(images.flatten(0, -4)).float()
        if images.ndim > 4:
            logits = logits.view(len(images), -1, logits.shape[1]).sum(1)
        yield batch.indices, ahead_of(logits, batch.labels.to(processes.device)).cpu()


def gathered(
    found: Sequence[tuple[Tensor, Tensor]], count: int, processes: Processes
) -> Ahead | None:
    """Return every image's number once, in the order of the images; None if not leading.

    An image that could not be read has the number -1.
    """
    mine = [torch.cat(part) for part in zip(*found, strict=True)]
    everyone = processes.gather(mine)
    if not processes.leads:
        return None
    numbers: Ahead = np.full(count, UNREAD)
    for indices, ahead in filter(None, everyone):
        numbers[indices.numpy()] = ahead.numpy()
    return numbers
