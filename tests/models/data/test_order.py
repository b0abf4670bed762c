"""What an epoch consists of depends on nothing but the seed and the epoch."""

import numpy as np
import pytest

from models.data.order import Balanced, Last, Sequential, Shuffled, batch, share, steps


def test_a_shuffled_epoch_has_every_image_once() -> None:
    """All images are shuffled, not chunks of them, and anew in each epoch and for each seed."""
    order = Shuffled(1000, seed=3)
    first = order.epoch(1)
    assert sorted(first) == list(range(1000))
    assert (first == Shuffled(1000, seed=3).epoch(1)).all()
    for other in (order.epoch(2), Shuffled(1000, seed=4).epoch(1), np.arange(1000)):
        assert (first == other).mean() < 0.02
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1  # no image stays near its place


def test_an_order_outlives_the_library() -> None:
    """A run that is resumed years later sees the same images: these were drawn with numpy 2.4."""
    assert Shuffled(10, seed=0).epoch(1).tolist() == FIRST_EPOCH
    assert Balanced(np.array([0, 0, 0, 1]), 6, seed=0).epoch(1).tolist() == FIRST_DRAWS


FIRST_EPOCH = [8, 1, 3, 2, 4, 7, 5, 6, 0, 9]
FIRST_DRAWS = [3, 2, 1, 3, 1, 2]


def test_sequential_is_as_stored() -> None:
    """Evaluation goes through the images in their order."""
    assert Sequential(4).epoch(7).tolist() == [0, 1, 2, 3]


def test_balanced_draws_classes_evenly_and_all_their_images() -> None:
    """A class of 10 images is drawn as often as one of 1,000; each of its images equally often."""
    labels = np.repeat([0, 1, 2], [1000, 10, 100])[np.random.default_rng(0).permutation(1110)]
    drawn = Balanced(labels, 30_000, seed=1).epoch(1)
    counts = np.bincount(labels[drawn])
    assert np.allclose(counts, 10_000, atol=5 * np.sqrt(30_000 * 2 / 9))  # five deviations
    images, times = np.unique(drawn[labels[drawn] == 1], return_counts=True)
    assert len(images) == 10
    assert np.allclose(times, 1000, atol=5 * np.sqrt(10_000 * 0.09))


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        ("keep", [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        ("fill", [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]),
        ("drop", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_the_last_batch(last: Last, wanted: list[list[int]]) -> None:
    """A short last batch is kept, filled from the head, or dropped."""
    indices = np.arange(10)
    found = [batch(indices, one, 4, last).tolist() for one in range(steps(10, 4, last))]
    assert found == wanted


def test_fewer_images_than_a_batch_fill_it() -> None:
    """MXNet's rule holds for a data set smaller than a batch, too."""
    assert batch(np.arange(3), 0, 8, "fill").tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("world", [1, 2, 3, 5, 16])
def test_processes_share_a_batch_without_gap_or_overlap(world: int) -> None:
    """Together the processes have exactly the batch, whatever their number."""
    chosen = np.arange(13) * 7
    parts = [share(chosen, rank, world) for rank in range(world)]
    assert np.concatenate(parts).tolist() == chosen.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
