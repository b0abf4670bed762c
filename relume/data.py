"""`relume data`: published archives into folders of classes, data sets checked and divided."""

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.augment.picture import Picture
from models.data import open_samples
from models.data.archives import PUBLISHED, held_out, lay_out, md5, unknown
from models.data.folders import class_names, images_in
from models.data.lists import IM2REC_SEED, Entry, write_list
from models.data.packed import CLASSES, Packed, write_classes
from models.data.samples import Samples
from models.data.small_images import Split
from models.errors import DataError, FormatError, ImageError
from models.files import refuse_existing, writing
from models.terminal import Progress, escaped, new_parser, reports_errors, size_of
from relume.processes import in_processes

SPLITS: tuple[Split, Split] = ("train", "val")
CHUNK = 64  # images that a process checks at a time


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Do one of the three; 1 if a data set has unreadable images."""
    given = parser().parse_args(argv)
    if given.what == "check":
        return _check(given)
    if given.what == "split":
        return _split(given)
    return _lay_out(given)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume data`."""
    parser = new_parser(
        "Lay out, check and split data sets.",
        "relume data cifar10 cifar-10-binary.tar.gz -o cifar10",
        "relume data check imagenet",
        "relume data split fall11 -o 11k --at-least 500 --held-out 50",
    )
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    _add_archives(kinds)
    _add_check(kinds)
    _add_split(kinds)
    return parser


def _add_archives(kinds: Any) -> None:
    for name, published in PUBLISHED.items():
        files = ", ".join(published.md5) or "any archive of its images"
        one = kinds.add_parser(name, help=f"lay out {files}", description=f"Lay out {files}.")
        one.add_argument(
            "archives", nargs="+", type=Path, metavar="ARCHIVE", help="as it was published"
        )
        one.add_argument(
            "-o", "--out", type=Path, required=True, metavar="DIR", help="gets train/ and val/"
        )
        one.add_argument(
            "--skip-checksum", action="store_true", help="take archives of any content and name"
        )
        one.add_argument("--json", action="store_true", help="print one JSON object")


def _add_check(kinds: Any) -> None:
    check = kinds.add_parser(
        "check",
        help="count classes and images, find unreadable ones",
        description="Count the classes and images of a data set, and find unreadable ones.",
    )
    check.add_argument("data", type=Path, help="what training takes: a folder or a .rec")
    check.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes"
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")


def _add_split(kinds: Any) -> None:
    split = kinds.add_parser(
        "split",
        help="list training and validation images of one folder",
        description="Hold out images of every class of a folder: lists for `relume pack --list`.",
    )
    split.add_argument("folder", type=Path, help="a folder that has a folder for each class")
    split.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="gets the lists"
    )
    split.add_argument("--at-least", type=int, default=500, metavar="N", help="images of a class")
    split.add_argument("--held-out", type=int, default=50, metavar="N", help="of each class")
    split.add_argument("--seed", type=int, default=0, help="for another choice (default 0)")
    split.add_argument("--force", action="store_true", help="overwrite")
    split.add_argument("--json", action="store_true", help="print one JSON object")


def _lay_out(given: argparse.Namespace) -> int:
    if not given.skip_checksum:
        _check_archives(given.what, given.archives)
    given.out.mkdir(parents=True, exist_ok=True)
    with Progress(PUBLISHED[given.what].images) as progress:
        count = lay_out(given.what, given.archives, given.out, progress.advance)
    result = {"folder": str(given.out), "files": count}
    print(json.dumps(result) if given.json else escaped(f"{given.out}: {count:,} files"))
    return 0


def _check_archives(name: str, archives: Sequence[Path]) -> None:
    """Raise DataError unless the archives are those that are published, byte for byte."""
    known = PUBLISHED[name].md5
    if others := unknown(name, archives):
        raise DataError(
            f"{', '.join(others)}: no archive of {name}; expected {', '.join(known)} "
            "(--skip-checksum takes archives of other names)"
        )
    with Progress(sum(path.stat().st_size for path in archives), size_of) as progress:
        for path in archives:
            found = md5(path, progress.advance)
            wanted = known.get(path.name, found)
            if found != wanted:
                raise DataError(f"{path}: found MD5 {found}, expected {wanted}: load it again")
            progress.clear()
            note = "as published" if path.name in known else "nobody publishes one to hold it to"
            print(escaped(f"{path}: MD5 {found}, {note}"), file=sys.stderr)


