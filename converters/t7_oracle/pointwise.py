"""Layers that treat every element alike, and those that scale or shift with weights.

Source: the Lua file of the class in torch/nn and lib/THNN/generic/*.c; Pointwise.lua in
soumith/cudnn.torch. Where a layer works in place it changes its input and its output becomes that.
"""

from collections.abc import Callable

import numpy as np

from converters.t7.objects import Tensor as StoredTensor
from converters.t7_oracle.interpreter import Layer, on_tensor
from converters.t7_oracle.tensor import Array, Tensor, Value


def _in_place(layer: Layer, x: Tensor, values: Array) -> Value:
    x.array[...] = values
    return layer.output.set(x)


def _perhaps_in_place(layer: Layer, x: Tensor, values: Array) -> Value:
    return _in_place(layer, x, values) if layer.flag("inplace") else layer.give(values)


@on_tensor("nn.Threshold", "nn.ReLU")
def threshold(layer: Layer, x: Tensor) -> Value:
    """What is not above the threshold becomes `val` (Threshold.c). NaN differs with `inplace`."""
    limit, low = layer.number("threshold"), layer.number("val")
    if not layer.flag("inplace"):
        return layer.give(np.where(x.array > limit, x.array, low))
    if low > limit:
        raise layer.refused("in place, with a value above the threshold")
    return _in_place(layer, x, np.where(x.array <= limit, low, x.array))


@on_tensor("nn.ReLU6")
def relu6(layer: Layer, x: Tensor) -> Value:
    """Between 0 and 6 (ReLU6.lua)."""
    return _between(layer, x, 0, 6)


@on_tensor("nn.HardTanh", "nn.Clamp")
def hard_tanh(layer: Layer, x: Tensor) -> Value:
    """Between two numbers, -1 and 1 if none are stored (HardTanh.lua)."""
    return _between(layer, x, layer.number("min_val", -1), layer.number("max_val", 1))


def _between(layer: Layer, x: Tensor, low: float, high: float) -> Value:
    # HardTanh.c: NaN is below neither number; it becomes the upper one, in place it stays
    values = np.where(x.array < low, low, np.where(x.array <= high, x.array, high))
    if layer.flag("inplace"):
        return _in_place(layer, x, np.where(np.isnan(x.array), x.array, values))
    return layer.give(values)


@on_tensor("nn.LeakyReLU")
def leaky_relu(layer: Layer, x: Tensor) -> Value:
    """A slope below 0 (LeakyReLU.c)."""
    slope = layer.number("negval")
    return _perhaps_in_place(layer, x, np.where(x.array > 0, x.array, x.array * slope))


@on_tensor("nn.RReLU")
def rrelu(layer: Layer, x: Tensor) -> Value:
    """The mean of the random slopes (RReLU.c)."""
    slope = (layer.number("lower") + layer.number("upper")) / 2
    return _perhaps_in_place(layer, x, np.where(x.array <= 0, x.array * slope, x.array))


@on_tensor("nn.ELU")
def elu(layer: Layer, x: Tensor) -> Value:
    """An exponential below 0 (ELU.c)."""
    low = (np.exp(x.array) - 1) * layer.number("alpha")
    return _perhaps_in_place(layer, x, np.where(x.array <= 0, low, x.array))


@on_tensor("nn.PReLU")
def prelu(layer: Layer, x: Tensor) -> Value:
    """A slope below 0, of every plane or of all (PReLU.c)."""
    planes, slopes = layer.whole("nOutputPlane", 0, least=0), layer.weight("weight")
    if planes:
        axis = 1 if x.rank > 1 else 0
        if x.shape[axis] != planes or slopes.size != planes:
            raise layer.refused(f"{planes} planes, an input of {x.shape}, {slopes.size} slopes")
        slopes = slopes.reshape([planes if at == axis else 1 for at in range(x.rank)])
    else:
        slopes = slopes.ravel()[:1]
    return layer.give(np.where(x.array > 0, x.array, slopes * x.array))


@on_tensor("cudnn.ReLU")
def cudnn_relu(layer: Layer, x: Tensor) -> Value:
    """Not below 0; NaN stays (Pointwise.lua: CUDNN_PROPAGATE_NAN)."""
    return _perhaps_in_place(layer, x, np.maximum(x.array, 0))


@on_tensor("cudnn.ClippedReLU")
def cudnn_clipped_relu(layer: Layer, x: Tensor) -> Value:
    """Between 0 and the ceiling (ClippedReLU.lua)."""
    return _perhaps_in_place(layer, x, np.clip(x.array, 0, layer.number("ceiling")))


def _sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def _soft_plus(layer: Layer, x: Array) -> Array:
    beta, limit = layer.number("beta", 1), layer.number("threshold", 20)  # since June 2014
    return np.where(x * beta > limit, x, np.log1p(np.exp(x * beta)) / beta)


def _soft_shrink(layer: Layer, x: Array) -> Array:
    edge = layer.number("lambda")
    return np.where(x > edge, x - edge, np.where(x < -edge, x + edge, 0))


def _hard_shrink(layer: Layer, x: Array) -> Array:
    edge = layer.number("lambda")
    return np.where((x > edge) | (x < -edge), x, 0)


