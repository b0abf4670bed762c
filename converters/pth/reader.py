"""PyTorch's own files: what `torch.save` wrote, as a zip or in the form before it, and safetensors.

Only tensors and plain containers are unpickled (`weights_only=True`): a file that needs more than
that, a whole pickled module for one, is refused and never run.
"""

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.checkpoint import DAMAGE, check_sums
from models.errors import FormatError, SpecError, some
from models.graph import Array

# Where training programs keep weights: Lornatang's and timm's names first.
AVERAGED = ("ema_state_dict", "state_dict_ema", "model_ema")
RAW = ("state_dict", "model_state_dict", "model", "net")

EXPECTED = "a PyTorch checkpoint: a zip or pickle of torch.save, or safetensors"
_WRAPPER = "module."  # what DataParallel and AveragedModel put before every name
_COUNTS = ("n_averaged", "num_batches_tracked")


class Stored(NamedTuple):
    """The weights of a file, by the names that it has for them.

    Attributes:
        format: `pytorch-zip`, `pytorch-pickle` or `safetensors`.
        tensors: Parameters and running statistics; counts of batches are left out.
        note: Which weights these are, where the file has several.
    """

    format: str
    tensors: dict[str, Array]
    note: str | None


def read(path: Path, name: Path, *, raw: bool) -> Stored:
    """Return the weights of the file at `path`, which errors call `name`.

    Of a training program's averaged weights and its raw ones the averaged are taken; with `raw`
    the others.

    Raises:
        FormatError: The file is none of these, is damaged, or holds something else than weights.
        SpecError: `raw` is asked of a file that has one set of weights.
    """
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] == b"{":
        form, content = "safetensors", _safetensors(path, name)
    else:
        form = "pytorch-zip" if head.startswith(b"PK") else "pytorch-pickle"
        content = _unpickled(path, name, mapped=form == "pytorch-zip")
    weights, note = _weights(content, name, raw=raw)
    return Stored(form, _arrays(weights, name), note)


def _safetensors(path: Path, name: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") == "relume":
                raise _artifact(name)
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise FormatError(name, 0, found=f"damaged data ({error})", expected=EXPECTED) from error


def _unpickled(path: Path, name: Path, *, mapped: bool) -> Any:
    try:
        if mapped:
            with path.open("rb") as file:
                check_sums(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are none
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:  # torch's own message advises to load such a file unsafely
        raise FormatError(
            name,
            0,
            found="Python objects, or damaged data",
            expected="tensors alone: torch.save(model.state_dict(), FILE) writes such a file, "
            "where the program that pickled the whole model still runs",
        ) from error
    except (*DAMAGE, struct.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = "a zip archive that is damaged, or not PyTorch's" if mapped else "other data"
        raise FormatError(name, 0, found=f"{what} ({reason})", expected=EXPECTED) from error


def _weights(content: Any, name: Path, *, raw: bool) -> tuple[Mapping[str, Any], str | None]:
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise FormatError(name, "the file", found=f"a {kind}", expected="a state dictionary")
    if content.get("format") == "relume":
        raise _artifact(name)
    there = [key for key in (*AVERAGED, *RAW) if isinstance(content.get(key), Mapping)]
    averaged = next((key for key in there if key in AVERAGED), None)
    plain = next((key for key in there if key in RAW), None)
    if raw and not (averaged and plain):
        raise SpecError(f"--raw: {name} has one set of weights")
    if raw or not averaged:
        note = f"the raw weights, {plain}, not the averaged {averaged}" if raw else None
        return (content[plain] if plain else content), note
    note = f"the averaged weights, {averaged}" + (f"; --raw takes {plain}" if plain else "")
    return content[averaged], note


def _arrays(weights: Mapping[Any, Any], name: Path) -> dict[str, Array]:
    wrapped = [str(key).startswith(_WRAPPER) for key in weights if key not in _COUNTS]
    cut = len(_WRAPPER) if wrapped and all(wrapped) else 0
    found, odd = {}, []
    for key, value in weights.items():
        short = str(key)[cut:] if str(key).startswith(_WRAPPER) else str(key)
        if short.rpartition(".")[2] in _COUNTS:
            continue
        if isinstance(value, Tensor) and _is_plain(value):
            found[short] = value.detach().float().numpy()
        else:
            odd.append(f"{key} ({_described(value)})")
    if odd or not found:
        raise FormatError(
            name,
            "the state dictionary",
            found=some(odd) or "nothing",
            expected="tensors of numbers",
        )
    return found


def _is_plain(value: Tensor) -> bool:
    """Tell whether a tensor's numbers are all in the file: a view may claim any size."""
    return (
        value.layout == torch.strided
        and value.is_floating_point()
        and not value.is_meta
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}, {value.layout}"
    return type(value).__name__


def _artifact(name: Path) -> FormatError:
    return FormatError(
        name,
        "the file",
        found="an artifact of relume",
        expected="a checkpoint of another program; pt_to_onnx.py takes it",
    )
