"""What a format has to offer so that its files can be converted."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from converters.lowering import Infer, Lowered
from models.graph import Array, Shape
from models.spec import InputSpec


class SGD(NamedTuple):
    """The state of stochastic gradient descent: settings, and a buffer for each parameter."""

    learning_rate: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    updates: int
    buffers: dict[int, Array]  # the keys are for `Source.lower`


class Executed(Protocol):
    """One run of one layer of the file by its original's definition, with float64 outputs."""

    @property
    def path(self) -> str:
        """Where the layer is."""

    @property
    def class_name(self) -> str:
        """What it is called in the file."""

    @property
    def outputs(self) -> tuple[Array, ...]:
        """Its output, or those of its table, depth first."""


class Source(Protocol):
    """An open checkpoint of any format.

    Attributes:
        name: What the user calls the file.
        format: What was read, such as `torch7-binary`.
        classes: What its layers are called, and how many there are of each.
        input: How images enter, where the file itself tells.
        notes: What the user has to know of how it was read.
    """

    name: Path
    format: str
    classes: Counter[str]
    input: InputSpec | None
    notes: tuple[str, ...]

    def check(self, infer: Infer) -> None:
        """Raise UnsupportedLayer for all layers without a rule, whatever the input."""

    def lower(
        self,
        shapes: Sequence[Shape],
        infer: Infer,
        numbers: Mapping[int, Array] | None = None,
    ) -> Lowered:
        """Return the network for inputs of these shapes.

        `numbers` stand in for tensors of the file, by the keys of `SGD.buffers`.
        """

    def follow(self, inputs: Sequence[Array], report: Callable[[Executed], object]) -> None:
        """Run the file by a restatement of its framework's definitions, and report every call.

        It shares nothing with `lower` but the file reader. Calls come in the order of their ends.

        Raises:
            UnsupportedLayer: A layer has no definition, or does not take its input.
        """

    def sgd(self, path: Path) -> SGD:
        """Return the state of the optimizer that trained this network.

        Raises:
            SpecError: The format has none.
        """


# Opens a file; the second path is what errors call it, where the first is its unpacked copy.
Opener = Callable[[Path, Path], Source]
