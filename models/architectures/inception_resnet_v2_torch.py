"""Inception-ResNet-v2 as the Torch7 run of 2016 trained it.

Paper: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning", arXiv 1602.07261, figures 3, 7 and 16 to 19.
Source: lim0606/fb.resnet.torch, branch inception-resnet-v2, models/inception-resnet-v2.lua.

It is not the network that others ship under this name (10, 20, 10 blocks; stem 320; scales 0.17,
0.10, 0.20; widths 1088 and 2080; BatchNorm eps 1e-3). It has 5, 10, 5 blocks, the stem of
Inception-v4 with 384 channels, every residual scaled by 0.1, eps 1e-5. Against the paper, block B
projects to 1152 and not 1154, and Reduction-B has 256 where the paper has 288 and 320, so that its
branches add up to 2048.
"""

import torch
from torch import Tensor, nn

from models.architectures.layers import (
    Branches,
    Conv,
    Residual,
    Widths,
    normal_by_fan_out,
    stem_of_v4,
    thinner,
)
from models.architectures.registry import Architecture, Facts, register

RESIDUAL_SCALE = 0.1
CLASSIFIER_DROPOUT = 0.2  # the paper keeps 0.8


def _residual(joined: int, channels: int, *branches: nn.Module) -> Residual:
    projection = Conv(joined, channels, 1, linear=True)
    return Residual(*branches, projection=projection, scale=RESIDUAL_SCALE)


def _block_a(w: Widths) -> Residual:
    """35 x 35 x 384 (figure 16)."""
    return _residual(
        w(128),
        w(384),
        Conv(w(384), w(32), 1),
        nn.Sequential(Conv(w(384), w(32), 1), Conv(w(32), w(32), 3, padding=1)),
        nn.Sequential(
            Conv(w(384), w(32), 1),
            Conv(w(32), w(48), 3, padding=1),
            Conv(w(48), w(64), 3, padding=1),
        ),
    )


def _reduction_a(w: Widths) -> Branches:
    """35 x 35 x 384 -> 17 x 17 x 1152 (figure 7 with k, l, m, n = 256, 256, 384, 384)."""
    return Branches(
        nn.MaxPool2d(3, 2),
        Conv(w(384), w(384), 3, stride=2),
        nn.Sequential(
            Conv(w(384), w(256), 1),
            Conv(w(256), w(256), 3, padding=1),
            Conv(w(256), w(384), 3, stride=2),
        ),
    )


def _block_b(w: Widths) -> Residual:
    """17 x 17 x 1152 (figure 17, which says 1154)."""
    return _residual(
        w(384),
        w(1152),
        Conv(w(1152), w(192), 1),
        nn.Sequential(
            Conv(w(1152), w(128), 1),
            Conv(w(128), w(160), (7, 1), padding=(3, 0)),
            Conv(w(160), w(192), (1, 7), padding=(0, 3)),
        ),
    )


def _reduction_b(w: Widths) -> Branches:
    """17 x 17 x 1152 -> 8 x 8 x 2048 (figure 18, which says 288 and 320 for four of the 256)."""
    return Branches(
        nn.MaxPool2d(3, 2),
        nn.Sequential(Conv(w(1152), w(256), 1), Conv(w(256), w(384), 3, stride=2)),
        nn.Sequential(Conv(w(1152), w(256), 1), Conv(w(256), w(256), 3, stride=2)),
        nn.Sequential(
            Conv(w(1152), w(256), 1),
            Conv(w(256), w(256), 3, padding=1),
            Conv(w(256), w(256), 3, stride=2),
        ),
    )


def _block_c(w: Widths) -> Residual:
    """8 x 8 x 2048 (figure 19)."""
    return _residual(
        w(448),
        w(2048),
        Conv(w(2048), w(192), 1),
        nn.Sequential(
            Conv(w(2048), w(192), 1),
            Conv(w(192), w(224), (3, 1), padding=(1, 0)),
            Conv(w(224), w(256), (1, 3), padding=(0, 1)),
        ),
    )


class InceptionResNetV2Torch(nn.Module):
    """N x 3 x 299 x 299 -> N x `num_classes` logits; `width_divisor` makes every layer thinner."""

    def __init__(self, num_classes: int = 1000, width_divisor: int = 1) -> None:
        super().__init__()
        w = thinner(width_divisor)
        self.stem = stem_of_v4(w, Conv)
        self.blocks_a = nn.Sequential(*(_block_a(w) for _ in range(5)))
        self.reduction_a = _reduction_a(w)
        self.blocks_b = nn.Sequential(*(_block_b(w) for _ in range(10)))
        self.reduction_b = _reduction_b(w)
        self.blocks_c = nn.Sequential(*(_block_c(w) for _ in range(5)))
        self.pool = nn.AvgPool2d(8, 1)
        self.dropout = nn.Dropout(CLASSIFIER_DROPOUT)
        self.classifier = nn.Linear(w(2048), num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the Lua file does: normal by fan-out, BatchNorm 1 and 0, bias 0."""
        normal_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 299, 299)
        x = self.stem(x)  # (N, 384, 35, 35)
        x = self.reduction_a(self.blocks_a(x))  # (N, 1152, 17, 17)
        x = self.reduction_b(self.blocks_b(x))  # (N, 2048, 8, 8)
        x = self.pool(self.blocks_c(x))  # (N, 2048, 1, 1)
        logits: Tensor = self.classifier(self.dropout(torch.flatten(x, 1)))  # (N, classes)
        return logits


register(
    Architecture(
        "inception_resnet_v2_torch",
        "the Torch7 Inception-ResNet-v2 (5, 10, 5 blocks)",
        InceptionResNetV2Torch,
        size=299,
        residuals=20,
        features=2048,
        preset="torch-299",
        facts=Facts(
            "lim0606/fb.resnet.torch models/inception-resnet-v2.lua",
            "24.41 / 7.41",
            "Torch7's own file has this structure, at full width",
        ),
    )
)
