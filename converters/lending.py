"""MXNet arrays whose symbol is lost, or that never had one: an architecture lends its graph."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from converters.formats import SGD, Executed
from converters.lowering import Infer, Lowered, Lowering, borrowed, check_floats
from converters.mx import MXSource
from models.architectures import Architecture, find
from models.architectures.gluon_resnet import FIRST_STAGE, GluonResNetV2
from models.architectures.registry import Arguments
from models.architectures.resnet_v2 import ResNetV2
from models.errors import SpecError, WeightMismatch
from models.graph import Array, Graph, Shape
from models.trace import trace

SHRUNK = 32  # times, from image to the last maps

_NORM = {"weight": "gamma", "bias": "beta"}
_MOVING = {"running_mean": "moving_mean", "running_var": "moving_var"}


class Naming(NamedTuple):
    """What MXNet calls the tensors of a class of ours.

    Attributes:
        layer: From our name of a layer to MXNet's.
        between: What stands between layer and tensor.
        norm: MXNet's words for the tensors of a BatchNorm.
        widths: Our names of the tensors whose first size is a width: stem, then each stage.
        pool: Whether the class has to know how large the last maps are.
    """

    layer: Callable[[str], str]
    between: str
    norm: Mapping[str, str]
    widths: Callable[[nn.Module], Sequence[str]]
    pool: bool = False


def _symbolic(layer: str) -> str:
    """`stages.0.1.branch.conv2` is `stage1_unit2_conv2` in tornadomeet/ResNet symbol_resnet.py."""
    first, *rest = layer.split(".")
    if first == "stages":
        stage, unit = int(rest[0]) + 1, int(rest[1]) + 1
        return f"stage{stage}_unit{unit}_{'sc' if rest[-1] == 'shortcut' else rest[-1]}"
    return {"classifier": "fc1"}.get(first, (rest or [first])[-1])


def _stage_shortcuts(module: nn.Module) -> list[str]:
    count = len(module.get_submodule("stages")._modules)
    return ["stem.conv0.weight", *(f"stages.{one}.0.shortcut.weight" for one in range(count))]


def _stage_ends(module: nn.Module) -> list[str]:
    convolutions = [name for name, one in module.named_modules() if isinstance(one, nn.Conv2d)]
    ends = []
    for stage in range(FIRST_STAGE, FIRST_STAGE + 4):
        inside = [one for one in convolutions if one.startswith(f"features.{stage}.0.conv")]
        ends.append(f"{inside[-1]}.weight")
    return ["features.1.weight", *ends]


NAMINGS = {
    ResNetV2: Naming(_symbolic, "_", {**_NORM, **_MOVING}, _stage_shortcuts),
    GluonResNetV2: Naming(str, ".", _NORM, _stage_ends, pool=True),
}


class LentSource:
    """An open `.params` file with the graph of a known architecture.

    Attributes:
        format: The layouts of its arrays.
        classes: Layers of the architecture, and how many of each.
        input: How images enter, where the architecture tells.
        notes: Whose graph it is.
    """

    def __init__(self, path: Path, name: Path | None = None, *, architecture: str) -> None:
        """Read the file at `path`; errors call it `name`.

        Raises:
            FormatError: The file is damaged.
            SpecError: There is no such architecture, or MXNet has no names for its tensors.
            WeightMismatch: Arrays are missing, left over, or of another shape.
        """
        self.name = name or path
        stored = MXSource(path, self.name, symbol_path=None)
        self.format = stored.format
        self._entry = find(architecture)
        self._naming = _naming(self._entry)
        with torch.device("meta"):
            whole = self._entry.create()
        self._arguments = self._found(stored.arrays, whole)
        module = self._module(self._entry.size)
        self._tensors = self._matched(stored.arrays, module)
        self.classes = Counter(
            type(one).__name__ for one in module.modules() if not list(one.children())
        )
        self.input = self._entry.input
        self.notes = (f"the graph is that of {self._entry.name}: the file has none",)

    def check(self, infer: Infer) -> None:
        """Do nothing: every layer of an architecture has a word in graphs."""

    def lower(
        self,
        shapes: Sequence[Shape],
        infer: Infer,
        numbers: Mapping[int, Array] | None = None,
    ) -> Lowered:
        """Return the network for one batch of images; there are no keys of other numbers.

        Raises:
            SpecError: There are several shapes, or it is none of images.
        """
        if len(shapes) != 1 or len(shapes[0]) != 4:
            raise SpecError(f"{self.name}: shapes {list(shapes)}, expected one batch of images")
        return borrowed(Lowering(self.name, infer), self._graph(shapes[0]), self._tensors)

    def follow(self, inputs: Sequence[Array], report: Callable[[Executed], object]) -> None:
        """Refuse: arrays have no operators of their own that could be run."""
        raise SpecError(f"{self.name}: without a symbol there is nothing to be held against")

    def sgd(self, path: Path) -> SGD:
        """Refuse: only Torch7's optimizers are read."""
        raise SpecError(f"{path}: the state of an MXNet optimizer is not read")

    def _graph(self, shape: Shape) -> Graph:
        return trace(self._module(shape[-1]), [shape]).graph

    def _module(self, size: int) -> nn.Module:
        """Return the class without numbers, for images of that size."""
        pool = {"pool": -(-size // SHRUNK)} if self._naming.pool else {}
        with torch.device("meta"):
            return self._entry.create(**self._arguments, **pool).eval()

    def _found(self, arrays: Mapping[str, Array], whole: nn.Module) -> Arguments:
        """Read the number of classes and the widths off the arrays."""
        for name, array in arrays.items():
            check_floats(self.name, name, array)
        names = _names(whole, self._naming)
        head = [key for key in names if key.endswith("weight")][-1]
        wanted = [*self._naming.widths(whole), head]
        shapes = {names[key]: arrays[names[key]].shape for key in wanted if names[key] in arrays}
        misshapen = [
            f"{name} is {shape}, expected a width first"
            for name, shape in shapes.items()
            if 0 in (shape or (0,))
        ]
        if misshapen or len(shapes) < len(wanted):
            self._check(arrays, names, misshapen)
        *widths, classes = (int(shapes[names[key]][0]) for key in wanted)
        return {"num_classes": classes, "widths": tuple(widths)}

    def _matched(self, arrays: Mapping[str, Array], module: nn.Module) -> dict[str, Array]:
        """Return the arrays under the class's names; every name and shape has to match."""
        names = _names(module, self._naming)
        shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        misshapen = [
            f"{theirs} is {arrays[theirs].shape}, expected {shapes[ours]}"
            for ours, theirs in names.items()
            if theirs in arrays and arrays[theirs].shape != shapes[ours]
        ]
        self._check(arrays, names, misshapen)
        fixed = {key for key, one in module.named_parameters() if not one.requires_grad}
        return {
            ours: np.ones(shapes[ours], np.float32) if ours in fixed else arrays[theirs]
            for ours, theirs in names.items()
        }

    def _check(
        self, arrays: Mapping[str, Array], names: Mapping[str, str], misshapen: Sequence[str]
    ) -> None:
        """Raise WeightMismatch unless the file has these names and no others, of these shapes."""
        missing = [theirs for theirs in names.values() if theirs not in arrays]
        unexpected = sorted(arrays.keys() - set(names.values()))
        if missing or unexpected or misshapen:
            raise WeightMismatch(
                f"{self.name}: as {self._entry.name}",
                missing=missing,
                unexpected=unexpected,
                misshapen=misshapen,
            )


def _naming(entry: Architecture) -> Naming:
    kind = entry.create.func if isinstance(entry.create, partial) else entry.create
    if kind not in NAMINGS:
        raise SpecError(
            f"--architecture {entry.name}: MXNet has no names for its tensors; it has for "
            "resnet_v2_50, gluon_resnet_v2_50 and their other depths"
        )
    return NAMINGS[kind]


def _names(module: nn.Module, naming: Naming) -> dict[str, str]:
    """Return what MXNet calls each tensor of a module."""
    found = {}
    for key in module.state_dict():
        layer, _, tensor = key.rpartition(".")
        if tensor == "num_batches_tracked":
            continue
        norm = isinstance(module.get_submodule(layer), nn.BatchNorm2d)
        word = naming.norm.get(tensor, tensor) if norm else tensor
        found[key] = f"{naming.layer(layer)}{naming.between}{word}"
    return found
