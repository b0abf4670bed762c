"""Artifacts for PyTorch: what is written is read back, and what is not ours is refused."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import checkpoint
from models.build import build
from models.checkpoint import Checkpoint, load, load_pt, load_safetensors, read
from models.errors import ArtifactError, LegacyModelError, WeightMismatch
from models.graph import Graph
from models.report import Measured, Report
from models.spec import InputSpec, Label, ModelSpec, Origin
from models.verify import run
from tests.small_networks import CLASSIFIER, SHARED, TWO_IN_TWO_OUT, batches, filled, graphs

SPEC = ModelSpec(
    name="tiny",
    input=InputSpec(
        resize=9,
        resize_mode="shorter",
        resample="torch7-bicubic",
        crop=(8, 8),
        crop_origin="ceil",
        order="RGB",
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        source="this test",
    ),
    labels=tuple(Label(f"n{index:08}", f"class {index} é") for index in range(6)),
    output="logits",
    architecture=None,
    origin=Origin("torch7-binary", "tiny.t7", "0" * 64, "flag"),
)
REPORT = Report((Measured(((1, 3, 8, 8),), 1e-7, 2e-7, 4e-7, True),), 18)
SAVE = {".pt": checkpoint.save_pt, ".safetensors": checkpoint.save_safetensors}
EVERY_FORM = pytest.mark.parametrize("suffix", SAVE)


def tiny(graph: Graph = CLASSIFIER) -> Checkpoint:
    return Checkpoint(SPEC, filled(graph), REPORT)


def saved(folder: Path, suffix: str, content: Checkpoint | None = None) -> Path:
    path = folder / f"tiny{suffix}"
    SAVE[suffix](path, content or tiny())
    return path


def assert_equal(ours: Checkpoint, theirs: Checkpoint) -> None:
    assert (ours.spec, ours.report) == (theirs.spec, theirs.report)
    assert ours.network.graph == theirs.network.graph
    assert ours.network.tensors.keys() == theirs.network.tensors.keys()
    for name, array in theirs.network.tensors.items():
        np.testing.assert_array_equal(ours.network.tensors[name], array, strict=True)


@EVERY_FORM
@pytest.mark.parametrize(
    "graph", [CLASSIFIER, SHARED, TWO_IN_TWO_OUT], ids=["classifier", "ties", "two in, two out"]
)
def test_what_is_saved_is_read_back(tmp_path: Path, suffix: str, graph: Graph) -> None:
    """Spec, graph, ties, report and every bit of every tensor."""
    assert_equal(read(saved(tmp_path, suffix, tiny(graph))), tiny(graph))


@EVERY_FORM
@settings(max_examples=25)  # files are written
@given(graph=graphs())
def test_any_network_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, graph: Graph
) -> None:
    """Saving and reading are inverses, whatever the graph."""
    folder = tmp_path_factory.mktemp("any")
    assert_equal(read(saved(folder, suffix, tiny(graph))), tiny(graph))


def test_artifacts_are_told_from_other_files(tmp_path: Path) -> None:
    """Both forms are known by their first entries; what is cut, or another program's, is not."""
    for suffix in SAVE:
        path = saved(tmp_path, suffix)
        assert checkpoint.is_artifact(path)
        path.write_bytes(path.read_bytes()[:40])
        assert not checkpoint.is_artifact(path)
    torch.save({"relume": torch.zeros(1)}, tmp_path / "other.pt")
    assert not checkpoint.is_artifact(tmp_path / "other.pt")
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "other.safetensors")
    assert not checkpoint.is_artifact(tmp_path / "other.safetensors")


@EVERY_FORM
def test_load_gives_a_module_that_computes_the_same(tmp_path: Path, suffix: str) -> None:
    """One call gives a module in evaluation mode with bit-equal outputs, and its spec."""
    module, spec = load(str(saved(tmp_path, suffix)))
    inputs = batches([(2, 3, 8, 8)])
    assert spec == SPEC
    assert not any(layer.training for layer in module.modules())
    np.testing.assert_array_equal(run(module, inputs)[0], run(build(filled(CLASSIFIER)), inputs)[0])


def test_pt_needs_nothing_of_ours(tmp_path: Path) -> None:
    """PyTorch alone opens a `.pt`, safely; its `state_dict` loads strictly into the module."""
    content = torch.load(saved(tmp_path, ".pt"), weights_only=True)
    assert content.keys() == {"format", "schema", "spec", "graph", "report", "state_dict"}
    assert type(content["state_dict"]) is dict
    assert all(type(value) is torch.Tensor for value in content["state_dict"].values())
    module = build(filled(CLASSIFIER, seed=1))
    module.load_state_dict(content["state_dict"], strict=True)


def test_ties_are_stored_once(tmp_path: Path) -> None:
    """The file has the owner's tensor only."""
    content = torch.load(saved(tmp_path, ".pt", tiny(SHARED)), weights_only=True)
    assert set(content["state_dict"]) == {"fc.weight", "fc.bias"}


