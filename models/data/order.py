"""Which images an epoch takes, in which order: a function of the seed and the epoch alone.

So the number of workers, of processes, or of restarts cannot change what a run sees.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.data.samples import Labels

Indices = NDArray[np.int64]
Last = Literal["keep", "fill", "drop"]

# The second number of the key, so that a run's orders and its augmentation share no draws.
STREAM = 0x0BDE


class Order(Protocol):
    """What an epoch consists of."""

    def epoch(self, number: int) -> Indices:
        """Return the images of an epoch, in order, before they are cut into batches."""


@dataclass(frozen=True)
class Sequential:
    """Every image once, as they are stored."""

    count: int

    def epoch(self, number: int) -> Indices:
        """Return 0 to count - 1."""
        return np.arange(self.count)


@dataclass(frozen=True)
class Shuffled:
    """Every image once; all of them are shuffled, anew in each epoch."""

    count: int
    seed: int

    def epoch(self, number: int) -> Indices:
        """Return a permutation."""
        return _generator(self.seed, number).permutation(self.count)


@dataclass(frozen=True)
class Balanced:
    """Draws with replacement: first a class, all equally probable, then one of its images.

    An epoch is a number of draws, not a pass over the data.

    Source: soumith/imagenet-multiGPU.torch dataset.lua, sample.
    """

    labels: Labels
    draws: int
    seed: int

    def epoch(self, number: int) -> Indices:
        """Return `draws` images; those of a large class come less often than those of a small."""
        by_class = np.argsort(self.labels, kind="stable")
        _, begins, counts = np.unique(self.labels[by_class], return_index=True, return_counts=True)
        draw = _generator(self.seed, number)
        drawn = draw.integers(len(counts), size=self.draws)
        chosen: Indices = by_class[begins[drawn] + draw.integers(counts[drawn])]
        return chosen


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, STREAM, epoch))))


def steps(count: int, batch_size: int, last: Last) -> int:
    """Return how many batches an epoch of so many images has."""
    return count // batch_size if last == "drop" else -(-count // batch_size)


def batch(indices: Indices, number: int, batch_size: int, last: Last) -> Indices:
    """Return the images of a batch, of all processes together.

    A last batch that is short stays so (`keep`), or is filled from the head of the epoch (`fill`,
    as MXNet does).
    """
    chosen = indices[number * batch_size : (number + 1) * batch_size]
    if last == "fill" and len(chosen) < batch_size:
        missing = np.arange(batch_size - len(chosen)) % len(indices)
        return np.concatenate([chosen, indices[missing]])
    return chosen


def share(chosen: Indices, rank: int, world: int) -> Indices:
    """Return what process `rank` of `world` takes of a batch: neighbours, as evenly as it goes."""
    begin, end = (len(chosen) * one // world for one in (rank, rank + 1))
    return chosen[begin:end]
