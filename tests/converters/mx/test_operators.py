"""Every rule gives what MXNet gave, for graphs that MXNet wrote; what has no rule is refused."""

import json
from collections.abc import Mapping

import numpy as np
import pytest

from converters.lowering import Lowered
from converters.mx import MXSource
from converters.mx.network import plain
from models.build import build
from models.errors import UnsupportedLayer
from models.export import export_onnx
from models.graph import Graph, Input, Network, numbered
from models.ops import infer
from models.postprocess import probabilities
from models.session import Session
from models.verify import run
from tests.oracles import golden

RELATIVE = 1e-6  # of the largest output: MXNet's own two ways differ by half of that
OPS = json.loads(golden("mxnet/ops/manifest.json").read_text(encoding="utf-8"))
REFUSED = {name for name in OPS if name.endswith("emptywindow")}
CONVERTED = [name for name in OPS if name not in REFUSED]


def lowered(name: str) -> Lowered:
    folder = golden("mxnet/ops")
    source = MXSource(folder / f"{name}-0000.params", symbol_path=folder / f"{name}-symbol.json")
    return source.lower([tuple(OPS[name]["data_shape"])], infer)


def check(name: str, outputs: list[np.ndarray]) -> None:
    """Compare with what MXNet gave; a classifier's softmax is applied where it is served."""
    expected = np.load(golden(f"mxnet/ops/{name}-expected.npz"))
    assert len(outputs) == len(OPS[name]["outputs"])
    for index, ours in enumerate(outputs):
        theirs = expected[f"output{index}"]
        if "SoftmaxOutput" in OPS[name]["ops"] and ours.ndim == 2 and len(outputs) == 1:
            ours = probabilities(ours, "logits")
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= RELATIVE * np.abs(theirs).max()


def data(name: str) -> np.ndarray:
    return np.load(golden(f"mxnet/ops/{name}-expected.npz"))["data"]


@pytest.mark.parametrize("name", CONVERTED)
def test_equals_mxnet(name: str) -> None:
    """A module built from the graph gives MXNet's outputs, shapes included."""
    check(name, run(build(lowered(name).network), [data(name)]))


def merged(networks: Mapping[str, Network]) -> Network:
    """Return many networks as one, side by side: exporting costs more by the file than the node."""
    inputs, nodes, outputs, tensors = [], [], [], {}
    ties: list[tuple[str, str]] = []
    for place, (name, network) in zip(
        numbered("input", len(networks)), networks.items(), strict=True
    ):
        (given,) = network.graph.inputs
        called = {given.name: place}
        inputs.append(Input(place, given.shape))
        for one in network.graph.nodes:
            called[one.name] = f"{plain(name)}.{one.name}"
            nodes.append(
                one._replace(name=called[one.name], inputs=tuple(called[i] for i in one.inputs))
            )
        outputs += [called[one] for one in network.graph.outputs]
        tensors |= {f"{plain(name)}.{key}": array for key, array in network.tensors.items()}
        ties += [
            (f"{plain(name)}.{one}", f"{plain(name)}.{two}") for one, two in network.graph.ties
        ]
    return Network(Graph(tuple(inputs), tuple(nodes), tuple(outputs), ties=tuple(ties)), tensors)


def test_all_equal_mxnet_in_onnx() -> None:
    """The ONNX form gives MXNet's outputs as well."""
    networks = {name: lowered(name).network for name in CONVERTED}
    whole = merged(networks)
    proto = export_onnx(build(whole), whole.graph)
    outputs = iter(Session(proto.SerializeToString()).run(*(data(name) for name in CONVERTED)))
    for name, network in networks.items():
        check(name, [next(outputs) for _ in network.graph.outputs])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_windows_of_nothing_are_refused(name: str) -> None:
    """MXNet gives the smallest float, or 0; torch has fewer windows."""
    with pytest.raises(UnsupportedLayer, match="with a window wholly outside the image"):
        lowered(name)
