"""Several processes behind one port: for machines where one event loop is not enough.

Each process has its own engine on its share of the cores. One that dies is replaced.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.synchronize import Semaphore

from prometheus_client.multiprocess import mark_process_dead

from models.cores import usable_cores
from models.errors import ArtifactError
from models.terminal import reports_errors
from service.settings import Settings, artifacts

LOG = logging.getLogger("relume")
RESTART_S = 1.0  # so that a worker that dies at once does not keep a core busy with starting
LOOK_S = 0.2
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client adds up the processes


def serve_by_workers(
    settings: Settings,
    listen: Callable[[str, int], socket.socket],
    say: Callable[[list[str], socket.socket], None],
) -> int:
    """Serve by several processes until a signal.

    Raises:
        ArtifactError: The first processes could not start; each has said why.
    """
    names = [path.stem for path in artifacts(settings.source)]
    share = settings.threads or max(1, usable_cores() // settings.workers)
    context = multiprocessing.get_context("spawn")
    with (
        listen(settings.host, settings.port) as opened,
        tempfile.TemporaryDirectory(prefix="relume-metrics-") as folder,
    ):
        os.environ[METRICS_FOLDER] = folder
        ready = context.Semaphore(0)
        start = partial(_start, context, replace(settings, threads=share), opened, ready)
        workers = [start() for _ in range(settings.workers)]
        try:
            _await_ready(workers, ready)
            say([f"models: {', '.join(names)}", f"workers: {len(workers)}"], opened)
            _keep(workers, start)
        finally:
            opened.close()  # else the system would take connections that nobody answers
            _end(workers, settings.drain_s)
    return 0


def _start(
    context: SpawnContext, settings: Settings, opened: socket.socket, ready: Semaphore
) -> SpawnProcess:
    process = context.Process(target=_work, args=(settings, opened, ready), daemon=False)
    process.start()
    return process


def _work(settings: Settings, opened: socket.socket, ready: Semaphore) -> None:
    """Serve as one of several; what is wrong is one line, as everywhere."""
    from service import server  # it imports this module
    from service.observation import log_to_stderr

    @reports_errors
    def run() -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server._stop)
        log_to_stderr(settings.log_format)
        try:
            asyncio.run(server.serve(settings, lambda: opened, lambda *_: ready.release()))
        except KeyboardInterrupt:
            return 0
        return 0

    raise SystemExit(run())


def _await_ready(workers: list[SpawnProcess], ready: Semaphore) -> None:
    for _ in workers:
        while not ready.acquire(timeout=LOOK_S):
            if any(worker.exitcode is not None for worker in workers):
                raise ArtifactError("a worker could not start: see the line above")


def _keep(workers: list[SpawnProcess], start: Callable[[], SpawnProcess]) -> None:
    """Replace what dies, until a signal."""
    while True:
        time.sleep(LOOK_S)
        for at, worker in enumerate(workers):
            if worker.exitcode is not None:
                LOG.error("worker %s ended with %s: starting another", worker.pid, worker.exitcode)
                # What waited in it does so no more.
                mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
                time.sleep(RESTART_S)
                workers[at] = start()


def _end(workers: list[SpawnProcess], drain_s: float) -> None:
    """Tell all to end, and wait until they have answered whom they let in."""
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    for worker in workers:
        worker.join(drain_s + 5)  # a batch that is running is waited for, too
        if worker.is_alive():
            worker.kill()
