"""Other programs' names: the tables cover their files key by key, in both directions."""

import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from converters.pth import PthSource
from models import ops
from models.architectures import find
from models.architectures.lineages import LINEAGES, Lineage, renamed
from models.build import build
from models.verify import run
from tests.oracles import golden

NOISE_FACTOR = 2  # PyTorch and we are each off by the network's own noise, in opposite directions
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], "f4").reshape(2, 1, 3, 1, 1)

FILES = {  # of a lineage; torchvision has no file of its own, but the same names
    "timm_inception_v3": ("timm", "inception_v3"),
    "timm_inception_v4": ("timm", "inception_v4"),
    "timm_inception_resnet_v2": ("timm", "inception_resnet_v2"),
    "lornatang_inception_v3": ("Lornatang", "inception_v3"),
    "lornatang_inception_v4": ("Lornatang", "inception_v4_lornatang"),
    "lornatang_inception_resnet_v2": ("Lornatang", "inception_resnet_v2_lornatang"),
}
EVERY_FILE = pytest.mark.parametrize("file", FILES)


def lineage_of(file: str) -> Lineage:
    return next(one for one in LINEAGES if (one.library, one.architecture) == FILES[file])


def keys(file: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of an original state dictionary, as that program built it."""
    rows = (line.split(" ") for line in golden(f"pytorch/{file}.keys").read_text().splitlines())
    return {
        row[0]: tuple(int(size) for size in row[1].split(",")) if row[1:] else () for row in rows
    }


@EVERY_FILE
def test_tables_cover_the_originals_names_and_shapes(file: str) -> None:
    """Renamed, the original's tensors are the class's, none missing and none left over."""
    lineage, theirs = lineage_of(file), keys(file)
    if lineage.auxiliary:
        theirs = {key: one for key, one in theirs.items() if not key.startswith(lineage.auxiliary)}
    with torch.device("meta"):
        state = find(lineage.architecture).create().state_dict()
    ours = {renamed(key, lineage.ours()): shape for key, shape in theirs.items()}
    assert ours == {key: tuple(value.shape) for key, value in state.items()}
    assert {renamed(key, lineage.theirs()) for key in state} == theirs.keys()


@pytest.mark.parametrize("lineage", LINEAGES, ids=lambda one: f"{one.library}-{one.architecture}")
def test_tables_are_one_to_one(lineage: Lineage) -> None:
    """No two modules of theirs are one of ours, nor the reverse."""
    assert len(lineage.ours()) == len(lineage.theirs())


def test_a_name_that_no_table_has_is_not_renamed() -> None:
    """It stays unknown, whatever its beginning."""
    assert renamed("features.99.conv.weight", {"features.9": "x"}) is None
    assert renamed("a.b.weight", {"a": "x", "a.b": "y"}) == "y.weight"


def unpacked(file: str, folder: Path) -> Path:
    path = folder / f"{file}.pth.tar"
    path.write_bytes(lzma.decompress(golden(f"pytorch/{file}.pth.tar.xz").read_bytes()))
    return path


def as_the_convention_has_it(file: str, x: np.ndarray) -> np.ndarray:
    """Return a stored input as it enters here: Lornatang's Inception-v3 normalises once more."""
    if file != "lornatang_inception_v3":
        return x
    mean, std = IMAGENET
    return np.asarray((x * std + mean - 0.5) / 0.5, np.float32)


@EVERY_FILE
def test_outputs_are_the_originals(file: str, tmp_path: Path) -> None:
    """Strictly loaded under our names, every network gives what its program computed."""
    source = PthSource(unpacked(file, tmp_path))
    expected = np.load(golden(f"pytorch/{file}.npz"))
    x = as_the_convention_has_it(file, expected["input"])
    (ours,) = run(build(source.lower([x.shape], ops.infer).network), [x])
    noise = np.abs(expected["output"] - expected["output_float64_rounded"]).max()
    assert np.abs(ours - expected["output"]).max() <= NOISE_FACTOR * noise
