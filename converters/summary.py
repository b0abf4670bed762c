"""What is in a checkpoint, said without loading torch: `relume inspect irv2.t7`."""

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from converters.cli import TORCH7
from converters.packing import unpacked
from converters.t7.checkpoints import LATEST, Located, locate
from converters.t7.inspection import described
from models.errors import FormatError
from models.terminal import reports_errors


@reports_errors
def inspect(argv: Sequence[str] | None = None) -> int:
    """Print what a checkpoint holds."""
    parser = argparse.ArgumentParser(
        description="Say what is in a .t7 file, whatever it is, without converting it."
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help=TORCH7,
    )
    parser.add_argument(
        "--depth",
        type=_depth,
        default=2,
        metavar="N",
        help="levels of the tree to print (default 2); --json has them all",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(argv)
    found = summary(given.source)
    if given.json:
        print(json.dumps(found, allow_nan=False))
    else:
        # Imported for people alone: rich takes as long as reading a hundred megabytes.
        from converters.tree import printed

        print(printed(found, given.depth), end="")
    return 0


def _depth(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def summary(path: Path) -> dict[str, Any]:
    """Return what a `.t7` holds, as JSON can say it; numbers of its tensors stay on the disk.

    A folder, or a `latest.t7`, stands for the model that it points to, if that is beside it.

    Raises:
        SpecError: The folder has neither `latest.t7` nor one model alone.
        FormatError: The file, or the model that it points to, is no `.t7`, or is damaged.
    """
    located = _located(path)
    with unpacked(located.model) as plain:
        found = described(plain, located.model)
    return {
        "source": str(located.model.resolve()),
        "epoch": located.epoch,
        "optimizer": str(located.optimizer.resolve()) if located.optimizer else None,
        **found,
    }


def _located(path: Path) -> Located:
    if path.is_dir():
        return locate(path)
    if path.name == LATEST:
        with suppress(FormatError):  # the model is elsewhere: the file speaks for itself
            return locate(path)
    return Located(path)
