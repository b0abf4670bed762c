"""Definitions of operators number by number (src/operator/mshadow_op.h), softmax and losses."""

import math
from collections.abc import Callable

import numpy as np

from converters.mx_oracle.interpreter import Array, Definition, Node, defines


def _sigmoid(x: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-x))
    return found


def _softrelu(x: Array) -> Array:
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


def _relu(x: Array) -> Array:
    return np.where(x > 0, x, 0.0)


def _softsign(x: Array) -> Array:
    found: Array = x / (1 + np.abs(x))
    return found


UNARY: dict[str, Callable[[Array], Array]] = {
    "relu": _relu,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "softrelu": _softrelu,
    "softsign": _softsign,
    "exp": np.exp,
    "log": np.log,
    "abs": np.abs,
    "negative": lambda x: -x,
    "square": lambda x: x * x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
}


def _of(function: Callable[[Array], Array]) -> Definition:
    return lambda node: function(node.x)


for _name in set(UNARY) - {"softrelu"}:
    defines(_name)(_of(UNARY[_name]))


@defines("Activation")
def activation(node: Node) -> Array:
    """One of five."""
    return UNARY[node.text("act_type")](node.x)


@defines("LeakyReLU")
def leaky_relu(node: Node) -> Array | list[Array]:
    """Something below 0; a random slope is the mean of its bounds, and the slopes drawn are none.

    SELU's constants and GELU's error function are those of their papers.
    """
    found: Array
    kind, x, slope = node.text("act_type", "leaky"), node.x, node.number("slope", 0.25)
    if kind == "rrelu":
        mean = (node.number("lower_bound", 0.125) + node.number("upper_bound", 0.334)) / 2
        return [np.where(x > 0, x, mean * x), np.zeros_like(x)]
    if kind == "prelu":
        learned = node.inputs[1]
        return np.where(x > 0, x, x * learned.reshape(-1, *[1] * (x.ndim - 2)))
    if kind == "elu":
        return np.where(x > 0, x, slope * np.expm1(np.minimum(x, 0)))
    if kind == "selu":
        alpha, scale = 1.6732632423543772, 1.0507009873554805
        found = scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
        return found
    if kind == "gelu":
        found = x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        return found
    return np.where(x > 0, x, slope * x)


@defines("hard_sigmoid")
def hard_sigmoid(node: Node) -> Array:
    """A line between 0 and 1."""
    return np.clip(node.number("alpha", 0.2) * node.x + node.number("beta", 0.5), 0, 1)


@defines("clip")
def clip(node: Node) -> Array:
    """Between two numbers."""
    return np.clip(node.x, node.number("a_min"), node.number("a_max"))


SCALAR: dict[str, Callable[[Array, float], Array]] = {
    "plus": lambda x, s: x + s,
    "minus": lambda x, s: x - s,
    "rminus": lambda x, s: s - x,
    "mul": lambda x, s: x * s,
    "div": lambda x, s: x / s,
    "rdiv": lambda x, s: s / x,
    "power": lambda x, s: x**s,
    "maximum": lambda x, s: np.maximum(x, s),
    "minimum": lambda x, s: np.minimum(x, s),
}


@defines(*(f"_{one}_scalar" for one in SCALAR))
@defines("_PlusScalar", "_MinusScalar", "_RMinusScalar", "_MulScalar", "_DivScalar")
@defines("_RDivScalar", "_PowerScalar", "_MaximumScalar", "_MinimumScalar")
def with_scalar(node: Node) -> Array:
    """A tensor and a number, which an `r` puts first."""
    name = node.op.lower().replace("_", "").removesuffix("scalar")
    return SCALAR[name](node.x, node.number("scalar"))


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "plus": np.add,
    "sub": np.subtract,
    "minus": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


@defines("elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div")
@defines("_add", "_plus", "_Plus", "_sub", "_minus", "_Minus", "_mul", "_Mul", "_div", "_Div")
@defines("_maximum", "_Maximum", "_minimum", "_Minimum")
@defines(*(f"broadcast_{one}" for one in BINARY))
def binary(node: Node) -> Array:
    """Two tensors, whose shapes broadcast where the name says so."""
    left, right = node.inputs
    return BINARY[node.op.lower().split("_")[-1]](left, right)


@defines("add_n", "ElementWiseSum")
def add_n(node: Node) -> Array:
    """The sum of all inputs."""
    found: Array = np.sum(node.inputs, axis=0)
    return found


def _softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis, keepdims=True))
    found: Array = powers / powers.sum(axis, keepdims=True)
    return found


@defines("SoftmaxOutput", "Softmax")
def softmax_output(node: Node) -> Array:
    """Softmax: over maps, over the last dimension, or over samples if that is the same."""
    if node.on("multi_output", default=False):
        return _softmax(node.x, 1)
    if node.on("preserve_shape", default=False) or node.x[0].size == node.x.shape[-1]:
        return _softmax(node.x, -1)
    raise node.refused("a sample of several dimensions")


@defines("SoftmaxActivation")
def softmax_activation(node: Node) -> Array:
    """Softmax: over the last dimension, or over maps."""
    return _softmax(node.x, 1 if node.text("mode", "instance") == "channel" else -1)


@defines("softmax")
def softmax(node: Node) -> Array:
    """Softmax of the numbers by the temperature."""
    return _softmax(node.x / node.number("temperature", 1), node.integer("axis", -1))


@defines("log_softmax")
def log_softmax(node: Node) -> Array:
    """The logarithm of softmax."""
    axis = node.integer("axis", -1)
    x = node.x / node.number("temperature", 1)
    x = x - x.max(axis, keepdims=True)
    found: Array = x - np.log(np.exp(x).sum(axis, keepdims=True))
    return found


@defines("LogisticRegressionOutput")
def logistic_output(node: Node) -> Array:
    """Sigmoid."""
    return _sigmoid(node.x)


@defines("LinearRegressionOutput", "MAERegressionOutput", "SVMOutput", "MakeLoss")
@defines("BlockGrad", "stop_gradient", "_copy", "identity", "Cast", "cast", "amp_cast", "Dropout")
def unchanged(node: Node) -> Array:
    """What came in."""
    return node.x
