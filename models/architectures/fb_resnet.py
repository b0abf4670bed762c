"""The ResNets of fb.resnet.torch, for ImageNet and for CIFAR.

Papers: He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385 (`fb_resnet_*`),
and "Identity Mappings in Deep Residual Networks", arXiv 1603.05027 (`fb_preresnet_*`).
Source: facebook/fb.resnet.torch, models/resnet.lua and models/preresnet.lua.

Against the first paper, a bottleneck halves the image in its 3 x 3 convolution and not in the
first 1 x 1 (others call that ResNet v1.5); torchvision's networks have the same structure. Of the
second: where a stage begins, the shortcut too starts from the pre-activated image; for ImageNet the
very first unit has no BatchNorm and ReLU of its own, because the stem ends with them. The
ResNet-200 that was published beside the others is `fb_preresnet_200`. CIFAR networks have 6n + 2
layers; every such depth up to 1202 has its name.

Shortcuts, where a unit changes the number of channels: A takes every second pixel and fills up
with zeros, B is a 1 x 1 convolution, C is that in every unit. ImageNet networks have B, CIFAR
networks A, unless the name ends otherwise.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from models.architectures.layers import Conv, normal_by_fan_out, thinner
from models.architectures.registry import Architecture, Facts, alias, register

Shortcut = Literal["A", "B", "C"]
First = Literal["plain", "shared", "own"]  # where a pre-activation unit's first BatchNorm stands

BOTTLENECK = 4  # a bottleneck unit gives four times the channels of its convolutions

BOTTLENECK_FROM = 50  # networks for ImageNet below this depth have two 3 x 3 convolutions a unit
# Units of each stage.
IMAGENET = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
CIFAR_DEPTHS = range(8, 1203, 6)  # 6n + 2: three stages of n units of two convolutions


class Form(NamedTuple):
    """What the name of a network says of it.

    Attributes:
        depth: A depth of `IMAGENET`, for CIFAR one of `CIFAR_DEPTHS`.
        shortcut: A, B or C; A does not fit the bottlenecks of depth 50 and more.
        pre_activation: The second paper's units.
        cifar: Three stages for small images in place of four.
    """

    depth: int
    shortcut: Shortcut
    pre_activation: bool = False
    cifar: bool = False

    @property
    def bottleneck(self) -> bool:
        """Tell whether units have three convolutions, not two."""
        return not self.cifar and self.depth >= BOTTLENECK_FROM

    @property
    def units(self) -> tuple[int, ...]:
        """Units of each stage."""
        return ((self.depth - 2) // 6,) * 3 if self.cifar else IMAGENET[self.depth]

    def check(self) -> None:
        """Raise ValueError for what Torch7 could not build either."""
        if self.cifar and self.depth not in CIFAR_DEPTHS:
            raise ValueError(f"depth {self.depth}: a CIFAR network has 6n + 2 layers: 8, 14, ...")
        if self.shortcut == "A" and self.bottleneck:
            raise ValueError("shortcut A doubles the channels, a bottleneck multiplies them by 4")


class Unit(NamedTuple):
    """What a residual unit is made for."""

    in_channels: int
    channels: int
    stride: int
    bottleneck: bool
    shortcut: Shortcut

    @property
    def out_channels(self) -> int:
        """Channels of the unit's output."""
        return self.channels * BOTTLENECK if self.bottleneck else self.channels

    def convolutions(self) -> Iterator[nn.Conv2d]:
        """Yield the residual branch's convolutions in order."""
        if self.bottleneck:
            yield nn.Conv2d(self.in_channels, self.channels, 1, bias=False)
            yield nn.Conv2d(self.channels, self.channels, 3, self.stride, 1, bias=False)
            yield nn.Conv2d(self.channels, self.out_channels, 1, bias=False)
        else:
            yield nn.Conv2d(self.in_channels, self.channels, 3, self.stride, 1, bias=False)
            yield nn.Conv2d(self.channels, self.channels, 3, 1, 1, bias=False)

    def way_past(self, *, norm: bool) -> nn.Module | None:
        """Return the shortcut, None where it is the input itself."""
        if self.shortcut == "C" or (self.shortcut == "B" and self.in_channels != self.out_channels):
            if norm:
                return Conv(self.in_channels, self.out_channels, 1, stride=self.stride, linear=True)
            return nn.Conv2d(self.in_channels, self.out_channels, 1, self.stride, bias=False)
        if self.in_channels != self.out_channels:
            return ZeroFilled(self.stride)
        return None


