"""Rows that wait together run together, and only so many may wait."""

import asyncio
import threading

import numpy as np
import pytest

from service.batcher import Batcher, Overloaded

pytestmark = pytest.mark.anyio


class Gate:
    """A `predict` that doubles each row's sum, and waits where it is told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.running = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Wait for the gate, note the batch's size, fail on NaN."""
        self.running.set()
        assert self.open.wait(timeout=10)
        self.sizes.append(len(batch))
        if np.isnan(batch).any():
            raise ArithmeticError("found NaN")
        doubled: np.ndarray = batch.sum(axis=(1, 2, 3))[:, None] * 2
        return doubled

    async def closed_on(self, batcher: Batcher) -> asyncio.Task[float]:
        """Close the gate behind one row: from now on rows wait."""
        self.open.clear()
        self.running.clear()
        task = asyncio.create_task(ask(batcher, 0))
        await asyncio.to_thread(self.running.wait, 10)
        return task


def row(value: float) -> np.ndarray:
    """Return a row of three values."""
    return np.full((3, 1, 1), value, np.float32)


async def ask(batcher: Batcher, value: float) -> float:
    """Return the one number that the batcher answers for a row of `value`."""
    return float((await batcher.submit(row(value))).probabilities[0])


async def waiting(batcher: Batcher, values: list[float]) -> list[asyncio.Task[float]]:
    """Submit all rows and return once they wait."""
    tasks = [asyncio.create_task(ask(batcher, value)) for value in values]
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_row_is_run_at_once() -> None:
    """Nobody waits for a batch to fill up; the times of the row are told."""
    predict = Gate()
    async with Batcher(predict, max_batch=8, queue=8) as batcher:
        answer = await batcher.submit(row(1))
    assert predict.sizes == [1]
    assert answer.probabilities.tolist() == [6]
    assert answer.queue_ms >= 0
    assert answer.inference_ms > 0


async def test_what_waits_is_run_together_up_to_the_limit() -> None:
    """Rows that gathered during a batch form the next ones, and everybody gets its own answer."""
    predict = Gate()
    async with Batcher(predict, max_batch=4, queue=8) as batcher:
        first = await predict.closed_on(batcher)
        tasks = await waiting(batcher, [1, 2, 3, 4, 5, 6])
        predict.open.set()
        assert await asyncio.gather(first, *tasks) == [0, 6, 12, 18, 24, 30, 36]
    assert predict.sizes == [1, 4, 2]


async def test_a_full_queue_refuses() -> None:
    """One row more than may wait is refused at once; those that wait are answered."""
    predict = Gate()
    async with Batcher(predict, max_batch=1, queue=2) as batcher:
        first = await predict.closed_on(batcher)
        tasks = await waiting(batcher, [1, 2])
        with pytest.raises(Overloaded, match=r"the queue is full \(2 images\): send"):
            await batcher.submit(row(3))
        predict.open.set()
        assert await asyncio.gather(first, *tasks) == [0, 6, 12]
        assert await ask(batcher, 4) == 24


async def test_a_failed_batch_fails_only_its_own_rows() -> None:
    """The error reaches those whose batch it was, and the worker goes on."""
    predict = Gate()
    async with Batcher(predict, max_batch=2, queue=8) as batcher:
        first = await predict.closed_on(batcher)
        bad = await waiting(batcher, [1, np.nan])
        good = await waiting(batcher, [2, 3])
        predict.open.set()
        results = await asyncio.gather(first, *bad, *good, return_exceptions=True)
    assert [str(result) for result in results] == ["0.0", "found NaN", "found NaN", "12.0", "18.0"]


async def test_a_wrong_number_of_answers_fails_the_batch() -> None:
    """A network that gives fewer rows than it took answers nobody, and nobody waits forever."""
    async with Batcher(lambda batch: batch[1:], max_batch=2, queue=2) as batcher:
        with pytest.raises(ValueError, match="argument 2 is shorter"):
            await batcher.submit(row(1))


async def test_rows_whose_asker_has_gone_are_not_run() -> None:
    """A request that was cancelled while it waited costs no inference."""
    predict = Gate()
    async with Batcher(predict, max_batch=1, queue=8) as batcher:
        first = await predict.closed_on(batcher)
        gone, stays = await waiting(batcher, [1, 2])
        gone.cancel()
        await asyncio.wait([gone])
        predict.open.set()
        assert [await first, await stays] == [0, 12]
    assert predict.sizes == [1, 1]


async def test_an_asker_may_go_while_its_batch_runs() -> None:
    """A request that was cancelled during its batch harms nobody in it."""
    predict = Gate()
    async with Batcher(predict, max_batch=2, queue=8) as batcher:
        first = await predict.closed_on(batcher)
        first.cancel()
        (stays,) = await waiting(batcher, [2])
        predict.open.set()
        assert await stays == 12


async def test_stopping_answers_what_was_accepted_and_refuses_the_rest() -> None:
    """Whoever was let in is answered; whoever comes during the stop is told to come back."""
    predict = Gate()
    batcher = Batcher(predict, max_batch=1, queue=8)
    async with batcher:
        first = await predict.closed_on(batcher)
        (accepted,) = await waiting(batcher, [1])
        asyncio.get_running_loop().call_later(0.05, predict.open.set)
    assert [first.result(), accepted.result()] == [0, 6]
    with pytest.raises(Overloaded, match="the service is stopping"):
        await batcher.submit(row(2))
