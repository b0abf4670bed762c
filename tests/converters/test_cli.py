"""The converters as their users call them."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from converters.cli import convert, pt_to_onnx
from models.checkpoint import load
from models.presets import PRESETS
from models.report import Report
from models.session import Session
from models.spec import ModelSpec
from models.verify import run
from tests.oracles import ROOT, golden
from tests.t7_writer import Module, Sizes, write

KEYS = {"source", "sha256", "format", "architecture", "parameters", "input", "pt", "onnx", "verify"}
NOISE_FACTOR = 2  # Torch7 and we are each off by the network's own noise, in opposite directions
SMALL = 2e-6  # relative; float32 sums in another order, where the noise happens to be tiny

MODELS = [
    "alexnet_two_column",
    "enet_v2",
    "enet_v3_div4",
    "enet_v7_div2",
    "fb_preresnet18_imagenet_div8",
    "fb_preresnet20_cifar10_half",
    "fb_resnet18_imagenet_div8",
    "fb_resnet20_cifar10",
    "fb_resnet50_imagenet_div16",
    "fb_resnet8_cifar10_keepstate",
    "googlenet_small",
    "irv2_div16",
    "nin_grouped_cifar",
    "unpooling_net",
    "vgg_bn_cifar",
]


def converted(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Run the doorway's function with --json and return what it printed."""
    status = convert([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return dict(json.loads(printed.out))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a conversion that has to fail, and return its one line."""
    assert convert([*map(str, arguments), "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def image_network(*more: Module, classes: int = 3) -> Module:
    """Return a tiny classifier of 3 x 224 x 224 images."""
    pooling = {"kW": 224, "kH": 224, "dW": 1, "dH": 1, "padW": 0, "padH": 0, "divide": True}
    weight = np.arange(3 * classes, dtype="f4").reshape(classes, 3)
    return Module(
        "nn.Sequential",
        modules=[
            Module("nn.SpatialAveragePooling", ceil_mode=False, count_include_pad=True, **pooling),
            Module("nn.View", size=Sizes(3)),
            Module("nn.Linear", weight=weight, bias=np.zeros(classes, "f4")),
            *more,
        ],
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A classifier whose convention has to be said."""
    return write(tmp_path / "tiny.t7", image_network())


@pytest.mark.parametrize("name", MODELS)
def test_models_equal_torch7_through_both_artifacts(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of Torch7's time gives Torch7's numbers through the .pt and through the .onnx."""
    source = golden(f"torch7/models/{name}.t7")
    expected = np.load(golden(f"torch7/models/{name}.npz"))
    x, theirs = expected["input"], expected["output"]
    shape = ",".join(map(str, x.shape))
    found = converted(capsys, source, "-o", tmp_path, "--input", "none", "--input-shape", shape)
    noise = np.abs(theirs - expected["output_float64_rounded"]).max()
    bound = max(NOISE_FACTOR * noise, SMALL * np.abs(theirs).max())
    (from_pt,) = run(load(found["pt"]).module, [x])
    session = Session(Path(found["onnx"]))
    (from_onnx,) = session.run(x)
    assert np.abs(from_pt - theirs).max() <= bound
    assert np.abs(from_onnx - theirs).max() <= bound
    assert (session.input_names, session.output_names) == (("input",), ("output",))
    assert session.input_shapes[0][0] == "batch"


def test_inception_resnet_v2_without_a_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The packed 127 MB file needs no flag: it is recognised, named readably, and proved."""
    source = golden("torch7/irv2/irv2_full.t7.xz")
    expected = np.load(golden("torch7/irv2/irv2_full.npz"))
    found = converted(capsys, source, "-o", tmp_path, "--name", "irv2")
    assert found.keys() >= KEYS
    assert found["architecture"] == "inception_resnet_v2_torch"
    assert found["parameters"] == 31_574_440
    assert found["sha256"].startswith("70196c3735e8e774945898d26e5b2d2e")
    assert found["input"]["resize"] == 328
    assert found["decided_by"] == "fingerprint"
    assert (found["pt"], found["onnx"]) == (str(tmp_path / "irv2.pt"), str(tmp_path / "irv2.onnx"))
    assert found["verify"]["top5_equal"] is True
    theirs = expected["output"].ravel()
    # the file's float64 outputs are magnitudes: no sign survived, in Torch7's float32 ones they did
    noise = np.abs(np.abs(theirs) - expected["output_float64_rounded"].ravel()).max()
    assert noise < SMALL * np.abs(theirs).max()
    module, spec = load(found["pt"])
    assert spec.input == PRESETS["torch-299"]
    assert "stem.0.conv.weight" in module.state_dict()
    (from_pt,) = run(module, [expected["input"]])
    (from_onnx,) = Session(tmp_path / "irv2.onnx").run(expected["input"])
    assert np.abs(from_pt.ravel() - theirs).max() <= NOISE_FACTOR * noise
    assert np.abs(from_onnx.ravel() - theirs).max() <= NOISE_FACTOR * noise


def test_the_example_is_known_by_its_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The committed network with half-precision weights needs no flag, and equals Torch7."""
    source = ROOT / "examples" / "efficientnet_lite0.t7"
    found = converted(capsys, source, "-o", tmp_path)
    assert (found["decided_by"], found["input"]["mean"]) == ("sha256", [127.0, 127.0, 127.0])
    assert found["parameters"] == 4_652_008
    pictures = np.load(golden("pretrained/images_20.npz"))
    theirs = np.load(golden("pretrained/efficientnet_lite0_half.npz"))["torch7_logits"]
    x = (pictures["crops_u8"].astype(np.float32) - 127) / 128
    noise = np.abs(pictures["torch7_logits"] - pictures["float64_logits_rounded"]).max()
    for ours in (*run(load(found["pt"]).module, [x]), *Session(Path(found["onnx"])).run(x)):
        assert np.abs(ours - theirs).max() <= NOISE_FACTOR * noise
        ranked = [np.argsort(-rows, axis=1)[:, :5] for rows in (ours, theirs)]
        np.testing.assert_array_equal(*ranked)


def test_the_contract(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A preset by flag: both artifacts beside the source, all keys, spec and digest inside."""
    found = converted(capsys, tiny, "--input", "torch-224")
    assert found.keys() >= KEYS
    assert found["source"] == str(tiny)
    assert found["architecture"] is None
    assert found["parameters"] == 12
    assert found["decided_by"] == "flag"
    assert found["verify"].keys() >= {"max_abs", "noise", "top5_equal"}
    assert found["verify"]["top5_equal"] is None  # three classes have no five best
    proto = onnx.load(found["onnx"])
    metadata = {prop.key: prop.value for prop in proto.metadata_props}
    spec = ModelSpec.from_json(metadata["model_spec"])
    assert metadata["source_sha256"] == found["sha256"] == spec.origin.sha256
    assert Report.from_json(metadata["report"]).max_abs == found["verify"]["max_abs"]
    assert spec == load(found["pt"]).spec
    assert [label.name for label in spec.labels] == ["0", "1", "2"]
    assert proto.opset_import[0].version == found["verify"]["opset"]
    content = torch.load(found["pt"], weights_only=True)
    assert content["state_dict"]["2.weight"].shape == (3, 3)


def test_what_people_read(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json the findings are on stdout and the progress is on stderr."""
    assert convert([str(tiny), "--input", "torch-224"]) == 0
    printed = capsys.readouterr()
    for part in (
        "tiny.t7: torch7-binary, sha256 ",
        "nn.SpatialAveragePooling 1",
        "parameters  12",
        "not one of the known architectures",
        "shorter 256 torch7-bicubic | crop 224x224 ceil | RGB x 1/255 | mean 0.485",
        "because --input says so",
        "3 logits: '0' to '2'",
        "parity      1x3x224x224: onnxruntime",
        f"wrote       {tiny.with_suffix('.onnx')} (",
    ):
        assert part in printed.out
    assert "exporting to ONNX" in printed.err


def test_labels_come_from_a_file(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One name a line, a leading wnid allowed."""
    labels = tiny.with_name("labels.txt")
    labels.write_text("n01440764 tench, Tinca tinca\ncat\nn02085620 Chihuahua\n")
    found = converted(capsys, tiny, "--input", "torch-224", "--labels", labels)
    assert load(found["pt"]).spec.labels == (
        ("n01440764", "tench, Tinca tinca"),
        (None, "cat"),
        ("n02085620", "Chihuahua"),
    )


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ("nn.LogSoftMax", "log_probabilities"),
        ("nn.SoftMax", "probabilities"),
        ("nn.Sigmoid", "probabilities"),  # each class its own, which softmax would spoil
        ("nn.Tanh", "logits"),
    ],
)
def test_the_output_kind_is_read_off_the_last_layer(
    last: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is asked what the file tells."""
    source = write(tmp_path / "net.t7", image_network(Module(last)))
    assert converted(capsys, source, "--input", "torch-224")["output"] == kind


def test_several_inputs_and_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables are given and named depth first, the batch dynamic where proved."""
    branches = [Module("nn.CAddTable"), Module("nn.JoinTable", dimension=2)]
    source = write(tmp_path / "net.t7", Module("nn.ConcatTable", modules=branches))
    shapes = ["--input", "none", "--input-shape", "2,3;2,3"]
    found = converted(capsys, source, *shapes)
    session = Session(Path(found["onnx"]))
    assert session.input_names == ("input_1", "input_2")
    assert session.output_names == ("output_1", "output_2")
    x, y = np.ones((5, 3), "f4"), np.full((5, 3), 2, "f4")
    total, joined = session.run(x, y)
    np.testing.assert_array_equal(total, x + y)
    np.testing.assert_array_equal(joined, np.concatenate([x, y], 1))


def test_a_first_dimension_that_is_no_batch_stays_fixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A vector of 7 numbers is not a batch of 7."""
    module = Module("nn.Linear", weight=np.ones((2, 7), "f4"))
    source = write(tmp_path / "net.t7", module)
    found = converted(capsys, source, "--input", "none", "--input-shape", "7")
    assert Session(Path(found["onnx"])).input_shapes == ((7,),)
    assert found["verify"]["measured"][0]["inputs"] == [[7]]
    assert found["input"] is None


def test_safetensors_and_no_onnx(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--safetensors writes the same content; --no-onnx leaves the ONNX file to pt_to_onnx."""
    found = converted(capsys, tiny, "--input", "torch-224", "--safetensors", "--no-onnx")
    assert found["onnx"] is None
    assert found["verify"]["max_abs"] == found["verify"]["noise"]
    pt, safe = load(found["pt"]), load(found["safetensors"])
    assert pt.spec == safe.spec
    x = np.ones((1, 3, 224, 224), "f4")
    np.testing.assert_array_equal(run(pt.module, [x]), run(safe.module, [x]))
    assert pt_to_onnx([found["safetensors"], "--json"]) == 0
    later = json.loads(capsys.readouterr().out)
    assert later["onnx"] == str(tiny.with_suffix(".onnx"))
    assert later["sha256"] == found["sha256"]
    assert Session(Path(later["onnx"])).spec == pt.spec


def test_results_are_not_overwritten_unasked(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run needs --force, and says so before it works."""
    converted(capsys, tiny, "--input", "torch-224", "--no-onnx")
    line = refused(capsys, tiny, "--input", "torch-224", "--no-onnx")
    assert "tiny.pt: already there; --force overwrites" in line
    converted(capsys, tiny, "--input", "torch-224", "--no-onnx", "--force")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "not in the file, and its structure is not a known one: --input PRESET says it, with "
            "torch-224 (256 to 224), enet-224 (256 to 224), ",
        ),
        (
            ["--input", "torch-512"],
            "--input torch-512: no such preset; there are torch-299 (328 to 299), torch-224",
        ),
        (
            ["--only", "onnx", "--no-onnx"],
            "--only onnx goes with neither --no-onnx nor --safetensors",
        ),
        (["--input", "none"], "--input none: no shapes; --input-shape 2,3,8,8 gives them"),
        (["--input-shape", "2,3,224,224"], "it goes with --input none"),
        (["--input", "torch-224", "--input-shape", "2,3,224,224"], "it goes with --input none"),
        (["--input", "torch-299"], "an image classifier gives batch x classes, this network gives"),
        (
            ["--input", "torch-224", "--labels", "LABELS"],
            "found 2 labels, expected 3: one for each",
        ),
        (["--input", "torch-224", "--labels", "gone.txt"], "gone.txt: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_answers_leave_nothing(
    tiny: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """One line says what is wrong; no file is left, stdout is empty."""
    labels = tiny.with_name("labels.txt")
    labels.write_text("cat\ndog\n")
    given = [str(labels) if one == "LABELS" else one for one in arguments]
    before = sorted(tiny.parent.iterdir())
    line = refused(capsys, tiny, *given)
    assert message in line
    assert sorted(tiny.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.t7: byte 0: found an empty file"),
        (b"PK\x03\x04", "found a zip archive that is damaged, or not PyTorch's (File is not a zip"),
        (b"\x04\0\0\0\x01\0", "bad.t7: byte"),
    ],
)
def test_bad_files_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    """A file that is no checkpoint ends in one line and no artifact."""
    source = tmp_path / "bad.t7"
    source.write_bytes(content)
    assert message in refused(capsys, source)
    assert list(tmp_path.iterdir()) == [source]


def test_unknown_layers_are_listed_with_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them in one line, whatever convention was or was not given."""
    network = image_network(Module("nn.Mystery"), Module("my.Other"))
    line = refused(capsys, write(tmp_path / "net.t7", network))
    assert "2 layers cannot be converted exactly: 3: nn.Mystery; 4: my.Other" in line


def test_broken_weights_are_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A NaN in the weights is found by running the network."""
    network = image_network()
    network.fields["modules"][2].fields["bias"] = np.array([0, np.nan, 0], "f4")
    line = refused(capsys, write(tmp_path / "net.t7", network), "--input", "torch-224")
    assert "net.t7: " in line
    assert "not finite, in the file itself" in line
    assert not (tmp_path / "net.pt").exists()


def test_a_network_that_mixes_its_batch_is_no_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A preset promises batch x classes."""
    source = write(tmp_path / "net.t7", Module("nn.View", size=Sizes(-1)))
    line = refused(capsys, source, "--input", "torch-224")
    assert "an image classifier gives batch x classes, this network gives 301056" in line


def test_a_known_structure_with_other_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too many labels, or a name with a folder, are usage that is refused."""
    with pytest.raises(SystemExit, match="2"):
        convert([str(tmp_path / "x.t7"), "--name", "a/b"])
    assert "is not a file name" in capsys.readouterr().err
    for shape in ("2,x", "2,-1", "99999,99999"):
        with pytest.raises(SystemExit, match="2"):
            convert([str(tmp_path / "x.t7"), "--input-shape", shape])
    assert "numbers at most" in capsys.readouterr().err


def test_a_source_is_never_its_own_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Torch7 file that is called .pt is not replaced, --force or not."""
    source = write(tmp_path / "net.pt", image_network())
    before = source.read_bytes()
    line = refused(capsys, source, "--input", "torch-224", "--force")
    assert "net.pt: the result would replace its source" in line
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "FILE"], "labels.txt is a file, expected a folder"),
        (["-o", "DEEPER"], "labels.txt is a file, expected a folder"),
        (
            ["--force", "--no-onnx", "--name", "taken"],
            "taken.pt: a folder is in the way",
        ),
        (["--input", "odd.json"], "odd.json: No such file"),
    ],
    ids=["out is a file", "out is in a file", "result is a folder", "no such convention"],
)
def test_what_would_fail_at_the_end_fails_at_once(
    tiny: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Nobody waits for a conversion whose result cannot be written."""
    labels = tiny.with_name("labels.txt")
    labels.write_text("a\n")
    (tiny.parent / "taken.pt").mkdir()
    files = {"FILE": str(labels), "DEEPER": str(labels / "deeper")}
    given = [files.get(one, one) for one in arguments]
    line = refused(capsys, tiny, "--input", "torch-224", *given)
    assert message in line


def test_a_missing_source_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not there is said."""
    assert "gone.t7: no such file" in refused(capsys, tmp_path / "gone.t7")


def test_names_that_are_no_text_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name of arbitrary bytes cannot stand in an artifact."""
    source = write(tmp_path / "net.t7", image_network())
    odd = source.rename(tmp_path / os.fsdecode(b"\xff.t7"))
    assert "not a UTF-8 name: --name NAME gives another" in refused(capsys, odd)


def test_a_convention_from_a_file_can_be_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of 32 x 32 pixels takes images once a file says how they enter."""
    network = image_network()
    network.fields["modules"][0].fields.update(kW=32, kH=32)
    given = {**asdict(PRESETS["torch-224"]), "resize": 32, "crop": [32, 32], "source": "mine"}
    convention = tmp_path / "small.json"
    convention.write_text(json.dumps(given))
    found = converted(capsys, write(tmp_path / "net.t7", network), "--input", convention)
    assert Session(Path(found["onnx"])).spec.input.crop == (32, 32)


def test_the_doorway_works_from_any_directory(tmp_path: Path) -> None:
    """`python converters/t7_to_pt.py` needs neither an installed package nor a directory."""
    write(tmp_path / "net.t7", image_network())
    command = [sys.executable, ROOT / "converters" / "t7_to_pt.py", "net.t7", "--no-onnx", "--json"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "--input", "torch-224"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["pt"] == str(tmp_path / "net.pt")
    again = [sys.executable, ROOT / "converters" / "pt_to_onnx.py", "net.pt", "--json"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["onnx"] == str(tmp_path / "net.onnx")
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "Traceback" not in failed.stderr
