"""Architectures are found by name and recognised by structure; nothing else passes for one."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from models.architectures import (
    ALIASES,
    ARCHITECTURES,
    Architecture,
    create,
    find,
    recognise,
    registry,
)
from models.architectures.registry import Facts, alias, register, traced
from models.build import build
from models.errors import SpecError
from models.export import export_onnx
from models.fingerprint import fingerprint, head_size
from models.graph import Graph, Network, Node
from models.presets import PRESETS
from models.trace import trace
from models.verify import run, verify
from tests.models.architectures.zoo import CLASSES, EVERY_ARCHITECTURE, THIN, image, measured, thin
from tests.small_networks import CLASSIFIER, SHARED, batches, chain, filled


@EVERY_ARCHITECTURE
def test_the_number_of_classes_is_not_part_of_the_structure(entry: Architecture) -> None:
    """A network fine-tuned to other classes is recognised."""
    graphs = [traced(entry, {"num_classes": count}, image(entry)) for count in (CLASSES, 1000)]
    assert len({fingerprint(graph) for graph in graphs}) == 1


@EVERY_ARCHITECTURE
def test_what_is_registered_of_the_graph_is_so(entry: Architecture) -> None:
    """Recognition asks for the number of sums and the last layer's inputs: they are the graph's."""
    graph = traced(entry, {"num_classes": CLASSES}, image(entry))
    assert sum(node.op == "Add" for node in graph.nodes) == entry.residuals
    head = head_size(graph)
    assert head is not None
    assert head.inputs == entry.features


@EVERY_ARCHITECTURE
def test_a_recognised_network_loads_into_its_class(entry: Architecture) -> None:
    """A file's own names become the class's: its tensors load strictly, and number for number."""
    module = thin(entry.name).eval()
    ours = trace(module, [image(entry)])
    found = recognise(_as_a_file_names_it(ours))
    assert found is not None
    assert found.architecture is entry
    assert found.network.graph == ours.graph
    again = build(found.network).state_dict()
    entry.create(**found.arguments).load_state_dict(again, strict=True)
    assert all(torch.equal(again[name], value) for name, value in again.items())


def _as_a_file_names_it(network: Network) -> Network:
    """Return the network without the class's names, and without what inference does not see."""
    silent = {
        node.name: node.inputs[0]
        for node in network.graph.nodes
        if node.op in ("Dropout", "Dropout2d", "Identity")
    }
    names = {node.name: f"0.{index}" for index, node in enumerate(network.graph.nodes)}

    def new(name: str) -> str:
        while name in silent:
            name = silent[name]
        return names.get(name, name)

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


@EVERY_ARCHITECTURE
def test_the_traced_network_computes_the_same(entry: Architecture) -> None:
    """In evaluation mode, what is built from the trace gives the class's own bits."""
    module = thin(entry.name).eval()
    (x,) = batches([image(entry, 1)])
    (ours,) = run(build(trace(module, [x.shape])), [x])
    np.testing.assert_array_equal(ours, run(module, [x])[0])
    assert ours.shape == (1, CLASSES)


@EVERY_ARCHITECTURE
def test_every_parameter_learns(entry: Architecture) -> None:
    """Random images go through in training, and no layer is left out of it."""
    module = thin(entry.name).train()
    torch.manual_seed(0)  # dropout
    (x,) = batches([image(entry)])
    module.zero_grad()
    outputs = module(torch.from_numpy(x))
    labels = torch.tensor([0, 5])
    loss = sum(
        nn.functional.cross_entropy(one, labels)
        for one in (outputs if isinstance(outputs, tuple) else (outputs,))
    )
    loss.backward()  # type: ignore[union-attr]
    module.eval()
    learned = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
    assert [name for name, one in learned if one.grad is None or not one.grad.any()] == []


# Whole files of the other families are converted in tests/converters.
EXPORTED = ["fb_preresnet_18", "fb_resnet_cifar_20", "resnet_v2_18"]


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_computes_the_same(name: str) -> None:
    """A network of each family: onnxruntime stays within the network's own noise."""
    entry = ARCHITECTURES[name]
    network = trace(measured(name), [image(entry)])
    module = build(network)
    report = verify(module, network.graph, export_onnx(module, network.graph))
    assert report.max_abs is not None


# Sums of two tensors; deeper networks repeat the same units, and take the exporter minutes each.
DEEPEST = 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, entry in ARCHITECTURES.items()
        if name not in EXPORTED and entry.residuals <= DEEPEST
    ],
)
def test_onnx_computes_the_same_at_other_depths(name: str) -> None:
    """The other architectures as well, up to the depth of Inception-ResNet-v2."""
    test_onnx_computes_the_same(name)


