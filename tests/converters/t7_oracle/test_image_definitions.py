"""Layers of images, and settings of them, that no fixture has: held against torch."""

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
WINDOW: dict[str, Any] = {"kW": 3, "kH": 2, "dW": 2, "dH": 1, "padW": 1, "padH": 0}


def some(*shape: int) -> Array:
    return RANDOM.normal(size=shape)


def t(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))


def outputs(tmp_path: Path, module: Module, *inputs: Any) -> list[Array]:
    path = write(tmp_path / "made.t7", module)
    return list(run(reader.read(path), inputs, path)[-1].outputs)


def box(name: str, *modules: Module, **fields: Any) -> Module:
    return Module(name, modules=list(modules), **fields)


WEIGHT, BIAS = some(6, 4, 2, 3), some(6)
V, G = some(5, 6), some(5, 1)
DEPTHWISE = some(2, 4)
PAIRS = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
MAPS = some(5, 2, 3)
STATISTICS = {"running_mean": some(4), "running_var": some(4) ** 2, "eps": 1e-3}


def by_pairs() -> Any:
    dense = np.zeros((2, 4, 2, 3))
    for (source, target), kernel in zip(PAIRS.astype(int) - 1, MAPS, strict=True):
        dense[target, source] += kernel
    return F.conv2d(t(IMAGE), t(dense), t(BIAS[:2]), stride=(1, 2))