# Of nn: never in place. nn.Sqrt has a field `eps`, which only its backward pass uses (Sqrt.c).
_FORMULAS: dict[str, Callable[[Layer, Array], Array]] = {
    "nn.Abs": lambda layer, x: np.abs(x),
    "nn.Square": lambda layer, x: x * x,
    "nn.Sqrt": lambda layer, x: np.sqrt(x),
    "nn.Power": lambda layer, x: x ** layer.number("pow"),
    "nn.Exp": lambda layer, x: np.exp(x),
    "nn.Log": lambda layer, x: np.log(x),
    "nn.Sigmoid": lambda layer, x: _sigmoid(x),
    "nn.Tanh": lambda layer, x: np.tanh(x),
    "nn.TanhShrink": lambda layer, x: x - np.tanh(x),
    "nn.SoftSign": lambda layer, x: x / (1 + np.abs(x)),
    "nn.SoftPlus": _soft_plus,
    "nn.SoftShrink": _soft_shrink,
    "nn.HardShrink": _hard_shrink,
    # LogSigmoid.c takes the larger of 0 and -x out of the sum of exponentials
    "nn.LogSigmoid": lambda layer, x: -np.logaddexp(0, -x),
}


@on_tensor(*_FORMULAS)
def formula(layer: Layer, x: Tensor) -> Value:
    """A function of each element (the class's .lua and .c)."""
    return layer.give(_FORMULAS[layer.name](layer, x.array))


@on_tensor("cudnn.Sigmoid", "cudnn.Tanh")
def cudnn_activation(layer: Layer, x: Tensor) -> Value:
    """As the nn layers, but perhaps in place (Pointwise.lua)."""
    values = _sigmoid(x.array) if layer.name == "cudnn.Sigmoid" else np.tanh(x.array)
    return _perhaps_in_place(layer, x, values)


@on_tensor("nn.MulConstant")
def mul_constant(layer: Layer, x: Tensor) -> Value:
    """Times a number (MulConstant.lua)."""
    return _perhaps_in_place(layer, x, x.array * layer.number("constant_scalar"))


@on_tensor("nn.AddConstant")
def add_constant(layer: Layer, x: Tensor) -> Value:
    """Plus a number, or plus a vector for each row (AddConstant.lua)."""
    if not isinstance(layer.get("constant_scalar"), StoredTensor):
        return _perhaps_in_place(layer, x, x.array + layer.number("constant_scalar"))
    vector = layer.weight("constant_scalar").ravel()
    if layer.ranked(x, 1, 2).shape[-1] != vector.size:
        raise layer.refused(f"adds {vector.size} numbers to an input of {x.shape}")
    return _perhaps_in_place(layer, x, x.array + vector)


@on_tensor("nn.Mul")
def mul(layer: Layer, x: Tensor) -> Value:
    """Times one learned number (Mul.lua)."""
    return layer.give(x.array * layer.weight("weight").ravel()[0])


@on_tensor("nn.Add")
def add(layer: Layer, x: Tensor) -> Value:
    """Plus a learned bias, of one number or of every element but the batch (Add.lua)."""
    bias = layer.weight("bias")
    if layer.flag("scalar"):
        return layer.give(x.array + bias.ravel()[0])
    if x.shape == bias.shape:
        return layer.give(x.array + bias)
    rows = x.elements((x.shape[0], -1))
    if rows.shape[1] != bias.size:
        raise layer.refused(f"adds {bias.size} numbers to an input of {x.shape}")
    return layer.give((rows + bias.ravel()).reshape(x.shape))


@on_tensor("nn.CMul")
def cmul(layer: Layer, x: Tensor) -> Value:
    """Times learned numbers (CMul.lua)."""
    return layer.give(x.array * _expanded(layer.weight("weight"), x))


@on_tensor("nn.CAdd")
def cadd(layer: Layer, x: Tensor) -> Value:
    """Plus learned numbers (CAdd.lua)."""
    return layer.give(x.array + _expanded(layer.weight("bias"), x))


def _expanded(weight: Array, x: Tensor) -> Array:
    if weight.size == x.count:
        return weight.reshape(x.shape)
    if weight.ndim == x.rank:
        return np.broadcast_to(weight, x.shape)
    batch = x.shape[0]
    return np.broadcast_to(weight.reshape(1, -1), (batch, x.count // batch)).reshape(x.shape)


@on_tensor("nn.Dropout")
def dropout(layer: Layer, x: Tensor) -> Value:
    """Unchanged; version 1, and files from before the field `v2`, scale by 1 - p (Dropout.lua)."""
    out = layer.output.set(x) if layer.flag("inplace") else layer.output.copy(x)
    p = layer.number("p")
    if p > 0 and layer.flag("stochastic_inference"):
        raise layer.refused("draws random numbers")
    if p > 0 and not layer.flag("v2"):
        out.array[...] *= 1 - p
    return out


@on_tensor("nn.SpatialDropout")
def spatial_dropout(layer: Layer, x: Tensor) -> Value:
    """Scaled by 1 - p, in every version (SpatialDropout.lua)."""
    if layer.flag("stochastic_inference"):
        raise layer.refused("draws random numbers")
    return layer.give(x.array * (1 - layer.number("p")))


@on_tensor("nn.WhiteNoise")
def white_noise(layer: Layer, x: Tensor) -> Value:
    """The noise's mean is added (WhiteNoise.lua)."""
    return layer.give(x.array + layer.number("mean"))


@on_tensor("inn.ConstAffine")
def const_affine(layer: Layer, x: Tensor) -> Value:
    """A scale and a shift for every plane (ConstAffine.lua)."""
    sizes = [1, -1] + [1] * (layer.ranked(x, 2, 4).rank - 2)
    scale, shift = layer.weight("a").reshape(sizes), layer.weight("b").reshape(sizes)
    return _perhaps_in_place(layer, x, np.broadcast_to(scale, x.shape) * x.array + shift)
