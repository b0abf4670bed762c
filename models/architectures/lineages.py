"""What other programs call the tensors of the Inception networks, as data.

A lineage is a program, or a library, whose state dictionaries people have. Its names differ from
ours by module only: `features.6.branch1.0.conv.weight` of timm's is `blocks_a.0.branches.1.0` with
the same `conv.weight` behind it. Tables go both ways.

Sources: huggingface/pytorch-image-models, timm/models/inception_{v3,v4,resnet_v2}.py;
pytorch/vision, torchvision/models/inception.py; Lornatang/InceptionV3-PyTorch and
Lornatang/InceptionV4-PyTorch, model.py.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

Modules = Mapping[str, str]


class Part(NamedTuple):
    """A module of theirs, what it is called here, and the same of the modules inside it."""

    theirs: str
    ours: str
    inside: Modules = {"": ""}


class Lineage(NamedTuple):
    """How one library names one architecture.

    Attributes:
        library: What its users call it.
        architecture: Our name of the network.
        preset: How its own programs bring images to the network, if that is known.
        parts: Every module that has tensors.
        auxiliary: The module that only training needs, where there is one.
    """

    library: str
    architecture: str
    preset: str | None
    parts: tuple[Part, ...]
    auxiliary: str | None = None

    def ours(self) -> dict[str, str]:
        """Return our module names by theirs."""
        return {
            _joined(part.theirs, inner): _joined(part.ours, part.inside[inner])
            for part in self.parts
            for inner in part.inside
        }

    def theirs(self) -> dict[str, str]:
        """Return their module names by ours."""
        return {ours: theirs for theirs, ours in self.ours().items()}


def renamed(name: str, modules: Modules) -> str | None:
    """Return a tensor's name with its module's name replaced, the longest that the table has."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        module = ".".join(words[:count])
        if module in modules:
            return _joined(modules[module], ".".join(words[count:]))
    return None


def _joined(module: str, rest: str) -> str:
    return f"{module}.{rest}" if module and rest else module or rest


def _numbered(theirs: str, first: int, ours: str, count: int, inside: Modules) -> Iterator[Part]:
    """Yield `count` parts, `theirs` numbered from `first` and ours from 0."""
    for index in range(count):
        yield Part(f"{theirs}.{first + index}", f"{ours}.{index}", inside)


# Inception-v4 -----------------------------------------------------------------------------------

_BRANCHES = {f"branch{index}": f"branches.{index}" for index in range(4)}
_BRANCHES_ = {f"branch_{index}": f"branches.{index}" for index in range(4)}

_TIMM_V4_C = {
    "branch0": "branches.0",
    "branch1_0": "branches.1.0",
    "branch1_1a": "branches.1.1.branches.0",
    "branch1_1b": "branches.1.1.branches.1",
    "branch2_0": "branches.2.0",
    "branch2_1": "branches.2.1",
    "branch2_2": "branches.2.2",
    "branch2_3a": "branches.2.3.branches.0",
    "branch2_3b": "branches.2.3.branches.1",
    "branch3": "branches.3",
}
_TIMM_V4 = (
    *_numbered("features", 0, "stem", 3, {"": ""}),
    Part("features.3.conv", "stem.3.branches.1"),
    Part("features.4", "stem.4", _BRANCHES),
    Part("features.5.conv", "stem.5.branches.0"),
    *_numbered("features", 6, "blocks_a", 4, _BRANCHES),
    Part("features.10", "reduction_a", _BRANCHES),
    *_numbered("features", 11, "blocks_b", 7, _BRANCHES),
    Part("features.18", "reduction_b", _BRANCHES),
    *_numbered("features", 19, "blocks_c", 3, _TIMM_V4_C),
    Part("last_linear", "classifier"),
)

_LORNATANG_V4_STEM = {
    "conv2d_1a_3x3": "0",
    "conv2d_2a_3x3": "1",
    "conv2d_2b_3x3": "2",
    "mixed_3a_branch_1": "3.branches.1",
    "mixed_4a_branch_0": "4.branches.0",
    "mixed_4a_branch_1": "4.branches.1",
    "mixed_5a_branch_0": "5.branches.0",
}
_LORNATANG_V4_A = {
    "branch_0": "branches.0",
    "branch_1": "branches.1",
    "branch_2": "branches.2",
    "brance_3": "branches.3",  # as it is spelt there
}
_LORNATANG_V4_C = {
    "branch_0": "branches.0",
    "branch_1": "branches.1.0",
    "branch_1_1": "branches.1.1.branches.0",
    "branch_1_2": "branches.1.1.branches.1",
    "branch_2": "branches.2",
    "branch_2_1": "branches.2.3.branches.0",
    "branch_2_2": "branches.2.3.branches.1",
    "branch_3": "branches.3",
}
_LORNATANG_V4 = (
    Part("features.0", "stem", _LORNATANG_V4_STEM),
    *_numbered("features", 1, "blocks_a", 4, _LORNATANG_V4_A),
    Part("features.5", "reduction_a", _BRANCHES_),
    *_numbered("features", 6, "blocks_b", 7, _BRANCHES_),
    Part("features.13", "reduction_b", _BRANCHES_),
    *_numbered("features", 14, "blocks_c", 3, _LORNATANG_V4_C),
    Part("linear", "classifier"),
)

