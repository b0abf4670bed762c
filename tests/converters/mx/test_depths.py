"""Depths that no file of the fixtures has: symbols made by the rule that the original states."""

from pathlib import Path

import numpy as np
import pytest

from converters.mx import MXSource
from models.architectures import find, recognise
from models.architectures.resnet_v2 import CIFAR_BOTTLENECK_FROM, IMAGENET
from models.graph import Shape
from models.ops import infer
from tests.mx_writer import checkpoint, node, symbol


class Symbol:
    """tornadomeet's ResNet-v2 as `symbol_resnet.py` wires it, with arrays to fit."""

    def __init__(self) -> None:
        self.nodes = [node("null", "data")]
        self.arrays: dict[str, np.ndarray] = {}
        self.channels = [3]
        self._random = np.random.default_rng(0)

    def array(self, name: str, *shape: int) -> int:
        self.arrays[name] = self._random.uniform(0.5, 1, shape).astype("f4")
        return self.add("null", name)

    def add(self, op: str, name: str, *inputs: int, channels: int = 0, **settings: str) -> int:
        self.nodes.append(node(op, name, inputs, **settings))
        self.channels.append(channels or (self.channels[inputs[0]] if inputs else 0))
        return len(self.nodes) - 1

    def norm(self, name: str, x: int, fixed: bool = False) -> int:
        words = ("gamma", "beta", "moving_mean", "moving_var")
        arrays = [self.array(f"{name}_{word}", self.channels[x]) for word in words]
        settings = {"eps": "2e-05", "fix_gamma": str(fixed), "momentum": "0.9"}
        return self.add("BatchNorm", name, x, *arrays, **settings)

    def relu(self, name: str, x: int) -> int:
        return self.add("Activation", name, x, act_type="relu")

    def conv(self, name: str, x: int, wide: int, sizes: tuple[int, int]) -> int:
        """Add a convolution with a square window and a stride."""
        size, stride = sizes
        weight = self.array(f"{name}_weight", wide, self.channels[x], size, size)
        by, around = f"({stride}, {stride})", f"({size // 2}, {size // 2})"
        settings = {"kernel": f"({size}, {size})", "stride": by, "pad": around, "no_bias": "True"}
        return self.add(
            "Convolution", name, x, weight, channels=wide, num_filter=str(wide), **settings
        )

    def unit(self, name: str, x: int, wide: int, *, stride: int, deep: bool) -> int:
        """Add a residual unit; the first of a stage, named `unit1`, has a convolution beside it."""
        sizes = ((wide // 4, 1), (wide // 4, 3), (wide, 1)) if deep else ((wide, 3), (wide, 3))
        strided = 1 if deep else 0
        branch = active = self.relu(f"{name}_relu1", self.norm(f"{name}_bn1", x))
        for index, (made, size) in enumerate(sizes):
            if index:
                branch = self.norm(f"{name}_bn{index + 1}", branch)
                branch = self.relu(f"{name}_relu{index + 1}", branch)
            by = stride if index == strided else 1
            branch = self.conv(f"{name}_conv{index + 1}", branch, made, (size, by))
        first = name.endswith("unit1")
        past = self.conv(f"{name}_sc", active, wide, (1, stride)) if first else x
        return self.add("elemwise_add", f"{name}_plus", branch, past)


def resnet(units: tuple[int, ...], widths: tuple[int, ...], *, deep: bool, cifar: bool) -> Symbol:
    """Return the network of so many units of each stage."""
    net = Symbol()
    x = net.conv("conv0", net.norm("bn_data", 0, True), widths[0], (3, 1) if cifar else (7, 2))
    if not cifar:
        x = net.relu("relu0", net.norm("bn0", x))
        sizes = {"kernel": "(3,3)", "stride": "(2,2)", "pad": "(1,1)"}
        x = net.add("Pooling", "pool0", x, pool_type="max", **sizes)
    for stage, (count, wide) in enumerate(zip(units, widths[1:], strict=True), 1):
        for unit in range(1, count + 1):
            stride = 2 if stage > 1 and unit == 1 else 1
            x = net.unit(f"stage{stage}_unit{unit}", x, wide, stride=stride, deep=deep)
    x = net.relu("relu1", net.norm("bn1", x))
    x = net.add("Pooling", "pool1", x, kernel="(7,7)", pool_type="avg", global_pool="True")
    x = net.add("Flatten", "flatten", x)
    weight, bias = net.array("fc1_weight", 9, widths[-1]), net.array("fc1_bias", 9)
    x = net.add("FullyConnected", "fc1", x, weight, bias, num_hidden="9")
    net.add("SoftmaxOutput", "softmax", x, net.add("null", "softmax_label"))
    return net


@pytest.mark.parametrize(
    ("depth", "cifar"),
    [
        (34, False),
        (20, True),
        (101, False),
        (269, False),
        pytest.param(1001, True, marks=pytest.mark.slow),
    ],
)
def test_every_depth_converts_and_is_recognised(tmp_path: Path, depth: int, cifar: bool) -> None:
    """The rule behind the depths gives graphs that are the class of that depth."""
    deep = depth >= (CIFAR_BOTTLENECK_FROM if cifar else 50)
    widths = (8, 8, 16, 24) if cifar else (8, 8, 16, 24, 32)
    units = ((depth - 2) // (9 if deep else 6),) * 3 if cifar else IMAGENET[depth]
    net = resnet(units, widths, deep=deep, cifar=cifar)
    path = checkpoint(tmp_path, symbol(*net.nodes), net.arrays)
    source = MXSource(path, symbol_path=tmp_path / "net-symbol.json")
    name = f"resnet_v2_{'cifar_' if cifar else ''}{depth}"
    size = find(name).size
    shape: Shape = (2, 3, size, size)
    found = recognise(source.lower([shape], infer).network)
    assert found is not None
    assert found.architecture.name == name
    assert found.arguments == {"num_classes": 9, "widths": widths}
