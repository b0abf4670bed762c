"""Which architecture a state dictionary is of, by its tensors' names and shapes."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from models.architectures import Architecture, find
from models.architectures.lineages import LINEAGES, Lineage, Part, renamed
from models.architectures.registry import Arguments
from models.errors import SpecError, WeightMismatch
from models.graph import Array, Shape

KNOWN = 0.5  # of a file's names: a damaged file still has most of them, another network has few
OURS = "relume"  # the lineage of a module's own names


class Match(NamedTuple):
    """An architecture, and a file's tensors under its names.

    Attributes:
        architecture: What the tensors fit.
        arguments: What its class needs to have them.
        lineage: Whose names the file has.
        tensors: By our names.
        dropped: How many tensors are an auxiliary head's, which inference has no use for.
    """

    architecture: Architecture
    arguments: Arguments
    lineage: Lineage
    tensors: dict[str, Array]
    dropped: int


def match(tensors: Mapping[str, Array], name: Path, asked: str | None) -> Match:
    """Return what a file's tensors are; `asked` names the architecture where they do not tell.

    Raises:
        SpecError: The names are those of no network that is known.
        WeightMismatch: Tensors are missing, unexpected or misshapen, all of them listed.
    """
    lineage = _closest(tensors, name, asked)
    entry = find(asked or lineage.architecture)
    given = {key: array for key, array in tensors.items() if not _is_auxiliary(key, lineage)}
    names = {key: renamed(key, lineage.ours()) or key for key in given}
    ours = {names[key]: array for key, array in given.items()}
    arguments = _arguments(entry, ours)
    shapes = _shapes(entry, arguments)
    theirs = lineage.theirs()
    called = {key: renamed(key, theirs) or key for key in shapes}
    misshapen = [
        f"{called[key]} is {ours[key].shape}, expected {shape}"
        for key, shape in shapes.items()
        if key in ours and ours[key].shape != shape
    ]
    missing = [called[key] for key in shapes if key not in ours]
    unexpected = [key for key in given if names[key] not in shapes]
    if missing or unexpected or misshapen:
        raise WeightMismatch(
            f"{name}: as {entry.name}", missing=missing, unexpected=unexpected, misshapen=misshapen
        )
    return Match(entry, arguments, lineage, ours, len(tensors) - len(given))


def _closest(tensors: Mapping[str, Array], name: Path, asked: str | None) -> Lineage:
    """Return the lineage that knows most of a file's names, the first of equals."""
    candidates = list(LINEAGES)
    if asked is not None:
        entry = find(asked)
        candidates = [one for one in LINEAGES if _class(find(one.architecture)) is _class(entry)]
        candidates.append(_own(entry))
    known = [_known(tensors, lineage) for lineage in candidates]
    if max(known) >= KNOWN * len(tensors):
        return candidates[known.index(max(known))]
    if asked is None and any(key.startswith("classifier.") for key in tensors):
        raise SpecError(
            f"{name}: the tensors' names are like those of relume's own classes, which do not tell "
            "the architecture: --architecture NAME does"
        )
    families = ", ".join(f"{one.library}'s {one.architecture}" for one in candidates)
    raise SpecError(
        f"{name}: tensors such as {next(iter(tensors))}, expected the names of {families}"
    )


def _own(entry: Architecture) -> Lineage:
    with torch.device("meta"):
        module = entry.create()
    parts = tuple(Part(child, child) for child, _ in module.named_children())
    return Lineage(OURS, entry.name, entry.preset, parts)


def _class(entry: Architecture) -> object:
    return entry.create.func if isinstance(entry.create, partial) else entry.create


def _known(tensors: Mapping[str, Array], lineage: Lineage) -> int:
    modules = lineage.ours()
    return sum(renamed(key, modules) is not None or _is_auxiliary(key, lineage) for key in tensors)


def _is_auxiliary(key: str, lineage: Lineage) -> bool:
    return lineage.auxiliary is not None and key.startswith(f"{lineage.auxiliary}.")


def _arguments(entry: Architecture, tensors: Mapping[str, Array]) -> Arguments:
    """Read the number of classes, and how thin the network is, off its last layer."""
    head = tensors.get("classifier.weight")
    if head is None or head.ndim != 2:
        return {}
    classes, features = head.shape
    divisor = entry.features // features if features and not entry.features % features else 1
    return {"num_classes": classes, "width_divisor": divisor}


def _shapes(entry: Architecture, arguments: Arguments) -> dict[str, Shape]:
    with torch.device("meta"):
        state = entry.create(**arguments).state_dict()
    return {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
