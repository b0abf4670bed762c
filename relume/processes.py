"""Work on many items in all processors, answers in order."""

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from models.errors import DataError

AHEAD = 256  # items that are under way at a time: results wait in memory

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_shared: Any = None  # in a worker process: what it was started with


def in_processes(
    work: Callable[[S, T], R], shared: S, items: Iterable[T], workers: int
) -> Generator[R, None, None]:
    """Yield what `work` makes of each item, in order.

    Args:
        work: A function of a module.
        shared: Its first argument, which each process gets once.
        items: Its second.
        workers: Processes.

    Raises:
        DataError: A process was killed, as the system does when memory runs out.
    """
    try:
        with ProcessPoolExecutor(workers, initializer=_take, initargs=(shared,)) as pool:
            yield from ahead(lambda item: pool.submit(_work, work, item), items, AHEAD)
    except BrokenProcessPool as error:
        raise DataError("a worker process was killed: is there memory for --workers?") from error


def ahead(submit: Callable[[T], Future[R]], items: Iterable[T], most: int) -> Iterator[R]:
    """Yield what becomes of each item, in order, with at most `most` ahead of the caller."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _take(shared: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to answer
    global _shared  # noqa: PLW0603  a process of its own
    _shared = shared


def _work(work: Callable[[Any, T], R], item: T) -> R:
    return work(_shared, item)