@EVERY_FORM
def test_arrays_may_be_views_of_any_kind(tmp_path: Path, suffix: str) -> None:
    """Read-only, transposed and float64 arrays are written as float32 in plain order."""
    content = tiny(SHARED)
    weight = np.arange(9.0).reshape(3, 3).T
    weight.flags.writeable = False
    network = content.network._replace(tensors={**content.network.tensors, "fc.weight": weight})
    again = read(saved(tmp_path, suffix, content._replace(network=network)))
    assert again.network.tensors["fc.weight"].dtype == np.float32
    np.testing.assert_array_equal(again.network.tensors["fc.weight"], weight)


# Refusals ---------------------------------------------------------------------------------------


def fields(**changes: Any) -> dict[str, Any]:
    """Return the content of a sound `.pt`, but for some fields; None leaves a field out."""
    content = tiny()
    state = {name: torch.from_numpy(one) for name, one in content.network.tensors.items()}
    sound = {
        "format": "relume",
        "schema": 1,
        "spec": SPEC.to_json(),
        "graph": content.network.graph.to_json(),
        "report": REPORT.to_json(),
        "state_dict": state,
    }
    return {key: value for key, value in (sound | changes).items() if value is not None}


def test_the_sound_fields_are_sound(tmp_path: Path) -> None:
    """What the next tests damage would be read otherwise."""
    torch.save(fields(), tmp_path / "net.pt")
    assert_equal(load_pt(tmp_path / "net.pt"), tiny())


PT_REFUSED: dict[str, tuple[Any, str]] = {
    "another program's dictionary": ({"epoch": 3}, "a PyTorch file, but no relume artifact"),
    "a state_dict": (fields()["state_dict"], "a PyTorch file, but no relume artifact"),
    "a list": ([1, 2], "a PyTorch file, but no relume artifact"),
    "another format": (fields(format="other"), "a PyTorch file, but no relume artifact"),
    "newer": (fields(schema=2), "artifact schema 2, this relume reads 1: use the relume that"),
    "no schema": (fields(schema=None), "artifact schema None, this relume reads 1"),
    "no spec": (fields(spec=None), "damaged: no spec$"),
    "no texts": (fields(spec=1, graph=[], report=None), "damaged: no spec, graph, report$"),
    "no state_dict": (
        fields(state_dict=None),
        "damaged: state_dict is not a dictionary of float32",
    ),
    "numbers": (fields(state_dict={"a": 1}), "damaged: state_dict is not a dictionary of float32"),
    "float16": (
        fields(state_dict={"a": torch.zeros(2, dtype=torch.bfloat16)}),
        "damaged: state_dict is not a dictionary of float32 tensors",
    ),
    "sparse": (
        fields(state_dict={"a": torch.ones(2).to_sparse()}),
        "damaged: state_dict is not a dictionary of float32 tensors",
    ),
    "no graph in its text": (fields(graph="{}"), "damaged graph: 'inputs'"),
    "no report in its text": (fields(report="{}"), "damaged report: 'measured'"),
    "no spec in its text": (fields(spec="{}"), "not a relume model spec"),
}


@pytest.mark.parametrize(("content", "message"), PT_REFUSED.values(), ids=PT_REFUSED)
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_a_pt_that_is_not_ours_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    """The error names the file, and says what it is instead."""
    path = tmp_path / "net.pt"
    torch.save(content, path)
    with pytest.raises(ArtifactError, match=rf"net\.pt: {message}"):
        load_pt(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "a safetensors file, but no relume artifact"),
        ({"format": "pt"}, "a safetensors file, but no relume artifact"),
        ({"format": "relume"}, "artifact schema '', this relume reads 1"),
        ({"format": "relume", "schema": "7"}, "artifact schema 7, this relume reads 1: use the"),
        ({"format": "relume", "schema": "one"}, "artifact schema 'one', this relume reads 1"),
        ({"format": "relume", "schema": "1"}, "damaged: no spec, graph, report$"),
    ],
    ids=["no metadata", "another's", "no schema", "newer", "no number", "no texts"],
)
def test_a_safetensors_that_is_not_ours_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None, message: str
) -> None:
    """The error names the file, and says what it is instead."""
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, path, metadata)
    with pytest.raises(ArtifactError, match=rf"net\.safetensors: {message}"):
        load_safetensors(path)


def test_a_safetensors_of_other_numbers_is_refused(tmp_path: Path) -> None:
    """Tensors are float32 or they are not ours."""
    path = saved(tmp_path, ".safetensors")
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    odd = {"a": np.zeros(2, np.int64), "b": np.zeros(2, np.float32), "c": np.zeros(2, np.float16)}
    safetensors.numpy.save_file(odd, path, metadata)
    with pytest.raises(ArtifactError, match="damaged: a, c: found other than float32$"):
        load_safetensors(path)


