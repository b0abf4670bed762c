"""Sums, means, extremes and norms are what their definitions say."""

import math

import pytest

from models.graph import Shape
from tests.t7_writer import Module
from tests.torch7 import check, check_refused, each, nn

CUBE = (2, 3, 4)
CASES = {
    "sum": (nn("Sum", dimension=2), CUBE),
    "sum-first": (nn("Sum", dimension=1), CUBE),
    "sum-negative": (nn("Sum", dimension=-1), CUBE),
    "sum-batch": (nn("Sum", dimension=1, nInputDims=2), CUBE),
    "sum-sample": (nn("Sum", dimension=1, nInputDims=3), CUBE),
    "sum-negative-batch": (nn("Sum", dimension=-2, nInputDims=2), CUBE),
    "sum-average": (nn("Sum", dimension=2, sizeAverage=True), CUBE),
    "sum-kept": (nn("Sum", dimension=2, squeeze=False), CUBE),
    "sum-vector": (nn("Sum", dimension=1), (5,)),
    "mean": (nn("Mean", dimension=2, sizeAverage=True), CUBE),
    "mean-old": (nn("Mean", dimension=2), CUBE),
    "mean-kept": (nn("Mean", dimension=2, squeeze=False), CUBE),
    "max": (nn("Max", dimension=2), CUBE),
    "max-negative": (nn("Max", dimension=-3), CUBE),
    "max-batch": (nn("Max", dimension=1, nInputDims=2), CUBE),
    "max-vector": (nn("Max", dimension=1), (5,)),
    "min": (nn("Min", dimension=3), CUBE),
    "min-batch": (nn("Min", dimension=2, nInputDims=2), CUBE),
    "min-vector": (nn("Min", dimension=1), (5,)),
    "norm-1": (nn("Normalize", p=1, eps=1e-3), (2, 3)),
    "norm-2": (nn("Normalize", p=2, eps=1e-3), (2, 3)),
    "norm-3": (nn("Normalize", p=3, eps=1e-3), (2, 3)),
    "norm-root": (nn("Normalize", p=0.5, eps=1e-3), (2, 3)),
    "norm-4": (nn("Normalize", p=4, eps=1e-3), (2, 3)),
    "norm-infinite": (nn("Normalize", p=math.inf, eps=1e-3), (2, 3)),
    "norm-vector": (nn("Normalize", p=2, eps=1e-3), (3,)),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule, with and without a batch."""
    check(module, shapes)


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn("Sum", dimension=4), CUBE, "found dimension = 4, expected 1 to 3"),
        (nn("Max", dimension=3, nInputDims=2), CUBE, "found dimension = 3, expected 1 to 3"),
        (nn("Normalize", p=2), CUBE, "takes a vector or a matrix and p above 0, not 3 and 2"),
        (nn("Normalize", p=0), (2, 3), "takes a vector or a matrix and p above 0, not 2 and 0"),
        (nn("Normalize"), (2, 3), "found p = nil, expected a finite number"),
    ],
)
def test_what_cannot_be_folded_is_refused(module: Module, shape: Shape, message: str) -> None:
    """A dimension that is not there, or a norm of what is no vector."""
    check_refused(module, [shape], message)
