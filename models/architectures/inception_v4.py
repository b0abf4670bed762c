"""Inception-v4, as TensorFlow-slim defined it and PyTorch's ports carry it on.

Paper: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning", arXiv 1602.07261, figures 3 to 9.
Source: Lornatang/InceptionV4-PyTorch, model.py; huggingface/pytorch-image-models,
timm/models/inception_v4.py; both have the structure of TensorFlow-slim's inception_v4.py.

BatchNorm has eps 1e-3. There is no dropout, as in Lornatang's; the paper keeps 0.8.
`inception_v4_lornatang` differs in one thing: the pooling of its last three blocks counts the
border of zeros, which that of its other blocks, and of everybody else's blocks, leaves out.
"""

from functools import partial

import torch
from torch import Tensor, nn

from models.architectures.layers import (
    Branches,
    Conv,
    Widths,
    in_a_row,
    stem_of_v4,
    thinner,
    truncated_normal,
)
from models.architectures.registry import Architecture, Facts, register

EPS = 1e-3
conv = partial(Conv, eps=EPS)


def _pooled(channels: int, out_channels: int, *, counts_padding: bool = False) -> nn.Sequential:
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=counts_padding)
    return nn.Sequential(pool, conv(channels, out_channels, 1))


def _block_a(w: Widths) -> Branches:
    """35 x 35 x 384 (figure 4)."""
    return Branches(
        conv(w(384), w(96), 1),
        in_a_row(conv, w(384), (w(64), 1), (w(96), 3)),
        in_a_row(conv, w(384), (w(64), 1), (w(96), 3), (w(96), 3)),
        _pooled(w(384), w(96)),
    )


def _reduction_a(w: Widths) -> Branches:
    """35 x 35 x 384 -> 17 x 17 x 1024 (figure 7 with k, l, m, n = 192, 224, 256, 384)."""
    narrow = in_a_row(conv, w(384), (w(192), 1), (w(224), 3))
    narrow.append(conv(w(224), w(256), 3, stride=2))
    return Branches(conv(w(384), w(384), 3, stride=2), narrow, nn.MaxPool2d(3, 2))


def _block_b(w: Widths) -> Branches:
    """17 x 17 x 1024 (figure 5)."""
    row, column = (1, 7), (7, 1)
    deep = ((w(192), 1), (w(192), column), (w(224), row), (w(224), column), (w(256), row))
    return Branches(
        conv(w(1024), w(384), 1),
        in_a_row(conv, w(1024), (w(192), 1), (w(224), row), (w(256), column)),
        in_a_row(conv, w(1024), *deep),
        _pooled(w(1024), w(128)),
    )


def _reduction_b(w: Widths) -> Branches:
    """17 x 17 x 1024 -> 8 x 8 x 1536 (figure 8)."""
    narrow = in_a_row(conv, w(1024), (w(192), 1)).append(conv(w(192), w(192), 3, stride=2))
    wide = in_a_row(conv, w(1024), (w(256), 1), (w(256), (1, 7)), (w(320), (7, 1)))
    return Branches(narrow, wide.append(conv(w(320), w(320), 3, stride=2)), nn.MaxPool2d(3, 2))


def _block_c(w: Widths, *, counts_padding: bool) -> Branches:
    """8 x 8 x 1536 (figure 6)."""
    row, column = (1, 3), (3, 1)

    def forked(channels: int) -> Branches:
        ways = [in_a_row(conv, channels, (w(256), kernel))[0] for kernel in (row, column)]
        return Branches(*ways)

    return Branches(
        conv(w(1536), w(256), 1),
        in_a_row(conv, w(1536), (w(384), 1)).append(forked(w(384))),
        in_a_row(conv, w(1536), (w(384), 1), (w(448), column), (w(512), row)).append(
            forked(w(512))
        ),
        _pooled(w(1536), w(256), counts_padding=counts_padding),
    )


class InceptionV4(nn.Module):
    """N x 3 x 299 x 299 -> N x `num_classes` logits.

    Args:
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        last_pools_count_padding: As in Lornatang's; see above.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_divisor: int = 1,
        *,
        last_pools_count_padding: bool = False,
    ) -> None:
        super().__init__()
        w = thinner(width_divisor)
        counts = last_pools_count_padding
        self.stem = stem_of_v4(w, conv)
        self.blocks_a = nn.Sequential(*(_block_a(w) for _ in range(4)))
        self.reduction_a = _reduction_a(w)
        self.blocks_b = nn.Sequential(*(_block_b(w) for _ in range(7)))
        self.reduction_b = _reduction_b(w)
        self.blocks_c = nn.Sequential(*(_block_c(w, counts_padding=counts) for _ in range(3)))
        self.pool = nn.AvgPool2d(8, 1)
        self.classifier = nn.Linear(w(1536), num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as Lornatang's program does: truncated normal."""
        truncated_normal(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 299, 299)
        x = self.blocks_a(self.stem(x))  # (N, 384, 35, 35)
        x = self.blocks_b(self.reduction_a(x))  # (N, 1024, 17, 17)
        x = self.blocks_c(self.reduction_b(x))  # (N, 1536, 8, 8)
        logits: Tensor = self.classifier(torch.flatten(self.pool(x), 1))  # (N, classes)
        return logits


register(
    Architecture(
        "inception_v4",
        "Inception-v4 of the TensorFlow lineage",
        InceptionV4,
        size=299,
        residuals=0,
        features=1536,
        preset="timm-299-0.875",
        facts=Facts(
            "huggingface/pytorch-image-models timm/models/inception_v4.py",
            "20.0 / 5.0 (paper)",
            "timm's state dictionary gives timm's outputs",
        ),
    )
)
register(
    Architecture(
        "inception_v4_lornatang",
        "Lornatang's Inception-v4: the last pools count their padding",
        partial(InceptionV4, last_pools_count_padding=True),
        size=299,
        residuals=0,
        features=1536,
        preset="lornatang-299",
        facts=Facts(
            "Lornatang/InceptionV4-PyTorch model.py",
            "22.2 / 6.1",
            "Lornatang's checkpoint gives Lornatang's outputs",
        ),
    )
)
