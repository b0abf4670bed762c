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


class Residual(Branches):
    """`relu(x + scale * projection(branches(x)))`, without the ReLU where it is `linear`."""

    def __init__(
        self, *branches: nn.Module, projection: nn.Module, scale: float, linear: bool = False
    ) -> None:
        super().__init__(*branches)
        self.projection = projection
        self.scale = scale
        self.relu = nn.Identity() if linear else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> the same
        total: Tensor = self.relu(x + self.scale * self.projection(super().forward(x)))
        return total


def stem_of_v4(w: Widths, conv: Callable[..., Conv]) -> nn.Sequential:
    """299 x 299 x 3 -> 35 x 35 x 384 (arXiv 1602.07261, figure 3)."""
    return nn.Sequential(
        conv(3, w(32), 3, stride=2),
        conv(w(32), w(32), 3),
        conv(w(32), w(64), 3, padding=1),
        Branches(nn.MaxPool2d(3, 2), conv(w(64), w(96), 3, stride=2)),
        Branches(
            nn.Sequential(conv(w(160), w(64), 1), conv(w(64), w(96), 3)),
            nn.Sequential(
                conv(w(160), w(64), 1),
                conv(w(64), w(64), (1, 7), padding=(0, 3)),
                conv(w(64), w(64), (7, 1), padding=(3, 0)),
                conv(w(64), w(96), 3),
            ),
        ),
        Branches(conv(w(192), w(192), 3, stride=2), nn.MaxPool2d(3, 2)),
    )


def stem_of_v3(w: Widths, conv: Callable[..., Conv]) -> nn.Sequential:
    """299 x 299 x 3 -> 35 x 35 x 192 (arXiv 1512.00567, table 1, the 1 x 1 as in TensorFlow)."""
    return nn.Sequential(
        conv(3, w(32), 3, stride=2),
        conv(w(32), w(32), 3),
        conv(w(32), w(64), 3, padding=1),
        nn.MaxPool2d(3, 2),
        conv(w(64), w(80), 1),
        conv(w(80), w(192), 3),
        nn.MaxPool2d(3, 2),
    )


def in_a_row(conv: Callable[..., Conv], channels: int, *steps: tuple[int, Pair]) -> nn.Sequential:
    """Convolutions one after the other that keep the image's size: `(channels, kernel)` each."""
    layers = []
    for made, kernel in steps:
        sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        around = (sizes[0] // 2, sizes[1] // 2)
        layers.append(conv(channels, made, kernel, padding=around))
        channels = made
    return nn.Sequential(*layers)


def truncated_normal(network: nn.Module, std: float = 0.1) -> None:
    """Initialise as Lornatang's programs do: normal within 2 either way, BatchNorm 1 and 0.

    Biases keep torch's own numbers.

    Source: Lornatang/InceptionV4-PyTorch model.py, _initialize_weights.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
            nn.init.trunc_normal_(module.weight, std=std)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


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
