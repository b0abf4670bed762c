"""EfficientNet-Lite: the pretrained Torch7 file is this class, at 224 pixels and no other size."""

import math

import pytest
import torch
from torch import nn

from converters.t7 import T7Source
from models import ops
from models.architectures import create, find, recognise
from models.architectures.efficientnet_lite import VARIANTS, DropConnect, EfficientNetLite
from models.architectures.registry import traced
from models.fingerprint import fingerprint
from models.layers import Pad
from tests.oracles import ROOT

SIGMAS = 5  # of the standard deviation's own: once in two million draws, and the seed is fixed
PARAMETERS = {0: 4_652_008, 1: 5_416_680, 2: 6_092_072}  # of the source's own test


def test_the_pretrained_file_has_the_structure_of_the_class() -> None:
    """The fingerprints are equal, and recognition finds variant and classes by itself."""
    shape = (2, 3, 224, 224)
    path = ROOT / "examples" / "efficientnet_lite0.t7"
    network = T7Source(path).lower([shape], ops.infer).network
    ours = traced(find("efficientnet_lite0"), {"num_classes": 1000}, shape)
    assert fingerprint(ours) == fingerprint(network.graph)
    found = recognise(network)
    assert found is not None
    assert found.architecture.name == "efficientnet_lite0"
    assert found.network.parameters == network.parameters == PARAMETERS[0]


@pytest.mark.parametrize("number", VARIANTS)
def test_the_number_of_parameters_is_the_sources(number: int) -> None:
    """Every width and depth of the scaled networks counts in it."""
    with torch.device("meta"):
        module = EfficientNetLite(number)
    assert sum(one.numel() for one in module.parameters()) == PARAMETERS[number]


@pytest.mark.parametrize(
    ("number", "borders"),
    [
        # 224, 112, 56, 28 and 14 are even: one row more below, for a kernel of 5 two
        (0, [(0, 1), (0, 1), (1, 2), (0, 1), (1, 2)]),
        # 240, 120, 60 and 30 are even; 15 needs two on each side, which the convolution has itself
        (1, [(0, 1), (0, 1), (1, 2), (0, 1)]),
        # 260 and 130 are even; 65, 33 and 17 are not
        (2, [(0, 1), (0, 1)]),
    ],
)
def test_borders_are_tensorflows(number: int, borders: list[tuple[int, int]]) -> None:
    """SAME padding depends on the size of the image at each layer."""
    pads = [one for one in EfficientNetLite(number, width_divisor=8).modules() if type(one) is Pad]
    assert [(one.padding[0], one.padding[1]) for one in pads] == borders
    assert all(one.padding[:2] == one.padding[2:] for one in pads)


def test_drop_connect_leaves_images_out_in_training_only() -> None:
    """A quarter of the rows is zero, the others make good for it; evaluation changes nothing."""
    torch.manual_seed(0)
    layer, x = DropConnect(0.25), torch.ones(4000, 2, 1, 1)
    assert layer.eval()(x) is x
    kept = layer.train()(x)
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert kept.unique().tolist() == [0.0, pytest.approx(4 / 3)]


def test_initial_values_are_the_originals() -> None:
    """Convolutions normal by fan-out, the classifier uniform by the number of classes."""
    torch.manual_seed(1)
    network = create("efficientnet_lite0", num_classes=100)
    assert isinstance(network, EfficientNetLite)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            made = module.out_channels // module.groups
            expected = math.sqrt(2 / (math.prod(module.kernel_size) * made))
            rel = SIGMAS / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(expected, rel=rel)
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.01)
    assert 0.099 < network.classifier.weight.abs().max().item() <= 0.1
    assert not network.classifier.bias.any()
