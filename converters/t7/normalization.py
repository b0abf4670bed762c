"""Rules of local contrast normalisation, which networks had before batch normalisation."""

from converters.lowering import Value
from converters.t7.memory import Handle, batched
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
    value = run.net.add(f"{module.name}.difference", "Sub", run.read(given), means)
    return run.fresh(module, value)


@layer("nn.SpatialDivisiveNormalization")
def spatial_divisive_normalization(run: Run, module: Module, x: Tree) -> Tree:
    """By the weighted deviation of each pixel's surroundings, `thresval` where it is small.

    Source: `nn/SpatialDivisiveNormalization.lua`.
    """
    given = run.image(module, x)
    bounded = run.net.add(
        f"{module.name}.bounded",
        "Threshold",
        _estimated(run, module, given, "stdestimator"),
        threshold=module.number("threshold", 1e-4),
        value=module.number("thresval", 1e-4),
    )
    value = run.net.add(f"{module.name}.quotient", "Div", run.read(given), bounded)
    return run.fresh(module, value)


def _estimated(run: Run, module: Module, given: Handle, estimator: str) -> Value:
    """Return an estimate by the weights that lie in the image, in the image's shape.

    The estimators' `nn.Replicate` leaves a dimension of one entry behind the planes, and what
    follows goes by the number of elements (`nn/CSubTable.lua`).
    """
    value = run.read(given)
    zeros = run.net.add(f"{module.name}.zeros", "Scale", value, factor=0)
    ones = run.new(run.net.add(f"{module.name}.ones", "Shift", zeros, offset=1))
    # Read before the estimator runs again: it has one output tensor.
    weights = run.read(run.tensor(module, run.forward(module.inner("meanestimator"), ones)))
    found = run.read(run.tensor(module, run.forward(module.inner(estimator), given)))
    local = run.net.add(f"{module.name}.local", "Div", found, weights)
    return run.net.add(f"{module.name}.image", "Reshape", local, shape=batched(given.shape))


@layer("nn.SpatialContrastiveNormalization")
def spatial_contrastive_normalization(run: Run, module: Module, x: Tree) -> Tree:
    """Both, one after the other (`nn/SpatialContrastiveNormalization.lua`)."""
    return run.forward(module.inner("normalizer"), run.image(module, x))
