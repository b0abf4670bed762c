"""Containers run what their definitions run, on what they run it on."""

from typing import Any

import numpy as np
import pytest

from models.graph import Shape
from tests.t7_writer import Module, Sizes
from tests.torch7 import box, check, check_refused, each, lowered, nn, numbers

IMAGES = (2, 3, 6, 7)
HALF = nn("MulConstant", constant_scalar=0.5, inplace=True)


def linear(inputs: int, outputs: int) -> Module:
    return nn("Linear", weight=numbers(outputs, inputs), bias=numbers(outputs))


def times(factor: float) -> Module:
    return nn("MulConstant", constant_scalar=factor)


def pool(size: int) -> Module:
    window = {"kW": size, "kH": size, "dW": 1, "dH": 1, "padW": 0, "padH": 0}
    return nn("SpatialMaxPooling", **window, ceil_mode=False)


def crelu(dims: int, *, inplace: bool = False) -> Module:
    both = box("ConcatTable", nn("Identity"), times(-1))
    relu = nn("ReLU", inplace=inplace, threshold=0, val=0)
    return box("CReLU", both, nn("JoinTable", dimension=2), relu, nInputDims=dims)


def layer_normalised(count: int) -> Module:
    """Return what LayerNormalization's constructor builds, for a batch of vectors."""
    mean = box(
        "Sequential",
        nn("Mean", dimension=1, nInputDims=1, sizeAverage=True),
        nn("Replicate", nfeatures=count, dim=1, ndim=1),
    )  # count x batch, which the subtraction takes for batch x count
    return box(
        "LayerNormalization",
        box("ConcatTable", nn("Identity"), mean),
        nn("CSubTable"),
        nn("Normalize", p=2, eps=1e-10),
        times(float(np.sqrt(count))),
        nn("CMul", weight=numbers(count)),
        nn("Add", bias=numbers(count), scalar=False),
    )


def same_response() -> Module:
    """Return what SpatialSameResponseNormalization's constructor builds, but for the padding."""
    window = {"kW": 3, "kH": 3, "dW": 1, "dH": 1, "padW": 1, "padH": 1}
    average = nn("SpatialAveragePooling", **window, ceil_mode=False, divide=True)
    average.fields["count_include_pad"] = True
    around = box(
        "Sequential",
        nn("Square"),
        average,
        nn("MulConstant", constant_scalar=0.5, inplace=True),
        nn("AddConstant", constant_scalar=1, inplace=True),
        nn("Power", pow=0.75),
    )
    both = box("ConcatTable", nn("Identity"), around)
    return Module("inn.SpatialSameResponseNormalization", modules=[both, nn("CDivTable")])


