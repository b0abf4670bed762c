"""Gluon's AlexNet and VGG: layers in a row, the last three of them linear.

Papers: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv
1404.5997, and Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", arXiv 1409.1556.
Source: apache/mxnet python/mxnet/gluon/model_zoo/vision/alexnet.py and vgg.py,
example/gluon/image_classification.py.

Convolutions have biases, also before a BatchNorm. The first linear layer reads maps of 7 x 7, in
AlexNet 6 x 6, and so the whole of images of 224 x 224.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import accumulate

from torch import nn

from models.architectures.gluon_layers import (
    SHRUNK,
    GluonNetwork,
    facts,
    in_places,
    normed,
    weighted,
    widths_at,
)
from models.architectures.layers import thinner
from models.architectures.registry import Architecture, register

HIDDEN = (4096, 4096)
VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VGG_CHANNELS = (64, 128, 256, 512, 512)
# Channels, kernel, stride and padding of AlexNet's convolutions, and whether pooling follows.
ALEXNET = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
ALEXNET_MAPS = 6
ALEXNET_WIDTHS = (*(row[0] for row in ALEXNET), *HIDDEN)
NORMAL_STD = 0.01  # of MXNet's Normal()


Places = list[nn.Module | tuple[nn.Module, ...]]


class _Chain(GluonNetwork):
    def end(self, places: Places, flat: tuple[nn.Module, ...], sizes: tuple[int, ...]) -> None:
        """Add the three linear layers, of these inputs and outputs; `flat` is part of the first."""
        inputs, first, second, num_classes = sizes
        places += [(*flat, nn.Linear(inputs, first), nn.ReLU(inplace=True)), nn.Dropout(0.5)]
        places += [(nn.Linear(first, second), nn.ReLU(inplace=True)), nn.Dropout(0.5)]
        self.features = in_places(places)
        self.output = nn.Linear(second, num_classes)
        self.reset_parameters()

    def width_layers(self) -> list[str]:
        return weighted(self)[:-1]


class GluonAlexNet(_Chain):
    """N x 3 x 224 x 224, normalised RGB -> N x `num_classes` logits.

    Args:
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        widths: Outputs of all layers but the last, where they are not the original's.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        width_divisor: int = 1,
        widths: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        *convolved, first, second = map(thinner(width_divisor), widths or ALEXNET_WIDTHS)
        places: Places = []
        channels = 3
        for (_, size, stride, padding, pooled), made in zip(ALEXNET, convolved, strict=True):
            conv = nn.Conv2d(channels, made, size, stride, padding)
            places.append((conv, nn.ReLU(inplace=True)))
            places += [nn.MaxPool2d(3, 2)] if pooled else []
            channels = made
        places.append(nn.Flatten())
        self.end(places, (), (channels * ALEXNET_MAPS**2, first, second, num_classes))

    def reset_parameters(self) -> None:
        """Initialise as the example does, `Normal()`; biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=NORMAL_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class GluonVGG(_Chain):
    """N x 3 x `size` x `size`, normalised RGB -> N x `num_classes` logits.

    Args:
        depth: A depth of `VGG`.
        batch_norm: Whether a BatchNorm follows each convolution.
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        widths: Outputs of all layers but the last, where they are not the original's.
        size: Height and width of the images.
    """

    def __init__(
        self,
        depth: int,
        *,
        batch_norm: bool = False,
        num_classes: int = 1000,
        width_divisor: int = 1,
        widths: tuple[int, ...] | None = None,
        size: int = 224,
    ) -> None:
        super().__init__()
        *convolved, first, second = map(thinner(width_divisor), widths or _vgg_widths(depth))
        places: Places = []
        channels = 3
        ends = set(accumulate(VGG[depth]))
        for index, made in enumerate(convolved, 1):
            conv = nn.Conv2d(channels, made, 3, padding=1)
            places += [*(normed(conv) if batch_norm else [conv]), nn.ReLU(inplace=True)]
            places += [nn.MaxPool2d(2, 2)] if index in ends else []
            channels = made
        self.end(
            places, (nn.Flatten(),), (channels * (size // SHRUNK) ** 2, first, second, num_classes)
        )

    def reset_parameters(self) -> None:
        """Initialise as the original does: convolutions normal by fan-out, biases 0.

        Linear weights are `normal`, BatchNorm 1 and 0.
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fan_out = module.weight[:, 0].numel()
                convolution = isinstance(module, nn.Conv2d)
                std = math.sqrt(2 / fan_out) if convolution else NORMAL_STD
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _vgg_widths(depth: int) -> tuple[int, ...]:
    stages = zip(VGG[depth], VGG_CHANNELS, strict=True)
    return (*(channels for count, channels in stages for _ in range(count)), *HIDDEN)


def _register(
    name: str, title: str, create: Callable[..., nn.Module], weights: int, file: str
) -> None:
    register(
        Architecture(
            f"gluon_{name}",
            title,
            create,
            size=224,
            residuals=0,
            features=HIDDEN[-1],
            preset="gluon-224",
            facts=facts(file),
            arguments=widths_at(range(weights - 1), weights),
        )
    )


_register("alexnet", "Gluon's AlexNet", GluonAlexNet, len(ALEXNET_WIDTHS) + 1, "alexnet.py")
for _suffix, _norm in (("", False), ("_bn", True)):
    for _depth in VGG:
        _create = partial(GluonVGG, _depth, batch_norm=_norm)
        _title = f"Gluon's VGG-{_depth}{' with BatchNorm' if _norm else ''}"
        _register(f"vgg{_depth}{_suffix}", _title, _create, _depth, "vgg.py")
