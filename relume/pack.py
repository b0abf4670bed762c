"""`relume pack`: images in folders become an MXNet `.rec`, as im2rec makes it.

Source: apache/mxnet tools/im2rec.py, image_encode; python/mxnet/recordio.py, pack_img.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2

from models.augment.crops import shorter_side
from models.data.folders import class_names
from models.data.lists import Entry, entries_in, read_list, write_list
from models.data.packed import CLASSES, read_classes, write_classes
from models.data.records import RecordWriter, packed
from models.decoding import Pixels, decode
from models.errors import DataError, ImageError
from models.files import refuse_existing, writing
from models.terminal import Progress, at_least, escaped, new_parser, reports_errors, size_of
from relume.processes import in_processes

LONGEST = 65_500  # pixels that a side of a JPEG can have
QUALITIES = {".jpg": (1, 100, 90), ".png": (0, 9, 3)}  # least, most, default


class Files(NamedTuple):
    """What is written."""

    rec: Path
    idx: Path
    lst: Path


@dataclass(frozen=True)
class Packing:
    """What becomes of each image.

    Attributes:
        root: The folder that the list's files are in.
        resize: The shorter side in pixels, or None.
        square: Whether the middle square is cut out first.
        encoding: `.jpg` or `.png`; None keeps the file's own bytes.
        quality: Of JPEG, or the effort of PNG.
    """

    root: Path
    resize: int | None
    square: bool
    encoding: str | None
    quality: int

    def record(self, entry: Entry) -> bytes | str:
        """Return an image's record, or why there is none."""
        try:
            data = (self.root / entry.file).read_bytes()
            pixels = decode(data)
            if self.encoding is not None:
                data = self._encoded(pixels)
        except ImageError as error:
            return f"{entry.file}: {error}"
        except OSError as error:
            return f"{entry.file}: {error.strerror or error}"
        return packed(entry.labels, entry.key, data)

    def _encoded(self, pixels: Pixels) -> bytes:
        if self.square:
            side = min(pixels.shape[:2])
            top, left = ((length - side) // 2 for length in pixels.shape[:2])
            pixels = pixels[top : top + side, left : left + side]
        if self.resize is not None:
            pixels = shorter_side(pixels, self.resize)
        if max(pixels.shape) > LONGEST and self.encoding == ".jpg":
            found = f"{pixels.shape[1]:,} x {pixels.shape[0]:,} pixels"
            raise ImageError(f"found {found}, expected sides of at most {LONGEST:,} for JPEG")
        flag = cv2.IMWRITE_JPEG_QUALITY if self.encoding == ".jpg" else cv2.IMWRITE_PNG_COMPRESSION
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        return cv2.imencode(self.encoding or "", bgr, [flag, self.quality])[1].tobytes()


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Pack a folder; 1 if an image was left out."""
    flags = parser()
    given = flags.parse_args(argv)
    least, most, usual = QUALITIES[given.encoding]
    quality = usual if given.quality is None else given.quality
    if not least <= quality <= most:
        flags.error(f"--quality {quality}: expected {least} to {most} for {given.encoding}")
    prefix = given.out.with_suffix("") if given.out.suffix == ".rec" else given.out
    prefix.parent.mkdir(parents=True, exist_ok=True)
    files = Files(*(prefix.with_name(prefix.name + end) for end in (".rec", ".idx", ".lst")))
    refuse_existing([one for one in files if one != given.list], force=given.force)
    if given.list:
        entries = read_list(given.list)
    else:
        names = class_names(given.folder)
        _check_is_split(given.folder, names)
        _check_names(files.lst.with_name(CLASSES), names, force=given.force)
        entries = entries_in(given.folder, shuffle=not given.no_shuffle)
    if not entries:
        raise DataError(f"{given.list}: found no image")
    encoding = None if given.pass_through else given.encoding
    packing = Packing(given.folder, given.resize, given.center_crop, encoding, quality)
    left_out = _write(files, entries, packing, given)
    _report(files.rec, len(entries) - len(left_out), left_out, as_json=given.json)
    return 1 if left_out else 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume pack`."""
    parser = new_parser(
        "Pack folders of images into an MXNet .rec, byte for byte as im2rec does.",
        "relume pack imagenet/train -o records/train --resize 480",
        "relume pack imagenet/val -o records/val --resize 256 --on-bad skip",
    )
    parser.add_argument("folder", type=Path, help="a folder that has a folder for each class")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="PREFIX", help="of .rec, .idx and .lst"
    )
    parser.add_argument(
        "--list", type=Path, metavar="LST", help="which images, as which classes (default: all)"
    )
    parser.add_argument(
        "--no-shuffle", action="store_true", help="keep the sorted order (default: im2rec's own)"
    )
    _add_images(parser)
    parser.add_argument(
        "--workers", type=at_least(1), default=os.cpu_count() or 1, metavar="N", help="processes"
    )
    parser.add_argument("--force", action="store_true", help="overwrite")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    """Add what becomes of each image."""
    parser.add_argument(
        "--resize", type=at_least(1), metavar="N", help="the shorter side to N pixels"
    )
    parser.add_argument(
        "--center-crop", action="store_true", help="cut out the middle square first"
    )
    parser.add_argument(
        "--quality", type=int, metavar="Q", help="of JPEG (default 90); effort of PNG (default 3)"
    )
    parser.add_argument(
        "--encoding", choices=sorted(QUALITIES), default=".jpg", help="of the images (default .jpg)"
    )
    parser.add_argument(
        "--pass-through", action="store_true", help="keep the files' bytes; they are decoded once"
    )
    parser.add_argument(
        "--on-bad", choices=("fail", "skip"), default="fail", help="what a damaged image does"
    )


