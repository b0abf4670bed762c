"""The formats that can be converted, told apart by a file's first bytes and its name."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from converters.lowering import Infer, Lowered
from converters.t7 import T7Source
from models.graph import Shape


class Source(Protocol):
    """An open checkpoint of any format."""

    format: str
    classes: Counter[str]

    def check(self, infer: Infer) -> None:
        """Raise UnsupportedLayer for all layers without a rule, whatever the input."""

    def lower(self, shapes: Sequence[Shape], infer: Infer) -> Lowered:
        """Return the network for inputs of these shapes."""


class Format(NamedTuple):
    """A format's name for people, the endings of its files, and how to open one."""

    title: str
    suffixes: tuple[str, ...]
    open: Callable[[Path, Path], Source]


T7 = Format("Torch7", (".t7",), T7Source)
