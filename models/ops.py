"""The vocabulary of graphs: torch.nn's modules, and the few small ones that it lacks.

An op is a module class and the constructor arguments that a `Node` carries, all of them, in one
spelling: `Conv2d(3, 8, 3)` and `Conv2d(3, 8, (3, 3))` are the same node.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own habit

from models.errors import MisfitError
from models.graph import Inferred, Shape


class Add(nn.Module):
    """Sum of two tensors."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Concat(nn.Module):
    """Tensors one after the other along `dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.dim)


class Scale(nn.Module):
    """A tensor times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Reshape(nn.Module):
    """A tensor in another shape; -1 stands for the size that remains."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = list(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.shape)


class Pad(nn.Module):
    """A border of `value`; `padding` is given last dimension first, as in torch; negative crops."""

    def __init__(self, padding: Sequence[int], value: float) -> None:
        super().__init__()
        self.padding = list(padding)
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding, value=self.value)


class Narrow(nn.Module):
    """`length` entries of dimension `dim` from `start`."""

    def __init__(self, dim: int, start: int, length: int) -> None:
        super().__init__()
        self.dim = dim
        self.start = start
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(self.dim, self.start, self.length)


class MaxPoolIndices(nn.MaxPool2d):
    """Where max pooling found each maximum: an index into its plane, int64."""

    def forward(self, x: Tensor) -> Tensor:
        _, indices = F.max_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            return_indices=True,
        )
        return indices


class MaxUnpool(nn.Module):
    """Values put back where `MaxPoolIndices` found them, zeros elsewhere.

    Written as a scatter because the ONNX exporter has no rule for torch's own unpooling.
    """

    def __init__(self, output_size: Sequence[int]) -> None:
        super().__init__()
        self.output_size = list(output_size)

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        height, width = self.output_size
        zeros = x.new_zeros(x.shape[0], x.shape[1], height * width)
        flat = zeros.scatter(2, indices.flatten(2), x.flatten(2))
        return flat.reshape(x.shape[0], x.shape[1], height, width)


def _pair(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, (tuple, list)) else (value, value)
    return int(height), int(width)


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

OPS: dict[str, Op] = {
    "Add": Op(Add, {}),
    "AvgPool2d": Op(nn.AvgPool2d, _AVG_POOL),
    "BatchNorm1d": Op(nn.BatchNorm1d, _NORM),
    "BatchNorm2d": Op(nn.BatchNorm2d, _NORM),
    "Concat": Op(Concat, {"dim": int}),
    "Conv2d": Op(nn.Conv2d, _CONVOLUTION),
    "ConvTranspose2d": Op(nn.ConvTranspose2d, {**_CONVOLUTION, "output_padding": _pair}),
    "Dropout": Op(nn.Dropout, {"p": float}),
    "Dropout2d": Op(nn.Dropout2d, {"p": float}),
    "ELU": Op(nn.ELU, {"alpha": float}),
    "Flatten": Op(nn.Flatten, {"start_dim": int, "end_dim": int}),
    "Identity": Op(nn.Identity, {}),
    "LeakyReLU": Op(nn.LeakyReLU, {"negative_slope": float}),
    "Linear": Op(nn.Linear, {"in_features": int, "out_features": int, "bias": bool}),
    "LocalResponseNorm": Op(
        nn.LocalResponseNorm, {"size": int, "alpha": float, "beta": float, "k": float}
    ),
    "LogSoftmax": Op(nn.LogSoftmax, {"dim": int}),
    "MaxPool2d": Op(nn.MaxPool2d, _MAX_POOL),
    "MaxPoolIndices": Op(MaxPoolIndices, _MAX_POOL),
    "MaxUnpool": Op(MaxUnpool, {"output_size": _pair}),
    "Narrow": Op(Narrow, {"dim": int, "start": int, "length": int}),
    "PReLU": Op(nn.PReLU, {"num_parameters": int}),
    "Pad": Op(Pad, {"padding": _ints, "value": float}),
    "ReLU": Op(nn.ReLU, {}),
    "ReLU6": Op(nn.ReLU6, {}),
    "Reshape": Op(Reshape, {"shape": _ints}),
    "Scale": Op(Scale, {"factor": float}),
    "Softmax": Op(nn.Softmax, {"dim": int}),
    "Threshold": Op(nn.Threshold, {"threshold": float, "value": float}),
}
OP_NAMES = {op.module: name for name, op in OPS.items()}

# Settings of torch.nn's modules that no attribute says, and the one value that graphs mean.
_UNSAID = {
    "padding_mode": "zeros",
    "divisor_override": None,
    "return_indices": False,
    "track_running_stats": True,
}

# What torch.nn and torch raise for arguments or inputs that do not fit.
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
