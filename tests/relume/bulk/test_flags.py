"""Tests of relume/bulk/flags.py and progress.py: what goes together, and what is said meanwhile."""

import re
import sys
from pathlib import Path

import pytest

from relume.bulk import progress
from relume.bulk.progress import Progress
from tests.bulk_runs import run
from tests.oracles import ROOT


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part", "5"], "--part needs -o"),
        (["--shard", "0/2"], "--shard needs -o"),
        (["--id-column", "id"], "--id-column needs -o"),
        (["--skip-unreachable"], "--skip-unreachable needs -o"),
        (["--engine", "ray"], "--engine needs -o"),
        (["--json"], "--json needs -o"),
        (["-o", "out", "--format", "csv"], "--format is what is printed; -o writes Parquet"),
        (["-o", "out", "--workers", "2"], "--workers and --address need --engine ray"),
        (["-o", "out", "--engine", "local", "--address", "auto"], "need --engine ray"),
        (["-o", "out", "--part", "0"], "'0' is not a whole number from 1"),
    ],
)
def test_flags_that_mean_nothing_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error, before anything is read."""
    with pytest.raises(SystemExit, match="2"):
        run("a.png", "--model", "m.onnx", *flags)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["links.PARQUET", "train.rec", "s3://bucket/a.tar.gz"])
def test_what_holds_many_images_needs_a_folder(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no picture, and what is printed has no place for so many."""
    with pytest.raises(SystemExit, match="2"):
        run("a.png", name, "--model", "m.onnx")
    said = capsys.readouterr().err
    assert f"{name}: what holds many images is classified with -o DIR" in said


def test_every_flag_is_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that nobody can read about is not there."""
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    flags = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    page = (ROOT / "docs" / "classifying.md").read_text(encoding="utf-8")
    assert [flag for flag in sorted(flags) if flag not in page] == []


@pytest.mark.parametrize("shard", ["2/2", "-1/2", "0/0", "1", "1/", "/2", "a/b", "0/1/2", ""])
def test_a_shard_is_one_of_several(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards count from 0."""
    with pytest.raises(SystemExit, match="2"):
        run("a.png", "--model", "m.onnx", "-o", "out", f"--shard={shard}")
    assert f"'{shard}' is not I/N with I from 0 to N - 1" in capsys.readouterr().err


def test_a_terminal_has_one_line(
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It moves with every image and is gone at the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "SHOWN_S", 0.0)
    run(folder, "--model", model, "-o", tmp_path / "out", "--part", 10)
    moves = capsys.readouterr().err.split("\r\033[K")
    assert "0 of 3 parts, 5 images, 1 broken, " in "".join(moves[4:6])
    assert any(move.startswith("2 of 3 parts, 20 images, ") for move in moves)
    assert moves[-1].startswith(f"{tmp_path / 'out'}: 3 of 3 parts, 23 images, 1 broken, ")


def test_a_log_has_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nobody watches, one line in half a minute."""
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    counted = Progress(parts=100, skipped=10)
    for now in range(1, 91):  # noqa: B007  the clock reads it
        counted.add(20, 1)
        counted.finish_part()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0] == "39 of 100 parts (10 before), 600 images, 30 broken, 20/s, 1 min left"
