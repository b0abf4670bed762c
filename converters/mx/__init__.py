"""MXNet: what is in a `.params` and the symbol beside it, and the network that they describe."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from converters.formats import SGD, Executed
from converters.lowering import Infer, Lowered, Lowering
from converters.mx import operators, params, symbol
from converters.mx.network import (
    NULL,
    RULES,
    check_operators,
    lower,
    names_read,
    needed,
    variables,
)
from converters.mx.symbol import Symbol
from converters.packing import first_bytes
from models.errors import FormatError, SpecError, some
from models.graph import Array, Shape
from models.spec import InputSpec

__all__ = ["MXSource", "operators"]

STATISTICS = ("moving_mean", "moving_var", "running_mean", "running_var")  # how names end
LOGITS = "SoftmaxOutput is softmax and its loss in one: the network ends with the logits before it"
PREFIXES = ("arg:", "aux:")  # what MXNet's save_checkpoint and HybridBlock.export put before names


class MXSource:
    """An open `.params` file and the symbol that belongs to it.

    Attributes:
        name: What errors call the file.
        format: The layouts of its arrays, such as `mxnet-params-v2`.
        classes: The operators that its outputs need, and how many of each.
        notes: Arrays that no operator reads, and where the network ends.
        input: How images enter, which no file says.
        arrays: By name, without `arg:` and `aux:`.
    """

    def __init__(self, path: Path, name: Path | None = None, *, symbol_path: Path | None) -> None:
        """Read the file at `path`; errors call it `name` where it was unpacked from another file.

        Without a symbol, its arrays can be listed and no more.

        Raises:
            FormatError: A file is damaged, or has no names.
        """
        self.name = name or path
        stored = params.read(path, self.name)
        if stored.arrays and not stored.named:
            raise FormatError(
                self.name, "the names", found="none", expected="one for each array of the symbol"
            )
        versions = "+".join(stored.versions).lower() or "empty"
        self.format = f"mxnet-params-{versions}"
        self.input: InputSpec | None = None  # no file says how images enter
        self.arrays = _bare(self.name, stored.arrays)
        self._symbol_path = symbol_path
        self._symbol = _read_symbol(symbol_path) if symbol_path else None
        nodes = needed(self._symbol) if self._symbol else []
        self.classes = Counter(node.op for node in nodes if node.op != NULL)
        self._read = dict.fromkeys(names_read(self._symbol) if self._symbol else ())
        unread = [one for one in self.arrays if self.role(one) == "other"]
        self.notes: tuple[str, ...] = (f"no operator reads {some(unread)}",) if unread else ()

    def graph(self) -> tuple[Path, Symbol]:
        """Return the symbol and where it is.

        Raises:
            SpecError: There is none.
        """
        if self._symbol_path is None or self._symbol is None:
            raise SpecError(
                f"{self.name}: no symbol beside it, which has the graph: --symbol FILE names one, "
                "--architecture NAME lends that of a known network"
            )
        return self._symbol_path, self._symbol

    def check(self, infer: Infer) -> None:
        """Raise UnsupportedLayer unless every operator has a rule."""
        check_operators(*self.graph())

    def lower(
        self,
        shapes: Sequence[Shape],
        infer: Infer,
        numbers: Mapping[int, Array] | None = None,
    ) -> Lowered:
        """Return the network for inputs of these shapes; see `converters.mx.network.lower`."""
        net = Lowering(self.name, infer)
        lowered = lower(*self.graph(), self.arrays, shapes, net)
        if LOGITS not in self.notes and lowered.calls and None in lowered.calls[-1].outputs:
            self.notes = (*self.notes, LOGITS)
        return lowered

    def follow(self, inputs: Sequence[Array], report: Callable[[Executed], object]) -> None:
        """Run the operators by MXNet's definitions; see `converters.mx_oracle.follow`."""
        # Only now: `relume inspect` reads files without it.
        _, graph = self.graph()
        oracle = import_module("converters.mx_oracle")
        oracle.follow(graph, self.arrays, inputs, self.name, report)

    def sgd(self, path: Path) -> SGD:
        """Raise SpecError: a `.states` file beside a checkpoint is a pickle of MXNet's objects."""
        raise SpecError(f"{path}: the state of an MXNet optimizer is not read")

    def without_rule(self) -> list[str]:
        """Return the operators of the symbol that no rule covers, sorted."""
        return sorted(name for name in self.classes if name not in RULES)

    def inputs(self) -> list[str]:
        """Return the names of the variables through which data enters."""
        if self._symbol is None:
            return []
        return [self._symbol.nodes[one].name for one in variables(self._symbol, self.arrays)]

    def missing(self) -> list[str]:
        """Return the names of arrays that operators read and the file lacks."""
        there = {*self.arrays, *self.inputs()}
        return [name for name in self._read if name not in there]

    def role(self, name: str) -> str:
        """Return what an array is: `parameter`, `statistic`, or `other` if no operator reads it."""
        if self._symbol is not None and name not in self._read:
            return "other"
        return "statistic" if name.endswith(STATISTICS) else "parameter"


def _read_symbol(path: Path) -> Symbol:
    """Return the graph of a symbol file, packed or not."""
    return symbol.read_data(path, first_bytes(path, symbol.MAX_BYTES + 1))


def _bare(path: Path, arrays: Mapping[str, Array | None]) -> dict[str, Array]:
    """Return the arrays by the names that a symbol uses; placeholders are none.

    Raises:
        FormatError: One name stands for a learned and for a measured array.
    """
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        bare = name[4:] if name.startswith(PREFIXES) else name
        if array is None:
            continue
        if bare in found:
            raise FormatError(
                path, f"array {name}", found=f"{bare} a second time", expected="one array of a name"
            )
        found[bare] = array
    return found
