"""An .onnx becomes a model repository that Triton takes as it is."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput

from converters import triton
from converters.export import export
from models.errors import ArtifactError
from models.spec import Label, checked_input
from tests.tiny_onnx import INPUT, LABELS, Tiny, spec

BATCH = 8  # models.engines.BATCH_CUDA: what the service runs at once on a GPU


TINY = Tiny()


def exported(tmp_path: Path, *flags: str, tiny: Tiny = TINY) -> tuple[Path, ModelConfig]:
    """Export a tiny artifact; return its folder, and its configuration as Triton reads it."""
    source = tiny.write(tmp_path / "tiny.onnx")
    repository = tmp_path / "triton"
    assert export([str(source), "--to", "triton", "-o", str(repository), *flags]) == 0
    folder = repository / "tiny"
    text = (folder / "config.pbtxt").read_text(encoding="ascii")
    return folder, text_format.Parse(text, ModelConfig())


def test_the_repository_is_whole(tmp_path: Path) -> None:
    """The configuration, the labels and the same bytes as version 1; nothing else stays."""
    folder, _ = exported(tmp_path)
    found = {one.relative_to(tmp_path / "triton").as_posix() for one in folder.rglob("*.*")}
    assert found == {"tiny/config.pbtxt", "tiny/labels.txt", "tiny/1/model.onnx"}
    assert (folder / "1/model.onnx").read_bytes() == (tmp_path / "tiny.onnx").read_bytes()
    names = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert names == [label.name for label in LABELS]
    assert list((tmp_path / "triton").iterdir()) == [folder]
    assert folder.stat().st_mode & 0o777 == tmp_path.joinpath("triton").stat().st_mode & 0o777


def test_tensors_are_the_files(tmp_path: Path) -> None:
    """Names, types and sizes, the batch left to Triton; the labels belong to the classes."""
    _, config = exported(tmp_path)
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", BATCH)
    (image,), (classes,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == (
        "image",
        DataType.TYPE_FP32,
        [3, 8, 8],
    )
    assert image.format == ModelInput.Format.FORMAT_NCHW
    assert (classes.name, list(classes.dims)) == ("logits", [len(LABELS)])
    assert classes.label_filename == "labels.txt"


def test_batches_are_what_waits(tmp_path: Path) -> None:
    """The batcher is on, waits for nobody, prefers no size, and is as large as was asked for."""
    _, config = exported(tmp_path, "--max-batch", "32")
    assert config.max_batch_size == 32
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching == type(config.dynamic_batching)()
    assert config.version_policy.latest.num_versions == 1
    assert not config.instance_group  # Triton makes one for each GPU, or one on the CPU


def test_a_fixed_batch_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network of one image at a time has its whole shape, no batcher, and no image format.

    Triton takes a format of tensors of three dimensions only.
    """
    _, config = exported(tmp_path, tiny=Tiny(batch=1))
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [1, 3, 8, 8]
    assert list(config.output[0].dims) == [1, len(LABELS)]
    assert config.input[0].format == ModelInput.Format.FORMAT_NONE
    assert "batches     one image, as the file says" in capsys.readouterr().out


def test_clients_are_told_how_images_enter(tmp_path: Path) -> None:
    """The parameters are what a client needs, and name the file that answers."""
    folder, config = exported(tmp_path)
    told = {key: one.string_value for key, one in config.parameters.items()}
    assert checked_input(json.loads(told["relume_input"])) == INPUT
    assert told["relume_output"] == "logits"
    model = triton.read(folder / "1/model.onnx")[0]
    assert told["relume_sha256"] == model.sha256


