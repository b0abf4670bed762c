"""Every listed architecture, thin enough to run in a moment."""

from functools import cache

import pytest
import torch
from torch import nn

from models.architectures import ARCHITECTURES, Architecture, find
from models.graph import Shape

CLASSES = 7
THIN = 8  # every family's narrowest layer has 16 channels or more
MANY = 24  # sums; a network of more takes seconds, and repeats what one of fewer does


def image(entry: Architecture, batch: int = 2) -> Shape:
    """Return the shape of a batch that an architecture takes."""
    return (batch, 3, entry.size, entry.size)


@cache
def thin(name: str) -> nn.Module:
    """Return a thin network of that architecture, initialised from a seed."""
    torch.manual_seed(0)
    return find(name).create(num_classes=CLASSES, width_divisor=THIN)


EVERY_ARCHITECTURE = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=pytest.mark.slow if entry.residuals > MANY else ())
        for entry in ARCHITECTURES.values()
    ],
    ids=lambda entry: entry.name,
)
