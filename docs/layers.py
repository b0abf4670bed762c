"""Writes docs/layers.md from the rules and the oracle's manifest: `python -m docs.layers`."""

import inspect
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from converters.t7 import layers
from converters.t7.network import layer
from tests.oracles import golden

TARGET = Path(__file__).with_name("layers.md")
# Torch7 as it was when a file was written; all others come from the last version, of October 2017.
VINTAGES = ("2014", "2015", "2016")
LAST = "2017"

HEAD = """\
# Layers

Every class of Torch7 that converts, what it becomes, and what is odd about it. Written by
`python -m docs.layers` from the rules in `converters/t7`; not to be edited by hand.

*Vintages* are the versions of Torch7 whose own files and outputs the class is tested against: June
2014, May 2015, May 2016, and 2017, the last one. *Files* are such files, of which the first three
are named. A class without any is held against a second, independent statement of its definition
(`converters/t7_oracle`), as are all others. `nn/X.lua` is torch/nn, `THNN/X.c` its C kernels,
`cudnn/X.lua` soumith/cudnn.torch, `cunn/X.lua` torch/cunn, `nngraph/X.lua` torch/nngraph,
`inn/X.lua` szagoruyko/imagine-nn, `dpnn/X.lua` Element-Research/dpnn.
"""


def page() -> str:
    """Return the text of docs/layers.md."""
    files = _files()
    sections = [HEAD, f"{len(layer.names())} classes.\n"]
    for name in layers.__all__:
        sections.append(_section(getattr(layers, name), files))
    return "\n".join(sections)


def _section(module: ModuleType, files: dict[str, list[str]]) -> str:
    title = (inspect.getdoc(module) or "").splitlines()[0].rstrip(".")
    title = title.removeprefix("Rules of ").removeprefix("Rules that ").removeprefix("Rules ")
    rules = defaultdict(list)
    for name in layer.names():
        if layer[name].__module__ == module.__name__:
            rules[layer[name]].append(name)
    rows = sorted(rules.items(), key=lambda item: item[0].__code__.co_firstlineno)
    lines = [
        f"## {title[0].upper()}{title[1:]}",
        "",
        "| classes | what they become | vintages | files |",
        "|---|---|---|---|",
    ]
    for rule, names in rows:
        found = [file for name in names for file in files[name]]
        listed = "<br>".join(f"`{name}`" for name in names)
        lines.append(f"| {listed} | {_told(rule)} | {_vintages(found)} | {_shown(found)} |")
    return "\n".join([*lines, ""])


def _told(rule: object) -> str:
    """Return a rule's docstring as one paragraph of a table."""
    return " ".join((inspect.getdoc(rule) or "").split()).replace("|", "\\|")


def _vintages(files: Iterable[str]) -> str:
    found = {next((v for v in VINTAGES if f"torch{v}" in file), LAST) for file in files}
    return ", ".join(sorted(found))


def _shown(files: list[str]) -> str:
    unique = list(dict.fromkeys(files))
    more = f" and {len(unique) - 3} more" if len(unique) > 3 else ""
    return ", ".join(f"`{file}`" for file in unique[:3]) + more


def _files() -> dict[str, list[str]]:
    """Return the oracle's files by the classes in them, single layers first."""
    found: dict[str, list[str]] = defaultdict(list)
    entries = json.loads(golden("torch7/manifest.json").read_text())
    for entry in sorted(entries, key=lambda one: len(one.get("stored_classes", ()))):
        for name in entry.get("stored_classes", ()):
            found[name].append(entry["file"])
    return found


if __name__ == "__main__":
    TARGET.write_text(page())
