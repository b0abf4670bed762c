"""Writes docs/mxnet.md from the rules for MXNet's operators: `python -m docs.mxnet`."""

import inspect
import json
from collections import defaultdict
from pathlib import Path
from types import ModuleType

from converters.mx import operators
from converters.mx.network import RULES
from tests.oracles import golden

TARGET = Path(__file__).with_name("mxnet.md")

HEAD = """\
# MXNet's operators

Every operator of MXNet that converts, what it becomes, and what is odd about it. Written by
`python -m docs.mxnet` from the rules in `converters/mx`; not to be edited by hand. Files are those
of apache/mxnet 1.9.1.

*Graphs* are those that MXNet itself wrote and ran, of which the first three are named; the outputs
of the module and of the ONNX file are held to MXNet's. All operators are also held against a
second, independent statement of their definitions (`converters/mx_oracle`), in more settings.
"""


def page() -> str:
    """Return the text of docs/mxnet.md."""
    graphs = _graphs()
    sections = [HEAD, f"{len(RULES.names())} operators, other names of the same one included.\n"]
    sections += [_section(getattr(operators, name), graphs) for name in operators.__all__]
    return "\n".join(sections)


def _section(module: ModuleType, graphs: dict[str, list[str]]) -> str:
    title = (inspect.getdoc(module) or "").splitlines()[0].rstrip(".")
    for start in ("Rules of ", "Rules that "):
        title = title.removeprefix(start)
    rules = defaultdict(list)
    for name in RULES.names():
        if RULES[name].__module__ == module.__name__:
            rules[RULES[name]].append(name)
    rows = sorted(rules.items(), key=lambda item: (item[0].__code__.co_firstlineno, item[1]))
    lines = [
        f"## {title[0].upper()}{title[1:]}",
        "",
        "| operators | what they become | graphs |",
        "|---|---|---|",
    ]
    for rule, names in rows:
        listed = "<br>".join(f"`{name}`" for name in names)
        found = list(dict.fromkeys(one for name in names for one in graphs[name]))
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        shown = ", ".join(f"`{one}`" for one in found[:3]) + more
        told = " ".join((inspect.getdoc(rule) or "").split()).replace("|", "\\|")
        lines.append(f"| {listed} | {told} | {shown} |")
    return "\n".join([*lines, ""])


def _graphs() -> dict[str, list[str]]:
    """Return the graphs of the fixtures by the operators in them, the smallest first."""
    found: dict[str, list[str]] = defaultdict(list)
    entries = json.loads(golden("mxnet/ops/manifest.json").read_text(encoding="utf-8"))
    for name, entry in sorted(entries.items(), key=lambda one: len(one[1]["ops"])):
        for op in entry["ops"]:
            found[op].append(name)
    return found


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
