"""What a conversion says on stdout: lines for people, one JSON object for programs."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.bare import FORMAT, Bare
from models.graph import Shape
from models.terminal import escaped, size_of

if TYPE_CHECKING:  # these load torch, which bare tensors do without
    from converters.comparison import Comparison
    from converters.pipeline import Compared, Outcome


def print_outcome(outcome: "Outcome", *, as_json: bool) -> None:
    """Print what a conversion found, measured and wrote."""
    if as_json:
        print(json.dumps(_summary(outcome)))
    else:
        sys.stderr.flush()
        _print(_lines(outcome))


def print_compared(compared: "Compared", *, as_json: bool) -> None:
    """Print what the comparison with the original's definitions found."""
    found = {
        "source": str(compared.source),
        "sha256": compared.sha256,
        "format": compared.format,
        "layers": dict(compared.classes),
        "inputs": compared.shapes,
        "comparison": compared.comparison._asdict(),
    }
    if as_json:
        print(json.dumps(found))
        return
    _print(
        [
            f"{compared.source.name}: {compared.format}, sha256 {compared.sha256}",
            f"  layers      {_kinds(compared.classes)}",
            f"  input       seeded noise of {_shapes(compared.shapes)}",
            _comparison(compared.comparison),
        ]
    )


def print_bare(source: Path, target: Path, bare: Bare, *, as_json: bool) -> None:
    """Print what was written of a file's tensors."""
    if as_json:
        found = {
            "source": str(source),
            "sha256": bare.sha256,
            "format": FORMAT,
            "tensors": len(bare.names),
            "shared": bare.shared,
            "parameters": bare.parameters,
            "statistics": bare.statistics,
            "safetensors": str(target),
            "bytes": bare.bytes,
        }
        print(json.dumps(found))
        return
    shared = f", {len(bare.shared):,} more names for them" if bare.shared else ""
    _print(
        [
            f"{source.name}: sha256 {bare.sha256}",
            f"  tensors     {len(bare.names):,} under the names of the file{shared}",
            f"  parameters  {bare.parameters:,}, and {bare.statistics:,} numbers of statistics",
            f"{_written(target)}, neither a network nor verified",
        ]
    )


def _print(lines: list[str]) -> None:
    print("\n".join(map(escaped, lines)))


def _comparison(one: "Comparison") -> str:
    at = f", at {one.at}" if one.at else ""
    others = f"; {one.uncompared:,} without a tensor of their own" if one.uncompared else ""
    return (
        f"  definitions {one.layers:,} {'run of a layer' if one.layers == 1 else 'runs of layers'} "
        f"equal to the original's in float64, "
        f"to {one.largest:.1e} of the output{at}{others}"
    )


def _shapes(shapes: Sequence[Shape]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes)


def _kinds(classes: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in classes.most_common())


def _summary(outcome: "Outcome") -> dict[str, Any]:
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
        "no_onnx": outcome.no_onnx,
        "comparison": outcome.comparison and outcome.comparison._asdict(),
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


def _lines(outcome: "Outcome") -> list[str]:
    spec, network, report = outcome.checkpoint
    lines = [
        f"{outcome.source.name}: {spec.origin.format}, sha256 {spec.origin.sha256}",
        *(f"  note        {note}" for note in outcome.notes),
        *([f"  layers      {_kinds(outcome.classes)}"] if outcome.classes else []),
        f"  parameters  {network.parameters:,}",
        f"  network     {_architecture(outcome)}",
        *_input(outcome),
        f"  output      {_output(outcome)}",
    ]
    for one in report.measured:
        onnx = "" if one.max_abs is None else f"onnxruntime {one.max_abs:.2e}, "
        ranks = {None: "", True: ", same top 5", False: ", top 5 swapped within rounding"}
        lines.append(
            f"  parity      {_shapes(one.inputs)}: {onnx}own float32 {one.noise:.2e} from float64 "
            f"(bound {one.bound:.2e}){ranks[one.top5_equal]}"
        )
    if outcome.comparison is not None:
        lines.append(_comparison(outcome.comparison))
    if outcome.no_onnx is not None:
        lines.append(f"  no .onnx    {outcome.no_onnx}")
    lines += [_written(path) for path in outcome.targets if path]
    return lines


def _written(path: Path) -> str:
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path  # as it can be typed
    return f"  wrote       {shown} ({size_of(path.stat().st_size)})"


def _architecture(outcome: "Outcome") -> str:
    spec = outcome.checkpoint.spec
    if spec.architecture is None:
        return "not one of the known architectures; converted as its file wires it"
    return f"{spec.architecture}: {outcome.title}, recognised by structure"


def _input(outcome: "Outcome") -> list[str]:
    spec = outcome.checkpoint.spec
    if spec.input is None:
        shapes = [given.shape for given in outcome.checkpoint.network.graph.inputs]
        return [f"  input       no image: {_shapes(shapes)}"]
    because = f"{_BECAUSE[spec.origin.decided_by]} ({spec.input.source})"
    return [f"  input       {spec.input}", f"              {because}"]


def _output(outcome: "Outcome") -> str:
    spec = outcome.checkpoint.spec
    if not spec.labels:
        return spec.output
    first, last = spec.labels[0].name, spec.labels[-1].name
    return f"{len(spec.labels):,} {spec.output}: {first!r} to {last!r}"