def test_a_safetensors_of_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    """Whether numpy knows bfloat16 depends on what else was imported; it is refused either way."""
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ArtifactError, match=r"net.safetensors: (not a|a) safetensors file"):
        load_safetensors(path)


@EVERY_FORM
@pytest.mark.parametrize(
    "content", [b"", b"PK", b"no artifact" * 100], ids=["empty", "two", "text"]
)
def test_other_bytes_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    """A file of any other kind is refused by what it is called."""
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"net{suffix}: not a .* or damaged: "):
        read(path)


@EVERY_FORM
def test_a_file_that_is_not_there_is_the_systems_error(tmp_path: Path, suffix: str) -> None:
    """Entry points report it as what it is."""
    with pytest.raises(FileNotFoundError, match=rf"net{suffix}"):
        read(tmp_path / f"net{suffix}")


@EVERY_FORM
def test_tensors_that_do_not_fit_the_graph_are_refused(tmp_path: Path, suffix: str) -> None:
    """No artifact loads with a part of its numbers."""
    content = tiny()
    tensors = {name: one for name, one in content.network.tensors.items() if name != "6.bias"}
    network = content.network._replace(tensors=tensors)
    with pytest.raises(WeightMismatch, match=r"missing: 6\.bias$"):
        load(saved(tmp_path, suffix, content._replace(network=network)))


@EVERY_FORM
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    """A broken download never loads."""
    path = saved(tmp_path, suffix, tiny(SHARED))
    data = path.read_bytes()
    for size in {*range(0, len(data), 37), *range(len(data) - 40, len(data))}:
        path.write_bytes(data[:size])
        with pytest.raises(ArtifactError, match="not a .* or damaged: "):
            read(path)


def flip(data: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


@settings(max_examples=200)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_pt_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    """Checksums cover numbers and texts: our error, or an equal result."""
    path = saved(tmp_path_factory.mktemp("flip"), ".pt", tiny(SHARED))
    data = path.read_bytes()
    path.write_bytes(flip(data, place % len(data), bit))
    try:
        found = read(path)
    except LegacyModelError:
        return
    assert_equal(found, tiny(SHARED))


def test_a_flipped_bit_of_a_number_is_named(tmp_path: Path) -> None:
    """PyTorch itself would load such a file with another weight."""
    path = saved(tmp_path, ".pt", tiny(SHARED))
    data = path.read_bytes()
    place = data.index(filled(SHARED).tensors["fc.weight"].tobytes())
    path.write_bytes(flip(data, place, 3))
    assert torch.load(path, weights_only=True)["format"] == "relume"
    with pytest.raises(ArtifactError, match=r"or damaged: the checksum of .*data/\d differs$"):
        load_pt(path)


@settings(max_examples=200)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_safetensors_is_no_crash(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    """The format has no checksum, so a number may differ; nothing but our errors is raised."""
    path = saved(tmp_path_factory.mktemp("flip"), ".safetensors", tiny(SHARED))
    data = path.read_bytes()
    path.write_bytes(flip(data, place % len(data), bit))
    try:
        load(path)
    except LegacyModelError:
        return


class Malicious:
    """A value whose pickle, if it is believed, writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.path, "run")


@pytest.mark.parametrize("where", ["spec", "state_dict"])
def test_a_pickle_with_a_program_in_it_is_not_run(tmp_path: Path, where: str) -> None:
    """A `.pt` is refused before it can do anything, and nobody is advised to load it anyway."""
    path, proof = tmp_path / "net.pt", tmp_path / "proof"
    torch.save(fields(**{where: Malicious(proof)}), path)
    with pytest.raises(
        ArtifactError, match=r"not a .pt of relume: holds more than texts and tensors$"
    ):
        load_pt(path)
    assert not proof.exists()


def test_the_program_would_have_run(tmp_path: Path) -> None:
    """The test above tests something."""
    pickle.loads(pickle.dumps(Malicious(tmp_path / "proof")))
    assert (tmp_path / "proof").read_text() == "run"


def test_a_pickle_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    """Even with sound checksums."""
    path = saved(tmp_path, ".pt")
    with zipfile.ZipFile(path) as archive:
        files = {one.filename: archive.read(one) for one in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, b"\x80\x02)." if name.endswith("data.pkl") else content)
    with pytest.raises(ArtifactError, match="a PyTorch file, but no relume artifact"):
        load_pt(path)


def test_a_safetensors_with_another_number_is_refused(tmp_path: Path) -> None:
    """The format has no checksum of its own: one flipped bit of a weight is noticed anyway."""
    path = saved(tmp_path, ".safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"tiny\.safetensors: damaged: the digest differs"):
        load_safetensors(path)


def test_equal_artifacts_are_equal_files(tmp_path: Path) -> None:
    """A file's bytes do not depend on where, or under which name, it is written."""
    for name in ("first", "second"):
        checkpoint.save_pt(tmp_path / name, tiny())
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
