"""Rules of local contrast normalisation, which networks had before batch normalisation."""

from converters.t7.memory import Handle
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer


@layer("nn.SpatialSubtractiveNormalization")
def spatial_subtractive_normalization(run: Run, module: Module, x: Tree) -> Tree:
    """Less the weighted mean of each pixel's surroundings.

    At the border the mean is over the pixels that are there: it is divided by what the same weights
    make of an image of ones (`nn/SpatialSubtractiveNormalization.lua`).
    """
    given = run.image(module, x)
    means = _estimated(run, module, given, "meanestimator")
    value = run.net.add(module.name, "Sub", run.read(given), run.read(means))
    return run.fresh(module, value)


@layer("nn.SpatialDivisiveNormalization")
def spatial_divisive_normalization(run: Run, module: Module, x: Tree) -> Tree:
    """By the weighted deviation of each pixel's surroundings, `thresval` where it is small.

    Source: `nn/SpatialDivisiveNormalization.lua`.
    """
    given = run.image(module, x)
    deviations = run.read(_estimated(run, module, given, "stdestimator"))
    bounded = run.net.add(
        f"{module.name}_bounded",
        "Threshold",
        deviations,
        threshold=module.number("threshold", 1e-4),
        value=module.number("thresval", 1e-4),
    )
    return run.fresh(module, run.net.add(module.name, "Div", run.read(given), bounded))


def _estimated(run: Run, module: Module, given: Handle, estimator: str) -> Handle:
    value = run.read(given)
    zeros = run.net.add(f"{module.name}_zeros", "Scale", value, factor=0)
    ones = run.new(run.net.add(f"{module.name}_ones", "Shift", zeros, offset=1))
    # Read before the estimator runs again: it has one output tensor.
    weights = run.read(run.tensor(module, run.forward(module.inner("meanestimator"), ones)))
    found = run.read(run.tensor(module, run.forward(module.inner(estimator), given)))
    return run.new(run.net.add(f"{module.name}_local", "Div", found, weights))


@layer("nn.SpatialContrastiveNormalization")
def spatial_contrastive_normalization(run: Run, module: Module, x: Tree) -> Tree:
    """Both, one after the other (`nn/SpatialContrastiveNormalization.lua`)."""
    return run.forward(module.inner("normalizer"), run.image(module, x))
