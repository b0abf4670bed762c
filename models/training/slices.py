"""BatchNorm as the originals' several devices computed it: each on its own part of a batch."""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from models.errors import RecipeError
from models.recipes.recipe import Recipe
from models.training.processes import Processes

Kept = Literal["first", "mean"]


class SlicedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics in training are those of each of several parts of the batch.

    The running statistics that stay are those of the `first` part, as Torch7 saved its first
    device's, or the `mean` over the parts, as MXNet's models were saved. Parameters and buffers
    are those of the layer it stands for.

    Source: torch/cunn DataParallelTable.lua; MXNet executor_manager.py, copy_to.
    """

    def __init__(self, layer: nn.BatchNorm2d, slices: int, kept: Kept) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self.slices, self.kept = slices, kept

    def forward(self, x: Tensor) -> Tensor:
        """Normalise: N x C x H x W -> the same."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        parts = [part for part in x.tensor_split(self.slices) if len(part)]
        running = [(self.running_mean.clone(), self.running_var.clone()) for _ in parts]
        outputs = [
            batch_norm(part, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
            for part, (mean, var) in zip(parts, running, strict=True)
        ]
        with torch.no_grad():
            stay = running[:1] if self.kept == "first" else running
            self.running_mean.copy_(torch.stack([mean for mean, _ in stay]).mean(0))
            self.running_var.copy_(torch.stack([var for _, var in stay]).mean(0))
        return torch.cat(outputs)


class Statistics:
    """Running statistics of a network whose batch is computed in parts, one after the other.

    Each part begins with those from before the batch, and what stays is the first part's or the
    mean: as if they had been slices of a batch that is computed at once.
    """

    def __init__(self, network: nn.Module, kept: Kept) -> None:
        self._kept = kept
        self._buffers = list(network.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]
        self._after: list[list[Tensor]] = []

    def end_part(self) -> None:
        """Note what a part has left, and put back what was there before it."""
        self._after.append([buffer.clone() for buffer in self._buffers])
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)

    def end_batch(self) -> None:
        """Put in place what stays."""
        stay = self._after[:1] if self._kept == "first" else self._after
        for buffer, *found in zip(self._buffers, *stay, strict=True):
            mean = torch.stack(found).mean(0) if buffer.is_floating_point() else found[0]
            buffer.copy_(mean)


def slice_batch_norm(network: nn.Module, slices: int, kept: Kept) -> None:
    """Let every BatchNorm of a network see parts of a batch; names and state stay as they are."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                module.add_module(name, SlicedBatchNorm2d(child, slices, kept))


def slices_of(recipe: Recipe, world: int) -> int:
    """Return into how many parts BatchNorm cuts what a process computes at once.

    Raises:
        RecipeError: The recipe's devices cannot be shared out among so many processes.
    """
    parts = world * recipe.accumulate
    if recipe.virtual_gpus % parts and parts % recipe.virtual_gpus:
        raise RecipeError(
            f"virtual-gpus {recipe.virtual_gpus}: cannot be shared out among {world} processes "
            f"with batches in {recipe.accumulate} parts: one number must divide the other"
        )
    slices = max(recipe.virtual_gpus // parts, 1)
    smallest = recipe.batch_size // (parts * slices)
    if smallest < 1 or (slices > 1 and smallest < 2):
        raise RecipeError(
            f"batch-size {recipe.batch_size}: {smallest} images for each of {parts * slices} parts "
            "are too few for BatchNorm"
        )
    return slices


def settle(network: nn.Module, kept: Kept, processes: Processes) -> None:
    """Give every process the running statistics that stay: the first one's, or the mean.

    What they were does not come back: training never reads them, and the mean of what follows is
    the same either way.
    """
    if processes.world == 1:
        return
    for buffer in network.buffers():
        if kept == "first" or not buffer.is_floating_point():
            dist.broadcast(buffer, 0)
        else:
            dist.all_reduce(buffer)
            buffer /= processes.world
