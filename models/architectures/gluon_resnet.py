"""Gluon's ResNet-v1 and ResNet-v2, of MXNet's own model zoo.

Papers: He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385 (v1), and
"Identity Mappings in Deep Residual Networks", arXiv 1603.05027 (v2).
Source: apache/mxnet python/mxnet/gluon/model_zoo/vision/resnet.py, example/gluon.

Tensors have Gluon's structural names, as `save_parameters` writes them, with torch's words for the
last part; this holds for all networks of Gluon's. `gluon_` with the zoo's own name, such as
`gluon_resnet50_v2`, is a second name where it differs.

Version 1: a bottleneck halves the image in its first 1 x 1 convolution, and its 1 x 1 convolutions
have biases. Until MXNet 1.0 it was the 3 x 3 that halved; no tensor shows it, so the files of that
time, `resnet50_v1-2a903ab2`, `resnet101_v1-d2b128fa` and `resnet152_v1-6562166c`, are
`gluon_resnet_v1_50_until_1.0` and so on.

Version 2: the first layer is a BatchNorm whose scale stays 1. Against tornadomeet's ResNet-v2,
whose names on paper are the same: eps is 1e-5, the image is normalised before, and a unit has a
convolution on its shortcut only where the number of channels changes, so the first of 18 and 34 has
none.
"""

from functools import partial
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from models.architectures.gluon_layers import SHRUNK, GluonNetwork, facts, normed, weighted
from models.architectures.layers import thinner
from models.architectures.registry import Architecture, Arguments, alias, register
from models.fingerprint import head_size
from models.graph import Graph

# Units of each stage; the zoo's depths, and the least that the rule allows.
UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    10: (1, 1, 1, 1),
}
BOTTLENECK_FROM = 50
LEAST = 10  # no depth of the zoo
STAGES = 4
# What makes the terms of a sum in each version, and the setting that is their width.
_TERMS = {1: ("BatchNorm2d", "num_features"), 2: ("Conv2d", "out_channels")}

shrunk = thinner(4)  # inside a bottleneck


