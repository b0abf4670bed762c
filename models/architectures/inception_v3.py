"""Inception-v3 as torchvision and its followers have it.

Paper: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv
1512.00567, table 1 and figures 5 to 7.
Source: Lornatang/InceptionV3-PyTorch, model.py, which follows torchvision's inception.py; timm's
inception_v3.py has the same tensors under the same names, but for the auxiliary head's.

BatchNorm has eps 1e-3. Average pools count their border of zeros; TensorFlow's do not, so weights
of TensorFlow's own give slightly other outputs here, as they do in torchvision. The auxiliary head,
for training alone, is there with `aux_logits`. `transform_input`, with which the ports undo one
normalisation and apply another inside the network, is no part of it: an input convention says the
same (mean and std 0.5).
"""

from functools import partial

import torch
from torch import Tensor, nn

from models.architectures.layers import (
    Branches,
    Conv,
    Widths,
    in_a_row,
    stem_of_v3,
    thinner,
    truncated_normal,
)
from models.architectures.registry import Architecture, Facts, register

EPS = 1e-3
AUX_LINEAR_STD = 0.001
CLASSIFIER_DROPOUT = 0.5
conv = partial(Conv, eps=EPS)
ROW, COLUMN = (1, 7), (7, 1)


def _pooled(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(channels, out_channels, 1))


def _block_a(w: Widths, channels: int, pooled: int) -> Branches:
    """35 x 35 x `channels` -> 35 x 35 x (224 + `pooled`) (figure 5)."""
    return Branches(
        conv(w(channels), w(64), 1),
        in_a_row(conv, w(channels), (w(48), 1), (w(64), 5)),
        in_a_row(conv, w(channels), (w(64), 1), (w(96), 3), (w(96), 3)),
        _pooled(w(channels), w(pooled)),
    )


def _reduction_a(w: Widths) -> Branches:
    """35 x 35 x 288 -> 17 x 17 x 768 (figure 10)."""
    narrow = in_a_row(conv, w(288), (w(64), 1), (w(96), 3)).append(conv(w(96), w(96), 3, stride=2))
    return Branches(conv(w(288), w(384), 3, stride=2), narrow, nn.MaxPool2d(3, 2))


def _block_b(w: Widths, inner: int) -> Branches:
    """17 x 17 x 768 (figure 6 with n = 7)."""
    thin = w(inner)
    deep = ((thin, 1), (thin, COLUMN), (thin, ROW), (thin, COLUMN), (w(192), ROW))
    return Branches(
        conv(w(768), w(192), 1),
        in_a_row(conv, w(768), (thin, 1), (thin, ROW), (w(192), COLUMN)),
        in_a_row(conv, w(768), *deep),
        _pooled(w(768), w(192)),
    )


def _reduction_b(w: Widths) -> Branches:
    """17 x 17 x 768 -> 8 x 8 x 1280."""
    narrow = in_a_row(conv, w(768), (w(192), 1)).append(conv(w(192), w(320), 3, stride=2))
    wide = in_a_row(conv, w(768), (w(192), 1), (w(192), ROW), (w(192), COLUMN))
    return Branches(narrow, wide.append(conv(w(192), w(192), 3, stride=2)), nn.MaxPool2d(3, 2))


def _block_c(w: Widths, channels: int) -> Branches:
    """8 x 8 x `channels` -> 8 x 8 x 2048 (figure 7)."""

    def forked() -> Branches:
        ways = [in_a_row(conv, w(384), (w(384), kernel))[0] for kernel in ((1, 3), (3, 1))]
        return Branches(*ways)

    return Branches(
        conv(w(channels), w(320), 1),
        in_a_row(conv, w(channels), (w(384), 1)).append(forked()),
        in_a_row(conv, w(channels), (w(448), 1), (w(384), 3)).append(forked()),
        _pooled(w(channels), w(192)),
    )


class AuxiliaryHead(nn.Module):
    """17 x 17 x 768 -> N x `num_classes` logits, for a second loss in training."""

    def __init__(self, w: Widths, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3)
        self.convs = nn.Sequential(conv(w(768), w(128), 1), conv(w(128), w(768), 5))
        self.classifier = nn.Linear(w(768), num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, 768, 17, 17)
        x = self.convs(self.pool(x))  # (N, 768, 1, 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


class InceptionV3(nn.Module):
    """N x 3 x 299 x 299 -> N x `num_classes` logits; in training with `aux_logits` a pair of them.

    The second of the pair is the auxiliary head's.
    """

    def __init__(
        self, num_classes: int = 1000, width_divisor: int = 1, *, aux_logits: bool = False
    ) -> None:
        super().__init__()
        w = thinner(width_divisor)
        self.stem = stem_of_v3(w, conv)
        self.blocks_a = nn.Sequential(
            _block_a(w, 192, 32), _block_a(w, 256, 64), _block_a(w, 288, 64)
        )
        self.reduction_a = _reduction_a(w)
        self.blocks_b = nn.Sequential(*(_block_b(w, inner) for inner in (128, 160, 160, 192)))
        self.aux = AuxiliaryHead(w, num_classes) if aux_logits else None
        self.reduction_b = _reduction_b(w)
        self.blocks_c = nn.Sequential(_block_c(w, 1280), _block_c(w, 2048))
        self.pool = nn.AvgPool2d(8, 1)
        self.dropout = nn.Dropout(CLASSIFIER_DROPOUT)
        self.classifier = nn.Linear(w(2048), num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the source does: truncated normal, the auxiliary classifier narrower.

        The source means its 5 x 5 convolution to be narrow too (0.01), but says so to the wrong
        module: it starts like the others.
        """
        truncated_normal(self)
        if self.aux is not None:
            nn.init.trunc_normal_(self.aux.classifier.weight, std=AUX_LINEAR_STD)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # (N, 3, 299, 299)
        x = self.blocks_a(self.stem(x))  # (N, 288, 35, 35)
        middle = self.blocks_b(self.reduction_a(x))  # (N, 768, 17, 17)
        x = self.blocks_c(self.reduction_b(middle))  # (N, 2048, 8, 8)
        logits: Tensor = self.classifier(self.dropout(torch.flatten(self.pool(x), 1)))
        if self.training and self.aux is not None:
            return logits, self.aux(middle)
        return logits


register(
    Architecture(
        "inception_v3",
        "Inception-v3 as torchvision and timm have it",
        InceptionV3,
        size=299,
        residuals=0,
        features=2048,
        preset="timm-299-0.875",
        facts=Facts(
            "Lornatang/InceptionV3-PyTorch model.py",
            "21.2 / 5.6 (paper), 22.7 / 6.5 (Lornatang)",
            "timm's and Lornatang's checkpoints give timm's and Lornatang's outputs",
        ),
    )
)
