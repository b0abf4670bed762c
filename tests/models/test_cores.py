"""The cores that a container leaves are counted, not those of the machine."""

import os
from pathlib import Path

import pytest

from models.cores import usable_cores

MANY = len(os.sched_getaffinity(0))


def cgroup(root: Path, files: dict[str, str], own: str = "") -> tuple[Path, Path]:
    """Return a made tree of control groups and the file that names this process's."""
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "own").write_text(own)
    return root / "cgroup", root / "own"


@pytest.mark.parametrize(
    ("files", "own", "limit"),
    [
        pytest.param({}, "", None, id="none"),
        pytest.param({"cpu.max": "max 100000\n"}, "0::/\n", None, id="version 2, no limit"),
        pytest.param({"cpu.max": "100000 100000\n"}, "0::/\n", 1, id="version 2"),
        pytest.param({"cpu.max": "20000 100000\n"}, "0::/\n", 1, id="a fifth"),
        pytest.param({"cpu.max": "150000 100000\n"}, "0::/\n", 2, id="one and a half"),
        pytest.param(
            {"pod/cpu.max": "100000 100000\n", "pod/app/cpu.max": "max 100000\n"},
            "0::/pod/app\n",
            1,
            id="the group above",
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            "3:cpu:/\n",
            1,
            id="version 1",
        ),
        pytest.param(
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            "3:cpu:/\n",
            None,
            id="version 1, no limit",
        ),
        pytest.param({"cpu.max": "nonsense"}, "2:memory:/x\n", None, id="not understood"),
    ],
)
def test_the_smallest_limit_counts(
    tmp_path: Path, files: dict[str, str], own: str, limit: int | None
) -> None:
    """Of every group up to the root, rounded up, and never more than the scheduler gives."""
    expected = MANY if limit is None else min(limit, MANY)
    assert usable_cores(*cgroup(tmp_path, files, own)) == expected


def test_without_control_groups_the_scheduler_says(tmp_path: Path) -> None:
    """Not every system has them."""
    assert usable_cores(tmp_path / "none", tmp_path / "none") == MANY
