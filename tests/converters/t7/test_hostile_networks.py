"""Small files that ask for much: refused in a moment, by a typed error, whatever they ask for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.errors import FormatError, UnsupportedLayer
from tests.t7_writer import Module, Shared, Sizes, View
from tests.torch7 import lowered

IMAGE = (2, 3, 8, 8)
IDENTITY = "nn.Identity"


def sequence(*modules: Module) -> Module:
    return Module("nn.Sequential", modules=list(modules))


def wide(doublings: int, repeats: int) -> Module:
    """A table of 2^doublings entries, handed on 2^repeats times."""
    network = sequence(
        *(Module("nn.ConcatTable", modules=[Module(IDENTITY)] * 2) for _ in range(doublings)),
    )
    again = sequence(Module(IDENTITY))
    for _ in range(repeats):
        again = sequence(again, again)
    return sequence(network, again)


def nested_tables(depth: int) -> Module:
    deep = [Module("nn.ConcatTable", modules=[Module(IDENTITY)]) for _ in range(depth)]
    parallel = Module("nn.Sequential", modules=[Module("nn.MapTable", modules=[Module(IDENTITY)])])
    return sequence(*deep, parallel_gpu(parallel))


def parallel_gpu(inside: Module) -> Module:
    return Module("nn.DataParallelTable", modules=[inside], gpuAssignments=[1], dimension=1)


def viewed(times: int) -> Module:
    """An entry of an entry of an entry, of which the last is written to."""
    steps = []
    for _ in range(times):
        steps += [
            Module("nn.Unsqueeze", pos=1),
            Module("nn.SplitTable", dimension=1),
            Module("nn.SelectTable", index=1),
        ]
    return sequence(*steps, Module("nn.ReLU", threshold=0, val=0, inplace=True))


def overlapping(count: int) -> Module:
    """Many layers over one storage of doubles, each from another place."""
    storage = Shared(np.ones(40 * 40 + count), "Double")
    layers = [Module("nn.Linear", weight=View(storage, (40, 40), (40, 1), n)) for n in range(count)]
    return sequence(*layers)


def plain(name: str, **fields: Any) -> Callable[[], Module]:
    return lambda: Module(name, **fields)


WEIGHT = np.ones((4, 6), "f4")
SIZES = {"kW": 1, "kH": 1, "dW": 1, "dH": 1}
HOSTILE: dict[str, tuple[Callable[[], Module], tuple[int, ...], str]] = {
    "entries times runs": (lambda: wide(12, 9), IMAGE, "takes more than 1,000,000 steps|entries"),
    "too many entries": (lambda: wide(15, 1), IMAGE, "a table of more than 10,000 entries"),
    "tables in tables": (lambda: nested_tables(2000), IMAGE, "tables nested more than 100 deep"),
    "views of views": (lambda: viewed(80), (2, 3), "through more than 64 views of views"),
    "windows without end": (
        plain("nn.SpatialAdaptiveMaxPooling", H=2**31, W=1),
        IMAGE,
        "expected 1 to 4,096",
    ),
    "planes without end": (
        plain(
            "nn.SpatialConvolutionMap",
            nInputPlane=60_000,
            nOutputPlane=60_000,
            weight=np.ones((1, 1, 1), "f4"),
            bias=np.ones(1, "f4"),
            connTable=np.ones((1, 2), "f4"),
            **SIZES,
        ),
        IMAGE,
        "weights at most",
    ),
    "connections that are no numbers": (
        plain(
            "nn.SpatialConvolutionMap",
            nInputPlane=1,
            nOutputPlane=1,
            weight=np.ones((1, 1, 1), "f4"),
            bias=np.ones(1, "f4"),
            connTable=np.full((1, 2), np.nan, "f4"),
            **SIZES,
        ),
        IMAGE,
        "found connTable",
    ),
    "sizes without end": (
        plain("nn.View", size=Sizes(*[1] * 100_000)),
        IMAGE,
        "a LongStorage of at most 16 sizes",
    ),
    "a direction without rows": (
        plain("nn.LinearWeightNorm", v=np.ones(6, "f4"), g=np.ones(1, "f4")),
        (2, 6),
        "expected a matrix, and a number for each of its rows",
    ),
    "lengths of other rows": (
        plain("nn.LinearWeightNorm", v=WEIGHT, g=np.ones(3, "f4")),
        (2, 6),
        "expected a matrix, and a number for each of its rows",
    ),
    "a weight of negative size": (
        plain(
            "nn.WeightNorm",
            v=WEIGHT,
            g=np.ones(4, "f4"),
            weightSize=Sizes(-4, -6),
            modules=[Module("nn.Linear")],
        ),
        (2, 6),
        "found outputDim, weightSize",
    ),
    "negative planes": (
        plain(
            "nn.SpatialConvolutionMM",
            nInputPlane=-3,
            nOutputPlane=-2,
            weight=np.ones((2, 3), "f4"),
            **SIZES,
        ),
        IMAGE,
        "found nOutputPlane = -2.0, expected 1 or more|found nOutputPlane = -2, expected 1 or more",
    ),
    "dimensions that are no numbers": (
        plain("nn.Transpose", permutations=[[float("inf"), 1]]),
        IMAGE,
        "found permutations",
    ),
}


@pytest.mark.parametrize(("module", "shape", "message"), HOSTILE.values(), ids=HOSTILE)
def test_small_files_that_ask_for_much_are_refused(
    module: Callable[[], Module], shape: tuple[int, ...], message: str
) -> None:
    """A typed error says what is too much, before it takes time or memory."""
    with pytest.raises((UnsupportedLayer, FormatError), match=message):
        lowered(module(), [shape])


def test_modules_that_share_a_table_are_walked_once() -> None:
    """A thousand containers over one table of a thousand are two thousand steps, not a million."""
    inside = [Module(IDENTITY) for _ in range(1000)]
    network = sequence(*(Module("nn.Sequential", modules=inside) for _ in range(200)))
    with pytest.raises(UnsupportedLayer, match="run more than 100,000 times"):
        lowered(network, [IMAGE])


def test_numbers_that_overlap_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of one storage of doubles would each become floats of their own."""
    monkeypatch.setattr("converters.lowering.MAX_PARAMETERS", 50_000)
    with pytest.raises(UnsupportedLayer, match="more than 50,000 numbers in all layers"):
        lowered(overlapping(40), [(2, 40)])
