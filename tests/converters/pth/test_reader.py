"""PyTorch files of every form and layout are read; nothing in them is ever run."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from converters.pth.reader import read
from models.errors import FormatError, SpecError

ONES = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}
ZEROS = {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)}


def as_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def as_pickle(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("write", "form"),
    [
        (as_zip, "pytorch-zip"),
        (as_pickle, "pytorch-pickle"),
        (safetensors.torch.save_file, "safetensors"),
    ],
)
def test_three_forms_hold_the_same(
    tmp_path: Path, write: Callable[[Any, Path], None], form: str
) -> None:
    """The zip of today, the pickle of 2016 to 2020, and safetensors."""
    write(ONES, tmp_path / "x")
    stored = read(tmp_path / "x", tmp_path / "x", raw=False)
    assert (stored.format, stored.note) == (form, None)
    assert stored.tensors.keys() == ONES.keys()
    np.testing.assert_array_equal(stored.tensors["fc.weight"], ONES["fc.weight"].numpy())


LAYOUTS: dict[str, tuple[Any, bool, float, str | None]] = {
    "bare": (ONES, False, 1, None),
    "ordered": (OrderedDict(ONES), False, 1, None),
    "training, averaged": (
        {"epoch": 9, "state_dict": ZEROS, "ema_state_dict": ONES, "optimizer": {}},
        False,
        1,
        "the averaged weights, ema_state_dict; --raw takes state_dict",
    ),
    "training, raw": (
        {"epoch": 9, "state_dict": ZEROS, "ema_state_dict": ONES},
        True,
        0,
        "the raw weights, state_dict, not the averaged ema_state_dict",
    ),
    "timm's": (
        {"state_dict": ZEROS, "state_dict_ema": ONES},
        False,
        1,
        "the averaged weights, state_dict_ema; --raw takes state_dict",
    ),
    "averaged only": ({"model_ema": ONES}, False, 1, "the averaged weights, model_ema"),
    "training without an average": ({"model": ONES, "epoch": 3}, False, 1, None),
    "DataParallel": ({f"module.{key}": one for key, one in ONES.items()}, False, 1, None),
    "AveragedModel": (
        {"n_averaged": torch.tensor(3), **{f"module.{key}": one for key, one in ONES.items()}},
        False,
        1,
        None,
    ),
    "batches counted": ({**ONES, "bn.num_batches_tracked": torch.tensor(5)}, False, 1, None),
    "double": ({key: one.double() for key, one in ONES.items()}, False, 1, None),
    "half": ({key: one.half() for key, one in ONES.items()}, False, 1, None),
    "bfloat16": ({key: one.bfloat16() for key, one in ONES.items()}, False, 1, None),
    "parameters": ({key: nn.Parameter(one) for key, one in ONES.items()}, False, 1, None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_time_are_understood(tmp_path: Path, layout: str) -> None:
    """The weights that count are found, and it is said which these are."""
    content, raw, value, note = LAYOUTS[layout]
    as_zip(content, tmp_path / "x.pth")
    stored = read(tmp_path / "x.pth", tmp_path / "x.pth", raw=raw)
    assert stored.tensors.keys() == ONES.keys()
    assert all((array == value).all() for array in stored.tensors.values())
    assert {array.dtype for array in stored.tensors.values()} == {np.dtype("f4")}
    assert stored.note == note


def test_raw_is_refused_where_there_is_nothing_else(tmp_path: Path) -> None:
    """Somebody who asks for raw weights should not get the only ones and think them raw."""
    as_zip({"state_dict": ONES}, tmp_path / "x.pth")
    with pytest.raises(SpecError, match=r"^--raw: .*x\.pth has one set of weights"):
        read(tmp_path / "x.pth", tmp_path / "x.pth", raw=True)


REFUSED: dict[str, tuple[Any, str]] = {
    "a pickled model": (nn.Linear(2, 3), "found Python objects, or damaged data, expected tensors"),
    "a list": ([torch.ones(2)], "the file: found a list, expected a state dictionary"),
    "no tensors": ({"epoch": 3}, r"found epoch \(int\), expected tensors of numbers"),
    "nothing": ({}, "the state dictionary: found nothing, expected tensors"),
    "integers": ({"a": torch.ones(2, dtype=torch.int8)}, r"found a \(int8 \(2,\), torch.strided\)"),
    "sparse": ({"a": torch.eye(2).to_sparse()}, r"a \(float32 \(2, 2\), torch.sparse_coo\)"),
    "a view of one number as many": (
        {"a": torch.ones(1).expand(1 << 40)},
        r"found a \(float32 \(1099511627776,\)",
    ),
    "our own artifact": ({"format": "relume"}, "the file: found an artifact of relume, expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_content_is_refused(tmp_path: Path, case: str) -> None:
    """The message says what was found and what belongs there."""
    content, message = REFUSED[case]
    as_zip(content, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=rf"x\.pth: .*{message}"):
        read(tmp_path / "x.pth", tmp_path / "x.pth", raw=False)


def test_our_own_safetensors_is_refused(tmp_path: Path) -> None:
    """An artifact converts by pt_to_onnx.py."""
    safetensors.torch.save_file(ONES, tmp_path / "x", {"format": "relume"})
    with pytest.raises(FormatError, match=r"found an artifact of relume, .* pt_to_onnx\.py"):
        read(tmp_path / "x", tmp_path / "x", raw=False)


@pytest.mark.parametrize("write", [as_zip, as_pickle, safetensors.torch.save_file])
def test_damaged_files_are_errors(tmp_path: Path, write: Callable[[Any, Path], None]) -> None:
    """Wherever a file is cut, and whichever byte of its head changes: our error, or its content."""
    write(ONES, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / "x.pth"
    damaged = [whole[:at] for at in range(0, len(whole), max(1, len(whole) // 60))]
    for at in range(0, min(len(whole), 400), 7):
        damaged.append(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            read(path, path, raw=False)
        except FormatError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017  some changes harm nothing
            refused += 1
    assert refused > 60


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A picture, a text, nothing at all."""
    for data in (b"\x89PNG\r\n\x1a\n" + bytes(50), b"hello, this is text\n", b""):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(FormatError, match=r"x: byte 0: found .*, expected"):
            read(tmp_path / "x", tmp_path / "x", raw=False)
