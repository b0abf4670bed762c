"""EfficientNet-Lite 0, 1 and 2.

Paper: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
arXiv 1905.11946, table 1.
Source: tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py and
efficientnet_model.py.

Against the paper: no squeeze-and-excitation, ReLU6 for swish, and the stem, the head and the number
of blocks in the first and last stage stay as they are when the network grows. BatchNorm has eps
1e-3 and momentum 0.01. Padding is TensorFlow's SAME: where stride 2 needs an uneven border, the
larger half is at the bottom and on the right, so the network is made for images of one size. In
training a residual branch is left out with a probability that grows with depth, up to 0.2.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.architectures.layers import Widths, thinner
from models.architectures.registry import Architecture, Facts, register
from models.layers import Pad

EPS, MOMENTUM = 1e-3, 0.01
STEM, HEAD = 32, 1280
CHANNEL_STEP = 8
LAST_DROP = 0.2  # of a residual branch in the last block


class Stage(NamedTuple):
    """Blocks of one kind; the first has the stride."""

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Variant(NamedTuple):
    """How a network of the family is scaled."""

    width: float
    depth: float
    size: int
    dropout: float


VARIANTS = {
    0: Variant(1.0, 1.0, 224, 0.2),
    1: Variant(1.0, 1.1, 240, 0.2),
    2: Variant(1.1, 1.2, 260, 0.3),
}


class Block(NamedTuple):
    """What an inverted bottleneck is made for."""

    in_channels: int
    channels: int
    expansion: int
    kernel_size: int
    stride: int
    size: int

    @property
    def is_residual(self) -> bool:
        """Tell whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.channels


def _blocks(variant: Variant, w: Widths) -> Iterator[Block]:
    channels, size = w(STEM), math.ceil(variant.size / 2)
    for index, stage in enumerate(STAGES):
        is_fixed = index in (0, len(STAGES) - 1)
        count = stage.blocks if is_fixed else math.ceil(stage.blocks * variant.depth)
        wide = w(_rounded(stage.channels * variant.width))
        for number in range(count):
            stride = 1 if number else stage.stride
            yield Block(channels, wide, stage.expansion, stage.kernel_size, stride, size)
            channels, size = wide, math.ceil(size / stride)


def _rounded(channels: float) -> int:
    """Return the nearest multiple of 8, the next one where that is 10 % too few."""
    nearest = max(CHANNEL_STEP, int(channels + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return nearest + CHANNEL_STEP if nearest < 0.9 * channels else nearest


def _same(kernel_size: int, stride: int, size: int) -> tuple[int, int]:
    """Return the border before and after an axis of `size` with which TensorFlow convolves it."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def _convolved(
    channels: tuple[int, int], kernel_size: int, *, stride: int, size: int, groups: int = 1
) -> nn.Sequential:
    """Return convolution and BatchNorm under SAME padding, without an activation."""
    before, after = _same(kernel_size, stride, size)
    layers = nn.Sequential()
    if before != after:
        layers.add_module("pad", Pad((before, after, before, after), 0.0))
    padding = before if before == after else 0
    conv = nn.Conv2d(*channels, kernel_size, stride, padding, groups=groups, bias=False)
    layers.add_module("conv", conv)
    layers.add_module("bn", nn.BatchNorm2d(channels[1], EPS, MOMENTUM))
    return layers


class DropConnect(nn.Module):
    """In training, some images' rows as zeros, the others scaled up to make good for it."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        keep = 1 - self.p
        return x / keep * (torch.rand(x.shape[0], 1, 1, 1, device=x.device) < keep)


class InvertedBottleneck(nn.Module):
    """1 x 1 to more channels, depthwise, 1 x 1 back; the input added where the shapes agree."""

    def __init__(self, block: Block, drop: float) -> None:
        super().__init__()
        inner = block.in_channels * block.expansion
        self.branch = nn.Sequential()
        if block.expansion != 1:
            expand = _convolved((block.in_channels, inner), 1, stride=1, size=block.size)
            self.branch.add_module("expand", expand.append(nn.ReLU6(inplace=True)))
        sizes = {"stride": block.stride, "size": block.size}
        depthwise = _convolved((inner, inner), block.kernel_size, **sizes, groups=inner)
        self.branch.add_module("depthwise", depthwise.append(nn.ReLU6(inplace=True)))
        project = _convolved((inner, block.channels), 1, stride=1, size=block.size)
        self.branch.add_module("project", project)
        self.is_residual = block.is_residual
        self.drop = DropConnect(drop)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        return self.drop(y) + x if self.is_residual else y


class EfficientNetLite(nn.Module):
    """N x 3 x 224 x 224 (240 and 260 for variants 1 and 2) -> N x `num_classes` logits.

    Args:
        number: 0, 1 or 2.
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
    """

    def __init__(self, number: int, *, num_classes: int = 1000, width_divisor: int = 1) -> None:
        super().__init__()
        variant, w = VARIANTS[number], thinner(width_divisor)
        self.stem = _convolved((3, w(STEM)), 3, stride=2, size=variant.size)
        self.stem.append(nn.ReLU6(inplace=True))
        blocks = tuple(_blocks(variant, w))
        drops = (LAST_DROP * index / len(blocks) for index in range(len(blocks)))
        self.blocks = nn.Sequential(*map(InvertedBottleneck, blocks, drops))
        size = blocks[-1].size
        self.head = _convolved((blocks[-1].channels, w(HEAD)), 1, stride=1, size=size)
        self.head.append(nn.ReLU6(inplace=True))
        self.pool = nn.AvgPool2d(size, 1)
        self.dropout = nn.Dropout(variant.dropout)
        self.classifier = nn.Linear(w(HEAD), num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the source does: normal by fan-out, uniform by the number of classes."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        bound = 1 / math.sqrt(self.classifier.out_features)
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 224, 224)
        x = self.head(self.blocks(self.stem(x)))  # (N, 1280, 7, 7)
        logits: Tensor = self.classifier(self.dropout(torch.flatten(self.pool(x), 1)))
        return logits


PUBLISHED = {0: "24.9", 1: "23.3", 2: "22.4"}
VERIFIED = {
    0: "the pretrained Torch7 file has this structure",
    1: "the number of parameters is that of the source's own test",
    2: "the number of parameters is that of the source's own test",
}
for _number, _variant in VARIANTS.items():
    register(
        Architecture(
            f"efficientnet_lite{_number}",
            f"EfficientNet-Lite{_number}",
            partial(EfficientNetLite, _number),
            size=_variant.size,
            residuals=sum(block.is_residual for block in _blocks(_variant, thinner(1))),
            features=HEAD,
            preset=f"efficientnet-lite{_number}",
            facts=Facts(
                "tensorflow/tpu models/official/efficientnet/lite/efficientnet_lite_builder.py",
                PUBLISHED[_number],
                VERIFIED[_number],
            ),
        )
    )
