"""What `relume inspect` prints for people: the account of a file, then its tree as a table."""

import json
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.terminal import escaped, size_of

WIDTH = 100  # where the output is no terminal
GAP = 2  # between columns
MAX_ROWS = 1_000
MAX_PLAIN = 40  # lines of plain values of one table
MAX_LISTED = 5  # of what is shared, damaged and the like
MIN_WIDTH = {"path": 24, "what": 32, "holds": 12, "type": 8}  # and in this order they get more
NUMBERS = ("parameters", "bytes", "left_out")
FILE = "(the file)"  # the path of its first object
MAX_INDENT = 20  # of a path, which says itself how deep it is
MAX_TEXT = 60  # characters of a string
FOLD = 3  # so many of a kind in a row become two lines

Record = dict[str, Any]  # one of the contents that `converters.t7.inspection` describes


class Node:
    """A record and those below it."""

    def __init__(self, record: Record, above: Record | None) -> None:
        self.record = record
        self.kind = str(record["kind"])
        self.name = record["path"][len(above["path"]) if above else 0 :].lstrip(".")
        self.below: list[Node] = []
        self.form = 0  # equal for nodes of the same classes and shapes, all the way down
        self.modules = 0  # inside

    def shown(self) -> "list[Node]":
        """Return what gets lines of its own: of a module, the modules inside."""
        if self.kind != "module":
            return self.below
        return [one for one in self.below if one.record["role"] == "module"]

    @property
    def is_more(self) -> bool:
        """Whether it is a field of a module with something in it that nothing else accounts for."""
        held = self.below or self.record.get("values") or self.kind == "function"
        return bool(held) and self.record["role"] == "other"

    def tensors(self) -> "list[Node]":
        """Return the tensors of a module that a conversion keeps and training has learned."""
        return [
            one
            for one in self.below
            if one.record["role"] == "parameter" and one.kind in ("tensor", "reference")
        ]


class Row(NamedTuple):
    """A line of the table."""

    path: str
    what: str
    holds: str = ""
    type: str = ""
    parameters: int = 0
    bytes: int = 0
    left_out: int = 0


def printed(found: dict[str, Any], depth: int) -> str:
    """Return what a file holds in words and, unless `depth` is 0, as a table of so many levels."""
    lines = _account(found)
    if depth:
        rows = _rows(_tree(found["contents"]), depth)
        table = _table(list(islice(rows, MAX_ROWS)))
        lines += ["", *table]
        if more := sum(1 for _ in rows):
            lines.append(f"... and {more:,} more; --json lists them all")
    return "\n".join(lines) + "\n"


def _account(found: dict[str, Any]) -> list[str]:
    """Return the lines above the table; what there is none of has none."""
    head = f"{Path(found['source']).name}: {found['format']}, {found['bytes']:,} bytes"
    state, below = found["state"], found["not_listed"]
    facts = {
        "layout": found["layout"] if found["format"] == "torch7-binary" else "",
        "epoch": "" if found["epoch"] is None else f"{found['epoch']:,}",
        "optimizer": Path(found["optimizer"] or "").name,
        "layers": ", ".join(f"{name} {count:,}" for name, count in found["layers"].items()),
        "parameters": _sum(found, "parameters", "parameter", found["parameter_types"]),
        "statistics": _sum(found, "statistics", "statistic", []),
        "other": _sum(found, "other_elements", "other", []),
        "left out": _sum(found, "state_elements", "state", list(state)),
        "no rule": ", ".join(found["without_rule"]),
        "shared": _few(
            _shared(one) for one in found["shared"] if one["tied"] or not found["layers"]
        ),
        "damaged": _few(f"{path or FILE} {what}" for path, what in found["damaged"].items()),
        "not listed": f"{below:,} more values, too deep inside or too many" if below else "",
    }
    return [escaped(head), *(line for name, text in facts.items() for line in _fact(name, text))]


