"""Gluon's SqueezeNet 1.0 and 1.1.

Paper: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB
model size", arXiv 1602.07360, table 1.
Source: apache/mxnet python/mxnet/gluon/model_zoo/vision/squeezenet.py, which follows
DeepScale/SqueezeNet.

A pooling may have a last window that is not full. The classifier is a convolution, whose maps go
through a ReLU and are averaged: no logit is below 0.
"""

from functools import partial

from torch import nn

from models.architectures.gluon_layers import Concurrent, GluonNetwork, facts
from models.architectures.layers import thinner
from models.architectures.registry import Architecture, register

# Channels and kernel of the first convolution; then, for each fire module, the channels that it
# squeezes to and that each of its two ways expands to, or None for a pooling.
Fires = tuple[tuple[int, int] | None, ...]
SQUEEZENETS: dict[str, tuple[int, int, Fires]] = {
    "1.0": (
        96,
        7,
        (
            None,
            (16, 64),
            (16, 64),
            (32, 128),
            None,
            (32, 128),
            (48, 192),
            (48, 192),
            (64, 256),
            None,
        )
        + ((64, 256),),
    ),
    "1.1": (
        64,
        3,
        (None, (16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192))
        + ((64, 256), (64, 256)),
    ),
}
FEATURES = 512
LAST_MAPS = 13


def _active(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def _fire(channels: int, squeezed: int, expanded: int) -> nn.Sequential:
    ways = [_active(nn.Conv2d(squeezed, expanded, size, padding=size // 2)) for size in (1, 3)]
    return nn.Sequential(_active(nn.Conv2d(channels, squeezed, 1)), Concurrent(*ways))


class GluonSqueezeNet(GluonNetwork):
    """N x 3 x `size` x `size`, normalised RGB -> N x `num_classes` logits of 0 or more.

    Args:
        version: A version of `SQUEEZENETS`.
        num_classes: Channels of the last convolution.
        width_divisor: Makes every layer thinner.
        size: Height and width of the images.
    """

    sized = True

    def __init__(
        self, version: str, *, num_classes: int = 1000, width_divisor: int = 1, size: int = 224
    ) -> None:
        super().__init__()
        w = thinner(width_divisor)
        first, kernel_size, fires = SQUEEZENETS[version]
        self.features = _active(nn.Conv2d(3, w(first), kernel_size, 2))
        channels = w(first)
        size = (size - kernel_size) // 2 + 1
        for fire in fires:
            if fire is None:
                ragged = (size - 3) % 2 == 1  # a last window that is not full
                self.features.append(nn.MaxPool2d(3, 2, ceil_mode=ragged))
                size = (size - 3 + ragged) // 2 + 1
            else:
                squeezed, expanded = map(w, fire)
                self.features.append(_fire(channels, squeezed, expanded))
                channels = 2 * expanded
        self.features.append(nn.Dropout(0.5))
        self.output = _active(nn.Conv2d(channels, num_classes, 1))
        self.output.extend([nn.AvgPool2d(LAST_MAPS), nn.Flatten()])
        self.reset_parameters()


for _version in SQUEEZENETS:
    register(
        Architecture(
            f"gluon_squeezenet{_version}",
            f"Gluon's SqueezeNet {_version}",
            partial(GluonSqueezeNet, _version),
            size=224,
            residuals=0,
            features=FEATURES,
            preset="gluon-224",
            facts=facts("squeezenet.py"),
        )
    )
