"""Views and copies of parts are what their definitions say, and nothing else passes."""

from typing import Any

import numpy as np
import pytest

from models.graph import Shape
from tests.t7_writer import Module, Sizes
from tests.torch7 import box, check, check_refused, each, nn

# Entry 2 along the second dimension: a view with gaps.
GAPS = box("Sequential", nn("SplitTable", dimension=2), nn("SelectTable", index=2))
CASES = {
    "view": (nn("View", size=Sizes(12)), (2, 3, 4)),
    "view-whole": (nn("View", size=Sizes(4, 6)), (2, 3, 4)),
    "view-rest-first": (nn("View", size=Sizes(-1, 4)), (2, 3, 4)),
    "view-rest-last": (nn("View", size=Sizes(2, -1)), (2, 3, 4)),
    "view-rest-alone": (nn("View", size=Sizes(-1)), (2, 3, 4)),
    "view-of-one": (nn("View", size=Sizes(12)), (1, 3, 4)),
    "view-two-batches": (nn("View", size=Sizes(4), numInputDims=1), (2, 3, 4)),
    "view-sample": (nn("View", size=Sizes(12), numInputDims=2), (3, 4)),
    "view-batch": (nn("View", size=Sizes(12), numInputDims=2), (2, 3, 4)),
    "view-batch-of-one": (nn("View", size=Sizes(12), numInputDims=2), (1, 3, 4)),
    "view-rest-of-sample": (nn("View", size=Sizes(-1), numInputDims=2), (2, 3, 4)),
    "reshape": (nn("Reshape", size=Sizes(4, 3)), (2, 3, 4)),
    "reshape-whole": (nn("Reshape", size=Sizes(4, 6)), (2, 3, 4)),
    "reshape-first-one": (nn("Reshape", size=Sizes(4, 3)), (1, 3, 4)),
    "reshape-rest": (nn("Reshape", size=Sizes(-1)), (2, 3, 4)),
    "reshape-batch": (nn("Reshape", size=Sizes(2, 6), batchMode=True), (2, 3, 4)),
    "reshape-no-batch": (nn("Reshape", size=Sizes(4, 3), batchMode=False), (1, 3, 4)),
    "reshape-gaps": (box("Sequential", GAPS, nn("Reshape", size=Sizes(8))), (2, 3, 4)),
    "collapse-batch": (nn("Collapse", nInputDim=2), (2, 3, 4)),
    "collapse-sample": (nn("Collapse", nInputDim=3), (2, 3, 4)),
    "collapse-gaps": (box("Sequential", GAPS, nn("Collapse", nInputDim=1)), (2, 3, 4)),
    "squeeze": (nn("Squeeze"), (1, 3, 1, 4)),
    "squeeze-all": (nn("Squeeze"), (1, 1)),
    "squeeze-dim": (nn("Squeeze", dim=3), (1, 3, 1, 4)),
    "squeeze-dim-of-two": (nn("Squeeze", dim=2), (1, 3, 1, 4)),
    "squeeze-dim-of-one": (nn("Squeeze", dim=1), (1,)),
    "squeeze-dim-batch": (nn("Squeeze", dim=1, numInputDims=2), (2, 1, 4)),
    "squeeze-dim-sample": (nn("Squeeze", dim=1, numInputDims=3), (1, 3, 4)),
    "squeeze-batch": (nn("Squeeze", numInputDims=3), (2, 1, 4, 1)),
    "squeeze-batch-of-one": (nn("Squeeze", numInputDims=3), (1, 1, 4, 1)),
    "squeeze-all-of-batch": (nn("Squeeze", numInputDims=2), (1, 1, 1)),
    "unsqueeze": (nn("Unsqueeze", pos=2), (2, 3)),
    "unsqueeze-last": (nn("Unsqueeze", pos=3), (2, 3)),
    "unsqueeze-batch": (nn("Unsqueeze", pos=1, numInputDims=2), (5, 2, 3)),
    "unsqueeze-gaps": (box("Sequential", GAPS, nn("Unsqueeze", pos=2)), (2, 3, 4)),
    "replicate": (nn("Replicate", nfeatures=3), (2, 4)),
    "replicate-dim": (nn("Replicate", nfeatures=3, dim=3), (2, 4)),
    "replicate-once": (nn("Replicate", nfeatures=1, dim=2), (2, 4)),
    "replicate-batch": (nn("Replicate", nfeatures=3, dim=1, ndim=2), (2, 4, 5)),
    "replicate-sample": (nn("Replicate", nfeatures=3, dim=1, ndim=2), (4, 5)),
    "transpose": (nn("Transpose", permutations=[[1, 3], [2, 3]]), (2, 3, 4)),
    "transpose-batch": (nn("Transpose", permutations=[[1, 2]], numInputDims=2), (5, 2, 3)),
    "transpose-sample": (nn("Transpose", permutations=[[1, 2]], numInputDims=2), (2, 3)),
    "select": (nn("Select", dimension=2, index=2), (2, 3, 4)),
    "select-negative": (nn("Select", dimension=-1, index=-2), (2, 3, 4)),
    "narrow": (nn("Narrow", dimension=2, index=2, length=2), (2, 4, 3)),
    "narrow-from-end": (nn("Narrow", dimension=-2, index=2, length=-1), (2, 4, 3)),
    "narrow-from-end-less": (nn("Narrow", dimension=2, index=1, length=-2), (2, 4, 3)),
    "narrow-first": (nn("Narrow", dimension=2, index=-1, length=1), (2, 4, 3)),
    "contiguous": (nn("Contiguous"), (2, 3)),
    "contiguous-gaps": (box("Sequential", GAPS, nn("Contiguous")), (2, 3, 4)),
    "copy": (nn("Copy"), (2, 3)),
    "identity": (nn("Identity"), (2, 3)),
    "penalty": (nn("L1Penalty", l1weight=0.1), (2, 3)),
    "print-size": (nn("PrintSize", prefix="here"), (2, 3)),
    "gradient-reversal": (nn("GradientReversal", **{"lambda": 1}), (2, 3)),
    "zero-grad": (nn("ZeroGrad"), (2, 3)),
}  # fmt: skip


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule, with and without a batch."""
    check(module, shapes)


def test_a_vector_of_one_behind_a_batch() -> None:
    """Squeezing all of a batch of one leaves the batch and one entry."""
    (output,) = check(nn("Squeeze", numInputDims=2), [(1, 1, 1)])
    assert output.shape == (1, 1)


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn("View", size=[1, 2]), (2, 3), "found size = a table, expected a LongStorage"),
        (nn("View", size=Sizes(7)), (2, 3), r"size = \(7,\), expected a shape for 6 elements"),
        (nn("View", size=Sizes(0)), (2, 3), r"size = \(0,\), expected a shape for 6 elements"),
        (nn("View", size=Sizes(-1, -1)), (2, 3), r"of shape \(2, 3\) as \(-1, -1\)"),
        (box("Sequential", GAPS, nn("View", size=Sizes(8))), (2, 3, 4), "that is not contiguous"),
        (nn("Reshape", size=Sizes(7)), (2, 3), r"views a tensor of shape \(2, 3\) as \(2, 7\)"),
        (nn("Reshape", size=Sizes(0)), (2, 3), r"views a tensor of shape \(2, 3\) as \(2, 0\)"),
        (nn("Reshape", size=Sizes(-3)), (2, 3), r"views a tensor of shape \(2, 3\) as \(2, -3\)"),
        (nn("Squeeze", dim=4), (2, 1, 3), "found dim = 4, expected 1 to 3"),
        (nn("Squeeze", dim=0, numInputDims=2), (2, 1, 3), "found dim = 0, expected 1 to 2"),
        (nn("Unsqueeze", pos=5), (2, 3), "found pos = 5, expected 1 to 3"),
        (nn("Unsqueeze", pos=1, numInputDims=3), (2, 3), "found pos = 0, expected 1 to 3"),
        (nn("Replicate", nfeatures=2, dim=4), (2, 3), r"found dim, nfeatures = \(4, 2\), expected"),
        (nn("Replicate", nfeatures=0), (2, 3), r"found dim, nfeatures = \(1, 0\), expected 1 to 3"),
        (nn("Transpose"), (2, 3), "found permutations = nil, expected a table of pairs"),
        (nn("Transpose", permutations=[3]), (2, 3), r"permutations = \(0, 0\), expected two of 1"),
        (nn("Transpose", permutations=[[1, 3]]), (2, 3), r"\(1.0, 3.0\), expected two of 1 to 2"),
        (nn("Select", dimension=1, index=1), (3,), "selects a number of a vector"),
        (nn("Select", dimension=1, index=3), (2, 3), "found index = 3, expected 1 to 2, or neg"),
        (nn("Select", dimension=-3, index=1), (2, 3), "found dimension = -3, expected 1 to 2, or"),
        (nn("Narrow", dimension=1, index=2, length=2), (2, 3), r"= \(2, 2\), expected a part"),
    ],
)  # fmt: skip
def test_what_has_no_such_shape_is_refused(module: Module, shape: Shape, message: str) -> None:
    """A field out of its range, or a view that Torch7 cannot make."""
    check_refused(module, [shape], message)


def test_a_copy_of_whole_numbers_is_refused() -> None:
    """A copy into a tensor of integers rounds."""
    module = nn("Copy", output=np.zeros(2, "i8"))
    check_refused(module, [(2, 3)], r"nn\.Copy: rounds to torch\.LongTensor")


def test_a_tensor_is_no_table() -> None:
    """What takes a tensor says so when it gets a table."""
    check_refused(nn("View", size=Sizes(6)), [(2, 3), (2, 3)], "its input is a table of 2, not a")


@pytest.mark.parametrize("count", [1, 2])
def test_a_replica_shares_the_memory(count: int) -> None:
    """Once is a view that can be written into; more often it repeats, and that is refused."""
    change = nn("MulConstant", constant_scalar=2, inplace=True)
    branch = box("Sequential", nn("Replicate", nfeatures=count), change)
    both: Any = box("ConcatTable", nn("Identity"), branch)
    if count == 1:
        check(both, [(2, 3)])
    else:
        check_refused(both, [(2, 3)], "writes in place into a tensor that repeats its numbers")
