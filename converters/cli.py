"""The command lines of the converters: arguments in, results printed, exit status out."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from converters.pipeline import Options, Outcome, convert, export
from converters.pth import PthSource
from converters.t7 import T7Source
from models.graph import MAX_ELEMENTS, Shape
from models.presets import PRESETS
from models.terminal import reports_errors


@reports_errors
def t7_to_pt(argv: Sequence[str] | None = None) -> int:
    """Convert a Torch7 checkpoint."""
    parser = _parser("Convert a Torch7 .t7 checkpoint to PyTorch (.pt) and ONNX, and verify both.")
    _add_conversion(parser, ".t7 file, also packed as .xz or .gz")
    given = parser.parse_args(argv)
    _print(convert(given.source, T7Source, _options(given)), as_json=given.json)
    return 0


@reports_errors
def pth_to_pt(argv: Sequence[str] | None = None) -> int:
    """Convert a PyTorch checkpoint."""
    parser = _parser("Convert a PyTorch checkpoint to an artifact (.pt) and ONNX, and verify both.")
    _add_conversion(parser, ".pth, .pth.tar or .safetensors file, also packed as .xz or .gz")
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="what the network is, where the tensors' names do not tell; docs/models.md lists them",
    )
    parser.add_argument(
        "--raw", action="store_true", help="take the raw weights where there are averaged ones too"
    )
    given = parser.parse_args(argv)
    opener = partial(PthSource, asked=given.architecture, raw=given.raw)
    _print(convert(given.source, opener, _options(given)), as_json=given.json)
    return 0


@reports_errors
def pt_to_onnx(argv: Sequence[str] | None = None) -> int:
    """Write the ONNX form of an artifact."""
    parser = _parser(
        "Write the ONNX form of a .pt or .safetensors that relume wrote, and verify it."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=".pt or .safetensors of relume")
    given = parser.parse_args(argv)
    options = Options(out=given.out, name=given.name, force=given.force)
    _print(export(given.source, options), as_json=given.json)
    return 0


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder of the results (default: SOURCE's)"
    )
    parser.add_argument(
        "--name", type=_name, metavar="NAME", help="name of the results (default: SOURCE's)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--force", action="store_true", help="overwrite results that are there")
    return parser


def _add_conversion(parser: argparse.ArgumentParser, source: str) -> None:
    """Add what all conversions take."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help=source)
    parser.add_argument(
        "--input",
        metavar="PRESET",
        help=f"how images enter the network, where neither the file nor its structure tells: "
        f"{', '.join(PRESETS)}, or a .json file; none for a network that takes no image",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="class names, one a line in index order"
    )
    parser.add_argument(
        "--input-shape",
        type=_shapes,
        default=(),
        metavar="N,C,H,W[;...]",
        help="with --input none: the exact shape of each input, depth first where tables nest",
    )
    parser.add_argument("--no-onnx", action="store_true", help="write the .pt only")
    parser.add_argument("--safetensors", action="store_true", help="write a .safetensors as well")


def _options(given: argparse.Namespace) -> Options:
    return Options(
        out=given.out,
        name=given.name,
        input=given.input,
        shapes=given.input_shape,
        labels=given.labels,
        onnx=not given.no_onnx,
        safetensors=given.safetensors,
        force=given.force,
    )


def _name(text: str) -> str:
    if not text or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a file name; -o DIR chooses the folder")
    return text


def _shapes(text: str) -> tuple[Shape, ...]:
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


def _print(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_summary(outcome)))
    else:
        sys.stderr.flush()
        print("\n".join(_lines(outcome)))


def _summary(outcome: Outcome) -> dict[str, Any]:
    spec, network, report = outcome.checkpoint
    written = {key: str(path) if path else None for key, path in outcome.targets._asdict().items()}
    return {
        "source": str(outcome.source),
        "sha256": spec.origin.sha256,
        "format": spec.origin.format,
        "name": spec.name,
        "layers": dict(outcome.classes),
        "notes": list(outcome.notes),
        "architecture": spec.architecture,
        "parameters": network.parameters,
        "input": asdict(spec.input) if spec.input else None,
        "decided_by": spec.origin.decided_by,
        "output": spec.output,
        "classes": len(spec.labels),
        **written,
        "verify": {
            "max_abs": report.max_abs,
            "noise": report.noise,
            "top5_equal": report.top5_equal,
            **asdict(report),
        },
    }


_BECAUSE = {
    "flag": "because --input says so; nothing in the file confirms it",
    "sha256": "because this very file is known",
    "names": "because the tensors have the names of the program that does so",
    "fingerprint": "because the network's structure is that architecture's",
}


def _lines(outcome: Outcome) -> list[str]:
    spec, network, report = outcome.checkpoint
    kinds = ", ".join(f"{name} {count:,}" for name, count in outcome.classes.most_common())
    lines = [
        f"{outcome.source.name}: {spec.origin.format}, sha256 {spec.origin.sha256}",
        *(f"  note        {note}" for note in outcome.notes),
        *([f"  layers      {kinds}"] if kinds else []),
        f"  parameters  {network.parameters:,}",
        f"  network     {_architecture(outcome)}",
        f"  input       {_input(outcome)}",
        f"  output      {_output(outcome)}",
    ]
    for one in report.measured:
        fed = " and ".join("x".join(map(str, shape)) for shape in one.inputs)
        onnx = "" if one.max_abs is None else f"onnxruntime {one.max_abs:.2e}, "
        ranks = {None: "", True: ", same top 5", False: ", top 5 swapped within rounding"}
        lines.append(
            f"  parity      {fed}: {onnx}own float32 {one.noise:.2e} from float64 "
            f"(bound {one.bound:.2e}){ranks[one.top5_equal]}"
        )
    lines += [f"  wrote       {path} ({_size(path)})" for path in outcome.targets if path]
    return lines


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def _architecture(outcome: Outcome) -> str:
    spec = outcome.checkpoint.spec
    if spec.architecture is None:
        return "not one of the known architectures; converted as its file wires it"
    return f"{spec.architecture}: {outcome.title}, recognised by structure"


def _input(outcome: Outcome) -> str:
    spec = outcome.checkpoint.spec
    if spec.input is None:
        shapes = [given.shape for given in outcome.checkpoint.network.graph.inputs]
        return f"no image: {' and '.join('x'.join(map(str, shape)) for shape in shapes)}"
    return f"{spec.input}\n              {_BECAUSE[spec.origin.decided_by]} ({spec.input.source})"


def _output(outcome: Outcome) -> str:
    spec = outcome.checkpoint.spec
    if not spec.labels:
        return spec.output
    first, last = spec.labels[0].name, spec.labels[-1].name
    return f"{len(spec.labels):,} {spec.output}: {first!r} to {last!r}"