class ZeroFilled(nn.Module):
    """Every `stride`-th pixel, and as many channels of zeros again."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(1, stride)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, 2 C, H / stride, W / stride)
        x = self.pool(x)
        return torch.cat([x, x * 0.0], 1)


class PostActivation(nn.Module):
    """`relu(branch(x) + shortcut(x))`, each convolution followed by its BatchNorm."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.branch = nn.Sequential()
        for index, conv in enumerate(unit.convolutions(), 1):
            if index > 1:
                self.branch.add_module(f"relu{index - 1}", nn.ReLU(inplace=True))
            self.branch.add_module(f"conv{index}", conv)
            self.branch.add_module(f"bn{index}", nn.BatchNorm2d(conv.out_channels))
        self.shortcut = unit.way_past(norm=True)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        past = x if self.shortcut is None else self.shortcut(x)
        total: Tensor = self.relu(self.branch(x) + past)
        return total


class PreActivation(nn.Module):
    """`branch(x) + shortcut(x)`, each convolution behind its BatchNorm and ReLU.

    The first of these is the branch's own, or shared with the shortcut, or there is none.
    """

    def __init__(self, unit: Unit, first: First) -> None:
        super().__init__()
        self.first = nn.Sequential()
        if first == "shared":
            self.first.add_module("bn", nn.BatchNorm2d(unit.in_channels))
            self.first.add_module("relu", nn.ReLU(inplace=True))
        self.branch = nn.Sequential()
        for index, conv in enumerate(unit.convolutions(), 1):
            if index > 1 or first == "own":
                self.branch.add_module(f"bn{index}", nn.BatchNorm2d(conv.in_channels))
                self.branch.add_module(f"relu{index}", nn.ReLU(inplace=True))
            self.branch.add_module(f"conv{index}", conv)
        self.shortcut = unit.way_past(norm=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        past = x if self.shortcut is None else self.shortcut(x)
        total: Tensor = self.branch(x) + past
        return total


class FbResNet(nn.Module):
    """N x 3 x 224 x 224 (for CIFAR 32 x 32) -> N x `num_classes` logits.

    `width_divisor` makes every layer thinner.
    """

    def __init__(self, form: Form, *, num_classes: int = 1000, width_divisor: int = 1) -> None:
        super().__init__()
        form.check()
        w = thinner(width_divisor)
        first = 16 if form.cifar else 64
        self.stem = _stem(w(first), form)
        channels = w(first)
        self.stages = nn.Sequential()
        for stage, units in enumerate(form.units):
            blocks = nn.Sequential()
            for index in range(units):
                stride = 2 if stage and not index else 1
                unit = Unit(channels, w(first << stage), stride, form.bottleneck, form.shortcut)
                channels = unit.out_channels
                blocks.append(_block(unit, form, stage, index))
            self.stages.append(blocks)
        self.last = nn.Sequential()
        if form.pre_activation:
            self.last.add_module("bn", nn.BatchNorm2d(channels))
            self.last.add_module("relu", nn.ReLU(inplace=True))
        self.pool = nn.AvgPool2d(8 if form.cifar else 7, 1)
        self.classifier = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the Lua files do."""
        normal_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 224, 224), for CIFAR (N, 3, 32, 32)
        x = self.stages(self.stem(x))  # (N, C, 7, 7), for CIFAR (N, C, 8, 8)
        x = self.pool(self.last(x))  # (N, C, 1, 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))  # (N, classes)
        return logits


def _stem(channels: int, form: Form) -> nn.Sequential:
    stem = nn.Sequential()
    size, stride, padding = (3, 1, 1) if form.cifar else (7, 2, 3)
    stem.add_module("conv", nn.Conv2d(3, channels, size, stride, padding, bias=False))
    if not (form.cifar and form.pre_activation):  # there the first unit begins with it
        stem.add_module("bn", nn.BatchNorm2d(channels))
        stem.add_module("relu", nn.ReLU(inplace=True))
    if not form.cifar:
        stem.add_module("pool", nn.MaxPool2d(3, 2, 1))
    return stem


def _block(unit: Unit, form: Form, stage: int, index: int) -> PostActivation | PreActivation:
    if not form.pre_activation:
        return PostActivation(unit)
    if index:
        return PreActivation(unit, "own")
    return PreActivation(unit, "shared" if stage or form.cifar else "plain")


# Error in percent on ILSVRC-2012's validation images, centre crop: first guess / first five.
PUBLISHED = {
    "fb_resnet_18": "30.43 / 10.76",
    "fb_resnet_34": "26.73 / 8.74",
    "fb_resnet_50": "24.01 / 7.02",
    "fb_resnet_101": "22.44 / 6.21",
    "fb_resnet_152": "22.16 / 6.16",
    "fb_preresnet_200": "21.66 / 5.79",
}
CIFAR_LISTED = (20, 32, 44, 56, 110)  # of the depths that the source names; the last is 1202
VERIFIED = {
    "fb_resnet": "Torch7's own files of depth 18, 50, CIFAR 8 and 20 have this structure",
    "fb_preresnet": "Torch7's own files of depth 18 and CIFAR 20 have this structure",
}


def _register(stem: str, title: str, *, pre_activation: bool) -> None:
    source = f"facebook/fb.resnet.torch models/{stem.removeprefix('fb_')}.lua"
    for depth, units in IMAGENET.items():
        if depth == 200 and not pre_activation:
            continue
        for shortcut in get_args(Shortcut)[depth >= BOTTLENECK_FROM :]:
            name = f"{stem}_{depth}" + ("" if shortcut == "B" else f"_{shortcut.lower()}")
            entry = Architecture(
                name,
                f"{title}, depth {depth}, shortcut {shortcut}",
                partial(FbResNet, Form(depth, shortcut, pre_activation)),
                size=224,
                residuals=sum(units),
                features=2048 if depth >= BOTTLENECK_FROM else 512,
                preset="torch-224",
                facts=Facts(source, PUBLISHED.get(name), VERIFIED[stem]),
            )
            register(entry, listed=shortcut == "B")


def _register_cifar(stem: str, title: str, *, pre_activation: bool) -> None:
    source = f"facebook/fb.resnet.torch models/{stem.removeprefix('fb_')}.lua"
    for depth in CIFAR_DEPTHS:
        for shortcut in get_args(Shortcut):
            name = f"{stem}_cifar_{depth}" + ("" if shortcut == "A" else f"_{shortcut.lower()}")
            entry = Architecture(
                name,
                f"{title} for CIFAR, depth {depth}, shortcut {shortcut}",
                partial(FbResNet, Form(depth, shortcut, pre_activation, cifar=True)),
                size=32,
                residuals=(depth - 2) // 2,
                features=64,
                preset=None,  # CIFAR-10 and CIFAR-100 differ in their means, not in the structure
                facts=Facts(source, None, VERIFIED[stem]),
            )
            register(entry, listed=shortcut == "A" and depth in CIFAR_LISTED)


_TITLES = {"fb_resnet": "fb.resnet.torch's ResNet", "fb_preresnet": "its pre-activation ResNet"}
for _kind, _title in _TITLES.items():
    _register(_kind, _title, pre_activation=_kind == "fb_preresnet")
    _register_cifar(_kind, _title, pre_activation=_kind == "fb_preresnet")
alias("fb_resnet_200", "fb_preresnet_200")