def _check(given: argparse.Namespace) -> int:
    """Read and decode every image of a data set."""
    if given.data.suffix == ".rec":
        reports = {given.data.stem: _examined(given.data, "train", given.workers)}
    else:
        reports = {split: _examined(given.data, split, given.workers) for split in SPLITS}
    bad = [line for one in reports.values() for line in one["unreadable"]]
    if given.json:
        print(json.dumps(reports))
    else:
        for name, one in reports.items():
            least, most = one["smallest_class"], one["largest_class"]
            print(
                f"{name}: {one['images']:,} images of {one['classes']:,} classes, "
                f"{least:,} to {most:,} of each; {len(one['unreadable']):,} unreadable"
            )
    for line in bad:
        print(escaped(line), file=sys.stderr)
    return 1 if bad else 0


def _examined(path: Path, split: Split, workers: int) -> dict[str, Any]:
    samples = open_samples(path, split, damage="skip")
    unreadable = []
    if isinstance(samples, Packed):
        unreadable = [
            f"{samples.name}: byte {one.at:,}: found {one.found}, expected {one.expected}"
            for one in samples.damage
        ]
    parts = [range(at, min(at + CHUNK, len(samples))) for at in range(0, len(samples), CHUNK)]
    with Progress(len(samples)) as progress:
        answers = in_processes(_unreadable, samples, parts, workers)
        for part, found in zip(parts, answers, strict=True):
            progress.advance(len(part))
            unreadable += found
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    return {
        "images": len(samples),
        "classes": len(samples.classes),
        "smallest_class": int(counts.min()),
        "largest_class": int(counts.max()),
        "unreadable": unreadable,
    }


def _unreadable(samples: Samples, part: range) -> list[str]:
    """Return which images cannot be decoded, and why."""
    bad = []
    for index in part:
        try:
            Picture(samples.read(index)).pixels()
        except ImageError as error:
            bad.append(f"{samples.where(index)}: {error}")
        except FormatError as error:
            bad.append(str(error))
        except OSError as error:
            bad.append(f"{samples.where(index)}: {error.strerror or error}")
    return bad


def _split(given: argparse.Namespace) -> int:
    """Write lists of the classes that are large enough, with some images of each held out."""
    if not 0 < given.held_out < given.at_least:
        raise DataError(f"--held-out {given.held_out}: expected 1 to {given.at_least - 1}")
    targets = [given.out / name for name in ("train.lst", "val.lst", CLASSES)]
    refuse_existing(targets, force=given.force)
    classes, train, val = _divided(given)
    given.out.mkdir(parents=True, exist_ok=True)
    with writing() as files:
        write_list(files.new(targets[0]), train)
        write_list(files.new(targets[1]), val)
        write_classes(files.new(targets[2]), classes)
    if given.json:
        print(json.dumps({"classes": len(classes), "train": len(train), "val": len(val)}))
    else:
        print(
            f"{len(classes):,} classes of {given.at_least:,} images or more: "
            f"{len(train):,} to train, {len(val):,} held out"
        )
    return 0


def _divided(given: argparse.Namespace) -> tuple[list[str], list[Entry], list[Entry]]:
    """Return the classes that are large enough, and their images: to train, and held out.

    Those to train are shuffled as im2rec's lists are.
    """
    classes: list[str] = []
    train: list[Entry] = []
    val: list[Entry] = []
    names = class_names(given.folder)
    with Progress(len(names)) as progress:
        for name in names:
            progress.advance()
            paths = sorted(images_in(given.folder / name))
            if len(paths) < given.at_least:
                continue
            files = [str(path.relative_to(given.folder)) for path in paths]
            chosen = held_out(name, files, given.held_out, given.seed)
            for file in files:
                entries = val if file in chosen else train
                entries.append(Entry(len(entries), (len(classes),), file))
            classes.append(name)
    if not classes:
        raise DataError(f"{given.folder}: no class has {given.at_least:,} images")
    random.Random(IM2REC_SEED).shuffle(train)
    return classes, train, val
