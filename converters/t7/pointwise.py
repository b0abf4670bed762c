"""Rules of functions of each element, and of probabilities."""

import math
from typing import Any

from converters.t7.memory import Handle, batched
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer
from converters.t7.objects import Tensor
from converters.t7.shapes import viewed


def _pointwise(run: Run, module: Module, x: Tree, op: str, **attrs: Any) -> Handle:
    """Apply a function to each element."""
    value = run.net.add(module.name, op, run.read(run.tensor(module, x)), **attrs)
    return run.fresh(module, value)


def _in_place(run: Run, module: Module, x: Tree, op: str, **attrs: Any) -> Handle:
    """Apply a function to each element of the input itself, for all who hold it, if `inplace`."""
    if not module.flag("inplace"):
        return _pointwise(run, module, x, op, **attrs)
    given = run.tensor(module, x)
    return run.write(module, given, run.net.add(module.name, op, run.read(given), **attrs))


@layer("nn.ReLU", "nn.Threshold")
def threshold(run: Run, module: Module, x: Tree) -> Tree:
    """`x` above `threshold`, else `val`; ReLU is that with 0 and 0 (`nn/ReLU.lua`)."""
    limit = module.number("threshold", 0 if module.source.class_name == "nn.ReLU" else 1e-6)
    value = module.number("val", 0)
    if limit == value == 0:
        return _in_place(run, module, x, "ReLU")
    return _in_place(run, module, x, "Threshold", threshold=limit, value=value)


@layer("cudnn.ReLU")
def cudnn_relu(run: Run, module: Module, x: Tree) -> Tree:
    """The positive part."""
    return _in_place(run, module, x, "ReLU")


@layer("cudnn.ClippedReLU")
def cudnn_clipped_relu(run: Run, module: Module, x: Tree) -> Tree:
    """Clamped to 0 and `ceiling` (`cudnn/ClippedReLU.lua`)."""
    return _in_place(run, module, x, "Hardtanh", min_val=0, max_val=module.number("ceiling"))


@layer("nn.ReLU6")
def relu6(run: Run, module: Module, x: Tree) -> Tree:
    """Clamped to 0 and 6."""
    return _in_place(run, module, x, "ReLU6")


@layer("nn.HardTanh", "nn.Clamp")
def hard_tanh(run: Run, module: Module, x: Tree) -> Tree:
    """Clamped to `min_val` and `max_val`, which the oldest files lack (`nn/HardTanh.lua`)."""
    limits = module.number("min_val", -1), module.number("max_val", 1)
    return _in_place(run, module, x, "Hardtanh", min_val=limits[0], max_val=limits[1])


@layer("nn.LeakyReLU")
def leaky_relu(run: Run, module: Module, x: Tree) -> Tree:
    """`negval` times `x` below 0."""
    return _in_place(run, module, x, "LeakyReLU", negative_slope=module.number("negval", 0.01))


@layer("nn.RReLU")
def rrelu(run: Run, module: Module, x: Tree) -> Tree:
    """Below 0 a slope half way between `lower` and `upper`, drawn in training (`THNN/RReLU.c`)."""
    bounds = module.number("lower", 1 / 8), module.number("upper", 1 / 3)
    return _in_place(run, module, x, "RReLU", lower=bounds[0], upper=bounds[1])


@layer("nn.ELU")
def elu(run: Run, module: Module, x: Tree) -> Tree:
    """`alpha * (exp(x) - 1)` below 0."""
    return _in_place(run, module, x, "ELU", alpha=module.number("alpha", 1))


@layer("nn.SoftPlus")
def soft_plus(run: Run, module: Module, x: Tree) -> Tree:
    """`log(1 + exp(beta x)) / beta`, and `x` itself where `beta x` is above `threshold`."""
    attrs = {"beta": module.number("beta", 1), "threshold": module.number("threshold", 20)}
    return _pointwise(run, module, x, "Softplus", **attrs)


@layer("nn.HardShrink")
def hard_shrink(run: Run, module: Module, x: Tree) -> Tree:
    """0 within `lambda` of 0, else `x` (`THNN/HardShrink.c`)."""
    return _pointwise(run, module, x, "Hardshrink", lambd=module.number("lambda", 0.5))


@layer("nn.SoftShrink")
def soft_shrink(run: Run, module: Module, x: Tree) -> Tree:
    """0 within `lambda` of 0, else `x` moved to 0 by it (`THNN/SoftShrink.c`)."""
    return _pointwise(run, module, x, "Softshrink", lambd=module.number("lambda", 0.5))


_BY_NAME = {
    "nn.Abs": "Abs",
    "nn.Exp": "Exp",
    "nn.Log": "Log",
    "nn.LogSigmoid": "LogSigmoid",
    "nn.Sigmoid": "Sigmoid",
    "nn.SoftSign": "Softsign",
    "nn.Tanh": "Tanh",
    "nn.TanhShrink": "Tanhshrink",
    "cudnn.Sigmoid": "Sigmoid",
    "cudnn.Tanh": "Tanh",
}


@layer(*_BY_NAME)
def named(run: Run, module: Module, x: Tree) -> Tree:
    """Functions without a parameter; cudnn's may work in place (`cudnn/Pointwise.lua`)."""
    apply = _in_place if module.source.class_name.startswith("cudnn.") else _pointwise
    return apply(run, module, x, _BY_NAME[module.source.class_name])


