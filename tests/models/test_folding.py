"""A network with its BatchNorms folded computes what it computed before."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models.build import build
from models.folding import folded, folded_graph
from models.graph import Graph, Network
from models.verify import run
from tests.small_networks import CLASSIFIER, Layer, batches, chain, filled, graph_of

ROUNDED = 1e-6  # of the largest output: the folded weights are rounded to float32

LINEAR: dict[str, Any] = {"in_features": 5, "out_features": 4}
CONV: dict[str, Any] = {"in_channels": 3, "out_channels": 4, "kernel_size": 3}
NORM = ("BatchNorm2d", {"num_features": 4})
FOLDS = {
    "a classifier": CLASSIFIER,
    "a layer with a bias": chain((2, 3, 8, 8), ("Conv2d", CONV), NORM),
    "groups": chain((2, 4, 8, 8), ("Conv2d", CONV | {"in_channels": 4, "groups": 4}), NORM),
    "rows": chain((3, 5), ("Linear", LINEAR), ("BatchNorm1d", {"num_features": 4})),
    "no scale": chain(
        (2, 3, 8, 8), ("Conv2d", CONV), ("BatchNorm2d", {"num_features": 4, "affine": False})
    ),
}
READ_TWICE = graph_of(
    [(2, 3, 8, 8)],
    Layer("conv", "Conv2d", ("input",), CONV),
    Layer("norm", *NORM[:1], ("conv",), NORM[1]),
    Layer("sum", "Add", ("conv", "norm")),
)
KEPT = {
    "read twice": READ_TWICE,
    "an output": replace(READ_TWICE, outputs=("conv", "norm")),
    "first": chain((2, 4, 8, 8), NORM),
    "after an activation": chain((2, 3, 8, 8), ("Conv2d", CONV), ("ReLU", {}), NORM),
    "shared": replace(
        chain((2, 3, 8, 8), ("Conv2d", CONV), NORM, NORM), ties=(("2.weight", "1.weight"),)
    ),
}


def outputs(network: Network) -> np.ndarray:
    inputs = batches([one.shape for one in network.graph.inputs])
    (found,) = run(build(network).double(), inputs, torch.float64)
    return found


@pytest.mark.parametrize("graph", FOLDS.values(), ids=FOLDS)
def test_a_folded_network_gives_the_same(graph: Graph) -> None:
    """Without its BatchNorms, and with the same names, the network gives the same numbers."""
    network = filled(graph)
    thin = folded(network)
    assert not [node for node in thin.graph.nodes if node.op.startswith("BatchNorm")]
    assert [node.name for node in thin.graph.nodes] == [node.name for node in graph.nodes]
    before = outputs(network)
    np.testing.assert_allclose(outputs(thin), before, rtol=0, atol=ROUNDED * np.abs(before).max())
    assert network.tensors.keys() == filled(graph).tensors.keys()  # the original is left alone


@pytest.mark.parametrize("graph", KEPT.values(), ids=KEPT)
def test_what_others_need_stays(graph: Graph) -> None:
    """A BatchNorm stays where what is before it is read elsewhere, is shared, or has no weights."""
    assert folded_graph(graph) == graph
