"""Layers that take or make tables give what their definitions say."""

from typing import Any

import numpy as np
import pytest

from models.graph import Shape
from tests.t7_writer import Module
from tests.torch7 import box, check, check_refused, each, nn

TABLE = (2, 3)
WIDE = (2, 5)


def times(factor: float) -> Module:
    return nn("MulConstant", constant_scalar=factor)


def copies(count: int) -> Module:
    return box("ConcatTable", *(times(index + 1) for index in range(count)))


def after(*modules: Module) -> Module:
    return box("Sequential", *modules)


PAIRS = box("ConcatTable", copies(2), copies(2), copies(2))
ONE_TO_MANY = box("ConcatTable", times(2), copies(3))
GATED = box("ConcatTable", nn("Narrow", dimension=2, index=1, length=2), copies(2))
# Experts joined along the second dimension, as MixtureTable takes them in one tensor.
EXPERTS = nn("JoinTable", dimension=2)
CASES = {
    "add": (nn("CAddTable"), TABLE, TABLE, TABLE),
    "add-one": (after(copies(1), nn("CAddTable", inplace=True)), TABLE),
    "add-inplace": (nn("CAddTable", inplace=True), TABLE, TABLE, TABLE),
    "add-other-shape": (nn("CAddTable"), TABLE, (3, 2)),
    "add-other-shape-inplace": (nn("CAddTable", inplace=True), TABLE, (1, 6)),
    "divide-other-shape": (nn("CDivTable"), TABLE, (1, 3, 2)),
    "subtract": (nn("CSubTable"), TABLE, TABLE, TABLE),
    "multiply": (nn("CMulTable"), TABLE, TABLE, TABLE),
    "divide": (nn("CDivTable"), TABLE, TABLE, TABLE),
    "maximum": (nn("CMaxTable"), TABLE, TABLE, TABLE),
    "minimum": (nn("CMinTable"), TABLE, TABLE, TABLE),
    "add-tensor": (after(ONE_TO_MANY, nn("CAddTensorTable")), TABLE),
    "mm": (nn("MM"), (2, 3), (3, 4)),
    "mm-first-transposed": (nn("MM", transA=True, transB=False), (3, 2), (3, 4)),
    "mm-second-transposed": (nn("MM", transA=False, transB=True), (2, 3), (4, 3)),
    "mm-batch": (nn("MM"), (5, 2, 3), (5, 3, 4)),
    "mm-batch-transposed": (nn("MM", transA=True, transB=True), (5, 3, 2), (5, 4, 3)),
    "join": (nn("JoinTable", dimension=2), (2, 3), (2, 5)),
    "join-negative": (nn("JoinTable", dimension=-1), (2, 3), (2, 5)),
    "join-sample": (nn("JoinTable", dimension=1, nInputDims=2), (2, 3), (4, 3)),
    "join-batch": (nn("JoinTable", dimension=1, nInputDims=2), (5, 2, 3), (5, 4, 3)),
    "split": (nn("SplitTable", dimension=2), (2, 3, 4)),
    "split-first": (nn("SplitTable", dimension=1), (2, 3)),
    "split-negative": (nn("SplitTable", dimension=-2), (2, 3, 4)),
    "split-batch": (nn("SplitTable", dimension=1, nInputDims=2), (2, 3, 4)),
    "split-sample": (nn("SplitTable", dimension=1, nInputDims=3), (2, 3, 4)),
    "select": (nn("SelectTable", index=2), TABLE, WIDE),
    "select-negative": (nn("SelectTable", index=-2), TABLE, WIDE),
    "narrow": (nn("NarrowTable", offset=2, length=2), TABLE, WIDE, TABLE),
    "narrow-past-end": (nn("NarrowTable", offset=2, length=5), TABLE, WIDE, TABLE),
    "flatten": (after(box("ConcatTable", PAIRS, nn("Tanh")), nn("FlattenTable")), TABLE),
    "zip": (after(PAIRS, nn("ZipTable")), TABLE),
    "zip-one-to-many": (after(ONE_TO_MANY, nn("ZipTableOneToMany")), TABLE),
    "mixture": (after(GATED, nn("MixtureTable")), TABLE),
    "mixture-dim": (after(GATED, nn("MixtureTable", dim=3)), (2, 4)),
    "mixture-images": (
        after(
            box("ParallelTable", nn("SoftMax"), copies(3)),
            nn("MixtureTable"),
        ),
        (2, 3),
        (2, 4, 5, 6),
    ),
    "mixture-sample": (
        after(box("ParallelTable", nn("Identity"), copies(3)), nn("MixtureTable")),
        (3,),
        (5,),
    ),
    "mixture-sample-dim": (
        after(box("ParallelTable", nn("Identity"), copies(3)), nn("MixtureTable", dim=2)),
        (3,),
        (5,),
    ),
    "mixture-tensor": (nn("MixtureTable"), (2, 3), (2, 3, 4)),
    "mixture-tensor-dim": (nn("MixtureTable", dim=3), (2, 3), (2, 4, 3)),
    "mixture-tensor-sample": (nn("MixtureTable"), (3,), (3, 4)),
    "mixture-tensor-sample-dim": (nn("MixtureTable", dim=2), (3,), (4, 3)),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule, with and without a batch."""
    check(module, shapes)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_sum_may_meet_its_own_output(inplace: bool) -> None:
    """An operand that is the output of the call before takes part as the first operand by then."""
    summed = nn("CAddTable", inplace=inplace)
    check(after(box("ConcatTable", times(5), after(copies(2), summed)), summed), [TABLE])
    check(after(box("ConcatTable", after(copies(2), summed), times(5)), summed), [TABLE])


@pytest.mark.parametrize("name", ["SplitTable", "FlattenTable", "ZipTable", "MapTable"])
def test_a_table_that_is_made_anew_stays(name: str) -> None:
    """Who kept such a table keeps its entries when the module runs again."""
    fields: dict[str, Any] = {"dimension": 1} if name == "SplitTable" else {}
    module = nn(name, **fields)
    make = {"SplitTable": nn("Identity"), "FlattenTable": copies(2), "ZipTable": PAIRS}
    if name == "MapTable":
        module = box(name, box("Sequential", times(3), nn("Identity")))
    before = make.get(name, copies(2))
    again = box("Sequential", times(5), before, module)
    both = box("ConcatTable", box("Sequential", before, module), again)
    check(box("Sequential", both, nn("FlattenTable")), [(2, 3)])


def test_a_table_that_is_filled_anew_changes() -> None:
    """Who kept a ConcatTable's table sees what its next call puts in, entry by entry."""
    pair = box("ConcatTable", nn("SelectTable", index=1), nn("SelectTable", index=1))
    start = copies(2)
    check(box("Sequential", start, pair, pair, nn("FlattenTable")), [(2, 3)])
    narrow = nn("NarrowTable", offset=1, length=1)
    both = box(
        "ConcatTable", narrow, box("Sequential", nn("NarrowTable", offset=2, length=1), narrow)
    )
    check(box("Sequential", start, both, nn("FlattenTable")), [(2, 3)])


@pytest.mark.parametrize(
    ("module", "shapes", "message"),
    [
        (nn("CAddTable"), [TABLE], "nn.CAddTable: its input is not a table of tensors"),
        (nn("CAddTable"), [TABLE, (4, 3)], r"combines tensors of shapes \(2, 3\) and \(4, 3\)"),
        (nn("CMulTable"), [TABLE, WIDE], r"combines tensors of shapes \(2, 3\) and \(2, 5\)"),
        (after(copies(1), nn("CSubTable")), [TABLE], "takes a table of two, its input is one of 1"),
        (after(ONE_TO_MANY, nn("CAddTable")), [TABLE], "its input is a table of 3, not a tensor"),
        (nn("MM"), [(3,), (3,)], "multiplies tensors of 1 and 1 dimensions"),
        (nn("MM"), [(2, 3), (2, 3, 4)], "multiplies tensors of 2 and 3 dimensions"),
        (nn("MM"), [(2, 3), (2, 3)], "expected one that MatMul takes"),
        (nn("JoinTable", dimension=3), [TABLE, TABLE], "found dimension = 3, expected 1 to 2"),
        (nn("JoinTable", dimension=-3), [TABLE, TABLE], "found dimension = -3, expected 1 to 2"),
        (nn("JoinTable", dimension=1), [TABLE, WIDE], "expected one that Concat takes"),
        (nn("SplitTable", dimension=1), [(3,)], "splits a vector into numbers"),
        (nn("SelectTable", index=3), [TABLE, TABLE], "found index = 3, expected 1 to 2: its input"),
        (nn("SelectTable", index="key"), [TABLE, TABLE], "found index = 'key', expected a finite"),
        (nn("NarrowTable", offset=3), [TABLE, TABLE], r"offset, length = \(3, 1\), expected"),
        (nn("NarrowTable", offset=1, length=0), [TABLE, TABLE], r"length = \(1, 0\), expected"),
        (after(box("ConcatTable", copies(1), copies(2)), nn("ZipTable")), [TABLE],
         "zips tables of different lengths"),
        (nn("MixtureTable", dim=1), [TABLE, TABLE], "found dim = 1, expected 2 to 2"),
        (nn("MixtureTable", dim=4), [TABLE, (2, 3, 4)], "found dim = 4, expected 2 to 3"),
        (nn("MixtureTable"), [(2, 3, 4), (2, 3)], "takes gates of 1 or 2 dimensions, not 3"),
        (after(GATED, nn("MixtureTable", dim=1)), [TABLE], "found dim = 1, expected 2 to 3"),
        (after(box("ParallelTable", nn("Identity"), copies(2)), nn("MixtureTable")), [TABLE, TABLE],
         "3 gates for 2 experts"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(
    module: Module, shapes: list[Shape], message: str
) -> None:
    """A table without the entries that a layer takes, or with entries of other shapes."""
    check_refused(module, shapes, message)


def test_an_empty_table_is_no_input() -> None:
    """A layer of tables says so when there is nothing in one."""
    empty = box("Sequential", box("ConcatTable"), nn("CAddTable"))
    check_refused(empty, [np.zeros(TABLE).shape], "nn.CAddTable: its input is not a table of tens")
