"""Tests of relume/classify.py: what is printed, in which order, and what a bad image does."""

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.checkpoint import Checkpoint, save_pt, save_safetensors
from models.graph import Graph, Input, Network, Node
from models.report import Measured, Report
from models.spec import ModelSpec
from relume.classifier import Prepared
from relume.classify import main
from relume.images import MAX_BYTES, found
from relume.processes import ahead
from tests.oracles import ROOT
from tests.tiny_onnx import INPUT, LABELS, SIDE, Tiny, spec, weight

TORCH_ATOL = 1e-6  # two float32 matrix products of 192 terms up to 1
COLOURS = ("red", "lime", "blue")
CLASSES = ("red", "green", "blue")


SHAPE = (1, 3, SIDE, SIDE)
FLAT = Node("flat", "Flatten", ("input",), {"start_dim": 1, "end_dim": -1})
PRODUCT = Node(
    "product",
    "Linear",
    ("flat",),
    {"in_features": 3 * SIDE**2, "out_features": len(LABELS), "bias": False},
)
GRAPH = Graph((Input("input", SHAPE),), (FLAT, PRODUCT), ("product",), dynamic=True)


def checkpoint(graph: Graph, given: ModelSpec | None = None) -> Checkpoint:
    """Return the tiny network for torch."""
    network = Network(graph, {"product.weight": np.ascontiguousarray(weight().T) * 4})
    report = Report((Measured((SHAPE,), 1e-7, None, 4e-7, True),), None)
    return Checkpoint(given or spec(), network, report)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return an artifact that tells red, green, blue and where it is bright."""
    return Tiny().write(tmp_path / "tiny.onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Return pictures of one colour each, in the order of CLASSES, and a damaged one between."""
    paths = [tmp_path / f"{colour}.png" for colour in COLOURS]
    for path in paths:
        Image.new("RGB", (20, 10), path.stem).save(path)
    broken = tmp_path / "broken.png"
    whole = paths[0].read_bytes()
    broken.write_bytes(whole[: whole.index(b"IDAT") + 12])
    return [paths[0], broken, *paths[1:]]


