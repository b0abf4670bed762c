"""Inception-ResNet-v1 and v2 of the TensorFlow lineage.

Paper: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning", arXiv 1602.07261, figures 10 to 15 (v1) and 16 to 19 (v2).
Source: Lornatang/InceptionV4-PyTorch, model.py; huggingface/pytorch-image-models,
timm/models/inception_resnet_v2.py; both have the structure of TensorFlow-slim's
inception_resnet_v2.py.

Version 2 is not that of the paper: it has 10, 20, 10 blocks and not 5, 10, 5, the stem of
Inception-v3 with four branches (320 channels) and not that of Inception-v4, and a 1 x 1 convolution
to 1536 behind the last block. Residuals are scaled by 0.17, 0.10 and 0.20, and the last block has
no ReLU and adds its residual whole; Lornatang's scales it by 0.20 as well, which makes
`inception_resnet_v2_lornatang`. The convolution that ends a residual branch has a bias and no
BatchNorm; BatchNorm elsewhere has eps 1e-3. There is no dropout; the paper keeps 0.8. The network
of the Torch7 run, `inception_resnet_v2_torch`, is another one.

Version 1 follows the paper's figures in widths and blocks (5, 10, 5), and version 2's code in
scales, biases and eps. FaceNet's networks of that name have one more block without ReLU at the end.
"""

from functools import partial

import torch
from torch import Tensor, nn

from models.architectures.layers import (
    Branches,
    Conv,
    Residual,
    Widths,
    in_a_row,
    stem_of_v3,
    thinner,
    truncated_normal,
)
from models.architectures.registry import Architecture, Facts, register

EPS = 1e-3
SCALE_A, SCALE_B, SCALE_C = 0.17, 0.10, 0.20
conv = partial(Conv, eps=EPS)
Step = tuple[int, int | tuple[int, int]]


def _residual(
    channels: int, ways: tuple[tuple[Step, ...], ...], scale: float, *, linear: bool = False
) -> Residual:
    """Return a block whose branches are these convolutions, the first branch being one alone."""
    (alone,), *rows = ways
    branches = (conv(channels, *alone), *(in_a_row(conv, channels, *steps) for steps in rows))
    projection = nn.Conv2d(sum(steps[-1][0] for steps in ways), channels, 1)
    return Residual(*branches, projection=projection, scale=scale, linear=linear)


def _reduced(channels: int, *widths: int) -> nn.Sequential:
    """Return a 1 x 1, then 3 x 3 convolutions, the last of them with stride 2."""
    *kept, before, last = widths
    steps: list[Step] = [(width, 3 if index else 1) for index, width in enumerate([*kept, before])]
    return in_a_row(conv, channels, *steps).append(conv(before, last, 3, stride=2))


