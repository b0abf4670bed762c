"""What a format has to offer so that its files can be converted."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from converters.lowering import Infer, Lowered
from models.graph import Shape
from models.spec import InputSpec


class Source(Protocol):
    """An open checkpoint of any format.

    Attributes:
        format: What was read, such as `torch7-binary`.
        classes: What its layers are called, and how many there are of each.
        input: How images enter, where the file itself tells.
        notes: What the user has to know of how it was read.
    """

    format: str
    classes: Counter[str]
    input: InputSpec | None
    notes: tuple[str, ...]

    def check(self, infer: Infer) -> None:
        """Raise UnsupportedLayer for all layers without a rule, whatever the input."""

    def lower(self, shapes: Sequence[Shape], infer: Infer) -> Lowered:
        """Return the network for inputs of these shapes."""


# Opens a file; the second path is what errors call it, where the first is its unpacked copy.
Opener = Callable[[Path, Path], Source]
