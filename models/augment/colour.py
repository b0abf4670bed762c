"""Maps of colours that are one matrix and one vector: fb.resnet.torch's jitter and lighting.

Nothing is clamped between the original's steps, so that brightness, contrast, saturation, lighting
and normalisation in any order are together x -> A x + b, where contrast needs the mean colour only.
The mean goes through the same map as the pixels do.

Source: facebook/fb.resnet.torch datasets/transforms.lua, datasets/imagenet.lua.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.spec import InputSpec

Numbers = NDArray[np.float64]

GREY = np.array([0.299, 0.587, 0.114])
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])  # of ImageNet's colours, and their vectors
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


class Colours(NamedTuple):
    """The map x -> matrix @ x + vector."""

    matrix: Numbers
    vector: Numbers

    def then(self, matrix: Numbers, vector: Numbers) -> "Colours":
        """Return the map that does this one first."""
        return Colours(matrix @ self.matrix, matrix @ self.vector + vector)


class Jitter(NamedTuple):
    """What is drawn for an image.

    Attributes:
        factors: Of brightness, contrast and saturation; 1 changes nothing.
        order: In which these three are done.
        lighting: Along the three eigenvectors of ImageNet's colours.
    """

    factors: tuple[float, float, float]
    order: tuple[int, int, int]
    lighting: tuple[float, float, float]


def drawn_jitter(draw: np.random.Generator, strength: float = 0.4, std: float = 0.1) -> Jitter:
    """Return factors of 1 +- strength in random order, and normal lighting."""
    factors = 1 + draw.uniform(-strength, strength, 3)
    return Jitter(
        tuple(factors.tolist()),
        tuple(draw.permutation(3).tolist()),
        tuple(draw.normal(0, std, 3).tolist()),
    )


def jittered(jitter: Jitter, mean: Numbers, spec: InputSpec) -> Colours:
    """Return the map of colours 0 to 255 to the network's numbers.

    Args:
        jitter: What was drawn.
        mean: The image's mean colour, 0 to 255.
        spec: Names the normalisation.
    """
    colours = Colours(np.eye(3) * spec.scale, np.zeros(3))
    for step in jitter.order:
        matrix, vector = STEPS[step](jitter.factors[step], colours.matrix @ mean + colours.vector)
        colours = colours.then(matrix, vector)
    light = EIGENVECTORS @ (np.array(jitter.lighting) * EIGENVALUES)
    return _normalised(colours.then(np.eye(3), light), spec)


def normalised(spec: InputSpec) -> Colours:
    """Return the map that only scales and normalises."""
    return _normalised(Colours(np.eye(3) * spec.scale, np.zeros(3)), spec)


def _normalised(colours: Colours, spec: InputSpec) -> Colours:
    mean, std = np.array(spec.mean), np.array(spec.std)
    return colours.then(np.diag(1 / std), -mean / std)


def _brightness(factor: float, mean: Numbers) -> tuple[Numbers, Numbers]:
    return factor * np.eye(3), np.zeros(3)


def _contrast(factor: float, mean: Numbers) -> tuple[Numbers, Numbers]:
    return factor * np.eye(3), np.full(3, (1 - factor) * (GREY @ mean))


def _saturation(factor: float, mean: Numbers) -> tuple[Numbers, Numbers]:
    return factor * np.eye(3) + (1 - factor) * np.tile(GREY, (3, 1)), np.zeros(3)


Step = Callable[[float, Numbers], tuple[Numbers, Numbers]]
STEPS: tuple[Step, Step, Step] = (_brightness, _contrast, _saturation)
