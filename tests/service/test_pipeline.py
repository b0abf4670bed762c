"""Images go through together, each to its own answer, and only so many may be inside."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import pytest

from models.errors import ImageError
from service.pipeline import Observer, Overloaded, Pipeline, Prepared, Stages
from tests.service.conftest import holds

pytestmark = pytest.mark.anyio


class Gate:
    """A network that doubles each row's sum, and waits where it is told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.running = threading.Semaphore(0)
        self.runs: list[tuple[int, bool]] = []  # rows, and whether they ran alone
        self.prepared: list[bytes] = []

    def prepare(self, image: bytes, orientation: bool) -> Prepared:
        """Make a row of the text of a number; `bad` is no image."""
        self.prepared.append(image)
        if image == b"bad":
            raise ImageError("no image")
        return Prepared(np.full((3, 1, 1), float(image), np.float32), (1, 1), 1.0, 2.0)

    def run(self, batch: np.ndarray, alone: bool) -> np.ndarray:
        """Note the batch, wait for the gate, fail on NaN."""
        self.runs.append((len(batch), alone))
        self.running.release()
        assert self.open.wait(timeout=10)
        if np.isnan(batch).any():
            raise ArithmeticError("found NaN")
        doubled: np.ndarray = batch.sum(axis=(1, 2, 3))[:, None] * 2
        return doubled

    async def has_started(self) -> None:
        """Wait until one more run has begun."""
        assert await asyncio.to_thread(self.running.acquire, timeout=10)


@asynccontextmanager
async def pipeline(
    gate: Gate,
    *,
    lanes: int = 1,
    max_batch: int = 4,
    queue: int = 16,
    observer: Observer | None = None,
) -> AsyncIterator[Pipeline]:
    """Yield a pipeline through the gate; it is closed at the end."""
    with ThreadPoolExecutor(4) as decoders:
        stages = Stages(gate.prepare, gate.run, lanes, max_batch)
        opened = Pipeline(stages, queue=queue, decoders=decoders, observer=observer or Observer())
        yield opened
        gate.open.set()
        await opened.close()


async def ask(through: Pipeline, value: float | str) -> float:
    """Return the one number that is answered for an image."""
    with through.reserve(1):
        answer = await through.image(str(value).encode(), orientation=True)
    return float(answer.output[0])


async def row(through: Pipeline, value: float) -> float:
    """Return the one number that is answered for a row."""
    with through.reserve(1):
        return float((await through.row(np.full((3, 1, 1), value, np.float32))).output[0])


async def waiting(through: Pipeline, values: list[float]) -> list[asyncio.Task[float]]:
    """Submit rows and return once they wait."""
    tasks = [asyncio.create_task(row(through, value)) for value in values]
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_image_is_run_at_once() -> None:
    """Nobody waits for a batch to fill up, and the times of each stage are told."""
    gate = Gate()
    async with pipeline(gate) as through:
        with through.reserve(1):
            answer = await through.image(b"1", orientation=True)
    assert answer.output.tolist() == [6]
    assert (answer.prepared.decode_ms, answer.prepared.preprocess_ms) == (1.0, 2.0)
    assert answer.queue_ms >= 0
    assert answer.inference_ms > 0


async def test_what_waits_is_run_together_up_to_the_limit() -> None:
    """Rows that gathered during a batch form the next ones, and everybody gets its own answer."""
    gate = Gate()
    async with pipeline(gate) as through:
        gate.open.clear()
        first = await waiting(through, [0])
        await gate.has_started()
        tasks = await waiting(through, [1, 2, 3, 4])
        gate.open.set()
        assert await asyncio.gather(*first, *tasks) == [0, 6, 12, 18, 24]
    assert gate.runs == [(1, False), (4, False)]


