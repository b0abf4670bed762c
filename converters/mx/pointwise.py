"""Rules of operators that take every number by itself, or two tensors number by number."""

from collections.abc import Callable
from typing import Any

from converters.lowering import Value
from converters.mx.network import Operator, Outputs, Run, operator

# Source: src/operator/nn/activation-inl.h, src/operator/mshadow_op.h; softrelu is x above 20.
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("ReLU", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softrelu": ("Softplus", {"beta": 1, "threshold": 20}),
    "softsign": ("Softsign", {}),
}


@operator("Activation")
def activation(run: Run, op: Operator) -> Outputs:
    """One of five activations, by name."""
    kind = op.settings.one_of("act_type", tuple(ACTIVATIONS))
    op.settings.neutral("cudnn_off")
    word, attrs = ACTIVATIONS[kind]
    return run.net.add(op.name, word, op.value(), **attrs)


UNARY: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("ReLU", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softsign": ("Softsign", {}),
    "exp": ("Exp", {}),
    "log": ("Log", {}),
    "abs": ("Abs", {}),
    "negative": ("Scale", {"factor": -1}),
    "square": ("Power", {"exponent": 2}),
    "sqrt": ("Power", {"exponent": 0.5}),
    "rsqrt": ("Power", {"exponent": -0.5}),
    "reciprocal": ("Power", {"exponent": -1}),
}


@operator(*UNARY)
def unary(run: Run, op: Operator) -> Outputs:
    """A function of each number (src/operator/tensor/elemwise_unary_op_basic.cc, _pow.cc)."""
    word, attrs = UNARY[op.op]
    return run.net.add(op.name, word, op.value(), **attrs)


LEAKY = ("leaky", "elu", "prelu", "rrelu", "selu", "gelu")


@operator("LeakyReLU", inputs=("data", "gamma"), varying=True)
def leaky_relu(run: Run, op: Operator) -> Outputs:
    """ReLU with something below 0, a slope of 0.25 unless the file says otherwise.

    `rrelu` has half way between its bounds in evaluation mode; its second output, the slopes drawn,
    is filled in training only, and is 0 here (src/operator/leaky_relu-inl.h).
    """
    settings = op.settings
    kind = settings.one_of("act_type", LEAKY, "leaky")
    op.expect("data", *(["gamma"] if kind == "prelu" else []))
    given, slope = op.value(), settings.number("slope", 0.25)
    lower, upper = settings.number("lower_bound", 0.125), settings.number("upper_bound", 0.334)
    if kind == "prelu":
        tensors = {name: one.reshape(-1) for name, one in op.tensors(weight="gamma").items()}
        count = tensors["weight"].size if tensors else 1
        return run.net.add(op.name, "PReLU", given, tensors=tensors, num_parameters=count)
    if kind == "rrelu":
        value = run.net.add(op.name, "RReLU", given, lower=lower, upper=upper)
        return [value, run.net.add(f"{op.name}_mask", "Scale", given, factor=0)]
    words: dict[str, tuple[str, dict[str, Any]]] = {
        "leaky": ("LeakyReLU", {"negative_slope": slope}),
        "elu": ("ELU", {"alpha": slope}),
        "selu": ("SELU", {}),
        "gelu": ("GELU", {}),
    }
    word, attrs = words[kind]
    return run.net.add(op.name, word, given, **attrs)


@operator("hard_sigmoid")
def hard_sigmoid(run: Run, op: Operator) -> Outputs:
    """`alpha * x + beta`, held between 0 and 1 (src/operator/tensor/elemwise_unary_op.h)."""
    alpha, beta = op.settings.number("alpha", 0.2), op.settings.number("beta", 0.5)
    value = run.net.add(f"{op.name}_scale", "Scale", op.value(), factor=alpha)
    value = run.net.add(f"{op.name}_shift", "Shift", value, offset=beta)
    return run.net.add(op.name, "Hardtanh", value, min_val=0, max_val=1)


@operator("clip")
def clip(run: Run, op: Operator) -> Outputs:
    """Numbers held between two (src/operator/tensor/matrix_op-inl.h)."""
    least, most = op.settings.number("a_min"), op.settings.number("a_max")
    if (least, most) == (0, 6):
        return run.net.add(op.name, "ReLU6", op.value())
    return run.net.add(op.name, "Hardtanh", op.value(), min_val=least, max_val=most)


