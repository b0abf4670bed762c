"""The error of an artifact on a data set: `python -m models.evaluate`, or `relume evaluate`.

Every image counts once. What the original programs reported is given too, where they counted
otherwise: the mean of the batches' errors (Torch7), or whole batches with the first images counted
twice (MXNet), so that a figure can be held against the published one like for like.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from models import checkpoint as checkpoints
from models.augment import evaluation
from models.build import build
from models.data import open_samples
from models.data.samples import Samples
from models.errors import ArtifactError, SpecError
from models.files import writing
from models.preprocess import MAX_RESIZED_PIXELS
from models.session import Session
from models.spec import ModelSpec
from models.terminal import at_least, new_parser, reports_errors
from models.training import processes as launching
from models.training.display import Bar, tell_damage
from models.training.processes import Processes
from models.training.scores import (
    TOP,
    UNREAD,
    Ahead,
    Feed,
    as_mean_of_batches,
    as_whole_batches,
    gathered,
    interval,
    score,
)

Forward = Callable[[Tensor], Tensor]
CROPS = {"1 crop": 1, "10 crops": 10}
SHOWN = 10  # classes at each end of the table
COLUMNS = ("class", "images", "top1", "top5")  # of the table of classes, for programs


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, and print what was found."""
    given = parser().parse_args(argv)
    try:
        processes = launching.join(given.device)
        found = _evaluated(given, processes)
        if found is not None:
            _show(given, *found)
    finally:
        launching.leave()
    return 0


def _evaluated(
    given: argparse.Namespace, processes: Processes
) -> tuple[Samples, dict[str, Ahead]] | None:
    spec, forward = _network(given.model, processes)
    if spec.input is None:
        raise SpecError(f"{given.model}: takes no image, so that it cannot be evaluated on some")
    if given.size is not None:
        _check_size(forward, given.size, processes)
    damage: Literal["refuse", "skip"] = "skip" if given.on_bad == "skip" else "refuse"
    samples = open_samples(given.data, given.split, classes=len(spec.labels), damage=damage)
    if processes.leads:
        tell_damage(samples)
    found = {}
    for name, crops in CROPS.items():
        if crops > given.crops:
            continue
        view = evaluation(spec.input, size=given.size, resize=given.resize, ten=crops == 10)
        size = images_of_batch(given.batch_size, crops)
        bar = Bar(name, len(samples), 0, shown=processes.leads)
        pairs, done = [], 0
        with torch.inference_mode():
            feed = Feed(size, given.workers, given.on_bad)
            for pair in score(forward, samples, view, processes, feed):
                pairs.append(pair)
                done += len(pair[0]) * processes.world
                bar.advance(done, len(pair[0]) * processes.world, 0.0)
        bar.clear()
        ahead = gathered(pairs, len(samples), processes)
        if ahead is not None:
            found[name] = ahead
    return (samples, found) if processes.leads else None


def _network(path: Path, processes: Processes) -> tuple[ModelSpec, Forward]:
    """Return what an artifact says of itself, and what computes its outputs.

    Raises:
        ArtifactError: It is none.
    """
    if path.suffix == ".onnx":
        session = Session(path, "cuda" if processes.device.type == "cuda" else "cpu")
        return session.spec, lambda images: torch.from_numpy(session.run(images.cpu().numpy())[0])
    if path.suffix not in (".pt", ".safetensors"):
        raise ArtifactError(f"{path}: expected a .pt, .safetensors or .onnx of relume")
    spec, network, _ = checkpoints.read(path)
    return spec, build(network).to(processes.device)


def _check_size(forward: Forward, size: int, processes: Processes) -> None:
    if size * size > MAX_RESIZED_PIXELS:
        raise SpecError(f"--size {size}: expected at most {MAX_RESIZED_PIXELS:,} pixels in all")
    try:
        with torch.inference_mode():
            forward(torch.zeros(1, 3, size, size, device=processes.device))
    except RuntimeError as error:
        raise SpecError(f"--size {size}: the network does not take such images") from error


