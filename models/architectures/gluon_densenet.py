"""Gluon's DenseNet, the kind with bottlenecks and compression.

Paper: Huang et al., "Densely Connected Convolutional Networks", arXiv 1608.06993, table 1.
Source: apache/mxnet python/mxnet/gluon/model_zoo/vision/densenet.py.

As in the paper, a bottleneck has four times the channels that a layer adds, and a transition halves
their number. There is no dropout.
"""

from functools import partial

from torch import nn

from models.architectures.gluon_layers import (
    Concurrent,
    GluonNetwork,
    facts,
    normed,
    weighted,
    widths_at,
)
from models.architectures.layers import thinner
from models.architectures.registry import Architecture, register

# Channels of the stem, channels that each layer adds, layers of each stage; channels in the end.
DENSENETS = {
    121: (64, 32, (6, 12, 24, 16), 1024),
    161: (96, 48, (6, 12, 36, 24), 2208),
    169: (64, 32, (6, 12, 32, 32), 1664),
    201: (64, 32, (6, 12, 48, 32), 1920),
}
BOTTLENECK = 4
PLACES = (0, 2)  # layers with weights that have the widths: the stem, and what the first layer adds


def _active(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _layer(channels: int, growth: int) -> Concurrent:
    """Return the input, and behind it `growth` channels made of it."""
    inner = BOTTLENECK * growth
    shrinking = nn.Conv2d(channels, inner, 1, bias=False)
    growing = nn.Conv2d(inner, growth, 3, padding=1, bias=False)
    new = nn.Sequential(*_active(channels), shrinking, *_active(inner), growing)
    return Concurrent(nn.Identity(), new)


def _transition(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
    return nn.Sequential(*_active(channels), conv, nn.AvgPool2d(2, 2))


class GluonDenseNet(GluonNetwork):
    """N x 3 x 224 x 224, normalised RGB -> N x `num_classes` logits.

    Args:
        stages: How many layers each stage has.
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        widths: Channels of the stem, and channels that each layer adds.
    """

    scopes = {f"features.{2 + 2 * stage}": f"stage{stage}_" for stage in range(1, 5)}

    def __init__(
        self,
        stages: tuple[int, ...],
        *,
        num_classes: int = 1000,
        width_divisor: int = 1,
        widths: tuple[int, ...],
    ) -> None:
        super().__init__()
        channels, growth = map(thinner(width_divisor), widths)
        stem = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.features = nn.Sequential(*normed(stem, nn.ReLU(inplace=True)), nn.MaxPool2d(3, 2, 1))
        for stage, count in enumerate(stages):
            if stage:
                self.features.append(_transition(channels))
                channels //= 2
            grown = range(channels, channels + count * growth, growth)
            self.features.append(nn.Sequential(*(_layer(given, growth) for given in grown)))
            channels += count * growth
        self.features.extend([*_active(channels), nn.AvgPool2d(7, 7), nn.Flatten()])
        self.output = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def width_layers(self) -> list[str]:
        layers = weighted(self)
        return [layers[place] for place in PLACES]


for _depth, (_stem, _growth, _stages, _features) in DENSENETS.items():
    _weights = 2 * sum(_stages) + len(_stages) + 1  # transitions between stages, stem, classifier
    register(
        Architecture(
            f"gluon_densenet{_depth}",
            f"Gluon's DenseNet-{_depth}",
            partial(GluonDenseNet, _stages, widths=(_stem, _growth)),
            size=224,
            residuals=0,
            features=_features,
            preset="gluon-224",
            facts=facts("densenet.py"),
            arguments=widths_at(PLACES, _weights),
        )
    )
