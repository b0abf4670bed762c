"""The tensors of a file, whole and under their names, without a network."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from converters import bare
from converters.bare import Bare, write_tensors
from converters.packing import unpacked
from models.errors import ArtifactError, FormatError, UnsupportedLayer
from models.graph import Array
from tests.oracles import golden
from tests.t7_writer import Module, Shared, View, write


def written(tmp_path: Path, value: Any) -> tuple[Bare, dict[str, Array], dict[str, str]]:
    return opened(write(tmp_path / "made.t7", value), tmp_path)


def opened(path: Path, folder: Path) -> tuple[Bare, dict[str, Array], dict[str, str]]:
    target = folder / "made.safetensors"
    found = write_tensors(path, path, target)
    assert target.stat().st_size == found.bytes
    with safetensors.safe_open(target, framework="numpy") as file:
        return found, {name: file.get_tensor(name) for name in found.names}, file.metadata()


def refused(tmp_path: Path, value: Any, match: str) -> None:
    path = write(tmp_path / "made.t7", value)
    with pytest.raises(FormatError, match=match):
        write_tensors(path, path, tmp_path / "made.safetensors")
    assert list(tmp_path.iterdir()) == [path]


def test_every_type_and_shape_comes_back(tmp_path: Path) -> None:
    """Each tensor keeps its type, its shape and its numbers; state stays out."""
    random = np.random.default_rng(7)
    fields = {
        f"of_{kind}": (random.normal(size=(2, 3)) * 50).astype(kind)
        for kind in ("u1", "f2", "i4", "f4", "i8", "f8")
    }
    norm = Module(
        "nn.BatchNormalization", running_mean=np.ones(4, "f4"), save_mean=np.ones(4, "f4")
    )
    layers = [Module("nn.Mystery", **fields, output=np.ones(3, "f4")), norm]
    found, tensors, metadata = written(tmp_path, Module("nn.Sequential", modules=layers))
    assert found.names == (*(f"0.{name}" for name in fields), "1.running_mean")
    for name, expected in fields.items():
        assert tensors[f"0.{name}"].dtype == expected.dtype
        np.testing.assert_array_equal(tensors[f"0.{name}"], expected)
    assert (found.parameters, found.statistics) == (36, 4)
    assert metadata["format"] == "relume-tensors"
    assert metadata["schema"] == "1"
    assert metadata["source"] == "made.t7"
    assert json.loads(metadata["classes"]) == {
        "": "nn.Sequential",
        "0": "nn.Mystery",
        "1": "nn.BatchNormalization",
    }


def test_the_digest_is_the_sources(tmp_path: Path) -> None:
    """The SHA-256 is that of the unpacked file, in the result and in the metadata."""
    found, _, metadata = written(tmp_path, Module("nn.Linear", weight=np.ones(3, "f4")))
    digest = hashlib.sha256((tmp_path / "made.t7").read_bytes()).hexdigest()
    assert found.sha256 == metadata["sha256"] == digest


def test_what_is_one_tensor_is_stored_once(tmp_path: Path) -> None:
    """Its other names are in the metadata, whether the object is shared or only its numbers."""
    both = Shared(np.arange(6, dtype="f4"))
    tied = np.ones(2, "f4")
    layers = [
        Module("nn.Linear", weight=View(both, (2, 3), (3, 1)), bias=tied),
        Module("nn.Linear", weight=View(both, (2, 3), (3, 1)), bias=tied),
        Module("nn.Linear", weight=View(both, (3,), (1,), 3)),
    ]
    found, tensors, metadata = written(tmp_path, Module("nn.Sequential", modules=layers))
    assert found.shared == {"1.weight": "0.weight", "1.bias": "0.bias"}
    assert json.loads(metadata["shared"]) == found.shared
    assert found.parameters == 6 + 2 + 3
    assert tensors["2.weight"].tolist() == [3, 4, 5]


def test_views_are_written_as_they_look(tmp_path: Path) -> None:
    """Transposed, narrowed and repeated views have their own order of elements."""
    base = Shared(np.arange(12, dtype="f4"))
    views = {
        "transposed": View(base, (3, 4), (1, 3)),
        "narrowed": View(base, (4, 2), (3, 1), 1),
        "repeated": View(base, (3, 2), (1, 0)),
        "single": View(base, (1, 4), (99, 1), 2),
    }
    _, tensors, _ = written(tmp_path, Module("nn.Mystery", **views))
    whole = np.arange(12, dtype="f4")
    np.testing.assert_array_equal(tensors["transposed"], whole.reshape(4, 3).T)
    np.testing.assert_array_equal(tensors["narrowed"], whole.reshape(4, 3)[:, 1:])
    np.testing.assert_array_equal(tensors["repeated"], [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_array_equal(tensors["single"], [[2, 3, 4, 5]])


@pytest.mark.parametrize(
    "name",
    [
        "serialization/module_linear",
        "serialization/module_linear_ascii",
        "serialization/layout_native",
        "serialization/layout_b32",
        "serialization/layout_bigendian",
        "serialization/layout_bigendian_b32",
    ],
)
def test_every_layout_gives_the_same(name: str, tmp_path: Path) -> None:
    """Text, both byte orders and both longs have the numbers that the binary file has."""
    _, tensors, _ = opened(golden(f"torch7/{name}.t7"), tmp_path)
    assert {key: (one.shape, one.dtype) for key, one in tensors.items()} == {
        "weight": ((2, 3), np.float32),
        "bias": ((2,), np.float32),
    }
    stem = "module_linear" if "module" in name else "layout_native"
    _, expected, _ = opened(golden(f"torch7/serialization/{stem}.t7"), tmp_path)
    for key, one in tensors.items():
        np.testing.assert_array_equal(one, expected[key])


def test_the_full_network(tmp_path: Path) -> None:
    """All 662 tensors of Inception-ResNet-v2, bit by bit, from neighbours copied together."""
    with unpacked(golden("torch7/irv2/irv2_full.t7.xz")) as path:
        found, tensors, _ = opened(path, tmp_path)
        source = bare.T7Source(path)
        kept = bare._found(source, path).tensors
    assert (len(tensors), found.parameters, found.statistics) == (662, 31_574_440, 79_968)
    for name, one in tensors.items():
        assert one.tobytes() == kept[name].array().tobytes()


def test_a_file_without_a_module_is_refused(tmp_path: Path) -> None:
    """There are no modules to name tensors after."""
    refused(tmp_path, {"x": np.ones(3, "f4")}, "found a table with the keys x, expected a module")


def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path) -> None:
    """No half of a file is written."""
    outside = View(Shared(np.ones(2, "f4")), (3,), (1,))
    refused(tmp_path, Module("nn.Linear", weight=outside), "reaches element 3, expected at most 2")


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    """A field may have any name; no tensor takes another's place."""
    weight = np.ones(2, "f4")
    net = Module("nn.Sequential", modules=[Module("nn.Linear", weight=weight)])
    net.fields["0.weight"] = np.ones(3, "f4")
    refused(tmp_path, net, "0.weight: found a name that is taken, expected another")
    refused(tmp_path, Module("nn.X", __metadata__=weight), "found a name that is taken")


