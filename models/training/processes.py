"""The processes of a run: one alone, or several that torchrun started, also started again."""

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from models.errors import DeviceError

RESTARTS = 3
TIMEOUT = timedelta(minutes=10)  # for the slowest part of a step that others wait for
NAME, BEGUN = "name", "begun"  # keys in the launcher's store


class Processes(NamedTuple):
    """Where this process stands among those of the run.

    Attributes:
        rank: From 0; that one writes files and speaks.
        world: How many there are.
        device: What this one computes on.
        launcher: The launcher's store, which outlives this process; None where there is none.
    """

    rank: int
    world: int
    device: torch.device
    launcher: Store | None = None

    @property
    def leads(self) -> bool:
        """Whether this one writes and speaks for all."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of what every process has; the tensor itself is left alone."""
        if self.world == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def largest(self, *numbers: int) -> list[int]:
        """Return the largest of every process's numbers, one by one."""
        if self.world == 1:
            return list(numbers)
        found = torch.tensor(numbers)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return [int(one) for one in found]

    def gather(self, value: Any) -> list[Any]:
        """Return what every process has, by rank, where this one leads."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.gather_object(value, found if self.leads else None)
        return found

    def share(self, value: Any) -> list[Any]:
        """Return what every process has, by rank, to each of them."""
        found: list[Any] = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            dist.barrier()

    def begun(self) -> bool:
        """Tell whether the launcher's processes had begun the run before these came."""
        if self.launcher is None:
            return restarts() > 0
        return bool(self.launcher.check([BEGUN]))

    def note_begun(self) -> None:
        """Let those that are started after these know that the run has begun."""
        if self.launcher is not None and self.leads:
            self.launcher.set(BEGUN, "")


def join(device: str) -> Processes:
    """Return this process's place; under torchrun it meets the others first.

    Raises:
        DeviceError: The device is not there, or the first process is not.
    """
    number, world = rank(), int(os.environ.get("WORLD_SIZE", 1))
    found = _device(device, int(os.environ.get("LOCAL_RANK", 0)))
    lent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = _store(number, world, lent=lent) if lent or world > 1 else None
    if store is not None and world > 1:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if found.type == "cuda" else "gloo",
            store=PrefixStore(meet(store, number, world), store),
            rank=number,
            world_size=world,
            timeout=TIMEOUT,
        )
    return Processes(number, world, found, store if lent else None)


def meet(store: Store, number: int, world: int) -> str:
    """Return a name for the group of these very processes, under which a store is empty.

    A launcher's store holds what dead processes left, and launchers count restarts each for
    itself, so that no number is the same everywhere and new. The first process draws the name and
    puts it up. Each other one enters a draw of its own under the name that it sees, anew where
    another appears, until that draw is answered: by the first process alone, which answers once,
    when all have entered. The dead answer no draw that is not in their list.

    Raises:
        DeviceError: The first process does not answer.
    """
    own = uuid.uuid4().hex
    if number == 0:
        store.set(NAME, own)
        entries = [f"{own}/{other}" for other in range(1, world)]
        store.wait(entries)
        for entry in entries:
            store.set(store.get(entry).decode(), own)
        return own
    name, end = "", time.monotonic() + TIMEOUT.total_seconds()
    while not store.check([own]):
        if time.monotonic() > end:
            raise DeviceError(f"process {number} of {world} waits in vain for the first one")
        seen = store.get(NAME).decode() if store.check([NAME]) else ""
        if seen != name:
            name = seen
            store.set(f"{name}/{number}", own)
        time.sleep(0.02)
    return store.get(own).decode()


def restarts() -> int:
    """Return how often torchrun has started this worker again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def _store(number: int, world: int, *, lent: bool) -> Store:
    """Return the launcher's store, or one that the first process keeps."""
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world,
        is_master=number == 0 and not lent,
        timeout=TIMEOUT,
    )


def leave() -> None:
    """Part from the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _device(name: str, local: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        count = torch.cuda.device_count()
        if local >= count:
            raise DeviceError(f"--device cuda: process {local} finds {count} GPUs on this machine")
        torch.cuda.set_device(local)
        return torch.device("cuda", local)
    return torch.device(name)


def start_many(count: int, arguments: Sequence[str], resumes: Callable[[], bool]) -> int:
    """Run so many processes of the same command on this machine; return their exit status.

    Where one is killed all are started again, and go on from the last snapshot if `resumes` says
    that the run has one. An error of ours is said once and ends them.
    """
    logging.disable(logging.ERROR)  # the launcher's own words; the workers have said why
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // count, 1)))
    for left in reversed(range(RESTARTS + 1)):
        plan = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=str(os.getpid()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.2,
        )
        more = ["--resume"] if left < RESTARTS and resumes() else []
        try:
            elastic_launch(plan, sys.executable)("-m", "models.train", *arguments, *more)
        except ChildFailedError as error:
            found = [failure.exitcode for failure in error.failures.values()]
            codes = [128 - code if code < 0 else code for code in found]  # as a shell has them
            asked = 128 + signal.SIGTERM  # by the launcher, because another one ended
            killed = [code for code in codes if code > 128 and code != asked]
            if not killed or not left:
                return 1 if 1 in codes else max(codes)
            print(f"a process was killed; all start again, {left} times at most", file=sys.stderr)
        except SignalException as error:
            return 128 + int(error.sigval)
        else:
            return 0
    raise AssertionError("the last round returns")


def parted(error: RuntimeError) -> bool:
    """Tell whether an error is that another process is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def launched() -> bool:
    """Tell whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return this process's number, also before it has joined."""
    return int(os.environ.get("RANK", 0))
