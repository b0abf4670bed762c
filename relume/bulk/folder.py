"""The folder of a run's results, on this machine or in a store: every file is there whole."""

import os
import tempfile
from pathlib import Path
from typing import Protocol

from models.files import writing
from relume.bulk.places import is_url, reaching, store_of


class Folder(Protocol):
    """Files by their names within the folder.

    Raises:
        OSError: The system refuses, as when the disk is full.
        DataError: The store cannot be reached.
    """

    def names(self, inside: str = "") -> set[str]:
        """Return the names of what lies in it, or in a folder inside; none where it is missing."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file's content, None where there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, over one that is there."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Put a file in place unless there is one; whether this did, and nobody faster."""
        ...


def result_folder(name: str) -> Folder:
    """Return the folder of that path or URL; it is made with its first file."""
    name = name.removeprefix("file://")
    return _Remote(name) if is_url(name) else _Local(Path(name))


class _Local:
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self, inside: str = "") -> set[str]:
        try:
            return set(os.listdir(self._path / inside))
        except FileNotFoundError:
            return set()

    def exists(self, name: str) -> bool:
        return (self._path / name).exists()

    def read(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        target = self._path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with writing() as files:
            files.new(target).write_bytes(content)

    def create(self, name: str, content: bytes) -> bool:
        target = self._path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=self._path, prefix=".") as passing:
                whole = Path(passing) / f".{target.name}"
                _write_new(whole, content)
                try:
                    os.link(whole, target)
                except FileExistsError:
                    return False
                except OSError:  # no links here, where who is killed leaves half of a file
                    _write_new(target, content)
        except FileExistsError:
            return False
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
        return True


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that nobody else has begun."""
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise


class _Remote:
    """A store puts an object in place at once when all of it has come, and needs no folders.

    None is made, either: to make one may be to make a bucket.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._store, self._path = store_of(self._url)

    def names(self, inside: str = "") -> set[str]:
        folder = f"{self._path}/{inside}".rstrip("/")
        with reaching(self._url):
            self._store.invalidate_cache()
            if not self._store.isdir(folder):
                return set()
            return {one.rstrip("/").rpartition("/")[2] for one in self._store.ls(folder, False)}

    def exists(self, name: str) -> bool:
        with reaching(self._url):
            return bool(self._store.exists(f"{self._path}/{name}"))

    def read(self, name: str) -> bytes | None:
        try:
            with reaching(f"{self._url}/{name}"):
                return bytes(self._store.cat_file(f"{self._path}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        self._put(name, content, "overwrite")

    def create(self, name: str, content: bytes) -> bool:
        return self._put(name, content, "create")

    def _put(self, name: str, content: bytes, mode: str) -> bool:
        with reaching(f"{self._url}/{name}"):
            try:
                self._store.pipe_file(f"{self._path}/{name}", content, mode=mode)
            except FileExistsError:
                return False
        return True
