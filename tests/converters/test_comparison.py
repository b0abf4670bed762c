"""`relume verify`: the original's definitions beside the converted network, call by call."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.comparison import RELATIVE, Comparison, compare
from converters.lowering import Call, Lowered
from converters.t7 import T7Source
from models.errors import ParityError
from models.graph import Graph, Node
from models.ops import infer
from tests.oracles import golden
from tests.t7_writer import Module, Sizes, write

IMAGE = (2, 3, 8, 8)


@pytest.fixture
def source(tmp_path: Path) -> T7Source:
    """A convolution, batch normalisation, in-place ReLU in a branch, and a linear layer."""
    generator = np.random.default_rng(5)

    def numbers(*shape: int) -> np.ndarray[Any, Any]:
        return generator.uniform(0.5, 1.5, shape).astype("f4")

    size = {"kW": 3, "kH": 3, "dW": 1, "dH": 1, "padW": 1, "padH": 1}
    planes = {"nInputPlane": 3, "nOutputPlane": 4}
    convolution = Module(
        "nn.SpatialConvolution", weight=numbers(4, 3, 3, 3), bias=numbers(4), **size, **planes
    )
    norm = Module(
        "nn.SpatialBatchNormalization",
        running_mean=numbers(4),
        running_var=numbers(4),
        weight=numbers(4),
        bias=numbers(4),
        eps=1e-3,
    )
    relu = Module("nn.ReLU", threshold=0, val=0, inplace=True)
    branches = Module("nn.ConcatTable", modules=[relu, Module("nn.Identity")])
    modules = [
        convolution,
        norm,
        branches,
        Module("nn.CAddTable", inplace=True),
        Module("nn.View", size=Sizes(256), numInputDims=3),
        Module("nn.Linear", weight=numbers(5, 256), bias=numbers(5)),
    ]
    return T7Source(write(tmp_path / "made.t7", Module("nn.Sequential", modules=modules)))


def changed(lowered: Lowered, name: str, **fields: Any) -> Lowered:
    """Return the network with one node's attributes changed."""
    graph = lowered.network.graph

    def other(node: Node) -> Node:
        return node._replace(attrs={**node.attrs, **fields}) if node.name == name else node

    nodes = tuple(other(node) for node in graph.nodes)
    network = lowered.network._replace(graph=replace(graph, nodes=nodes))
    return lowered._replace(network=network)


def test_every_call_of_a_faithful_network_is_equal(source: T7Source) -> None:
    """All nine runs of modules are compared, and differ by less than float64 rounding explains."""
    found = compare(source, source.lower([IMAGE], infer))
    assert found == Comparison(9, 0, found.largest, found.at)
    assert found.largest < 1e-12


def test_the_first_layer_that_differs_is_named(source: T7Source) -> None:
    """A wrong eps shows at its batch normalisation, not at the layers behind it."""
    lowered = changed(source.lower([IMAGE], infer), "1", eps=1e-5)
    message = (
        r"made.t7: layer 1 \(nn.SpatialBatchNormalization\), converted to BatchNorm2d: the first "
        r"layer that differs, by \d\.\d+e-\d+ where outputs reach"
    )
    with pytest.raises(ParityError, match=message):
        compare(source, lowered)


def test_a_wrong_shape_is_named(source: T7Source) -> None:
    """A layer of other shape than the original's is the first that differs."""
    lowered = changed(source.lower([IMAGE], infer), "0", padding=[0, 0])
    message = r"layer 0 \(nn.SpatialConvolution\).*: gives 2x4x6x6, the original 2x4x8x8"
    with pytest.raises(ParityError, match=message):
        compare(source, lowered)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda calls: calls[:-1], "layer (the whole file) (nn.Sequential) runs once more than"),
        (
            lambda calls: (*calls, Call("9", "nn.Tanh", ("5",))),
            "layer 9 never ran in the original",
        ),
        (
            lambda calls: (Call("0", "nn.Tanh", ("0",)), *calls[1:]),
            "layer 1 to finish is layer 0 (nn.SpatialConvolution) with 1 outputs, converted was 0 "
            "(nn.Tanh) with 1",
        ),
    ],
)
def test_other_calls_are_named(
    source: T7Source, change: Callable[[Sequence[Call]], tuple[Call, ...]], message: str
) -> None:
    """A layer that runs more often, never, or in another place is no equal execution."""
    lowered = source.lower([IMAGE], infer)
    with pytest.raises(ParityError) as caught:
        compare(source, lowered._replace(calls=change(lowered.calls)))
    assert message in str(caught.value)


def test_what_the_graph_does_not_hold_is_counted(source: T7Source) -> None:
    """A run whose output no node has is told apart from those that were compared."""
    lowered = source.lower([IMAGE], infer)
    calls = (lowered.calls[0]._replace(outputs=(None,)), *lowered.calls[1:])
    found = compare(source, lowered._replace(calls=calls))
    assert (found.layers, found.uncompared) == (8, 1)


def test_not_a_number_equals_itself(tmp_path: Path) -> None:
    """The logarithm of negative noise is not a number in both executions."""
    source = T7Source(write(tmp_path / "log.t7", Module("nn.Log")))
    assert compare(source, source.lower([(2, 3)], infer)).layers == 1


MODELS = ["models/googlenet_small", "models/unpooling_net", "layers/nngraph_split"]


@pytest.mark.parametrize("name", MODELS)
def test_files_of_torch7_are_equal_call_by_call(name: str) -> None:
    """DepthConcat, unpooling and graphs, as Torch7 saved them."""
    path = golden(f"torch7/{name}.t7")
    with np.load(golden(f"torch7/{name}.npz")) as arrays:
        keys = sorted(key for key in arrays.files if key.startswith("input"))
        shapes = [arrays[key].shape for key in keys]
    source = T7Source(path)
    found = compare(source, source.lower(shapes, infer))
    assert found.uncompared == 0
    assert found.largest < RELATIVE / 10


def test_a_graph_is_not_changed_by_running_it(source: T7Source) -> None:
    """The comparison works on copies."""
    lowered = source.lower([IMAGE], infer)
    before: Graph = lowered.network.graph
    compare(source, lowered)
    assert lowered.network.graph == before