ROWS = box("Sequential", linear(4, 3), nn("Tanh"))
REPLICAS = [box("Sequential", times(factor)) for factor in (2, 3)]
CASES: dict[str, tuple[Any, ...]] = {
    "sequential-empty": (box("Sequential"), (2, 3)),
    "maxout": (
        box(
            "Maxout",
            linear(4, 6),
            nn("View", size=Sizes(3, 2), numInputDims=1),
            nn("Max", dimension=1, nInputDims=2),
        ),
        (5, 4),
    ),
    "layer-normalisation": (layer_normalised(4), (3, 4)),
    "same-response": (same_response(), IMAGES),
    "decorator": (box("Decorator", times(2)), (2, 3)),
    "dont-cast": (box("DontCast", times(2), castin=True), (2, 3)),
    "nan": (box("NaN", times(2), id=1), (2, 3)),
    "profile": (box("Profile", times(2), module=times(2)), (2, 3)),
    "fire-module": (
        box(
            "FireModule", box("Sequential", times(2), box("Concat", pool(1), times(3), dimension=2))
        ),
        IMAGES,
    ),
    "inception": (box("Inception", box("DepthConcat", pool(1), pool(3), dimension=2)), IMAGES),
    "inception-image": (
        box("Inception", box("DepthConcat", pool(1), pool(3), dimension=2)),
        IMAGES[1:],
    ),
    "data-parallel": (box("DataParallelTable", *REPLICAS, dimension=1), (2, 3)),
    "data-parallel-in-place": (
        box("ConcatTable", nn("Identity"), box("DataParallelTable", HALF, dimension=1)),
        (2, 3),
    ),
    "data-parallel-tables": (
        box("DataParallelTable", box("ConcatTable", nn("FlattenTable"), nn("CAddTable"))),
        (2, 3),
        (2, 3),
    ),
    "concat-table": (box("ConcatTable", times(2), HALF, nn("Identity")), (2, 3)),
    "parallel-table": (box("ParallelTable", times(2), nn("Tanh")), (2, 3), (4,), (5,)),
    "map-table": (box("MapTable", ROWS, shared=True), (2, 4), (3, 4)),
    "map-table-more": (box("MapTable", ROWS), *[(rows, 4) for rows in (1, 2, 3, 2, 1)]),
    "map-table-stored": (box("MapTable", linear(4, 3), linear(4, 2)), (2, 4), (2, 4), (2, 4)),
    "map-table-in-place": (box("ConcatTable", nn("Identity"), box("MapTable", HALF)), (3,), (3,)),
    "map-table-nested": (
        box(
            "MapTable", box("Sequential", nn("SplitTable", dimension=1), box("MapTable", times(2)))
        ),
        (2, 3),
        (3, 3),
    ),
    "parallel": (
        box("Parallel", linear(4, 3), linear(4, 2), inputDimension=1, outputDimension=1),
        (2, 4),
    ),
    "parallel-more-modules": (
        box("Parallel", times(2), times(3), times(4), inputDimension=2, outputDimension=2),
        (3, 2, 4),
    ),
    "parallel-in-place": (
        box(
            "ConcatTable",
            nn("Identity"),
            box("Parallel", HALF, times(3), inputDimension=2, outputDimension=1),
        ),
        (3, 2),
    ),
    "concat": (box("Concat", times(2), nn("Identity"), dimension=2), IMAGES),
    "concat-changed-later": (box("Concat", nn("Identity"), HALF, dimension=1), (2, 3)),
    "depth-concat": (box("DepthConcat", pool(1), pool(2), pool(4), dimension=2), IMAGES),
    "depth-concat-image": (box("DepthConcat", pool(3), pool(2), dimension=1), IMAGES[1:]),
    "depth-concat-larger-later": (box("DepthConcat", pool(4), nn("Tanh"), dimension=2), IMAGES),
    "bottle": (box("Bottle", linear(4, 3), nInputDim=2, nOutputDim=2), (2, 5, 4)),
    "bottle-two": (box("Bottle", linear(4, 3), nInputDim=2, nOutputDim=2), (2, 3, 5, 4)),
    "bottle-not-needed": (box("Bottle", linear(4, 3), nInputDim=2, nOutputDim=2), (5, 4)),
    "bottle-images": (box("Bottle", pool(2), nInputDim=4, nOutputDim=4), (2, *IMAGES)),
    "bottle-fewer": (
        box("Bottle", nn("Sum", dimension=2), nInputDim=2, nOutputDim=1, dimDelta=1),
        (2, 5, 4),
    ),
    "bottle-in-place": (
        box("ConcatTable", nn("Identity"), box("Bottle", HALF, nInputDim=2, nOutputDim=2)),
        (2, 5, 4),
    ),
    "crelu": (crelu(3), IMAGES),
    "crelu-image": (crelu(3), IMAGES[1:]),
    "crelu-in-place": (crelu(1, inplace=True), (2, 5)),
}


@each(CASES)
def test_equals_its_definition(module: Module, shapes: list[Shape]) -> None:
    """Every branch of every rule, with and without a batch."""
    check(module, shapes)


