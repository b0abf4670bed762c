"""The two checkpoints of a comparison, of whatever formats, as networks under their own names."""

from pathlib import Path
from typing import NamedTuple

from converters.convention import resolve
from converters.formats import Source
from converters.packing import sha256, unpacked
from converters.pipeline import opened
from converters.sources import find
from models import checkpoint as checkpoints
from models.build import check_shapes
from models.checkpoint import Checkpoint
from models.errors import LegacyModelError, SpecError
from models.graph import Network, Shape
from models.spec import InputSpec


class Named(NamedTuple):
    """A checkpoint as a user names it: a path, and for MXNet's prefixes an epoch."""

    path: Path
    epoch: int | None = None


class Side(NamedTuple):
    """One of two networks that are compared.

    Attributes:
        path: Its file.
        sha256: Of the file's own bytes.
        format: What was read, such as `torch7-binary`, or `relume`.
        network: Under the names of the file.
        input: How images enter, where it is known.
        architecture: What the network is, where it is known.
    """

    path: Path
    sha256: str
    format: str
    network: Network
    input: InputSpec | None
    architecture: str | None


class _Stored(NamedTuple):
    path: Path
    sha256: str
    content: Source | Checkpoint


def open_both(
    a: Named, b: Named, asked: str | None, shapes: tuple[Shape, ...] = ()
) -> tuple[Side, Side]:
    """Return two checkpoints as networks.

    Where it is not known how images enter one, it is given what the other takes.

    Args:
        a: The one.
        b: The other.
        asked: A preset's name for checkpoints that do not tell how images enter, `none` for those
            that take none, or None to find out.
        shapes: Exact shape of each input, with `none` only.

    Raises:
        SpecError: A file is not there, or neither tells how images enter.
        LegacyModelError: A checkpoint cannot be read exactly.
    """
    one, other = _stored(a), _stored(b)
    try:
        ours = _side(one, asked, shapes)
    except SpecError as error:
        theirs = _side(other, asked, shapes)
        return _side_like(one, theirs, error), theirs
    try:
        return ours, _side(other, asked, shapes)
    except SpecError as error:
        return ours, _side_like(other, ours, error)


def _stored(named: Named) -> _Stored:
    """Return what is in a file: an artifact of relume, or a checkpoint of another program."""
    path = named.path
    if path.suffix == ".onnx":
        raise SpecError(
            f"{path}: an .onnx has its BatchNorms folded and its tensors renamed: compare the .pt "
            "beside it, or the checkpoint that it was made of"
        )
    if named.epoch is None and path.is_file():
        with unpacked(path) as plain:
            if checkpoints.is_artifact(plain):
                return _Stored(path, sha256(plain), checkpoints.read(plain))
    found = find(path, epoch=named.epoch)
    source, digest = opened(found.model, found.opener)
    return _Stored(found.model, digest, source)


def _side(stored: _Stored, asked: str | None, shapes: tuple[Shape, ...] = ()) -> Side:
    path, digest, content = stored
    if isinstance(content, Checkpoint):
        spec, network, _ = content
        check_shapes(network.graph, str(path))
        return Side(path, digest, "relume", network, spec.input, spec.architecture)
    found = resolve(content, digest, asked, shapes)
    name = found.known.name if found.known else None
    return Side(path, digest, content.format, found.wired.network, found.input, name)


def _side_like(stored: _Stored, other: Side, unknown: SpecError) -> Side:
    """Return a network for the inputs of another; what was not known before is the error."""
    shapes = tuple(given.shape for given in other.network.graph.inputs)
    try:
        return _side(stored, "none", shapes)
    except LegacyModelError:
        raise unknown from None
