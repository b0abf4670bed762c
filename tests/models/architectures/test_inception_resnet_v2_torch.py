"""Inception-ResNet-v2 of the Torch7 run: its sizes, its first numbers, and that it can learn."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.architectures.inception_resnet_v2_torch import (
    CLASSIFIER_DROPOUT,
    RESIDUAL_SCALE,
    InceptionResNetV2Torch,
)
from models.architectures.layers import Branches, Conv, Residual
from models.build import build
from models.trace import trace
from models.verify import run
from tests.small_networks import batches

PARAMETERS = 31_574_440  # of the original's file, for 1000 classes
SHAPE = (2, 3, 299, 299)
SIGMAS = 5  # of the standard deviation's own: once in two million draws, and the seed is fixed

Network = InceptionResNetV2Torch


def without_memory(**arguments: int) -> InceptionResNetV2Torch:
    with torch.device("meta"):
        return Network(**arguments)


@pytest.fixture(scope="module")
def thin() -> InceptionResNetV2Torch:
    """Return the network a sixteenth as wide, initialised from a seed."""
    torch.manual_seed(0)
    return Network(num_classes=10, width_divisor=16)


def test_the_number_of_parameters_is_the_originals() -> None:
    """Every width of the 200 layers counts in it."""
    assert sum(one.numel() for one in without_memory().parameters()) == PARAMETERS


def test_other_classes_change_the_last_layer_only() -> None:
    """The rest of the shapes stay."""
    ours = {name: one.shape for name, one in without_memory(num_classes=7).named_parameters()}
    theirs = {name: one.shape for name, one in without_memory().named_parameters()}
    assert {name for name in theirs if ours[name] != theirs[name]} == {
        "classifier.weight",
        "classifier.bias",
    }


STAGES = {
    "stem.0": (32, 149, 149),
    "stem.1": (32, 147, 147),
    "stem.2": (64, 147, 147),
    "stem.3": (160, 73, 73),
    "stem.4": (192, 71, 71),
    "stem": (384, 35, 35),
    "blocks_a.0": (384, 35, 35),
    "blocks_a": (384, 35, 35),
    "reduction_a": (1152, 17, 17),
    "blocks_b": (1152, 17, 17),
    "reduction_b": (2048, 8, 8),
    "blocks_c": (2048, 8, 8),
    "pool": (2048, 1, 1),
    "dropout": (2048,),
    "classifier": (1000,),
}


@pytest.fixture(scope="module")
def stages() -> dict[str, tuple[int, ...]]:
    """Return the output shape of every module, for one run without memory."""
    module = without_memory()
    found: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            found[name] = tuple(output.shape)

        return hook

    for name in STAGES:
        module.get_submodule(name).register_forward_hook(keep(name))
    module(torch.empty(SHAPE, device="meta"))
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_stages_have_the_papers_shapes(stages: dict[str, tuple[int, ...]], stage: str) -> None:
    """Sizes as the figures say, channels as the original's file says."""
    assert stages[stage] == (2, *STAGES[stage])


@pytest.mark.parametrize(("stage", "blocks"), [("blocks_a", 5), ("blocks_b", 10), ("blocks_c", 5)])
def test_blocks_are_as_many_as_the_original_has(stage: str, blocks: int) -> None:
    """Five, ten, five; not ten, twenty, ten."""
    assert len(without_memory(width_divisor=32).get_submodule(stage)) == blocks  # type: ignore[arg-type]


def test_settings_that_the_source_names() -> None:
    """Convolutions have no bias, BatchNorm has eps 1e-5, dropout drops a fifth."""
    modules = list(without_memory().modules())
    assert all(one.bias is None for one in modules if isinstance(one, nn.Conv2d))
    assert {one.eps for one in modules if isinstance(one, nn.BatchNorm2d)} == {1e-5}
    assert (
        [one.p for one in modules if isinstance(one, nn.Dropout)] == [CLASSIFIER_DROPOUT] == [0.2]
    )