def test_modules_without_end_are_refused(tmp_path: Path) -> None:
    """Names of modules nested too deep would grow with the square of the depth."""
    net = Module("nn.Identity")
    for _ in range(102):
        net = Module("nn.Sequential", modules=[net])
    with pytest.raises(UnsupportedLayer, match="modules nested more than 100 deep"):
        bare.T7Source(write(tmp_path / "made.t7", net))


def test_a_small_file_cannot_become_a_large_one(tmp_path: Path) -> None:
    """Views that repeat a storage again and again are more than any network has."""
    one = Shared(np.ones(1, "f4"))
    views = {f"w{n}": View(one, (1 << 18, n), (0, 0)) for n in range(1, 9)}
    refused(tmp_path, Module("nn.X", **views), r"tensors of 37,748,736 bytes together, expected at")


def test_names_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads headers of a hundred megabytes at most."""
    monkeypatch.setattr(bare, "MAX_HEADER", 400)
    refused(tmp_path, Module("nn.X", **{"w" * 400: np.ones(2, "f4")}), "expected at most 400")


def test_a_file_that_shrinks_is_refused(tmp_path: Path) -> None:
    """Numbers that are gone since the file was read are no zeros."""
    path = write(tmp_path / "made.t7", Module("nn.Linear", weight=np.ones(8, "f4")))
    (weight,) = bare._found(bare.T7Source(path), path).tensors.values()
    short = tmp_path / "short.t7"
    short.write_bytes(path.read_bytes()[:-4])
    with (
        pytest.raises(FormatError, match="found the end, expected 4 bytes"),
        (tmp_path / "out").open("wb") as target,
    ):
        list(bare._copied(short, path, [weight], target))


def test_it_is_no_artifact(tmp_path: Path) -> None:
    """What has no graph is not taken for a network."""
    from models.checkpoint import load_safetensors

    written(tmp_path, Module("nn.Linear", weight=np.ones(3, "f4")))
    with pytest.raises(ArtifactError, match="a safetensors file, but no relume artifact"):
        load_safetensors(tmp_path / "made.safetensors")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A source whose name is not UTF-8 is named all the same."""
    path = write(tmp_path / "made.t7", Module("nn.Linear", weight=np.ones(3, "f4")))
    target = tmp_path / "made.safetensors"
    write_tensors(path, Path("caf\udce9.t7"), target)
    with safetensors.safe_open(target, framework="numpy") as file:
        assert file.metadata()["source"] == "caf\\udce9.t7"