def run(*arguments: object) -> int:
    return main([str(one) for one in arguments])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_lines_come_in_the_order_of_the_images(
    model: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each image is one object, a damaged one says why; batches of two do not disturb the order."""
    assert run(*pictures, "--model", model, "--format", "jsonl", "--top", 2, "--batch", 2) == 1
    found = lines(capsys)
    assert [one["file"] for one in found] == [str(path) for path in pictures]
    assert [one["predictions"][0]["label"] for one in found if "predictions" in one] == [*CLASSES]
    assert found[0]["predictions"][0].keys() == {"index", "wnid", "label", "probability"}
    assert all(len(one["predictions"]) == 2 for one in found if "predictions" in one)
    assert "truncated or damaged" in found[1]["error"]


def test_the_end_says_what_failed(
    model: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 1 and stderr lists the images without an answer, with their reasons."""
    assert run(*pictures, "nothing.jpg", "--model", model) == 1
    said = capsys.readouterr().err
    assert "5 images in " in said
    assert "error: 2 could not be classified:\n" in said
    assert f"  {pictures[1]}: found a truncated or damaged file" in said
    assert "  nothing.jpg: No such file or directory\n" in said


def test_good_images_end_with_0(
    model: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a failure the status is 0 and nothing is called an error."""
    assert run(pictures[0], "--model", model) == 0
    assert "error" not in capsys.readouterr().err


def test_the_table_is_for_people(
    model: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Names once, then the classes with their probabilities below each other."""
    run(*pictures[:2], "--model", model, "--top", 2)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert printed[0].startswith(str(pictures[0]))
    assert printed[0].endswith("%  red")
    assert printed[1].startswith(" ")
    assert printed[2].endswith("could not be classified")


def test_csv_has_one_row_a_class(
    model: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A program reads the table back, failures included."""
    run(*pictures[:2], "--model", model, "--format", "csv", "--top", 3)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3", ""]
    assert rows[0]["label"] == "red"
    assert (rows[0]["index"], rows[0]["wnid"]) == ("0", "n00000001")
    assert float(rows[0]["probability"]) > float(rows[1]["probability"])
    assert "truncated" in rows[3]["error"]


@pytest.mark.parametrize("save", [save_pt, save_safetensors], ids=["pt", "safetensors"])
@pytest.mark.parametrize("dynamic", [True, False], ids=["any batch", "batch of one"])
def test_torch_gives_what_onnxruntime_gives(
    save: Callable[[Path, Checkpoint], None],
    dynamic: bool,
    model: Path,
    pictures: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A .pt or .safetensors of the same network has the same classes, and their probabilities."""
    path = model.with_suffix(f".{save.__name__.removeprefix('save_')}")
    save(path, checkpoint(replace(GRAPH, dynamic=dynamic)))
    answers = []
    for one in (model, path):
        run(*pictures, "--model", one, "--format", "jsonl", "--threads", 1)
        answers.append([each.get("predictions") for each in lines(capsys)])
    for theirs, ours in zip(*answers, strict=True):
        if theirs is None:
            assert ours is None
            continue
        assert [one["label"] for one in ours] == [one["label"] for one in theirs]
        given = [one["probability"] for one in ours]
        expected = [one["probability"] for one in theirs]
        assert given == pytest.approx(expected, abs=TORCH_ATOL)


def test_an_onnx_needs_no_torch(model: Path, pictures: list[Path]) -> None:
    """Classifying with an .onnx leaves torch on the disk."""
    code = (
        "import sys; from relume.__main__ import main;"
        f"main(['classify', {str(pictures[0])!r}, '--model', {str(model)!r}]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_artifact_for_one_image_at_a_time_takes_many(
    pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch size that is fixed to 1 is respected, whatever --batch says."""
    fixed = Tiny(batch=1).write(tmp_path / "fixed.onnx")
    run(*pictures, "--model", fixed, "--format", "jsonl")
    best = [one["predictions"][0]["label"] for one in lines(capsys) if "predictions" in one]
    assert best == [*CLASSES]


def test_ten_crops_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is bright on its left is as bright on its right once the mirror images count."""
    image = Image.new("RGB", (SIDE, SIDE))
    image.paste("white", (0, 0, SIDE // 2, SIDE))
    image.save(tmp_path / "left.png")
    model = Tiny().write(tmp_path / "tiny.onnx")
    sides: list[dict[str, float]] = []
    for crops in (1, 10):
        run(
            tmp_path / "left.png",
            "--model",
            model,
            "--crops",
            crops,
            "--format",
            "jsonl",
            "--top",
            9,
        )
        (answer,) = lines(capsys)
        sides.append({one["label"]: one["probability"] for one in answer["predictions"]})
    assert sides[0]["left"] > 10 * sides[0]["right"]
    assert sides[1]["left"] == pytest.approx(sides[1]["right"], abs=TORCH_ATOL)


@pytest.mark.parametrize("ignore", [False, True])
def test_exif_is_honoured_unless_told(
    ignore: bool, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture that is stored on its side is bright on top for people, at its left as stored."""
    image, exif = Image.new("RGB", (SIDE, SIDE)), Image.Exif()
    image.paste("white", (0, 0, SIDE // 2, SIDE))
    exif[0x0112] = 6  # to be turned clockwise: the left side comes on top
    image.save(tmp_path / "turned.png", exif=exif)
    flag = ["--ignore-exif"] if ignore else []
    run(tmp_path / "turned.png", "--model", model, "--format", "jsonl", *flag)
    assert lines(capsys)[0]["predictions"][0]["label"] == ("left" if ignore else "top")


# --- which files ----------------------------------------------------------------------------------


def test_folders_and_patterns_are_walked_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments keep their order, a folder's files are sorted, and only images count in it."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b/2.JPG",
        "b/10.png",
        "b/deep/1.webp",
        "b/notes.txt",
        "a1.gif",
        "a2.gif",
        "z.dat",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    got = [path.as_posix() for path in found(["z.dat", "b", "a*.gif", "**/*.webp", "a1.gif"])]
    walked = ["b/10.png", "b/2.JPG", "b/deep/1.webp"]
    assert got == ["z.dat", *walked, "a1.gif", "a2.gif", "b/deep/1.webp", "a1.gif"]


def test_what_is_not_there_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, a pattern without a match and an empty folder are there to fail."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    names = ["missing.jpg", "*.jpg", "empty"]
    assert [path.as_posix() for path in found(names)] == names


def test_a_file_with_a_pattern_for_a_name_is_itself(tmp_path: Path) -> None:
    """Brackets in the name of a file that exists are no pattern."""
    path = tmp_path / "picture [1].png"
    path.touch()
    assert list(found([str(path)])) == [path]


@pytest.mark.parametrize("kind", ["folder", "pipe", "huge"])
def test_what_cannot_be_an_image_is_refused_unread(
    kind: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without images, a pipe that nobody writes to and a giant end nothing."""
    path = tmp_path / "odd.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(MAX_BYTES + 1)
    assert run(path, "--model", model) == 1
    reasons = {
        "folder": "found a folder without .bmp, ",
        "pipe": "found no regular file",
        "huge": "found 400,000,001 bytes, expected at most 400,000,000 of an image",
    }
    assert f"{path}: {reasons[kind]}" in capsys.readouterr().err


def test_any_file_name_can_be_printed(
    model: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that is no text, or several lines, is one line of valid text."""
    odd = tmp_path / os.fsdecode(b"a\xff\nb.png")
    odd.write_bytes(pictures[0].read_bytes())
    for form in ("table", "csv", "jsonl"):
        assert run(odd, "--model", model, "--format", form, "--top", 1) == 0
        printed = capsys.readouterr().out
        printed.encode()
        assert len(printed.splitlines()) == (2 if form == "csv" else 1)


def test_an_artifact_cannot_steer_the_terminal(
    model: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters among class names, or in a file's name, are shown and not sent."""
    labels = tuple(one._replace(name=f"\x1b[31m{one.name}") for one in LABELS)
    hostile = model.with_name("\x1b[2J.onnx")
    Tiny(spec=replace(spec(), labels=labels)).write(hostile)
    broken = pictures[1].rename(pictures[1].with_name("\x1b[2J.png"))
    assert run(pictures[0], broken, "--model", hostile, "--top", 1) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].endswith("\\x1b[31mred")
    assert printed.err.startswith(str(hostile).replace("\x1b", "\\x1b"))
    assert "\x1b" not in printed.out + printed.err


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.onnx", "missing.onnx: no such file"),
        ("missing.pt", "missing.pt: No such file or directory"),
        ("net.t7", "net.t7: expected an .onnx, .pt or .safetensors of relume; `relume convert`"),
    ],
)
def test_a_model_that_cannot_be_run_is_one_line(
    name: str, message: str, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no artifact is refused before any image is read, with what to do."""
    assert run(pictures[0], "--model", pictures[0].parent / name) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said


SIDEWAYS = PRODUCT._replace(attrs={**PRODUCT.attrs, "in_features": 7})
ONE_ROW = Node("flat", "Reshape", ("input",), {"shape": [1, 3 * SIDE**2]})
NO_INDICES = Node("odd", "MaxUnpool", ("input", "input"), {"output_size": [SIDE, SIDE]})


@pytest.mark.parametrize(
    ("graph", "given", "message"),
    [
        (replace(GRAPH, nodes=(FLAT, SIDEWAYS)), None, "damaged graph: node product: "),
        (replace(GRAPH, nodes=(ONE_ROW, PRODUCT)), None, "damaged graph: node flat: "),
        (GRAPH, spec(replace(INPUT, crop=(4, 4))), "damaged graph: node product: "),
        (replace(GRAPH, outputs=("flat", "product")), None, "found an output of shape (1, 192), "),
        (
            replace(GRAPH, nodes=(NO_INDICES, FLAT._replace(inputs=("odd",)), PRODUCT)),
            None,
            "cannot run: ",
        ),
    ],
    ids=["layer", "batch", "image", "outputs", "indices"],
)
def test_a_damaged_network_is_one_line(
    graph: Graph,
    given: ModelSpec | None,
    message: str,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What does not fit within a .pt, or does not fit its images, is an error that names it."""
    save_pt(path := tmp_path / "net.pt", checkpoint(graph, given))
    assert run(pictures[0], "--model", path) == 1
    assert f"error: {path}: {message}" in capsys.readouterr().err


def test_a_gpu_runs_onnx_only(pictures: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """CUDA with a .pt is an error that says which command helps, never a silent fallback."""
    assert run(pictures[0], "--model", "net.pt", "--device", "cuda") == 1
    assert "net.pt: is run on the CPU; `relume onnx net.pt` makes" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--top", "--batch", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_numbers_begin_at_1(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A count that can count nothing is a usage error."""
    with pytest.raises(SystemExit, match="2"):
        run("a.png", "--model", "m.onnx", f"{flag}={value}")
    assert f"'{value}' is not a whole number from 1" in capsys.readouterr().err


def test_a_missing_torch_is_explained(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A .pt where torch is not installed ends with what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(pictures[0], "--model", "net.pt") == 1
    assert "has no package torch" in capsys.readouterr().err


def test_a_network_without_numbers_ends_the_run(
    pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN is the model's fault, not an image's: one line, and no answers that mean nothing."""
    model = Tiny(scale=float("nan")).write(tmp_path / "nan.onnx")
    assert run(pictures[0], "--model", model) == 1
    assert "error: " in (said := capsys.readouterr().err)
    assert "found NaN or infinity among its outputs" in said


def test_a_convention_that_contradicts_itself_ends_the_run(
    pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crop larger than the resize is the artifact's fault, whatever image shows it."""
    odd = replace(INPUT, resize=SIDE - 1)
    model = Tiny(spec=spec(odd)).write(tmp_path / "odd.onnx")
    assert run(pictures[0], "--model", model) == 1
    assert "error: crop 8x8 does not fit into the resized image" in capsys.readouterr().err


# --- many images ----------------------------------------------------------------------------------


def test_only_so_many_images_are_prepared_ahead() -> None:
    """However many paths there are, memory holds a few rows: work waits for whoever takes them."""
    started: list[Path] = []
    lock = threading.Lock()

    def work(path: Path) -> Prepared:
        with lock:
            started.append(path)
        return str(path), "nothing"

    paths = [Path(str(number)) for number in range(1000)]
    with ThreadPoolExecutor(4) as pool:
        taken = []
        for name, _ in ahead(lambda path: pool.submit(work, path), paths, 5):
            taken.append(Path(name))
            with lock:
                assert len(started) - len(taken) <= 5
    assert taken == paths


def test_thousands_of_images_keep_their_order(
    model: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two thousand images, every fourth damaged, are answered one by one in the order given."""
    assert run(*pictures * 500, "--model", model, "--format", "jsonl", "--top", 1) == 1
    best = [one.get("predictions", [{"label": None}])[0]["label"] for one in lines(capsys)]
    assert best == ["red", None, "green", "blue"] * 500


def test_a_terminal_shows_how_far_it_is(
    model: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bar grows at the foot of a terminal and is gone at the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(*pictures, "--model", model)
    said = capsys.readouterr().err
    assert "[###############               ] 2 of 4, " in said
    assert "4 of 4, " in said
    assert said.endswith("min left\r\033[K" + said.rpartition("\r\033[K")[2])