def _check_is_split(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse a whole data set, whose parts would be packed as classes."""
    if set(names) <= {"train", "val"} and any(
        one.is_dir() for name in names for one in (folder / name).iterdir()
    ):
        parts = " and ".join(f"`relume pack {folder / name}`" for name in names)
        raise DataError(f"{folder}: a data set, expected a folder of classes: {parts}")


def _check_names(path: Path, names: tuple[str, ...], *, force: bool) -> None:
    """Raise DataError if other classes' names are there.

    Training and validation images of one data set are packed into one folder and share them.
    """
    if not force and path.exists() and read_classes(path) != names:
        raise DataError(f"{path}: has other classes; --force overwrites it")


def _write(
    targets: Files, entries: Sequence[Entry], packing: Packing, given: argparse.Namespace
) -> list[str]:
    """Write the records, their index, list and classes, all or none; return what was left out."""
    left_out: list[str] = []
    kept = []
    with (
        writing() as files,
        RecordWriter(files.new(targets.rec), files.new(targets.idx)) as writer,
        closing(in_processes(Packing.record, packing, entries, given.workers)) as records,
        Progress(len(entries)) as progress,
    ):
        for entry, record in zip(entries, records, strict=True):
            progress.advance()
            if isinstance(record, str):
                if given.on_bad == "fail":
                    raise ImageError(f"{packing.root}/{record}; --on-bad skip leaves it out")
                left_out.append(record)
            else:
                writer.write(entry.key, record)
                kept.append(entry)
        if targets.lst != given.list:
            write_list(files.new(targets.lst), kept)
        if given.list is None:
            names = files.new(targets.lst.with_name(CLASSES))
            write_classes(names, class_names(packing.root))
    return left_out


def _report(rec: Path, count: int, left_out: Sequence[str], *, as_json: bool) -> None:
    size = rec.stat().st_size
    if as_json:
        print(json.dumps({"file": str(rec), "images": count, "bytes": size, "left_out": left_out}))
    else:
        print(escaped(f"{rec}: {count:,} images, {size_of(size)}"))
    if left_out:
        print(f"error: {len(left_out):,} images were left out:", file=sys.stderr)
        for line in left_out:
            print(f"  {escaped(line)}", file=sys.stderr)
