"""MXNet arrays whose symbol is lost, or that never had one: an architecture lends its graph."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from converters.formats import SGD, Executed
from converters.lowering import Infer, Lowered, Lowering, borrowed, check_floats
from converters.mx import MXSource
from models.architectures import find
from models.architectures.gluon_layers import GluonNetwork
from models.architectures.gluon_resnet import UNTIL_1_0
from models.architectures.registry import Arguments
from models.architectures.resnet_v2 import ResNetV2
from models.errors import SpecError, WeightMismatch
from models.graph import Array, Graph, Shape
from models.trace import trace

Lender = ResNetV2 | GluonNetwork

_SYMBOLIC = {"running_mean": "moving_mean", "running_var": "moving_var"}
_NORM = {"weight": "gamma", "bias": "beta"}  # MXNet's words for the tensors of a BatchNorm


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
        self._arguments: Arguments = {}
        self._arguments = self._found(stored.arrays)
        module = self._module(self._entry.size)
        self._tensors = self._matched(stored.arrays, module)
        self.classes = Counter(
            type(one).__name__ for one in module.modules() if not list(one.children())
        )
        self.input = self._entry.input
        self.notes: tuple[str, ...] = (
            f"the graph is that of {self._entry.name}: the file has none",
        )
        earlier = UNTIL_1_0.get(self._entry.name)
        if earlier and not any("." in name for name in stored.arrays):
            self.notes += (
                "no array shows where this network halves images; a file of MXNet 1.0 or before "
                f"is another one: --architecture {earlier}",
            )

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
            SpecError: There are several shapes, or it is none of images, or they are not square and
                the architecture averages whole maps.
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
        module = self._module(shape[-1])
        if isinstance(module, GluonNetwork) and module.sized and shape[-2] != shape[-1]:
            raise SpecError(
                f"{self.name}: images of {shape[-2]} x {shape[-1]}, expected square ones: "
                f"{self._entry.name} lends its graph for those"
            )
        return trace(module, [shape]).graph

    def _module(self, size: int) -> Lender:
        """Return the class without numbers, for images of that size."""
        try:
            with torch.device("meta"):
                module = self._entry.create(**self._arguments)
                if isinstance(module, GluonNetwork) and module.sized:
                    module = self._entry.create(**self._arguments, size=size)
        except ValueError as error:  # too few channels to be divided
            raise SpecError(f"{self.name}: as {self._entry.name}: {error}") from error
        if not isinstance(module, Lender):
            raise SpecError(
                f"--architecture {self._entry.name}: MXNet has no names for its tensors; it has "
                "for resnet_v2_50 and its other depths, and for those that begin with gluon_"
            )
        return module.eval()

    def _found(self, arrays: Mapping[str, Array]) -> Arguments:
        """Read the number of classes and the widths off the arrays."""
        whole = self._module(self._entry.size)
        for name, array in arrays.items():
            check_floats(self.name, name, array)
        names = _names(whole, arrays)
        widths = [f"{layer}.weight" for layer in _width_layers(whole)]
        head = [key for key in names if key.endswith("weight")][-1]
        wanted = [*widths, head]
        shapes = {names[key]: arrays[names[key]].shape for key in wanted if names[key] in arrays}
        misshapen = [
            f"{name} is {shape}, expected a width first"
            for name, shape in shapes.items()
            if 0 in (shape or (0,))
        ]
        if misshapen or len(shapes) < len(wanted):
            self._check(arrays, names, misshapen)
        *outputs, classes = (int(shapes[names[key]][0]) for key in wanted)
        return {"num_classes": classes} | ({"widths": tuple(outputs)} if outputs else {})

    def _matched(self, arrays: Mapping[str, Array], module: Lender) -> dict[str, Array]:
        """Return the arrays under the class's names; every name and shape has to match."""
        names = _names(module, arrays)
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


def _width_layers(module: Lender) -> list[str]:
    """Return our names of the layers whose outputs are the widths that the class takes."""
    if isinstance(module, GluonNetwork):
        return module.width_layers()
    count = len(module.stages)
    return ["stem.conv0", *(f"stages.{stage}.0.shortcut" for stage in range(count))]


def _names(module: Lender, arrays: Mapping[str, Array]) -> dict[str, str]:
    """Return what the file calls each tensor of a module."""
    layers = _layers(module, arrays)
    moving = _SYMBOLIC if isinstance(module, ResNetV2) else {}
    found = {}
    for key in module.state_dict():
        layer, _, tensor = key.rpartition(".")
        if tensor == "num_batches_tracked":
            continue
        norm = isinstance(module.get_submodule(layer), nn.BatchNorm2d)
        word = {**_NORM, **moving}.get(tensor, tensor) if norm else tensor
        found[key] = f"{layers[layer]}{word}"
    return found


def _layers(module: Lender, arrays: Mapping[str, Array]) -> dict[str, str]:
    """Return what stands before a tensor's word in the file, by our name of its layer.

    Source: gluon/block.py `load_parameters`: structural names have a dot, those before them none.
    The network's own prefix is cut off by `save_params`, but not by what else writes arrays.
    """
    owners = [key.rpartition(".")[0] for key in module.state_dict()]
    if isinstance(module, ResNetV2):
        return {layer: f"{_symbolic(layer)}_" for layer in owners}
    if any("." in name for name in arrays):
        return {layer: f"{layer}." for layer in owners}
    counted = module.counted_names()
    last = f"{[*counted.values()][-1]}_weight"
    prefixes = [name.removesuffix(last) for name in arrays if name.endswith(last)]
    prefix = min(prefixes, key=len, default="")
    return {layer: f"{prefix}{name}_" for layer, name in counted.items()}


def _symbolic(layer: str) -> str:
    """`stages.0.1.branch.conv2` is `stage1_unit2_conv2` in tornadomeet/ResNet symbol_resnet.py."""
    first, *rest = layer.split(".")
    if first == "stages":
        stage, unit = int(rest[0]) + 1, int(rest[1]) + 1
        return f"stage{stage}_unit{unit}_{'sc' if rest[-1] == 'shortcut' else rest[-1]}"
    return {"classifier": "fc1"}.get(first, (rest or [first])[-1])
