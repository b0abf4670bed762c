"""From the bytes of images to what a network gives for them, many at once, none for nobody.

An image is decoded and preprocessed in a thread, waits, and is run together with others that wait.
There is no timer: a free lane takes what is there. While images come singly each is run at once on
all cores; once as many are inside as there are lanes, each lane runs on a core of its own, because
threads of one run wait for each other. A lane takes its share of what waits, up to `max_batch`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import ceil
from typing import NamedTuple

import numpy as np

from models.errors import LegacyModelError


class Overloaded(LegacyModelError):
    """The queue is full, or the model is going."""


class Prepared(NamedTuple):
    """One image as the network wants it, and what that took."""

    row: np.ndarray  # (3, H, W) float32
    size: tuple[int, int]  # of the image, height and width
    decode_ms: float
    preprocess_ms: float


class Answer(NamedTuple):
    """What became of one image."""

    output: np.ndarray  # (K,)
    prepared: Prepared
    queue_ms: float
    inference_ms: float  # of the whole batch that it was part of


@dataclass(eq=False)
class _Job:
    answer: asyncio.Future[Answer]
    prepared: Prepared
    waiting_since: float = field(default_factory=time.perf_counter)


_Rows = tuple[list[tuple[_Job, np.ndarray]], float, float]  # each job's, the start, the seconds


class Stages(NamedTuple):
    """What a pipeline does with images, each function in a thread.

    Attributes:
        prepare: An encoded image, and whether its orientation is applied, to a row.
        run: N x 3 x H x W to N x K; `alone` lends the run every core.
        lanes: How many runs may be under way at once.
        max_batch: The largest N.
    """

    prepare: Callable[[bytes, bool], Prepared]
    run: Callable[[np.ndarray, bool], np.ndarray]
    lanes: int
    max_batch: int


class Observer:
    """Is told what happens; by default nobody listens."""

    def batch_ran(self, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long."""

    def waits(self, images: int) -> None:
        """So many images are inside now and not being run."""

    def ended(self) -> None:
        """Everybody is answered, and nobody will be let in."""


