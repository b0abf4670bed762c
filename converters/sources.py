"""Which format a checkpoint is of, told by its first bytes, and what belongs to it."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from converters.formats import Opener, Source
from converters.mx import MXSource, params
from converters.mx import checkpoints as mx
from converters.packing import first_bytes
from converters.signatures import LENGTH, described
from converters.t7 import T7Source
from converters.t7.checkpoints import locate
from converters.t7.reader import order
from models.errors import FormatError, SpecError

TORCH7, MXNET, PYTORCH = "Torch7", "MXNet", "PyTorch"


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
    raw: bool = False,
) -> Found:
    """Return the checkpoint that a file, a folder, or MXNet's prefix and epoch stand for.

    `architecture` names the network whose weights alone a file has; `raw` asks a PyTorch checkpoint
    for other weights than the averaged ones.

    Raises:
        SpecError: Nothing, more than one, or no file is there; it is the symbol of a checkpoint; or
            a flag is none of its format's.
        FormatError: A packed file is damaged.
    """
    located = find_mxnet(source, epoch=epoch, symbol=symbol)
    if located is None and source.is_file() and _is_pytorch(first_bytes(source, LENGTH)):
        opener: Opener = _deferred("converters.pth", "PthSource", asked=architecture, raw=raw)
        return Found(PYTORCH, source, opener)
    if raw:
        raise SpecError(f"--raw goes with a PyTorch checkpoint, which {source} is not")
    if located is not None:
        opener = partial(MXSource, symbol_path=located.symbol)
        if architecture is not None:
            if located.symbol is not None:
                raise SpecError(
                    f"--architecture lends a graph to arrays without one: {located.symbol} has it"
                )
            opener = _deferred("converters.lending", "LentSource", architecture=architecture)
        return Found(MXNET, located.params, opener, None, located.epoch)
    if architecture is not None:
        raise SpecError(
            f"--architecture goes with MXNet arrays or a PyTorch checkpoint, which {source} is not"
        )
    found = locate(source)
    return Found(TORCH7, found.model, T7Source, found.optimizer, found.epoch)


def _is_pytorch(head: bytes) -> bool:
    """Tell a zip, a pickle or a safetensors file, which begins with the length of its header."""
    return head.startswith((b"PK\x03\x04", b"\x80")) or head[8:9] == b"{"


def _deferred(module: str, name: str, **options: Any) -> Opener:
    """Return what opens a source by a module that loads torch, not before it is opened."""

    def opened(path: Path, name_of: Path) -> Source:
        source: Source = getattr(import_module(module), name)(path, name_of, **options)
        return source

    return opened


def find_mxnet(
    source: Path, *, epoch: int | None = None, symbol: Path | None = None
) -> mx.Located | None:
    """Return the checkpoint of MXNet that is there; None for another format's.

    Raises:
        SpecError, FormatError: As `find`.
    """
    if epoch is not None:
        return mx.of_epoch(source, epoch, symbol)
    if source.exists() and not (source.is_file() or source.is_dir()):
        raise SpecError(f"{source}: found a device or a pipe, expected a file or a folder")
    if source.is_dir() and (located := mx.of_folder(source, symbol)) is not None:
        return located
    if source.is_file():
        head = first_bytes(source, LENGTH)
        if params.is_params(head):
            return mx.of_file(source, symbol)
        if head.lstrip()[:1] == b"{":
            raise SpecError(f"{source}: a symbol is half a checkpoint: name the .params beside it")
        if order(head) is None and not _is_pytorch(head):
            raise FormatError(
                source,
                0,
                found=described(head),
                expected="a checkpoint: a Torch7 .t7, an MXNet .params or a PyTorch file",
            )
    if not source.exists() and (forgotten := mx.of_prefix(source)) is not None:
        raise SpecError(
            f"{source}: no such file; {forgotten.name} is there: add its epoch, "
            f"{mx.of_file(forgotten).epoch}"
        )
    if symbol is not None:
        raise SpecError(f"--symbol goes with an MXNet .params file, which {source} is not")
    return None
