"""The ENet encoders: Torch7's own files are these classes."""

import pytest
import torch
from torch import nn

from converters.t7 import T7Source
from models import ops
from models.architectures import create, find, recognise
from models.architectures.enet import VERSIONS, ENet, SpatialDropout
from models.architectures.registry import traced
from models.fingerprint import fingerprint
from tests.oracles import golden

SHAPE = (2, 3, 224, 224)
FILES = {
    "enet_v2": ("enet_v2", 1),
    "enet_v3_div4": ("enet_v3", 4),
    "enet_v7_div2": ("enet_v7", 2),
}


@pytest.mark.parametrize("file", FILES)
def test_torch7s_file_has_the_structure_of_the_class(file: str) -> None:
    """The fingerprints are equal, and recognition finds version, width and classes by itself."""
    name, divisor = FILES[file]
    network = T7Source(golden(f"torch7/models/{file}.t7")).lower([SHAPE], ops.infer).network
    arguments = {"num_classes": 200, "width_divisor": divisor}
    assert fingerprint(traced(find(name), arguments, SHAPE)) == fingerprint(network.graph)
    found = recognise(network)
    assert found is not None
    assert (found.architecture.name, found.arguments) == (name, arguments)
    assert found.network.parameters == network.parameters


@pytest.mark.parametrize("version", VERSIONS)
def test_dropout_starts_low(version: int) -> None:
    """0.01 in the first five blocks, 0.1 after, counted across the network."""
    network = ENet(version, width_divisor=4)
    dropped = [one.p for one in network.modules() if isinstance(one, nn.Dropout2d)]
    assert dropped == [0.01] * 5 + [0.1] * (len(VERSIONS[version]) - 5)


def test_spatial_dropout_is_torch7s_first_kind() -> None:
    """Evaluation makes all channels smaller; training keeps some as they are."""
    torch.manual_seed(0)
    layer, x = SpatialDropout(0.25), torch.ones(1, 1000, 2, 2)
    torch.testing.assert_close(layer.eval()(x), 0.75 * x)
    kept = layer.train()(x)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert kept.mean().item() == pytest.approx(0.75, abs=0.05)


def test_initial_values_are_torch7s_own() -> None:
    """BatchNorm's weights uniform in 0 to 1, slopes a quarter, the rest uniform by fan-in."""
    torch.manual_seed(0)
    for module in create("enet_v3").modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-3
            assert module.weight.std().item() == pytest.approx(12**-0.5, rel=0.6)
            assert not module.bias.any()
        elif isinstance(module, nn.PReLU):
            assert (module.weight == 0.25).all()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            assert 0.8 * bound < module.weight.abs().max().item() <= bound
            assert module.bias is None or module.bias.abs().max().item() <= bound
