"""`relume classify`: image files, folders and patterns in, their most probable classes out."""

import argparse
import csv
import glob
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from models.decoding import MAX_PIXELS, decode
from models.errors import ArtifactError, DeviceError, ImageError, ImageTooLarge
from models.image_network import ImageNetwork
from models.postprocess import Prediction, top_k
from models.preprocess import preprocess, ten_crops
from models.session import Session
from models.terminal import Progress, escaped, missing_package, new_parser, reports_errors
from relume.processes import ahead

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_BYTES = 8 * MAX_PIXELS  # of a file: the most that 16-bit colour with transparency can need

Device = Literal["auto", "cuda", "cpu"]


class Result(NamedTuple):
    """What became of one image: its classes, best first, or why there are none."""

    path: Path
    predictions: list[Prediction]
    error: str | None = None


class Options(NamedTuple):
    """How images are prepared and run."""

    top: int
    crops: int
    orientation: bool
    batch: int


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Classify images; 1 when some could not be."""
    given = parser().parse_args(argv)
    try:
        network = _network(given.model, given.device, given.threads)
    except ModuleNotFoundError as error:  # a .pt where there is no torch
        print(missing_package(error), file=sys.stderr)
        return 1
    options = Options(given.top, given.crops, not given.ignore_exif, given.batch)
    paths = list(found(given.images))
    write, failed, start = FORMATS[given.format](paths), [], time.perf_counter()
    with Progress(len(paths)) as progress:
        for result in classify(paths, network, options):
            progress.clear()
            print(write(result), end="")
            progress.advance()
            if result.error is not None:
                failed.append(result)
    took = time.perf_counter() - start
    print(f"{len(paths):,} images in {took:.1f} s, {len(paths) / took:,.1f}/s", file=sys.stderr)
    if failed:
        print(f"error: {len(failed):,} could not be classified:", file=sys.stderr)
        for result in failed:
            print(f"  {escaped(f'{result.path}: {result.error}')}", file=sys.stderr)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume classify`."""
    parser = new_parser(
        "Say what is in images, with a model of relume.",
        "relume classify cat.jpg --model irv2.onnx",
        "relume classify pictures 'more/*.png' --model irv2.onnx --top 1 --format csv",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="a file, a folder (with its folders), or a 'glob*'",
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help="an .onnx, which onnxruntime runs, or a .pt or .safetensors, which torch runs",
    )
    parser.add_argument("--top", type=_positive, default=5, metavar="K", help="classes (default 5)")
    parser.add_argument(
        "--format", choices=sorted(FORMATS), default="table", help="what is printed (default table)"
    )
    parser.add_argument(
        "--crops", type=int, choices=(1, 10), default=1, help="views of each image (default 1)"
    )
    parser.add_argument(
        "--ignore-exif", action="store_true", help="take the pixels as stored, not turned upright"
    )
    parser.add_argument(
        "--batch", type=_positive, default=8, metavar="N", help="images run at once (default 8)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), default="auto", help="what runs an .onnx"
    )
    parser.add_argument(
        "--threads", type=_positive, metavar="N", help="of the network, on the CPU (default: all)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def found(arguments: Iterable[str]) -> Iterator[Path]:
    """Yield the files that the arguments name, in their order; within a folder, sorted.

    Of a folder those count whose suffix is an image's. What is not there is yielded as it was
    given, so that it fails by its name.
    """
    for argument in arguments:
        path = Path(argument)
        if os.path.isdir(argument):
            yield from _images_in(path) or [path]
        elif os.path.exists(argument) or not glob.has_magic(argument):
            yield path
        else:
            matches = sorted(glob.glob(argument, recursive=True))
            files = [Path(match) for match in matches if not os.path.isdir(match)]
            yield from files or [path]


def _images_in(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error

    files = (
        Path(root, name) for root, _, names in os.walk(folder, onerror=refuse) for name in names
    )
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES)


def _network(path: Path, device: Device, threads: int | None) -> ImageNetwork:
    if path.suffix == ".onnx":
        session = Session(path, device, threads)
        print(escaped(f"{path}: {session.reason}"), file=sys.stderr)
        return ImageNetwork.of_session(session)
    if path.suffix not in (".pt", ".safetensors"):
        raise ArtifactError(
            f"{path}: expected an .onnx, .pt or .safetensors of relume; "
            "`relume convert` makes them of a checkpoint"
        )
    if device == "cuda":
        raise DeviceError(f"{path}: is run on the CPU; `relume onnx {path}` makes what a GPU runs")
    return _torch_network(path, threads)


def _torch_network(path: Path, threads: int | None) -> ImageNetwork:
    torch = import_module("torch")
    checkpoint, building, verifying = (
        import_module(f"models.{name}") for name in ("checkpoint", "build", "verify")
    )
    if threads is not None:
        torch.set_num_threads(threads)
    spec, network, _ = checkpoint.read(path)
    graph = network.graph
    inputs = [(name, ("N", *shape[1:]) if graph.dynamic else shape) for name, shape in graph.inputs]

    def run(batch: np.ndarray) -> np.ndarray:
        try:
            output: np.ndarray = verifying.run(module, [batch])[0]
        except RuntimeError as error:  # what the check did not see, such as numbers for indices
            reason = str(error).partition("\n")[0]
            raise ArtifactError(f"{path}: cannot run: {reason}") from error
        return output

    classifier = ImageNetwork(str(path), spec, inputs, run)
    images = graph.inputs[0]._replace(shape=(classifier.fixed_batch or 2, 3, *spec.input.crop))
    building.check_shapes(replace(graph, inputs=(images,)), str(path))
    module = building.build(network)
    print(escaped(f"{path}: cpu: torch {torch.__version__}"), file=sys.stderr)
    return classifier


def classify(paths: Iterable[Path], network: ImageNetwork, options: Options) -> Iterator[Result]:
    """Yield a result for each path, in order; a bad image is one, too, and ends nothing.

    A few batches of images are in memory at a time, however many paths there are.

    Raises:
        ArtifactError: The network cannot be run, or gives no numbers.
    """
    at_once = max(options.batch // options.crops, 1)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        prepared = ahead(
            lambda path: pool.submit(_prepared, path, network, options), paths, 2 * at_once
        )
        while group := list(islice(prepared, at_once)):
            rows = [row for _, row in group if not isinstance(row, str)]
            answers = iter(network.probabilities(np.stack(rows)) if rows else ())
            for path, row in group:
                if isinstance(row, str):
                    yield Result(path, [], row)
                else:
                    yield Result(path, top_k(next(answers), network.spec.labels, options.top))


Prepared = tuple[Path, "np.ndarray | str"]


def _prepared(path: Path, network: ImageNetwork, options: Options) -> Prepared:
    """Return the path and its row, or why there is none."""
    try:
        pixels = decode(_read(path), orientation=options.orientation)
        prepare = preprocess if options.crops == 1 else ten_crops
        return path, prepare(pixels, network.input)
    except ImageError as error:
        return path, str(error)
    except OSError as error:
        return path, error.strerror or str(error)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ImageError(f"found a folder without {', '.join(SUFFIXES)}")
    if path.exists() and not path.is_file():
        raise ImageError("found no regular file")
    if path.stat().st_size > MAX_BYTES:
        raise ImageTooLarge(
            f"found {path.stat().st_size:,} bytes, expected at most {MAX_BYTES:,} of an image"
        )
    return path.read_bytes()


def _table(paths: Sequence[Path]) -> Callable[[Result], str]:
    width = min(max((len(escaped(str(path))) for path in paths), default=0), 60)

    def write(result: Result) -> str:
        lines = [f"{one.probability:7.1%}  {escaped(one.label)}" for one in result.predictions]
        names = [escaped(str(result.path)), *[""] * len(lines)]
        rows = zip(names, lines or ["   could not be classified"], strict=False)
        return "".join(f"{name:{width}} {line}\n" for name, line in rows)

    return write


def _jsonl(_: Sequence[Path]) -> Callable[[Result], str]:
    def write(result: Result) -> str:
        best = [asdict(one) for one in result.predictions]
        what = {"predictions": best} if result.error is None else {"error": result.error}
        return json.dumps({"file": str(result.path), **what}) + "\n"

    return write


def _csv(_: Sequence[Path]) -> Callable[[Result], str]:
    header = ["file,rank,index,wnid,label,probability,error\n"]

    def write(result: Result) -> str:
        text, file = io.StringIO(), escaped(str(result.path))
        rows = csv.writer(text, lineterminator="\n")
        for rank, one in enumerate(result.predictions, start=1):
            rows.writerow([file, rank, one.index, one.wnid, one.label, one.probability, None])
        if result.error is not None:
            rows.writerow([file, None, None, None, None, None, result.error])
        return "".join(header.pop() if header else "") + text.getvalue()

    return write


FORMATS = {"table": _table, "jsonl": _jsonl, "csv": _csv}
