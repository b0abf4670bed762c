"""`relume diff A B`: whether two checkpoints hold the same network, and where they differ."""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from models.errors import SpecError
from models.presets import PRESETS
from models.terminal import at_least, escaped, new_parser, reports_errors

if TYPE_CHECKING:  # these load torch
    from converters.difference import Apart, Difference
    from converters.sides import Side

EQUAL, DIFFERENT, TROUBLE = 0, 1, 2  # as diff(1) has them
SHOWN = 20  # rows of the table, unless all are asked for
# Programs fold in float32, by roundings of 1.2e-7 each; a bias is the difference of terms that may
# be many times as large.
FOLDED = 1e-5


class Compared(NamedTuple):
    """Two checkpoints, what was found, and how far apart equal tensors may be."""

    a: "Side"
    b: "Side"
    found: "Difference"
    tolerance: float

    @property
    def differing(self) -> list["Apart"]:
        """The tensors that differ, in the order of the network."""
        return self.found.differing(self.tolerance)

    @property
    def same_input(self) -> bool | None:
        """Whether images enter both alike; None unless it is known of both."""
        inputs = self.a.input, self.b.input
        return None if None in inputs else _pixels(inputs[0]) == _pixels(inputs[1])

    @property
    def are_equal(self) -> bool:
        """Whether both give the same for the same images, as far as is known."""
        return self.found.same_network and not self.differing and self.same_input is not False


def main(argv: Sequence[str] | None = None) -> int:
    """Say whether two checkpoints are equal, with the status that diff(1) has for it."""
    compared: list[Compared] = []
    status = _main(argv, compared)
    if status or not compared:
        return TROUBLE if status == 1 else status
    return EQUAL if compared[0].are_equal else DIFFERENT


@reports_errors
def _main(argv: Sequence[str] | None, compared: list[Compared]) -> int:
    given = parser().parse_args(argv)
    a, b = _named(given.sources)
    from converters.difference import compare
    from converters.sides import Named, open_both  # torch takes a second to load

    sides = open_both(Named(*a), Named(*b), given.input, given.input_shape)
    found = compare(sides[0].network, sides[1].network)
    tolerance = max(given.tolerance, FOLDED if any(found.norms) else 0)
    compared.append(Compared(*sides, found, tolerance))
    if given.json:
        print(json.dumps(_json(compared[0])))
    else:
        print("\n".join(map(escaped, _lines(compared[0], everything=given.all))))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = new_parser(
        "Compare two checkpoints layer by layer, whatever their formats: is it the same network, "
        "and where do the weights differ? A and B are what `relume convert` takes, MXNet's PREFIX "
        "EPOCH as well, or .pt and .safetensors of relume. The exit status is 0 if they are equal, "
        "1 if they differ, 2 if there was trouble.",
        "relume diff irv2.t7 irv2.pt",
        "relume diff resnet-152 0 resnet-152 90",
    )
    found.usage = (
        "%(prog)s [-h] [--input PRESET] [--input-shape N,C,H,W[;...]] [--tolerance T] [--all] "
        "[--json] A [EPOCH] B [EPOCH]"
    )
    found.add_argument("sources", nargs="+", metavar="A B", help="the two checkpoints")
    found.add_argument(
        "--input",
        metavar="PRESET",
        help=f"how images enter, where neither checkpoint tells: {', '.join(PRESETS)}, or a .json "
        "file; none for networks that take no image",
    )
    found.add_argument(
        "--input-shape",
        type=_shapes,
        default=(),
        metavar="N,C,H,W[;...]",
        help="with --input none: the exact shape of each input",
    )
    found.add_argument(
        "--tolerance",
        type=at_least(0.0),
        default=0.0,
        metavar="T",
        help="how far apart equal tensors may be, as a part of their largest number (default: 0)",
    )
    found.add_argument("--all", action="store_true", help="list every tensor that differs")
    found.add_argument("--json", action="store_true", help="print one JSON object")
    return found


def _shapes(text: str) -> Any:
    """Return what --input-shape says; imported once it is given, for it needs what torch needs."""
    from converters.cli import input_shapes

    return input_shapes(text)


def _named(sources: Sequence[str]) -> list[tuple[Path, int | None]]:
    """Return the paths, each with the epoch after it, which is a number that no file is called.

    Raises:
        SpecError: They are not two.
    """
    found: list[tuple[Path, int | None]] = []
    for one in sources:
        if found and found[-1][1] is None and one.isdecimal() and not Path(one).exists():
            found[-1] = (found[-1][0], int(one))
        else:
            found.append((Path(one), None))
    if len(found) != 2:
        raise SpecError(f"{len(found)} checkpoints given, expected two to compare")
    return found


def _pixels(given: Any) -> dict[str, Any]:
    """Return what decides a pixel's value, without the file that says so."""
    return {key: value for key, value in vars(given).items() if key != "source"}


