"""Errors are counted over every image once, and as the originals counted them."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models import train as training
from models.augment import evaluation
from models.checkpoint import load, load_pt, save_pt
from models.data import open_samples
from models.evaluate import main, per_class, summary
from models.export import annotate
from models.training.log import read_epochs
from models.training.scores import (
    UNREAD,
    ahead_of,
    as_mean_of_batches,
    as_whole_batches,
    interval,
)
from tests.small_data import write_small_data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run's folder with its data in it."""
    out = tmp_path_factory.mktemp("run")
    write_small_data(out / "data")
    flags = ["--architecture", "resnet_v2_cifar_8", "--epochs", "1", "--batch-size", "16"]
    flags += ["--workers", "0", "--device", "cpu", "--amp", "none"]
    assert training.main([*flags, "--data", str(out / "data"), "-o", str(out / "x")]) == 0
    return out


def evaluated(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    flags = ["--data", str(run / "data"), "--workers", "0", "--json", "--device", "cpu"]
    assert main([*flags, *more]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", ["best.pt", "best.onnx"])
def test_the_error_is_the_runs_own(
    name: str, run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Both artifacts have the error that the run validated; ten crops sum raw outputs."""
    row = read_epochs(run / "x/log.csv")[0]
    more = [
        "--model",
        str(run / "x" / name),
        "--crops",
        "10",
        "--csv",
        str(tmp_path / "images.csv"),
    ]
    found = evaluated(run, capsys, *more, "--batch-size", "16", "--resize", "36")
    plain = evaluated(run, capsys, "--model", str(run / "x" / name))
    assert plain["1 crop"]["top1"]["error"] == pytest.approx(row.val_top1)  # type: ignore[index]
    assert plain["1 crop"]["top5"]["error"] == pytest.approx(row.val_top5)  # type: ignore[index]
    samples = open_samples(run / "data", "val")
    module, spec = load(run / "x/best.pt")
    assert spec.input is not None
    view = evaluation(spec.input, resize=36, ten=True)
    draw = np.random.default_rng(0)
    ahead = []
    for index, label in enumerate(samples.labels):
        crops = torch.from_numpy(view(samples.read(index), draw).pixels).movedim(-1, -3)
        logits = module(crops.contiguous()).sum(0, keepdim=True)
        ahead.append(int(ahead_of(logits, torch.tensor([label]))))
    error = 100 * np.mean(np.array(ahead) >= 1)
    assert found["10 crops"]["top1"]["error"] == pytest.approx(error)  # type: ignore[index]
    with (tmp_path / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(one["classes before it, 10 crops"]) for one in rows] == ahead


def test_ten_crops_of_an_image_are_ten_of_a_batch(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean of batches is over batches of a tenth of the images, as the originals' loader cut.

    Source: facebook/fb.resnet.torch dataloader.lua, batchSize.
    """
    more = ["--model", str(run / "x/best.pt"), "--resize", "36", "--crops", "10"]
    found = evaluated(run, capsys, *more, "--batch-size", "40")
    sizes = [found[name]["batch_size"] for name in ("1 crop", "10 crops")]  # type: ignore[index]
    assert sizes == [40, 4]
    ten = found["10 crops"]["top1"]  # type: ignore[index]
    table = run / "images.csv"
    evaluated(run, capsys, *more, "--csv", str(table))
    with table.open() as file:
        ahead = np.array([int(one["classes before it, 10 crops"]) for one in csv.DictReader(file)])
    means = [np.mean(ahead[first : first + 4] >= 1) for first in range(0, 30, 4)]
    assert ten["mean_of_batches"] == pytest.approx(100 * np.mean(means))
    assert evaluated(run, capsys, *more, "--batch-size", "4")["10 crops"]["batch_size"] == 1  # type: ignore[index]


def test_the_table_of_classes_is_a_file_too(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--classes-csv` has the classes in their order, as `--json` has them."""
    table = tmp_path / "classes.csv"
    found = evaluated(run, capsys, "--model", str(run / "x/best.pt"), "--classes-csv", str(table))
    with table.open() as file:
        rows = [
            {**row, **{name: float(row[name]) for name in ("images", "top1", "top5")}}
            for row in csv.DictReader(file)
        ]
    assert rows == found["classes"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch-size", "0"], "--batch-size: '0' is not a whole number from 1"),
        (["--size", "0"], "--size: '0' is not a whole number from 1"),
        (["--size", "-4"], "--size: '-4' is not a whole number from 1"),
        (["--resize", "0"], "--resize: '0' is not a whole number from 1"),
        (["--workers", "-1"], "--workers: '-1' is not a whole number from 0"),
    ],
)
def test_a_number_that_cannot_be_is_refused(
    more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names flag and value."""
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "x.pt", "--data", "x", *more])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("best.pt", "8", "--size 8: the network does not take such images"),
        ("best.pt", "300", "--size 300: the network does not take such images"),
        ("best.onnx", "300", "best.onnx: cannot run: "),
        ("best.pt", "100000", "--size 100000: expected at most 26,214,400 pixels in all"),
    ],
)
def test_a_crop_that_the_network_does_not_take_is_refused(
    model: str, size: str, message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is tried before an image is read."""
    flags = ["--model", str(run / "x" / model), "--data", str(run / "data"), "--device", "cpu"]
    assert main([*flags, "--size", size, "--workers", "0"]) == 1
    assert message in capsys.readouterr().err


def test_people_get_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors with their interval and the originals' figures, then classes, the worst first."""
    flags = ["--data", str(run / "data"), "--workers", "0", "--model", str(run / "x/best.pt")]
    assert main([*flags, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 crop: 30 images of")
    assert "mean of batches of 64" in lines[1]
    errors = [float(line.split()[-2]) for line in lines[4:]]
    assert len(errors) == 10
    assert errors == sorted(errors, reverse=True)


def test_the_originals_ways_of_counting() -> None:
    """Torch7's mean lets the short batch weigh as much; MXNet's counts the first images twice."""
    ahead = np.array([1, 0, 0, 0, 1, 1])
    assert interval(ahead, 1).error == pytest.approx(50)
    assert as_mean_of_batches(ahead, 1, 4) == pytest.approx((25 + 100) / 2)
    assert as_whole_batches(ahead, 1, 4) == pytest.approx(100 * 4 / 8)
    assert as_whole_batches(ahead, 1, 3) == pytest.approx(50)
    logged = np.zeros(50_000, np.int64)
    assert round(as_whole_batches(logged, 1, 256)) == 0
    assert len(logged) + -len(logged) % 256 == 50_176
    assert len(logged) + -len(logged) % 480 == 50_400


def test_intervals_hold_where_they_must() -> None:
    """Wilson's interval: the textbook's numbers, and a range at 0 and 100 % as well."""
    ahead = np.array([1] * 10 + [0] * 90)
    assert interval(ahead, 1) == pytest.approx((10.0, 5.5229, 17.4366), abs=1e-4)
    assert interval(np.zeros(100), 1) == pytest.approx((0, 0, 3.6993), abs=1e-4)
    assert interval(np.ones(100), 1) == pytest.approx((100, 96.3007, 100), abs=1e-4)


def test_ties_and_numbers_that_are_none() -> None:
    """Equal scores count in class order, once; a score that is no number is a wrong guess."""
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, float("nan"), 2.0]])
    assert ahead_of(logits, torch.tensor([0, 1, 1])).tolist() == [0, 1, 3]


def test_unread_images_do_not_count(run: Path) -> None:
    """They are counted for themselves, and leave the errors to the others."""
    samples = open_samples(run / "data", "val")
    ahead = np.zeros(30, np.int64)
    ahead[:3] = UNREAD
    ahead[3] = 7
    made = summary(ahead, 64)
    assert (made["images"], made["unread"]) == (27, 3)
    assert made["top5"]["error"] == pytest.approx(100 / 27)
    rows = per_class(samples, ahead)
    assert sum(count for _, count, _, _ in rows) == 27
    name, count, top1, _ = rows[samples.labels[3]]
    assert (name, top1) == (str(samples.labels[3]), pytest.approx(100 / count))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("notes.txt", "expected a .pt, .safetensors or .onnx of relume"),
        ("nothing.pt", "nothing.pt: No such file"),
        ("nothing.onnx", "no such file"),
    ],
)
def test_what_cannot_be_evaluated_is_named(
    model: str, message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path that is no artifact is one line on stderr."""
    flags = ["--data", str(run / "data"), "--model", model, "--device", "cpu"]
    assert main(flags) == 1
    assert message in capsys.readouterr().err


def test_a_network_without_images_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An artifact that takes no image has nothing to be evaluated on."""
    given = load_pt(run / "x/best.pt")
    bare = given._replace(spec=dataclasses.replace(given.spec, input=None))
    save_pt(tmp_path / "bare.pt", bare)
    flags = ["--data", str(run / "data"), "--device", "cpu"]
    assert main([*flags, "--model", str(tmp_path / "bare.pt")]) == 1
    assert "takes no image" in capsys.readouterr().err
    proto = annotate(onnx.load(run / "x/best.onnx"), {"model_spec": bare.spec.to_json()})
    onnx.save(proto, tmp_path / "bare.onnx")
    assert main([*flags, "--model", str(tmp_path / "bare.onnx")]) == 1
    assert "takes no image" in capsys.readouterr().err
