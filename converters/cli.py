"""The command lines of the converters: arguments in, results printed, exit status out."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from converters import printing
from converters.bare import write_tensors
from converters.mx.bare import write_arrays
from converters.packing import base_name, unpacked
from converters.sources import MXNET, TORCH7, Found, find
from models.errors import SpecError
from models.files import refuse_existing
from models.graph import MAX_ELEMENTS, Shape
from models.presets import PRESETS
from models.terminal import new_parser, reports_errors, step

_BARE = {TORCH7: write_tensors, MXNET: write_arrays}
KINDS = ("pt", "onnx", "safetensors")
CHECKPOINT = (
    "checkpoint, also packed as .xz or .gz; or a folder of one, or a Torch7 training script's "
    "folder or latest.t7"
)


def convert_parser() -> argparse.ArgumentParser:
    """Return the parser of `relume convert`."""
    parser = _parser(
        "Convert a checkpoint of Torch7 (.t7), MXNet (.params) or early PyTorch (.pth, .pth.tar, "
        ".safetensors) to PyTorch (.pt) and ONNX, and verify both.",
        "relume convert irv2.t7",
        "relume convert resnet-152 0                     # MXNet's PREFIX EPOCH",
        "relume convert net.t7 --input torch-224 --labels classes.txt -o artifacts",
    )
    _add_results(parser)
    _add_source(parser)
    _add_kinds(parser)
    _add_checks(parser)
    return parser


@reports_errors
def convert(argv: Sequence[str] | None = None) -> int:
    """Convert a checkpoint of Torch7, MXNet or PyTorch, whichever its first bytes say."""
    given = convert_parser().parse_args(argv)
    found = find(
        given.source,
        epoch=given.epoch,
        symbol=given.symbol,
        architecture=given.architecture,
        raw=given.raw,
    )
    if given.verify == "none":
        return _write_bare(given, found)
    if given.optimizer and found.optimizer is None:
        raise SpecError(f"--optimizer: {found.model} has no optimState beside it")
    from converters import pipeline  # torch takes a second to load

    options = pipeline.Options(
        out=given.out,
        name=given.name,
        kinds=_kinds(given),
        optimizer=found.optimizer if given.optimizer else None,
        epoch=found.epoch,
        input=given.input,
        shapes=given.input_shape,
        labels=given.labels,
        compare=given.verify == "full",
        force=given.force,
    )
    printing.print_outcome(pipeline.convert(found.model, found.opener, options), as_json=given.json)
    return 0


def _write_bare(given: argparse.Namespace, found: Found) -> int:
    """Write a file's tensors without making a network of them."""
    others = (
        *("input", "input_shape", "labels", "optimizer", "no_onnx", "safetensors"),
        *("symbol", "architecture"),
    )
    if given.only != "safetensors" or any(getattr(given, name) for name in others):
        raise SpecError(
            "--verify none: no artifact is written unverified; with --only safetensors, and no "
            "other flag about the network, it writes the file's tensors alone"
        )
    if found.format not in _BARE:
        raise SpecError(
            f"--verify none writes the tensors of Torch7 and MXNet, which {found.model} is not of"
        )
    source = found.model.resolve()
    folder = (given.out or source.parent).resolve()
    target = folder / f"{given.name or base_name(source)}.safetensors"
    refuse_existing([target], force=given.force)
    folder.mkdir(parents=True, exist_ok=True)
    with step("writing"), unpacked(source) as plain:
        bare = _BARE[found.format](plain, source, target)
    printing.print_bare(source, target, bare, as_json=given.json)
    return 0


def pt_to_onnx_parser() -> argparse.ArgumentParser:
    """Return the parser of `relume onnx`."""
    parser = _parser(
        "Write the ONNX form of a .pt or .safetensors that relume wrote, and verify it.",
        "relume onnx irv2.pt",
    )
    _add_results(parser)
    parser.add_argument("source", type=Path, metavar="SOURCE", help=".pt or .safetensors of relume")
    return parser


@reports_errors
def pt_to_onnx(argv: Sequence[str] | None = None) -> int:
    """Write the ONNX form of an artifact."""
    given = pt_to_onnx_parser().parse_args(argv)
    from converters import pipeline  # torch takes a second to load

    options = pipeline.Options(
        out=given.out, name=given.name, kinds=frozenset({"onnx"}), force=given.force
    )
    printing.print_outcome(pipeline.export(given.source, options), as_json=given.json)
    return 0


