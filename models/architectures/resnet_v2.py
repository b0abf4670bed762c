"""MXNet's ResNet-v2, for ImageNet, for CIFAR and for the 11,221 classes of ImageNet-11K.

Paper: He et al., "Identity Mappings in Deep Residual Networks", arXiv 1603.05027.
Source: tornadomeet/ResNet, symbol_resnet.py and train_resnet.py.

The image enters as it is, RGB of 0 to 255: the first layer, `bn_data`, is a BatchNorm whose scale
stays 1 (MXNet's `fix_gamma`; files hold some other number there, which counts for nothing). It
subtracts the mean of the training images and learns what to add. A bottleneck halves the image in
its 3 x 3 convolution. Every BatchNorm has eps 2e-5. The last layer gives logits; MXNet's own
`SoftmaxOutput` is softmax and loss in one.

Against the paper: the first unit of every stage has a convolution on its shortcut, also where the
number of channels stays; for ImageNet a BatchNorm and ReLU stand before the first pooling. Against
Gluon's `resnet*_v2`, whose names are the same: those have a `bn_data` too, but expect a normalised
image, have eps 1e-5, and no shortcut convolution where the first stage of 18 and 34 begins.
CIFAR networks have 6n + 2 layers below 164 and 9n + 2, in bottlenecks, from there; every such depth
up to 1001 has its name.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from models.architectures.layers import thinner
from models.architectures.registry import Architecture, Arguments, Facts, register
from models.fingerprint import head_size
from models.graph import Graph

EPS = 2e-5

# Units of each stage.
IMAGENET = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    269: (3, 30, 48, 8),
}
BOTTLENECK_FROM = 50
CIFAR_BOTTLENECK_FROM = 164  # below, (depth - 2) / 6 units without; from here, (depth - 2) / 9 with
CIFAR_DEPTHS = (*range(8, CIFAR_BOTTLENECK_FROM, 6), *range(CIFAR_BOTTLENECK_FROM, 1002, 9))


class Unit(nn.Module):
    """`branch(relu(bn(x))) + x`, or where the output differs `+ shortcut(relu(bn(x)))`."""

    def __init__(
        self, in_channels: int, channels: int, stride: int | None, bottleneck: bool
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, EPS)
        self.relu1 = nn.ReLU(inplace=True)
        inner = channels // 4 if bottleneck else channels
        step = stride or 1
        shapes = (
            [(in_channels, inner, 1, 1), (inner, inner, 3, step), (inner, channels, 1, 1)]
            if bottleneck
            else [(in_channels, channels, 3, step), (channels, channels, 3, 1)]
        )
        self.branch = nn.Sequential()
        for index, (given, made, size, by) in enumerate(shapes, 1):
            if index > 1:
                self.branch.add_module(f"bn{index}", nn.BatchNorm2d(given, EPS))
                self.branch.add_module(f"relu{index}", nn.ReLU(inplace=True))
            conv = nn.Conv2d(given, made, size, by, size // 2, bias=False)
            self.branch.add_module(f"conv{index}", conv)
        self.shortcut = (
            None if stride is None else nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        past = x if self.shortcut is None else self.shortcut(active)
        total: Tensor = self.branch(active) + past
        return total


class ResNetV2(nn.Module):
    """N x 3 x 224 x 224 (or 32 x 32 with `cifar`), RGB of 0 to 255 -> N x `num_classes` logits.

    Args:
        depth: A depth of `IMAGENET`, or with `cifar` one of `CIFAR_DEPTHS`.
        cifar: Three stages for small images in place of four.
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        widths: Channels of the stem and of each stage, where they are not the original's; MXNet
            calls that `filter_list`.
    """

    def __init__(
        self,
        depth: int,
        *,
        cifar: bool = False,
        num_classes: int = 1000,
        width_divisor: int = 1,
        widths: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        w = thinner(width_divisor)
        stem, *stages = (w(channels) for channels in widths or _widths(depth, cifar=cifar))
        bottleneck = depth >= (CIFAR_BOTTLENECK_FROM if cifar else BOTTLENECK_FROM)
        self.bn_data = nn.BatchNorm2d(3, EPS)
        self.bn_data.weight.requires_grad_(False)
        self.stem = _entrance(stem, cifar=cifar)
        self.stages = nn.Sequential()
        channels = stem
        for stage, (wide, units) in enumerate(zip(stages, _units(depth, cifar=cifar), strict=True)):
            blocks = nn.Sequential(Unit(channels, wide, 2 if stage else 1, bottleneck))
            blocks.extend(Unit(wide, wide, None, bottleneck) for _ in range(units - 1))
            self.stages.append(blocks)
            channels = wide
        self.bn1 = nn.BatchNorm2d(channels, EPS)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(8 if cifar else 7, 1)
        self.classifier = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as train_resnet.py does, `Xavier(gaussian, in, 2)`; BatchNorm 1 and 0.

        Source: MXNet initializer.py: normal with the standard deviation sqrt(magnitude / fan-in),
        for convolutions and the last layer alike.
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 224, 224), with `cifar` (N, 3, 32, 32)
        x = self.stages(self.stem(self.bn_data(x)))  # (N, C, 7, 7), with `cifar` (N, C, 8, 8)
        x = self.pool(self.relu1(self.bn1(x)))  # (N, C, 1, 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))  # (N, classes)
        return logits


def _units(depth: int, *, cifar: bool) -> tuple[int, ...]:
    if not cifar:
        return IMAGENET[depth]
    if depth not in CIFAR_DEPTHS:
        raise ValueError(f"depth {depth}: 6n + 2 below {CIFAR_BOTTLENECK_FROM}, 9n + 2 from there")
    return ((depth - 2) // (9 if depth >= CIFAR_BOTTLENECK_FROM else 6),) * 3


def _widths(depth: int, *, cifar: bool) -> tuple[int, ...]:
    if cifar:
        return (16, 64, 128, 256) if depth >= CIFAR_BOTTLENECK_FROM else (16, 16, 32, 64)
    return (64, 256, 512, 1024, 2048) if depth >= BOTTLENECK_FROM else (64, 64, 128, 256, 512)


def _entrance(channels: int, *, cifar: bool) -> nn.Sequential:
    stem = nn.Sequential()
    if cifar:
        stem.add_module("conv0", nn.Conv2d(3, channels, 3, 1, 1, bias=False))
        return stem
    stem.add_module("conv0", nn.Conv2d(3, channels, 7, 2, 3, bias=False))
    stem.add_module("bn0", nn.BatchNorm2d(channels, EPS))
    stem.add_module("relu0", nn.ReLU(inplace=True))
    stem.add_module("pool0", nn.MaxPool2d(3, 2, 1))
    return stem


def _arguments(graph: Graph) -> Arguments | None:
    """Read the widths off a graph: the first convolution's, and those of the stages' shortcuts."""
    head = head_size(graph)
    nodes = {node.name: node for node in graph.nodes}
    convolutions = [node for node in graph.nodes if node.op == "Conv2d"]
    if head is None or not convolutions:
        return None
    sums = [node for node in graph.nodes if node.op == "Add"]
    ends = [nodes[name] for node in sums for name in node.inputs[1:] if name in nodes]
    stages = [int(node.attrs["out_channels"]) for node in ends if node.op == "Conv2d"]
    widths = (int(convolutions[0].attrs["out_channels"]), *stages)
    return {"num_classes": head.outputs, "widths": widths}


# Error in percent on ILSVRC-2012's validation images, centre crop: first guess / first five.
PUBLISHED = {
    "resnet_v2_18": "30.48 / 10.92",
    "resnet_v2_34": "27.20 / 8.86",
    "resnet_v2_50": "24.39 / 7.24",
    "resnet_v2_101": "22.68 / 6.58",
    "resnet_v2_152": "22.25 / 6.42",
    "resnet_v2_200": "22.14 / 6.16",
    "resnet_v2_cifar_164": "4.68",
}
CIFAR_PUBLISHED = (110, 164, 1001)  # the depths that the source names
VERIFIED = (
    "symbols that MXNet wrote for depth 18, 50, 152, 200, CIFAR 110 and 164 and an 11,221-class "
    "head have these operators, settings, wiring and array shapes"
)


def _register(name: str, depth: int, *, cifar: bool) -> None:
    title = f"MXNet's ResNet-v2{' for CIFAR' if cifar else ''}, depth {depth}"
    entry = Architecture(
        name,
        title,
        partial(ResNetV2, depth, cifar=cifar),
        size=32 if cifar else 224,
        residuals=sum(_units(depth, cifar=cifar)),
        features=_widths(depth, cifar=cifar)[-1],
        preset="mxnet-cifar10" if cifar else "mxnet-224",
        facts=Facts("tornadomeet/ResNet symbol_resnet.py", PUBLISHED.get(name), VERIFIED),
        arguments=_arguments,
    )
    register(entry, listed=not cifar or depth in CIFAR_PUBLISHED)


for _depth in IMAGENET:
    _register(f"resnet_v2_{_depth}", _depth, cifar=False)
for _depth in CIFAR_DEPTHS:
    _register(f"resnet_v2_cifar_{_depth}", _depth, cifar=True)
