"""Small checkpoints as other programs write them: thin networks under their names."""

from typing import Any

import torch
from torch import Tensor

from models.architectures import create
from models.architectures.lineages import LINEAGES, Lineage, renamed

CLASSES = 7
THIN = 8


def lineage(library: str, architecture: str) -> Lineage:
    return next(one for one in LINEAGES if one[:2] == (library, architecture))


def state(lineage: Lineage, seed: int = 0, **more: Any) -> dict[str, Tensor]:
    """Return the state dictionary of a thin network in that lineage's names."""
    torch.manual_seed(seed)
    module = create(lineage.architecture, num_classes=CLASSES, width_divisor=THIN, **more)
    theirs = lineage.theirs()
    if lineage.auxiliary:
        head = lineage.auxiliary
        theirs |= {"aux.convs.0": f"{head}.conv0", "aux.convs.1": f"{head}.conv1"}
        theirs |= {"aux.classifier": f"{head}.fc"}
    return {renamed(key, theirs) or key: value for key, value in module.state_dict().items()}
