"""Checkpoints as people keep them: as they are, or packed as .xz or .gz."""

import gzip
import hashlib
import lzma
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from models.errors import FormatError

MAX_UNPACKED = 1 << 33  # 8 GiB: no checkpoint of the time comes near, a packed bomb does
CHUNK = 1 << 20

_MAGIC: dict[bytes, Callable[..., Any]] = {
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x1f\x8b": gzip.GzipFile,
}
_ENDINGS = re.compile(r"(-\d{4,9}\.params|\.(xz|gz|t7|params|pth\.tar|pth|pt|safetensors|onnx))$")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield a path to the file's own bytes, unpacked into a temporary file if it is .xz or .gz.

    Raises:
        FormatError: The packed data is damaged, cut short, or unpacks without end.
    """
    opener = _opener(path)
    if opener is None:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="relume-", suffix=path.stem) as target:
        with opener(path) as packed:
            _unpack(path, packed, target)
        target.flush()
        yield Path(target.name)


def first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, unpacked if it is .xz or .gz.

    Raises:
        FormatError: The packed data is damaged there.
    """
    with (_opener(path) or Path.open)(path, "rb") as file:
        return b"".join(_chunks(path, file, count, most=count))


def _opener(path: Path) -> Callable[..., Any] | None:
    with path.open("rb") as file:
        head = file.read(6)
    return next((opener for magic, opener in _MAGIC.items() if head.startswith(magic)), None)


def _unpack(path: Path, packed: IO[bytes], target: IO[bytes]) -> None:
    for chunk in _chunks(path, packed, CHUNK, most=MAX_UNPACKED + 1):
        target.write(chunk)
    if target.tell() > MAX_UNPACKED:
        raise FormatError(
            path,
            0,
            found=f"more than {MAX_UNPACKED:,} bytes once unpacked",
            expected="a checkpoint",
        )


def _chunks(path: Path, packed: IO[bytes], size: int, *, most: int) -> Iterator[bytes]:
    """Yield what a packed file holds, and no more than `most` bytes of it."""
    done = 0
    try:
        while done < most and (chunk := packed.read(min(size, most - done))):
            done += len(chunk)
            yield chunk
    except (lzma.LZMAError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(
            path,
            f"unpacked byte {done:,}",
            found=f"damaged data ({error})",
            expected="whole packed data",
        ) from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_name(path: Path) -> str:
    """Return what an artifact of this file is called: its name without the endings of the trade."""
    name = path.name
    while (shorter := _ENDINGS.sub("", name)) not in ("", name):
        name = shorter
    return name
