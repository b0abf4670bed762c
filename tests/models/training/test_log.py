"""What a run writes down is whole lines, and never what ends it."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.training.log import LINES, TABLE, Epoch, Log, read_epochs


def row(epoch: int) -> Epoch:
    return Epoch(epoch, 10 * epoch, 0.1, 1e-4, 2.0, 60, 50, 55, 40, 100, 0.1, 5)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 30, 200], ids=["no line", "part of one", "part of another"])
def test_a_full_disk_costs_lines_alone(
    room: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once; what is written is whole, and goes on when there is room again."""
    log = Log(tmp_path, leads=True, tensorboard=False)
    with full_disk(room):
        for number in (1, 2, 3, 4):
            log.epoch(row(number))
    said = capsys.readouterr().err
    assert said.count("lines of the log are missing") == 1
    assert f"warning: {tmp_path / LINES}: File too large" in said
    log.epoch(row(5))
    kept = [one.epoch for one in read_epochs(tmp_path / TABLE)]
    assert kept[-1] == 5
    assert kept[:-1] == list(range(1, len(kept)))
    assert len(kept) < 5
    lines = [json.loads(line) for line in (tmp_path / LINES).read_text().splitlines()]
    assert lines[-1]["epoch"] == 5


def test_a_torn_line_is_skipped(tmp_path: Path) -> None:
    """Where a machine went down the line is lost, not the next one, nor the run's end."""
    log = Log(tmp_path, leads=True, tensorboard=False)
    for number in (1, 2):
        log.epoch(row(number))
    table = tmp_path / TABLE
    os.truncate(table, table.stat().st_size - 30)
    log.epoch(row(3))
    assert read_epochs(table, torn="skip") == [row(1), row(3)]
    with pytest.raises((TypeError, ValueError), match="float"):
        read_epochs(table)
