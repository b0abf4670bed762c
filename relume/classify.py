"""`relume classify`: image files, folders and patterns in, their most probable classes out."""

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from models.image_network import ImageNetwork
from models.terminal import Progress, at_least, escaped, missing_package, new_parser, reports_errors
from relume.bulk import flags
from relume.bulk.sources import CONTAINERS
from relume.classifier import Options, Result, classify, open_network
from relume.images import found, image_file

Format = Callable[[Sequence[Path]], Callable[[Result], str]]


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Classify images; 1 when some could not be."""
    usage = parser()
    given = usage.parse_args(argv)
    flags.check(usage, given)
    if given.out is None and (many := [one for one in given.images if _is_container(one)]):
        usage.error(f"{escaped(many[0])}: what holds many images is classified with -o DIR")
    options = Options(given.top, given.crops, not given.ignore_exif, given.batch)
    try:
        if given.out is not None:
            run: Callable[[argparse.Namespace, Options], int]
            run = import_module("relume.bulk.run").run
            return run(given, options)
        network = open_network(given.model, given.device, given.threads)
    except ModuleNotFoundError as error:  # a .pt where there is no torch
        print(missing_package(error), file=sys.stderr)
        return 1
    return _print(list(found(given.images)), network, options, FORMATS[given.format or "table"])


def _is_container(name: str) -> bool:
    return name.lower().endswith(CONTAINERS)


def _print(paths: Sequence[Path], network: ImageNetwork, options: Options, form: Format) -> int:
    write, failed, start = form(paths), [], time.perf_counter()
    with Progress(len(paths)) as progress:
        for result in classify(map(image_file, paths), network, options):
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
            print(f"  {escaped(f'{result.name}: {result.error}')}", file=sys.stderr)
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
    parser.add_argument(
        "--top", type=at_least(1), default=5, metavar="K", help="classes (default 5)"
    )
    parser.add_argument("--format", choices=sorted(FORMATS), help="what is printed (default table)")
    parser.add_argument(
        "--crops", type=int, choices=(1, 10), default=1, help="views of each image (default 1)"
    )
    parser.add_argument(
        "--ignore-exif", action="store_true", help="take the pixels as stored, not turned upright"
    )
    parser.add_argument(
        "--batch", type=at_least(1), default=8, metavar="N", help="images run at once (default 8)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), default="auto", help="what runs an .onnx"
    )
    parser.add_argument(
        "--threads", type=at_least(1), metavar="N", help="of the network, on the CPU (default: all)"
    )
    flags.add(parser)
    return parser


def _table(paths: Sequence[Path]) -> Callable[[Result], str]:
    width = min(max((len(escaped(str(path))) for path in paths), default=0), 60)

    def write(result: Result) -> str:
        lines = [f"{one.probability:7.1%}  {escaped(one.label)}" for one in result.predictions]
        names = [escaped(result.name), *[""] * len(lines)]
        rows = zip(names, lines or ["   could not be classified"], strict=False)
        return "".join(f"{name:{width}} {line}\n" for name, line in rows)

    return write


def _jsonl(_: Sequence[Path]) -> Callable[[Result], str]:
    def write(result: Result) -> str:
        best = [asdict(one) for one in result.predictions]
        what = {"predictions": best} if result.error is None else {"error": result.error}
        return json.dumps({"file": result.name, **what}) + "\n"

    return write


def _csv(_: Sequence[Path]) -> Callable[[Result], str]:
    header = ["file,rank,index,wnid,label,probability,error\n"]

    def write(result: Result) -> str:
        text, file = io.StringIO(), escaped(result.name)
        rows = csv.writer(text, lineterminator="\n")
        for rank, one in enumerate(result.predictions, start=1):
            rows.writerow([file, rank, one.index, one.wnid, one.label, one.probability, None])
        if result.error is not None:
            rows.writerow([file, None, None, None, None, None, result.error])
        return "".join(header.pop() if header else "") + text.getvalue()

    return write


FORMATS: dict[str, Format] = {"table": _table, "jsonl": _jsonl, "csv": _csv}
