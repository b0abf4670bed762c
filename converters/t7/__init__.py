"""Torch7: what is in a `.t7`, and the network that it describes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from converters.formats import SGD, Executed
from converters.lowering import Infer, Lowered, Lowering
from converters.t7 import layers, reader
from converters.t7.checkpoints import read_sgd
from converters.t7.module import Ledger, Module, modules
from converters.t7.network import check_classes, layer, lower
from converters.t7.objects import LuaTable, TorchObject
from models.errors import FormatError
from models.graph import Array, Shape
from models.spec import InputSpec

__all__ = ["T7Source", "layers"]


class T7Source:
    """An open `.t7` file whose first object is a module."""

    input: InputSpec | None = None  # nothing in a file says how images enter
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, name: Path | None = None) -> None:
        """Read the file at `path`; errors call it `name` where it was unpacked from another file.

        Raises:
            FormatError: The file is no `.t7`, is damaged, or holds no module.
            UnsupportedLayer: Modules nest deeper than any network's.
        """
        self.name = name or path
        root, layout = reader.read_content(path, self.name)
        if isinstance(root, LuaTable) and len(held := _modules_of(root)) == 1:
            (root,) = held.values()  # saved beside its epoch, its options and the like
        if not isinstance(root, TorchObject):
            raise FormatError(
                self.name, 0, found=_described(root), expected="a module, such as nn.Sequential"
            )
        self.root = root
        self.format = layout.format
        found = modules(Module(root, "", Ledger(self.name)))
        self.classes = Counter(one.source.class_name for one in found)

    def check(self, infer: Infer) -> None:
        """Raise UnsupportedLayer unless every module's class has a rule."""
        check_classes(self.root, Lowering(self.name, infer))

    def lower(
        self,
        shapes: Sequence[Shape],
        infer: Infer,
        numbers: Mapping[int, Array] | None = None,
    ) -> Lowered:
        """Return the network for inputs of these shapes; see `converters.t7.network.lower`."""
        return lower(self.root, shapes, Lowering(self.name, infer), numbers)

    def follow(self, inputs: Sequence[Array], report: Callable[[Executed], object]) -> None:
        """Run the modules by Torch7's definitions; see `converters.t7_oracle.follow`."""
        # Only now: `relume inspect` reads files without it.
        import_module("converters.t7_oracle").follow(self.root, inputs, self.name, report)

    def sgd(self, path: Path) -> SGD:
        """Return the state of the optimizer that trained this network; see `read_sgd`."""
        return read_sgd(path, self.root)


def _modules_of(table: LuaTable) -> dict[str, TorchObject]:
    """Return the modules among a table's values by their keys, each module once."""
    found: dict[int, tuple[str, TorchObject]] = {}
    for key, value in table.items():
        if isinstance(value, TorchObject) and (
            value.class_name in layer or "modules" in value.fields
        ):
            found.setdefault(id(value), (_shown(key), value))
    return dict(found.values())


def _described(value: object) -> str:
    if not isinstance(value, LuaTable):
        return reader.kind(value)
    if len(held := _modules_of(value)) > 1:
        return f"a table with {len(held)} modules, {', '.join(list(held)[:8])}"
    keys = [_shown(key) for key in list(value)[:8]]
    return f"a table with the keys {', '.join(keys)}" if keys else "an empty table"


def _shown(key: object) -> str:
    if isinstance(key, float):
        return f"[{key:g}]"
    return key[:40] if isinstance(key, str) else reader.kind(key)
