"""The ENet encoders as classifiers: versions 2, 3 and 7; version 6 is version 3 by another recipe.

Paper: Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation", arXiv 1606.02147, figure 2 and table 1.
Source: the bottleneck of e-lab/ENet-training, train/models/encoder.lua, in the arrangements that
its authors wrote of for ImageNet. They end at the average pooling; a linear layer and a log
softmax follow here, in version 7 with dropout between.

Against the paper, and against what others ship as ENet: there is no decoder; a block that
downsamples begins with a 2 x 2 convolution of stride 2; the image beside it is pooled and gets
channels of zeros. PReLU has one slope a channel, BatchNorm eps 1e-3. Spatial dropout, 0.01 in the
first five blocks and 0.1 after, is Torch7's first kind: what training keeps is not scaled up, so
evaluation scales it down. How images enter is `enet-224`, but for the mean and standard deviation,
which each training estimated for itself: `--input` has to say it.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.architectures.layers import thinner
from models.architectures.registry import Architecture, Facts, alias, register
from models.layers import Pad

EPS = 1e-3
INTERNAL_SCALE = 4  # a block's inner convolutions have a quarter of its output's channels
INITIAL = 16  # 13 convolved channels and the 3 of the image
EARLY_BLOCKS, EARLY_DROPOUT, DROPOUT = 5, 0.01, 0.1
CLASSIFIER_DROPOUT = 0.5


class Block(NamedTuple):
    """What a bottleneck gives and how its middle convolves."""

    channels: int
    downsample: bool = False
    dilation: int = 1
    asymmetric: int = 0


def _context(channels: int, last: int) -> tuple[Block, ...]:
    """Return eight blocks that see further and further; the last gives `last` channels."""
    return (
        Block(channels),
        Block(channels, dilation=2),
        Block(channels, asymmetric=5),
        Block(channels, dilation=4),
        Block(channels),
        Block(channels, dilation=8),
        Block(channels, asymmetric=5),
        Block(last, dilation=16),
    )


def _down(channels: int, more: int = 0) -> tuple[Block, ...]:
    return (Block(channels, downsample=True), *(Block(channels) for _ in range(more)))


VERSIONS: dict[int, tuple[Block, ...]] = {
    2: (
        *_down(64, 4),
        *(*_down(128), *_context(128, 128)),
        *(*_down(128), *_context(128, 128)),
        *_down(128),
    ),
    3: (
        *_down(64, 4),
        *(*_down(128), *_context(128, 256)),
        *(*_down(256), *_context(256, 512)),
        *_down(512),
    ),
    7: (*_down(64, 5), *_down(128, 5), *_down(256, 5), *_down(512)),
}


class SpatialDropout(nn.Module):
    """Whole channels dropped in training, all of them made smaller in evaluation.

    Source: torch/nn SpatialDropout.lua: training multiplies by the mask alone.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.drop = nn.Dropout2d(p)
        self.keep = 1 - p

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = self.drop(x) * self.keep  # torch's own scales up by 1 / keep in training
        return kept


class Bottleneck(nn.Module):
    """`prelu(branch(x) + x)`, x pooled and filled up with zeros where the branch's size differs."""

    def __init__(self, in_channels: int, block: Block, dropout: float) -> None:
        super().__init__()
        inner, stride = block.channels // INTERNAL_SCALE, 2 if block.downsample else 1
        self.branch = nn.Sequential()
        self.branch.add_module("reduce", nn.Conv2d(in_channels, inner, stride, stride, bias=False))
        self.branch.add_module("bn1", nn.BatchNorm2d(inner, EPS))
        self.branch.add_module("prelu1", nn.PReLU(inner))
        for name, conv in _middle(inner, block):
            self.branch.add_module(name, conv)
        self.branch.add_module("bn2", nn.BatchNorm2d(inner, EPS))
        self.branch.add_module("prelu2", nn.PReLU(inner))
        self.branch.add_module("expand", nn.Conv2d(inner, block.channels, 1, bias=False))
        self.branch.add_module("bn3", nn.BatchNorm2d(block.channels, EPS))
        self.branch.add_module("dropout", SpatialDropout(dropout))
        self.past = nn.Sequential()
        if block.downsample:
            self.past.add_module("pool", nn.MaxPool2d(2, 2))
        if in_channels != block.channels:
            self.past.add_module("zeros", Pad((0, 0, 0, 0, 0, block.channels - in_channels), 0.0))
        self.prelu = nn.PReLU(block.channels)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.prelu(self.branch(x) + self.past(x))
        return total


def _middle(channels: int, block: Block) -> Iterator[tuple[str, nn.Conv2d]]:
    if size := block.asymmetric:
        row, column = (0, size // 2), (size // 2, 0)
        yield "row", nn.Conv2d(channels, channels, (1, size), padding=row, bias=False)
        yield "column", nn.Conv2d(channels, channels, (size, 1), padding=column)
    else:
        around = block.dilation
        yield "conv", nn.Conv2d(channels, channels, 3, padding=around, dilation=around)


class ENet(nn.Module):
    """N x 3 x 224 x 224 -> N x `num_classes` log probabilities.

    Args:
        version: 2, 3 or 7.
        num_classes: Width of the last layer.
        width_divisor: Makes every layer behind the initial block thinner.
    """

    def __init__(self, version: int, *, num_classes: int = 1000, width_divisor: int = 1) -> None:
        super().__init__()
        w = thinner(width_divisor)
        self.convolved = nn.Conv2d(3, INITIAL - 3, 3, 2, 1)
        self.pooled = nn.MaxPool2d(2, 2)
        self.bn = nn.BatchNorm2d(INITIAL, EPS)
        self.prelu = nn.PReLU(INITIAL)
        self.blocks = nn.Sequential()
        channels = INITIAL
        for index, block in enumerate(VERSIONS[version]):
            thin = block._replace(channels=w(block.channels))
            dropout = EARLY_DROPOUT if index < EARLY_BLOCKS else DROPOUT
            self.blocks.append(Bottleneck(channels, thin, dropout))
            channels = thin.channels
        self.pool = nn.AvgPool2d(7, 1)
        self.dropout = nn.Dropout(CLASSIFIER_DROPOUT) if version == 7 else nn.Identity()
        self.classifier = nn.Linear(channels, num_classes)
        self.log_softmax = nn.LogSoftmax(1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as Torch7's layers do themselves: the source's files say nothing.

        Convolutions and Linear uniform within 1 / sqrt(fan-in), biases too, slopes 0.25: torch's
        own. Only BatchNorm's weights differ, uniform in 0 to 1 (torch/nn BatchNormalization.lua).
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.PReLU):
                module.reset_parameters()
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 224, 224)
        x = torch.cat([self.convolved(x), self.pooled(x)], 1)  # (N, 16, 112, 112)
        x = self.pool(self.blocks(self.prelu(self.bn(x))))  # (N, C, 1, 1)
        logits = self.classifier(self.dropout(torch.flatten(x, 1)))
        log_probabilities: Tensor = self.log_softmax(logits)  # (N, classes)
        return log_probabilities


for _version, _blocks in VERSIONS.items():
    register(
        Architecture(
            f"enet_v{_version}",
            f"the ENet encoder for ImageNet, version {_version}",
            partial(ENet, _version),
            size=224,
            residuals=len(_blocks),
            features=_blocks[-1].channels,
            preset=None,  # mean and std were estimated anew for every training, and are not known
            facts=Facts(
                "e-lab/ENet-training train/models/encoder.lua",
                None,
                "Torch7's own files of all three versions have this structure",
            ),
        )
    )
alias("enet_v6", "enet_v3")
