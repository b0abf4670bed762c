"""The vocabulary of graphs: every op says its shapes truly, in one spelling, or refuses."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.build import build
from models.errors import MisfitError
from models.graph import Shape
from models.ops import OP_NAMES, OPS, Op, attrs_of, create, infer, tensor_shapes
from models.verify import run
from tests.small_networks import CASES, IMAGE, Case, batches, filled, one_node

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=str)


def inputs_of(case: Case) -> list[np.ndarray]:
    """Return inputs that the op takes; for unpooling, the second are places of pooled maxima."""
    given = batches(case.shapes)
    if case.op == "MaxUnpool":
        (image,) = batches([(2, 4, 8, 7)])
        places = create("MaxPoolIndices", {"kernel_size": 2})(torch.from_numpy(image))
        given[1] = places.numpy()
    return given


def computed(case: Case) -> np.ndarray:
    with torch.inference_mode():
        output = create(case.op, case.attrs).eval()(*map(torch.from_numpy, inputs_of(case)))
    array: np.ndarray = output.numpy()
    return array


def test_every_op_is_in_the_table() -> None:
    """A new op cannot be added without a row in `CASES`."""
    assert {case.op for case in CASES} == OPS.keys()


def test_every_op_has_a_module_class_of_its_own() -> None:
    """The class alone tells the op, so `trace` can read it back."""
    assert {OP_NAMES[op.module] for op in OPS.values()} == OPS.keys()


@EVERY_CASE
def test_inferred_shapes_are_the_real_ones(case: Case) -> None:
    """What `infer` finds without computing is what the module gives, and what it stores."""
    found = infer(case.op, case.attrs, case.shapes)
    assert found.shape == computed(case).shape
    assert found.tensors == tensor_shapes(create(case.op, case.attrs))


@EVERY_CASE
def test_arguments_have_one_spelling(case: Case) -> None:
    """The attributes of a module made from attributes are those attributes, as JSON keeps them."""
    attrs = attrs_of(create(case.op, case.attrs))
    assert attrs.keys() == OPS[case.op].attrs.keys()
    assert (
        attrs_of(create(case.op, attrs)) == attrs == infer(case.op, case.attrs, case.shapes).attrs
    )
    assert not any(isinstance(value, tuple) for value in attrs.values())


@pytest.mark.parametrize("case", [case for case in CASES if case.op != "MaxUnpool"], ids=str)
def test_every_op_can_be_built(case: Case) -> None:
    """A graph of this op alone gives what the module gives with the same numbers.

    Unpooling takes indices, which are no input of a graph: test_export has it behind its pooling.
    """
    network = filled(one_node(case))
    module = create(case.op, case.attrs).eval()
    state = {name: network.tensors[f"only.{name}"] for name in tensor_shapes(module)}
    module.load_state_dict(
        {name: torch.from_numpy(one) for name, one in state.items()}, strict=False
    )
    (ours,) = run(build(network), inputs_of(case))
    (theirs,) = run(module, inputs_of(case))
    np.testing.assert_array_equal(ours, theirs)


def test_tensors_that_a_file_supplies() -> None:
    """The count of training batches is torch's own, no file has one."""
    shapes = tensor_shapes(nn.BatchNorm2d(3))
    assert shapes == dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (3,))


# Own modules against numpy ----------------------------------------------------------------------


def windows(case: Case) -> list[tuple[int, int, int, int, int]]:
    """Return `(row, column, first row, first column, ...)` bounds of every pooling window."""
    attrs = attrs_of(create(case.op, case.attrs))
    (kernel, stride, padding) = (attrs[key] for key in ("kernel_size", "stride", "padding"))
    _, _, height, width = infer(case.op, case.attrs, case.shapes).shape
    found = []
    for row in range(height):
        for column in range(width):
            top, left = row * stride[0] - padding[0], column * stride[1] - padding[1]
            found.append((row, column, top, left, kernel[0] * 100 + kernel[1]))
    return found


