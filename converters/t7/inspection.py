"""What `relume inspect` says of a `.t7`: a description that JSON can hold."""

from pathlib import Path
from typing import Any

from converters.t7 import reader
from converters.t7.account import Account, shared, stored_bytes, view_bytes
from converters.t7.contents import Contents, Entry, plain
from converters.t7.network import layer
from converters.t7.objects import (
    STORAGE_CLASSES,
    TENSOR_CLASSES,
    Tensor,
)


def described(path: Path, name: Path) -> dict[str, Any]:
    """Return the description of a file. Errors call it `name`.

    Raises:
        FormatError: The file is no `.t7`, or is damaged.
    """
    root, layout = reader.read_content(path, name)
    contents = Contents(root)
    account = Account(contents.entries)
    found: dict[str, Any] = {
        "format": layout.format,
        "layout": str(layout),
        "bytes": path.stat().st_size,
        "kind": contents.entries[0].kind,
        "layers": dict(contents.classes().most_common()),
        "without_rule": contents.without_rule(),
    }
    for role, (numbers, stem) in _SUMS.items():
        found[numbers] = account.elements[role]
        found[f"{stem}_tensors"] = account.tensors[role]
        found[f"{stem}_bytes"] = account.bytes[role]
    return found | {
        "parameter_types": sorted(account.types),
        "state": {key: {"tensors": n, "bytes": size} for key, (n, size) in account.state.items()},
        "storage_bytes": account.storage_bytes,
        "shared": shared(contents.entries),
        "damaged": account.damaged,
        "contents": [_record(entry, account) for entry in contents.entries],
        "not_listed": contents.not_listed,
    }


_SUMS = {
    "parameter": ("parameters", "parameter"),
    "statistic": ("statistics", "statistic"),
    "state": ("state_elements", "state"),
    "other": ("other_elements", "other"),
}


def _record(entry: Entry, account: Account) -> dict[str, Any]:
    """Return one line of the contents."""
    value = entry.value
    found: dict[str, Any] = {
        "path": entry.path,
        "kind": entry.kind,
        "role": entry.role,
        "depth": entry.depth,
    }
    if entry.kind in ("module", "object"):
        found["class"] = value.class_name
    if entry.kind == "module":
        found["rule"] = value.class_name in layer
    if entry.kind in ("module", "object", "table"):
        parameters, size, state = account.below[entry]
        sums = {"parameters": parameters, "bytes": size, "state_bytes": state}
        rest = {"values": entry.values, "more_values": entry.more_values, "empty": entry.empty}
        return found | sums | rest
    if entry.kind == "tensor":
        return found | _tensor(entry, account.damaged.get(entry.path))
    if entry.kind == "storage":
        dtype = STORAGE_CLASSES[value.class_name].name
        sums = {"elements": value.size, "bytes": stored_bytes(value)}
        return found | {"class": value.class_name, "dtype": dtype} | sums
    if entry.kind == "function":
        return found | {"bytes": len(value.bytecode)}
    if entry.kind == "reference":
        return found | {"of": entry.of, "cycle": entry.cycle}
    return found | {"value": plain(value)}


def _tensor(entry: Entry, problem: str | None) -> dict[str, Any]:
    tensor: Tensor = entry.value
    return {
        "class": tensor.class_name,
        "dtype": TENSOR_CLASSES[tensor.class_name].name,
        "shape": list(tensor.shape),
        "strides": list(tensor.strides),
        "offset": tensor.offset,
        "elements": None if problem else tensor.size,
        "bytes": 0 if problem else view_bytes(tensor),
        "problem": problem,
    }