def mean_around(image: Any, kernel: Any) -> Any:
    planes = image.shape[1]
    weight = t(kernel).expand(1, planes, *kernel.shape)
    padding = (kernel.shape[0] // 2, kernel.shape[1] // 2)
    inside = F.conv2d(torch.ones_like(image), weight, padding=padding)
    return F.conv2d(image, weight, padding=padding) / inside, inside


KERNEL = np.outer([1.0, 2.0, 1.0], [1.0, 3.0, 1.0])
KERNEL /= KERNEL.sum() * 3
BORDER = {"pad_l": 1, "pad_r": 1, "pad_t": 1, "pad_b": 1}


def around(*first: Module) -> Module:
    """Return the estimator that nn's normalisations of a neighbourhood build."""
    weight = np.broadcast_to(KERNEL, (1, 3, 3, 3)).copy()
    fields = {"kW": 3, "kH": 3, "dW": 1, "dH": 1, "nInputPlane": 3, "nOutputPlane": 1}
    averaging = Module("nn.SpatialConvolution", weight=weight, bias=np.zeros(1), **fields)
    spread = Module("nn.Replicate", nfeatures=3, dim=1, ndim=3)
    return box(
        "nn.Sequential", *first, Module("nn.SpatialZeroPadding", **BORDER), averaging, spread
    )


SUBTRACTIVE = Module("nn.SpatialSubtractiveNormalization", meanestimator=around())
ESTIMATORS: dict[str, Any] = {
    "meanestimator": around(),
    "stdestimator": box("nn.Sequential", *around(Module("nn.Square")).fields["modules"]),
    "thresholder": Module("nn.Threshold", threshold=0.4, val=0.7),
}
ESTIMATORS["stdestimator"].fields["modules"].append(Module("nn.Sqrt"))
DIVISIVE = Module("nn.SpatialDivisiveNormalization", **ESTIMATORS)


def divided(image: Any) -> Any:
    squares, inside = mean_around(image**2, KERNEL)
    deviation = (squares * inside).sqrt() / inside
    return image / torch.where(deviation > 0.4, deviation, 0.7)


CONTRASTIVE = Module(
    "nn.SpatialContrastiveNormalization", normalizer=box("nn.Sequential", SUBTRACTIVE, DIVISIVE)
)
CRELU = box(
    "nn.CReLU",
    box("nn.ConcatTable", Module("nn.Identity"), Module("nn.MulConstant", constant_scalar=-1)),
    Module("nn.JoinTable", dimension=2),
    Module("nn.ReLU", threshold=0, val=0),
    nInputDims=3,
)
EVEN = np.arange(6.0).reshape(1, 1, 2, 3)


def like(**fields: Any) -> Module:
    given = {**WINDOW, "nInputPlane": 4, "nOutputPlane": 6}
    weight = np.moveaxis(WEIGHT, 0, 1).copy()
    return Module("nn.SpatialFullConvolution", weight=weight, bias=BIAS, **given, **fields)


def transposed(*adjustment: int) -> Any:
    weight = t(np.moveaxis(WEIGHT, 0, 1).copy())
    return F.conv_transpose2d(t(IMAGE), weight, t(BIAS), (1, 2), (0, 1), adjustment)


def conv(name: str, **fields: Any) -> Module:
    return Module(name, weight=WEIGHT, bias=BIAS, **{**WINDOW, **fields})


CASES: dict[str, tuple[Module, tuple[Any, ...], Callable[[], Any]]] = {
    "conv: one padding for both sides goes first": (
        conv("nn.SpatialConvolution", padding=2),
        (IMAGE,),
        lambda: F.conv2d(t(IMAGE), t(WEIGHT), t(BIAS), (1, 2), (2, 2)),
    ),
    "cudnn conv: that field means nothing": (
        conv("cudnn.SpatialConvolution", padding=2, nInputPlane=4, nOutputPlane=6),
        (IMAGE,),
        lambda: F.conv2d(t(IMAGE), t(WEIGHT), t(BIAS), (1, 2), (0, 1)),
    ),
    "depthwise conv: not square, two filters": (
        Module("nn.SpatialDepthWiseConvolution", weight=WEIGHT[:2], bias=DEPTHWISE, **WINDOW),
        (IMAGE,),
        lambda: F.conv2d(
            t(IMAGE), t(np.moveaxis(WEIGHT[:2], 0, 1).reshape(8, 1, 2, 3)), t(DEPTHWISE.T.ravel()),
            (1, 2), (0, 1), groups=4,
        ),
    ),
    "full conv: adj": (like(adjW=1), (IMAGE,), lambda: transposed(0, 1)),
    "full conv: as large as another": (
        like(), (IMAGE, np.zeros((8, 12))), lambda: transposed(0, 1),
    ),
    "conv map": (
        Module("nn.SpatialConvolutionMap", connTable=PAIRS, weight=MAPS, bias=BIAS[:2],
               nOutputPlane=2, dW=2, dH=1),
        (IMAGE,),
        by_pairs,
    ),
    "sub sampling": (
        Module("nn.SpatialSubSampling", weight=BIAS[:4], bias=BIAS[2:], kW=2, kH=3, dW=2, dH=1),
        (IMAGE,),
        lambda: F.avg_pool2d(t(IMAGE), (3, 2), (1, 2)) * 6 * t(BIAS[:4]).view(4, 1, 1)
        + t(BIAS[2:]).view(4, 1, 1),
    ),
    "linear weight norm": (
        Module("nn.LinearWeightNorm", v=V, g=G, bias=BIAS[:5], train=True, eps=1e-16),
        (ROWS,),
        lambda: F.linear(t(ROWS), t(V * G / np.linalg.norm(V, axis=1)[:, None]), t(BIAS[:5])),
    ),
    "linear weight norm: stored weight": (
        Module("nn.LinearWeightNorm", weight=V, train=False),
        (ROWS,),
        lambda: F.linear(t(ROWS), t(V)),
    ),
    "weight norm: another output dimension": (
        box("nn.WeightNorm", Module("nn.SpatialFullConvolution", nInputPlane=4, nOutputPlane=5,
                                    kW=1, kH=1, dW=1, dH=1),
            v=V[:, :4].copy(), g=G, outputDim=2, viewOut=Sizes(5, 4, 1, 1)),
        (IMAGE,),
        lambda: F.conv_transpose2d(
            t(IMAGE),
            t((V[:, :4] * G / np.sqrt((V[:, :4] ** 2).sum(1) + 1e-4)[:, None]).T[..., None, None]),
        ),
    ),
    "weight norm: stored weight": (
        box("nn.WeightNorm", Module("nn.Linear", weight=V), weight=V, train=False),
        (ROWS,),
        lambda: F.linear(t(ROWS), t(V)),
    ),
    "batch norm: inverse deviation": (
        Module("nn.BatchNormalization", running_mean=BIAS, running_std=BIAS**2, eps=1, bias=BIAS),
        (ROWS,),
        lambda: t((ROWS - BIAS) * BIAS**2 + BIAS),
    ),
    "lrn: cudnn's old K": (
        Module("cudnn.SpatialCrossMapLRN", size=3, alpha=0.6, beta=0.75, K=2, k=1),
        (IMAGE,),
        lambda: F.local_response_norm(t(IMAGE), 3, 0.6, 0.75, 2),
    ),
    "normalize: largest": (
        Module("nn.Normalize", p=float("inf"), eps=0.5),
        (ROWS,),
        lambda: t(ROWS / (np.abs(ROWS).max(1, keepdims=True) + 0.5)),
    ),
    "normalize: odd p": (
        Module("nn.Normalize", p=3, eps=0),
        (ROWS,),
        lambda: F.normalize(t(ROWS), 3.0),
    ),
    "cudnn softmax of an image": (
        Module("cudnn.SoftMax"),
        (IMAGE,),
        lambda: F.softmax(t(IMAGE).flatten(1), 1).view(IMAGE.shape),
    ),
    "cudnn softmax: mode": (
        Module("cudnn.SpatialSoftMax", mode="CUDNN_SOFTMAX_MODE_INSTANCE"),
        (IMAGE[0],),
        lambda: F.softmax(t(IMAGE[0]).flatten(), 0).view(IMAGE[0].shape),
    ),
    "cudnn softmax: algorithm": (
        Module("cudnn.SpatialLogSoftMax", algorithm="CUDNN_SOFTMAX_LOG"),
        (IMAGE,),
        lambda: F.log_softmax(t(IMAGE), 1),
    ),
    "subtractive normalization": (
        SUBTRACTIVE, (SQUARE,), lambda: t(SQUARE) - mean_around(t(SQUARE), KERNEL)[0],
    ),
    "divisive normalization": (DIVISIVE, (SQUARE,), lambda: divided(t(SQUARE))),
    "contrastive normalization of one image": (
        CONTRASTIVE,
        (SQUARE[0],),
        lambda: divided(t(SQUARE[:1]) - mean_around(t(SQUARE[:1]), KERNEL)[0])[0],
    ),
    "max pooling: inn's rounds up": (
        Module("inn.SpatialMaxPooling", kW=3, kH=3, dW=2, dH=2),
        (IMAGE,),
        lambda: F.max_pool2d(t(IMAGE), 3, 2, ceil_mode=True),
    ),
    "max pooling: nothing is larger than NaN": (
        Module("nn.SpatialMaxPooling", kW=2, kH=1, dW=1, dH=1),
        (np.array([[[1.0, np.nan, np.nan]]]),),
        lambda: t([[[1.0, -np.inf]]]),
    ),
    "average pooling: cudnn counts all of a window": (
        Module("cudnn.SpatialAveragePooling", kW=2, kH=2, dW=2, dH=2, ceil_mode=True),
        (EVEN,),
        lambda: t([[[[2.0, 1.75]]]]),  # (2 + 5) / 4
    ),
    "crelu": (CRELU, (IMAGE,), lambda: torch.cat([t(IMAGE).relu(), (-t(IMAGE)).relu()], 1)),
    "crelu of one image": (
        CRELU, (IMAGE[0],), lambda: torch.cat([t(IMAGE[0]).relu(), (-t(IMAGE[0])).relu()]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_definition_gives_what_its_formula_says(tmp_path: Path, case: str) -> None:
    """Classes and settings without a fixture give what torch, or the formula, gives."""
    module, inputs, formula = CASES[case]
    (ours,) = outputs(tmp_path, module, *inputs)
    expected = np.asarray(formula())
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=ATOL)