def images_of_batch(batch_size: int, crops: int) -> int:
    """Return how many images a batch of so many crops has.

    Source: facebook/fb.resnet.torch dataloader.lua, batchSize.
    """
    return max(batch_size // crops, 1)


def summary(ahead: Ahead, batch_size: int) -> dict[str, Any]:
    """Return the errors in percent of all images that could be read, in batches of so many."""
    read = ahead[ahead != UNREAD]
    unread = len(ahead) - len(read)
    made: dict[str, Any] = {"images": len(read), "unread": unread, "batch_size": batch_size}
    for name, top in (("top1", 1), ("top5", TOP)):
        made[name] = {
            **interval(read, top)._asdict(),
            "mean_of_batches": as_mean_of_batches(read, top, batch_size),
            "whole_batches": as_whole_batches(read, top, batch_size),
        }
    return made


def per_class(samples: Samples, ahead: Ahead) -> list[tuple[str, int, float, float]]:
    """Return for each class its name, its images that could be read, and its errors in percent."""
    rows = []
    for number, name in enumerate(samples.classes):
        mine = ahead[(samples.labels == number) & (ahead != UNREAD)]
        top1, top5 = (100 * float(np.mean(mine >= top)) if len(mine) else 0.0 for top in (1, TOP))
        rows.append((name, len(mine), top1, top5))
    return rows


def _show(given: argparse.Namespace, samples: Samples, found: dict[str, Ahead]) -> None:
    made = {
        name: summary(ahead, images_of_batch(given.batch_size, CROPS[name]))
        for name, ahead in found.items()
    }
    classes = per_class(samples, next(iter(found.values())))
    if given.csv is not None:
        _write_images(given.csv, samples, found)
    if given.classes_csv is not None:
        _write_table(given.classes_csv, COLUMNS, classes)
    if given.json:
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in classes]
        print(json.dumps({"model": str(given.model), **made, "classes": rows}))
        return
    for name, one in made.items():
        print(f"{name}: {one['images']:,} images of {samples.name}")
        if one["unread"]:
            print(f"  {one['unread']:,} could not be read, and do not count")
        for top in ("top1", "top5"):
            error = one[top]
            print(
                f"  {top} error {error['error']:.3f} %  "
                f"(95 %: {error['low']:.3f} to {error['high']:.3f})  "
                f"mean of batches of {one['batch_size']}: {error['mean_of_batches']:.3f}  "
                f"whole batches: {error['whole_batches']:.3f}"
            )
    _show_classes(classes, everything=given.classes)


def _show_classes(rows: list[tuple[str, int, float, float]], *, everything: bool) -> None:
    ranked = sorted(rows, key=lambda row: -row[2])
    shown = ranked if everything or len(ranked) <= 2 * SHOWN else ranked[:SHOWN]
    print(f"{'class' if shown is ranked else 'worst classes':32} images   top1 %   top5 %")
    for name, count, top1, top5 in shown:
        print(f"{name[:32]:32} {count:6,}  {top1:7.2f}  {top5:7.2f}")


def _write_images(path: Path, samples: Samples, found: dict[str, Ahead]) -> None:
    """Write a line for each image: where it is, its class, and how many stand before that."""
    names = ["image", "class", *(f"classes before it, {name}" for name in found)]

    def rows() -> Iterator[list[Any]]:
        for index, label in enumerate(samples.labels):
            numbers = (ahead[index] for ahead in found.values())
            where, name = samples.where(index), samples.classes[label]
            yield [where, name, *("" if one == UNREAD else one for one in numbers)]

    _write_table(path, names, rows())


def _write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with writing() as files, files.new(path).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        table.writerows(rows)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume evaluate`."""
    parser = new_parser(
        "Count the errors of an artifact on a data set, each image once.",
        "relume evaluate --model runs/resnet-v2-18/best.pt --data imagenet",
        "relume evaluate --model irv2.onnx --data imagenet --crops 10 --json",
    )
    parser.add_argument("--model", type=Path, required=True, help=".pt, .safetensors or .onnx")
    parser.add_argument("--data", type=Path, required=True, help="data set, see docs/data.md")
    parser.add_argument(
        "--split", choices=("train", "val"), default="val", help="part of it (default val)"
    )
    parser.add_argument("--crops", type=int, choices=(1, 10), default=1, help="10 gives both")
    count = at_least(1)
    parser.add_argument("--size", type=count, metavar="N", help="of the crop; else the artifact's")
    parser.add_argument("--resize", type=count, metavar="N", help="of the shorter side before it")
    parser.add_argument("--batch-size", type=count, default=64, metavar="N", help="in crops")
    parser.add_argument("--workers", type=at_least(0), default=2, metavar="N", help="default 2")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto"
    )
    parser.add_argument(
        "--on-bad", choices=("fail", "skip"), default="fail", help="what a damaged image does"
    )
    parser.add_argument("--classes", action="store_true", help="show every class")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line for each image")
    parser.add_argument(
        "--classes-csv", type=Path, metavar="FILE", help="write a line for each class"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
