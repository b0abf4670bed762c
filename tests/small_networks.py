"""Networks of a few nodes, written by hand, from a table of every op, or drawn by hypothesis."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from models.graph import Graph, Input, Network, Node, Shape, numbered
from models.ops import create, infer, tensor_shapes

IMAGE = (2, 4, 8, 7)  # height and width differ, so that swapping them shows


class Case(NamedTuple):
    """An op, its arguments as a caller may spell them, and shapes that it takes."""

    op: str
    attrs: dict[str, Any]
    shapes: tuple[Shape, ...] = (IMAGE,)

    def __str__(self) -> str:
        """Name the case in the list of tests."""
        said = "-".join(f"{key}={value}".replace(" ", "") for key, value in self.attrs.items())
        return f"{self.op}({said})"


CASES = (
    Case("Abs", {}),
    Case("AdaptiveAvgPool2d", {"output_size": (3, 7)}),
    Case("AdaptiveMaxPool2d", {"output_size": (3, 4)}),
    Case("Add", {}, (IMAGE, IMAGE)),
    Case("AtLeast", {"value": -0.25}),
    Case("AtMost", {"value": 0.5}),
    Case("AvgPool2d", {"kernel_size": 2}),
    Case("AvgPool2d", {"kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 0]}),
    Case("AvgPool2d", {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    Case("AvgPool2d", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    Case("BatchNorm1d", {"num_features": 4}, ((2, 4),)),
    Case("BatchNorm2d", {"num_features": 4, "eps": 1e-3, "momentum": 0.3}),
    Case("BatchNorm2d", {"num_features": 4, "affine": False}),
    Case("Concat", {"dim": 1}, (IMAGE, (2, 3, 8, 7))),
    Case("Concat", {"dim": -1}, (IMAGE, IMAGE, IMAGE)),
    Case("Conv1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, ((2, 4, 9),)),
    Case(
        "Conv1d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": [3],
            "stride": 2,
            "padding": (1,),
            "dilation": (2,),
            "groups": 2,
            "bias": False,
        },
        ((2, 4, 9),),
    ),
    Case("Conv2d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}),
    Case(
        "Conv2d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": (1, 3),
            "stride": (2, 1),
            "padding": (0, 2),
            "dilation": (1, 2),
            "groups": 2,
            "bias": False,
        },
    ),
    Case("ConvTranspose2d", {"in_channels": 4, "out_channels": 2, "kernel_size": 3, "stride": 2}),
    Case(
        "ConvTranspose2d",
        {
            "in_channels": 4,
            "out_channels": 2,
            "kernel_size": (3, 2),
            "stride": 2,
            "padding": (1, 0),
            "output_padding": (1, 0),
            "bias": False,
        },
    ),
    Case("Div", {}, (IMAGE, (1, 1, 8, 1))),
    Case("Dropout", {"p": 0.2}),
    Case("Dropout2d", {"p": 0.2}),
    Case("ELU", {"alpha": 0.5}),
    Case("Exp", {}),
    Case("Flatten", {"start_dim": 1, "end_dim": -1}),
    Case("GELU", {}),
    Case("GroupNorm", {"num_groups": 2, "num_channels": 4, "eps": 1e-3}),
    Case("GroupNorm", {"num_groups": 4, "num_channels": 4, "affine": False}),
    Case("Hardshrink", {"lambd": 0.3}),
    Case("Hardtanh", {"min_val": -0.5, "max_val": 0.25}),
    Case("Identity", {}),
    Case("LayerNorm", {"normalized_shape": (7,), "eps": 1e-3}),
    Case("LayerNorm", {"normalized_shape": [8, 7], "elementwise_affine": False}),
    Case("LeakyReLU", {"negative_slope": 0.1}),
    Case("LearnedScale", {"shape": (4, 1, 1)}),
    Case("LearnedShift", {"shape": (1, 4, 8, 1)}),
    Case("Linear", {"in_features": 7, "out_features": 5}),
    Case("Linear", {"in_features": 7, "out_features": 5, "bias": False}, ((2, 7),)),
    Case("LocalResponseNorm", {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0}),
    Case("Log", {}),
    Case("LogSigmoid", {}),
    Case("LogSoftmax", {"dim": 1}),
    Case("MatMul", {}, (IMAGE, (2, 4, 7, 3))),
    Case("Max", {"dim": 2, "keepdim": False}),
    Case("Maximum", {}, (IMAGE, IMAGE)),
    Case("MaxPool2d", {"kernel_size": 2}),
    Case("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": (1, 0), "ceil_mode": True}),
    Case("MaxPool2d", {"kernel_size": 2, "stride": 1, "dilation": (2, 1)}),
    Case("MaxPoolIndices", {"kernel_size": 2}),
    Case("MaxPoolIndices", {"kernel_size": (3, 2), "stride": 2, "padding": (1, 0)}),
    Case("MaxUnpool", {"output_size": (8, 7)}, ((2, 4, 4, 3), (2, 4, 4, 3))),
    Case("Mean", {"dim": 1, "keepdim": True}),
    Case("Min", {"dim": 3, "keepdim": True}),
    Case("Minimum", {}, (IMAGE, (1, 4, 1, 1))),
    Case("Mul", {}, (IMAGE, (2, 1, 8, 7))),
    Case("Narrow", {"dim": 1, "start": 1, "length": 2}),
    Case("Pad", {"padding": (0, 1, 2, 3), "value": 0.5}),
    Case("Pad", {"padding": (-1, 0, 0, -2), "value": 0.0}),
    Case("Permute", {"dims": (0, 2, 3, 1)}),
    Case("PixelShuffle", {"upscale_factor": 2}),
    Case("Power", {"exponent": 2}),
    Case("PReLU", {"num_parameters": 1}),
    Case("PReLU", {"num_parameters": 4}),
    Case("ReflectionPad2d", {"padding": (1, 0, 2, 3)}),
    Case("ReLU", {}),
    Case("ReLU6", {}),
    Case("Replicate", {"dim": 1, "count": 3}),
    Case("ReplicationPad2d", {"padding": (0, 1, 2, 3)}),
    Case("Reshape", {"shape": (-1, 28)}),
    Case("Reshape", {"shape": (2, 7, 4, 8)}),
    Case("RReLU", {"lower": 0.1, "upper": 0.4}),
    Case("Scale", {"factor": -0.1}),
    Case("Select", {"dim": 2, "index": 5}),
    Case("SELU", {}),
    Case("Shift", {"offset": -0.3}),
    Case("Sigmoid", {}),
    Case("Softmax", {"dim": 1}),
    Case("Softplus", {"beta": 2, "threshold": 1.5}),
    Case("Softshrink", {"lambd": 0.3}),
    Case("Softsign", {}),
    Case("Sub", {}, (IMAGE, IMAGE)),
    Case("Sum", {"dim": 1, "keepdim": False}),
    Case("Tanh", {}),
    Case("Tanhshrink", {}),
    Case("Threshold", {"threshold": 0.1, "value": -2.0}),
    Case("UpsamplingBilinear2d", {"size": (11, 14)}),
    Case("UpsamplingNearest2d", {"scale_factor": 2}),
)


class Layer(NamedTuple):
    """A node before its arguments are spelled out."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: dict[str, Any] = {}


