"""How many cores this process may really use."""

import os
from math import ceil
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores(root: Path = _ROOT, own: Path = _OWN) -> int:
    """Return the cores that the scheduler and the container's limit leave this process.

    A limit of one and a half cores gives 2: with one thread the half would lie idle.

    Args:
        root: Where control groups are mounted.
        own: The file that names this process's groups.

    Source: the Linux kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max) and
    scheduler/sched-bwc.rst (cpu.cfs_quota_us of version 1).
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        allowed = os.cpu_count() or 1
    limits = [limit for folder in _groups(root, own) if (limit := _limit(folder)) is not None]
    return max(1, min([allowed, *map(ceil, limits)]))


def _groups(root: Path, own: Path) -> list[Path]:
    """Return the folders of the groups that this process is in, with all above them.

    Within a container its own group is mounted at the root; outside the path leads there.
    """
    found = [root, root / "cpu", root / "cpu,cpuacct"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        parts = [part for part in path.split("/") if part not in ("", "..")]
        found += [base.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return found


def _limit(folder: Path) -> float | None:
    """Return the limit in cores that a group has, None without one."""
    try:
        if (new := folder / "cpu.max").is_file():
            quota, period = new.read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or `max`
        return None