async def test_a_lone_image_has_all_cores_and_many_have_one_each() -> None:
    """One is run alone; what comes meanwhile waits, and then each lane takes its share."""
    gate = Gate()
    async with pipeline(gate, lanes=2, max_batch=8) as through:
        assert await row(through, 1) == 6
        assert gate.runs == [(1, True)]
        await gate.has_started()
        gate.open.clear()
        first = await waiting(through, [0])
        await gate.has_started()
        tasks = await waiting(through, [1, 2, 3, 4, 5])
        assert gate.runs[1:] == [(1, True)]
        gate.open.set()
        assert await asyncio.gather(*first, *tasks) == [0, 6, 12, 18, 24, 30]
    assert gate.runs[2:] == [(3, False), (2, False)]


async def test_few_images_on_many_cores_run_together_on_all() -> None:
    """As long as there are fewer than lanes, all cores on one batch answer sooner."""
    gate = Gate()
    async with pipeline(gate, lanes=4) as through:
        gate.open.clear()
        first = await waiting(through, [0])
        await gate.has_started()
        tasks = await waiting(through, [1, 2])
        gate.open.set()
        await asyncio.gather(*first, *tasks)
    assert gate.runs == [(1, True), (2, True)]


async def test_a_full_queue_refuses() -> None:
    """One image more than may wait is refused at once; those that wait are answered."""
    gate = Gate()
    async with pipeline(gate, max_batch=1, queue=2) as through:
        gate.open.clear()
        first = await waiting(through, [0])
        await gate.has_started()
        tasks = await waiting(through, [1, 2, 3])  # one of them is what the lane takes next
        with pytest.raises(Overloaded, match=r"the queue is full \(2 images\): send"):
            through.reserve(1)
        gate.open.set()
        assert await asyncio.gather(*first, *tasks) == [0, 6, 12, 18]
        assert await row(through, 4) == 24


async def test_a_request_of_many_is_let_in_whole_or_not_at_all() -> None:
    """Nobody gets half of a request answered because the queue was full in its middle."""
    async with pipeline(Gate(), max_batch=1, queue=2) as through:
        with pytest.raises(Overloaded, match="the queue is full"):
            through.reserve(4)
        with through.reserve(3):
            assert through.waiting == 3
        assert through.waiting == 0


async def test_a_bad_image_harms_nobody() -> None:
    """It never reaches a batch; those beside it are answered."""
    gate = Gate()
    async with pipeline(gate) as through:
        found = await asyncio.gather(
            *(ask(through, value) for value in (1, "bad", 2)), return_exceptions=True
        )
    assert [str(one) for one in found] == ["6.0", "no image", "12.0"]
    assert sum(rows for rows, _ in gate.runs) == 2


async def test_a_failed_batch_fails_only_its_own_rows() -> None:
    """The error reaches those whose batch it was, and the lane goes on."""
    gate = Gate()
    async with pipeline(gate, max_batch=2) as through:
        gate.open.clear()
        first = await waiting(through, [0])
        await gate.has_started()
        tasks = await waiting(through, [1, np.nan])
        gate.open.set()
        found = await asyncio.gather(*first, *tasks, return_exceptions=True)
        assert [str(one) for one in found] == ["0.0", "found NaN", "found NaN"]
        assert await row(through, 2) == 12


async def test_a_wrong_number_of_answers_fails_the_batch() -> None:
    """A network that gives fewer rows than it took answers nobody, and nobody waits forever."""
    gate = Gate()
    gate.run = lambda batch, alone: batch[1:]  # type: ignore[method-assign]
    async with pipeline(gate) as through:
        with pytest.raises(ValueError, match="argument 2 is shorter"):
            await row(through, 1)


async def test_images_whose_asker_has_gone_are_not_run() -> None:
    """A request that was cancelled while it waited costs no inference."""
    gate = Gate()
    async with pipeline(gate, max_batch=1) as through:
        gate.open.clear()
        first = await waiting(through, [0])
        await gate.has_started()
        gone, stays = await waiting(through, [1, 2])
        gone.cancel()
        await asyncio.wait([gone])
        gate.open.set()
        assert [await first[0], await stays] == [0, 12]
    assert len(gate.runs) == 2