def _lines(compared: Compared, *, everything: bool) -> Iterator[str]:
    a, b, found, tolerance = compared
    yield _verdict(compared)
    for name, side in (("a", a), ("b", b)):
        known = f", {side.architecture}" if side.architecture else ""
        yield (
            f"  {name}           {side.path.name}: {side.format}{known}, "
            f"{side.network.parameters:,} parameters, sha256 {side.sha256[:12]}"
        )
    yield from _inputs(compared)
    if any(found.norms):
        yield (
            f"  BatchNorm   {found.norms[0]} of a and {found.norms[1]} of b were folded into the "
            f"layers before them; equal to {tolerance:g} of a tensor's largest number"
        )
    if found.parting:
        yield f"  layer {found.parting.place}"
        yield f"    a         {found.parting.a}"
        yield f"    b         {found.parting.b}"
    shown = found.settings if everything else found.settings[:SHOWN]
    for one in shown:
        values = " | ".join(map(str, one.values))
        yield f"  setting     {_names(one.a, one.b)} {one.op}: {one.key} {values}"
    if len(shown) < len(found.settings):
        yield f"  ... and {len(found.settings) - len(shown):,} more settings; --all lists them"
    yield from _table(compared.differing, everything=everything)


def _verdict(compared: Compared) -> str:
    parts = [_structures(compared.found), _weights(compared)]
    if compared.same_input is False:
        parts.append("images enter in different ways")
    return "; ".join(filter(None, parts))


def _structures(found: "Difference") -> str:
    if found.parting is not None:
        return f"networks differ, from layer {found.parting.place:,} on"
    if found.settings:
        first, layers = found.settings[0], len({one.a for one in found.settings})
        where = f"{layers:,} layer{'' if layers == 1 else 's'}"
        return f"networks differ, in the settings of {where}, first {_names(first.a, first.b)}"
    if not found.shared:
        return "networks differ, in which layers share tensors or are not used"
    if found.classes and found.classes[0] != found.classes[1]:
        return "same network but for its classes, {:,} and {:,}".format(*found.classes)
    return "same network"


def _weights(compared: Compared) -> str:
    found, differing = compared.found, compared.differing
    if not found.tensors:
        return ""
    place = "before that, " if found.parting else ""
    if not differing:
        near = any(one.differing for one in found.tensors)
        return f"{place}same weights" + (
            f", to {compared.tolerance:g} of the largest" if near else ""
        )
    first = _names(differing[0].a, differing[0].b)
    said = f"{place}weights differ in {len(differing):,} of {len(found.tensors):,} tensors"
    halves = all(one.half for one in differing)
    return f"{said}, first {first}" + ("; equal as half precision" if halves else "")


def _inputs(compared: Compared) -> Iterator[str]:
    a, b = compared.a.input, compared.b.input
    if compared.same_input and a is not None:
        yield f"  input       both: {a}"
        return
    for name, given in (("a", a), ("b", b)):
        yield f"  input {name}     {given or 'not known'}"


def _table(differing: Sequence["Apart"], *, everything: bool) -> Iterator[str]:
    """Yield the tensors that differ, the worst of many, in the order of the network."""
    if not differing:
        return
    shown = differing
    if not everything and len(differing) > SHOWN:
        worst = sorted(differing, key=lambda one: -one.relative)[:SHOWN]
        shown = [one for one in differing if one in worst][:SHOWN]
    rows = [("tensor", "layer", "max |a-b|", "relative", "differing", "cosine"), *map(_row, shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield ""
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip()
    if len(shown) < len(differing):
        yield f"... and {len(differing) - len(shown):,} less far apart; --all lists them"


def _row(one: "Apart") -> tuple[str, ...]:
    names = _names(one.a, one.b)
    if one.shapes[0] != one.shapes[1]:
        shapes = " | ".join("x".join(map(str, shape)) for shape in one.shapes)
        return names, one.op, f"shapes {shapes}", "", "", ""
    share = one.differing / one.size
    return (
        names,
        one.op,
        f"{one.max_abs:.3g}",
        f"{one.relative:.2g}",
        f"{one.differing:,} of {one.size:,} ({share:.1%})",
        "" if one.cosine is None else f"{one.cosine:.7f}",
    )


def _names(a: str, b: str) -> str:
    return a if a == b else f"{a} | {b}"


def _json(compared: Compared) -> dict[str, Any]:
    a, b, found, tolerance = compared
    differing = compared.differing
    return {
        "equal": compared.are_equal,
        "same_network": found.same_network,
        "same_weights": not differing,
        "same_input": compared.same_input,
        "a": _side(a),
        "b": _side(b),
        "tolerance": tolerance,
        "layers": found.layers,
        "classes": found.classes,
        "folded": found.norms,
        "parting": found.parting and found.parting._asdict(),
        "settings": [one._asdict() for one in found.settings],
        "tensors": len(found.tensors),
        "differing": [_tensor(one) for one in differing],
    }


def _side(side: "Side") -> dict[str, Any]:
    return {
        "path": str(side.path),
        "sha256": side.sha256,
        "format": side.format,
        "architecture": side.architecture,
        "parameters": side.network.parameters,
        "input": side.input and asdict(side.input),
    }


def _tensor(one: "Apart") -> dict[str, Any]:
    """Return what is known of a tensor; JSON has no infinity, which is null."""
    known = {**one._asdict(), "relative": one.relative}
    return {
        key: None if isinstance(value, float) and math.isinf(value) else value
        for key, value in known.items()
    }
