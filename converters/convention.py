"""How images enter a network: what the user says, or what its file or structure is known for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from converters.formats import Source
from converters.lowering import Lowered
from models import ops
from models.architectures import ARCHITECTURES, Architecture, recognise
from models.errors import (
    FormatError,
    LegacyModelError,
    SpecError,
    UnsupportedLayer,
    WeightMismatch,
)
from models.graph import Shape
from models.presets import PRESETS, RELEASES, described, preset
from models.spec import DecidedBy, InputSpec

BATCH = 2  # what image networks are lowered at: with 1, Torch7's View drops the batch dimension


class Resolved(NamedTuple):
    """A lowered network, how images enter it, what decided that, and what it is."""

    lowered: Lowered
    input: InputSpec | None
    decided: DecidedBy
    known: Architecture | None
    wired: Lowered  # under the file's own names, which an architecture replaces


def resolve(source: Source, digest: str, asked: str | None, shapes: Sequence[Shape]) -> Resolved:
    """Lower a checkpoint for the images, or for the exact input shapes, that it takes.

    Args:
        source: The open checkpoint.
        digest: SHA-256 of its bytes.
        asked: A preset's name, `none` for a network that takes no image, or None to find out.
        shapes: One for each input, with `none` only.

    Raises:
        SpecError: The convention is not known, or contradicts the shapes or the network.
        FormatError, UnsupportedLayer, WeightMismatch: The network cannot be lowered.
    """
    if shapes and asked != "none":
        raise SpecError(
            "--input-shape is for networks without an input convention: it goes with --input none"
        )
    if asked == "none":
        if not shapes:
            raise SpecError(
                "--input none: no shapes; --input-shape 2,3,8,8 gives them (more inputs after ;)"
            )
        return _recognised(_lowered(source, shapes), None, "flag")
    if asked is not None:
        return _for_images(source, preset(asked), "flag")
    if digest in RELEASES:
        return _for_images(source, PRESETS[RELEASES[digest]], "sha256")
    if source.input is not None:
        return _for_images(source, source.input, "names")
    return _by_structure(source)


def _for_images(source: Source, given: InputSpec, decided: DecidedBy) -> Resolved:
    lowered = _lowered(source, [_image_shape(given)])
    _check_classifier(lowered)
    return _recognised(lowered, given, decided)


def _by_structure(source: Source) -> Resolved:
    """Lower at every size that a known architecture takes, and look whether it is one."""
    told, reason = "its structure is not a known one", ""
    fitting: list[int] = []
    for size in dict.fromkeys(entry.size for entry in ARCHITECTURES.values()):
        try:
            found = _recognised(_lowered(source, [(BATCH, 3, size, size)]), None, "fingerprint")
        except (FormatError, UnsupportedLayer, WeightMismatch) as error:
            reason = reason or f"{size} x {size} pixels were tried: {error}"
            continue
        if _classifies(found.lowered):
            fitting.append(size)
        if found.known is not None and found.known.size == size and found.known.input is not None:
            _check_classifier(found.lowered)
            return found._replace(input=found.known.input)
        if found.known is not None:
            told = f"its structure, {found.known.name}, does not tell"
            break
    raise SpecError(
        f"how images enter this network is not in the file, and {told}: "
        f"{_answers(fitting, reason)}; or --input none with --input-shape for the bare network"
    )


def _answers(sizes: Sequence[int], reason: str) -> str:
    """Return what `--input` may say of a network that takes images of these sizes."""
    if not sizes:
        tried = f" ({reason})" if reason else ""
        return f"a .json file says it with --input, as no preset has images that fit{tried}"
    return f"--input PRESET says it, with {described(sizes)}, or a .json file"


def _image_shape(given: InputSpec) -> Shape:
    return (BATCH, 3, *given.crop)


def _lowered(source: Source, shapes: Sequence[Shape]) -> Lowered:
    """Lower, and find out by a second batch size whether the first dimension may have any size."""
    lowered = source.lower(shapes, ops.infer)
    graph = lowered.network.graph
    if len({shape[:1] for shape in shapes}) == 1 and shapes[0]:
        larger = [(shape[0] + 1, *shape[1:]) for shape in shapes]
        try:
            other = source.lower(larger, ops.infer).network.graph
        except LegacyModelError:
            return lowered
        graph = replace(graph, dynamic=replace(other, inputs=graph.inputs) == graph)
    return lowered._replace(network=lowered.network._replace(graph=graph))


def _recognised(lowered: Lowered, given: InputSpec | None, decided: DecidedBy) -> Resolved:
    found = recognise(lowered.network)
    if found is None:
        return Resolved(lowered, given, decided, None, lowered)
    renamed = lowered._replace(network=found.network)
    return Resolved(renamed, given, decided, found.architecture, lowered)


def _check_classifier(lowered: Lowered) -> None:
    if not _classifies(lowered):
        shapes = " and ".join("x".join(map(str, shape)) for shape in lowered.shapes)
        raise SpecError(
            f"an image classifier gives batch x classes, this network gives {shapes} "
            f"for a batch of {BATCH}: images of another size, by another preset, or "
            "--input none --input-shape for the bare network"
        )


def _classifies(lowered: Lowered) -> bool:
    """Tell whether a network lowered for images gives one row of classes for each."""
    batched = lowered.network.graph.dynamic and lowered.shapes[0][:1] == (BATCH,)
    return batched and classes(lowered.shapes) > 0


def classes(shapes: tuple[Shape, ...]) -> int:
    """Return K where the only output is N x K, else 0."""
    return shapes[0][1] if len(shapes) == 1 and len(shapes[0]) == 2 else 0