# Steps from a tensor and a number: the word, and what it takes of the number.
Steps = list[tuple[str, dict[str, Any]]]
_SCALAR: dict[str, Callable[[float], Steps]] = {
    "_plus_scalar": lambda s: [("Shift", {"offset": s})],
    "_minus_scalar": lambda s: [("Shift", {"offset": -s})],
    "_rminus_scalar": lambda s: [("Scale", {"factor": -1}), ("Shift", {"offset": s})],
    "_mul_scalar": lambda s: [("Scale", {"factor": s})],
    "_div_scalar": lambda s: [("Scale", {"factor": 1 / s})],
    "_rdiv_scalar": lambda s: [("Power", {"exponent": -1}), ("Scale", {"factor": s})],
    "_power_scalar": lambda s: [("Power", {"exponent": s})],
    "_maximum_scalar": lambda s: [("AtLeast", {"value": s})],
    "_minimum_scalar": lambda s: [("AtMost", {"value": s})],
}
# What they were called before 0.9 (src/operator/tensor/elemwise_binary_scalar_op_basic.cc).
_OLD = {
    "_PlusScalar": "_plus_scalar",
    "_MinusScalar": "_minus_scalar",
    "_RMinusScalar": "_rminus_scalar",
    "_MulScalar": "_mul_scalar",
    "_DivScalar": "_div_scalar",
    "_RDivScalar": "_rdiv_scalar",
    "_PowerScalar": "_power_scalar",
    "_MaximumScalar": "_maximum_scalar",
    "_MinimumScalar": "_minimum_scalar",
}


@operator(*_SCALAR, *_OLD)
def with_scalar(run: Run, op: Operator) -> Outputs:
    """A tensor and a number; an `r` before the name turns them round."""
    scalar = op.settings.number("scalar")
    op.settings.neutral("is_int")
    name = _OLD.get(op.op, op.op)
    if name == "_div_scalar" and scalar == 0:
        raise op.unsupported("divides by 0")
    value, steps = op.value(), _SCALAR[name](scalar)
    for index, (word, attrs) in enumerate(steps, 1):
        at = op.name if index == len(steps) else f"{op.name}_{word.lower()}"
        value = run.net.add(at, word, value, **attrs)
    return value


# Source: the aliases in src/operator/tensor/elemwise_binary_op_basic.cc and
# elemwise_binary_op_extended.cc, elemwise_binary_broadcast_op_basic.cc.
_BINARY = {
    "Add": ("elemwise_add", "_add", "_plus", "_Plus"),
    "Sub": ("elemwise_sub", "_sub", "_minus", "_Minus"),
    "Mul": ("elemwise_mul", "_mul", "_Mul"),
    "Div": ("elemwise_div", "_div", "_Div"),
    "Maximum": ("_maximum", "_Maximum"),
    "Minimum": ("_minimum", "_Minimum"),
}
_BROADCAST = {
    "broadcast_add": "Add",
    "broadcast_plus": "Add",
    "broadcast_sub": "Sub",
    "broadcast_minus": "Sub",
    "broadcast_mul": "Mul",
    "broadcast_div": "Div",
    "broadcast_maximum": "Maximum",
    "broadcast_minimum": "Minimum",
}
_WORDS = {name: word for word, names in _BINARY.items() for name in names} | _BROADCAST
_STORED = {"Add": ("LearnedShift", "bias"), "Mul": ("LearnedScale", "weight")}


@operator(*_WORDS, inputs=("lhs", "rhs"))
def binary(run: Run, op: Operator) -> Outputs:
    """Two tensors, or in a sum or product a tensor and a stored array.

    Only the `broadcast_` forms take other than equal shapes.
    """
    word = _WORDS[op.op]
    left, right = op.operand(0), op.operand(1)
    if left.value is None or right.value is None:
        return _with_stored(run, op, word)
    shapes = left.value.shape, right.value.shape
    if op.op not in _BROADCAST and shapes[0] != shapes[1]:
        raise op.unsupported(f"takes equal shapes, its inputs have {shapes[0]} and {shapes[1]}")
    if len(shapes[0]) != len(shapes[1]):
        raise op.unsupported(f"its inputs have {len(shapes[0])} and {len(shapes[1])} dimensions")
    return run.net.add(op.name, word, left.value, right.value)


def _with_stored(run: Run, op: Operator, word: str) -> Value:
    operands = [op.operand(0), op.operand(1)]
    values = [one.value for one in operands if one.value is not None]
    arrays = [one.array for one in operands if one.array is not None]
    if word not in _STORED or len(values) != 1 or len(arrays) != 1:
        raise op.unsupported("reads a stored array where it takes the network's tensors")
    (array,), (value,) = arrays, values
    if op.op not in _BROADCAST and array.shape != value.shape:
        raise op.unsupported(f"takes equal shapes, its inputs have {value.shape} and {array.shape}")
    learned, tensor = _STORED[word]
    return run.net.add(op.name, learned, value, tensors={tensor: array}, shape=array.shape)


@operator("add_n", "ElementWiseSum", inputs=(), varying=True)
def add_n(run: Run, op: Operator) -> Outputs:
    """The sum of all inputs, from the left (src/operator/tensor/elemwise_sum.cc)."""
    op.expect_as_many()
    first, *others = op.values()
    if not others:
        return run.net.add(op.name, "Identity", first)
    for index, other in enumerate(others, 1):
        if other.shape != first.shape:
            raise op.unsupported(f"adds tensors of shapes {first.shape} and {other.shape}")
        at = op.name if index == len(others) else f"{op.name}_{index}"
        first = run.net.add(at, "Add", first, other)
    return first
