"""What is in a checkpoint, said without loading torch: `relume inspect irv2.t7`."""

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from converters.cli import CHECKPOINT, epoch_number
from converters.mx import MXSource, checkpoints
from converters.mx import inspection as mxnet
from converters.packing import unpacked
from converters.sources import find_mxnet
from converters.t7.checkpoints import LATEST, Located, locate
from converters.t7.inspection import described
from models.errors import FormatError
from models.terminal import new_parser, reports_errors


def inspect_parser() -> argparse.ArgumentParser:
    """Return the parser of `relume inspect`."""
    parser = new_parser(
        "Say what is in a .t7 or .params file, without converting it.",
        "relume inspect irv2.t7",
        "relume inspect optimState_2.t7 --depth 4",
        "relume inspect resnet-152 0 --json",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help=CHECKPOINT,
    )
    parser.add_argument(
        "epoch",
        type=epoch_number,
        nargs="?",
        metavar="EPOCH",
        help="with SOURCE a prefix, as in MXNet",
    )
    parser.add_argument("--symbol", type=Path, metavar="FILE", help="the graph of a .params file")
    parser.add_argument(
        "--depth",
        type=_depth,
        default=2,
        metavar="N",
        help="levels of a .t7's tree to print (default 2); --json has them all",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


@reports_errors
def inspect(argv: Sequence[str] | None = None) -> int:
    """Print what a checkpoint holds."""
    given = inspect_parser().parse_args(argv)
    found = summary(given.source, epoch=given.epoch, symbol=given.symbol)
    print(json.dumps(found, allow_nan=False) if given.json else shown(found, given.depth))
    return 0


def shown(found: dict[str, Any], depth: int) -> str:
    """Return what people read of a description; `depth` is that of a `.t7`'s tree."""
    if "symbol" in found:
        return "\n".join(mxnet.lines(found))
    # Imported for people alone: rich takes as long as reading a hundred megabytes.
    from converters.tree import printed

    return printed(found, depth).rstrip("\n")


def _depth(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def summary(path: Path, *, epoch: int | None = None, symbol: Path | None = None) -> dict[str, Any]:
    """Return what a checkpoint holds, as JSON can say it; numbers of its tensors stay on the disk.

    A folder, or a `latest.t7`, stands for the model that it points to, if that is beside it.

    Raises:
        SpecError: The folder has neither `latest.t7` nor one model alone.
        FormatError: The file, or the model that it points to, is no checkpoint, or is damaged.
    """
    if (checkpoint := find_mxnet(path, epoch=epoch, symbol=symbol)) is not None:
        return _mxnet(checkpoint)
    located = _located(path)
    with unpacked(located.model) as plain:
        found = described(plain, located.model)
    return {
        "source": str(located.model.resolve()),
        "epoch": located.epoch,
        "optimizer": str(located.optimizer.resolve()) if located.optimizer else None,
        **found,
    }


def _mxnet(found: checkpoints.Located) -> dict[str, Any]:
    with unpacked(found.params) as plain:
        size = plain.stat().st_size
        source = MXSource(plain, found.params, symbol_path=found.symbol)
    return {
        "source": str(found.params.resolve()),
        "epoch": found.epoch,
        "symbol": str(found.symbol.resolve()) if found.symbol else None,
        **mxnet.described(source, size),
    }


def _located(path: Path) -> Located:
    if path.is_dir():
        return locate(path)
    if path.name == LATEST:
        with suppress(FormatError):  # the model is elsewhere: the file speaks for itself
            return locate(path)
    return Located(path)