def graph_of(
    shapes: Sequence[Shape], *layers: Layer, outputs: Sequence[str] = (), dynamic: bool = False
) -> Graph:
    """Return the graph of these layers; without `outputs`, the last one is the output."""
    inputs = tuple(map(Input, numbered("input", len(shapes)), shapes))
    known: dict[str, Shape] = dict(inputs)
    nodes = []
    for layer in layers:
        found = infer(layer.op, layer.attrs, [known[name] for name in layer.inputs])
        known[layer.name] = found.shape
        nodes.append(Node(layer.name, layer.op, layer.inputs, found.attrs))
    return Graph(inputs, tuple(nodes), tuple(outputs) or (nodes[-1].name,), dynamic)


def chain(shape: Shape, *layers: tuple[str, dict[str, Any]], dynamic: bool = False) -> Graph:
    """Return a graph of layers one after the other, named `0`, `1`, ... as nn.Sequential does."""
    names = ["input", *(str(index) for index in range(len(layers)))]
    return graph_of(
        [shape],
        *(
            Layer(name, op, (source,), attrs)
            for source, name, (op, attrs) in zip(names, names[1:], layers, strict=False)
        ),
        dynamic=dynamic,
    )


def one_node(case: Case, *, dynamic: bool = False) -> Graph:
    """Return the graph that has only this op."""
    inputs = numbered("input", len(case.shapes))
    return graph_of(case.shapes, Layer("only", case.op, inputs, case.attrs), dynamic=dynamic)


