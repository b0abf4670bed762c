"""Rules of functions of each element, and of probabilities."""

import math
from typing import Any

from converters.t7.network import Handle, Module, Run, Tree, layer


def _pointwise(run: Run, module: Module, x: Tree, op: str, **attrs: Any) -> Handle:
    """Apply a function to each element; `inplace` changes the input itself, for all who hold it."""
    given = run.tensor(module, x)
    value = run.net.add(module.name, op, run.read(given), **attrs)
    return run.write(module, given, value) if module.flag("inplace") else run.fresh(module, value)


@layer("nn.ReLU", "nn.Threshold")
def threshold(run: Run, module: Module, x: Tree) -> Tree:
    """`x` above `threshold`, else `val`; ReLU is that with 0 and 0 (`nn/ReLU.lua`)."""
    limit = module.number("threshold", 0 if module.source.class_name == "nn.ReLU" else 1e-6)
    value = module.number("val", 0)
    if limit == value == 0:
        return _pointwise(run, module, x, "ReLU")
    return _pointwise(run, module, x, "Threshold", threshold=limit, value=value)


@layer("cudnn.ReLU")
def cudnn_relu(run: Run, module: Module, x: Tree) -> Tree:
    """The positive part."""
    return _pointwise(run, module, x, "ReLU")


@layer("nn.ReLU6")
def relu6(run: Run, module: Module, x: Tree) -> Tree:
    """Clamped to 0 and 6."""
    return _pointwise(run, module, x, "ReLU6")


@layer("nn.LeakyReLU")
def leaky_relu(run: Run, module: Module, x: Tree) -> Tree:
    """`negval` times `x` below 0."""
    return _pointwise(run, module, x, "LeakyReLU", negative_slope=module.number("negval", 0.01))


@layer("nn.ELU")
def elu(run: Run, module: Module, x: Tree) -> Tree:
    """`alpha * (exp(x) - 1)` below 0."""
    return _pointwise(run, module, x, "ELU", alpha=module.number("alpha", 1))


@layer("nn.MulConstant")
def mul_constant(run: Run, module: Module, x: Tree) -> Tree:
    """Times a constant."""
    return _pointwise(run, module, x, "Scale", factor=module.number("constant_scalar"))


@layer("nn.Dropout")
def dropout(run: Run, module: Module, x: Tree) -> Tree:
    """Nothing, in evaluation mode; the first version multiplied by `1 - p` there.

    The second version, of July 2014, is told by the field `v2` (`nn/Dropout.lua`).
    """
    p = _drop_rate(module)
    if module.flag("v2"):
        return _pointwise(run, module, x, "Dropout", p=p)
    return _pointwise(
        run, module, _pointwise(run, module, x, "Dropout", p=p), "Scale", factor=1 - p
    )


@layer("nn.SpatialDropout")
def spatial_dropout(run: Run, module: Module, x: Tree) -> Tree:
    """Times `1 - p`, in evaluation mode: it drops whole planes in training without rescaling."""
    p = _drop_rate(module)
    dropped = _pointwise(run, module, x, "Dropout2d", p=p)
    return _pointwise(run, module, dropped, "Scale", factor=1 - p)


def _drop_rate(module: Module) -> float:
    if module.flag("stochastic_inference"):
        raise module.unsupported("draws random numbers in evaluation mode (stochastic_inference)")
    return module.number("p", 0.5)


@layer("nn.SoftMax")
def soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Softmax over the classes of a sample or of a batch, told apart by rank."""
    return _normalised(run, module, x, "Softmax")


@layer("nn.LogSoftMax", "nn.SpatialLogSoftMax")
def log_soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Log of softmax over the classes of a sample or of a batch, told apart by rank."""
    return _normalised(run, module, x, "LogSoftmax")


@layer("cudnn.LogSoftMax")
def cudnn_log_soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Log of softmax over everything that is no batch.

    cuDNN's INSTANCE mode takes a whole image as one distribution (`cudnn/LogSoftMax.lua`), which is
    the same as over the classes where there is one pixel.
    """
    given = run.tensor(module, x)
    if len(given.shape) > 2 and math.prod(given.shape[-2:]) > 1:
        raise module.unsupported("normalises over all pixels of an image at once")
    return _normalised(run, module, x, "LogSoftmax")


def _normalised(run: Run, module: Module, x: Tree, op: str) -> Handle:
    """Normalise over the first dimension of rank 1 or 3, the second of 2 or 4 (THNN/SoftMax.c)."""
    given = run.tensor(module, x)
    rank = len(given.shape)
    if rank > 4:
        raise module.unsupported(f"takes 1 to 4 dimensions, its input has {rank}")
    return run.fresh(
        module, run.net.add(module.name, op, run.read(given), dim=1 if rank in (2, 4) else 0)
    )
