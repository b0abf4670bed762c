"""The vocabulary of graphs: torch.nn's modules, and the small ones of `models.layers`.

An op is a module class and the constructor arguments that a `Node` carries, all of them, in one
spelling: `Conv2d(3, 8, 3)` and `Conv2d(3, 8, (3, 3))` are the same node.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from models import layers
from models.errors import MisfitError
from models.graph import Inferred, Shape


def _pair(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, (tuple, list)) else (value, value)
    return int(height), int(width)


def _single(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, (tuple, list)) else (int(value),)


def _ints(value: Any) -> tuple[int, ...]:
    return tuple(int(item) for item in value)


class Op(NamedTuple):
    """A module class and how to spell each of its arguments."""

    module: type[nn.Module]
    attrs: dict[str, Callable[[Any], Any]]


_CONVOLUTION: dict[str, Callable[[Any], Any]] = {
    "in_channels": int,
    "out_channels": int,
    "kernel_size": _pair,
    "stride": _pair,
    "padding": _pair,
    "dilation": _pair,
    "groups": int,
    "bias": bool,
}
_ROW_CONVOLUTION = {
    name: _single if spell is _pair else spell for name, spell in _CONVOLUTION.items()
}
_NORM: dict[str, Callable[[Any], Any]] = {
    "num_features": int,
    "eps": float,
    "momentum": float,
    "affine": bool,
}
_MAX_POOL: dict[str, Callable[[Any], Any]] = {
    "kernel_size": _pair,
    "stride": _pair,
    "padding": _pair,
    "dilation": _pair,
    "ceil_mode": bool,
}
_AVG_POOL: dict[str, Callable[[Any], Any]] = {
    "kernel_size": _pair,
    "stride": _pair,
    "padding": _pair,
    "ceil_mode": bool,
    "count_include_pad": bool,
}

_REDUCTION: dict[str, Callable[[Any], Any]] = {"dim": int, "keepdim": bool}

OPS: dict[str, Op] = {
    "Abs": Op(layers.Abs, {}),
    "AdaptiveAvgPool2d": Op(nn.AdaptiveAvgPool2d, {"output_size": _pair}),
    "AdaptiveMaxPool2d": Op(layers.AdaptiveMaxPool2d, {"output_size": _pair}),
    "Add": Op(layers.Add, {}),
    "AtLeast": Op(layers.AtLeast, {"value": float}),
    "AtMost": Op(layers.AtMost, {"value": float}),
    "AvgPool2d": Op(nn.AvgPool2d, _AVG_POOL),
    "BatchNorm1d": Op(nn.BatchNorm1d, _NORM),
    "BatchNorm2d": Op(nn.BatchNorm2d, _NORM),
    "Concat": Op(layers.Concat, {"dim": int}),
    "Conv1d": Op(nn.Conv1d, _ROW_CONVOLUTION),
    "Conv2d": Op(nn.Conv2d, _CONVOLUTION),
    "ConvTranspose2d": Op(nn.ConvTranspose2d, {**_CONVOLUTION, "output_padding": _pair}),
    "Div": Op(layers.Div, {}),
    "Dropout": Op(nn.Dropout, {"p": float}),
    "Dropout2d": Op(nn.Dropout2d, {"p": float}),
    "ELU": Op(nn.ELU, {"alpha": float}),
    "Exp": Op(layers.Exp, {}),
    "Flatten": Op(nn.Flatten, {"start_dim": int, "end_dim": int}),
    "GELU": Op(nn.GELU, {}),
    "GroupNorm": Op(
        nn.GroupNorm, {"num_groups": int, "num_channels": int, "eps": float, "affine": bool}
    ),
    "Hardshrink": Op(nn.Hardshrink, {"lambd": float}),
    "Hardtanh": Op(nn.Hardtanh, {"min_val": float, "max_val": float}),
    "Identity": Op(nn.Identity, {}),
    "LayerNorm": Op(
        nn.LayerNorm, {"normalized_shape": _ints, "eps": float, "elementwise_affine": bool}
    ),
    "LeakyReLU": Op(nn.LeakyReLU, {"negative_slope": float}),
    "LearnedScale": Op(layers.LearnedScale, {"shape": _ints}),
    "LearnedShift": Op(layers.LearnedShift, {"shape": _ints}),
    "Linear": Op(nn.Linear, {"in_features": int, "out_features": int, "bias": bool}),
    "LocalResponseNorm": Op(
        nn.LocalResponseNorm, {"size": int, "alpha": float, "beta": float, "k": float}
    ),
    "Log": Op(layers.Log, {}),
    "LogSigmoid": Op(nn.LogSigmoid, {}),
    "LogSoftmax": Op(nn.LogSoftmax, {"dim": int}),
    "MatMul": Op(layers.MatMul, {}),
    "Max": Op(layers.Max, _REDUCTION),
    "Maximum": Op(layers.Maximum, {}),
    "MaxPool2d": Op(nn.MaxPool2d, _MAX_POOL),
    "MaxPoolIndices": Op(layers.MaxPoolIndices, _MAX_POOL),
    "MaxUnpool": Op(layers.MaxUnpool, {"output_size": _pair}),
    "Mean": Op(layers.Mean, _REDUCTION),
    "Min": Op(layers.Min, _REDUCTION),
    "Minimum": Op(layers.Minimum, {}),
    "Mul": Op(layers.Mul, {}),
    "Narrow": Op(layers.Narrow, {"dim": int, "start": int, "length": int}),
    "Pad": Op(layers.Pad, {"padding": _ints, "value": float}),
    "Permute": Op(layers.Permute, {"dims": _ints}),
    "PixelShuffle": Op(nn.PixelShuffle, {"upscale_factor": int}),
    "Power": Op(layers.Power, {"exponent": float}),
    "PReLU": Op(nn.PReLU, {"num_parameters": int}),
    "ReflectionPad2d": Op(nn.ReflectionPad2d, {"padding": _ints}),
    "ReLU": Op(nn.ReLU, {}),
    "ReLU6": Op(nn.ReLU6, {}),
    "Replicate": Op(layers.Replicate, {"dim": int, "count": int}),
    "ReplicationPad2d": Op(nn.ReplicationPad2d, {"padding": _ints}),
    "Reshape": Op(layers.Reshape, {"shape": _ints}),
    "RReLU": Op(layers.RReLU, {"lower": float, "upper": float}),
    "Scale": Op(layers.Scale, {"factor": float}),
    "Select": Op(layers.Select, {"dim": int, "index": int}),
    "SELU": Op(nn.SELU, {}),
    "Shift": Op(layers.Shift, {"offset": float}),
    "Sigmoid": Op(nn.Sigmoid, {}),
    "Softmax": Op(nn.Softmax, {"dim": int}),
    "Softplus": Op(nn.Softplus, {"beta": float, "threshold": float}),
    "Softshrink": Op(nn.Softshrink, {"lambd": float}),
    "Softsign": Op(nn.Softsign, {}),
    "Sub": Op(layers.Sub, {}),
    "Sum": Op(layers.Sum, _REDUCTION),
    "Tanh": Op(nn.Tanh, {}),
    "Tanhshrink": Op(nn.Tanhshrink, {}),
    "Threshold": Op(nn.Threshold, {"threshold": float, "value": float}),
    "UpsamplingBilinear2d": Op(nn.UpsamplingBilinear2d, {"size": _pair}),
    "UpsamplingNearest2d": Op(nn.UpsamplingNearest2d, {"scale_factor": float}),
}
OP_NAMES = {op.module: name for name, op in OPS.items()}

# Settings of torch.nn's modules that no attribute says, and the one value that graphs mean.
_UNSAID = {
    "approximate": "none",
    "padding_mode": "zeros",
    "divisor_override": None,
    "return_indices": False,
    "track_running_stats": True,
}

# What torch.nn and torch raise for arguments or inputs that do not fit. A RecursionError is a
# RuntimeError as well, but says nothing about them: it is a bug, and passes.
_MISFITS = (
    ArithmeticError,
    AssertionError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def create(op: str, attrs: Mapping[str, Any]) -> nn.Module:
    """Return the module that a node means, with torch's own initial weights.

    Raises:
        MisfitError: There is no such op, or it does not take these arguments.
    """
    if op not in OPS:
        raise MisfitError(f"there is no op {op}")
    if unknown := attrs.keys() - OPS[op].attrs.keys():
        raise MisfitError(f"{op} has no argument {', '.join(sorted(unknown))}")
    try:
        return OPS[op].module(**attrs)
    except RecursionError:
        raise
    except _MISFITS as error:
        raise MisfitError(f"{op}({attrs}): {_first_line(error)}") from error


def attrs_of(module: nn.Module) -> dict[str, Any]:
    """Return a module's arguments in the one spelling that graphs use.

    Raises:
        MisfitError: An argument is set to what graphs have no word for, such as `padding="same"`.
    """
    for name, meant in _UNSAID.items():
        if (found := getattr(module, name, meant)) != meant:
            raise MisfitError(f"{name}={found!r}, graphs can only say {meant!r}")
    try:
        return {
            name: module.bias is not None
            if name == "bias"
            else _listed(spell(getattr(module, name)))
            for name, spell in OPS[OP_NAMES[type(module)]].attrs.items()
        }
    except RecursionError:
        raise
    except _MISFITS as error:
        raise MisfitError(f"{module} has an argument that graphs cannot say: {error}") from error


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value  # as JSON gives it back


def tensor_shapes(module: nn.Module) -> dict[str, Shape]:
    """Return the tensors that a file must supply; the count of training batches is not one."""
    state = module.state_dict(keep_vars=True)
    return {
        name: tuple(value.shape) for name, value in state.items() if name != "num_batches_tracked"
    }


def infer(op: str, attrs: Mapping[str, Any], shapes: Sequence[Shape]) -> Inferred:
    """Run an op on torch's meta device: shapes in, shapes out, no memory.

    Raises:
        MisfitError: The arguments, or the input shapes, do not fit.
    """
    with torch.device("meta"), torch.inference_mode():
        module = create(op, attrs).eval()
        try:
            inputs = [
                torch.empty(shape, dtype=kind)
                for shape, kind in zip(shapes, _kinds(op), strict=False)
            ]
            output = module(*inputs)
        except RecursionError:
            raise
        except _MISFITS as error:
            raise MisfitError(_first_line(error)) from error
    return Inferred(attrs_of(module), tensor_shapes(module), tuple(output.shape))


def _kinds(op: str) -> Iterator[torch.dtype]:
    """Element types of an op's inputs: numbers, but for the indices that unpooling takes second."""
    yield torch.float32
    yield from itertools.repeat(torch.int64 if op == "MaxUnpool" else torch.float32)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