def filled(graph: Graph, seed: int = 0) -> Network:
    """Return the graph with seeded numbers in every tensor that it needs."""
    generator = np.random.default_rng(seed)
    tied = {name for name, _ in graph.ties}
    tensors = {}
    with torch.device("meta"):
        for node in graph.nodes:
            for tensor, shape in tensor_shapes(create(node.op, node.attrs)).items():
                name = f"{node.name}.{tensor}"
                array = generator.standard_normal(shape, np.float32)
                if name not in tied:
                    tensors[name] = np.abs(array) + 1 if tensor == "running_var" else array
    return Network(graph, tensors)


def batches(shapes: Sequence[Shape], seed: int = 0) -> list[np.ndarray]:
    """Return seeded normal noise of these shapes."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape, np.float32) for shape in shapes]


CLASSIFIER = chain(
    (2, 3, 8, 8),
    ("Conv2d", {"in_channels": 3, "out_channels": 8, "kernel_size": 3, "bias": False}),
    ("BatchNorm2d", {"num_features": 8}),
    ("ReLU", {}),
    ("MaxPool2d", {"kernel_size": 2}),
    ("Flatten", {"start_dim": 1, "end_dim": -1}),
    ("Dropout", {"p": 0.5}),
    ("Linear", {"in_features": 72, "out_features": 6}),
    dynamic=True,
)

SHARED = replace(
    graph_of(
        [(2, 3)],
        Layer("fc", "Linear", ("input",), {"in_features": 3, "out_features": 3}),
        Layer("act", "ReLU", ("fc",)),
        Layer("fc@2", "Linear", ("act",), {"in_features": 3, "out_features": 3}),
        Layer("sum", "Add", ("fc", "fc@2")),
    ),
    ties=(("fc@2.weight", "fc.weight"), ("fc@2.bias", "fc.bias")),
)

TWO_IN_TWO_OUT = graph_of(
    [(2, 3), (2, 3)],
    Layer("a.sum", "Add", ("input_1", "input_2")),
    Layer("a.scaled", "Scale", ("a.sum",), {"factor": 0.5}),
    Layer("b", "Linear", ("input_2",), {"in_features": 3, "out_features": 4}),
    outputs=("a.scaled", "b"),
    dynamic=True,
)

_WORDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ReLU", {}),
    ("Identity", {}),
    ("Dropout", {"p": 0.5}),
    ("Scale", {"factor": 0.5}),
    ("Scale", {"factor": -2.0}),
    ("Linear", {"in_features": 3, "out_features": 3, "bias": True}),
    ("Linear", {"in_features": 3, "out_features": 3, "bias": False}),
    ("Add", {}),
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw a graph over rows of three numbers, with ties, and with nodes that no output needs."""
    inputs = tuple(Input(name, (2, 3)) for name in numbered("input", draw(st.integers(1, 2))))
    names = [given.name for given in inputs]
    nodes: list[Node] = []
    for index in range(draw(st.integers(1, 7))):
        op, attrs = draw(st.sampled_from(_WORDS))
        sources = tuple(draw(st.sampled_from(names)) for _ in range(2 if op == "Add" else 1))
        nodes.append(Node(f"n{index}", op, sources, dict(attrs)))
        names.append(f"n{index}")
    outputs = draw(
        st.lists(
            st.sampled_from([node.name for node in nodes]), min_size=1, max_size=2, unique=True
        )
    )
    weighted = [f"{node.name}.weight" for node in nodes if node.op == "Linear"]
    ties = [(name, weighted[0]) for name in weighted[1:] if draw(st.booleans())]
    return Graph(inputs, tuple(nodes), tuple(outputs), draw(st.booleans()), tuple(ties))