def verify_parser() -> argparse.ArgumentParser:
    """Return the parser of `relume verify` for checkpoints."""
    parser = _parser(
        "Run a checkpoint by a restatement of its framework's definitions, in float64, and its "
        "converted network beside it; say where they differ first, if they do.",
        "relume verify irv2.t7",
        "relume verify resnet-152 0",
        "relume verify irv2.onnx --precision bf16 --images pictures",
    )
    _add_source(parser)
    return parser


@reports_errors
def verify(argv: Sequence[str] | None = None) -> int:
    """Hold a checkpoint's converted network against the original's definitions."""
    given = verify_parser().parse_args(argv)
    found = find(given.source, epoch=given.epoch, symbol=given.symbol)
    from converters import pipeline  # torch takes a second to load

    compared = pipeline.verify_source(found.model, found.opener, given.input, given.input_shape)
    printing.print_compared(compared, as_json=given.json)
    return 0


def _parser(description: str, *examples: str) -> argparse.ArgumentParser:
    parser = new_parser(description, *examples)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder of the results (default: SOURCE's)"
    )
    parser.add_argument(
        "--name", type=_name, metavar="NAME", help="name of the results (default: SOURCE's)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite results that are there")


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="class names, one a line in index order"
    )
    parser.add_argument("--no-onnx", action="store_true", help="write the .pt only")
    parser.add_argument("--safetensors", action="store_true", help="write a .safetensors as well")
    parser.add_argument("--only", choices=KINDS, help="write this one and nothing else")


def _kinds(given: argparse.Namespace) -> frozenset[str]:
    """Return which artifacts are wanted."""
    if given.only and (given.no_onnx or given.safetensors):
        raise SpecError(f"--only {given.only} goes with neither --no-onnx nor --safetensors")
    if given.only:
        return frozenset({given.only})
    also = (("onnx", not given.no_onnx), ("safetensors", given.safetensors))
    return frozenset({"pt", *(kind for kind, on in also if on)})


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help=CHECKPOINT)
    parser.add_argument(
        "epoch",
        type=epoch_number,
        nargs="?",
        metavar="EPOCH",
        help="with SOURCE a prefix, as MXNet names checkpoints: `resnet-50 0`",
    )
    parser.add_argument(
        "--input",
        metavar="PRESET",
        help=f"how images enter the network, where neither the file nor its structure tells: "
        f"{', '.join(PRESETS)}, or a .json file; none for a network that takes no image",
    )
    parser.add_argument(
        "--input-shape",
        type=input_shapes,
        default=(),
        metavar="N,C,H,W[;...]",
        help="with --input none: the exact shape of each input, depth first where tables nest",
    )
    parser.add_argument(
        "--symbol",
        type=Path,
        metavar="FILE",
        help="the graph of a .params file (default: the -symbol.json beside it)",
    )


def _add_checks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="what the network is, where a file has weights alone and their names do not tell; "
        "docs/models.md lists them",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="take the raw weights of a PyTorch checkpoint that has averaged ones too",
    )
    parser.add_argument(
        "--optimizer",
        action="store_true",
        help="write the optimizer's state as well, from the optimState beside the model",
    )
    parser.add_argument(
        "--verify",
        choices=("standard", "full", "none"),
        default="standard",
        help="full: run the original's definitions beside the network, layer by layer; "
        "none: with --only safetensors, write the file's tensors under its own names",
    )


def epoch_number(text: str) -> int:
    """Return what EPOCH says, as argparse wants it."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no epoch, a whole number from 0")
    return int(text)


def _name(text: str) -> str:
    if not text or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a file name; -o DIR chooses the folder")
    return text


def input_shapes(text: str) -> tuple[Shape, ...]:
    """Return what --input-shape says, as argparse wants it."""
    try:
        shapes = tuple(tuple(int(size) for size in shape.split(",")) for shape in text.split(";"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2,3,8,8 or 2,3,8,8;2,5") from error
    for shape in shapes:
        if min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
            raise argparse.ArgumentTypeError(
                f"{text!r}: sizes are 1 or more, {MAX_ELEMENTS:,} numbers at most"
            )
    return shapes
