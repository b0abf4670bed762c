"""How images enter is found from a file's structure, at the size that structure is made for."""

import pytest

from converters.convention import resolve
from converters.packing import unpacked
from converters.sources import find
from converters.t7 import T7Source
from models.errors import SpecError
from models.presets import PRESETS
from tests.oracles import golden

FILES = {
    "irv2_div16": ("inception_resnet_v2_torch", "torch-299"),
    "fb_resnet18_imagenet_div8": ("fb_resnet_18", "torch-224"),
    "fb_resnet50_imagenet_div16": ("fb_resnet_50", "torch-224"),
}


@pytest.mark.parametrize("file", FILES)
def test_structure_decides(file: str) -> None:
    """Thin networks, and ones of other classes, are known like the whole ones."""
    source = T7Source(golden(f"torch7/models/{file}.t7"))
    found = resolve(source, "0" * 64, None, ())
    assert found.known is not None
    assert (found.known.name, found.decided) == (FILES[file][0], "fingerprint")
    assert found.input is PRESETS[FILES[file][1]]
    assert found.lowered.network.graph.dynamic


@pytest.mark.parametrize(
    ("file", "name", "asked"),
    [
        ("fb_resnet20_cifar10", "fb_resnet_cifar_20", "torch-cifar10"),
        ("enet_v7_div2", "enet_v7", "enet-224"),
    ],
)
def test_a_structure_may_not_tell(file: str, name: str, asked: str) -> None:
    """CIFAR-10 and 100 differ in their means, ENet estimated its own: the flag has to say."""
    source = T7Source(golden(f"torch7/models/{file}.t7"))
    with pytest.raises(SpecError, match=f"its structure, {name}, does not tell: --input PRESET"):
        resolve(source, "0" * 64, None, ())
    found = resolve(source, "0" * 64, asked, ())
    assert found.known is not None
    assert found.known.name == name


@pytest.mark.parametrize(
    ("file", "answer"),
    [
        # 32 pixels are too few for its pooling
        (
            "gluon/densenet-narrow-0000.params.xz",
            r"--input PRESET says it, with torch-299 .*gluon-224",
        ),
        # two channels, 13 x 11
        (
            "ops/fc-flatten-0000.params",
            r"a \.json file says it with --input, as no preset has images ",
        ),
    ],
)
def test_the_presets_that_fit_are_listed(file: str, answer: str) -> None:
    """Whoever is asked how images enter gets the answers that the network can take."""
    found = find(golden(f"mxnet/{file}"))
    with unpacked(found.model) as plain:
        source = found.opener(plain, found.model)
    with pytest.raises(SpecError, match=answer) as caught:
        resolve(source, "0" * 64, None, ())
    assert "cifar" not in str(caught.value)
