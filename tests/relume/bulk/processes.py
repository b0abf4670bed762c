"""`relume classify -o` in processes of its own, and the processes that they start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from relume.bulk.results import BROKEN, PREDICTIONS
from tests.oracles import ROOT

PATIENCE_S = 240.0  # a cluster takes 10 to 20 seconds to start where nothing else runs


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start `relume classify`; leave none of its processes behind."""
    command = [sys.executable, "-m", "relume", "classify", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    family = {process.pid}
    try:
        yield process
        family |= descendants(process.pid).keys()
    finally:
        family |= descendants(process.pid).keys()
        for pid in family:
            end(pid)
        process.communicate()


def end(pid: int) -> None:
    """Kill a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def descendants(root: int) -> dict[int, str]:
    """Return the processes that a process started, and those that these did, with their names."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(status[1])
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                names[int(folder.name)] = command.decode(errors="replace")
    found, waiting = {}, [root]
    while waiting:
        parent = waiting.pop()
        for pid in [one for one in parents if parents[one] == parent]:
            found[pid] = names.get(pid, "")
            waiting.append(pid)
    return found


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended; whose parent is slow to hear of it has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def gone(pids: Iterable[int], seconds: float) -> bool:
    """Whether processes end within so many seconds."""
    end = time.monotonic() + seconds
    waiting = list(pids)
    while waiting := [pid for pid in waiting if runs(pid)]:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Return when the condition holds; fail where the process ends before, or nothing moves."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing moves"
        time.sleep(0.02)


def done(out: Path) -> int:
    """Return how many parts are finished: of which both tables are there, as runs count them."""
    tables = [{path.name for path in (out / of).glob("part-*")} for of in (PREDICTIONS, BROKEN)]
    return len(set.intersection(*tables))


def contents(out: Path) -> dict[str, bytes]:
    """Return every file of a folder of results; what begins with a dot is of who was killed."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}
