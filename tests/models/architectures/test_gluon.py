"""Gluon's model zoo: names, shapes and graphs of every network are those that MXNet wrote.

`tests/golden/mxnet/zoo` has the symbols that MXNet 1.9.1 made of its zoo, and of each network the
parameters: structural name, counted name, shape. What MXNet computed is compared where files are
lent a graph, in tests/converters/test_lending.py.
"""

import json
import lzma
import math
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converters.lowering import Lowering
from converters.mx import MXSource, symbol
from converters.mx.checkpoints import of_epoch
from converters.mx.network import lower
from converters.packing import unpacked
from models.architectures import create, find, recognise
from models.architectures.gluon_densenet import GluonDenseNet
from models.architectures.gluon_layers import GluonNetwork
from models.architectures.gluon_vgg import GluonVGG
from models.fingerprint import fingerprint
from models.graph import Network, Shape
from models.ops import infer
from models.trace import trace
from tests.models.architectures.zoo import KINDS
from tests.oracles import GOLDEN, golden

ZOO = sorted(
    path.name.removesuffix("-symbol.json.xz")
    for path in (GOLDEN / "mxnet/zoo").glob("*-symbol.json.xz")
)
SIGMAS = 5  # of the standard deviation's own: once in two million draws, and the seed is fixed
WORDS = {"gamma": "weight", "beta": "bias"}


@cache
def parameters(name: str) -> dict[str, tuple[str, Shape]]:
    """Return counted name and shape of each parameter of a network, by its structural name."""
    every = json.loads(lzma.decompress(golden("mxnet/zoo/parameters.json.xz").read_bytes()))
    found = every[name]["parameters"].items()
    return {key: (counted, tuple(shape)) for key, (counted, shape) in found}


def symbol_text(name: str) -> bytes:
    return lzma.decompress(golden(f"mxnet/zoo/{name}-symbol.json.xz").read_bytes())


def lowered(name: str, text: bytes) -> Network:
    """Return the network of a symbol, with zeros for its numbers."""
    path = golden(f"mxnet/zoo/{name}-symbol.json.xz")
    arrays = {
        counted: np.broadcast_to(np.float32(0), shape)
        for counted, shape in parameters(name).values()
    }
    size = find(f"gluon_{name}").size
    read = symbol.read_data(path, text)
    return lower(path, read, arrays, [(2, 3, size, size)], Lowering(path, infer)).network


def exported(name: str, size: int) -> Network:
    located = of_epoch(golden("mxnet/gluon") / name, 0)
    with unpacked(located.params) as plain:
        source = MXSource(plain, located.params, symbol_path=located.symbol)
        return source.lower([(2, 3, size, size)], infer).network


def without_numbers(name: str) -> GluonNetwork:
    with torch.device("meta"):
        module = find(name).create()
    assert isinstance(module, GluonNetwork)
    return module


def test_the_whole_zoo_is_here() -> None:
    """MXNet 1.9.1 has 34 networks."""
    assert len(ZOO) == 34


@pytest.mark.parametrize("name", ZOO)
def test_parameters_are_the_zoos(name: str) -> None:
    """Structural names, counted names and shapes of all parameters."""
    module = without_numbers(f"gluon_{name}")
    counted = module.counted_names()
    shapes = {key: tuple(one.shape) for key, one in module.state_dict().items()}
    seen = set()
    prefixes = set()
    for key, (theirs, shape) in parameters(name).items():
        layer, _, word = key.rpartition(".")
        ours = f"{layer}.{WORDS.get(word, word)}"
        assert shapes[ours] == shape
        assert theirs.endswith(f"{counted[layer]}_{word}")
        prefixes.add(theirs.removesuffix(f"{counted[layer]}_{word}"))
        seen.add(ours)
    assert seen == {key for key in shapes if "num_batches" not in key}
    assert len(prefixes) == 1
    assert re.fullmatch(r"[a-z]+[0-9v]+_", prefixes.pop())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if find(f"gluon_{name}").name in KINDS else pytest.mark.slow)
        for name in ZOO
    ],
)
def test_the_zoos_symbol_is_the_class(name: str) -> None:
    """Operators, settings and wiring: a network of MXNet's is recognised, under its name."""
    found = recognise(lowered(name, symbol_text(name)))
    assert found is not None
    assert found.architecture is find(f"gluon_{name}")


def test_until_1_0_the_middle_convolution_halved() -> None:
    """A bottleneck of version 1 as MXNet 1.0 and those before it had it is another structure."""
    text: Any = json.loads(symbol_text("resnet50_v1"))
    for node in text["nodes"]:
        if place := re.search(r"stage[234]_conv([01])_fwd$", node["name"]):
            node["attrs"]["stride"] = {"0": "(1, 1)", "1": "(2, 2)"}[place[1]]
    found = recognise(lowered("resnet50_v1", json.dumps(text).encode()))
    assert found is not None
    assert found.architecture.name == "gluon_resnet_v1_50_until_1.0"


def test_widths_are_read_off_the_graph() -> None:
    """A narrow network that MXNet exported is recognised, and its class can be created."""
    found = recognise(exported("resnet18_v1-narrow", 224))
    assert found is not None
    assert found.architecture.name == "gluon_resnet_v1_18"
    assert found.arguments == {"num_classes": 100, "widths": (8, 8, 16, 32, 64)}
    assert found.network.tensors["features.5.0.downsample.0.weight"].shape == (16, 8, 1, 1)


@pytest.mark.parametrize(
    ("file", "module", "size"),
    [
        (
            "vgg11_bn-narrow",
            lambda: GluonVGG(
                11, batch_norm=True, widths=(8, 16, 16, 16, *[32] * 4, 4096, 4096), size=64
            ),
            64,
        ),
        ("densenet-narrow", lambda: GluonDenseNet((2, 4, 6, 4), widths=(16, 8)), 224),
    ],
    ids=["vgg", "densenet"],
)
def test_other_sizes_of_a_class_are_the_zoos(file: str, module: Any, size: int) -> None:
    """Narrow networks, for smaller images or with fewer layers, have the graph of the class."""
    with torch.device("meta"):
        ours = trace(module().eval(), [(2, 3, size, size)]).graph
    assert fingerprint(ours) == fingerprint(exported(file, size).graph)


@pytest.mark.parametrize(
    ("name", "classes"), [("gluon_vgg11", nn.Linear), ("gluon_alexnet", nn.Conv2d | nn.Linear)]
)
def test_normal_initial_values(name: str, classes: Any) -> None:
    """Linear weights, in AlexNet all, are normal with MXNet's own deviation; biases are 0."""
    torch.manual_seed(1)
    for layer in create(name, width_divisor=8).modules():
        if isinstance(layer, classes):
            rel = SIGMAS / math.sqrt(2 * layer.weight.numel())
            assert layer.weight.std().item() == pytest.approx(0.01, rel=rel)
            assert not layer.bias.any()


def test_convolutions_of_vgg_begin_by_fan_out() -> None:
    """Normal, with a variance of 2 by fan-out; BatchNorm 1 and 0."""
    torch.manual_seed(1)
    for layer in create("gluon_vgg11_bn", width_divisor=8).modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / layer.weight[:, 0].numel())
            rel = SIGMAS / math.sqrt(2 * layer.weight.numel())
            assert layer.weight.std().item() == pytest.approx(expected, rel=rel)
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert not layer.bias.any()


def test_no_bottleneck_without_channels() -> None:
    """A quarter of three channels is none."""
    with pytest.raises(ValueError, match="^3 channels divided by 4: none is left"):
        find("gluon_resnet_v1_50").create(widths=(8, 3, 8, 8, 8))
