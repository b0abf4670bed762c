"""Gluon's ResNet-v2: what MXNet exported is this class, and so are its saved names."""

import math

import pytest
import torch
from torch import nn

from converters.mx import MXSource, params
from converters.mx.checkpoints import of_epoch
from converters.packing import unpacked
from models.architectures import create, recognise
from models.architectures.gluon_resnet import GluonResNetV2
from models.ops import infer
from tests.oracles import golden

SIGMAS = 5  # of the standard deviation's own: once in two million draws, and the seed is fixed


def test_the_exported_network_is_the_class() -> None:
    """Recognised by structure, with Gluon's structural names for its tensors."""
    located = of_epoch(golden("mxnet/gluon") / "resnet50_v2", 0)
    with unpacked(located.params) as plain:
        source = MXSource(plain, located.params, symbol_path=located.symbol)
    found = recognise(source.lower([(2, 3, 224, 224)], infer).network)
    assert found is not None
    assert found.architecture.name == "gluon_resnet_v2_50"
    assert "features.5.0.downsample.weight" in found.network.tensors


def test_saved_names_are_the_class() -> None:
    """Every name of a `save_parameters` file is a tensor's, with torch's word at its end."""
    with torch.device("meta"):
        module = GluonResNetV2(10, num_classes=30, widths=(8, 8, 12, 16, 24))
    saved = params.read(golden("mxnet/gluon/mx1.2-resnet_v2-tiny.save_parameters.params")).arrays
    words = {"gamma": "weight", "beta": "bias"}
    theirs = {}
    for name, array in saved.items():
        layer, _, word = name.rpartition(".")
        assert array is not None
        theirs[f"{layer}.{words.get(word, word)}"] = array.shape
    ours = {key: tuple(one.shape) for key, one in module.state_dict().items()}
    assert {key: ours[key] for key in ours if "num_batches" not in key} == theirs


def test_the_first_scale_stays_one() -> None:
    """Gluon's `scale=False`: it is no parameter that learns."""
    network = create("gluon_resnet_v2_18", width_divisor=8)
    frozen = [name for name, one in network.named_parameters() if not one.requires_grad]
    assert frozen == ["features.0.weight"]


def test_initial_values_are_the_originals() -> None:
    """Uniform by the mean of fan-in and fan-out; biases 0, BatchNorm 1 and 0."""
    torch.manual_seed(1)
    network = create("gluon_resnet_v2_18", width_divisor=2)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight
            bound = math.sqrt(2 / ((weight[0].numel() + weight[:, 0].numel()) / 2))
            assert weight.abs().max() <= bound
            rel = SIGMAS / math.sqrt(weight.numel())
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=rel)
