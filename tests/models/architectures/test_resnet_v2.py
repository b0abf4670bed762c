"""MXNet's ResNet-v2: the symbols and arrays of MXNet's own files are this class.

What MXNet computed is compared where its files are converted; here the class is held to them
operator by operator, setting by setting and array by array.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from models.architectures import create, find, recognise
from models.architectures.registry import traced
from models.architectures.resnet_v2 import CIFAR_DEPTHS, ResNetV2
from models.fingerprint import fingerprint
from models.graph import Network
from tests.models.architectures.mxnet_symbol import param_shapes, symbol_graph
from tests.oracles import golden

SIGMAS = 5  # of the standard deviation's own: once in two million draws, and the seed is fixed
TINY = (8, 8, 8, 16, 16)

FILES: dict[str, tuple[str, int, tuple[int, ...] | None]] = {
    "cifar10-110": ("resnet_v2_cifar_110", 10, None),
    "cifar10-164": ("resnet_v2_cifar_164", 10, None),
    "imagenet-152": ("resnet_v2_152", 1000, None),
    "imagenet-18-narrow": ("resnet_v2_18", 1000, (8, 8, 16, 32, 64)),
    "imagenet-18-tiny-v08": ("resnet_v2_18", 50, TINY),
    "imagenet-18-tiny-v095": ("resnet_v2_18", 50, TINY),
    "imagenet-18-tiny-v011": ("resnet_v2_18", 50, TINY),
    "imagenet-18-tiny-v100": ("resnet_v2_18", 50, TINY),
    "imagenet-18-tiny-v191": ("resnet_v2_18", 50, TINY),
    "imagenet-200": ("resnet_v2_200", 1000, None),
    "imagenet-50": ("resnet_v2_50", 1000, None),
    "imagenet-50-narrow-memonger": ("resnet_v2_50", 200, (8, 32, 64, 64, 128)),
    "imagenet11k-200-narrow": ("resnet_v2_200", 11221, (16, 32, 64, 64, 128)),
}


def _params(name: str) -> Path:
    folder = golden("mxnet/resnet")
    plain = folder / f"{name}-0000.params"
    return plain if plain.exists() else folder / f"{name}-0000.params.xz"


@pytest.mark.parametrize("file", FILES)
def test_mxnets_symbol_has_the_structure_of_the_class(file: str) -> None:
    """The fingerprints are equal, and recognition finds depth, widths and classes by itself."""
    name, classes, widths = FILES[file]
    entry = find(name)
    shape = (2, 3, entry.size, entry.size)
    graph, arrays, fixed = symbol_graph(golden(f"mxnet/resnet/{file}-symbol.json"), shape)
    arguments = {"num_classes": classes} | ({"widths": widths} if widths else {})
    assert fingerprint(traced(entry, arguments, shape)) == fingerprint(graph)
    found = recognise(Network(graph, {}))
    assert found is not None
    assert found.architecture is entry
    assert found.arguments["num_classes"] == classes
    assert param_shapes(_params(file)) == arrays
    assert [norm for norm, is_fixed in fixed.items() if is_fixed] == ["bn_data"]


@pytest.mark.parametrize(
    ("depth", "units"), [(20, 9), (110, 54), (158, 78), (164, 54), (1001, 333)]
)
def test_the_rule_for_cifar(depth: int, units: int) -> None:
    """Below 164 two convolutions a unit, from there bottlenecks of three."""
    assert find(f"resnet_v2_cifar_{depth}").residuals == units


@pytest.mark.parametrize("depth", [165, 170])
def test_a_depth_that_the_rule_does_not_allow_is_refused(depth: int) -> None:
    """170 is 6n + 2, but from 164 on it has to be 9n + 2."""
    assert depth not in CIFAR_DEPTHS
    with pytest.raises(ValueError, match=f"^depth {depth}: 6n"):
        ResNetV2(depth, cifar=True)


def test_the_first_scale_stays_one() -> None:
    """MXNet's fix_gamma: it is no parameter that learns."""
    network = create("resnet_v2_18", width_divisor=8)
    assert isinstance(network, ResNetV2)
    assert (network.bn_data.weight == 1).all()
    frozen = [name for name, one in network.named_parameters() if not one.requires_grad]
    assert frozen == ["bn_data.weight"]
    assert {one.eps for one in network.modules() if isinstance(one, nn.BatchNorm2d)} == {2e-5}


def test_initial_values_are_the_originals() -> None:
    """Convolutions and the classifier normal by fan-in, biases 0, BatchNorm 1 and 0."""
    torch.manual_seed(1)
    network = create("resnet_v2_18", width_divisor=2)
    assert isinstance(network, ResNetV2)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            expected = math.sqrt(2 / module.weight[0].numel())
            rel = SIGMAS / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(expected, rel=rel)
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert not network.classifier.bias.any()