def _fact(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        escaped(text),
        WIDTH,
        initial_indent=f"  {name:12}",
        subsequent_indent=14 * " ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sum(found: dict[str, Any], numbers: str, kind: str, notes: list[str]) -> str:
    tensors, size = found[f"{kind}_tensors"], found[f"{kind}_bytes"]
    if not tensors:
        return ""
    text = f"{found[numbers]:,} in {_count(tensors, 'tensor')}"
    return f"{text}{f' ({_joined(notes)})' if notes else ''}, {size_of(size)}"


def _shared(one: dict[str, Any]) -> str:
    first, *others = (path or FILE for path in one["paths"])
    also = _joined(others)
    if one["kind"] == "storage":
        return f"{first} and {also} lie in one storage of {size_of(one['bytes'])}"
    return f"{one['kind']} {first} is also {also}"


def _few(items: Iterable[str]) -> str:
    return _joined(list(items), "; ")


def _joined(items: list[str], between: str = ", ") -> str:
    left = len(items) - MAX_LISTED
    return between.join(items[:MAX_LISTED]) + (f" and {left:,} more" if left > 0 else "")


def _tree(records: list[Record]) -> Node:
    """Return the first record with all others below it, which come in the order of their paths."""
    nodes: list[Node] = []
    holders: list[Node] = []  # of the record before, from the top
    for record in records:
        del holders[record["depth"] :]
        node = Node(record, holders[-1].record if holders else None)
        if holders:
            holders[-1].below.append(node)
        holders.append(node)
        nodes.append(node)
    for node in reversed(nodes):
        found = node.record
        own = (node.kind, found.get("class"), found.get("dtype"), *found.get("shape", ()))
        node.form = hash((own, *(one.form for one in node.below)))
        node.modules = sum(one.modules + (one.kind == "module") for one in node.below)
    return nodes[0]


def _rows(node: Node, left: int) -> Iterator[Row]:
    """Yield the lines of a node and, so many levels deep, of what is below it."""
    yield _row(node, left)
    if not left:
        return
    if node.kind != "module":
        yield from _plain_rows(node)
    for _, same in groupby(node.shown(), key=lambda one: one.form):
        alike = list(same)
        lines, folded = (alike[:1], alike[1:]) if len(alike) >= FOLD else (alike, [])
        for one in lines:
            yield from _rows(one, left - 1)
        if folded:
            yield _folded(folded)


def _row(node: Node, left: int) -> Row:
    found = node.record
    path = _indent(found["depth"]) + (found["path"] or FILE)
    what = found.get("class") or node.kind
    if node.kind == "reference":
        around = ", which holds it" if found["cycle"] else ""
        return Row(path, "", f"is {found['of'] or FILE}{around}")
    if node.kind == "tensor":
        shape = found["problem"] or _shape(found)
        return Row(path, what, shape, found["dtype"], 0, found["bytes"])
    if node.kind == "storage":
        numbers = _count(found["elements"], "number")
        return Row(path, what, numbers, found["dtype"], 0, found["bytes"])
    if node.kind == "function":
        return Row(path, what, f"{_count(found['bytes'], 'byte')} of code, never run")
    if "value" in found:
        return Row(path, what, _value(found["value"]))
    detail, dtype = _holding(node, left)
    sums = (found["parameters"], found["bytes"], found["state_bytes"])
    return Row(path, what, detail, dtype, *sums)


def _holding(node: Node, left: int) -> tuple[str, str]:
    """Return what a module, an object or a table holds that has no line, and of which type."""
    if node.kind != "module":
        count = len(node.below) + len(node.record["values"]) + node.record["more_values"]
        return ("" if left and count else _count(count, "value")), ""
    tensors = node.tensors()
    parts = [f"{one.name} {_shape(one.record)}" for one in tensors]
    types = {one.record["dtype"] for one in tensors if one.kind == "tensor"}
    if not left and node.modules:
        parts.append(_count(node.modules, "module"))
    if fields := sum(one.is_more for one in node.below):
        parts.append(_count(fields, "more field"))
    if not node.record["rule"]:
        parts.append("no rule")
    return _joined(parts), _joined(sorted(types))


def _shape(record: Record) -> str:
    if record["kind"] == "reference":
        return f"is {record['of']}"
    return "x".join(map(str, record["shape"])) or "empty"


def _plain_rows(node: Node) -> Iterator[Row]:
    """Yield a line for each plain value of a table or an object, one for a list of numbers."""
    indent, path = _indent(node.record["depth"] + 1), node.record["path"]
    lines = 0
    values = node.record.get("values", {}).items()
    for kind, group in groupby(values, key=lambda one: (one[0][1:-1].isdecimal(), _kind(one[1]))):
        run = list(group)
        if kind[0] and len(run) > FOLD:
            said = ", ".join(_value(value) for _, value in run[:MAX_LISTED])
            more = ", ..." if len(run) > MAX_LISTED else ""
            yield Row(
                f"{indent}{path}{run[0][0]} to {path}{run[-1][0]}",
                f"{len(run):,} {kind[1]}s",
                said + more,
            )
            continue
        for name, value in run:
            lines += 1
            if lines <= MAX_PLAIN:
                between = "." if path and not name.startswith("[") else ""
                yield Row(f"{indent}{path}{between}{name}", kind[1], _value(value))
    left = node.record.get("more_values", 0) + max(lines - MAX_PLAIN, 0)
    if left:
        yield Row(f"{indent}...", f"and {left:,} more")


def _folded(nodes: list[Node]) -> Row:
    """Return one line for siblings that are like the one before them."""
    first, last = nodes[0].record, nodes[-1].record
    sums = [
        sum(one.record.get(key, 0) for one in nodes)
        for key in ("parameters", "bytes", "state_bytes")
    ]
    said = "references" if nodes[0].kind == "reference" else "of the same classes and shapes"
    path = f"{_indent(first['depth'])}{first['path']} to {last['path']}"
    return Row(path, f"{len(nodes):,} more", said, "", *sums)


def _indent(depth: int) -> str:
    return min(2 * depth, MAX_INDENT) * " "


def _table(rows: list[Row]) -> list[str]:
    """Return the lines of the table; long texts go on in the next line, numbers stay whole."""
    columns = {
        name: [_cell(cell) for cell in cells]
        for name, cells in zip(Row._fields, zip(*rows, strict=True), strict=True)
        if any(cells) or name in ("path", "what")
    }
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold")
    widths = _widths(columns)
    for name, width in widths.items():
        table.add_column(
            name.replace("_", " "),
            justify="right" if name in NUMBERS else "left",
            overflow="fold",
            width=width,
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    total = sum(widths.values()) + GAP * len(widths)
    console = Console(markup=False, emoji=False, highlight=False, width=total)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _widths(columns: dict[str, list[str]]) -> dict[str, int]:
    """Return a width for each column: numbers have theirs, texts share what the terminal has left.

    Where that is not enough for all to have their least, lines are longer than the terminal.
    """
    console = Console()
    left = console.width if console.is_terminal else WIDTH
    longest = {name: max(len(name), *map(len, texts)) for name, texts in columns.items()}
    widths = {
        name: wanted if name in NUMBERS else min(wanted, MIN_WIDTH[name])
        for name, wanted in longest.items()
    }
    left -= sum(widths.values()) + GAP * len(widths)
    for name in MIN_WIDTH:
        if name in widths:
            more = max(0, min(left, longest[name] - widths[name]))
            widths[name] += more
            left -= more
    return widths


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f"{value:,}" if value else ""
    return escaped(value)


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", str: "string", type(None): "nil"}
    return kinds.get(type(value), "number")


def _value(value: Any) -> str:
    if isinstance(value, dict):  # infinity or NaN
        return str(value["number"])
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{json.dumps(value[:MAX_TEXT], ensure_ascii=False)} and more"
    return "nil" if value is None else json.dumps(value, ensure_ascii=False)


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
