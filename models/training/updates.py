"""The optimizer of a recipe: which parameters decay, and what a place in the run asks of it."""

from collections.abc import Mapping

import torch
from torch import nn

from models.errors import RecipeError
from models.graph import Array
from models.recipes.recipe import FLOAT32_MAX, Recipe
from models.training.schedules import Place


def build_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.SGD:
    """Return SGD over the parameters that learn, in a group that decays and one that does not.

    Its first update takes the gradient itself for momentum, as Torch7's and MXNet's do. MXNet
    gives no decay to what is called neither `_weight` nor `_gamma` there: the biases and shifts.

    Source: torch/optim sgd.lua; MXNet optimizer.py, `NAG` and `set_wd_mult`.
    """
    learning = {name: one for name, one in module.named_parameters() if one.requires_grad}
    still = {name for name in learning if recipe.decay_on == "weights" and name.endswith("bias")}
    groups = [
        {"params": [one for name, one in learning.items() if name not in still], "decays": True},
        {"params": [learning[name] for name in learning if name in still], "decays": False},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )


def prepare(optimizer: torch.optim.SGD, recipe: Recipe, place: Place) -> None:
    """Give the optimizer the learning rate and the decay of the update that comes.

    Raises:
        RecipeError: The schedule has made one of them larger than the weights' numbers can be.
    """
    lr, decay = recipe.lr_at(place), recipe.decay_at(place)
    for flag, value in (("schedule", lr), ("decay-schedule", decay)):
        if not value <= FLOAT32_MAX:
            raise RecipeError(
                f"--{flag}: gives {value:g} for update {place.update:,}, expected at most "
                f"{FLOAT32_MAX:.2g}, float32's largest"
            )
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = decay if group["decays"] else 0.0
    begins = (place.update - 1) % place.steps == 0
    if begins and place.epoch in recipe.momentum_drops:
        optimizer.state.clear()


def buffers_of(optimizer: torch.optim.SGD, module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the momentum buffers that there are, by the parameters' names."""
    found = {
        name: optimizer.state.get(parameter, {}).get("momentum_buffer")
        for name, parameter in module.named_parameters()
    }
    return {name: buffer for name, buffer in found.items() if buffer is not None}


def restore_buffers(
    optimizer: torch.optim.SGD, module: nn.Module, buffers: Mapping[str, torch.Tensor]
) -> None:
    """Let momentum go on from `buffers_of`, whatever the groups are now."""
    for name, parameter in module.named_parameters():
        if name in buffers and parameter.requires_grad:
            buffer = torch.empty_like(parameter).copy_(buffers[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer


def take_buffers(
    optimizer: torch.optim.SGD, module: nn.Module, buffers: Mapping[str, Array]
) -> None:
    """Let momentum go on from the buffers of an earlier run, by the parameters' names.

    Raises:
        RecipeError: They are of other parameters.
    """
    learning = {name: one for name, one in module.named_parameters() if one.requires_grad}
    odd = [
        name
        for name, parameter in learning.items()
        if name not in buffers or buffers[name].shape != tuple(parameter.shape)
    ]
    if odd:
        raise RecipeError(f"--optimizer: no momentum of that shape for {', '.join(odd[:5])}")
    for name, parameter in learning.items():
        buffer = torch.from_numpy(buffers[name].copy()).to(parameter.device)
        optimizer.state[parameter]["momentum_buffer"] = buffer
