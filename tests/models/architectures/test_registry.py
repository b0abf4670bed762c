"""Architectures are found by name and recognised by structure; nothing else passes for one."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from models.architectures import ARCHITECTURES, Architecture, create, recognise, registry
from models.architectures.registry import architecture
from models.build import build
from models.errors import SpecError
from models.fingerprint import fingerprint
from models.graph import Graph, Network, Node
from models.trace import trace
from tests.small_networks import CLASSIFIER, SHARED, chain, filled

EVERY_ARCHITECTURE = pytest.mark.parametrize("entry", ARCHITECTURES.values(), ids=ARCHITECTURES)
CLASSES = 7


def traced(entry: Architecture, classes: int) -> Graph:
    """Return the graph of a class, without giving it numbers."""
    with torch.device("meta"):
        module = entry.create(num_classes=classes)
    return trace(module, [(2, 3, *entry.input.crop)]).graph


@EVERY_ARCHITECTURE
def test_the_registered_fingerprint_is_the_traced_one(entry: Architecture) -> None:
    """The constant beside a class is computed from that class."""
    assert fingerprint(traced(entry, 1000)) == entry.fingerprint


@EVERY_ARCHITECTURE
def test_the_number_of_classes_is_not_part_of_the_structure(entry: Architecture) -> None:
    """A network fine-tuned to other classes is recognised."""
    assert fingerprint(traced(entry, CLASSES)) == entry.fingerprint


@EVERY_ARCHITECTURE
def test_a_recognised_network_loads_into_its_class(entry: Architecture) -> None:
    """A file's own names become the class's: its tensors load strictly, and number for number."""
    module = create(entry.name, num_classes=CLASSES)
    ours = trace(module, [(2, 3, *entry.input.crop)])
    found = recognise(_as_a_file_names_it(ours))
    assert found is not None
    assert found.architecture is entry
    assert found.network.graph == ours.graph
    again = build(found.network).state_dict()
    state = create(entry.name, num_classes=CLASSES).load_state_dict(again, strict=True)
    assert not state.missing_keys
    for name, value in module.state_dict().items():
        assert torch.equal(again[name], value)


def _as_a_file_names_it(network: Network) -> Network:
    """Return the network without the class's names, and without its dropout."""
    silent = {node.name: node.inputs[0] for node in network.graph.nodes if node.op == "Dropout"}
    names = {node.name: f"0.{index}" for index, node in enumerate(network.graph.nodes)}

    def new(name: str) -> str:
        return names.get(silent.get(name, name), name)

    nodes = tuple(
        Node(new(node.name), node.op, tuple(map(new, node.inputs)), node.attrs)
        for node in network.graph.nodes
        if node.name not in silent
    )
    tensors = {}
    for name, array in network.tensors.items():
        node, _, last = name.rpartition(".")
        tensors[f"{names[node]}.{last}"] = array
    outputs = tuple(map(new, network.graph.outputs))
    return Network(replace(network.graph, nodes=nodes, outputs=outputs), tensors)


@pytest.mark.parametrize(
    "graph",
    [CLASSIFIER, SHARED, chain((1, 3), ("ReLU", {}))],
    ids=["classifier", "ties", "no head"],
)
def test_another_network_is_not_recognised(graph: Graph) -> None:
    """It stays what it is, under its own names; that is no error."""
    assert recognise(filled(graph)) is None


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The message says what there is."""
    with pytest.raises(
        SpecError, match="^no architecture resnet; there are .*inception_resnet_v2_"
    ):
        create("resnet")


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test register classes that no other test sees."""
    for name in ("ARCHITECTURES", "_BY_FINGERPRINT"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    return


@pytest.mark.usefixtures("own_registry")
def test_a_class_is_registered_with_its_facts() -> None:
    """The decorator gives the class back; name, structure and convention lead to it."""

    @architecture("tiny", "a tiny network", fingerprint="f" * 64, preset="torch-224")
    class Tiny(nn.Module):
        def __init__(self, num_classes: int = 1000) -> None:
            super().__init__()
            self.fc = nn.Linear(3, num_classes)

    entry = registry.ARCHITECTURES["tiny"]
    assert entry.create is Tiny
    assert entry.input.crop == (224, 224)
    assert isinstance(registry.create("tiny", num_classes=4), Tiny)
    assert "tiny" not in ARCHITECTURES


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("same", ["name", "fingerprint"])
def test_nothing_is_registered_twice(same: str) -> None:
    """Neither a name nor a structure can mean two classes."""
    known = next(iter(ARCHITECTURES.values()))
    name = known.name if same == "name" else "other"
    digest = known.fingerprint if same == "fingerprint" else "0" * 64
    with pytest.raises(ValueError, match=f"^{name}: that name, or that structure, is registered"):
        architecture(name, "", fingerprint=digest, preset="torch-299")(nn.Module)


def test_recognition_needs_no_numbers_of_its_own() -> None:
    """A network whose tensors are absent is recognised as well."""
    entry = next(iter(ARCHITECTURES.values()))
    found = recognise(Network(traced(entry, CLASSES), {}))
    assert found is not None
    assert found.network.tensors == {}
    assert np.prod(found.network.graph.inputs[0].shape) == 2 * 3 * 299 * 299
