"""What both formats share: rules by name, nodes with checked shapes."""

from pathlib import Path

import numpy as np
import pytest

from converters.lowering import Lowering, Rules, Value
from models.errors import FormatError, WeightMismatch
from models.ops import infer


def lowering() -> Lowering:
    return Lowering(Path("net.t7"), infer)


def test_a_class_has_one_rule() -> None:
    """Registering a class twice is a mistake that shows at once."""
    rules: Rules[object] = Rules()  # type: ignore[type-var]
    rules("nn.A", "nn.B")(print)
    assert rules.names() == ["nn.A", "nn.B"]
    assert rules["nn.A"] is print
    with pytest.raises(ValueError, match=r"two rules for nn\.B"):
        rules("nn.B")(repr)


def test_names_stay_unique() -> None:
    """A rule may add several nodes at one place."""
    net = lowering()
    value = net.input("input", (2, 3))
    names = [net.add("0", "ReLU", value).name for _ in range(3)]
    assert names == ["0", "0_2", "0_3"]


def test_what_torch_refuses_names_the_layer() -> None:
    """A shape that does not fit is said in the words of the file."""
    net = lowering()
    value = net.input("input", (2, 3))
    message = r"net\.t7: layer 4\.1: found an input of 2x3, expected one that Flatten takes \("
    with pytest.raises(FormatError, match=message):
        net.add("4.1", "Flatten", value, start_dim=5, end_dim=9)


def test_absent_tensors_are_listed() -> None:
    """A layer whose tensors the file does not have is no network."""
    net = lowering()
    end = net.add("0", "PReLU", net.input("input", (2, 3)), num_parameters=1)
    with pytest.raises(WeightMismatch, match=r"0\.weight is absent, expected \(1,\)"):
        net.network([end])


def test_shapes_are_torchs() -> None:
    """A node's shape is what torch computes for it, found without computing."""
    net = lowering()
    given = net.input("input", (2, 3, 9, 9))
    pooled = net.add(
        "0",
        "MaxPool2d",
        given,
        kernel_size=3,
        stride=2,
        padding=0,
        dilation=1,
        ceil_mode=False,
    )
    assert pooled == Value("0", (2, 3, 4, 4))


def test_the_same_view_under_two_names_is_tied() -> None:
    """Two layers over one view of memory share it; over equal copies they do not."""
    net = lowering()
    weight = np.ones(1, np.float32)
    value = net.input("input", (2, 3))
    for at, tensor in (("0", weight), ("1", weight), ("2", weight.copy())):
        value = net.add(at, "PReLU", value, tensors={"weight": tensor}, num_parameters=1)
    network = net.network([value])
    assert network.graph.ties == (("1.weight", "0.weight"),)
    assert list(network.tensors) == ["0.weight", "2.weight"]
