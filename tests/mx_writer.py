"""Writes `.params` and symbols as MXNet does, sound or not: what the fixtures do not have."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.mx.params import BFLOAT16, MAGIC, TYPES, V2, V3

CODES = {dtype: code for code, dtype in TYPES.items() if code != BFLOAT16}
VERSION = 10901


def dense(array: np.ndarray, version: int = V2) -> bytes:
    """Return an array in one of the layouts; version 0 has no magic number."""
    sizes = struct.pack(f"<{array.ndim}{'q' if version else 'I'}", *array.shape)
    head = struct.pack("<I", version) if version else b""
    if version in (V2, V3):
        head += struct.pack("<i", 0)
    device_and_type = struct.pack("<iii", 1, 0, CODES[array.dtype])
    return head + struct.pack("<i", array.ndim) + sizes + device_and_type + array.tobytes()


def listed(arrays: Sequence[bytes], names: Sequence[bytes] = ()) -> bytes:
    """Return a whole file of arrays that are written already."""
    said = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    head = struct.pack("<QQQ", MAGIC, 0, len(arrays))
    return head + b"".join(arrays) + struct.pack("<Q", len(names)) + said


def params(arrays: Mapping[str, np.ndarray], version: int = V2) -> bytes:
    """Return a whole file of named arrays."""
    return listed([dense(one, version) for one in arrays.values()], [*map(str.encode, arrays)])


def node(op: str, name: str, inputs: Sequence[int] = (), **attributes: str) -> dict[str, Any]:
    """Return a node of a symbol that reads the first output of others."""
    entries = [[index, 0, 0] for index in inputs]
    return {"op": op, "name": name, "attrs": attributes, "inputs": entries}


def symbol(*nodes: dict[str, Any], heads: Sequence[int] = (), version: int = VERSION) -> str:
    """Return a symbol; without `heads`, the last node is its output."""
    ends = [[index, 0, 0] for index in heads or [len(nodes) - 1]]
    return json.dumps({"nodes": nodes, "heads": ends, "attrs": {"mxnet_version": ["int", version]}})


def checkpoint(
    folder: Path, text: str, arrays: Mapping[str, np.ndarray], name: str = "net-0000.params"
) -> Path:
    """Write a symbol and its arrays, and return the file of the arrays."""
    path = folder / name
    path.write_bytes(params(arrays))
    folder.joinpath("net-symbol.json").write_text(text, encoding="utf-8")
    return path
