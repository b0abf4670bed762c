"""What is in a checkpoint, said without loading torch: `relume inspect irv2.t7`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.packing import unpacked
from converters.sources import Found, find
from models.terminal import reports_errors


@reports_errors
def inspect(argv: Sequence[str] | None = None) -> int:
    """Print format, layers, parameters and top-level structure of a checkpoint."""
    parser = argparse.ArgumentParser(
        description="Say what is in a .t7 or .params checkpoint, without converting it."
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help=".t7 or .params file, also packed as .xz or .gz; or a folder of one checkpoint",
    )
    parser.add_argument(
        "epoch", type=int, nargs="?", metavar="EPOCH", help="with SOURCE a prefix, as in MXNet"
    )
    parser.add_argument("--symbol", type=Path, metavar="FILE", help="the graph of a .params file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(argv)
    found = summary(find(given.source, epoch=given.epoch, symbol=given.symbol))
    print(json.dumps(found) if given.json else "\n".join(_lines(found)))
    return 0


def summary(found: Found) -> dict[str, Any]:
    """Return what a checkpoint holds; numbers of its tensors stay on the disk.

    Raises:
        FormatError: The file is damaged, or holds no network.
    """
    path = found.model
    with unpacked(path) as plain:
        size = plain.stat().st_size
        source = found.opener(plain, path)
    learned, statistics, state = source.tensors()
    return {
        "source": str(path.resolve()),
        "format": source.format,
        "bytes": size,
        "layers": dict(source.classes.most_common()),
        "without_rule": source.without_rule(),
        "parameters": sum(tensor.size for tensor in learned),
        "parameter_tensors": len(learned),
        "parameter_types": sorted({tensor.class_name for tensor in learned}),
        "statistics": sum(tensor.size for tensor in statistics),
        "state_tensors": state,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    layers = ", ".join(f"{name} {count:,}" for name, count in found["layers"].items())
    lines = [
        f"{Path(found['source']).name}: {found['format']}, {found['bytes']:,} bytes",
        f"  layers      {layers or 'unknown: there is no symbol beside the file'}",
        f"  parameters  {found['parameters']:,} in {found['parameter_tensors']:,} tensors"
        f" ({', '.join(found['parameter_types'])})",
        f"  statistics  {found['statistics']:,} numbers of batch normalisation",
        f"  left out    {found['state_tensors']:,} tensors that no layer reads when it runs",
    ]
    if found["without_rule"]:
        lines.append(f"  no rule     {', '.join(found['without_rule'])}")
    return lines