def test_a_gpu_computes_in_float32(tmp_path: Path) -> None:
    """Not in TensorFloat-32: the answers are those that were verified."""
    _, config = exported(tmp_path)
    (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (cuda.name, dict(cuda.parameters)) == ("cuda", {"use_tf32": "0"})


def test_the_same_file_gives_the_same_repository(tmp_path: Path) -> None:
    """Byte for byte, and it replaces the old one only when that is asked for."""
    folder, _ = exported(tmp_path)
    first = {one: one.read_bytes() for one in folder.rglob("*.*")}
    exported(tmp_path, "--force")
    assert {one: one.read_bytes() for one in folder.rglob("*.*")} == first


def test_odd_texts_are_text(tmp_path: Path) -> None:
    """Quotes, backslashes and what is not ASCII come back as they were."""
    odd = 'an "ö\\\t'
    tiny = Tiny(replace(spec(), input=replace(INPUT, source=odd)))
    _, config = exported(tmp_path, tiny=tiny)
    told = json.loads(config.parameters["relume_input"].string_value)
    assert told["source"] == odd
    assert text_format.Parse(f"name: {triton._quoted(odd)}", ModelConfig()).name == odd


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """Export what cannot be; return the one line that is said. Nothing new may be there."""
    before = sorted(tmp_path.rglob("*"))
    source = tmp_path / "tiny.onnx"
    assert export([str(source), "--to", "triton", "-o", str(tmp_path / "triton"), *flags]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no model", "tiny.onnx: not an ONNX model that onnxruntime "),
        (Tiny(None).bytes(), "carries no model_spec: it was not written by relume"),
        (Tiny(spec(None)).bytes(), "takes no image"),
        (Tiny(batch=4).bytes(), "found a batch size of 4, expected 1 or any"),
        (Tiny(outputs=3).bytes(), "found an output of shape (2, 3), expected (2, 7)"),
        (Tiny(scale=float("nan")).bytes(), "found NaN or infinity"),
        (Tiny(replace(spec(), name="a/b")).bytes(), "found the name 'a/b', expected one that a"),
        (Tiny(replace(spec(), name="..")).bytes(), "found the name '..', expected one that a"),
        (Tiny(replace(spec(), name="")).bytes(), "found the name '', expected one that a"),
        (Tiny(replace(spec(), name="a\0b")).bytes(), r"found the name 'a\x00b', expected one that"),
        (Tiny(replace(spec(), name="a\nb")).bytes(), r"found the name 'a\nb', expected one that a"),
        (Tiny(replace(spec(), name="a\\b")).bytes(), r"found the name 'a\\b', expected one that"),
        (
            Tiny(replace(spec(), labels=(*LABELS[:-1], Label(None, "a\nb")))).bytes(),
            "label 6: found 'a\\nb', expected one line: convert it again with --labels",
        ),
    ],
    ids=[
        "no onnx",
        "no spec",
        "no image",
        "batch",
        "outputs",
        "nan",
        "path",
        "dots",
        "nothing",
        "NUL",
        "newline",
        "backslash",
        "label",
    ],
)
def test_what_no_classifier_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    """One line says why, and no part of a repository stays."""
    (tmp_path / "tiny.onnx").write_bytes(content)
    assert message in refused(tmp_path, capsys)


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is the path."""
    assert "tiny.onnx: no such file" in refused(tmp_path, capsys)


def test_a_checkpoint_is_converted_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Who has none of ONNX is told what writes it."""
    assert export(["irv2.t7", "--to", "triton", "-o", "triton"]) == 1
    assert "irv2.t7: expected an .onnx: `relume convert` writes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda tensor: setattr(tensor, "elem_type", TensorProto.BFLOAT16), "BFLOAT16"),
        (lambda tensor: tensor.ClearField("shape"), "FLOAT without a shape"),
    ],
    ids=["type", "shape"],
)
def test_tensors_that_triton_cannot_be_told_are_refused(
    tmp_path: Path, change: Callable[[Any], None], found: str
) -> None:
    """Files of relume have float32 outside, whatever they compute in."""
    model = Tiny().model()
    change(model.graph.output[0].type.tensor_type)
    onnx.save(model, tmp_path / "tiny.onnx")
    message = f"tiny.onnx: logits: found {found}, expected FLOAT with a shape"
    with pytest.raises(ArtifactError, match=message):
        triton._tensors(tmp_path / "tiny.onnx")


def test_weights_in_another_file_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would stay behind."""
    model = Tiny().model()
    onnx.save(model, tmp_path / "tiny.onnx", save_as_external_data=True, size_threshold=0)
    assert "its weights are in another file, expected them within" in refused(tmp_path, capsys)


def test_what_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unasked nothing is replaced, and nothing that relume did not write is ever removed."""
    folder, _ = exported(tmp_path)
    capsys.readouterr()
    assert "tiny: already there; --force overwrites" in refused(tmp_path, capsys)
    (folder / "2").mkdir()
    (folder / "2/model.onnx").write_bytes(b"a user's own")
    message = refused(tmp_path, capsys, "--force")
    assert "tiny: holds 2/model.onnx, which relume did not write: move it away" in message


def test_a_file_in_the_way_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the model, or of the repository."""
    Tiny().write(tmp_path / "tiny.onnx")
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton/tiny").write_text("here")
    message = refused(tmp_path, capsys, "--force")
    assert "tiny: is a file, which relume did not write: move it away" in message
    (tmp_path / "triton/tiny").unlink()
    (tmp_path / "triton").rmdir()
    (tmp_path / "triton").write_text("here")
    assert "triton: " in refused(tmp_path, capsys)


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a repository is none."""
    Tiny().write(tmp_path / "tiny.onnx")
    (tmp_path / "triton").mkdir()

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(triton.shutil, "copyfile", full)
    assert "No space left on device" in refused(tmp_path, capsys)


def test_a_model_without_a_name_takes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where the repository itself may be overwritten."""
    Tiny(replace(spec(), name="")).write(tmp_path / "tiny.onnx")
    (tmp_path / "triton").mkdir()
    assert "found the name ''" in refused(tmp_path, capsys, "--force")


def test_a_batch_is_what_triton_can_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its field is an int32, of which the largest is taken."""
    _, config = exported(tmp_path, "--max-batch", "2147483647")
    assert config.max_batch_size == 2**31 - 1
    message = refused(tmp_path, capsys, "--force", "--max-batch", "2147483648")
    assert "--max-batch: found 2,147,483,648, expected at most 2,147,483,647" in message


def test_what_is_printed_moves_no_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor do names of folders, or of what is in the file, start lines of their own."""
    source = TINY.write(tmp_path / "tiny.onnx")
    odd = tmp_path / "tri\x1b[2J\nton"
    assert export([str(source), "--to", "triton", "-o", str(odd)]) == 0
    said = capsys.readouterr().out
    assert r"tri\x1b[2J\nton/tiny: for Triton" in said
    assert said.replace("\n", "").isprintable()
    assert len(said.splitlines()) == 6


def test_an_end_between_the_renames_brings_the_old_model_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM comes when the old folder is away and the new one not yet there."""
    folder, _ = exported(tmp_path)
    capsys.readouterr()
    (folder / "labels.txt").write_text("the old one's")
    rename = os.rename

    def ends(source: Path, target: Path) -> None:
        if source.name == "new":
            os.kill(os.getpid(), signal.SIGTERM)
        rename(source, target)

    monkeypatch.setattr(triton.os, "rename", ends)
    given = [str(tmp_path / "tiny.onnx"), "--to", "triton", "-o", str(folder.parent), "--force"]
    assert export(given) == 128 + signal.SIGTERM
    assert (folder / "labels.txt").read_text() == "the old one's"
    assert (folder / "1/model.onnx").exists()
    assert list(folder.parent.iterdir()) == [folder]
