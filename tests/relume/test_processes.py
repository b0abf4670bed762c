"""Work in many processes gives its answers in order, once, or one error."""

import os
import signal
import time
from itertools import count, islice

import pytest

from models.errors import DataError, ImageError
from relume.processes import AHEAD, in_processes


def scaled(factor: int, item: int) -> int:
    """Return the product; the first items take longest."""
    time.sleep(0.02 if item < 3 else 0)
    return factor * item


def killed(_: None, item: int) -> int:
    """End the process as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def refused(_: None, item: int) -> int:
    raise ImageError(f"item {item}")


@pytest.mark.parametrize("workers", [1, 3])
def test_answers_come_in_order(workers: int) -> None:
    """More items than are under way at a time, whoever is first."""
    found = list(in_processes(scaled, 3, range(AHEAD + 50), workers))
    assert found == [3 * item for item in range(AHEAD + 50)]


def test_items_are_taken_as_they_are_needed() -> None:
    """A list without end is worked on from its beginning."""
    taken = []
    items = (taken.append(one) or one for one in count())  # type: ignore[func-returns-value]
    answers = in_processes(scaled, 2, items, 1)
    assert list(islice(answers, 5)) == [0, 2, 4, 6, 8]
    answers.close()
    assert len(taken) <= AHEAD + 6


def test_a_killed_worker_is_an_error() -> None:
    """When the system kills a process the work ends and says so, it does not wait for ever."""
    with pytest.raises(DataError, match="a worker process was killed: is there memory"):
        list(in_processes(killed, None, range(3), 1))


def test_an_error_of_the_work_comes_through() -> None:
    """What a worker raises is raised, in its turn."""
    with pytest.raises(ImageError, match="item 0"):
        list(in_processes(refused, None, range(3), 2))