class InceptionResNetV1(nn.Module):
    """N x 3 x 299 x 299 -> N x `num_classes` logits; `width_divisor` makes every layer thinner."""

    def __init__(self, num_classes: int = 1000, width_divisor: int = 1) -> None:
        super().__init__()
        w = thinner(width_divisor)
        self.stem = stem_of_v3(w, conv)
        self.stem[-1] = conv(w(192), w(256), 3, stride=2)  # where version 2 pools
        self.blocks_a = nn.Sequential(*(_block_a1(w) for _ in range(5)))
        self.reduction_a = Branches(
            conv(w(256), w(384), 3, stride=2),
            _reduced(w(256), w(192), w(192), w(256)),
            nn.MaxPool2d(3, 2),
        )
        self.blocks_b = nn.Sequential(*(_block_b1(w) for _ in range(10)))
        self.reduction_b = Branches(
            _reduced(w(896), w(256), w(384)),
            _reduced(w(896), w(256), w(256)),
            _reduced(w(896), w(256), w(256), w(256)),
            nn.MaxPool2d(3, 2),
        )
        self.blocks_c = nn.Sequential(*(_block_c1(w) for _ in range(5)))
        self.pool = nn.AvgPool2d(8, 1)
        self.classifier = nn.Linear(w(1792), num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as Lornatang's program does version 2: truncated normal."""
        truncated_normal(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 299, 299)
        x = self.blocks_a(self.stem(x))  # (N, 256, 35, 35)
        x = self.blocks_b(self.reduction_a(x))  # (N, 896, 17, 17)
        x = self.blocks_c(self.reduction_b(x))  # (N, 1792, 8, 8)
        logits: Tensor = self.classifier(torch.flatten(self.pool(x), 1))  # (N, classes)
        return logits


def _block_a1(w: Widths) -> Residual:
    """35 x 35 x 256 (figure 10)."""
    one: Step = (w(32), 1)
    ways = ((one,), (one, (w(32), 3)), (one, (w(32), 3), (w(32), 3)))
    return _residual(w(256), ways, SCALE_A)


def _block_b1(w: Widths) -> Residual:
    """17 x 17 x 896 (figure 11)."""
    one: Step = (w(128), 1)
    ways = ((one,), (one, (w(128), (1, 7)), (w(128), (7, 1))))
    return _residual(w(896), ways, SCALE_B)


def _block_c1(w: Widths) -> Residual:
    """8 x 8 x 1792 (figure 13)."""
    one: Step = (w(192), 1)
    ways = ((one,), (one, (w(192), (1, 3)), (w(192), (3, 1))))
    return _residual(w(1792), ways, SCALE_C)


class InceptionResNetV2(nn.Module):
    """N x 3 x 299 x 299 -> N x `num_classes` logits.

    Args:
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        last_scale: Of the last block's residual.
    """

    def __init__(
        self, num_classes: int = 1000, width_divisor: int = 1, *, last_scale: float = 1.0
    ) -> None:
        super().__init__()
        w = thinner(width_divisor)
        self.stem = stem_of_v3(w, conv)
        self.mixed = _mixed(w)
        self.blocks_a = nn.Sequential(*(_block_a2(w) for _ in range(10)))
        self.reduction_a = Branches(
            conv(w(320), w(384), 3, stride=2),
            _reduced(w(320), w(256), w(256), w(384)),
            nn.MaxPool2d(3, 2),
        )
        self.blocks_b = nn.Sequential(*(_block_b2(w) for _ in range(20)))
        self.reduction_b = Branches(
            _reduced(w(1088), w(256), w(384)),
            _reduced(w(1088), w(256), w(288)),
            _reduced(w(1088), w(256), w(288), w(320)),
            nn.MaxPool2d(3, 2),
        )
        self.blocks_c = nn.Sequential(*(_block_c2(w, SCALE_C) for _ in range(9)))
        self.blocks_c.append(_block_c2(w, last_scale, linear=True))
        self.last = conv(w(2080), w(1536), 1)
        self.pool = nn.AvgPool2d(8, 1)
        self.classifier = nn.Linear(w(1536), num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as Lornatang's program does: truncated normal."""
        truncated_normal(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 299, 299)
        x = self.blocks_a(self.mixed(self.stem(x)))  # (N, 320, 35, 35)
        x = self.blocks_b(self.reduction_a(x))  # (N, 1088, 17, 17)
        x = self.blocks_c(self.reduction_b(x))  # (N, 2080, 8, 8)
        x = self.pool(self.last(x))  # (N, 1536, 1, 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))  # (N, classes)
        return logits


def _mixed(w: Widths) -> Branches:
    """35 x 35 x 192 -> 35 x 35 x 320."""
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return Branches(
        conv(w(192), w(96), 1),
        in_a_row(conv, w(192), (w(48), 1), (w(64), 5)),
        in_a_row(conv, w(192), (w(64), 1), (w(96), 3), (w(96), 3)),
        nn.Sequential(pool, conv(w(192), w(64), 1)),
    )


def _block_a2(w: Widths) -> Residual:
    """35 x 35 x 320 (figure 16, narrower)."""
    one: Step = (w(32), 1)
    ways = ((one,), (one, (w(32), 3)), (one, (w(48), 3), (w(64), 3)))
    return _residual(w(320), ways, SCALE_A)


def _block_b2(w: Widths) -> Residual:
    """17 x 17 x 1088 (figure 17, which says 1154)."""
    ways = (((w(192), 1),), ((w(128), 1), (w(160), (1, 7)), (w(192), (7, 1))))
    return _residual(w(1088), ways, SCALE_B)


def _block_c2(w: Widths, scale: float, *, linear: bool = False) -> Residual:
    """8 x 8 x 2080 (figure 19, which says 2048)."""
    one: Step = (w(192), 1)
    ways = ((one,), (one, (w(224), (1, 3)), (w(256), (3, 1))))
    return _residual(w(2080), ways, scale, linear=linear)


register(
    Architecture(
        "inception_resnet_v2",
        "Inception-ResNet-v2 of the TensorFlow lineage (10, 20, 10 blocks)",
        InceptionResNetV2,
        size=299,
        residuals=40,
        features=1536,
        preset="timm-299-0.8975",
        facts=Facts(
            "huggingface/pytorch-image-models timm/models/inception_resnet_v2.py",
            "19.9 / 4.9 (paper)",
            "timm's state dictionary gives timm's outputs",
        ),
    )
)
register(
    Architecture(
        "inception_resnet_v2_lornatang",
        "Lornatang's Inception-ResNet-v2: the last residual too is scaled by 0.20",
        partial(InceptionResNetV2, last_scale=SCALE_C),
        size=299,
        residuals=40,
        features=1536,
        preset="lornatang-299",
        facts=Facts(
            "Lornatang/InceptionV4-PyTorch model.py",
            "23.5 / 6.6",
            "Lornatang's checkpoint gives Lornatang's outputs",
        ),
    )
)
register(
    Architecture(
        "inception_resnet_v1",
        "Inception-ResNet-v1 of the paper's figures",
        InceptionResNetV1,
        size=299,
        residuals=20,
        features=1792,
        preset=None,  # nobody published weights of it
        facts=Facts(
            "arXiv 1602.07261, figures 10 to 15",
            "21.3 / 5.5 (paper)",
            "widths and sizes of every stage are those of the figures",
        ),
    )
)
