"""Building: the graph's own numbers in a module that runs, or every reason why not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from models.build import build, check_shapes
from models.errors import ArtifactError, WeightMismatch
from models.graph import Graph, Input, Network, Node
from models.verify import run
from tests.small_networks import (
    CLASSIFIER,
    SHARED,
    TWO_IN_TWO_OUT,
    Layer,
    chain,
    filled,
    graph_of,
    graphs,
)


def test_the_module_is_for_inference() -> None:
    """Dropout passes everything, BatchNorm uses the file's statistics, calls repeat exactly."""
    module = build(filled(CLASSIFIER))
    assert not any(layer.training for layer in module.modules())
    batch = torch.ones(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(module(batch), module(batch))


def test_names_are_the_nodes_names() -> None:
    """Submodules and `state_dict` speak the names of the graph, dots and all."""
    layers = Layer("stem.0.conv", "Linear", ("input",), {"in_features": 3, "out_features": 2})
    module = build(filled(graph_of([(1, 3)], layers)))
    assert set(module.state_dict()) == {"stem.0.conv.weight", "stem.0.conv.bias"}
    assert isinstance(module.get_submodule("stem.0.conv"), torch.nn.Linear)


def test_it_computes_what_the_graph_says() -> None:
    """Two layers, by hand."""
    graph = graph_of(
        [(1, 2)],
        Layer("fc", "Linear", ("input",), {"in_features": 2, "out_features": 1}),
        Layer("scaled", "Scale", ("fc",), {"factor": 0.5}),
    )
    tensors = {"fc.weight": np.float32([[3, -1]]), "fc.bias": np.float32([4])}
    (output,) = run(build(Network(graph, tensors)), [np.float32([[1, 2]])])
    assert output.tolist() == [[2.5]]


def test_several_outputs_are_a_tuple() -> None:
    """In the graph's order; inputs are taken in the graph's order as well."""
    network = filled(TWO_IN_TWO_OUT)
    module = build(network)
    one, two = torch.ones(2, 3), torch.full((2, 3), 3.0)
    with torch.inference_mode():
        scaled, linear = module(one, two)
    assert torch.equal(scaled, torch.full((2, 3), 2.0))
    assert linear.shape == (2, 4)


def test_tied_tensors_are_one() -> None:
    """A tie is one Parameter: it has one gradient, is moved once and counted once."""
    module = build(filled(SHARED))
    assert module.get_parameter("fc.weight") is module.get_parameter("fc@2.weight")
    assert len(list(module.parameters())) == 2
    assert sum(one.numel() for one in module.parameters()) == filled(SHARED).parameters


def test_tied_statistics_are_one() -> None:
    """Buffers are shared as parameters are."""
    norm = ("BatchNorm1d", {"num_features": 3})
    graph = graph_of(
        [(2, 3)], Layer("a", norm[0], ("input",), norm[1]), Layer("b", norm[0], ("a",), norm[1])
    )
    module = build(filled(replace(graph, ties=(("b.running_mean", "a.running_mean"),))))
    assert module.get_buffer("a.running_mean") is module.get_buffer("b.running_mean")
    assert module.get_buffer("a.running_var") is not module.get_buffer("b.running_var")


def test_statistics_are_buffers_and_weights_are_parameters() -> None:
    """The module can be trained on: statistics get no gradient, batches are counted from zero."""
    module = build(filled(CLASSIFIER))
    assert {name for name, _ in module.named_buffers()} == {
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    }
    assert all(one.requires_grad for one in module.parameters())
    module.train()(
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ).sum().backward()
    assert all(one.grad is not None for one in module.parameters())
    assert module.get_buffer("1.num_batches_tracked") == 1


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_tensors_are_copies(dtype: str) -> None:
    """Arrays may be read-only views of a file, of any order of bytes; the module owns its own."""
    network = filled(SHARED)
    source = {name: array.astype(dtype) for name, array in network.tensors.items()}
    for array in source.values():
        array.flags.writeable = False
    module = build(network._replace(tensors=source))
    before = source["fc.bias"].copy()
    with torch.no_grad():
        module.get_parameter("fc.bias").add_(1)
    assert module.get_parameter("fc.weight").dtype == torch.float32
    np.testing.assert_array_equal(source["fc.bias"], before)


@given(graphs())
def test_any_graph_builds_and_runs(graph: Graph) -> None:
    """Whatever `check` accepts can be built from the tensors that it names."""
    outputs = run(build(filled(graph)), [np.ones((2, 3), np.float32) for _ in graph.inputs])
    assert [one.shape for one in outputs] == [(2, 3)] * len(graph.outputs)


def test_all_mismatches_are_listed_at_once() -> None:
    """Missing, unexpected and misshapen tensors stand in one error, both shapes with the last."""
    network = filled(CLASSIFIER)
    tensors = dict(network.tensors)
    del tensors["1.bias"], tensors["1.running_var"]
    tensors["7.weight"] = tensors["nothing"] = np.zeros(1, np.float32)
    tensors["6.bias"] = np.zeros(5, np.float32)
    with pytest.raises(
        WeightMismatch, match="the network: tensors do not match: missing"
    ) as caught:
        build(network._replace(tensors=tensors))
    assert caught.value.missing == ("1.bias", "1.running_var")
    assert caught.value.unexpected == ("7.weight", "nothing")
    assert caught.value.misshapen == ("6.bias is (5,), expected (6,)",)


def test_a_tensor_beside_its_owner_is_unexpected() -> None:
    """A tie and a tensor of its own contradict each other: neither is believed."""
    network = filled(SHARED)
    tensors = {**network.tensors, "fc@2.bias": np.zeros(3, np.float32)}
    with pytest.raises(WeightMismatch, match=r"unexpected: fc@2\.bias$"):
        build(network._replace(tensors=tensors))


@pytest.mark.parametrize(
    ("ties", "message"),
    [
        ((("fc@2.bias", "gone.bias"),), r"missing: fc@2\.bias"),
        ((("fc@2.bias", "fc.weight"),), r"misshapen: fc@2\.bias is \(3, 3\), expected \(3,\)"),
    ],
    ids=["no owner", "another shape"],
)
def test_ties_are_not_believed(ties: tuple[tuple[str, str], ...], message: str) -> None:
    """The owner has to be there, and to fit."""
    with pytest.raises(WeightMismatch, match=message):
        build(filled(replace(SHARED, ties=ties)))


def graph(*nodes: Node) -> Graph:
    return Graph((Input("input", (1, 3)),), nodes, (nodes[-1].name,))


def relu(name: str, source: str = "input", **attrs: Any) -> Node:
    return Node(name, "ReLU", (source,), attrs)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (graph(Node("a", "Attention", ("input",), {})), "node a: there is no op Attention"),
        (graph(relu("a", inplace=True)), "node a: ReLU has no argument inplace"),
        (
            graph(Node("a", "Linear", ("input",), {"in_features": 3})),
            r"node a: Linear\(.*missing 1",
        ),
        (graph(relu("3.0"), relu("3", "3.0")), "node 3: the name 3 is taken"),
        (graph(relu("code")), "node code: the name code is taken"),
        (graph(relu("forward")), "node forward: the name forward is taken"),
        (graph(relu("training")), "node training: .*already exists"),
        (graph(relu("training.0")), "node training.0: .*already exists"),
    ],
    ids=[
        "op",
        "argument",
        "too few",
        "folder",
        "of fx",
        "of torch",
        "of each",
        "of each, as folder",
    ],
)
def test_a_graph_that_cannot_be_built_is_refused(wrong: Graph, reason: str) -> None:
    """A damaged artifact, or one from the future, gives our error with the node's name."""
    with pytest.raises(ArtifactError, match=f"^{reason}.*: damaged, or written by a newer relume$"):
        build(Network(wrong, {}))