def test_a_thin_network_runs_and_every_parameter_learns(thin: InceptionResNetV2Torch) -> None:
    """Real images go through, and no layer is left out of training."""
    (batch,) = batches([SHAPE])
    labels = torch.tensor([3, 8])
    logits = thin.train()(torch.from_numpy(batch))
    assert logits.shape == (2, 10)
    thin.zero_grad()
    nn.functional.cross_entropy(logits, labels).backward()
    still = [
        name for name, one in thin.named_parameters() if one.grad is None or not one.grad.any()
    ]
    assert still == []


def test_the_traced_network_computes_the_same() -> None:
    """In evaluation mode, what is built from the trace gives the class's own bits."""
    torch.manual_seed(0)
    module = Network(num_classes=10, width_divisor=16).eval()
    inputs = batches([(1, 3, 299, 299)])
    again = build(trace(module, [(1, 3, 299, 299)]))
    assert torch.equal(
        torch.from_numpy(run(again, inputs)[0]), torch.from_numpy(run(module, inputs)[0])
    )


# Initial values ---------------------------------------------------------------------------------


def test_convolutions_start_normal_by_fan_out(thin: InceptionResNetV2Torch) -> None:
    """The standard deviation is sqrt(2 / (kernel height * kernel width * output channels))."""
    torch.manual_seed(1)
    for module in Network(num_classes=10, width_divisor=4).modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            expected = math.sqrt(2 / (height * width * module.out_channels))
            count = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(
                expected, rel=SIGMAS / math.sqrt(2 * count)
            )
            assert abs(module.weight.mean().item()) <= SIGMAS * expected / math.sqrt(count)


def test_the_classifier_starts_uniform_and_without_bias() -> None:
    """Within 1 / sqrt(inputs) either way, as Torch7's Linear starts."""
    torch.manual_seed(1)
    classifier = Network(width_divisor=8).classifier
    bound = 1 / math.sqrt(classifier.in_features)
    assert 0.99 * bound < classifier.weight.abs().max().item() <= bound
    assert classifier.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not classifier.bias.any()


def test_batch_norm_starts_as_the_identity() -> None:
    """Weight 1, bias 0, mean 0, variance 1."""
    for module in Network(width_divisor=32).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
            assert not module.running_mean.any()
            assert (module.running_var == 1).all()


def test_initial_values_come_from_torchs_seed() -> None:
    """A training run can be repeated."""
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(Network(width_divisor=32).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# Parts ------------------------------------------------------------------------------------------


def test_a_residual_adds_a_tenth() -> None:
    """`relu(x + 0.1 * projection(branches(x)))`, in numbers; x is left as it was."""
    assert RESIDUAL_SCALE == 0.1
    projection = Conv(2, 1, 1, linear=True)
    block = Residual(nn.Identity(), nn.Identity(), projection=projection, scale=RESIDUAL_SCALE)
    block.eval()
    nn.init.constant_(projection.conv.weight, 1.0)
    projection.bn.eps = 0.0
    x = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    before = x.clone()
    torch.testing.assert_close(block(x), torch.tensor([1.2, 0.0]).reshape(2, 1, 1, 1))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("linear", "layers"), [(False, ["conv", "bn", "relu"]), (True, ["conv", "bn"])]
)
def test_a_convolution_has_no_relu_where_it_is_linear(linear: bool, layers: list[str]) -> None:
    """The names are those of the state_dict."""
    assert [name for name, _ in Conv(1, 1, 1, linear=linear).named_children()] == layers


def test_branches_are_joined_in_order() -> None:
    """Channels of the first branch come first."""
    x = torch.ones(1, 2, 3, 3)
    joined = Branches(nn.Identity(), nn.ReLU6(), nn.Threshold(2.0, 5.0))(x)
    assert joined.shape == (1, 6, 3, 3)
    assert joined[0, :, 0, 0].tolist() == [1, 1, 1, 1, 5, 5]
