"""What a run's folder says of the run, so that nobody adds to it what does not belong."""

import json
from collections.abc import Sequence
from typing import Any

from models.errors import ResumeError
from relume.bulk.folder import Folder

NAME = "run.json"
LISTING = "listing_sha256"


def agree(folder: Folder, where: str, run: dict[str, Any]) -> None:
    """Write what the run is into its folder, or compare with what another process wrote.

    Raises:
        ResumeError: The folder is of another run, or of something else.
        OSError: The system refuses.
        DataError: The store cannot be reached.
    """
    names = sorted(name for name in folder.names() if not name.startswith("."))
    if names and NAME not in names:
        raise ResumeError(
            f"{where}: holds {names[0]} and no {NAME}, so it is no folder of results; "
            "-o takes a new one"
        )
    if not names:
        folder.create(NAME, (json.dumps(run, indent=2) + "\n").encode())
    _compare(f"{where.rstrip('/')}/{NAME}", folder.read(NAME) or b"", run)


def _causes(differing: Sequence[str]) -> Sequence[str]:
    """Leave out what differs because something else does."""
    if "part" in differing:
        return [name for name in differing if name not in ("parts", LISTING)]
    return [name for name in differing if name != "parts"]


def _said(name: str, run: dict[str, Any], there: dict[str, Any]) -> str:
    if name == LISTING:
        return "the sources name other images"
    return f"{name} is {run[name]}, was {there[name]}"


def _compare(where: str, content: bytes, run: dict[str, Any]) -> None:
    try:
        there = json.loads(content)
        differing = [name for name in run if there[name] != run[name]]
    except (ValueError, TypeError, LookupError) as error:
        raise ResumeError(f"{where}: damaged; -o takes a new folder") from error
    if differing:
        said = "; ".join(_said(name, run, there) for name in _causes(differing))
        raise ResumeError(
            f"{where}: its results are of another run: {said}; "
            "repeat that run's command, or take a new folder with -o"
        )
