"""Files that are there whole or not at all."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import ArtifactError


class Written:
    """Files being made beside their final names, to be put in place together."""

    def __init__(self) -> None:
        self._pending: dict[Path, Path] = {}
        self.latest: Path | None = None

    def new(self, target: Path) -> Path:
        """Return the temporary path to write `target`'s content to."""
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part"
        )
        os.close(handle)
        self._pending[target] = Path(name)
        self.latest = target
        return Path(name)

    def _commit(self) -> None:
        for temporary in self._pending.values():
            temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 is for secrets
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        for target, temporary in list(self._pending.items()):
            os.replace(temporary, target)
            del self._pending[target]

    def _discard(self) -> None:
        for temporary in self._pending.values():
            temporary.unlink(missing_ok=True)


@contextmanager
def writing() -> Iterator[Written]:
    """Put files in place when the block ends well; leave no part of one when it does not.

    Raises:
        OSError: The system refuses, as when the disk is full; it names the file.
    """
    files = Written()
    try:
        yield files
        files._commit()
    except Exception as error:
        system = _system_error(error)
        if system is None or files.latest is None:
            raise
        raise OSError(system.errno, system.strerror, str(files.latest)) from error
    finally:
        files._discard()


def _system_error(error: Exception) -> OSError | None:
    """Return the system's refusal behind a writer's error, if it names no file.

    torch.save raises RuntimeError while it handles one, and safetensors its own, with the number.
    """
    if isinstance(error, OSError):
        return error if error.errno and error.filename is None else None
    if type(error) is RuntimeError and isinstance(error.__context__, OSError):
        return error.__context__
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def refuse_existing(targets: list[Path], *, force: bool) -> None:
    """Raise ArtifactError if a file would be overwritten without `--force`."""
    if folders := [str(target) for target in targets if target.is_dir()]:
        raise ArtifactError(f"{', '.join(folders)}: a folder is in the way of the file")
    if not force and (there := [str(target) for target in targets if target.exists()]):
        raise ArtifactError(
            f"{', '.join(there)}: already there; --force overwrites, -o writes elsewhere"
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
