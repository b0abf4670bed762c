"""Tracing: the inverse of building, and a refusal for whatever graphs cannot say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor, fx, nn

from models.build import build
from models.errors import ArtifactError
from models.graph import Graph, Network
from models.trace import trace
from models.verify import run
from tests.small_networks import (
    CASES,
    CLASSIFIER,
    SHARED,
    TWO_IN_TWO_OUT,
    Case,
    Layer,
    batches,
    filled,
    graph_of,
    graphs,
    one_node,
)

UNPOOL = graph_of(
    [(1, 2, 4, 6)],
    Layer("pool", "MaxPool2d", ("input",), {"kernel_size": 2}),
    Layer("places", "MaxPoolIndices", ("input",), {"kernel_size": 2}),
    Layer("unpool", "MaxUnpool", ("pool", "places"), {"output_size": (4, 6)}),
)


def retraced(network: Network) -> Network:
    shapes = [one.shape for one in network.graph.inputs]
    return trace(build(network), shapes, dynamic=network.graph.dynamic)


def assert_inverse(graph: Graph) -> None:
    network = filled(graph)
    again = retraced(network)
    assert again.graph == network.graph
    assert again.tensors.keys() == network.tensors.keys()
    for name, array in network.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], array)


@pytest.mark.parametrize(
    "graph",
    [CLASSIFIER, SHARED, TWO_IN_TWO_OUT, UNPOOL],
    ids=["classifier", "ties", "two in, two out", "unpooling"],
)
def test_trace_is_the_inverse_of_build(graph: Graph) -> None:
    """Names, attributes, wiring, ties and numbers come back."""
    assert_inverse(graph)


@pytest.mark.parametrize("case", [case for case in CASES if case.op != "MaxUnpool"], ids=str)
def test_every_op_is_traced_back(case: Case) -> None:
    """Each op of the vocabulary, in every setting of the table."""
    assert_inverse(one_node(case))


@given(graphs())
def test_any_graph_is_traced_back(graph: Graph) -> None:
    """Ties and nodes that no output needs included; a second copy of a tie is not stored."""
    assert_inverse(graph)


class _Handwritten(nn.Module):
    """A class as a person writes it, with everything that tracing understands."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Conv2d(3, 4, 1)  # named as the graph's input is
        self.norm = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1, bias=False))
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.norm(self.input(x)))
        x = x + 0.5 * self.blocks[1](x)
        x = torch.cat([x, x * 2], 1)
        return self.fc(torch.flatten(x, 1))


def test_a_class_is_traced_to_a_graph_that_builds() -> None:
    """The graph of a hand-written class gives that class's outputs, a layer used twice included."""
    module = _Handwritten().eval()
    network = trace(module, [(2, 3, 1, 1)])
    assert network.graph.dynamic
    assert [(node.name, node.op) for node in network.graph.nodes] == [
        ("input@2", "Conv2d"),
        ("norm", "BatchNorm2d"),
        ("blocks.0", "ReLU"),
        ("blocks.1", "Conv2d"),
        ("blocks.1@2", "Conv2d"),
        ("mul", "Scale"),
        ("add", "Add"),
        ("mul_1", "Scale"),
        ("cat", "Concat"),
        ("flatten", "Flatten"),
        ("fc", "Linear"),
    ]
    assert network.graph.ties == (("blocks.1@2.weight", "blocks.1.weight"),)
    assert network.parameters == sum(one.numel() for one in module.parameters())
    inputs = batches([(2, 3, 1, 1)])
    np.testing.assert_array_equal(run(build(network), inputs)[0], run(module, inputs)[0])


def test_a_layer_used_again_and_again_is_counted() -> None:
    """Each use has a name of its own, and all share the tensors of the first."""
    graph = trace(_Lambda(lambda m, x: m.fc(m.fc(m.fc(x)))), [(2, 3)]).graph
    assert [node.name for node in graph.nodes] == ["fc", "fc@2", "fc@3"]
    assert set(graph.ties) == {
        (f"fc@{use}.{tensor}", f"fc.{tensor}") for use in (2, 3) for tensor in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("compute", "attrs"),
    [
        (lambda m, x: torch.cat([x, x]), {"dim": 0}),
        (lambda m, x: torch.flatten(x), {"start_dim": 0, "end_dim": -1}),
    ],
    ids=["cat", "flatten"],
)
def test_arguments_that_are_left_out_are_torchs(
    compute: Callable[..., Any], attrs: dict[str, Any]
) -> None:
    """What a class does not say means what PyTorch means by it."""
    network = trace(_Lambda(compute), [(2, 3)])
    inputs = batches([(2, 3)])
    assert network.graph.nodes[0].attrs == attrs
    (ours,), (theirs,) = run(build(network), inputs), run(_Lambda(compute), inputs)
    np.testing.assert_array_equal(ours, theirs)


