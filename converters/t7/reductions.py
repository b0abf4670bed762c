"""Rules that fold a dimension: sums, means, extremes, norms."""

import math

from converters.t7.memory import Handle
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer
from converters.t7.tables import positive_dimension


@layer("nn.Sum")
def summed(run: Run, module: Module, x: Tree) -> Tree:
    """Sum along a dimension, or mean where `sizeAverage` says so (`nn/Sum.lua`)."""
    return _folded(run, module, x, "Mean" if module.flag("sizeAverage") else "Sum")


@layer("nn.Mean")
def mean(run: Run, module: Module, x: Tree) -> Tree:
    """Mean along a dimension; a Sum with `sizeAverage` since 2015 (`nn/Mean.lua`)."""
    return _folded(run, module, x, "Mean" if module.flag("sizeAverage", default=True) else "Sum")


@layer("nn.Max")
def largest(run: Run, module: Module, x: Tree) -> Tree:
    """Largest along a dimension (`nn/Max.lua`)."""
    return _folded(run, module, x, "Max")


@layer("nn.Min")
def smallest(run: Run, module: Module, x: Tree) -> Tree:
    """Smallest along a dimension (`nn/Min.lua`)."""
    return _folded(run, module, x, "Min")


def _folded(run: Run, module: Module, x: Tree, op: str) -> Handle:
    """The dimension goes, unless `squeeze` is false; of a vector one entry stays, as always."""
    given = run.tensor(module, x)
    rank = len(given.shape)
    keepdim = rank == 1 or not module.flag("squeeze", default=True)
    dim = positive_dimension(module, rank)
    value = run.net.add(module.name, op, run.read(given), dim=dim, keepdim=keepdim)
    return run.fresh(module, value)


@layer("nn.Normalize")
def normalize(run: Run, module: Module, x: Tree) -> Tree:
    """Each sample by its p-norm, `(sum |x|^p + eps)^(1/p)`; `max |x| + eps` for infinite p.

    Source: `nn/Normalize.lua`; `eps` is under the root there, in torch.nn it is a lower bound.
    """
    given = run.tensor(module, x)
    rank = len(given.shape)
    p = math.inf if module.source.fields.get("p") == math.inf else module.number("p")
    if rank > 2 or p <= 0:
        raise module.unsupported(f"takes a vector or a matrix and p above 0, not {rank} and {p}")
    value = run.read(given)
    at, dim = f"{module.name}_norm", rank - 1
    norm = value if p % 2 == 0 else run.net.add(at, "Abs", value)
    if p == math.inf:
        norm = run.net.add(at, "Max", norm, dim=dim, keepdim=True)
    else:
        norm = run.net.add(
            at, "Sum", run.net.add(at, "Power", norm, exponent=p), dim=dim, keepdim=True
        )
    norm = run.net.add(at, "Shift", norm, offset=module.number("eps", 1e-10))
    if p != math.inf:
        norm = run.net.add(at, "Power", norm, exponent=1 / p)
    return run.fresh(module, run.net.add(module.name, "Div", value, norm))
