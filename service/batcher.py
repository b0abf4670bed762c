"""Images that wait together are run together, and no more may wait than was allowed."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from models.errors import LegacyModelError


class Overloaded(LegacyModelError):
    """The queue is full, or the service is stopping."""


class Answer(NamedTuple):
    """What became of one row."""

    probabilities: np.ndarray  # (K,)
    queue_ms: float
    inference_ms: float


@dataclass(frozen=True)
class _Job:
    row: np.ndarray  # (3, H, W)
    answer: asyncio.Future[Answer]
    submitted: float  # time.perf_counter()


class Batcher:
    """A bounded queue and one worker, which takes whatever waits, up to `max_batch` rows.

    There is no timer: a row that comes alone is run at once, and while it runs the next batch
    gathers by itself. Use it as `async with Batcher(...) as batcher`.
    """

    def __init__(
        self, predict: Callable[[np.ndarray], np.ndarray], *, max_batch: int, queue: int
    ) -> None:
        """Prepare; nothing runs before `async with`.

        Args:
            predict: N x 3 x H x W to N x K; called in a thread, one call at a time.
            max_batch: The largest N.
            queue: How many rows may wait besides those that are running.
        """
        self._predict = predict
        self._max_batch = max_batch
        self._waiting: asyncio.Queue[_Job] = asyncio.Queue(maxsize=queue)
        self._stopping = False
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Answer every row that was accepted, refuse new ones, and end the worker."""
        assert self._worker is not None
        self._stopping = True
        await self._waiting.join()
        self._worker.cancel()
        await asyncio.wait([self._worker])

    async def submit(self, row: np.ndarray) -> Answer:
        """Return the probabilities of one row, 3 x H x W, once its batch has run.

        Raises:
            Overloaded: As many rows wait as may, or the service is stopping.
        """
        if self._stopping:
            raise Overloaded("the service is stopping: send the image again in a moment")
        job = _Job(row, asyncio.get_running_loop().create_future(), time.perf_counter())
        try:
            self._waiting.put_nowait(job)
        except asyncio.QueueFull:
            raise Overloaded(
                f"the queue is full ({self._waiting.maxsize} images): "
                "send the image again in a moment"
            ) from None
        return await job.answer

    async def _work(self) -> None:
        while True:
            jobs = [await self._waiting.get()]
            while len(jobs) < self._max_batch and not self._waiting.empty():
                jobs.append(self._waiting.get_nowait())
            await self._answer([job for job in jobs if not job.answer.cancelled()])
            for _ in jobs:
                self._waiting.task_done()

    async def _answer(self, jobs: list[_Job]) -> None:
        """Run one batch. What goes wrong is the answer to its own rows, and the worker lives on."""
        if not jobs:  # everybody who asked has gone
            return
        start = time.perf_counter()
        try:
            batch = np.stack([job.row for job in jobs])
            rows = await asyncio.to_thread(self._predict, batch)
            answered = list(zip(jobs, rows, strict=True))
        except Exception as error:
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        inference_ms = (time.perf_counter() - start) * 1000
        for job, row in answered:
            if not job.answer.done():
                queue_ms = (start - job.submitted) * 1000
                job.answer.set_result(Answer(row, queue_ms, inference_ms))
