"""Gluon's MobileNet, version 1 and 2.

Papers: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", arXiv 1704.04861, table 1, and Sandler et al., "MobileNetV2: Inverted Residuals and
Linear Bottlenecks", arXiv 1801.04381, table 2.
Source: apache/mxnet python/mxnet/gluon/model_zoo/vision/mobilenet.py.

Thinner networks, `gluon_mobilenet0.75`, `0.5` and `0.25`, and the same of `gluon_mobilenetv2_`,
have their names too; the last convolution of version 2 keeps its 1280 channels. Version 2 expands
in its first bottleneck as well, from 32 channels to 32, and its classifier is a convolution without
bias.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from models.architectures.gluon_layers import (
    SHRUNK,
    GluonNetwork,
    facts,
    normed,
    weighted,
    widths_at,
)
from models.architectures.layers import thinner
from models.architectures.registry import Architecture, Arguments, register
from models.graph import Graph

MULTIPLIERS = (0.25, 0.5, 0.75, 1.0)  # the last has the name of all other widths as well

Reader = Callable[[Graph], Arguments | None]

# Version 1: channels of the stem, then of each separable convolution; strides of the latter.
V1_WIDTHS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
# Version 2: channels of the stem, of each bottleneck, and of the last convolution.
V2_BOTTLENECKS = (16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320)
V2_STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
V2_WIDTHS = (32, *V2_BOTTLENECKS, 1280)
EXPANSION = 6  # 1 in the first bottleneck

# Which layers with weights have the widths: in version 1 each second, between the depthwise ones,
# in version 2 each third, and the last before the classifier.
V1_PLACES = range(0, 2 * len(V1_STRIDES) + 1, 2)
V2_PLACES = (*range(0, 3 * len(V2_STRIDES) + 1, 3), 3 * len(V2_STRIDES) + 1)


def _v1_widths(multiplier: float) -> tuple[int, ...]:
    return tuple(int(channels * multiplier) for channels in V1_WIDTHS)


def _v2_widths(multiplier: float) -> tuple[int, ...]:
    return (*(int(channels * multiplier) for channels in V2_WIDTHS[:-1]), V2_WIDTHS[-1])


def _pointwise(channels: int, made: int, *relu: nn.Module) -> list[nn.Module]:
    return normed(nn.Conv2d(channels, made, 1, bias=False), *relu)


def _depthwise(channels: int, stride: int, *relu: nn.Module) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return normed(conv, *relu)


class GluonMobileNet(GluonNetwork):
    """N x 3 x `size` x `size`, normalised RGB -> N x `num_classes` logits.

    Args:
        widths: Channels of the stem and of each separable convolution.
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        size: Height and width of the images.
    """

    sized = True

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = V1_WIDTHS,
        num_classes: int = 1000,
        width_divisor: int = 1,
        size: int = 224,
    ) -> None:
        super().__init__()
        channels, *wides = map(thinner(width_divisor), widths)
        layers = normed(nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.ReLU(inplace=True))
        for made, stride in zip(wides, V1_STRIDES, strict=True):
            layers += _depthwise(channels, stride, nn.ReLU(inplace=True))
            layers += _pointwise(channels, made, nn.ReLU(inplace=True))
            channels = made
        self.features = nn.Sequential(*layers, nn.AvgPool2d(-(-size // SHRUNK), 1), nn.Flatten())
        self.output = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def width_layers(self) -> list[str]:
        layers = weighted(self)
        return [layers[place] for place in V1_PLACES]


class Bottleneck(nn.Module):
    """`out(x) + x`, or without `+ x` where channels or sizes differ."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.out = nn.Sequential(
            *_pointwise(in_channels, inner, nn.ReLU6(inplace=True)),
            *_depthwise(inner, stride, nn.ReLU6(inplace=True)),
            *_pointwise(inner, channels),
        )
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.out(x)
        return made + x if self.shortcut else made


class GluonMobileNetV2(GluonNetwork):
    """N x 3 x `size` x `size`, normalised RGB -> N x `num_classes` logits.

    Args:
        widths: Channels of the stem, of each bottleneck, and of the last convolution.
        num_classes: Channels of the classifier.
        width_divisor: Makes every layer thinner.
        size: Height and width of the images.
    """

    sized = True
    scopes = {
        "features": "features_",
        **{
            f"features.{3 + index}": f"features_linearbottleneck{index}_"
            for index in range(len(V2_STRIDES))
        },
        "output.0": "output_pred",
    }

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = V2_WIDTHS,
        num_classes: int = 1000,
        width_divisor: int = 1,
        size: int = 224,
    ) -> None:
        super().__init__()
        channels, *wides, last = map(thinner(width_divisor), widths)
        stem = nn.Conv2d(3, channels, 3, 2, 1, bias=False)
        self.features = nn.Sequential(*normed(stem, nn.ReLU6(inplace=True)))
        for index, (made, stride) in enumerate(zip(wides, V2_STRIDES, strict=True)):
            self.features.append(Bottleneck(channels, made, stride, EXPANSION if index else 1))
            channels = made
        self.features.extend(_pointwise(channels, last, nn.ReLU6(inplace=True)))
        self.features.append(nn.AvgPool2d(-(-size // SHRUNK), 1))
        self.output = nn.Sequential(nn.Conv2d(last, num_classes, 1, bias=False), nn.Flatten())
        self.reset_parameters()

    def width_layers(self) -> list[str]:
        layers = weighted(self)
        return [layers[place] for place in V2_PLACES]


def _exactly(widths: tuple[int, ...], read: Reader, graph: Graph) -> Arguments | None:
    """Return what a graph's arguments are if it has just these widths."""
    found = read(graph)
    return found if found is not None and found["widths"] == widths else None


def _register(
    name: str, create: partial[Any], read: Reader, *, residuals: int, listed: bool
) -> None:
    widths = create.keywords["widths"]
    register(
        Architecture(
            f"gluon_{name}",
            f"Gluon's {name.replace('mobilenet', 'MobileNet')}",
            create,
            size=224,
            residuals=residuals,
            features=widths[-1],
            preset="gluon-224",
            facts=facts("mobilenet.py"),
            arguments=read if listed else partial(_exactly, widths, read),
        ),
        listed=listed,
    )


_read_v1 = widths_at(V1_PLACES, 2 * len(V1_STRIDES) + 2)
_read_v2 = widths_at(V2_PLACES, 3 * len(V2_STRIDES) + 3)

for _multiplier in MULTIPLIERS:  # networks of just these widths have their own names
    _listed = _multiplier == 1
    _v1 = partial(GluonMobileNet, widths=_v1_widths(_multiplier))
    _register(f"mobilenet{_multiplier}", _v1, _read_v1, residuals=0, listed=_listed)
for _multiplier in MULTIPLIERS:
    _listed = _multiplier == 1
    _v2 = partial(GluonMobileNetV2, widths=_v2_widths(_multiplier))
    _register(f"mobilenetv2_{_multiplier}", _v2, _read_v2, residuals=10, listed=_listed)