class UnitV1(nn.Module):
    """`relu(body(x) + x)`, or where channels differ `+ downsample(x)`.

    Args:
        in_channels: Channels of x.
        channels: Channels of the sum.
        stride: Of the first convolution, with `late` of the 3 x 3 of a bottleneck.
        bottleneck: Whether the body is 1 x 1, 3 x 3, 1 x 1 and not 3 x 3 twice.
        late: What MXNet did until 1.0.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, bottleneck: bool, late: bool = False
    ) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        inner = shrunk(channels) if bottleneck else channels
        first, second = (1, stride) if late and bottleneck else (stride, 1)
        shapes = (
            [(in_channels, inner, 1, first), (inner, inner, 3, second), (inner, channels, 1, 1)]
            if bottleneck
            else [(in_channels, channels, 3, first), (channels, channels, 3, 1)]
        )
        self.body = nn.Sequential()
        for given, made, size, by in shapes:
            conv = nn.Conv2d(given, made, size, by, size // 2, bias=size == 1)
            self.body.extend(normed(conv, nn.ReLU(inplace=True)))
        del self.body[-1]  # the last ReLU is behind the sum
        shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        self.downsample = nn.Sequential(*normed(shortcut)) if channels != in_channels else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        past = x if self.downsample is None else self.downsample(x)
        made = self.body(x)
        total: Tensor = self.relu(made + past if self.bottleneck else past + made)
        return total


class UnitV2(nn.Module):
    """`branch(relu(bn1(x))) + x`, or where channels differ `+ downsample(relu(bn1(x)))`."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        inner = shrunk(channels) if bottleneck else channels
        shapes = (
            [(in_channels, inner, 1, 1), (inner, inner, 3, stride), (inner, channels, 1, 1)]
            if bottleneck
            else [(in_channels, channels, 3, stride), (channels, channels, 3, 1)]
        )
        self.count = len(shapes)
        for index, (given, made, size, by) in enumerate(shapes, 1):
            self.add_module(f"bn{index}", nn.BatchNorm2d(given))
            self.add_module(f"relu{index}", nn.ReLU(inplace=True))
            self.add_module(f"conv{index}", nn.Conv2d(given, made, size, by, size // 2, bias=False))
        self.downsample = (
            nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            if channels != in_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self._active(1, x)
        past = x if self.downsample is None else self.downsample(active)
        x = self.get_submodule("conv1")(active)
        for index in range(2, self.count + 1):
            x = self.get_submodule(f"conv{index}")(self._active(index, x))
        return x + past

    def _active(self, index: int, x: Tensor) -> Tensor:
        found: Tensor = self.get_submodule(f"relu{index}")(self.get_submodule(f"bn{index}")(x))
        return found


class GluonResNet(GluonNetwork):
    """N x 3 x `size` x `size`, normalised RGB -> N x `num_classes` logits.

    Args:
        depth: A depth of `UNITS`.
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        widths: Channels of the stem and of each stage, where they are not the original's.
        size: Height and width of the images.
    """

    sized = True
    unit: type[UnitV1 | UnitV2]

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int = 1000,
        width_divisor: int = 1,
        widths: tuple[int, ...] | None = None,
        size: int = 224,
        **kind: bool,
    ) -> None:
        super().__init__()
        self.units = UNITS[depth]
        bottleneck = depth >= BOTTLENECK_FROM
        channels, *stages = map(thinner(width_divisor), widths or _widths(depth))
        stem = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.features = nn.Sequential(*self.entrance(), *normed(stem, nn.ReLU(inplace=True)))
        self.features.append(nn.MaxPool2d(3, 2, 1))
        for stage, (wide, units) in enumerate(zip(stages, self.units, strict=True)):
            blocks = nn.Sequential()
            for index in range(units):
                stride = 2 if stage and not index else 1
                blocks.append(self.unit(channels, wide, stride, bottleneck=bottleneck, **kind))
                channels = wide
            self.features.append(blocks)
        self.features.extend(
            [*self.exit(channels), nn.AvgPool2d(-(-size // SHRUNK), 1), nn.Flatten()]
        )
        self.output = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def entrance(self) -> list[nn.Module]:
        """Return what stands before the first convolution."""
        return []

    def exit(self, channels: int) -> list[nn.Module]:
        """Return what stands behind the last unit."""
        return []

    def width_layers(self) -> list[str]:
        """Return the stem, and the last convolution of a unit of each stage."""
        layers = weighted(self)
        bodies = [one for one in layers if "downsample" not in one]
        ends = [
            [one for one in bodies if one.startswith(f"{stage}.0.")][-1] for stage in self.scopes
        ]
        return [layers[0], *ends]


class GluonResNetV1(GluonResNet):
    """The first version: units end with their ReLU."""

    unit = UnitV1
    scopes = {f"features.{3 + stage}": f"stage{stage}_" for stage in range(1, STAGES + 1)}


class GluonResNetV2(GluonResNet):
    """The second version: units begin with a BatchNorm and ReLU, and so does what follows them."""

    unit = UnitV2
    scopes = {f"features.{4 + stage}": f"stage{stage}_" for stage in range(1, STAGES + 1)}

    def entrance(self) -> list[nn.Module]:
        norm = nn.BatchNorm2d(3)
        norm.weight.requires_grad_(False)
        return [norm]

    def exit(self, channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _widths(depth: int) -> tuple[int, ...]:
    return (64, 256, 512, 1024, 2048) if depth >= BOTTLENECK_FROM else (64, 64, 128, 256, 512)


def _arguments(version: int, depth: int, graph: Graph) -> Arguments | None:
    """Read the widths off a graph: the first convolution's, and those of each stage's last sum."""
    head = head_size(graph)
    nodes = {node.name: node for node in graph.nodes}
    first = next((node for node in graph.nodes if node.op == "Conv2d"), None)
    sums = [node for node in graph.nodes if node.op == "Add"]
    if head is None or first is None or len(sums) != sum(UNITS[depth]):
        return None
    op, width = _TERMS[version]
    widths = [int(first.attrs["out_channels"])]
    for last in accumulate(UNITS[depth]):
        terms = [nodes[name] for name in sums[last - 1].inputs if name in nodes]
        widths.extend([int(term.attrs[width]) for term in terms if term.op == op][:1])
    whole = len(widths) == len(UNITS[depth]) + 1
    return {"num_classes": head.outputs, "widths": tuple(widths)} if whole else None


def _register(name: str, depth: int, create: partial[Any], *, listed: bool) -> None:
    version = 1 if create.func is GluonResNetV1 else 2
    entry = Architecture(
        name,
        f"Gluon's ResNet-v{version}, depth {depth}",
        create,
        size=224,
        residuals=sum(UNITS[depth]),
        features=_widths(depth)[-1],
        preset="gluon-224",
        facts=facts("resnet.py"),
        arguments=partial(_arguments, version, depth),
    )
    register(entry, listed=listed)


for _version, _class in enumerate((GluonResNetV1, GluonResNetV2), 1):
    for _depth in UNITS:
        _name = f"gluon_resnet_v{_version}_{_depth}"
        _register(_name, _depth, partial(_class, _depth), listed=_depth != LEAST)
        if _depth != LEAST:
            alias(f"gluon_resnet{_depth}_v{_version}", _name)
# What a network was called before the stride moved; no array shows which of the two it is.
UNTIL_1_0: dict[str, str] = {}
for _depth in (50, 101, 152):
    _late = partial(GluonResNetV1, _depth, late=True)
    UNTIL_1_0[f"gluon_resnet_v1_{_depth}"] = f"gluon_resnet_v1_{_depth}_until_1.0"
    _register(UNTIL_1_0[f"gluon_resnet_v1_{_depth}"], _depth, _late, listed=False)
