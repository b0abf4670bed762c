"""Every class that has a rule is held against something, and no seed network lacks one."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from converters.packing import unpacked
from converters.t7 import T7Source
from converters.t7.network import layer
from converters.t7_oracle import DEFINITIONS
from models.build import build
from models.export import export_onnx
from models.ops import infer
from models.session import Session
from models.verify import run
from tests.converters.t7 import (
    test_containers,
    test_normalization,
    test_padding,
    test_pointwise,
    test_pooling,
    test_reductions,
    test_resizing,
    test_shapes,
    test_tables,
    test_weights,
)
from tests.oracles import golden
from tests.t7_writer import Module
from tests.torch7 import definition, lowered, numbers, read_arrays, side_by_side

MANIFEST = json.loads(golden("torch7/manifest.json").read_text())
FLOAT32 = 1e-5  # of the largest output: float32 sums of up to a hundred terms, and their powers
NOISE_FACTOR = 2  # Torch7 and we are each off by the network's own noise, in opposite directions
TABLES = {
    module.__name__.rpartition("test_")[2]: module.CASES
    for module in (
        *(test_containers, test_normalization, test_padding, test_pointwise, test_pooling),
        *(test_reductions, test_resizing, test_shapes, test_tables, test_weights),
    )
}
# Written in test_graphs, node by node, or in tables of their own.
OTHERS = {"nn.gModule", "nngraph.JustElement", "nngraph.JustTable", *test_pointwise.IN_PLACE}
OTHERS |= {f"nn.{name}" for name in test_pointwise.NEVER_IN_PLACE}


def stored(value: Any) -> Iterator[str]:
    """Yield the classes of a module that is to be written, and of all that it holds."""
    if isinstance(value, Module):
        yield value.class_name
        value = value.fields
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from stored(item)


def test_every_rule_is_compared() -> None:
    """With a file that Torch7 wrote, or with the definition of its class."""
    fixtures = {name for entry in MANIFEST for name in entry.get("stored_classes", ())}
    tables = {name for cases in TABLES.values() for name in stored([*cases.values()])}
    assert [name for name in layer.names() if name not in fixtures | tables | OTHERS] == []


@pytest.mark.parametrize("cases", TABLES.values(), ids=TABLES)
def test_every_case_holds_in_onnx(cases: dict[str, tuple[Any, ...]]) -> None:
    """The ONNX form gives in float32 what the definitions give, shapes included."""
    inputs = [[numbers(*shape) for shape in shapes] for _, *shapes in cases.values()]
    networks = [lowered(module, shapes) for module, *shapes in cases.values()]
    together = side_by_side(networks)
    session = Session(export_onnx(build(together), together.graph).SerializeToString())
    found = iter(session.run(*(array for several in inputs for array in several)))
    for (name, (module, *_)), given in zip(cases.items(), inputs, strict=True):
        for theirs in definition(module, given):
            ours = next(found)
            assert ours.shape == theirs.shape, name
            assert np.abs(ours - theirs).max() <= FLOAT32 * np.abs(theirs).max(), name
    assert not list(found)


def test_every_class_of_the_seed_networks_has_a_rule() -> None:
    """No layer of Inception-ResNet-v2, of the fifteen models or of the example is left out."""
    seeds = [entry for entry in MANIFEST if entry.get("file", "").startswith(("models/", "irv2/"))]
    classes = {
        name for entry in seeds for name in entry["stored_classes"] if not name.startswith("torch.")
    }
    example = {
        "nn.ReLU6",
        "nn.SpatialDepthWiseConvolution",
        "nn.SpatialZeroPadding",
        "nn.SpatialAveragePooling",
    }
    assert len(seeds) == 16
    assert [name for name in classes | example if name not in layer] == []


def test_two_rules_for_one_class_are_refused() -> None:
    """A class means one thing."""
    with pytest.raises(ValueError, match=r"two rules for nn\.Linear"):
        layer("nn.Linear")(layer["nn.Tanh"])


def test_inception_resnet_v2_stage_by_stage() -> None:
    """All 27 stages have Torch7's channel means, and the logits are within noise."""
    expected = read_arrays(golden("torch7/irv2/irv2_full.npz"))
    packed = golden("torch7/irv2/irv2_full.t7.xz")
    with unpacked(packed) as path:
        source = T7Source(path, packed)
    network = source.lower([expected["input"].shape], infer).network
    module = build(network)
    stages: dict[int, np.ndarray[Any, Any]] = {}

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: torch.Tensor) -> None:
            stages[int(name.split(".")[0])] = output.numpy()

        return hook

    for node in network.graph.nodes:  # the last of a stage wins
        module.get_submodule(node.name).register_forward_hook(keep(node.name))
    (logits,) = run(module, [expected["input"]])
    stages = dict(enumerate(stages[index] for index in sorted(stages)))
    assert len(stages) == 27
    for index, output in stages.items():
        means = output.mean(axis=(2, 3)) if output.ndim == 4 else output
        theirs = expected[f"stage_{index + 1}"]
        # means of up to 149 x 149 float32 values, computed in Torch7 in float32 as well
        np.testing.assert_allclose(
            means.ravel(), theirs.ravel(), rtol=1e-4, atol=1e-5 * np.abs(theirs).max()
        )
    theirs = expected["output"].ravel()
    # the file's float64 outputs are magnitudes: no sign survived, in Torch7's float32 ones they did
    noise = np.abs(np.abs(theirs) - expected["output_float64_rounded"].ravel()).max()
    assert np.abs(logits.ravel() - theirs).max() <= NOISE_FACTOR * noise


def test_every_rule_has_a_definition_and_the_other_way_round() -> None:
    """Whatever converts can be verified, and no definition is there that nothing runs."""
    assert sorted(DEFINITIONS) == layer.names()
