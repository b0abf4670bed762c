"""Files by their names, which are paths of this machine or URLs that fsspec reaches.

fsspec's drivers raise whatever their network libraries do. What is about one file, such as that it
is missing, stays the system's error; all else becomes one of ours: it is the store's fault.
"""

import errno
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from models.errors import DataError, ImageError, ImageTooLarge, LegacyModelError
from relume.bulk.packages import optional
from relume.images import MAX_BYTES, SUFFIXES, found, image_file

BUFFER = 1 << 20  # of a file that is read in order
WEB = ("http://", "https://")
PAUSES_S = (0.5, 2.0, 5.0)  # before a web server is asked again
WAIT_S = 60.0  # for its next bytes
LATER = (408, 425, 429)  # of a server's refusals, those that mean another time
KEPT = "; what is finished is kept, so run it again"
OR_SKIPPED = ", or with --skip-unreachable, which counts it as broken"


def is_url(name: str) -> bool:
    """Whether fsspec, and not the system, is to be asked."""
    return "://" in name


def image_bytes(name: str) -> bytes:
    """Return the bytes of one image's file.

    Raises:
        ImageError: It is no file, larger than any image, or of a web server that refuses it.
        OSError: It is missing or closed to us.
        DataError: Its store cannot be reached.
        DeviceError: A package is not installed.
    """
    if not is_url(name):
        return image_file(Path(name)).read()
    path = store_of(name)[1]
    if name.startswith(("file://", "local://")):
        return image_file(Path(path)).read()
    data = _of_the_web(name) if name.startswith(WEB) else _beginning(name)
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(f"found more than {MAX_BYTES:,} bytes, which no image needs")
    return data


def _beginning(name: str) -> bytes:
    with opened(name) as file:
        return file.read(MAX_BYTES + 1)


def _of_the_web(name: str) -> bytes:
    """Return the beginning of what a web server has, which is asked again while it may be late."""
    pauses = iter(PAUSES_S)
    while True:
        try:
            return _beginning(name)
        except (DataError, OSError) as error:  # fsspec says "not found" of every failure
            if _is_final(_first(error)):
                raise ImageError(f"{name}: cannot be fetched ({_said(_first(error))})") from error
            if (pause := next(pauses, None)) is None:
                raise _unreachable(name, _first(error), KEPT + OR_SKIPPED) from error
        time.sleep(pause)


def _is_final(error: BaseException) -> bool:
    """Whether a web server would say so again, or the URL is none; else it may be this machine."""
    status = getattr(error, "status", None)  # of aiohttp; 0 for redirects without an end
    if isinstance(status, int):
        return status < 500 and status not in LATER
    if isinstance(error, OSError):  # also what is wrong with a certificate, a ValueError as well
        return isinstance(error, FileNotFoundError)
    return isinstance(error, ValueError)


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
        DataError: There is no driver, it lacks a package, or several are chained.
        DeviceError: A package of the extra is not installed.
    """
    if "::" in url:  # a driver within a driver, some of which run what a file says
        raise DataError(f"{url}: found '::', expected the URL of one store")
    core = optional("fsspec.core", "parquet")
    settings = _web_settings() if url.startswith(WEB) else {}
    try:
        store, path = core.url_to_fs(url, **settings)
    except Exception as error:  # an ImportError says what to install
        raise DataError(f"{url}: {_said(error)}") from error
    return store, path


def _web_settings() -> dict[str, Any]:
    timeout = optional("aiohttp", "parquet").ClientTimeout(
        total=None, sock_connect=WAIT_S, sock_read=WAIT_S
    )
    return {"client_kwargs": {"timeout": timeout}}


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
    except IsADirectoryError as error:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), url) from error
    except Exception as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: BaseException, advice: str = KEPT) -> DataError:
    return DataError(f"{url}: cannot be reached ({_said(error)}){advice}")


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