def max_pool_indices(case: Case, x: np.ndarray) -> np.ndarray:
    """Return, for each window, where in its plane the largest number is."""
    shape = infer(case.op, case.attrs, case.shapes).shape
    places = np.zeros(shape, np.int64)
    (rows, columns) = x.shape[2:]
    for row, column, top, left, kernel in windows(case):
        inside = np.full_like(x, -np.inf)
        part = (
            slice(None),
            slice(None),
            slice(max(top, 0), top + kernel // 100),
            slice(max(left, 0), left + kernel % 100),
        )
        inside[part] = x[part]
        places[:, :, row, column] = inside.reshape(*x.shape[:2], rows * columns).argmax(2)
    return places


def max_unpool(case: Case, x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return zeros with every number at its place."""
    height, width = case.attrs["output_size"]
    planes = np.zeros((x.shape[0] * x.shape[1], height * width), np.float32)
    flat, where = x.reshape(len(planes), -1), places.reshape(len(planes), -1)
    for plane, values, indices in zip(planes, flat, where, strict=True):
        plane[indices] = values
    return planes.reshape(*x.shape[:2], height, width)


def pad(case: Case, x: np.ndarray) -> np.ndarray:
    """Return x between borders, the last dimension's first; a negative border crops."""
    left, right, top, bottom = case.attrs["padding"]
    x = np.pad(
        x,
        [(0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))],
        constant_values=case.attrs["value"],
    )
    rows, columns = x.shape[2:]
    return x[:, :, max(-top, 0) : rows + min(bottom, 0), max(-left, 0) : columns + min(right, 0)]


def adaptive_max(size: tuple[int, int], x: np.ndarray) -> np.ndarray:
    """Return the largest number of each of `size` windows that cover the image."""
    rows, columns = (
        [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]
        for n, count in zip(x.shape[2:], size, strict=True)
    )
    found = [[x[:, :, a:b, c:d].max((2, 3)) for c, d in columns] for a, b in rows]
    return np.moveaxis(np.array(found), (0, 1), (2, 3))


def folded(case: Case, x: np.ndarray, fold: Callable[..., np.ndarray]) -> np.ndarray:
    """Return a reduction as numpy does it."""
    return fold(x, axis=case.attrs["dim"], keepdims=case.attrs["keepdim"])


def log(x: np.ndarray) -> np.ndarray:
    """Return the logarithm, which of negative numbers is not a number."""
    with np.errstate(invalid="ignore"):
        return np.log(x)


# Sums and transcendental functions in float32 end a step or two beside those in float64.
ROUNDED = {"Exp", "Log", "MatMul", "Mean", "Sum"}
STEPS = 4

RESTATED = {
    "Abs": lambda case, x: np.where(x < 0, -x, x),
    "AdaptiveMaxPool2d": lambda case, x: adaptive_max(case.attrs["output_size"], x),
    "Add": lambda case, x, y: x + y,
    "AtLeast": lambda case, x: np.where(
        x > case.attrs["value"], x, np.float32(case.attrs["value"])
    ),
    "AtMost": lambda case, x: np.where(x < case.attrs["value"], x, np.float32(case.attrs["value"])),
    "Div": lambda case, x, y: x / y,
    "Exp": lambda case, x: np.float32(np.exp(np.float64(x))),
    "LearnedScale": lambda case, x: x,  # with torch's initial weights: ones
    "LearnedShift": lambda case, x: x,  # zeros
    "Log": lambda case, x: np.float32(log(np.float64(x))),
    "MatMul": lambda case, x, y: np.float32(np.einsum("...ij,...jk", np.float64(x), np.float64(y))),
    "Max": lambda case, x: folded(case, x, np.max),
    "Maximum": lambda case, x, y: np.where(x > y, x, y),
    "Mean": lambda case, x: np.float32(folded(case, np.float64(x), np.mean)),
    "Min": lambda case, x: folded(case, x, np.min),
    "Minimum": lambda case, x, y: np.where(x < y, x, y),
    "Mul": lambda case, x, y: x * y,
    "Permute": lambda case, x: np.moveaxis(x, 1, -1),
    "Power": lambda case, x: x * x,
    "RReLU": lambda case, x: np.where(x > 0, x, x * np.float32(0.25)),
    "Replicate": lambda case, x: np.stack([x] * case.attrs["count"], case.attrs["dim"]),
    "Select": lambda case, x: x[:, :, case.attrs["index"]],
    "Shift": lambda case, x: x + np.float32(case.attrs["offset"]),
    "Sub": lambda case, x, y: x - y,
    "Sum": lambda case, x: np.float32(folded(case, np.float64(x), np.sum)),
    "Concat": lambda case, *tensors: np.concatenate(tensors, case.attrs["dim"]),
    "Scale": lambda case, x: x * np.float32(case.attrs["factor"]),
    "Reshape": lambda case, x: x.reshape(case.attrs["shape"]),
    "Pad": pad,
    "Narrow": lambda case, x: np.take(
        x,
        range(case.attrs["start"], case.attrs["start"] + case.attrs["length"]),
        case.attrs["dim"],
    ),
    "MaxPoolIndices": max_pool_indices,
    "MaxUnpool": max_unpool,
}


def test_every_module_of_our_own_is_restated() -> None:
    """What torch.nn lacks has an independent statement in this file."""
    own = {name for name, op in OPS.items() if op.module.__module__ == "models.layers"}
    assert own == RESTATED.keys()


@pytest.mark.parametrize("case", [case for case in CASES if case.op in RESTATED], ids=str)
def test_own_modules_equal_numpy(case: Case) -> None:
    """Our small modules give exactly what their sentence says."""
    ours, theirs = computed(case), RESTATED[case.op](case, *inputs_of(case))
    if case.op not in ROUNDED:
        np.testing.assert_array_equal(ours, theirs)
        return
    step = np.finfo(np.float32).eps * max(1, np.nanmax(np.abs(theirs)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=STEPS * step)


@pytest.mark.parametrize(
    "attrs",
    [
        *(case.attrs for case in CASES if case.op == "MaxPool2d"),
        {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": (1, 2), "ceil_mode": True},
    ],
    ids=str,
)
def test_pooling_indices_point_at_the_maxima(attrs: dict[str, Any]) -> None:
    """In every setting, the number at an index is the one that max pooling gives."""
    (image,) = batches([IMAGE])
    batch = torch.from_numpy(image)
    places = create("MaxPoolIndices", attrs)(batch)
    pooled = create("MaxPool2d", attrs)(batch)
    assert torch.equal(batch.flatten(2).gather(2, places.flatten(2)).reshape(places.shape), pooled)


# Refusals ---------------------------------------------------------------------------------------


def test_an_op_that_does_not_exist() -> None:
    """The name is in the message."""
    with pytest.raises(MisfitError, match="^there is no op Attention$"):
        create("Attention", {})


def test_an_argument_that_graphs_do_not_have() -> None:
    """Torch's other arguments, such as `inplace`, would change what a graph means."""
    with pytest.raises(MisfitError, match="^ReLU has no argument device, inplace$"):
        create("ReLU", {"inplace": True, "device": "cpu"})


@pytest.mark.parametrize(
    ("op", "attrs", "reason"),
    [
        ("Conv2d", {}, "missing 3 required positional arguments"),
        (
            "Conv2d",
            {"in_channels": 3, "out_channels": 4, "kernel_size": 1, "groups": 2},
            "divisible",
        ),
        ("Linear", {"in_features": -1, "out_features": 2}, "negative dimension"),
        ("Linear", {"in_features": "x", "out_features": 2}, "must be"),
        ("Dropout", {"p": 2.0}, "between 0 and 1"),
        ("Reshape", {"shape": 5}, "not iterable"),
    ],
    ids=["absent", "contradictory", "negative", "text", "out of range", "not a list"],
)
def test_arguments_that_torch_refuses(op: str, attrs: dict[str, Any], reason: str) -> None:
    """Torch's reason is passed on with the op and its arguments."""
    with pytest.raises(MisfitError, match=rf"^{op}\(.*\): .*{reason}"), torch.device("meta"):
        create(op, attrs)


CONV = {"in_channels": 4, "out_channels": 2, "kernel_size": 3}


@pytest.mark.parametrize(
    ("op", "attrs", "shapes", "reason"),
    [
        ("Conv2d", CONV, [(2, 3, 8, 8)], "channel"),
        ("Conv2d", CONV, [(2, 4, 2, 2)], "Kernel size can't be greater than actual input size"),
        (
            "Linear",
            {"in_features": 3, "out_features": 2},
            [(2, 4)],
            "reduction dim|cannot be multiplied",
        ),
        ("Add", {}, [(2, 3), (2, 4)], "size|broadcast"),
        ("Add", {}, [(2, 3)], "missing 1 required positional argument"),
        ("ReLU", {}, [(2,), (2,)], "takes 2 positional arguments but 3"),
        ("Concat", {"dim": 1}, [(2, 3), (3, 3)], "[Ss]izes of tensors must match"),
        ("Concat", {"dim": 3}, [(2, 3), (2, 3)], "[Dd]imension out of range"),
        ("Reshape", {"shape": [5]}, [(2, 3)], "invalid for input of size 6"),
        ("Narrow", {"dim": 0, "start": 1, "length": 3}, [(2, 3)], "exceeds dimension size"),
        ("ReLU", {}, [(-1, 3)], "negative dimension"),
        ("MaxUnpool", {"output_size": [1, 2, 3]}, [(1, 1, 2, 2)] * 2, "too many values to unpack"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inputs_that_torch_refuses(
    op: str, attrs: dict[str, Any], shapes: list[Shape], reason: str
) -> None:
    """A layer that does not fit its input is found without computing anything."""
    with pytest.raises(MisfitError, match=reason):
        infer(op, attrs, shapes)


class Endless(nn.Module):
    """An op that never comes to an end, where told."""

    def __init__(self, at_once: bool = False) -> None:
        super().__init__()
        if at_once:
            self.forward(torch.empty(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x)

    @property
    def depth(self) -> int:
        return self.depth


@pytest.mark.parametrize(
    "use",
    [
        lambda: create("Endless", {"at_once": True}),
        lambda: infer("Endless", {}, [(2, 3)]),
        lambda: attrs_of(Endless()),
    ],
    ids=["created", "run", "spelled"],
)
def test_endless_recursion_is_no_misfit(
    use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is not dressed up as what an op does not take."""
    attrs: dict[str, Callable[[Any], Any]] = {"at_once": bool, "depth": int}
    monkeypatch.setitem(OPS, "Endless", Op(Endless, attrs))
    monkeypatch.setitem(OP_NAMES, Endless, "Endless")
    monkeypatch.setattr(Endless, "at_once", False, raising=False)
    with pytest.raises(RecursionError, match="maximum recursion depth"):
        use()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv2d(2, 2, 3, padding_mode="reflect"), "padding_mode='reflect', graphs can only say"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override=3, graphs can only say None"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices=True, graphs can only say False"),
        (
            nn.BatchNorm2d(2, track_running_stats=False),
            "track_running_stats=False, graphs can only",
        ),
        (
            nn.Conv2d(2, 2, 3, padding="same"),
            r"Conv2d\(.*\) has an argument that graphs cannot say",
        ),
        (nn.BatchNorm2d(2, momentum=None), r"BatchNorm2d\(.*\) has an argument that graphs cannot"),
        (nn.Softmax(), r"Softmax\(.*\) has an argument that graphs cannot say"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_settings_without_a_word_are_refused(module: nn.Module, message: str) -> None:
    """A module is never taken for one with other settings."""
    with pytest.raises(MisfitError, match=f"^{message}"):
        attrs_of(module)


def test_one_pixel_too_many_is_no_overflow() -> None:
    """Shapes that no memory could hold are shapes still."""
    height = 10**6
    found = infer("MaxPool2d", {"kernel_size": 2}, [(64, 3, height, height)])
    assert math.prod(found.shape) == 64 * 3 * (height // 2) ** 2


def test_the_image_of_the_table_tells_height_from_width() -> None:
    """A swap of the two could not hide in the table."""
    assert IMAGE[2] != IMAGE[3]
