"""What the comparison of two networks finds, and what it does not take for a difference."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converters import difference
from converters.difference import Parting, compare
from models.folding import folded
from models.graph import Graph, Network
from tests.small_networks import CLASSIFIER, SHARED, Layer, chain, filled, graph_of

FOLDED = 1e-5  # what `relume diff` allows


def changed(network: Network, tensor: str, change: Callable[[np.ndarray], None]) -> Network:
    """Return the network with a tensor of its own, changed."""
    array = network.tensors[tensor].copy()
    change(array)
    return Network(network.graph, network.tensors | {tensor: array})


def with_attrs(graph: Graph, name: str, **attrs: Any) -> Graph:
    """Return the graph with other settings of one layer."""
    return replace(
        graph,
        nodes=tuple(
            node._replace(attrs=node.attrs | attrs) if node.name == name else node
            for node in graph.nodes
        ),
    )


@pytest.mark.parametrize("graph", [CLASSIFIER, SHARED], ids=["a chain", "shared weights"])
def test_a_network_equals_itself(graph: Graph) -> None:
    """Every tensor of every layer is compared, shared ones at each layer, and is equal."""
    found = compare(filled(graph), filled(graph))
    assert found.same_network
    assert found.differing(0) == []
    assert len(found.tensors) == len(filled(graph).tensors) + len(graph.ties)
    assert all(one.max_abs == 0 and one.half for one in found.tensors)


def test_one_changed_number_is_found() -> None:
    """Its tensor is named, with how far it is off and how many others are not."""
    network = filled(CLASSIFIER)
    largest = float(np.abs(network.tensors["6.weight"]).max())

    def change(array: np.ndarray) -> None:
        array[2, 5] += np.float32(0.25)

    (one,) = compare(network, changed(network, "6.weight", change)).differing(0)
    assert (one.a, one.b, one.op, one.differing, one.size) == (
        *("6.weight", "6.weight"),
        *("Linear", 1, 432),
    )
    assert one.max_abs == pytest.approx(0.25, abs=1e-6)
    assert one.scale == pytest.approx(largest)
    assert one.cosine is not None
    assert 0.99 < one.cosine < 1
    assert not one.half
    assert one.within(0.25 / largest * 1.001)
    assert not one.within(0.25 / largest * 0.999)


def test_pieces_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor compared in many pieces gives what it gives in one."""
    a, b = filled(CLASSIFIER), filled(CLASSIFIER, seed=1)
    whole = compare(a, b).tensors
    monkeypatch.setattr(difference, "CHUNK", 7)
    for one, other in zip(compare(a, b).tensors, whole, strict=True):
        assert one._replace(cosine=None) == other._replace(cosine=None)
        assert one.cosine == pytest.approx(other.cosine)


def test_half_precision_is_told() -> None:
    """Weights that were rounded to half precision on the way differ, but not as such."""
    network = filled(CLASSIFIER)
    rounded = {
        name: array.astype(np.float16).astype(np.float32) for name, array in network.tensors.items()
    }
    differing = compare(network, Network(CLASSIFIER, rounded)).differing(0)
    assert differing
    assert all(one.half for one in differing)


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (np.nan, 1.0, False),
        (np.inf, -np.inf, False),
        (1e38, -3e38, False),
    ],
)
def test_numbers_that_are_none(ours: float, theirs: float, equal: bool) -> None:
    """A NaN equals a NaN; against a number it is infinitely far off, whatever is tolerated."""
    one, other = (
        changed(filled(CLASSIFIER), "6.bias", lambda array, value=value: array.fill(value))
        for value in (ours, theirs)
    )
    differing = compare(one, other).differing(1e6 if not np.isfinite(ours) else 0)
    assert [found.a for found in differing] == ([] if equal else ["6.bias"])
    finite = np.isfinite(ours) and np.isfinite(theirs)
    assert all(np.isfinite(found.max_abs) == finite for found in differing)