def test_initial_values_come_from_torchs_seed() -> None:
    """A training run can be repeated."""
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create("enet_v7", num_classes=CLASSES, width_divisor=THIN).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    "graph",
    [CLASSIFIER, SHARED, chain((1, 3), ("ReLU", {}))],
    ids=["classifier", "ties", "no head"],
)
def test_another_network_is_not_recognised(graph: Graph) -> None:
    """It stays what it is, under its own names; that is no error."""
    assert recognise(filled(graph)) is None


def test_one_other_setting_and_it_is_not_recognised() -> None:
    """A network like fb_resnet_18 whose pooling differs passes for nothing."""
    entry = ARCHITECTURES["fb_resnet_18"]
    graph = traced(entry, {"num_classes": CLASSES, "width_divisor": THIN}, image(entry))
    changed = tuple(
        node._replace(attrs={**node.attrs, "ceil_mode": True}) if node.op == "MaxPool2d" else node
        for node in graph.nodes
    )
    assert recognise(Network(graph, {})) is not None
    assert recognise(Network(replace(graph, nodes=changed), {})) is None


def test_a_width_that_the_class_cannot_have_is_not_recognised() -> None:
    """Nine hundred and ninety-nine is no divisor of 512."""
    entry = ARCHITECTURES["fb_resnet_18"]
    graph = traced(entry, {"num_classes": CLASSES, "width_divisor": 1}, image(entry))
    head = graph.nodes[-1]._replace(attrs={**graph.nodes[-1].attrs, "in_features": 999})
    assert recognise(Network(replace(graph, nodes=(*graph.nodes[:-1], head)), {})) is None


# Names ------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The message says what there is."""
    with pytest.raises(SpecError, match="^no architecture resnet; there are .*inception_resnet_v2"):
        create("resnet")


@pytest.mark.parametrize(("name", "meant"), ALIASES.items())
def test_a_second_name_means_the_same_structure(name: str, meant: str) -> None:
    """It is created and found like the first; files are recognised under the first."""
    assert find(name) is ARCHITECTURES[meant]


def test_names_of_the_issue() -> None:
    """ENet's sixth version is its third; the ResNet-200 of fb.resnet.torch is pre-activated."""
    others = {name: meant for name, meant in ALIASES.items() if not name.startswith("gluon_")}
    assert others == {"enet_v6": "enet_v3", "fb_resnet_200": "fb_preresnet_200"}


@pytest.mark.parametrize("name", ["fb_resnet_18_c", "fb_preresnet_cifar_8_b", "resnet_v2_cifar_20"])
def test_other_depths_and_kinds_are_found_without_being_listed(name: str) -> None:
    """The rule of a family gives more networks than were published."""
    assert name not in ARCHITECTURES
    assert find(name).name == name


def test_every_preset_is_there() -> None:
    """What an architecture says of images is a preset, of the size that it is made for."""
    for entry in ARCHITECTURES.values():
        assert entry.preset is None or entry.preset in PRESETS
        assert entry.input is None or entry.input.crop == (entry.size, entry.size)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test register classes that no other test sees."""
    for name in ("ARCHITECTURES", "ALIASES", "_ALL", "_BY_RESIDUALS"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    return


@pytest.mark.usefixtures("own_registry")
def test_a_class_is_registered_with_its_facts() -> None:
    """Name, structure and convention lead to it."""

    class Tiny(nn.Module):
        def __init__(self, num_classes: int = 1000, width_divisor: int = 1) -> None:
            super().__init__()
            self.fc = nn.Linear(3, num_classes)

    facts = Facts("somewhere", None, "nothing")
    register(Architecture("tiny", "a tiny network", Tiny, 224, 999, 3, "torch-224", facts))
    entry = registry.ARCHITECTURES["tiny"]
    assert entry.create is Tiny
    assert entry.input is PRESETS["torch-224"]
    assert isinstance(registry.create("tiny", num_classes=4), Tiny)
    assert "tiny" not in ARCHITECTURES


@pytest.mark.usefixtures("own_registry")
def test_no_name_is_registered_twice() -> None:
    """It cannot mean two classes, as a second name neither."""
    known = next(iter(ARCHITECTURES.values()))
    with pytest.raises(ValueError, match=f"^{known.name}: that name is registered already"):
        register(known)
    with pytest.raises(ValueError, match="^enet_v6: that name is registered already"):
        alias("enet_v6", "enet_v2")


def test_recognition_needs_no_numbers_of_its_own() -> None:
    """A network whose tensors are absent is recognised as well."""
    entry = ARCHITECTURES["enet_v2"]
    found = recognise(Network(traced(entry, {"num_classes": CLASSES}, image(entry)), {}))
    assert found is not None
    assert found.network.tensors == {}
