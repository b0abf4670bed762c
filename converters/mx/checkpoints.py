"""Checkpoints as MXNet names them: `PREFIX-symbol.json` and `PREFIX-0012.params`, after epoch 12.

Source: apache/mxnet python/mxnet/model.py (`save_checkpoint`), gluon/block.py (`export`).
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from models.errors import SpecError, some

SYMBOL = "-symbol.json"
PACKED = ("", ".xz", ".gz")
_NUMBERED = re.compile(r"(?P<prefix>.+)-(?P<epoch>\d{4,9})\.params(\.xz|\.gz)?")
_PARAMS = re.compile(r"(?P<prefix>.+)\.params(\.xz|\.gz)?")


class Located(NamedTuple):
    """The file that holds the arrays, and what was saved beside it.

    Attributes:
        params: The file with the arrays.
        symbol: The file with the graph; None where there is none, as with `save_parameters`.
        epoch: After how many epochs it was saved, where its name says so.
    """

    params: Path
    symbol: Path | None
    epoch: int | None


def of_file(params: Path, symbol: Path | None = None) -> Located:
    """Return what belongs to a file of arrays; `symbol` is its graph where the user says so.

    Raises:
        SpecError: The user's symbol is not there.
    """
    numbered, plain = _NUMBERED.fullmatch(params.name), _PARAMS.fullmatch(params.name)
    epoch = int(numbered["epoch"]) if numbered else None
    if symbol is not None:
        if not symbol.is_file():
            raise SpecError(f"--symbol {symbol}: no such file")
        return Located(params, symbol, epoch)
    prefixes = (name["prefix"] for name in (numbered, plain) if name)
    symbols = (params.with_name(one + SYMBOL + end) for one in prefixes for end in PACKED)
    return Located(params, next((one for one in symbols if one.is_file()), None), epoch)


def of_epoch(prefix: Path, epoch: int, symbol: Path | None = None) -> Located:
    """Return the checkpoint that MXNet calls by a prefix and an epoch.

    Raises:
        SpecError: It is not there; the message lists which epochs are.
    """
    if prefix.is_file() or prefix.is_dir():
        kind = "folder" if prefix.is_dir() else "file"
        raise SpecError(f"{prefix}: a {kind}; with EPOCH, SOURCE is a prefix, such as resnet-50")
    name = f"{prefix.name}-{epoch:04}.params"
    for ending in PACKED:
        if (found := prefix.with_name(name + ending)).is_file():
            return of_file(found, symbol)
    there = _listed(one for one in _all(prefix.parent) if one.name.startswith(f"{prefix.name}-"))
    raise SpecError(f"{prefix.with_name(name)}: no such file; there are {there}")


def of_prefix(prefix: Path) -> Path | None:
    """Return the first checkpoint of that prefix, whose epoch somebody forgot to say."""
    found = [one for one in _all(prefix.parent) if one.name.startswith(f"{prefix.name}-")]
    return next((one for one in found if of_file(one).epoch is not None), None)


def of_folder(folder: Path, symbol: Path | None = None) -> Located | None:
    """Return the only checkpoint of a folder; None where it has no files of MXNet.

    Raises:
        SpecError: There are several, or a symbol without arrays.
    """
    found = _all(folder)
    if len(found) == 1:
        return of_file(found[0], symbol)
    if not found and not list(folder.glob(f"*{SYMBOL}*")):
        return None
    raise SpecError(
        f"{folder}: a folder with {_listed(found)}; expected one checkpoint, "
        "or name the file, or PREFIX EPOCH"
    )


def _all(folder: Path) -> list[Path]:
    return sorted(one for one in folder.glob("*.params*") if _PARAMS.fullmatch(one.name))


def _listed(found: Iterable[Path]) -> str:
    return some([one.name for one in found]) or "no .params"