_EXPONENTS = {"nn.Square": 2.0, "nn.Sqrt": 0.5}


@layer("nn.Power", *_EXPONENTS)
def power(run: Run, module: Module, x: Tree) -> Tree:
    """`x` to the power of `pow`; the `eps` of nn.Sqrt is for gradients only (`THNN/Sqrt.c`)."""
    exponent = _EXPONENTS.get(module.source.class_name)
    if exponent is None:
        exponent = module.number("pow")
    return _pointwise(run, module, x, "Power", exponent=exponent)


@layer("nn.MulConstant")
def mul_constant(run: Run, module: Module, x: Tree) -> Tree:
    """Times a constant."""
    return _in_place(run, module, x, "Scale", factor=_constant(module))


@layer("nn.AddConstant")
def add_constant(run: Run, module: Module, x: Tree) -> Tree:
    """Plus a constant."""
    return _in_place(run, module, x, "Shift", offset=_constant(module))


def _constant(module: Module) -> float:
    if isinstance(module.source.fields.get("constant_scalar"), Tensor):
        raise module.unsupported("its constant is a tensor, one number for each feature")
    return module.number("constant_scalar")


@layer("nn.WhiteNoise")
def white_noise(run: Run, module: Module, x: Tree) -> Tree:
    """A copy, and the noise's mean added to it (`nn/WhiteNoise.lua`)."""
    given, mean = run.tensor(module, x), module.number("mean", 0)
    if mean == 0:
        return run.fresh(module, run.read(given))
    return run.fresh(module, run.net.add(module.name, "Shift", run.read(given), offset=mean))


@layer("nn.Dropout")
def dropout(run: Run, module: Module, x: Tree) -> Tree:
    """Nothing, in evaluation mode; the first version multiplied by `1 - p` there.

    The second version, of July 2014, is told by the field `v2` (`nn/Dropout.lua`).
    """
    p = _drop_rate(module)
    if module.flag("v2"):
        return _in_place(run, module, x, "Dropout", p=p)
    return _in_place(run, module, _in_place(run, module, x, "Dropout", p=p), "Scale", factor=1 - p)


@layer("nn.SpatialDropout")
def spatial_dropout(run: Run, module: Module, x: Tree) -> Tree:
    """Times `1 - p`, in evaluation mode: it drops whole planes in training without rescaling."""
    p = _drop_rate(module)
    op = "Dropout2d" if len(run.tensor(module, x).shape) == 4 else "Dropout"
    dropped = _pointwise(run, module, x, op, p=p)
    return _pointwise(run, module, dropped, "Scale", factor=1 - p)


def _drop_rate(module: Module) -> float:
    if module.flag("stochastic_inference"):
        raise module.unsupported("draws random numbers in evaluation mode (stochastic_inference)")
    return module.number("p", 0.5)


@layer("nn.SoftMax", "nn.SpatialSoftMax", "cudnn.SpatialSoftMax")
def soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Softmax over the classes of a sample or of a batch, told apart by rank."""
    return _normalised(run, module, x, "Softmax")


@layer("nn.SoftMin")
def soft_min(run: Run, module: Module, x: Tree) -> Tree:
    """Softmax of the negated input (`nn/SoftMin.lua`)."""
    given = run.tensor(module, x)
    negated = run.net.add(f"{module.name}_negated", "Scale", run.read(given), factor=-1)
    return _normalised(run, module, run.new(negated), "Softmax")


@layer("nn.LogSoftMax", "nn.SpatialLogSoftMax", "cudnn.SpatialLogSoftMax")
def log_soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Log of softmax over the classes of a sample or of a batch, told apart by rank."""
    return _normalised(run, module, x, "LogSoftmax")


@layer("cudnn.SoftMax", "cudnn.LogSoftMax")
def cudnn_soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Softmax, or its log, over everything that is no batch.

    cuDNN's INSTANCE mode takes a whole image as one distribution (`cudnn/SoftMax.lua`), which is
    the same as over the classes where there is one pixel.
    """
    op = "Softmax" if module.source.class_name == "cudnn.SoftMax" else "LogSoftmax"
    given = run.tensor(module, x)
    rank = len(given.shape)
    if rank not in (3, 4) or math.prod(given.shape[-2:]) == 1:
        return _normalised(run, module, x, op)
    flat = (1, -1) if rank == 3 else (given.shape[0], -1)
    inside = viewed(run, module, run.new(run.read(given)), flat, f"{module.name}_flat")
    value = run.net.add(module.name, op, run.read(inside), dim=1)
    shape = batched(given.shape)
    return run.fresh(module, run.net.add(f"{module.name}_image", "Reshape", value, shape=shape))


def _normalised(run: Run, module: Module, x: Tree, op: str) -> Handle:
    """Normalise over the first dimension of rank 1 or 3, the second of 2 or 4 (THNN/SoftMax.c)."""
    given = run.tensor(module, x)
    rank = len(given.shape)
    if rank > 4:
        raise module.unsupported(f"takes 1 to 4 dimensions, its input has {rank}")
    return run.fresh(
        module, run.net.add(module.name, op, run.read(given), dim=1 if rank in (2, 4) else 0)
    )
