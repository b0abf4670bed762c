"""The architecture is found from names and shapes; what does not fit is listed, all of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from converters.pth import PthSource
from converters.pth.matching import Match, match
from models import ops
from models.architectures import create, find
from models.architectures.lineages import LINEAGES, Lineage
from models.errors import FormatError, SpecError, WeightMismatch
from models.graph import Array
from models.presets import PRESETS
from tests.converters.pth.checkpoints import CLASSES, THIN, lineage, state

HERE = Path("x.pth")
V3 = lineage("timm", "inception_v3")
V4 = lineage("timm", "inception_v4")


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Array]:
    return {key: value.numpy() for key, value in tensors.items() if not key.endswith("_tracked")}


@pytest.mark.parametrize("one", LINEAGES, ids=lambda one: f"{one.library}-{one.architecture}")
def test_every_lineage_is_told_by_its_names(one: Lineage) -> None:
    """Architecture, number of classes and width come from the tensors alone."""
    more = {"aux_logits": True} if one.auxiliary else {}
    found = match(arrays(state(one, **more)), HERE, None)
    assert found.lineage == one
    assert found.architecture.name == one.architecture
    assert found.arguments == {"num_classes": CLASSES, "width_divisor": THIN}
    assert found.dropped == (12 if more else 0)


def test_without_a_head_inception_v3_is_taken_for_timms() -> None:
    """Three lineages have these names; the first in the table decides the convention."""
    assert match(arrays(state(V3)), HERE, None).lineage.library == "timm"


def ours(name: str) -> dict[str, Array]:
    torch.manual_seed(0)
    return arrays(create(name, num_classes=CLASSES, width_divisor=THIN).state_dict())


@pytest.mark.parametrize("name", ["inception_v4_lornatang", "fb_resnet_18_c", "enet_v6"])
def test_our_own_names_need_the_architecture(name: str) -> None:
    """They do not tell it; --architecture does, for every class there is."""
    tensors = ours(name)
    with pytest.raises(SpecError, match=r"x\.pth: .* relume's own classes, .* --architecture NAME"):
        match(tensors, HERE, None)
    found = match(tensors, HERE, name)
    assert found.architecture is find(name)
    assert found.tensors.keys() == tensors.keys()


def test_architecture_settles_what_no_tensor_shows() -> None:
    """Timm's names with Lornatang's setting: the names are timm's all the same."""
    found = match(arrays(state(V4)), HERE, "inception_v4_lornatang")
    assert (found.architecture.name, found.lineage.library) == ("inception_v4_lornatang", "timm")


def test_an_architecture_of_other_names_is_refused() -> None:
    """The message shows a name, and those that were expected."""
    with pytest.raises(SpecError, match=r"x\.pth: tensors such as features\.0\.conv.*enet_v2"):
        match(arrays(state(V4)), HERE, "enet_v2")


def test_an_unknown_architecture_is_refused() -> None:
    """With the list of those that there are."""
    with pytest.raises(SpecError, match=r"^no architecture resnet; there are "):
        match(arrays(state(V4)), HERE, "resnet")


def test_names_of_nobody_are_refused() -> None:
    """With the lineages that are known."""
    with pytest.raises(SpecError, match=r"such as layer1\.0, expected .*timm's inception_v4, "):
        match({"layer1.0": np.zeros(3, "f4")}, HERE, None)


def _lost(tensors: dict[str, Array]) -> None:
    del tensors["features.0.bn.bias"], tensors["last_linear.bias"]


def _added(tensors: dict[str, Array]) -> None:
    tensors["features.6.branch9.conv.weight"] = tensors["extra"] = np.zeros(3, "f4")


def _reshaped(tensors: dict[str, Array]) -> None:
    tensors["features.0.conv.weight"] = np.zeros((4, 3, 5, 5), "f4")


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        (_lost, "missing: features.0.bn.bias, last_linear.bias"),
        (_added, "unexpected: features.6.branch9.conv.weight, extra"),
        (_reshaped, "misshapen: features.0.conv.weight is (4, 3, 5, 5), expected (4, 3, 3, 3)"),
    ],
)
def test_what_does_not_fit_is_listed_in_the_files_names(
    change: Callable[[dict[str, Array]], None], listed: str
) -> None:
    """All at once, with both shapes."""
    tensors = arrays(state(V4))
    change(tensors)
    with pytest.raises(WeightMismatch, match="as inception_v4: tensors do not match") as error:
        match(tensors, HERE, None)
    assert listed in str(error.value)


def test_everything_wrong_is_said_at_once() -> None:
    """Missing, unexpected and misshapen tensors are in one message."""
    tensors = arrays(state(V4))
    for change in (_lost, _added, _reshaped):
        change(tensors)
    with pytest.raises(WeightMismatch, match="missing: .*; unexpected: .*; misshapen: ") as error:
        match(tensors, HERE, None)
    counts = [len(one) for one in (error.value.missing, error.value.unexpected)]
    assert (counts, len(error.value.misshapen)) == ([2, 2], 1)


def test_a_match_loads_strictly_into_its_class() -> None:
    """Number for number, under our names."""
    found: Match = match(arrays(state(V4)), HERE, None)
    tensors = {key: torch.from_numpy(array) for key, array in found.tensors.items()}
    module = found.architecture.create(**found.arguments)
    assert not module.load_state_dict(tensors, strict=False).unexpected_keys
    assert all(torch.equal(module.state_dict()[key], one) for key, one in tensors.items())


@pytest.fixture
def source(tmp_path: Path) -> PthSource:
    """An open checkpoint of Lornatang's thin Inception-v3."""
    path = tmp_path / "v3.pth.tar"
    torch.save(
        {"ema_state_dict": state(lineage("Lornatang", "inception_v3"), aux_logits=True)}, path
    )
    return PthSource(path)


def test_a_source_says_what_was_done(source: PthSource) -> None:
    """Which weights, whose names, what was left out, and how images enter."""
    assert source.notes == (
        "the averaged weights, ema_state_dict",
        "names of Lornatang's inception_v3",
        "the auxiliary head, aux, 12 tensors, is left out: only training needs it",
    )
    assert source.input is PRESETS["torchvision-299"]
    assert source.classes["Conv2d"] == 94


def test_a_network_takes_one_batch_of_its_size(source: PthSource) -> None:
    """Other inputs are errors that say so."""
    source.check(ops.infer)
    lowered = source.lower([(2, 3, 299, 299)], ops.infer)
    assert lowered.shapes == ((2, CLASSES),)
    with pytest.raises(SpecError, match="2 inputs, expected one batch of images"):
        source.lower([(2, 3, 299, 299)] * 2, ops.infer)
    with pytest.raises(FormatError, match="layer pool: found an input of"):
        source.lower([(2, 3, 150, 150)], ops.infer)
