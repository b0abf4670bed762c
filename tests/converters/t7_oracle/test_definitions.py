"""Definitions, and settings of them, that no fixture has: held against torch or plain formulas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere

from converters.t7 import reader
from converters.t7_oracle import run
from tests.t7_writer import Module, Sizes, write

ATOL = 1e-12  # both in float64, numbers near 1, sums of up to 100 terms

Array = npt.NDArray[np.float64]
RANDOM = np.random.default_rng(7)
ROWS, OTHER = RANDOM.normal(size=(2, 6)), RANDOM.normal(size=(2, 6))
IMAGE = RANDOM.normal(size=(2, 4, 7, 6))
SQUARE = RANDOM.normal(size=(2, 3, 5, 5))
WEIGHT_OF_PLANES, BIAS = RANDOM.normal(size=(1, 4, 1, 1)), RANDOM.normal(size=6)


def t(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))


def outputs(tmp_path: Path, module: Module, *inputs: Any) -> list[Array]:
    path = write(tmp_path / "made.t7", module)
    return list(run(reader.read(path), inputs, path)[-1].outputs)


def box(name: str, *modules: Module, **fields: Any) -> Module:
    return Module(name, modules=list(modules), **fields)


CASES: dict[str, tuple[Module, tuple[Any, ...], Callable[[], Any]]] = {
    "affine": (
        Module("inn.ConstAffine", a=BIAS, b=BIAS[::-1].copy()),
        (ROWS,),
        lambda: t(BIAS * ROWS + BIAS[::-1]),
    ),
    "threshold: NaN": (
        Module("nn.Threshold", threshold=0, val=5), (np.array([np.nan, 1]),), lambda: t([5.0, 1.0]),
    ),
    "threshold: NaN in place": (
        Module("nn.Threshold", threshold=0, val=0, inplace=True),
        (np.array([np.nan, -1.0]),),
        lambda: t([np.nan, 0.0]),
    ),
    "hard tanh: NaN": (Module("nn.HardTanh"), (np.array([np.nan, -3]),), lambda: t([1.0, -1.0])),
    "hard tanh: NaN in place": (
        Module("nn.HardTanh", inplace=True), (np.array([np.nan, 3]),), lambda: t([np.nan, 1.0]),
    ),
    "plus a vector": (
        Module("nn.AddConstant", constant_scalar=BIAS), (ROWS,), lambda: t(ROWS + BIAS),
    ),
    "plus a bias of the same shape": (
        Module("nn.Add", bias=OTHER), (ROWS,), lambda: t(ROWS + OTHER),
    ),
    "times a weight of every plane": (
        Module("nn.CMul", weight=WEIGHT_OF_PLANES), (IMAGE,), lambda: t(IMAGE * WEIGHT_OF_PLANES),
    ),
    "times a weight of every element": (
        Module("nn.CMul", weight=OTHER.ravel()), (ROWS,), lambda: t(ROWS * OTHER),
    ),
    "plus a weight of all but the batch": (
        Module("nn.CAdd", bias=IMAGE[0]), (IMAGE,), lambda: t(IMAGE + IMAGE[0]),
    ),
    "collapse": (Module("nn.Collapse", nInputDim=3), (IMAGE,), lambda: t(IMAGE).flatten(1)),
    "collapse of one": (
        Module("nn.Collapse", nInputDim=3), (IMAGE[0],), lambda: t(IMAGE[0].ravel()),
    ),
    "reshape of a repeated tensor": (
        box("nn.Sequential", Module("nn.Replicate", nfeatures=2, dim=2),
            Module("nn.Reshape", size=Sizes(12))),
        (ROWS,),
        lambda: t(np.hstack([ROWS, ROWS])),
    ),
    "narrow from the end": (
        Module("nn.Narrow", dimension=-1, index=-1, length=2), (ROWS,), lambda: t(ROWS[:, :4]),
    ),
    "squeeze keeps a batch of one": (
        Module("nn.Squeeze", numInputDims=3), (IMAGE[:1, :1],), lambda: t(IMAGE[:1, 0]),
    ),
    "squeeze leaves a dimension": (Module("nn.Squeeze"), (np.ones((1, 1)),), lambda: t([1.0])),
    "up-sampling: nearest": (
        Module("nn.UpSampling", mode="nearest", scale_factor=2),
        (IMAGE,),
        lambda: F.interpolate(t(IMAGE), scale_factor=2),
    ),
    "up-sampling: linear": (
        Module("nn.UpSampling", mode="linear", scale_factor=3),
        (SQUARE[..., ::2],),
        # places are float32 in Torch7: 2 / 8 and 4 / 14 of a pixel, and the like
        lambda: F.interpolate(
            t(SQUARE[..., ::2]), scale_factor=3, mode="bilinear", align_corners=True
        ),
    ),
    "up-sampling: across only": (
        Module("nn.SpatialUpSamplingBilinear", oheight=7, owidth=11),
        (IMAGE,),
        lambda: F.interpolate(t(IMAGE), (7, 11), mode="bilinear", align_corners=True),
    ),
    "a copy without gaps": (
        box("nn.Sequential", Module("nn.Replicate", nfeatures=2), Module("nn.Contiguous"),
            Module("nn.View", size=Sizes(-1))),
        (ROWS,),
        lambda: t(np.concatenate([ROWS, ROWS]).ravel()),
    ),
    "sum keeps its dimension": (
        Module("nn.Sum", dimension=2, squeeze=False), (ROWS,), lambda: t(ROWS).sum(1, keepdim=True),
    ),
    "mean of an old file": (Module("nn.Mean", dimension=1), (ROWS,), lambda: t(ROWS.mean(0))),
    "largest of a vector": (Module("nn.Max", dimension=1), (BIAS,), lambda: t([BIAS.max()])),
    "passed on": (
        box("nn.Sequential", Module("nn.ZeroGrad"), Module("nn.L1Penalty"),
            box("nn.Decorator", Module("nn.Identity"))),
        (ROWS,),
        lambda: t(ROWS),
    ),
    "product of matrices": (
        Module("nn.MM", transB=True), (ROWS, OTHER), lambda: t(ROWS) @ t(OTHER).T,
    ),
    "product of batches": (
        Module("nn.MM", transA=True),
        (SQUARE[0], SQUARE[1]),
        lambda: t(SQUARE[0]).mT @ t(SQUARE[1]),
    ),
    "mixture of one tensor": (
        Module("nn.MixtureTable", dim=2),
        (ROWS[:, :4], IMAGE),
        lambda: torch.einsum("bp,bpyx->byx", t(ROWS[:, :4]), t(IMAGE)),
    ),
    "mixture of one example": (
        Module("nn.MixtureTable"), (BIAS[:4], IMAGE[0]),
        lambda: torch.einsum("p,pyx->yx", t(BIAS[:4]), t(IMAGE[0])),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_definition_gives_what_its_formula_says(tmp_path: Path, case: str) -> None:
    """Classes and settings without a fixture give what torch, or the formula, gives."""
    module, inputs, formula = CASES[case]
    (ours,) = outputs(tmp_path, module, *inputs)
    expected = np.asarray(formula())
    assert ours.shape == expected.shape
    tolerance = 1e-6 if case == "up-sampling: linear" else ATOL
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)


def branches(*modules: Module) -> Module:
    return box("nn.ConcatTable", *modules)


SAME, SECOND = Module("nn.Identity"), Module("nn.SelectTable", index=2)
TABLES: dict[str, tuple[Module, tuple[Any, ...], list[Array]]] = {
    "added to all": (
        box("nn.Sequential",
            branches(Module("nn.SelectTable", index=1), branches(SECOND, SECOND)),
            Module("nn.CAddTensorTable")),
        (ROWS, OTHER),
        [ROWS + OTHER] * 2,
    ),
    "zipped": (
        box("nn.Sequential", branches(SAME, SAME), Module("nn.ZipTable")),
        (ROWS, OTHER),
        [ROWS, ROWS, OTHER, OTHER],
    ),
    "one to many": (
        box("nn.Sequential", branches(Module("nn.SelectTable", index=1), SAME),
            Module("nn.ZipTableOneToMany")),
        (ROWS, OTHER),
        [ROWS, ROWS, ROWS, OTHER],
    ),
    "a penalty passes tables": (Module("nn.L1Penalty"), (ROWS, OTHER), [ROWS, OTHER]),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_has_what_its_definition_says(tmp_path: Path, case: str) -> None:
    """Modules that build tables put the right tensors in the right order."""
    module, inputs, expected = TABLES[case]
    for ours, theirs in zip(outputs(tmp_path, module, *inputs), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
