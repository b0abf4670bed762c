"""The ResNets of fb.resnet.torch: Torch7's own files are these classes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from converters.t7 import T7Source
from models import ops
from models.architectures import create, find, recognise
from models.architectures.fb_resnet import CIFAR_DEPTHS, FbResNet, Form, ZeroFilled
from models.architectures.registry import traced
from models.fingerprint import fingerprint
from tests.oracles import golden

SIGMAS = 5  # of the standard deviation's own: once in two million draws, and the seed is fixed

FILES = {
    "fb_resnet18_imagenet_div8": ("fb_resnet_18", 1000, 8, 224),
    "fb_resnet50_imagenet_div16": ("fb_resnet_50", 1000, 16, 224),
    "fb_resnet20_cifar10": ("fb_resnet_cifar_20", 10, 1, 32),
    "fb_resnet8_cifar10_keepstate": ("fb_resnet_cifar_8_b", 10, 2, 32),
    "fb_preresnet18_imagenet_div8": ("fb_preresnet_18", 1000, 8, 224),
    "fb_preresnet20_cifar10_half": ("fb_preresnet_cifar_20", 10, 2, 32),
}


@pytest.mark.parametrize("file", FILES)
def test_torch7s_file_has_the_structure_of_the_class(file: str) -> None:
    """The fingerprints are equal, and recognition finds name, width and classes by itself."""
    name, classes, divisor, size = FILES[file]
    path = golden(f"torch7/models/{file}.t7")
    network = T7Source(path).lower([(2, 3, size, size)], ops.infer).network
    arguments = {"num_classes": classes, "width_divisor": divisor}
    ours = traced(find(name), arguments, (2, 3, size, size))
    assert fingerprint(ours) == fingerprint(network.graph)
    found = recognise(network)
    assert found is not None
    assert (found.architecture.name, found.arguments) == (name, arguments)
    assert found.network.parameters == network.parameters


PARAMETERS = {  # what torchvision's networks of the same structure have
    "fb_resnet_18": 11_689_512,
    "fb_resnet_34": 21_797_672,
    "fb_resnet_50": 25_557_032,
    "fb_resnet_101": 44_549_160,
    "fb_resnet_152": 60_192_808,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_number_of_parameters_is_the_known_one(name: str) -> None:
    """Every width counts in it."""
    with torch.device("meta"):
        module = create(name)
    assert sum(one.numel() for one in module.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("fb_resnet_18_a", 17),
        ("fb_resnet_18", 20),
        ("fb_resnet_18_c", 25),
        ("fb_preresnet_50", 53),
        ("fb_preresnet_50_c", 65),
        ("fb_resnet_cifar_20", 19),
        ("fb_resnet_cifar_20_b", 21),
        ("fb_preresnet_cifar_20_c", 28),
    ],
)
def test_shortcuts_are_convolutions_where_the_letter_says(name: str, convolutions: int) -> None:
    """A: none. B: where the number of channels changes. C: in every unit."""
    with torch.device("meta"):
        modules = list(create(name).modules())
    assert sum(isinstance(one, nn.Conv2d) for one in modules) == convolutions


def test_shortcut_a_takes_every_second_pixel_and_adds_zeros() -> None:
    """As many channels of zeros as there are of pixels."""
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.tensor([[[[0.0, 2.0], [8.0, 10.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    torch.testing.assert_close(ZeroFilled(2)(x), expected)


def test_shortcut_a_does_not_fit_a_bottleneck() -> None:
    """Torch7 stops there too, when the tensors are added."""
    with pytest.raises(ValueError, match="^shortcut A doubles the channels"):
        FbResNet(Form(50, "A"))


def test_a_depth_that_the_rule_does_not_allow_is_refused() -> None:
    """6n + 2, as the source asserts."""
    assert {20, 32, 44, 56, 110, 1202} <= set(CIFAR_DEPTHS)
    with pytest.raises(ValueError, match="^depth 21: a CIFAR network has 6n"):
        FbResNet(Form(21, "A", cifar=True))


def test_a_width_that_leaves_no_channel_is_refused() -> None:
    """Not a network with empty layers."""
    with pytest.raises(ValueError, match="^64 channels divided by 100: none is left"):
        create("fb_resnet_18", width_divisor=100)


def test_units_change_nothing_that_others_read() -> None:
    """Although ReLUs work in place, the input of a unit is as it was."""
    torch.manual_seed(0)
    for name in ("fb_resnet_18", "fb_preresnet_18", "fb_preresnet_cifar_8"):
        network = create(name, width_divisor=8)
        assert isinstance(network, FbResNet)
        seen: list[tuple[Tensor, Tensor]] = []

        def keep(_: nn.Module, given: tuple[Tensor], seen: list[Any] = seen) -> None:
            seen.append((given[0], given[0].clone()))

        for stage in network.stages:
            for unit in stage:
                unit.register_forward_pre_hook(keep)
        x = torch.randn(2, 3, 32, 32) if "cifar" in name else torch.randn(2, 3, 224, 224)
        network.eval()(x)
        assert len(seen) == find(name).residuals
        assert all(torch.equal(*pair) for pair in seen)


def test_initial_values_are_the_originals() -> None:
    """Convolutions normal by fan-out, BatchNorm 1 and 0, Linear uniform by fan-in without bias."""
    torch.manual_seed(1)
    network = create("fb_resnet_18", width_divisor=2)
    assert isinstance(network, FbResNet)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            expected = math.sqrt(2 / (height * width * module.out_channels))
            rel = SIGMAS / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(expected, rel=rel)
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-5
            assert (module.weight == 1).all()
            assert not module.bias.any()
    bound = 1 / math.sqrt(network.classifier.in_features)
    assert 0.99 * bound < network.classifier.weight.abs().max().item() <= bound
    assert not network.classifier.bias.any()
