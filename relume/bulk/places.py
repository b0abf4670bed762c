"""Files by their names, which are paths of this machine or URLs that fsspec reaches.

fsspec's drivers raise whatever their network libraries do. What is about one file, such as that it
is missing, stays the system's error; all else becomes one of ours: it is the store's fault.
"""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from models.errors import DataError, ImageError, ImageTooLarge, LegacyModelError
from relume.bulk.packages import optional
from relume.images import MAX_BYTES, SUFFIXES, found, image_file

BUFFER = 1 << 20  # of a file that is read in order


def is_url(name: str) -> bool:
    """Whether fsspec, and not the system, is to be asked."""
    return "://" in name


def image_bytes(name: str) -> bytes:
    """Return the bytes of one image's file.

    Raises:
        ImageError: It is no file, larger than any image, or of a web server that does not give it.
        OSError: It is missing or closed to us.
        DataError: Its store cannot be reached.
    """
    if not is_url(name):
        return image_file(Path(name)).read()
    try:
        with opened(name) as file:
            data = file.read(MAX_BYTES + 1)
    except (DataError, FileNotFoundError) as error:
        if not name.startswith(("http://", "https://")):
            raise
        raise ImageError(f"cannot be fetched ({_said(_first(error))})") from error
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(f"found more than {MAX_BYTES:,} bytes, which no image needs")
    return data


def opened(name: str) -> BinaryIO:
    """Return a file, to be read from its beginning or from anywhere.

    Raises:
        OSError: It is missing or closed to us.
        DataError: Its store cannot be reached, now or when it is read.
    """
    if not is_url(name):
        return open(name, "rb", buffering=BUFFER)  # noqa: SIM115  the caller's to close
    store, path = store_of(name)
    with reaching(name):
        return io.BufferedReader(_Remote(name, store.open(path, "rb")), BUFFER)


def size(name: str) -> int:
    """Return how many bytes a file has; the errors are those of `opened`."""
    if not is_url(name):
        return os.path.getsize(name)
    store, path = store_of(name)
    with reaching(name):
        return int(store.size(path))


def exists(name: str) -> bool:
    """Whether there is such a file.

    Raises:
        DataError: Its store cannot be reached.
    """
    if not is_url(name):
        return os.path.isfile(name)
    store, path = store_of(name)
    with reaching(name):
        return bool(store.exists(path))


def named_by(argument: str) -> list[str]:
    """Return the files that an argument names: a pattern's, a folder's images, or itself; sorted.

    Raises:
        DataError: Its store cannot be reached.
    """
    if not is_url(argument):
        return [str(path) for path in found([argument])]
    store, path = store_of(argument)
    with reaching(argument):
        if any(one in path for one in "*?["):
            names = [one for one, of in store.glob(path, detail=True).items() if _is_file(of)]
        elif store.isdir(path):
            names = [one for one in store.find(path) if one.lower().endswith(SUFFIXES)]
        else:
            return [argument]
        return [store.unstrip_protocol(one) for one in sorted(names)] or [argument]


def _is_file(details: dict[str, Any]) -> bool:
    return bool(details["type"] == "file")


def store_of(url: str) -> tuple[Any, str]:
    """Return fsspec's driver for a URL, and what it calls the file.

    Raises:
        DataError: There is no driver, or it lacks a package.
    """
    core = optional("fsspec.core", "parquet")
    try:
        store, path = core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # which says what to install
        raise DataError(f"{url}: {error}") from error
    return store, path


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Make one error of all that a store's driver raises.

    Raises:
        DataError: The store cannot be reached, or refuses.
        OSError: The file is missing or closed to us.
    """
    try:
        yield
    except LegacyModelError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except PermissionError as error:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), url) from error
    except Exception as error:
        raise DataError(
            f"{url}: cannot be reached ({_said(error)}); what is finished is kept, so run it again"
        ) from error


def _first(error: BaseException) -> BaseException:
    """Return what an error goes back to."""
    return _first(error.__cause__) if error.__cause__ else error


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Remote(io.RawIOBase):
    """A store's file whose errors are ours."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with reaching(self._url):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any, /) -> int:
        with reaching(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
