"""What `relume inspect` says of a `.params` file and its symbol: JSON, and lines for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.mx import MXSource
from models.errors import some
from models.terminal import escaped

MAX_ROWS = 20
MAX_NAME = 60  # of an array, in characters


def described(source: MXSource, size: int) -> dict[str, Any]:
    """Return the description of an open checkpoint of so many bytes."""
    learned = [name for name in source.arrays if source.role(name) == "parameter"]
    statistics = [name for name in source.arrays if source.role(name) == "statistic"]
    unread = [name for name in source.arrays if source.role(name) == "other"]
    found: dict[str, Any] = {
        "format": source.format,
        "bytes": size,
        "layers": dict(source.classes.most_common()),
        "without_rule": source.without_rule(),
    }
    for names, numbers, stem in (
        (learned, "parameters", "parameter"),
        (statistics, "statistics", "statistic"),
        (unread, "other_elements", "other"),
    ):
        arrays = [source.arrays[name] for name in names]
        found[numbers] = sum(one.size for one in arrays)
        found[f"{stem}_tensors"] = len(arrays)
        found[f"{stem}_bytes"] = sum(one.nbytes for one in arrays)
    return found | {
        "parameter_types": sorted({str(source.arrays[name].dtype) for name in learned}),
        "inputs": source.inputs(),
        "contents": [
            {
                "path": name,
                "role": source.role(name),
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "elements": array.size,
                "bytes": array.nbytes,
            }
            for name, array in source.arrays.items()
        ],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return what people read of a description."""
    facts = {
        "epoch": "" if found["epoch"] is None else f"{found['epoch']:,}",
        "symbol": Path(found["symbol"]).name if found["symbol"] else "none beside the file",
        "layers": some([f"{name} {count:,}" for name, count in found["layers"].items()]),
        "inputs": some(found["inputs"]),
        "parameters": _sum(found, "parameters", "parameter", found["parameter_types"]),
        "statistics": _sum(found, "statistics", "statistic"),
        "not read": some([one["path"] for one in found["contents"] if one["role"] == "other"]),
        "no rule": some(found["without_rule"]),
    }
    head = f"{Path(found['source']).name}: {found['format']}, {found['bytes']:,} bytes"
    said = [head, *(f"  {name:12}{text}" for name, text in facts.items() if text)]
    return [*map(escaped, said), *_rows(found["contents"])]


def _rows(contents: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each of the first arrays: name, shape, type, bytes."""
    shown = [
        (
            escaped(one["path"][:MAX_NAME]),
            " x ".join(map(str, one["shape"])),
            one["dtype"],
            f"{one['bytes']:,}",
        )
        for one in contents[:MAX_ROWS]
    ]
    columns = [max(map(len, column)) for column in zip(*shown, strict=True)]
    rows = [
        f"{name:{columns[0]}}  {shape:{columns[1]}}  {kind:{columns[2]}}  {size:>{columns[3]}}"
        for name, shape, kind, size in shown
    ]
    more = len(contents) - MAX_ROWS
    return [*([""] if rows else []), *rows, *([f"and {more:,} more: --json"] if more > 0 else [])]


def _sum(found: dict[str, Any], numbers: str, stem: str, types: Sequence[str] = ()) -> str:
    count = found[f"{stem}_tensors"]
    if not count:
        return ""
    listed = f" ({', '.join(types)})" if types else ""
    return f"{found[numbers]:,} in {count:,} array{'s' if count != 1 else ''}{listed}"