class Pipeline:
    """The way through one network; at most `queue` images are in it besides those that run."""

    def __init__(
        self,
        stages: Stages,
        *,
        queue: int,
        decoders: ThreadPoolExecutor,
        observer: Observer,
    ) -> None:
        self._stages = stages
        self._queue = queue
        self._decoders = decoders
        self._observer = observer
        self._executor = ThreadPoolExecutor(stages.lanes, thread_name_prefix="lane")
        # Rows are large: besides those that run, no more are made than a whole batch, or a row for
        # each lane. Fewer would leave every other batch small, for a row keeps its place until it
        # is answered.
        ahead = max(stages.lanes, stages.max_batch)
        self._ahead = asyncio.Semaphore(stages.lanes * stages.max_batch + ahead)
        self._ready: deque[_Job] = deque()
        self._batches: dict[asyncio.Future[_Rows], list[_Job]] = {}  # in the order they run
        self._inside = 0  # images from their acceptance to their answer
        self._alone = False
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting(self) -> int:
        """How many images are inside and not being run."""
        running = islice(self._batches.values(), self._stages.lanes)
        # Whose asker has gone is not inside any more.
        return self._inside - sum(not job.answer.done() for jobs in running for job in jobs)

    def reserve(self, count: int) -> "Reservation":
        """Return the right to submit so many images; they are inside from now on.

        Raises:
            Overloaded: More would wait than may, or the model is going.
        """
        if self._closing:
            raise Overloaded("the service is stopping: send the image again in a moment")
        if self.waiting + count > self._queue + self._stages.max_batch:
            raise Overloaded(
                f"the queue is full ({self._queue} images): send the image again in a moment"
            )
        self._inside += count
        self._observer.waits(self.waiting)
        self._empty.clear()
        return Reservation(self, count)

    async def image(self, data: bytes, *, orientation: bool) -> Answer:
        """Return what the network gives for one encoded image, for which a place is reserved."""
        async with self._ahead:
            prepared = await asyncio.get_running_loop().run_in_executor(
                self._decoders, self._stages.prepare, data, orientation
            )
            job = self._enter(prepared)
            return await job.answer

    async def row(self, row: np.ndarray) -> Answer:
        """Return what the network gives for a row, 3 x H x W, for which a place is reserved."""
        async with self._ahead:
            return await self._enter(Prepared(row, row.shape[1:], 0.0, 0.0)).answer

    def leave(self, count: int) -> None:
        """Give places back; `Reservation` does."""
        self._inside -= count
        self._observer.waits(self.waiting)
        if self._inside == 0:
            self._empty.set()

    async def close(self) -> None:
        """Answer every image that was accepted, refuse new ones, and end the threads."""
        self._closing = True
        await self._empty.wait()
        if self._batches:
            await asyncio.wait(self._batches)
        self._executor.shutdown(wait=False)
        self._observer.ended()

    def _enter(self, prepared: Prepared) -> _Job:
        job = _Job(asyncio.get_running_loop().create_future(), prepared)
        self._ready.append(job)
        self._dispatch()
        return job

    def _dispatch(self) -> None:
        """Start what may start now."""
        lanes = self._stages.lanes
        while self._ready and self._ready[0].answer.cancelled():
            self._ready.popleft()
        while self._ready and not self._alone and self._may_start():
            free = max(lanes - len(self._batches), 1)
            self._alone = lanes > 1 and free == lanes and len(self._ready) < lanes
            share = len(self._ready) if self._alone else ceil(len(self._ready) / free)
            jobs = self._take(min(share, self._stages.max_batch))
            if not jobs:
                self._alone = False
                return
            loop = asyncio.get_running_loop()
            batch = loop.run_in_executor(self._executor, self._run, jobs, self._alone)
            self._batches[batch] = jobs
            batch.add_done_callback(partial(self._end, self._alone))
            self._observer.waits(self.waiting)

    def _may_start(self) -> bool:
        """Tell whether a lane is free, or a full batch can lie ready for the first that will be.

        A lane that ends would otherwise wait for its turn of the event loop.
        """
        full = len(self._ready) >= self._stages.max_batch
        return len(self._batches) < self._stages.lanes + full

    def _take(self, count: int) -> list[_Job]:
        """Return the next jobs, without those whose asker has gone."""
        jobs: list[_Job] = []
        while self._ready and len(jobs) < count:
            job = self._ready.popleft()
            if not job.answer.cancelled():
                jobs.append(job)
        return jobs

    def _run(self, jobs: list[_Job], alone: bool) -> _Rows:
        """Run one batch, in a lane's thread.

        Raises:
            ValueError: The network gave another number of rows than it took.
        """
        start = time.perf_counter()
        jobs = [job for job in jobs if not job.answer.cancelled()]  # some while it lay ready
        if not jobs:
            return [], start, 0.0
        rows = self._stages.run(np.stack([job.prepared.row for job in jobs]), alone)
        seconds = time.perf_counter() - start
        return list(zip(jobs, rows, strict=True)), start, seconds

    def _end(self, alone: bool, batch: asyncio.Future[_Rows]) -> None:
        """Keep the lane busy, then answer. What went wrong is the answer to its own rows only."""
        jobs = self._batches.pop(batch)
        if alone:
            self._alone = False
        self._dispatch()
        if error := batch.exception():
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        rows, start, seconds = batch.result()
        if rows:
            self._observer.batch_ran(len(rows), seconds)
        for job, row in rows:
            if not job.answer.done():
                queue_ms = (start - job.waiting_since) * 1000
                job.answer.set_result(Answer(row, job.prepared, queue_ms, seconds * 1000))


class Reservation:
    """Places in a pipeline; `with` gives them back."""

    def __init__(self, pipeline: Pipeline, count: int) -> None:
        self.pipeline = pipeline
        self._count = count

    def __enter__(self) -> Pipeline:
        return self.pipeline

    def __exit__(self, *_: object) -> None:
        self.pipeline.leave(self._count)