@pytest.mark.parametrize(
    "shared",
    [
        box("MapTable", times(2)),
        box("MapTable", box("Sequential", times(2), times(3))),
        box("ParallelTable", times(2), times(3), times(4)),
    ],
    ids=["map", "map-sequential", "parallel"],
)
def test_a_module_for_several_entries_runs_again(shared: Module) -> None:
    """The copies that a MapTable made are used again, and their outputs with them."""
    copies = box("ConcatTable", times(1), times(2), times(3))
    other = box("Sequential", box("ConcatTable", times(5), times(6), times(7)), shared)
    both = box("ConcatTable", box("Sequential", copies, shared), other)
    check(box("Sequential", both, nn("FlattenTable")), [(2, 3)])


def test_the_output_of_a_wrapper_is_its_own() -> None:
    """Bottle and WeightNorm set their output to the module's, and keep it when that runs again."""
    inside = times(2)
    bottle = box("Bottle", inside, nInputDim=2, nOutputDim=2)
    again = box("Sequential", nn("Unsqueeze", pos=1), inside)
    both = box("ConcatTable", bottle, again)
    check_refused(both, [(2, 3)], "is still read after the module ran again and gave another")


def test_replicas_of_the_first_version_are_not_missed() -> None:
    """The weights of replicas that do not run are not reported as unused."""
    module = box("DataParallelTable", linear(4, 3), linear(4, 3), dimension=1)
    assert lowered(module, [(2, 4)]).parameters == 15


@pytest.mark.parametrize(
    ("module", "shapes", "message"),
    [
        (box("Decorator"), [(2, 3)], "found modules = '0 modules', expected one"),
        (nn("Sequential", modules={1: times(1), 3: times(1)}), [(2, 3)],
         "found modules = '2 entries', expected 1 to 2 without a gap"),
        (nn("Sequential", modules=[1.0]), [(2, 3)], r"found modules\[1\] = 1.0, expected a module"),
        (nn("Sequential", modules="none"), [(2, 3)], "modules = 'none', expected a table of mod"),
        (box("DataParallelTable", times(2), dimension=2, gpuAssignments=[1, 2]), [(2, 3)],
         "splits its input along another dimension than the batch"),
        (box("DataParallelTable", dimension=1), [(2, 3)], "found modules = 'no module', expected"),
        (box("ParallelTable", times(2), times(3), times(4)), [(2, 3), (2, 3)],
         "3 modules, its input is a table of 2"),
        (box("ParallelTable", times(2)), [(2, 3)], "its input is not a table of tensors"),
        (box("MapTable"), [(2, 3), (2, 3)], "found modules = 'no module', expected one"),
        (box("Parallel", times(2), inputDimension=1, outputDimension=1), [(2, 3)],
         "1 modules for 2 entries"),
        (box("Parallel", times(2), inputDimension=3, outputDimension=1), [(2, 3)],
         "found inputDimension = 3, expected 1 to 2, of two or more"),
        (box("Parallel", times(2), inputDimension=1, outputDimension=1), [(3,)],
         "found inputDimension = 1, expected 1 to 1, of two or more"),
        (box("Concat", dimension=2), [IMAGES], "joins nothing: it holds no modules"),
        (box("Concat", times(2), dimension=7), [IMAGES], "found dimension = 7, expected 1 to 4"),
        (box("DepthConcat", dimension=2), [IMAGES], "joins nothing: it holds no modules"),
        (box("DepthConcat", nn("Identity"), nn("View", size=Sizes(126)), dimension=2), [IMAGES],
         "its parts differ in rank"),
        (box("Bottle", linear(4, 3), nInputDim=2, nOutputDim=3), [(2, 5, 4)],
         "its module gives 2 dimensions, not 3"),
        (box("Bottle", nn("Narrow", dimension=1, index=1, length=3), nInputDim=2), [(2, 5, 4)],
         r"3 entries do not come back to \(2,\)"),
        (box("Inception", times(2)), [(2, 3)], "takes images, its input has 2 dimensions"),
    ],
)  # fmt: skip
def test_what_a_container_cannot_run_is_refused(
    module: Module, shapes: list[Shape], message: str
) -> None:
    """Modules that are missing, or inputs that are not theirs."""
    check_refused(module, shapes, message)
