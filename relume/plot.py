"""`relume plot LOG...`: training curves of several runs in one picture.

Logs are this project's own, MXNet's and fb.resnet.torch's, so that old runs stand beside new ones.
"""

import argparse
import csv
import math
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.errors import LogError
from models.files import refuse_existing, writing
from models.terminal import escaped, new_parser, reports_errors
from models.training.curves import Curve, drawn, save_picture
from models.training.log import TABLE, Epoch, read_epochs

KINDS = (".png", ".svg", ".pdf")
JOIN = "+"  # between the files of one run
TORCH_STEPS = 40  # of an epoch's end, over which its figure averages the training error


class Point(NamedTuple):
    """Errors in percent of an epoch, from 1, and how many lines each is the mean of."""

    epoch: int
    train: float | None
    val: float | None
    train_lines: int
    val_lines: int


def read_log(path: Path) -> list[Point]:
    """Return the epochs of a log, or of a run's folder, in order.

    Raises:
        LogError: It is no log that is known, or no epoch is in it.
    """
    if path.is_dir():
        path = path / TABLE
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise LogError(f"{path}: no such log") from error
    for read in (_ours, _mxnet, _torch):
        if points := read(path, text):
            return points
    raise LogError(
        f"{path}: no epoch found; expected a log.csv of relume, or a log of MXNet's FeedForward or "
        "of fb.resnet.torch"
    )


def _ours(path: Path, text: str) -> list[Point]:
    if not text.startswith(",".join(Epoch._fields)):
        return []
    try:
        rows = read_epochs(path)
    except (ValueError, TypeError, KeyError, csv.Error) as error:  # a line that was cut
        raise LogError(f"{path}: damaged: {error}") from error
    return [Point(row.epoch, row.train_top1, row.val_top1, 1, 1) for row in rows]


def _number(path: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LogError(f"{path}: damaged: {text} where a number belongs")
    return value


def _means(lines: dict[int, list[float]], epoch: int) -> tuple[float | None, int]:
    found = lines.get(epoch, [])
    return (sum(found) / len(found) if found else None), len(found)


def _joined(train: dict[int, list[float]], val: dict[int, list[float]], first: int) -> list[Point]:
    points = []
    for epoch in sorted(train.keys() | val.keys()):
        (error, count), (val_error, val_count) = _means(train, epoch), _means(val, epoch)
        points.append(Point(epoch + 1 - first, error, val_error, count, val_count))
    return points


def _mxnet(path: Path, text: str) -> list[Point]:
    """Read MXNet's log, whose epochs count from 0: the mean of all an epoch's lines.

    Source: tornadomeet/ResNet log/plot_curve.py.
    """
    wanted = re.compile(
        r"Epoch\[(\d{1,9})\].*[ \t](Train|Validation)-accuracy=([-+.\de]+)", re.ASCII
    )
    found: dict[str, dict[int, list[float]]] = {
        "Train": defaultdict(list),
        "Validation": defaultdict(list),
    }
    for epoch, kind, accuracy in wanted.findall(text):
        found[kind][int(epoch)].append(100 * (1 - _number(path, accuracy)))
    return _joined(found["Train"], found["Validation"], first=0)


def _torch(path: Path, text: str) -> list[Point]:
    """Read fb.resnet.torch's log: the mean of an epoch's last steps, and its line on validation.

    Source: facebook/fb.resnet.torch train.lua.
    """
    steps = re.compile(r"\| Epoch: \[(\d{1,9})\]\[\d+/\d+\].* top1 +([\d.]+)", re.ASCII)
    ends = re.compile(r"\* Finished epoch # (\d{1,9}) +top1: +([\d.]+)", re.ASCII)
    train: dict[int, list[float]] = defaultdict(list)
    for epoch, error in steps.findall(text):
        train[int(epoch)].append(_number(path, error))
    val = {int(epoch): [_number(path, error)] for epoch, error in ends.findall(text)}
    last = {epoch: errors[-TORCH_STEPS:] for epoch, errors in train.items()}
    return _joined(last, val, first=1)


def read_run(argument: str) -> tuple[str, list[Point]]:
    """Return a run's name and epochs, from one log or several joined by `+`.

    After a restart an epoch may be in two files: it counts as it was last.
    """
    files = [Path(one) for one in argument.split(JOIN)]
    points = {point.epoch: point for file in files for point in read_log(file)}
    name = files[0].name if files[0].is_dir() else files[0].stem
    if name == Path(TABLE).stem:
        name = files[0].resolve().parent.name
    return name, [points[epoch] for epoch in sorted(points)]


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Draw the logs' curves in the terminal, and into a file if one is named."""
    given = parser().parse_args(argv)
    runs = [read_run(argument) for argument in given.logs]
    if given.out is not None and given.out.suffix not in KINDS:
        raise LogError(f"-o {given.out}: expected a name that ends in {', '.join(KINDS)}")
    refuse_existing([path for path in (given.out, given.csv) if path], force=given.force)
    curves = [
        Curve(
            name,
            tuple((point.epoch, point.train) for point in points if point.train is not None),
            tuple((point.epoch, point.val) for point in points if point.val is not None),
        )
        for name, points in runs
    ]
    print(drawn({escaped(one.name): one.val or one.train for one in curves}), end="")
    for one in curves:
        print(_told(one))
    if given.csv is not None:
        _write_table(given.csv, runs)
    if given.out is not None:
        save_picture(given.out, curves, title=given.title)
        print(f"wrote {given.out}", file=sys.stderr)
    return 0


def _told(curve: Curve) -> str:
    if not curve.val:
        return f"{escaped(curve.name)}: {len(curve.train)} epochs, never validated"
    best = min(curve.val, key=lambda point: point[1])
    last = curve.val[-1]
    return (
        f"{escaped(curve.name)}: top-1 error {best[1]:.2f} % at best, epoch {best[0]:g}; "
        f"{last[1]:.2f} % last, epoch {last[0]:g}"
    )


def _write_table(path: Path, runs: Sequence[tuple[str, list[Point]]]) -> None:
    with writing() as files, files.new(path).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["run", *Point._fields])
        rows.writerows([name, *point] for name, points in runs for point in points)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume plot`."""
    parser = new_parser(
        "Draw training curves: top-1 error by epoch, of several runs in one picture.",
        "relume plot runs/resnet-v2-18 old/resnet-18.log -o curves.png",
        "relume plot first.log+second.log --csv curves.csv       # one run in two logs",
    )
    parser.add_argument(
        "logs",
        nargs="+",
        metavar="LOG",
        help=f"a run's folder, or a log; the logs of one run joined by {JOIN}",
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="picture: .png, .svg, .pdf")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="the numbers as a table")
    parser.add_argument("--title", default="", help="of the picture")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    return parser