def test_other_classes_are_no_other_network() -> None:
    """Only the last layer's tensors have other shapes, and both numbers of classes are known."""
    wider = with_attrs(CLASSIFIER, "6", out_features=9)
    found = compare(filled(CLASSIFIER), filled(wider))
    assert found.same_network
    assert found.classes == (6, 9)
    shapes = [one.shapes for one in found.tensors if one.shapes[0] != one.shapes[1]]
    assert shapes == [((6, 72), (9, 72)), ((6,), (9,))]
    assert not [one for one in found.tensors if one.shapes[0] != one.shapes[1] and one.within(9)]


def test_a_setting_is_named() -> None:
    """Another eps makes another network; its weights are compared all the same."""
    found = compare(filled(CLASSIFIER), filled(with_attrs(CLASSIFIER, "1", eps=1e-3)))
    assert not found.same_network
    assert found.parting is None
    assert found.settings == (("1", "1", "BatchNorm2d", "eps", (1e-5, 1e-3)),)
    assert found.differing(0) == []


def test_where_structures_part_is_said() -> None:
    """The first layer that is another is shown on both sides; those before it are compared."""
    longer = chain(
        (2, 3, 8, 8),
        *((node.op, node.attrs) for node in CLASSIFIER.nodes[:3]),
        ("Sigmoid", {}),
        *((node.op, node.attrs) for node in CLASSIFIER.nodes[3:]),
    )
    found = compare(filled(CLASSIFIER), filled(longer))
    assert found.parting is not None
    assert found.parting.place == 4
    assert found.parting.a.startswith("3: MaxPool2d(ceil_mode=False, ")
    assert found.parting.b == "3: Sigmoid() of 2"
    assert found.layers == 3
    assert [one.a for one in found.tensors] == [
        *("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"),
    ]


def test_a_network_that_goes_on_is_said() -> None:
    """Where one network ends and the other does not, its outputs stand there."""
    ended = chain((2, 3), ("Linear", {"in_features": 3, "out_features": 3}))
    further = chain((2, 3), ("Linear", {"in_features": 3, "out_features": 3}), ("ReLU", {}))
    found = compare(filled(ended), filled(further))
    assert found.parting == Parting(2, "the end: outputs 0", "1: ReLU() of 0")


def test_another_input_of_the_same_layer_parts() -> None:
    """What a layer reads counts, not only what it is."""
    layers = [Layer("a", "ReLU", ("input",)), Layer("b", "Sigmoid", ("a",))]
    one, other = (
        graph_of([(2, 3)], *layers, Layer("c", "Add", order)) for order in (("a", "b"), ("b", "b"))
    )
    found = compare(filled(one), filled(other))
    assert found.parting is not None
    assert "c: Add() of b, b" in (found.parting.a, found.parting.b)


def test_sharing_is_structure() -> None:
    """A layer that is used twice is not two layers of equal weights."""
    apart = replace(SHARED, ties=())
    shared = filled(SHARED)
    twice = {name.replace("fc.", "fc@2."): array for name, array in shared.tensors.items()}
    found = compare(shared, Network(apart, {**shared.tensors, **twice}))
    assert found.parting is None
    assert found.settings == ()
    assert not found.shared
    assert not found.same_network
    assert found.differing(0) == []


def test_folded_batch_norms_are_seen_through() -> None:
    """A network whose BatchNorms are in its convolutions is the same one, to rounding."""
    network = filled(CLASSIFIER)
    for pair in ((network, folded(network)), (folded(network), network)):
        found = compare(*pair)
        assert found.same_network
        assert sorted(found.norms) == [0, 1]
        assert found.differing(FOLDED) == []


def test_a_changed_weight_is_found_in_a_folded_network() -> None:
    """What folding hides of the layers' borders, it does not hide of their numbers."""

    def change(array: np.ndarray) -> None:
        array[0] *= 1.01

    network = filled(CLASSIFIER)
    found = compare(changed(network, "1.weight", change), folded(network))
    assert [one.a for one in found.differing(FOLDED)] == ["0.weight", "0.bias"]
