"""Weights leave under the names of other libraries: exactly those, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch

from converters import library
from converters.export import export
from converters.library import lineage_of, named
from converters.pth.matching import Match, match
from models.architectures import find
from models.architectures.registry import Arguments
from models.checkpoint import Checkpoint, save_pt, save_safetensors
from models.errors import SpecError
from models.presets import PRESETS
from models.report import Measured, Report
from models.spec import ModelSpec, Origin
from models.trace import trace
from tests.converters.pth.test_lineages import keys

SHAPE = (2, 3, 299, 299)
MEASURED = Measured((SHAPE,), 0.0, None, 1.0, None)
FILES = {
    ("inception_v3", "timm"): "timm_inception_v3",
    ("inception_v3", "torchvision"): "timm_inception_v3",  # the same names, its head left out
    ("inception_v4", "timm"): "timm_inception_v4",
    ("inception_resnet_v2", "timm"): "timm_inception_resnet_v2",
}


def artifact(name: str, **arguments: int) -> Checkpoint:
    """Return an artifact of an architecture with seeded numbers."""
    torch.manual_seed(0)
    given: Arguments = {**arguments}
    module = find(name).create(**given).eval()
    origin = Origin("pytorch-zip", "x.pth", "0" * 64, "names")
    spec = ModelSpec("x", PRESETS["timm-299-0.875"], (), "logits", name, origin)
    return Checkpoint(spec, trace(module, [SHAPE]), Report((MEASURED,), None))


@pytest.mark.parametrize(("name", "library"), FILES)
def test_names_and_shapes_are_those_of_the_library(name: str, library: str) -> None:
    """Every tensor that its own network has, counts of batches included, and no other."""
    checkpoint = artifact(name)
    state = named(checkpoint, lineage_of(checkpoint, library, Path("x.pt")))
    assert {key: tuple(one.shape) for key, one in state.items()} == keys(FILES[name, library])
    kinds = {key.rpartition(".")[2] for key, one in state.items() if one.dtype == torch.int64}
    assert kinds == {"num_batches_tracked"}


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_the_command_writes_what_comes_back(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both forms; what the network wants of images is said; nothing is overwritten unasked."""
    save_pt(tmp_path / "x.pt", artifact("inception_v3"))
    target = tmp_path / f"out{ending}"
    arguments = [str(tmp_path / "x.pt"), "-o", str(target), "--to", "torchvision"]
    assert export(arguments) == 0
    printed = capsys.readouterr().out
    assert "the state dictionary of torchvision's inception_v3" in printed
    assert "inception_v3(aux_logits=False, transform_input=False)" in printed
    assert "mean 0.5 0.5 0.5" in printed
    assert export(arguments) == 1
    assert "already there; --force overwrites" in capsys.readouterr().err
    assert export([*arguments, "--force"]) == 0


@pytest.mark.parametrize(
    ("name", "library", "message"),
    [
        ("inception_v4_lornatang", "timm", "inception_v4_lornatang: timm has no network of that"),
        ("inception_v4", "torchvision", "it can take inception_v3$"),
        ("enet_v7", "timm", "it can take inception_v4, inception_resnet_v2, inception_v3$"),
    ],
)
def test_a_structure_that_the_library_lacks_is_refused(
    name: str, library: str, message: str
) -> None:
    """The same tensors in another structure would compute something else."""
    if name == "enet_v7":
        with torch.device("meta"):
            module = find(name).create().eval()
        checkpoint = artifact("inception_v3", width_divisor=8)
        checkpoint = checkpoint._replace(network=trace(module, [(2, 3, 224, 224)]))
    else:
        checkpoint = artifact(name, width_divisor=1)
    with pytest.raises(SpecError, match=message):
        lineage_of(checkpoint, library, Path("x.pt"))


def test_a_thin_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The library's own network has other shapes; nothing is written."""
    save_safetensors(tmp_path / "x.safetensors", artifact("inception_v3", width_divisor=8))
    target = tmp_path / "out.pth"
    assert export([str(tmp_path / "x.safetensors"), "-o", str(target), "--to", "timm"]) == 1
    assert "inception_v3 with layers 8 times thinner: timm has no" in capsys.readouterr().err
    assert not target.exists()


def test_what_does_not_come_back_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that writes something else leaves no file."""
    save_pt(tmp_path / "x.pt", artifact("inception_v3"))
    target = tmp_path / "out.pth"

    def damaged(*arguments: Any) -> Match:
        found = match(*arguments)
        return found._replace(tensors={key: array + 1 for key, array in found.tensors.items()})

    monkeypatch.setattr(library, "match", damaged)
    assert export([str(tmp_path / "x.pt"), "-o", str(target), "--to", "timm"]) == 1
    assert "out.pth: tensors read back differ from what was written" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "x.pt"]


def test_an_onnx_is_not_what_weights_are_taken_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told which file is."""
    command = [str(tmp_path / "x.onnx"), "-o", str(tmp_path / "out.pth"), "--to", "timm"]
    assert export(command) == 1
    assert "x.onnx: timm's form is written from the .pt beside it" in capsys.readouterr().err
