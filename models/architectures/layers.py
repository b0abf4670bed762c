"""Parts that several families of networks have, and the ways their originals initialised them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Pair = int | tuple[int, int]
Widths = Callable[[int], int]


def thinner(divisor: int) -> Widths:
    """Return the function from a layer's own width to the width it has in a thinner network.

    It raises ValueError where no channel would be left.
    """

    def width(channels: int) -> int:
        if channels < divisor:
            raise ValueError(f"{channels} channels divided by {divisor}: none is left")
        return channels // divisor

    return width


class Conv(nn.Sequential):
    """Convolution without bias, BatchNorm, and ReLU unless `linear`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: int = 1,
        padding: Pair = 0,
        eps: float = 1e-5,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps)
        if not linear:
            self.relu = nn.ReLU(inplace=True)


class Branches(nn.Module):
    """Several ways from one input, joined by channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, sum of C, H', W')
        return torch.cat([branch(x) for branch in self.branches], 1)


def normal_by_fan_out(network: nn.Module) -> None:
    """Initialise as fb.resnet.torch does: normal by fan-out, BatchNorm 1 and 0, no bias.

    Linear weights keep Torch7's own uniform numbers, within 1 / sqrt(inputs).

    Source: facebook/fb.resnet.torch models/resnet.lua, ConvInit, BNInit and what follows.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