def test_a_module_without_memory_has_a_graph_and_no_tensors() -> None:
    """Architectures are compared without giving them numbers."""
    with torch.device("meta"):
        module = _Handwritten()
    network = trace(module, [(2, 3, 1, 1)])
    assert network.graph == trace(_Handwritten(), [(2, 3, 1, 1)]).graph
    assert network.tensors == {}


class _Lambda(nn.Module):
    """Two layers and any computation."""

    def __init__(self, compute: Callable[..., Any], act: nn.Module | None = None) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.act = act or nn.ReLU()
        self.gain = nn.Parameter(torch.ones(3))
        self.compute = compute

    def forward(self, x: Tensor) -> Any:
        return self.compute(self, x)


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "function": (lambda m, x: torch.sigmoid(x), "sigmoid: call_function .* has no word in graphs"),
    "method": (lambda m, x: x.flatten(1), "flatten: call_method flatten has no word in graphs"),
    "in place": (lambda m, x: m.fc(x).add_(x), "add_: call_method add_ has no word in graphs"),
    "parameter": (lambda m, x: x + m.gain, "gain: get_attr gain has no word in graphs"),
    "product": (lambda m, x: x * m.fc(x), r"x \* fc: a product of tensors has no word in graphs"),
    "sum with a number": (lambda m, x: x + 1.5, "add: takes 1.5, expected tensors"),
    "number to a layer": (lambda m, x: m.fc(2), "fc: takes 2, expected tensors"),
    "keyword": (lambda m, x: m.fc(input=x), "fc: call_module fc has no word in graphs"),
    "dictionary out": (lambda m, x: {"y": m.fc(x)}, r"output: takes \{'y': fc\}, expected tensors"),
    "other keyword": (
        lambda m, x: torch.cat([x, x], axis=1),
        "cat: .*'axis': 1.*arguments that have no word in graphs",
    ),
    "factor that is no number": (
        lambda m, x: x * (1, 2),
        "mul: .*arguments that have no word in graphs",
    ),
    "nothing out": (lambda m, x: None, "output: takes None, expected tensors"),
    "branch": (
        lambda m, x: x if x.sum() > 0 else m.fc(x),
        "_Lambda: symbolically traced variables",
    ),
}


@pytest.mark.parametrize(("compute", "message"), REFUSED.values(), ids=REFUSED)
def test_what_graphs_cannot_say_is_refused(compute: Callable[..., Any], message: str) -> None:
    """A computation is translated exactly, or the error says which one has no word."""
    with pytest.raises(ArtifactError, match=f"^{message}"):
        trace(_Lambda(compute), [(2, 3)])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Mish(), "mish: call_function .* has no word in graphs: write it with the layers"),
        (nn.Softmax(), "act: .* has an argument that graphs cannot say"),
        (nn.AvgPool2d(1, divisor_override=2), "act: divisor_override=2, graphs can only say None"),
    ],
    ids=["unknown module", "unknown argument", "unsaid argument"],
)
def test_layers_that_graphs_cannot_say_are_refused(layer: nn.Module, message: str) -> None:
    """A module outside the vocabulary, or with settings outside of it, is not approximated."""
    with pytest.raises(ArtifactError, match=f"^{message}"):
        trace(_Lambda(lambda m, x: m.act(x), layer), [(2, 3)])


def test_an_unknown_module_of_a_graph_module_is_refused() -> None:
    """Fx keeps torch's own layers whole, so they arrive under their names."""
    module = fx.symbolic_trace(_Lambda(lambda m, x: m.act(x), nn.Mish()))
    with pytest.raises(ArtifactError, match="^act: call_module act has no word in graphs"):
        trace(module, [(2, 3)])


@pytest.mark.parametrize("shapes", [[], [(2, 3), (2, 3)]], ids=["too few", "too many"])
def test_every_input_has_a_shape(shapes: list[tuple[int, ...]]) -> None:
    """A wrong number of shapes is the caller's mistake and is not passed over."""
    with pytest.raises(ValueError, match="argument 2 is"):
        trace(_Lambda(lambda m, x: m.fc(x)), shapes)