# Inception-ResNet-v2 ----------------------------------------------------------------------------

_TIMM_RESIDUAL = {**_BRANCHES, "conv2d": "projection"}
_TIMM_RESNET = (
    Part("conv2d_1a", "stem.0"),
    Part("conv2d_2a", "stem.1"),
    Part("conv2d_2b", "stem.2"),
    Part("conv2d_3b", "stem.4"),
    Part("conv2d_4a", "stem.5"),
    Part("mixed_5b", "mixed", _BRANCHES),
    *_numbered("repeat", 0, "blocks_a", 10, _TIMM_RESIDUAL),
    Part("mixed_6a", "reduction_a", _BRANCHES),
    *_numbered("repeat_1", 0, "blocks_b", 20, _TIMM_RESIDUAL),
    Part("mixed_7a", "reduction_b", _BRANCHES),
    *_numbered("repeat_2", 0, "blocks_c", 9, _TIMM_RESIDUAL),
    Part("block8", "blocks_c.9", _TIMM_RESIDUAL),
    Part("conv2d_7b", "last"),
    Part("classif", "classifier"),
)

_LORNATANG_RESIDUAL = {**_BRANCHES_, "conv": "projection"}
_LORNATANG_RESNET = (
    Part("features.0.features", "stem"),
    Part("features.0", "mixed", _BRANCHES_),
    *_numbered("features", 1, "blocks_a", 10, _LORNATANG_RESIDUAL),
    Part("features.11", "reduction_a", _BRANCHES_),
    *_numbered("features", 12, "blocks_b", 20, _LORNATANG_RESIDUAL),
    Part("features.32", "reduction_b", _BRANCHES_),
    *_numbered("features", 33, "blocks_c", 10, _LORNATANG_RESIDUAL),
    Part("conv", "last"),
    Part("linear", "classifier"),
)

# Inception-v3 -----------------------------------------------------------------------------------

_V3_A = {
    "branch1x1": "branches.0",
    "branch5x5_1": "branches.1.0",
    "branch5x5_2": "branches.1.1",
    "branch3x3dbl_1": "branches.2.0",
    "branch3x3dbl_2": "branches.2.1",
    "branch3x3dbl_3": "branches.2.2",
    "branch_pool": "branches.3.1",
}
_V3_REDUCTION_A = {
    "branch3x3": "branches.0",
    "branch3x3dbl_1": "branches.1.0",
    "branch3x3dbl_2": "branches.1.1",
    "branch3x3dbl_3": "branches.1.2",
}
_V3_B = {
    "branch1x1": "branches.0",
    **{f"branch7x7_{index + 1}": f"branches.1.{index}" for index in range(3)},
    **{f"branch7x7dbl_{index + 1}": f"branches.2.{index}" for index in range(5)},
    "branch_pool": "branches.3.1",
}
_V3_REDUCTION_B = {
    "branch3x3_1": "branches.0.0",
    "branch3x3_2": "branches.0.1",
    **{f"branch7x7x3_{index + 1}": f"branches.1.{index}" for index in range(4)},
}
_V3_C = {
    "branch1x1": "branches.0",
    "branch3x3_1": "branches.1.0",
    "branch3x3_2a": "branches.1.1.branches.0",
    "branch3x3_2b": "branches.1.1.branches.1",
    "branch3x3dbl_1": "branches.2.0",
    "branch3x3dbl_2": "branches.2.1",
    "branch3x3dbl_3a": "branches.2.2.branches.0",
    "branch3x3dbl_3b": "branches.2.2.branches.1",
    "branch_pool": "branches.3.1",
}
_V3 = (
    Part("Conv2d_1a_3x3", "stem.0"),
    Part("Conv2d_2a_3x3", "stem.1"),
    Part("Conv2d_2b_3x3", "stem.2"),
    Part("Conv2d_3b_1x1", "stem.4"),
    Part("Conv2d_4a_3x3", "stem.5"),
    *(Part(f"Mixed_5{letter}", f"blocks_a.{at}", _V3_A) for at, letter in enumerate("bcd")),
    Part("Mixed_6a", "reduction_a", _V3_REDUCTION_A),
    *(Part(f"Mixed_6{letter}", f"blocks_b.{at}", _V3_B) for at, letter in enumerate("bcde")),
    Part("Mixed_7a", "reduction_b", _V3_REDUCTION_B),
    *(Part(f"Mixed_7{letter}", f"blocks_c.{at}", _V3_C) for at, letter in enumerate("bc")),
    Part("fc", "classifier"),
)

# Inception-v3 has one set of names: an auxiliary head, where a file has one, tells who wrote it.
LINEAGES = (
    Lineage("timm", "inception_v4", "timm-299-0.875", _TIMM_V4),
    Lineage("timm", "inception_resnet_v2", "timm-299-0.8975", _TIMM_RESNET),
    Lineage("timm", "inception_v3", "timm-299-0.875", _V3),
    Lineage("torchvision", "inception_v3", "torchvision-299", _V3, "AuxLogits"),
    Lineage("Lornatang", "inception_v3", "torchvision-299", _V3, "aux"),
    Lineage("Lornatang", "inception_v4_lornatang", "lornatang-299", _LORNATANG_V4),
    Lineage("Lornatang", "inception_resnet_v2_lornatang", "lornatang-299", _LORNATANG_RESNET),
)
