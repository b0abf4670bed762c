"""The page of all architectures: `python -m models.architectures.page > docs/models.md`.

Parameters and multiply-adds are counted on the classes themselves, everything else is what their
files say of them.
"""

import sys
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from models.architectures.registry import ALIASES, ARCHITECTURES, Architecture

_INTRODUCTION = """\
# Models

Every network that files are recognised as, and that can be created and trained:
`models.architectures.create(NAME, num_classes=1000, width_divisor=1)`. This page is written by
`python -m models.architectures.page`; a test holds it to the classes.

A file is one of these at any width and with any number of classes; what is counted here is full
width and 1,000 classes, for images of 32 x 32 pixels 10. Multiply-adds are those of convolutions
and linear layers for one image. Errors are what the original's authors report for ILSVRC-2012's
validation images, or CIFAR-10's test images, one crop: first guess / first five, in percent; none
was measured here. How images enter is a preset of [preprocessing.md](preprocessing.md); where
there is none, the structure does not tell.
"""


def page() -> str:
    """Return the page."""
    families = groupby(ARCHITECTURES.values(), key=lambda entry: _class(entry).__module__)
    sections = [_section(module, list(entries)) for module, entries in families]
    names = ", ".join(f"`{name}` is `{meant}`" for name, meant in ALIASES.items())
    return "\n".join([_INTRODUCTION, *sections, f"Second names: {names}.\n"])


def _class(entry: Architecture) -> Any:
    return entry.create.func if isinstance(entry.create, partial) else entry.create


def _section(module: str, entries: list[Architecture]) -> str:
    title, _, rest = (sys.modules[module].__doc__ or "").strip().partition("\n")
    rows = "\n".join(_row(entry) for entry in entries)
    return f"""\
## {title.rstrip(".")}

{rest.strip()}

| name | parameters | multiply-adds | image | how images enter | published error |
|---|---|---|---|---|---|
{rows}

{_said(entries)}"""


def _row(entry: Architecture) -> str:
    parameters, multiply_adds = counted(entry)
    cells = [
        f"`{entry.name}`",
        f"{parameters:,}",
        f"{multiply_adds / 1e6:,.0f} M",
        f"{entry.size} x {entry.size}",
        f"`{entry.preset}`" if entry.preset else "",
        entry.facts.published or "",
    ]
    return " ".join(f"| {cell}" if cell else "|" for cell in cells) + " |"


def _said(entries: list[Architecture]) -> str:
    """Return sources and proofs, each once with the networks that it is of."""
    return "\n".join(
        f"{title}: " + "; ".join(_attributed(entries, field)) + ".\n"
        for title, field in (("Written from", "source"), ("Verified", "verified"))
    )


def _attributed(entries: list[Architecture], field: str) -> Iterator[str]:
    facts: dict[str, list[str]] = {}
    for entry in entries:
        facts.setdefault(getattr(entry.facts, field), []).append(f"`{entry.name}`")
    for fact, names in facts.items():
        several = f"{names[0]} to {names[-1]}" if len(names) > 3 else ", ".join(names)
        yield fact if len(facts) == 1 else f"{fact} ({several})"


def counted(entry: Architecture) -> tuple[int, int]:
    """Return the parameters of an architecture, and the multiply-adds that one image costs it."""
    total = 0

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        weight = layer.get_parameter("weight")
        total += output[0, 0].numel() * weight.numel() if weight.ndim == 4 else weight.numel()

    with torch.device("meta"):
        module = entry.create(num_classes=10 if entry.size == 32 else 1000).eval()
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        module(torch.empty(1, 3, entry.size, entry.size))
    return sum(one.numel() for one in module.parameters()), total


if __name__ == "__main__":
    print(page(), end="")
