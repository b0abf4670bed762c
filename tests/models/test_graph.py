"""Graphs: an exact JSON form, nothing in it believed unchecked, and networks that can count."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from models.errors import ArtifactError
from models.graph import Graph, Input, Network, Node, float32, is_statistic, numbered
from tests.small_networks import CLASSIFIER, SHARED, TWO_IN_TWO_OUT, filled, graphs

RELU = ["a", "ReLU", ["input"], {}]


def text(**changes: Any) -> str:
    """Return the JSON of a sound graph, but for some fields; None leaves a field out."""
    fields = {
        "inputs": [["input", [1, 3]]],
        "nodes": [RELU],
        "outputs": ["a"],
        "dynamic": False,
        "ties": [],
    }
    return json.dumps(
        {key: value for key, value in (fields | changes).items() if value is not None}
    )


@pytest.mark.parametrize(
    "graph", [CLASSIFIER, SHARED, TWO_IN_TWO_OUT], ids=["classifier", "ties", "two in, two out"]
)
def test_json_is_read_back_equal(graph: Graph) -> None:
    """Attributes, ties, several inputs and outputs survive."""
    assert Graph.from_json(graph.to_json()) == graph


@given(graphs())
def test_json_of_any_graph_is_read_back_equal(graph: Graph) -> None:
    """`from_json` is the inverse of `to_json`."""
    assert Graph.from_json(graph.to_json()) == graph


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        text(inputs=None),
        text(inputs=[["input", 5]]),
        text(inputs=[["input"]]),
        text(inputs=[["input", ["x"]]]),
        text(inputs=[["input", [float("inf")]]]),
        text(nodes=[["a", "ReLU", ["input"]]]),
        text(nodes=[["a", "ReLU", ["input"], "ab"]]),
        text(nodes=[["a", "ReLU", 3, {}]]),
        text(outputs=None),
        text(dynamic=None),
        text(ties=[["a.weight"]]),
    ],
    ids=lambda damaged: damaged[:80],
)
def test_text_that_is_no_graph_is_refused(damaged: str) -> None:
    """Whatever is wrong with the text, the error is ours and names the file."""
    with pytest.raises(ArtifactError, match=r"^net\.pt: damaged graph: "):
        Graph.from_json(damaged, "net.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"nodes": [["a", "Add", ["input", "b"], {}], ["b", "ReLU", ["a"], {}]]},
            "node a reads b, not",
        ),
        ({"nodes": [["a", "Add", ["a", "c"], {}]]}, "node a reads a, c, not yet there"),
        ({"nodes": [RELU, RELU]}, "node a is there twice"),
        ({"nodes": [["input", "ReLU", ["input"], {}]]}, "node input is there twice"),
        ({"outputs": []}, "outputs none, expected nodes"),
        ({"outputs": ["a", "b"]}, r"outputs \['b'\], expected nodes"),
        ({"inputs": [["x", [1]]]}, r"inputs \['x'\], expected \['input'\]"),
        (
            {"inputs": [["input", [1]], ["input", [1]]]},
            r"inputs \['input', 'input'\], expected \['input_1', 'input_2'\]",
        ),
    ],
    ids=[
        "forward",
        "itself",
        "duplicate",
        "named as the input",
        "none",
        "unknown",
        "x",
        "same name",
    ],
)
def test_a_graph_that_cannot_run_is_refused(changes: dict[str, Any], message: str) -> None:
    """References point backwards, names are unique, something comes out."""
    with pytest.raises(ArtifactError, match=f"^net.pt: {message}"):
        Graph.from_json(text(**changes), "net.pt")


@pytest.mark.parametrize(
    "name", ["", ".", "a.", "a..b", "a b", 'a")', "a\n", "a\\", "(a)", "a=1", "ä", "a.'b'"]
)
def test_names_hold_nothing_but_names(name: str) -> None:
    """A name that could be read as a piece of program is refused; fx writes names into one."""
    with pytest.raises(ArtifactError, match="expected letters, digits, _@- and single dots"):
        Graph.from_json(text(nodes=[[name, "ReLU", ["input"], {}]], outputs=[name]))


@pytest.mark.parametrize("name", ["0", "3.0.1", "stem.0.conv", "fc@2", "bn-data", "_4_view_2"])
def test_names_of_every_source_are_accepted(name: str) -> None:
    """Torch7 counts, PyTorch names, and layers used again have a mark."""
    graph = Graph.from_json(text(nodes=[[name, "ReLU", ["input"], {}]], outputs=[name]))
    assert graph.outputs == (name,)


def test_nodes_are_found_by_name() -> None:
    """An input is no node."""
    assert SHARED.node("act") == Node("act", "ReLU", ("fc",), {})
    assert SHARED.node("input") is None


def test_parameters_count_ties_once_and_leave_statistics_out() -> None:
    """What is counted is what training would learn."""
    assert filled(SHARED).parameters == 3 * 3 + 3
    classifier = filled(CLASSIFIER)
    assert "1.running_var" in classifier.tensors
    assert classifier.parameters == 8 * 3 * 3 * 3 + 2 * 8 + 72 * 6 + 6


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        ("bn.running_mean", True),
        ("running_var", True),
        ("bn.weight", False),
        ("running_mean.bias", False),
    ],
)
def test_statistics_are_told_by_their_name(tensor: str, expected: bool) -> None:
    """The last part of a tensor's name decides."""
    assert is_statistic(tensor) is expected


@pytest.mark.parametrize(
    ("count", "names"), [(1, ("input",)), (2, ("input_1", "input_2")), (0, ())]
)
def test_only_several_are_numbered(count: int, names: tuple[str, ...]) -> None:
    """One input is called `input`."""
    assert numbered("input", count) == names


def test_outputs_have_names_of_their_own() -> None:
    """What ONNX calls the outputs does not depend on the nodes' names."""
    assert CLASSIFIER.output_names() == ("output",)
    assert TWO_IN_TWO_OUT.output_names() == ("output_1", "output_2")


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4", "<i8", "u1"])
def test_numbers_become_float32(kind: str) -> None:
    """Whatever a file stores, the network computes in float32 of this machine."""
    array = np.array([0, 2], kind)
    assert float32(array).dtype == np.float32
    assert float32(array).tolist() == [0, 2]


def test_numbers_beyond_float32_become_infinite() -> None:
    """They are found when outputs are looked at, so no warning is due here."""
    assert float32(np.array([1e300, -1e300])).tolist() == [np.inf, -np.inf]


def test_float32_is_not_copied() -> None:
    """A view of a large file stays one."""
    array = np.zeros(3, np.float32)
    assert np.shares_memory(float32(array), array)


def test_a_network_is_a_graph_and_its_tensors() -> None:
    """A network without weights has no parameters."""
    graph = Graph((Input("input", (1,)),), (Node("a", "ReLU", ("input",), {}),), ("a",))
    assert Network(graph, {}).parameters == 0
