"""Gluon's ResNet-v2, of MXNet's own model zoo.

Paper: He et al., "Identity Mappings in Deep Residual Networks", arXiv 1603.05027.
Source: apache/mxnet python/mxnet/gluon/model_zoo/vision/resnet.py, example/gluon.

Tensors have Gluon's structural names, as `save_parameters` writes them, with torch's words for the
last part. The first layer is a BatchNorm whose scale stays 1. Against tornadomeet's ResNet-v2,
whose names on paper are the same: eps is 1e-5, the image is normalised before, and a unit has a
convolution on its shortcut only where the number of channels changes, so the first of 18 and 34 has
none.
"""

import math
from functools import partial

from torch import Tensor, nn

from models.architectures.layers import thinner
from models.architectures.registry import Architecture, Arguments, Facts, register
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
FIRST_STAGE = 5  # of `features`: a BatchNorm, and convolution, BatchNorm, ReLU, pooling before it


class Unit(nn.Module):
    """`branch(relu(bn1(x))) + x`, or where channels differ `+ downsample(relu(bn1(x)))`."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        inner = channels // 4 if bottleneck else channels
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


class GluonResNetV2(nn.Module):
    """N x 3 x 32 `pool` x 32 `pool`, normalised RGB -> N x `num_classes` logits.

    Args:
        depth: A depth of `UNITS`.
        num_classes: Width of the last layer.
        width_divisor: Makes every layer thinner.
        widths: Channels of the stem and of each stage, where they are not the original's.
        pool: Height and width of the last maps, which are averaged whole: 7 for 224 x 224.
    """

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int = 1000,
        width_divisor: int = 1,
        widths: tuple[int, ...] | None = None,
        pool: int = 7,
    ) -> None:
        super().__init__()
        bottleneck = depth >= BOTTLENECK_FROM
        channels, *stages = map(thinner(width_divisor), widths or _widths(depth))
        norm = nn.BatchNorm2d(3)
        norm.weight.requires_grad_(False)
        self.features = nn.Sequential(norm, nn.Conv2d(3, channels, 7, 2, 3, bias=False))
        self.features.extend([nn.BatchNorm2d(channels), nn.ReLU(inplace=True)])
        self.features.append(nn.MaxPool2d(3, 2, 1))
        for stage, (wide, units) in enumerate(zip(stages, UNITS[depth], strict=True)):
            blocks = nn.Sequential()
            for index in range(units):
                stride = 2 if stage and not index else 1
                blocks.append(Unit(channels, wide, stride, bottleneck=bottleneck))
                channels = wide
            self.features.append(blocks)
        self.features.extend([nn.BatchNorm2d(channels), nn.ReLU(inplace=True)])
        self.features.extend([nn.AvgPool2d(pool, 1), nn.Flatten()])
        self.output = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the examples do, `Xavier(magnitude=2)`; BatchNorm 1 and 0.

        Source: MXNet initializer.py: uniform up to sqrt(magnitude / mean of fan-in and fan-out).
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.weight
                mean = (weight[0].numel() + weight[:, 0].numel()) / 2
                bound = math.sqrt(2 / mean)
                nn.init.uniform_(weight, -bound, bound)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 224, 224) where `pool` is 7
        logits: Tensor = self.output(self.features(x))  # (N, classes)
        return logits


def _widths(depth: int) -> tuple[int, ...]:
    return (64, 256, 512, 1024, 2048) if depth >= BOTTLENECK_FROM else (64, 64, 128, 256, 512)


def _arguments(depth: int, graph: Graph) -> Arguments | None:
    """Read the widths off a graph: the first convolution's, and those of each stage's last sum."""
    head = head_size(graph)
    nodes = {node.name: node for node in graph.nodes}
    first = next((node for node in graph.nodes if node.op == "Conv2d"), None)
    sums = [nodes.get(node.inputs[0]) for node in graph.nodes if node.op == "Add"]
    if head is None or first is None or len(sums) != sum(UNITS[depth]):
        return None
    ends = [sums[sum(UNITS[depth][: stage + 1]) - 1] for stage in range(len(UNITS[depth]))]
    convolutions = [first, *(one for one in ends if one is not None and one.op == "Conv2d")]
    if len(convolutions) != len(ends) + 1:
        return None
    widths = tuple(int(one.attrs["out_channels"]) for one in convolutions)
    return {"num_classes": head.outputs, "widths": widths}


VERIFIED = (
    "networks that MXNet exported at depth 10 and 50 have these operators, settings and wiring, "
    "and `save_parameters` files these names and shapes"
)

for _depth, _units in UNITS.items():
    register(
        Architecture(
            f"gluon_resnet_v2_{_depth}",
            f"Gluon's ResNet-v2, depth {_depth}",
            partial(GluonResNetV2, _depth),
            size=224,
            residuals=sum(_units),
            features=_widths(_depth)[-1],
            preset=None,
            facts=Facts("apache/mxnet gluon/model_zoo/vision/resnet.py", None, VERIFIED),
            arguments=partial(_arguments, _depth),
        ),
        listed=_depth != 10,
    )
