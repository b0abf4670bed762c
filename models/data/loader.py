"""Batches of views, made in worker processes; alone of this room it knows torch."""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.augment.draws import generator
from models.augment.view import Augmentation, View
from models.data.order import Last, Order, batch, share, steps
from models.data.samples import Samples
from models.errors import FormatError, ImageError

OnBad = Literal["fail", "skip"]
MOST_BAD = 100  # neighbouring images that cannot be read: then it is not an image that is bad


class Batch(NamedTuple):
    """What a process gets of a batch, on the CPU, pinned where there is a GPU.

    N may be 0, where a batch has fewer images than there are processes.

    Attributes:
        pixels: N x H x W x 3, bytes, or float32 for evaluation; with ten crops N x 10 x H x W x 3.
        matrix: N x 3 x 3, see `View`.
        vector: N x 3.
        labels: N.
        indices: N, of the images that were read.
        replaced: Which images could not be read, and why; their neighbours stand in for them.
    """

    pixels: Tensor
    matrix: Tensor
    vector: Tensor
    labels: Tensor
    indices: Tensor
    replaced: tuple[str, ...]


def batches(
    samples: Samples,
    order: Order,
    augmentation: Augmentation,
    *,
    epoch: int,
    batch_size: int,
    start_batch: int = 0,
    last: Last = "keep",
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    seed: int = 0,
    on_bad: OnBad = "fail",
) -> Iterator[Batch]:
    """Yield the batches of an epoch, or what process `rank` of `world` gets of them.

    What an image's augmentation draws depends on the seed, the epoch and its place in the epoch's
    order: not on workers, processes or where the epoch was begun; and an image that an epoch takes
    twice is drawn for twice.

    Args:
        samples: The images.
        order: Which of them the epoch takes.
        augmentation: What is done to each.
        epoch: From 1.
        batch_size: Of all processes together.
        start_batch: The first batch wanted, from 0.
        last: What becomes of a short last batch.
        rank: Of this process.
        world: The number of processes.
        workers: Processes that decode; 0 decodes in this one.
        seed: Of the run.
        on_bad: Whether an image that cannot be read ends the run or its neighbour takes its place.

    Raises:
        ImageError: An image cannot be read and `on_bad` is `fail`, or no neighbour can be either.
    """
    plan = _Plan(order.epoch(epoch), start_batch, batch_size, last, rank, world)
    loader = DataLoader(
        _Views(samples, augmentation, seed, epoch, on_bad),
        sampler=plan,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,  # or tuples would become lists
        worker_init_fn=_leave_signals,
        pin_memory=torch.cuda.is_available(),
    )
    for made in loader:
        if isinstance(made, str):
            raise ImageError(made)
        yield made


def _leave_signals(worker: int) -> None:
    """Leave signals to the process that trains: what ends a job reaches every process of it.

    One that died of SIGTERM would take the batch with it that the run still needs to save itself.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(made: Any) -> Any:
    return made


@dataclass(frozen=True)
class _Plan:
    """The batches of a process: images and their places in the epoch."""

    indices: np.ndarray
    start: int
    batch_size: int
    last: Last
    rank: int
    world: int

    def __len__(self) -> int:
        return steps(len(self.indices), self.batch_size, self.last) - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in range(self.start, self.start + len(self)):
            chosen = batch(self.indices, number, self.batch_size, self.last)
            places = number * self.batch_size + np.arange(len(chosen))
            mine = (share(one, self.rank, self.world).tolist() for one in (chosen, places))
            yield list(zip(*mine, strict=True))


@dataclass(frozen=True)
class _Views(Dataset[Batch | str]):
    """Batches by their images: what a worker process does."""

    samples: Samples
    augmentation: Augmentation
    seed: int
    epoch: int
    on_bad: OnBad

    def __getitem__(self, chosen: Sequence[tuple[int, int]]) -> Batch | str:
        """Return a batch, or as text why there is none: an error would lose its kind on its way."""
        rows, replaced = [], []
        for index, place in chosen or [(0, 0)]:  # whose view tells the shape of none
            try:
                rows.append((index, self._view(index, place)))
            except ImageError as error:
                if self.on_bad == "fail":
                    return f"{error}; --on-bad skip takes the next image instead"
                replaced.append(str(error))
                found = self._neighbour(index, place, replaced)
                if found is None:
                    return f"{error}; nor can the next {MOST_BAD} images be read"
                rows.append(found)
        count = len(chosen)
        views = zip(*(view for _, view in rows), strict=True)
        pixels, matrix, vector = (torch.from_numpy(np.stack(part)[:count]) for part in views)
        indices = np.array([index for index, _ in rows[:count]], np.int64)
        labels = torch.from_numpy(self.samples.labels[indices])
        return Batch(pixels, matrix, vector, labels, torch.from_numpy(indices), tuple(replaced))

    def _view(self, index: int, place: int) -> View:
        """Return a view; an error says which image it was."""
        draw = generator(self.seed, self.epoch, place)
        try:
            return self.augmentation(self.samples.read(index), draw)
        except ImageError as error:
            raise ImageError(f"{self.samples.where(index)}: {error}") from error
        except FormatError as error:  # it names the place itself
            raise ImageError(str(error)) from error
        except OSError as error:
            reason = error.strerror or error
            raise ImageError(f"{self.samples.where(index)}: {reason}") from error

    def _neighbour(self, index: int, place: int, replaced: list[str]) -> tuple[int, View] | None:
        """Return the next image that can be read, and its view."""
        for step in range(1, min(MOST_BAD, len(self.samples) - 1) + 1):
            other = (index + step) % len(self.samples)
            try:
                return other, self._view(other, place)
            except ImageError as error:
                replaced.append(str(error))
        return None
