"""Weights on their way out: a state dictionary that timm's or torchvision's own network loads."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from converters.pth.matching import match
from converters.pth.reader import read
from models import checkpoint as checkpoints
from models.architectures import recognise
from models.architectures.lineages import LINEAGES, Lineage, renamed
from models.checkpoint import Checkpoint
from models.errors import ArtifactError, ParityError, SpecError
from models.files import refuse_existing, writing
from models.graph import Array

_COUNT = "num_batches_tracked"


def export(source: Path, target: Path, library: str, *, force: bool) -> None:
    """Write an artifact's weights as a library names them, and say how they are used.

    Raises:
        SpecError: The library has no such network.
        ArtifactError: The source is another form, or not one of relume's, or TARGET is there.
        ParityError: What was written reads back as something else.
    """
    if source.suffix == ".onnx":
        raise ArtifactError(f"{source}: {library}'s form is written from the .pt beside it")
    refuse_existing([target], force=force)
    checkpoint = checkpoints.read(source)
    lineage = lineage_of(checkpoint, library, source)
    _write(named(checkpoint, lineage), checkpoint, lineage, target)
    print(f"{target}: the state dictionary of {lineage.library}'s {lineage.architecture}")
    if lineage.library == "torchvision":
        print("  build       inception_v3(aux_logits=False, transform_input=False)")
    print(f"  input       {checkpoint.spec.input or 'no image'}")


def lineage_of(checkpoint: Checkpoint, library: str, path: Path) -> Lineage:
    """Return how a library names the network of an artifact.

    Raises:
        SpecError: The library has no such network; the message says which it has.
    """
    found = recognise(checkpoint.network)
    name = found.architecture.name if found else "a network without a name"
    if found and found.arguments.get("width_divisor", 1) != 1:
        name = f"{name} with layers {found.arguments['width_divisor']} times thinner"
    there = [one for one in LINEAGES if one.library == library]
    lineage = next((one for one in there if one.architecture == name), None)
    if lineage is None:
        raise SpecError(
            f"{path}: {name}: {library} has no network of that structure; it can take "
            f"{', '.join(one.architecture for one in there)}"
        )
    return lineage


def named(checkpoint: Checkpoint, lineage: Lineage) -> dict[str, Tensor]:
    """Return all tensors that the library's network has, by its names, on the CPU.

    Batches were not counted: those tensors are 0.
    """
    theirs = lineage.theirs()
    state: dict[str, Tensor] = {}
    for key, array in checkpoint.network.tensors.items():
        name = renamed(key, theirs) or key
        state[name] = torch.from_numpy(np.array(array, order="C"))
        if key.endswith(".running_var"):  # a BatchNorm's last statistic
            state[f"{name.rpartition('.')[0]}.{_COUNT}"] = torch.zeros((), dtype=torch.int64)
    return state


def _write(
    state: Mapping[str, Tensor], checkpoint: Checkpoint, lineage: Lineage, target: Path
) -> None:
    """Write the file, and read it back as a checkpoint: every bit has to be where it was."""
    with writing() as files:
        temporary = files.new(target)
        if target.suffix == ".safetensors":
            safetensors.torch.save_file(dict(state), temporary)
        else:
            with temporary.open("wb") as file:
                torch.save(dict(state), file)
        again = match(read(temporary, target, raw=False).tensors, target, lineage.architecture)
        if not _equal(again.tensors, checkpoint.network.tensors):
            raise ParityError(f"{target}: tensors read back differ from what was written")


def _equal(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> bool:
    return ours.keys() == theirs.keys() and all(
        np.array_equal(array, theirs[key], equal_nan=True) for key, array in ours.items()
    )
