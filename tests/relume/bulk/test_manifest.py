"""Tests of relume/bulk/manifest.py: nobody adds to a folder what does not belong there."""

import json
from pathlib import Path

import pytest

from relume.bulk import folder as folders
from tests.bulk_runs import found, images, run, write_folder
from tests.tiny_onnx import Tiny


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--top", 2), "top is 2, was 5"),
        (("--crops", 10), "crops is 10, was 1"),
        (("--ignore-exif",), "ignore_exif is True, was False"),
        (("--part", 7), "part is 7, was 5; repeat"),
        (("--column", "image"), "column is image, was None"),
    ],
)
def test_another_run_is_refused(
    flags: tuple[object, ...],
    said: str,
    model: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What differs is named, and nothing is written."""
    arguments = (folder, "--model", model, "-o", tmp_path / "out", "--part", 5)
    run(*arguments, "--shard", "0/5")
    assert run(*arguments, *flags) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"out/run.json: its results are of another run: {said}" in message
    assert "repeat that run's command, or take a new folder with -o (relume explain" in message
    assert len(found(tmp_path / "out")) == 5


def test_a_changed_listing_is_refused(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One more image moves all that come behind it to other parts."""
    arguments = (folder, "--model", model, "-o", tmp_path / "out")
    run(*arguments)
    (folder / "0000.png").write_bytes(images(1)["000.png"])
    assert run(*arguments) == 1
    said = "of another run: the sources name other images; repeat that run's"
    assert said in capsys.readouterr().err


def test_another_model_is_refused(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file counts, not its name."""
    arguments = (folder, "--model", model, "-o", tmp_path / "out")
    run(*arguments)
    Tiny(scale=5.0).write(model)
    assert run(*arguments) == 1
    assert "of another run: model_sha256 is " in capsys.readouterr().err


def test_the_number_of_shards_may_change(model: Path, folder: Path, tmp_path: Path) -> None:
    """So may the engine, the device and the batch: a run goes on with more machines, or fewer."""
    arguments = (folder, "--model", model, "-o", tmp_path / "out", "--part", 5)
    run(*arguments, "--shard", "0/3", "--batch", 2)
    run(*arguments, "--shard", "0/2", "--threads", 1)
    run(*arguments)
    assert len(found(tmp_path / "out")) == 23


def test_a_folder_of_something_else_is_refused(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody's files get company."""
    other = write_folder(tmp_path / "other", {"letter.txt": b"Dear"})
    assert run(folder, "--model", model, "-o", other) == 1
    assert "other: holds letter.txt and no run.json, so it is no folder" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}"])
def test_a_damaged_manifest_is_refused(
    content: bytes, model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is never written over."""
    out = write_folder(tmp_path / "out", {"run.json": content})
    assert run(folder, "--model", model, "-o", out) == 1
    assert "out/run.json: damaged; -o takes a new folder" in capsys.readouterr().err
    assert (out / "run.json").read_bytes() == content


def test_a_file_in_the_way_is_one_line(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is no folder."""
    (tmp_path / "out").touch()
    assert run(folder, "--model", model, "-o", tmp_path / "out") == 1
    assert "out: Not a directory" in capsys.readouterr().err


def test_who_is_second_in_a_race_is_refused(
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two that find the folder empty do not both believe that it is theirs."""
    original = folders._Local.create

    def overtaken(self: folders._Local, name: str, content: bytes) -> None:
        first = json.loads(content) | {"top": 1}
        original(self, name, json.dumps(first).encode())
        original(self, name, content)

    monkeypatch.setattr(folders._Local, "create", overtaken)
    assert run(folder, "--model", model, "-o", tmp_path / "out") == 1
    assert "of another run: top is 5, was 1;" in capsys.readouterr().err
