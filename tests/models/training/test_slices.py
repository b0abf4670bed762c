"""BatchNorm in parts is what several devices computed."""

import copy

import pytest
import torch
from torch import nn

from models.errors import RecipeError
from models.recipes import RECIPES, changed
from models.training.slices import slice_batch_norm, slices_of

RECIPE = RECIPES["irv2-setting1"]


def networks(slices: int, kept: str) -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    ours = copy.deepcopy(plain)
    slice_batch_norm(ours, slices, kept)  # type: ignore[arg-type]
    return plain, ours


@pytest.mark.parametrize("kept", ["first", "mean"])
def test_each_part_is_normalised_alone(kept: str) -> None:
    """Outputs and gradients are those of the parts by themselves, and so are the statistics."""
    plain, ours = networks(2, kept)
    replicas = [copy.deepcopy(plain) for _ in range(2)]
    images = torch.randn(8, 3, 6, 6)
    outputs = torch.cat([one(part) for one, part in zip(replicas, images.chunk(2), strict=True)])
    got = ours(images)
    torch.testing.assert_close(got, outputs)
    outputs.square().sum().backward()
    got.square().sum().backward()
    for name, parameter in ours.named_parameters():
        summed = sum(one.get_parameter(name).grad for one in replicas)
        torch.testing.assert_close(parameter.grad, summed, rtol=1e-4, atol=1e-5)
    for name in ("1.running_mean", "1.running_var"):
        statistics = [one.get_buffer(name) for one in replicas]
        expected = statistics[0] if kept == "first" else torch.stack(statistics).mean(0)
        torch.testing.assert_close(ours.get_buffer(name), expected)
    assert ours.get_buffer("1.num_batches_tracked") == 1


def test_evaluation_and_state_stay_as_they_were() -> None:
    """Names, shapes and evaluation are those of the plain network."""
    plain, ours = networks(4, "mean")
    assert plain.state_dict().keys() == ours.state_dict().keys()
    images = torch.randn(3, 3, 6, 6)
    assert torch.equal(plain.eval()(images), ours.eval()(images))


def test_fewer_images_than_parts_are_fewer_parts() -> None:
    """An epoch's last batch may be short."""
    _, ours = networks(4, "mean")
    assert ours(torch.randn(3, 3, 6, 6)).shape == (3, 4, 4, 4)


@pytest.mark.parametrize(
    ("world", "accumulate", "slices"), [(1, 1, 2), (2, 1, 1), (1, 2, 1), (4, 1, 1)]
)
def test_devices_are_shared_out(world: int, accumulate: int, slices: int) -> None:
    """Processes and parts of a batch stand for the original's devices first."""
    recipe = changed(RECIPE, {"accumulate": str(accumulate)})
    assert slices_of(recipe, world) == slices


def test_devices_that_cannot_be_shared_out_are_refused() -> None:
    """Two devices are not three processes, and a part of one image has no variance."""
    with pytest.raises(RecipeError, match="virtual-gpus 2: cannot be shared out among 3 processes"):
        slices_of(RECIPE, 3)
    tiny = changed(RECIPE, {"batch_size": "2"})
    with pytest.raises(RecipeError, match="batch-size 2: 1 images for each of 2 parts are too few"):
        slices_of(tiny, 1)
