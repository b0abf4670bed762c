"""What the tensors of a file weigh, and which of its values are one and the same."""

from collections import Counter, defaultdict
from typing import Any

from converters.t7.contents import Entry
from converters.t7.objects import STORAGE_CLASSES, Storage, Tensor
from converters.t7.text import TextStorage

# A storage under tensors of several roles counts for the first of them.
_ROLES = ("parameter", "statistic", "other", "state")


class Account:
    """Sums over the entries of a file; what is one tensor, or one storage, counts once.

    Attributes:
        tensors, elements, bytes: By role; the bytes are those of whole storages in the file.
        types: Classes of the parameters.
        storage_bytes: Of all storages together.
        state: `[tensors, bytes]` by the field that holds what a conversion leaves out; the bytes
            here and in `below` are those that tensors look at, and views may overlap.
        below: `[parameters, bytes, bytes of state]` by entry, with all that it holds.
        damaged: Path of every tensor whose elements are not there, and what is wrong.
    """

    def __init__(self, entries: list[Entry]) -> None:
        self.tensors, self.elements, self.bytes = Counter[str](), Counter[str](), Counter[str]()
        self.state: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.types: set[str] = set()
        self.damaged: dict[str, str] = {}
        self.below: dict[Entry, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._places: set[tuple[object, ...]] = set()
        self._paid: set[int] = set()
        tensors = [one for one in entries if one.kind == "tensor"]
        for entry in sorted(tensors, key=lambda one: _ROLES.index(one.role)):
            self._add(entry)
        for entry in entries:
            if entry.kind == "storage":
                self._pay("other", entry.value)
        self.storage_bytes = self.bytes.total()
        for entry in reversed(entries):  # what is held comes after its holder
            if entry.parent is not None and entry in self.below:
                sums = self.below[entry.parent]
                sums[:] = [a + b for a, b in zip(sums, self.below[entry], strict=True)]

    def _add(self, entry: Entry) -> None:
        tensor: Tensor = entry.value
        kind = entry.role
        self.tensors[kind] += 1
        sums = self.below[entry]
        self._pay(kind, tensor.storage)
        field = self.state[_field_of(entry)] if kind == "state" else [0, 0]
        field[0] += 1
        if kind == "parameter":
            self.types.add(tensor.class_name)
        if wrong := tensor.problem():
            self.damaged[entry.path] = wrong
            return
        if tensor.place in self._places:
            return
        self._places.add(tensor.place)
        self.elements[kind] += tensor.size
        size = view_bytes(tensor)
        field[1] += size
        sums[0] = tensor.size if kind == "parameter" else 0
        sums[2 if kind == "state" else 1] = size

    def _pay(self, kind: str, storage: Storage | None) -> None:
        """Count the bytes of a storage, the first time that it is met."""
        if storage is not None and id(storage) not in self._paid:
            self._paid.add(id(storage))
            self.bytes[kind] += stored_bytes(storage)


def stored_bytes(storage: Storage, size: int | None = None) -> int:
    """Return how many bytes of the file are a storage, or `size` of its numbers.

    In a text file that is the line, or its share of it.
    """
    size = storage.size if size is None else size
    if isinstance(storage, TextStorage):
        return (storage.end - storage.at) * size // max(storage.size, 1)
    return size * storage.file.layout.stored(STORAGE_CLASSES[storage.class_name]).itemsize


def view_bytes(tensor: Tensor) -> int:
    """Return how many bytes of the file a tensor looks at; repeated ones count once."""
    if tensor.storage is None:
        return 0
    return stored_bytes(tensor.storage, min(tensor.size, tensor.storage.size))


def shared(entries: list[Entry]) -> list[dict[str, Any]]:
    """Return what has several places: objects that are referred to again, storages under tensors.

    `tied` is what several modules of a network use as their own.
    """
    targets = {one.path: one for one in entries if one.kind != "reference"}
    again: dict[str, list[Entry]] = {}
    views: dict[int, list[Entry]] = {}
    for entry in entries:
        value = entry.value
        if isinstance(value, Storage):
            views.setdefault(id(value), []).append(entry)
        elif entry.of is not None and entry.of in targets:
            again.setdefault(entry.of, [targets[entry.of]]).append(entry)
        elif isinstance(value, Tensor) and value.storage is not None:
            views.setdefault(id(value.storage), []).append(entry)
    listed = [_shared(places[0].kind, places[0].value, places) for places in again.values()]
    for places in views.values():
        if len(places) > 1:
            first = places[0].value
            storage = first.storage if isinstance(first, Tensor) else first
            listed.append(_shared("storage", storage, places))
    return listed


def _shared(kind: str, value: Any, places: list[Entry]) -> dict[str, Any]:
    tied = [one for one in places if one.role in ("parameter", "statistic", "module")]
    return {
        "kind": kind,
        "class": getattr(value, "class_name", None),
        "bytes": stored_bytes(value) if isinstance(value, Storage) else None,
        "tied": len(tied) > 1,
        "cycle": any(one.cycle for one in places),
        "paths": [one.path for one in places],
    }


def _field_of(entry: Entry) -> str:
    """Return the field of the module that a tensor is in, at whatever depth."""
    while entry.parent is not None and entry.parent.kind != "module":
        entry = entry.parent
    return entry.name
