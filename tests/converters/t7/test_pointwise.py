"""Functions of each element, and probabilities, are what their definitions say."""

from typing import Any

import numpy as np
import pytest

from models.graph import Shape
from tests.t7_writer import Module
from tests.torch7 import box, check, check_refused, each, nn

MATRIX = (2, 3)
IMAGES = (2, 3, 4, 5)
# Classes that may change their input, and what they need besides.
IN_PLACE: dict[str, dict[str, Any]] = {
    "nn.ReLU": {"threshold": 0, "val": 0},
    "nn.Threshold": {"threshold": 0.5, "val": -1},
    "nn.ReLU6": {},
    "nn.HardTanh": {"min_val": -0.5, "max_val": 0.25},
    "nn.Clamp": {"min_val": -0.5, "max_val": 0.25},
    "nn.LeakyReLU": {"negval": 0.2},
    "nn.RReLU": {"lower": 0.1, "upper": 0.4},
    "nn.ELU": {"alpha": 0.7},
    "nn.MulConstant": {"constant_scalar": -3},
    "nn.AddConstant": {"constant_scalar": 0.5},
    "nn.Dropout": {"p": 0.25, "v2": True},
    "cudnn.ReLU": {},
    "cudnn.ClippedReLU": {"ceiling": 0.5},
    "cudnn.Sigmoid": {},
    "cudnn.Tanh": {},
}
# Classes that have no such setting: a field of that name means nothing to them.
NEVER_IN_PLACE: dict[str, dict[str, Any]] = {
    "Abs": {},
    "Exp": {},
    "LogSigmoid": {},
    "Sigmoid": {},
    "SoftSign": {},
    "Tanh": {},
    "TanhShrink": {},
    "SoftPlus": {"beta": 2, "threshold": 1},
    "HardShrink": {"lambda": 0.3},
    "SoftShrink": {"lambda": 0.3},
    "Square": {},
    "Power": {"pow": 3},
    "SpatialDropout": {"p": 0.25},
    "WhiteNoise": {"mean": 0.5},
    "SoftMax": {},
    "Identity": {},
}
POSITIVE = nn("Square")
CASES = {
    "hard-tanh-old": (nn("HardTanh"), MATRIX),
    "soft-plus-old": (nn("SoftPlus"), MATRIX),
    "threshold-not-zero": (nn("Threshold", threshold=0.5, val=0), MATRIX),
    "log": (box("Sequential", POSITIVE, nn("Log")), MATRIX),
    "sqrt": (box("Sequential", POSITIVE, nn("Sqrt", eps=1)), MATRIX),
    "root": (box("Sequential", POSITIVE, nn("Power", pow=0.25)), MATRIX),
    "inverse": (nn("Power", pow=-1), MATRIX),
    "white-noise-without-mean": (nn("WhiteNoise", mean=0), MATRIX),
    "dropout-first-version": (nn("Dropout", p=0.25), MATRIX),
    "dropout-first-version-inplace": (
        box("ConcatTable", nn("Identity"), nn("Dropout", p=0.25, inplace=True)),
        MATRIX,
    ),
    "soft-max-1": (nn("SoftMax"), (3,)),
    "soft-max-2": (nn("SoftMax"), MATRIX),
    "soft-max-3": (nn("SoftMax"), (2, 3, 4)),
    "soft-max-4": (nn("SoftMax"), IMAGES),
    "soft-min-3": (nn("SoftMin"), (2, 3, 4)),
    "log-soft-max-3": (nn("LogSoftMax"), (2, 3, 4)),
    "spatial-soft-max-3": (nn("SpatialSoftMax"), (2, 3, 4)),
    "spatial-log-soft-max": (nn("SpatialLogSoftMax"), IMAGES),
    "cudnn-spatial-soft-max": (Module("cudnn.SpatialSoftMax"), IMAGES),
    "cudnn-spatial-log-soft-max": (
        Module("cudnn.SpatialLogSoftMax", algorithm="CUDNN_SOFTMAX_LOG"),
        IMAGES,
    ),
    "cudnn-soft-max": (Module("cudnn.SoftMax"), MATRIX),
    "cudnn-soft-max-image": (Module("cudnn.SoftMax"), (2, 3, 4)),
    "cudnn-soft-max-images": (Module("cudnn.SoftMax"), IMAGES),
    "cudnn-soft-max-pixel": (Module("cudnn.SoftMax"), (2, 3, 1, 1)),
    "cudnn-log-soft-max-images": (Module("cudnn.LogSoftMax"), IMAGES),
    "cudnn-log-soft-max-vector": (Module("cudnn.LogSoftMax"), (3,)),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule."""
    check(module, shapes)


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("inplace", [False, True])
def test_in_place_changes_the_input(name: str, inplace: bool) -> None:
    """In place the input's holders see the result, else they do not."""
    module = Module(name, inplace=inplace, **IN_PLACE[name])
    kept, result = check(box("ConcatTable", nn("Identity"), module), [MATRIX])
    assert np.array_equal(kept, result) == (inplace or name == "nn.Dropout")


@pytest.mark.parametrize("name", NEVER_IN_PLACE)
def test_others_never_change_the_input(name: str) -> None:
    """Layers without an in-place form leave their input, whatever fields there are."""
    module = nn(name, inplace=True, **NEVER_IN_PLACE[name])
    check(box("ConcatTable", nn("Identity"), module), [MATRIX])


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn("SoftMax"), (1, 1, 1, 1, 2), "takes 1 to 4 dimensions, its input has 5"),
        (nn("Dropout", p=0.5, v2=True, stochastic_inference=True), IMAGES, "draws random numbers"),
        (nn("SpatialDropout", p=0.5, stochastic_inference=True), IMAGES, "draws random numbers"),
        (nn("AddConstant", constant_scalar=np.ones(3)), MATRIX, "its constant is a tensor, one"),
        (nn("Power"), MATRIX, "found pow = nil, expected a finite number"),
        (nn("Power", pow=float("nan")), MATRIX, "found pow = nan, expected a finite number"),
        (nn("Clamp", min_val=True), MATRIX, "found min_val = True, expected a finite number"),
    ],
)  # fmt: skip
def test_what_is_not_exact_is_refused(module: Module, shape: Shape, message: str) -> None:
    """A setting without an exact form, or a field of another kind."""
    check_refused(module, [shape], message)
