"""`relume pack`: images in folders become an MXNet `.rec`, as im2rec makes it.

Source: apache/mxnet tools/im2rec.py, image_encode; python/mxnet/recordio.py, pack_img.
"""

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2

from models.augment.mxnet_family import shorter_side
from models.data.folders import class_names
from models.data.lists import Entry, entries_in, read_list, write_list
from models.data.packed import CLASSES
from models.data.records import RecordWriter, packed
from models.decoding import Pixels, decode
from models.errors import DataError, ImageError
from models.files import refuse_existing, writing
from models.terminal import Progress, escaped, reports_errors, size_of

QUALITIES = {".jpg": (1, 100, 90), ".png": (0, 9, 3)}  # least, most, default

T = TypeVar("T")
R = TypeVar("R")


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

    def __call__(self, entry: Entry) -> bytes | str:
        """Return an image's record, or why there is none."""
        try:
            data = (self.root / entry.file).read_bytes()
            pixels = decode(data)
        except ImageError as error:
            return f"{entry.file}: {error}"
        except OSError as error:
            return f"{entry.file}: {error.strerror or error}"
        if self.encoding is not None:
            data = self._encoded(pixels)
        return packed(entry.labels, entry.key, data)

    def _encoded(self, pixels: Pixels) -> bytes:
        if self.square:
            side = min(pixels.shape[:2])
            top, left = ((length - side) // 2 for length in pixels.shape[:2])
            pixels = pixels[top : top + side, left : left + side]
        if self.resize is not None:
            pixels = shorter_side(pixels, self.resize)
        flag = cv2.IMWRITE_JPEG_QUALITY if self.encoding == ".jpg" else cv2.IMWRITE_PNG_COMPRESSION
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        return cv2.imencode(self.encoding or "", bgr, [flag, self.quality])[1].tobytes()


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Pack a folder; 1 if an image was left out."""
    parser = _parser()
    given = parser.parse_args(argv)
    least, most, usual = QUALITIES[given.encoding]
    quality = usual if given.quality is None else given.quality
    if not least <= quality <= most:
        parser.error(f"--quality {quality}: expected {least} to {most} for {given.encoding}")
    prefix = given.out.with_suffix("") if given.out.suffix == ".rec" else given.out
    rec, idx, lst = (prefix.with_name(prefix.name + end) for end in (".rec", ".idx", ".lst"))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    refuse_existing([rec, idx, *([] if given.list == lst else [lst])], force=given.force)
    entries = read_list(given.list) if given.list else _listed(given.folder, lst, given)
    if not entries:
        raise DataError(f"{given.list}: found no image")
    encoding = None if given.pass_through else given.encoding
    packing = Packing(given.folder, given.resize, given.center_crop, encoding, quality)
    left_out = _write(rec, idx, lst, entries, packing, given)
    _report(rec, len(entries) - len(left_out), left_out, as_json=given.json)
    return 1 if left_out else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Pack folders of images into an MXNet .rec.")
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
    parser.add_argument(
        "--resize", type=_positive, metavar="N", help="the shorter side to N pixels"
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
    parser.add_argument(
        "--workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="processes"
    )
    parser.add_argument("--force", action="store_true", help="overwrite")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _listed(folder: Path, lst: Path, given: argparse.Namespace) -> list[Entry]:
    """Return the folder's images; the names of their classes go beside the records.

    Training and validation images of one data set are packed into one folder, so that names which
    are there already must be the same.
    """
    names = "".join(f"{name}\n" for name in class_names(folder))
    path = lst.with_name(CLASSES)
    if path.exists() and path.read_text(encoding="utf-8") != names and not given.force:
        raise DataError(f"{path}: has other classes than {folder}; --force overwrites it")
    entries = entries_in(folder, shuffle=not given.no_shuffle)
    with writing() as files:
        files.new(path).write_text(names, encoding="utf-8")
    return entries


def _write(
    rec: Path,
    idx: Path,
    lst: Path,
    entries: Sequence[Entry],
    packing: Packing,
    given: argparse.Namespace,
) -> list[str]:
    """Write the three files, all or none; return what was left out."""
    left_out: list[str] = []
    kept = []
    with (
        writing() as files,
        RecordWriter(files.new(rec), files.new(idx)) as writer,
        ProcessPoolExecutor(given.workers) as pool,
        Progress(len(entries)) as progress,
    ):
        for entry, record in zip(entries, _ahead(pool, packing, entries), strict=True):
            progress.advance()
            if isinstance(record, str):
                if given.on_bad == "fail":
                    raise ImageError(f"{packing.root}/{record}; --on-bad skip leaves it out")
                left_out.append(record)
            else:
                writer.write(entry.key, record)
                kept.append(entry)
        if lst != given.list:
            write_list(files.new(lst), kept)
    return left_out


def _ahead(pool: Executor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what `work` makes of each item, in order; a few hundred are under way at a time.

    Raises:
        DataError: A process was killed, as the system does when memory runs out.
    """
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 256:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError("a worker process was killed: is there memory for --workers?") from error
    finally:
        for future in waiting:
            future.cancel()


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
