"""PyTorch checkpoints of the time: weights alone, whose network an architecture class supplies."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from converters.formats import SGD, Executed
from converters.lowering import Infer, Lowered, Lowering, borrowed
from converters.pth.matching import OURS, match
from converters.pth.reader import read
from models.errors import SpecError
from models.graph import Array, Graph, Shape
from models.presets import PRESETS
from models.spec import InputSpec
from models.trace import trace

__all__ = ["PthSource"]


class PthSource:
    """An open PyTorch or safetensors file with the weights of a known architecture.

    Attributes:
        format: `pytorch-zip`, `pytorch-pickle` or `safetensors`.
        classes: Layers of the architecture, and how many of each.
        input: How the program whose names the file has brings images to it.
        notes: Which weights were taken, and what was left out.
    """

    def __init__(
        self, path: Path, name: Path | None = None, *, asked: str | None = None, raw: bool = False
    ) -> None:
        """Read the file at `path`; errors call it `name` where it was unpacked from another file.

        Args:
            path: The file.
            name: What the user calls it.
            asked: Architecture, where the tensors' names do not tell.
            raw: Take the raw weights where a file has averaged ones too.

        Raises:
            FormatError: The file is no checkpoint, is damaged, or holds more than weights.
            SpecError: Its tensors have names of no known network.
            WeightMismatch: Its tensors are not those of the network whose names they have.
        """
        self.name = name or path
        stored = read(path, self.name, raw=raw)
        self.format = stored.format
        self._match = match(stored.tensors, self.name, asked)
        lineage = self._match.lineage
        self.input: InputSpec | None = PRESETS[lineage.preset] if lineage.preset else None
        notes = [stored.note] if stored.note else []
        if lineage.library != OURS:
            notes.append(f"names of {lineage.library}'s {self._match.architecture.name}")
        if self._match.dropped:
            notes.append(
                f"the auxiliary head, {lineage.auxiliary}, {self._match.dropped} tensors, is left "
                "out: only training needs it"
            )
        self.notes = tuple(notes)
        size = self._match.architecture.size
        self.classes = Counter(node.op for node in self._graph([(1, 3, size, size)]).nodes)

    def check(self, infer: Infer) -> None:
        """Do nothing: every layer of an architecture has a word in graphs."""

    def lower(
        self,
        shapes: Sequence[Shape],
        infer: Infer,
        numbers: Mapping[int, Array] | None = None,
    ) -> Lowered:
        """Return the network for one input of that shape; there are no keys of other numbers.

        Raises:
            SpecError: There are several shapes.
            FormatError: The network does not take images of that size.
        """
        if len(shapes) != 1:
            raise SpecError(f"{self.name}: {len(shapes)} inputs, expected one batch of images")
        net = Lowering(self.name, infer)
        return borrowed(net, self._graph(shapes), self._match.tensors)

    def follow(self, inputs: Sequence[Array], report: Callable[[Executed], object]) -> None:
        """Refuse: weights have no layers of their own that could be run."""
        raise SpecError(f"{self.name}: a state dictionary has no definitions to be held against")

    def sgd(self, path: Path) -> SGD:
        """Refuse: only Torch7's optimizers are read."""
        raise SpecError(f"{path}: the optimizer's state of PyTorch checkpoints is not read")

    def _graph(self, shapes: Sequence[Shape]) -> Graph:
        with torch.device("meta"):
            module = self._match.architecture.create(**self._match.arguments).eval()
        return trace(module, shapes).graph
