"""The Inceptions of the TensorFlow lineage: stages, settings, first numbers.

That timm's and Lornatang's checkpoints load into them and give timm's and Lornatang's outputs is
proved in tests/converters/pth.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.architectures import create, find
from models.architectures.inception_v3 import InceptionV3
from models.architectures.registry import traced
from models.fingerprint import fingerprint

PARAMETERS = {  # of the originals' files, for 1000 classes
    "inception_v3": 23_834_568,
    "inception_v4": 42_679_816,
    "inception_v4_lornatang": 42_679_816,
    "inception_resnet_v2": 55_843_464,
    "inception_resnet_v2_lornatang": 55_843_464,
}
STAGES = {  # channels and size as the papers' figures say, but for those of inception_resnet_v2
    "inception_v3": {
        "stem": (192, 35),
        "blocks_a.0": (256, 35),
        "blocks_a": (288, 35),
        "reduction_a": (768, 17),
        "blocks_b": (768, 17),
        "reduction_b": (1280, 8),
        "blocks_c": (2048, 8),
    },
    "inception_v4": {
        "stem": (384, 35),
        "blocks_a": (384, 35),
        "reduction_a": (1024, 17),
        "blocks_b": (1024, 17),
        "reduction_b": (1536, 8),
        "blocks_c": (1536, 8),
    },
    "inception_resnet_v1": {
        "stem": (256, 35),
        "blocks_a": (256, 35),
        "reduction_a": (896, 17),
        "blocks_b": (896, 17),
        "reduction_b": (1792, 8),
        "blocks_c": (1792, 8),
    },
    "inception_resnet_v2": {
        "mixed": (320, 35),
        "blocks_a": (320, 35),
        "reduction_a": (1088, 17),
        "blocks_b": (1088, 17),
        "reduction_b": (2080, 8),
        "blocks_c": (2080, 8),
        "last": (1536, 8),
    },
}
BLOCKS = {
    "inception_v3": (3, 4, 2),
    "inception_v4": (4, 7, 3),
    "inception_resnet_v1": (5, 10, 5),
    "inception_resnet_v2": (10, 20, 10),
}


def without_memory(name: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return find(name).create(**arguments).eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_number_of_parameters_is_the_originals(name: str) -> None:
    """Every width counts in it."""
    assert sum(one.numel() for one in without_memory(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", STAGES)
def test_stages_have_the_papers_shapes(name: str) -> None:
    """Channels and image size behind every stage, and how many blocks there are."""
    module = without_memory(name)
    found: dict[str, tuple[int, ...]] = {}

    def keep(stage: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            found[stage] = (output.shape[1], output.shape[2])

        return hook

    for stage in STAGES[name]:
        module.get_submodule(stage).register_forward_hook(keep(stage))
    module(torch.empty(1, 3, 299, 299, device="meta"))
    assert found == STAGES[name]
    blocks = [module.get_submodule(f"blocks_{letter}") for letter in "abc"]
    assert tuple(len(one) for one in blocks) == BLOCKS[name]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_lornatangs_variant_is_another_structure(name: str) -> None:
    """One setting differs, no tensor does: the shapes alone cannot tell."""
    ours, theirs = without_memory(name), without_memory(f"{name}_lornatang")
    shape = (1, 3, 299, 299)
    graphs = [traced(find(one), {}, shape) for one in (name, f"{name}_lornatang")]
    assert fingerprint(graphs[0]) != fingerprint(graphs[1])
    shapes = [
        {key: value.shape for key, value in module.state_dict().items()}
        for module in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", STAGES)
def test_settings_that_the_sources_name(name: str) -> None:
    """BatchNorm has eps 1e-3; only what ends a residual branch has a bias."""
    modules = dict(without_memory(name).named_modules())
    assert {one.eps for one in modules.values() if isinstance(one, nn.BatchNorm2d)} == {1e-3}
    for path, one in modules.items():
        if isinstance(one, nn.Conv2d):
            assert (one.bias is not None) == path.endswith(".projection")


def test_scales_of_the_residuals() -> None:
    """0.17, 0.10 and 0.20; the last block adds its residual whole, Lornatang's scaled."""
    for name, last in (("inception_resnet_v2", 1.0), ("inception_resnet_v2_lornatang", 0.2)):
        graph = traced(find(name), {}, (1, 3, 299, 299))
        scales = [node.attrs["factor"] for node in graph.nodes if node.op == "Scale"]
        assert scales == [0.17] * 10 + [0.1] * 20 + [0.2] * 9 + [last]


def test_the_auxiliary_head_is_for_training_alone() -> None:
    """Training gives a pair, evaluation the logits; the structure is the same without it."""
    torch.manual_seed(0)
    module = create("inception_v3", num_classes=7, width_divisor=8, aux_logits=True)
    x = torch.randn(2, 3, 299, 299)
    logits, auxiliary = module.train()(x)
    assert logits.shape == auxiliary.shape == (2, 7)
    (logits.sum() + auxiliary.sum()).backward()
    assert all(one.grad is not None for one in module.parameters())
    assert module.eval()(x).shape == (2, 7)
    entry, shape = find("inception_v3"), (1, 3, 299, 299)
    with_head = traced(entry, {"aux_logits": True}, shape)
    assert fingerprint(with_head) == fingerprint(traced(entry, {}, shape))


def test_initial_values_are_lornatangs() -> None:
    """Truncated normal, 0.1 wide; the auxiliary classifier a hundredth of that."""
    torch.manual_seed(0)
    module = create("inception_v3", width_divisor=2, aux_logits=True)
    assert isinstance(module, InceptionV3)
    assert module.aux is not None
    for one in module.modules():
        if isinstance(one, nn.Conv2d | nn.Linear) and one is not module.aux.classifier:
            assert one.weight.std().item() == pytest.approx(0.1, rel=0.15)
        elif isinstance(one, nn.BatchNorm2d):
            assert (one.weight == 1).all()
            assert not one.bias.any()
    assert module.aux.classifier.weight.std().item() == pytest.approx(0.001, rel=0.05)