@pytest.mark.parametrize(
    "wrong",
    [
        Graph(
            (Input('x=print("run")', (1,)),),
            (relu("a", 'x=print("run")'),),
            ("a",),
        ),
        graph(relu('x") or print("run") or getattr(self, "x')),
    ],
    ids=["input", "node"],
)
def test_names_are_not_executed(wrong: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    """Fx writes names into a Python source and runs it, so a name that is a program is refused."""
    with pytest.raises(ArtifactError, match="^the network: (inputs|node) .*expected"):
        build(Network(wrong, {}))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (chain((2, 0), ("ReLU", {})), r"input input of shape \(2, 0\)"),
        (chain((2, 1 << 30), ("ReLU", {})), "damaged graph: input input of shape"),
        (
            chain((2, 3), ("Pad", {"padding": [0, 1 << 40], "value": 0.0})),
            "node 0 gives",
        ),
        (
            replace(chain((2, 3), ("ReLU", {})), nodes=(Node("0", "Nonsense", ("input",), {}),)),
            "there is no op Nonsense",
        ),
    ],
    ids=["empty", "huge input", "huge node", "unknown op"],
)
def test_a_graph_that_could_not_run_is_refused_before_it_does(graph: Graph, message: str) -> None:
    """Shapes are followed without memory, so that a small artifact cannot ask for all of it."""
    with pytest.raises(ArtifactError, match=message):
        check_shapes(graph, "net.pt")
