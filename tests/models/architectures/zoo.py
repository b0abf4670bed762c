"""Every listed architecture, thin enough to run in a moment."""

from functools import cache

import pytest
import torch
from torch import nn

from models.architectures import ARCHITECTURES, Architecture, find
from models.graph import Shape

CLASSES = 7
THIN = 8  # every family's narrowest layer has 16 channels or more
# One of every kind of unit, stem and head; what the others add is more of the same, and minutes.
KINDS = {
    "inception_resnet_v2_torch",
    "inception_resnet_v1",
    "inception_v3",
    "inception_v4",
    "fb_resnet_18",
    "fb_resnet_50",
    "fb_resnet_cifar_20",
    "fb_preresnet_18",
    "fb_preresnet_50",
    "fb_preresnet_cifar_20",
    "resnet_v2_18",
    "resnet_v2_50",
    "gluon_resnet_v1_18",
    "gluon_resnet_v1_50",
    "gluon_resnet_v2_18",
    "gluon_resnet_v2_50",
    "gluon_alexnet",
    "gluon_vgg11_bn",
    "gluon_densenet121",
    "gluon_squeezenet1.0",
    "gluon_inception_v3",
    "gluon_mobilenet1.0",
    "gluon_mobilenetv2_1.0",
    "enet_v7",
    "efficientnet_lite0",
    "efficientnet_lite1",
}


def image(entry: Architecture, batch: int = 2) -> Shape:
    """Return the shape of a batch that an architecture takes."""
    return (batch, 3, entry.size, entry.size)


@cache
def thin(name: str) -> nn.Module:
    """Return a thin network of that architecture, initialised from a seed."""
    torch.manual_seed(0)
    return find(name).create(num_classes=CLASSES, width_divisor=THIN)


def measured(name: str) -> nn.Module:
    """Return a thin network whose running statistics are those of noise, as training leaves them.

    With the first ones, 0 and 1, activations grow with depth until rounding is all there is.
    """
    torch.manual_seed(0)
    entry = find(name)
    module = entry.create(num_classes=CLASSES, width_divisor=THIN).train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        module(torch.randn(image(entry, 4)))
    return module.eval()


EVERY_ARCHITECTURE = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=() if entry.name in KINDS else pytest.mark.slow)
        for entry in ARCHITECTURES.values()
    ],
    ids=lambda entry: entry.name,
)
