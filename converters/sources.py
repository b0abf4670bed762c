"""Which format a checkpoint is of, told by its first bytes, and what belongs to it."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from converters.formats import Opener
from converters.mx import MXSource, params
from converters.mx import checkpoints as mx
from converters.packing import first_bytes
from converters.t7 import T7Source
from converters.t7.checkpoints import locate
from models.errors import SpecError

HEAD = 40  # bytes that tell


TORCH7, MXNET = "Torch7", "MXNet"


class Found(NamedTuple):
    """A checkpoint's file, what opens it, and what was saved beside it."""

    format: str
    model: Path
    opener: Opener
    optimizer: Path | None = None
    epoch: int | None = None


def find(
    source: Path,
    *,
    epoch: int | None = None,
    symbol: Path | None = None,
    architecture: str | None = None,
) -> Found:
    """Return the checkpoint that a file, a folder, or MXNet's prefix and epoch stand for.

    `architecture` names whose graph MXNet's arrays get, in place of a symbol.

    Raises:
        SpecError: Nothing, or more than one, is there; or it is the symbol of a checkpoint.
        FormatError: A packed file is damaged.
    """
    if (located := find_mxnet(source, epoch=epoch, symbol=symbol)) is not None:
        opener: Opener = partial(MXSource, symbol_path=located.symbol)
        if architecture is not None:  # only now: it loads torch
            lent = import_module("converters.lending").LentSource
            opener = partial(lent, architecture=architecture)
        return Found(MXNET, located.params, opener, None, located.epoch)
    if architecture is not None:
        raise SpecError(f"--architecture goes with an MXNet .params file, which {source} is not")
    found = locate(source)
    return Found(TORCH7, found.model, T7Source, found.optimizer, found.epoch)


def find_mxnet(
    source: Path, *, epoch: int | None = None, symbol: Path | None = None
) -> mx.Located | None:
    """Return the checkpoint of MXNet that is there; None for another format's.

    Raises:
        SpecError, FormatError: As `find`.
    """
    if epoch is not None:
        return mx.of_epoch(source, epoch, symbol)
    if source.is_dir() and (located := mx.of_folder(source, symbol)) is not None:
        return located
    if source.is_file():
        head = first_bytes(source, HEAD)
        if params.is_params(head):
            return mx.of_file(source, symbol)
        if head.lstrip()[:1] == b"{":
            raise SpecError(f"{source}: a symbol is half a checkpoint: name the .params beside it")
    if symbol is not None:
        raise SpecError(f"--symbol goes with an MXNet .params file, which {source} is not")
    return None
