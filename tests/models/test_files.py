"""Files are there whole or not at all, for those who may read them."""

import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from models.errors import ArtifactError
from models.files import refuse_existing, writing


class Interrupted(BaseException):
    """What stops a program without being an error, such as Ctrl-C."""


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set the process's umask for one test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_files_appear_together_at_the_end(tmp_path: Path) -> None:
    """Nothing has its final name before everything is written."""
    one, two = tmp_path / "a.pt", tmp_path / "a.onnx"
    with writing() as files:
        files.new(one).write_bytes(b"one")
        files.new(two).write_bytes(b"two")
        assert not one.exists()
        assert not two.exists()
    assert (one.read_bytes(), two.read_bytes()) == (b"one", b"two")
    assert set(tmp_path.iterdir()) == {one, two}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Interrupted])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """Neither a file nor a temporary of it, even for what was complete already."""

    def write() -> None:
        with writing() as files:
            files.new(tmp_path / "a.pt").write_bytes(b"whole")
            files.new(tmp_path / "a.onnx").write_bytes(b"ha")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_leaves_the_old_file(tmp_path: Path) -> None:
    """What was good stays, byte for byte."""
    target = tmp_path / "a.pt"
    target.write_bytes(b"old")

    def write() -> None:
        with writing() as files:
            files.new(target).write_bytes(b"ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_overwrite_replaces_the_whole_file(tmp_path: Path) -> None:
    """A shorter new file has no end of the old one."""
    target = tmp_path / "a.pt"
    target.write_bytes(b"a long old file")
    with writing() as files:
        files.new(target).write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_a_target_that_cannot_be_replaced_leaves_no_temporary(tmp_path: Path) -> None:
    """Where a folder has the name, the system's error is passed on and nothing lies about."""
    (tmp_path / "a.pt").mkdir()

    def write() -> None:
        with writing() as files:
            files.new(tmp_path / "a.pt").write_bytes(b"new")

    with pytest.raises(OSError, match=r"a\.pt"):
        write()
    assert list(tmp_path.iterdir()) == [tmp_path / "a.pt"]


def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    """Artifacts can be read by whoever reads the user's other files, and by nobody else."""
    with writing() as files:
        files.new(tmp_path / "a.pt").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "a.pt").stat().st_mode) == 0o666 & ~umask
    assert os.umask(umask) == umask


def test_existing_files_are_named_together(tmp_path: Path) -> None:
    """All that are in the way are listed, with what to do."""
    there = [tmp_path / "a.pt", tmp_path / "a.onnx"]
    for path in there:
        path.touch()
    message = r"a\.pt, .*a\.onnx: already there; --force overwrites, -o writes elsewhere$"
    with pytest.raises(ArtifactError, match=message) as caught:
        refuse_existing([*there, tmp_path / "new.pt"], force=False)
    assert "new.pt" not in str(caught.value)


@pytest.mark.parametrize(("name", "force"), [("new.pt", False), ("a.pt", True)])
def test_what_is_free_or_forced_is_not_refused(tmp_path: Path, name: str, force: bool) -> None:
    """Looking changes nothing."""
    (tmp_path / "a.pt").touch()
    refuse_existing([tmp_path / name], force=force)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.pt"]


def writers() -> dict[str, Callable[[Path], object]]:
    """Return how each library writes a megabyte."""
    numbers = np.ones(1 << 18, np.float32)

    def torch_save(path: Path) -> None:
        with path.open("wb") as file:
            torch.save({"a": torch.from_numpy(numbers)}, file)

    return {
        "bytes": lambda path: path.write_bytes(numbers.tobytes()),
        "torch": torch_save,
        "safetensors": lambda path: save_file({"a": numbers}, path),
    }


@pytest.mark.parametrize("library", writers())
def test_a_full_disk_names_the_file(tmp_path: Path, library: str) -> None:
    """Whatever a library makes of the system's refusal, what is raised says it, and where."""
    target = tmp_path / "a.pt"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # as a disk of that size would be
    try:
        with pytest.raises(OSError, match="File too large") as caught, writing() as files:
            writers()[library](files.new(target))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == []
