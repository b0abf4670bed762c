"""Logs of three programs become curves, the same as their own programs drew."""

import csv
import sys
from pathlib import Path

import pytest

from models.errors import DeviceError, LogError
from models.training.curves import Curve, drawn, save_picture
from models.training.log import Epoch, Log, read_epochs
from relume.__main__ import main
from relume.plot import read_log, read_run
from tests.oracles import golden

DIGITS = 5e-7  # the curves' files have 8 digits after the point, of a share; ours are percent

TORCH_LOG = """\
=> Training epoch # 1
 | Epoch: [1][1/2]    Time 1.000  Data 0.100  Err 6.9000  top1  99.000  top5  95.000
 | Epoch: [1][2/2]    Time 1.000  Data 0.100  Err 6.8000  top1  97.000  top5  93.000
 | Test: [1][1/1]    Time 0.1  Data 0.1  top1  96.000 ( 96.000)  top5  90.000 ( 90.000)
 * Finished epoch # 1     top1:  96.000  top5:  90.000
=> Training epoch # 2
 | Epoch: [2][1/2]    Time 1.000  Data 0.100  Err 6.7000  top1  91.000  top5  85.000
"""


@pytest.mark.parametrize("name", ["resnet-18", "resnet-164"])
def test_mxnets_logs_give_its_curves(name: str) -> None:
    """Every epoch's errors, and the lines they are the mean of, are those of its own script."""
    points = read_log(golden(f"mxnet/logs/{name}.log"))
    with golden(f"mxnet/logs/{name}.curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [point.epoch for point in points] == [int(row["epoch"]) + 1 for row in rows]
    for point, row in zip(points, rows, strict=True):
        assert point.train == pytest.approx(100 * float(row["train_error"]), abs=100 * DIGITS)
        assert point.val == pytest.approx(100 * float(row["val_error"]), abs=100 * DIGITS)
        assert (point.train_lines, point.val_lines) == (
            int(row["train_lines"]),
            int(row["val_lines"]),
        )


def test_torchs_logs_are_read(tmp_path: Path) -> None:
    """An epoch's steps are averaged; an epoch that was not validated has no such error."""
    (tmp_path / "run.log").write_text(TORCH_LOG)
    assert read_log(tmp_path / "run.log") == [(1, 98, 96, 2, 1), (2, 91, None, 1, 0)]


def test_only_the_last_steps_of_an_epoch_count(tmp_path: Path) -> None:
    """Forty steps make Torch's figure of an epoch."""
    line = " | Epoch: [1][{0}/100]    Time 1 Data 0  Err 1  top1  {0}.000  top5  1.000\n"
    (tmp_path / "run.log").write_text("".join(line.format(step) for step in range(1, 101)))
    assert read_log(tmp_path / "run.log") == [(1, 80.5, None, 40, 0)]


def row(epoch: int, error: float) -> Epoch:
    return Epoch(epoch, 10 * epoch, 0.1, 1e-4, 2.0, error + 1, 50, error, 40, 100, 0.1, 5)


def test_our_own_logs_are_read(tmp_path: Path) -> None:
    """A run's folder is its log; an epoch that was done again counts as it was last."""
    log = Log(tmp_path, leads=True, tensorboard=False)
    for one in (row(1, 90), row(2, 70), row(2, 60)):
        log.epoch(one)
    log.close()
    assert read_epochs(tmp_path / "log.csv") == [row(1, 90), row(2, 60)]
    name, points = read_run(str(tmp_path))
    assert name == tmp_path.name
    assert [(point.epoch, point.val) for point in points] == [(1, 90), (2, 60)]


def test_a_torn_line_is_left_out_where_it_may_be(tmp_path: Path) -> None:
    """What a full disk left of a line, and what came behind it, is no epoch."""
    log = Log(tmp_path, leads=True, tensorboard=False)
    for one in (row(1, 90), row(2, 70)):
        log.epoch(one)
    table = tmp_path / "log.csv"
    whole = table.read_text()
    for torn in ("3,30,0.1,0.0", "3,30,0.1,0.03,30,0.1,0.0001,2,61,50,60,40,100,0.1,5\n", "3,\xff"):
        table.write_text(whole + torn)
        assert [one.epoch for one in read_epochs(table, torn="skip")] == [1, 2]
        with pytest.raises(LogError, match="damaged"):
            read_log(table)


def test_two_files_are_one_run(tmp_path: Path) -> None:
    """After a restart the later file's epochs count."""
    for number, first in ((0, 90), (1, 50)):
        log = Log(tmp_path / str(number), leads=True, tensorboard=False)
        (tmp_path / str(number)).mkdir()
        for epoch in (1 + number, 2 + number):
            log.epoch(row(epoch, first - epoch))
    _, points = read_run(f"{tmp_path / '0'}+{tmp_path / '1'}")
    assert [(point.epoch, point.val) for point in points] == [(1, 89), (2, 48), (3, 47)]


def test_several_runs_in_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command draws in the terminal, writes a picture and a table, and tells the best."""
    (tmp_path / "run.log").write_text(TORCH_LOG)
    logs = [str(golden("mxnet/logs/resnet-164.log")), str(tmp_path / "run.log")]
    out = tmp_path / "curve.svg"
    assert main(["plot", *logs, "-o", str(out), "--csv", str(tmp_path / "table.csv")]) == 0
    said = capsys.readouterr().out
    assert "resnet-164: top-1 error 4.68 % at best" in said
    assert "run: top-1 error 96.00 % at best, epoch 1" in said
    assert out.read_text().startswith("<?xml")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + 300 + 2
    assert main(["plot", *logs, "-o", str(out)]) == 1
    assert "already there; --force overwrites" in capsys.readouterr().err
    assert main(["plot", *logs, "-o", str(out.with_suffix(".png")), "--title", "two"]) == 0
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing of the kind", "no epoch found; expected a log.csv of relume"),
        (",".join(Epoch._fields) + "\n1,2", "damaged"),
        (",".join(Epoch._fields) + "\n", "no epoch found"),
        (",".join(Epoch._fields) + "\n" + "1," * len(Epoch._fields) + "1", "a line of 13 values"),
        (",".join(Epoch._fields) + "\n" + "1" * 200_000, "damaged: field larger than"),
        ("Epoch[0] Train-accuracy=.", "damaged: . where a number belongs"),
        ("Epoch[0] Train-accuracy=1e999", "damaged: 1e999 where a number belongs"),
        ("| Epoch: [1][1/2] top1 1.2.3", "damaged: 1.2.3 where a number belongs"),
        ("* Finished epoch # 1 top1: 9..", "damaged: 9.. where a number belongs"),
        (f"Epoch[{'9' * 5000}] Train-accuracy=0.5", "no epoch found"),
    ],
)
def test_what_is_no_log_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """A file without a curve is named."""
    (tmp_path / "x.log").write_text(text)
    with pytest.raises(LogError, match=message):
        read_log(tmp_path / "x.log")


def test_a_log_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So is a picture of an unknown kind."""
    with pytest.raises(LogError, match="no such log"):
        read_log(tmp_path / "x.log")
    (tmp_path / "run.log").write_text(TORCH_LOG)
    assert main(["plot", str(tmp_path / "run.log"), "-o", "x.bmp"]) == 1
    assert "expected a name that ends in .png, .svg, .pdf" in capsys.readouterr().err


def test_drawn_curves_keep_their_ends() -> None:
    """The lowest and the highest point are on the first and the last line, with their numbers."""
    lines = drawn({"a": ((1, 90.0), (2, 50.0)), "b": ((1, 70.0),)}).splitlines()
    assert lines[0].startswith("       90 |o")
    assert lines[11].startswith("       50 |")
    assert lines[11].endswith("o")
    assert lines[-1].split() == ["o", "a", "+", "b"]
    assert drawn({"a": ((1, 0.0),)}, logarithmic=True) == "nothing to draw\n"
    lines = drawn({"a": ((1, 90.0), (2, float("inf")), (3, float("nan")))}).splitlines()
    assert lines[0].startswith("       90 |o")
    assert "0.001" in drawn({"a": ((1, 1.0), (2, 0.001))}, logarithmic=True)


def test_without_matplotlib_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is named, with how to get it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DeviceError, match="matplotlib draws it: pip install matplotlib"):
        save_picture(tmp_path / "x.png", [Curve("a", (), ((1, 2.0),))])


def test_without_tensorboard_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag's package is named before the run begins."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DeviceError, match="--tensorboard: its package is not installed"):
        Log(tmp_path, leads=True, tensorboard=True)
