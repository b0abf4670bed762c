"""Parts on Ray: as many workers as there are, each with the network opened once.

Ray Data gives a part to a worker, and to another one when that one is gone. A part whose tables are
there is not done again, so each image is in them once, whoever died when.
"""

import logging
import os
import pickle
import re
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from models.errors import DeviceError, LegacyModelError
from relume.bulk.packages import optional
from relume.bulk.progress import Progress
from relume.bulk.worker import Engine, Job, Numbered, Worker

STARTS = 3  # of workers that die one after the other while they open the network; Ray's own is 0
KNOCK_S = 5.0  # until a cluster's head has taken a connection
_HOST_PORT = re.compile(r"[^/]+:[0-9]{1,5}")

Row = dict[str, Any]


def engine(workers: int | None, address: str | None) -> Engine:
    """Return what does parts on a Ray cluster: that at the address, or one of this machine."""

    def run(job: Job, parts: Numbered, progress: Progress) -> None:
        if not parts:
            return
        with _cluster(address) as ray:
            for row in _outcomes(ray, replace(job, threads=job.threads or 1), parts, workers):
                if row["error"]:
                    raise pickle.loads(row["error"])  # a worker of this run wrote it, just now
                progress.add(int(row["images"]), int(row["broken"]))
                progress.finish_part()

    return run


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Be connected to Ray, which writes nothing on stdout and tells nobody that it is used.

    Raises:
        DeviceError: Ray is not installed, the address is none, or there is no cluster at it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its C++ half says that workers cannot be started again, which they can; what matters,
    # it raises.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    optional("ray.data", "ray")
    ray = optional("ray", "ray")
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    if where not in ("auto", "local") and not _HOST_PORT.fullmatch(where):
        raise DeviceError(
            f"{where}: expected HOST:PORT of a Ray cluster's head, such as head:6379, or auto for "
            "the one of this machine; Ray's client, ray://, cannot do it: start it in the cluster"
        )
    try:
        _knock(where)
        with _own_signals(), _silence():
            ray.init(
                where,
                include_dashboard=False if where == "local" else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:  # which is what Ray raises where a machine is too slow for it
        reason = " ".join(str(error).split())
        raise DeviceError(f"{where}: no Ray cluster can be had ({reason})") from error
    try:
        yield ray
    except ray.exceptions.RayTaskError:
        raise  # a fault of ours, whose traceback tells where
    except ray.exceptions.RayError as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(
            f"{where}: the Ray cluster failed ({reason}); what is finished is kept, so run it again"
        ) from error
    finally:
        ray.shutdown()


def _knock(where: str) -> None:
    """Raise OSError where nobody answers, for which Ray itself takes minutes."""
    host, _, port = where.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), KNOCK_S).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what SIGTERM does: Ray puts its own in place, which ends with another status."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, ended = signal.getsignal(signal.SIGTERM), False
    try:
        yield
    except SystemExit:
        ended = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if ended:
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep off stderr what Ray's C++ half says while it starts; what matters, it raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _outcomes(ray: Any, job: Job, parts: Numbered, workers: int | None) -> Generator[Row]:
    """Yield what became of each part, as they come."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = STARTS
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    has = ray.cluster_resources()
    gpus = int(job.device == "cuda" or (job.device == "auto" and has.get("GPU", 0) >= 1))
    room = int(has.get("GPU", 0)) if gpus else int(has.get("CPU", 1)) // (job.threads or 1)
    rows = [{"number": number, "part": pickle.dumps(part)} for number, part in parts]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _RayWorker,
        fn_constructor_args=(replace(job, model=job.model.resolve()), os.getcwd()),
        concurrency=min(workers or max(room, 1), len(rows)),
        num_cpus=job.threads,
        num_gpus=gpus,
    )
    # Not iter_rows(), whose threads outlive it, and end the process where they find no cluster.
    for bundle in done.iter_internal_ref_bundles():
        for block in ray.get(bundle.block_refs):
            yield from block.to_pylist()


class _RayWorker:
    """A worker in a process of Ray's; what it raises for the user is handed back with the part."""

    def __init__(self, job: Job, folder: str) -> None:
        """Open the network; a failure is told with the first part, or Ray would try for ever."""
        self._error = b""
        try:
            os.chdir(folder)  # what relative names count from
            self._worker = Worker(job)
        except (LegacyModelError, OSError) as error:
            self._error = pickle.dumps(error)

    def __call__(self, row: Row) -> Row:
        """Do a part."""
        done = {"number": row["number"], "images": 0, "broken": 0, "error": self._error}
        if self._error:
            return done
        try:
            outcome = self._worker.do(row["number"], pickle.loads(row["part"]), _unseen)
        except (LegacyModelError, OSError) as error:
            return done | {"error": pickle.dumps(error)}
        return done | {"images": outcome.images, "broken": outcome.broken}


def _unseen(_: object) -> None:
    """Leave a result to its table: progress comes by parts."""
