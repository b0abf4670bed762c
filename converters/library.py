"""Weights on their way out: a state dictionary that timm's or torchvision's own network loads."""

import argparse
from collections.abc import Mapping, Sequence
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
from models.errors import ParityError, SpecError
from models.files import refuse_existing, writing
from models.graph import Array
from models.terminal import new_parser, reports_errors

LIBRARIES = ("timm", "torchvision")
_COUNT = "num_batches_tracked"


def export_parser() -> argparse.ArgumentParser:
    """Return the parser of `relume export`."""
    parser = new_parser(
        "Write the weights of an Inception as a state dictionary with exactly the names and shapes "
        "of timm's or torchvision's own network.",
        "relume export irv2.pt -o irv2.safetensors --to timm",
    )
    parser.add_argument("source", type=Path, metavar="NAME", help=".pt or .safetensors of relume")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="what to write: .safetensors, or any other ending for torch.save's own form",
    )
    parser.add_argument("--to", choices=LIBRARIES, required=True, help="whose names it gets")
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it is there")
    return parser


@reports_errors
def export(argv: Sequence[str] | None = None) -> int:
    """Write an artifact's weights as another library names them."""
    given = export_parser().parse_args(argv)
    refuse_existing([given.out], force=given.force)
    checkpoint = checkpoints.read(given.source)
    lineage = lineage_of(checkpoint, given.to, given.source)
    _write(named(checkpoint, lineage), checkpoint, lineage, given.out)
    print(f"{given.out}: the state dictionary of {lineage.library}'s {lineage.architecture}")
    if lineage.library == "torchvision":
        print("  build       inception_v3(aux_logits=False, transform_input=False)")
    print(f"  input       {checkpoint.spec.input or 'no image'}")
    return 0


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
