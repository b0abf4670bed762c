"""What training scripts left: `latest.t7`, which names a model and an optimizer's state.

Source: facebook/fb.resnet.torch checkpoints.lua and train.lua, torch/optim sgd.lua.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from converters.formats import SGD
from converters.t7 import reader
from converters.t7.module import Ledger, Module, modules
from converters.t7.objects import LuaTable, Tensor, TorchObject
from models.errors import FormatError, SpecError
from models.graph import Array

LATEST = "latest.t7"
_NUMBERED = re.compile(r"model_(\d+)\.t7")


class Located(NamedTuple):
    """The file that holds a model, and what was saved beside it."""

    model: Path
    optimizer: Path | None = None
    epoch: int | None = None


def locate(path: Path) -> Located:
    """Return the model that a folder of checkpoints, or its `latest.t7`, points to.

    Any other file is the model itself; the state beside `model_5.t7` is `optimState_5.t7`.

    Raises:
        SpecError: The folder has neither `latest.t7` nor one model alone.
        FormatError: `latest.t7` names a model that is not beside it, or is damaged.
    """
    if path.is_dir():
        path = _of_folder(path)
    named = _pointer(path)
    if named is not None:
        return named
    numbered = _NUMBERED.fullmatch(path.name)
    if numbered is None:
        return Located(path)
    state = path.with_name(f"optimState_{numbered[1]}.t7")
    return Located(path, state if state.is_file() else None, int(numbered[1]))


def _of_folder(folder: Path) -> Path:
    if (folder / LATEST).is_file():
        return folder / LATEST
    found = sorted(one for one in folder.glob("*.t7") if not one.name.startswith("optimState"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.name for one in found[:5]) or "no .t7 or .params file"
    raise SpecError(f"{folder}: a folder with {names}; expected {LATEST}, or one model alone")


def _pointer(path: Path) -> Located | None:
    """Return where a `latest.t7` points; None for a file that is none."""
    if path.name != LATEST or not path.is_file():
        return None  # scripts write no other; a model is read once, by whoever asked for it
    root = reader.read(path)
    if not isinstance(root, LuaTable) or not isinstance(name := root.get("modelFile"), str):
        return None
    model = _beside(path, name)
    if model is None:
        raise FormatError(path, 0, found=f"the name {name[:80]!r}", expected="a file beside it")
    epoch = root.get("epoch")
    return Located(
        model,
        _beside(path, root.get("optimFile")),
        int(epoch) if isinstance(epoch, float) and epoch.is_integer() else None,
    )


def _beside(path: Path, name: Any) -> Path | None:
    """Return the file of that name beside `path`; None where there is none, or `name` is none."""
    # The folder may have moved since: only the name counts.
    with contextlib.suppress(OSError, ValueError):  # what is too long, or no name at all
        found = path.with_name(Path(name).name) if isinstance(name, str) else path
        if found.is_file() and found != path:
            return found
    return None


def read_sgd(path: Path, root: TorchObject) -> SGD:
    """Return the state of the optimizer that trained the network `root`.

    Its momentum is one vector, `dfdx`, in the order of `getParameters`.

    Raises:
        FormatError: The file is no state of SGD with momentum, or is another network's.
    """
    state = reader.read(path)
    if not isinstance(state, LuaTable) or not isinstance(state.get("dfdx"), Tensor):
        raise FormatError(
            path, 0, found=reader.kind(state), expected="the state of optim.sgd: a table with dfdx"
        )
    vector = state["dfdx"].array().reshape(-1)
    if vector.dtype.kind != "f":
        raise FormatError(path, 0, found=f"dfdx of {vector.dtype}", expected="floats")

    settings = _settings(path, state)
    return SGD(*settings, _distributed(path, vector, root))


def _settings(path: Path, state: LuaTable) -> tuple[float, float, float, float, bool, int]:
    """Return the fields of an SGD but the buffers, by the names and defaults of `optim.sgd`."""

    def number(field: str, default: float = 0.0) -> float:
        value = state.get(field, default)
        if not isinstance(value, float) or not math.isfinite(value) or value < 0:
            found = f"{value:g}" if isinstance(value, float) else reader.kind(value)
            raise FormatError(path, field, found=found, expected="a number of 0 or more")
        return value

    for field in ("learningRates", "weightDecays"):
        if state.get(field) is not None:
            raise FormatError(path, field, found="one for each parameter", expected="one for all")
    momentum, nesterov = number("momentum"), bool(state.get("nesterov"))
    dampening = number("dampening", momentum)
    if nesterov and (momentum == 0 or dampening != 0):
        found = f"momentum {momentum:g} and dampening {dampening:g}"
        raise FormatError(path, "nesterov", found=found, expected="momentum, and no dampening")
    updates, decay = int(number("evalCounter")), number("learningRateDecay")
    rate = number("learningRate", 1e-3) / (1 + updates * decay)
    return rate, momentum, dampening, number("weightDecay"), nesterov, updates


def _distributed(path: Path, vector: Array, root: TorchObject) -> dict[int, Array]:
    """Return the part of a flat vector that belongs to every parameter.

    `getParameters` lays storages one after the other in the order in which parameters come upon
    them, and leaves out what no parameter covers (`nn/Module.lua`, `Module.flatten`).
    """
    tensors = [one for one in _parameters(path, root) if one.size]
    starts: dict[int, int] = {}
    total = 0
    for tensor in tensors:
        if id(tensor.storage) not in starts:
            starts[id(tensor.storage)] = total
            total += tensor.storage.size if tensor.storage is not None else 0
    used = np.zeros(total, bool)
    places = [starts[id(tensor.storage)] + tensor.offset for tensor in tensors]
    for tensor, place in zip(tensors, places, strict=True):
        tensor.array()  # checks that it lies in its storage
        _strided(used, place, tensor)[...] = True
    if int(used.sum()) != vector.size:
        raise FormatError(
            path,
            "dfdx",
            found=f"{vector.size:,} numbers",
            expected=f"{int(used.sum()):,}: as many as the network has parameters",
        )
    spread = np.zeros(total, vector.dtype)
    spread[used] = vector
    return {
        id(tensor): _strided(spread, place, tensor)
        for tensor, place in zip(tensors, places, strict=True)
    }


def _strided(flat: Array, place: int, tensor: Tensor) -> Array:
    width = flat.itemsize
    strides = [step * width for step in tensor.strides]
    return np.ndarray(tensor.shape, flat.dtype, flat, place * width, strides)


# Learned numbers of nn.WeightNorm, nn.LinearWeightNorm and inn.ConstAffine: what is learned is not
# what the converted network has, or is not in `parameters()`.
_OTHERS = ("g", "v", "a", "b")


def _parameters(path: Path, root: TorchObject) -> Iterator[Tensor]:
    """Yield weights and biases in the order of `parameters()` (`nn/Module.lua`)."""
    for module in modules(Module(root, "", Ledger(path))):
        fields = module.source.fields
        if any(isinstance(fields.get(field), Tensor) for field in _OTHERS):
            raise FormatError(
                path,
                "dfdx",
                found=f"the momentum of {module.source.class_name}",
                expected="that of weights and biases",
            )
        for field in ("weight", "bias"):
            if isinstance(value := fields.get(field), Tensor):
                yield value