async def test_a_full_batch_lies_ready_and_those_who_go_meanwhile_are_not_run() -> None:
    """The lane takes it as it ends, before the event loop has its turn; it counts as waiting."""
    gate = Gate()
    async with pipeline(gate, max_batch=2) as through:
        gate.open.clear()
        first = await waiting(through, [0])
        await gate.has_started()
        stays, gone, alone = await waiting(through, [1, 2, 3])
        assert through.waiting == 3
        gone.cancel()
        await asyncio.wait([gone])
        gate.open.set()
        assert holds(lambda: len(gate.runs) == 2)  # the event loop has no turn
        assert gate.runs == [(1, False), (1, False)]
        assert [await first[0], await stays, await alone] == [0, 6, 18]
    assert gate.runs == [(1, False)] * 3


async def test_images_whose_asker_has_gone_are_not_decoded() -> None:
    """While the lanes are busy no more is decoded than they can take next."""
    gate = Gate()
    async with pipeline(gate, max_batch=1) as through:
        gate.open.clear()
        tasks = [asyncio.create_task(ask(through, value)) for value in range(6)]
        await gate.has_started()
        assert await asyncio.to_thread(holds, lambda: len(gate.prepared) == 2)
        await asyncio.sleep(0.05)  # and no more
        assert len(gate.prepared) == 2
        for task in tasks[2:]:
            task.cancel()
        await asyncio.wait(tasks[2:])
        gate.open.set()
        assert await asyncio.gather(*tasks[:2]) == [0, 6]
    assert len(gate.prepared) == 2


async def test_one_lane_runs_whole_batches_one_after_the_other() -> None:
    """While a batch runs the next one is made ready, so that none is of a single row."""
    gate = Gate()
    async with pipeline(gate, max_batch=4) as through:
        turns = threading.Semaphore(0)
        gate.open.wait = lambda timeout=None: turns.acquire(timeout=timeout)  # type: ignore[method-assign]
        tasks = [asyncio.create_task(ask(through, value)) for value in range(13)]
        for ready in (5, 9, 13, 13):
            await gate.has_started()
            assert await asyncio.to_thread(holds, lambda: len(gate.prepared) >= ready)  # noqa: B023
            await asyncio.sleep(0.05)  # what is ready waits
            turns.release()
        turns.release(13)  # were they smaller
        await asyncio.gather(*tasks)
    assert [rows for rows, _ in gate.runs] == [1, 4, 4, 4]


async def test_an_asker_may_go_while_its_batch_runs() -> None:
    """A request that was cancelled during its batch harms nobody in it."""
    gate = Gate()
    async with pipeline(gate, max_batch=2) as through:
        gate.open.clear()
        (first,) = await waiting(through, [0])
        await gate.has_started()
        first.cancel()
        await asyncio.wait([first])
        assert through.waiting == 0  # and more would be let in, were it fewer
        (stays,) = await waiting(through, [2])
        gate.open.set()
        assert await stays == 12


async def test_stopping_answers_what_was_accepted_and_refuses_the_rest() -> None:
    """Whoever was let in is answered; whoever comes during the stop is told to come back."""
    gate = Gate()
    async with pipeline(gate, max_batch=1) as through:
        gate.open.clear()
        first = await waiting(through, [0])
        await gate.has_started()
        (accepted,) = await waiting(through, [1])
        closing = asyncio.create_task(through.close())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="the service is stopping"):
            through.reserve(1)
        gate.open.set()
        await closing
        assert [first[0].result(), accepted.result()] == [0, 6]


async def test_batches_are_told_of() -> None:
    """Who observes learns the size and the time of each batch that ran."""
    told: list[tuple[int, float]] = []

    class Listener(Observer):
        def batch_ran(self, rows: int, seconds: float) -> None:
            told.append((rows, seconds))

    async with pipeline(Gate(), observer=Listener()) as through:
        await row(through, 1)
    ((rows, seconds),) = told
    assert rows == 1
    assert seconds > 0
