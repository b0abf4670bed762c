"""Checkpoints as people keep them: as they are, or packed as .xz or .gz."""

import gzip
import hashlib
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from models.errors import FormatError

MAX_UNPACKED = 1 << 33  # 8 GiB: no checkpoint of the time comes near, a packed bomb does
CHUNK = 1 << 20

_MAGIC: dict[bytes, Callable[[Path], lzma.LZMAFile | gzip.GzipFile]] = {
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x1f\x8b": gzip.GzipFile,
}
_ENDINGS = (".xz", ".gz", ".t7", ".pth.tar", ".pth", ".pt", ".safetensors", ".onnx")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield a path to the file's own bytes, unpacked into a temporary file if it is .xz or .gz.

    Raises:
        FormatError: The packed data is damaged, cut short, or unpacks without end.
    """
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((opener for magic, opener in _MAGIC.items() if head.startswith(magic)), None)
    if opener is None:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="relume-", suffix=path.stem) as target:
        with opener(path) as packed:
            _unpack(path, packed, target)
        target.flush()
        yield Path(target.name)


def _unpack(path: Path, packed: lzma.LZMAFile | gzip.GzipFile, target: IO[bytes]) -> None:
    written = 0
    try:
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > MAX_UNPACKED:
                raise FormatError(
                    path,
                    0,
                    found=f"more than {MAX_UNPACKED:,} bytes once unpacked",
                    expected="a checkpoint",
                )
            target.write(chunk)
    except (lzma.LZMAError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(
            path,
            f"unpacked byte {written:,}",
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
    while ending := next(
        (one for one in (*_ENDINGS, "-0000.params") if name.endswith(one) and name != one), None
    ):
        name = name.removesuffix(ending)
    return name
