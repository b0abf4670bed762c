"""`-symbol.json` becomes nodes: MXNet's graph of operators, in any of its spellings.

    to 0.8     "param" holds an operator's settings, "attr" what users attached; an input is
               [node, output]; statistics of batch normalisation are no inputs
    0.9, 0.11  "attr" holds both; an input is [node, output, version]
    from 1.0   "attrs" holds both; variables repeat the settings of their operator

Source: apache/tvm nnvm src/pass/saveload_json.cc; apache/mxnet src/nnvm/legacy_json_util.cc.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import FormatError

MAX_BYTES = 1 << 24  # ResNet of 1001 layers has 2 MB
MAX_VALUES = 400_000  # commas and brackets of JSON, 23,000 with ResNet-164: each becomes an object
MAX_NAME = 1_000
UNVERSIONED = 800  # a file that names no release is from before 0.9


class Entry(NamedTuple):
    """One output of one node, by the node's place in the file."""

    node: int
    output: int


class SymbolNode(NamedTuple):
    """An operator, or where `op` is `null` a variable: an input of the network or an array."""

    op: str
    name: str
    attributes: dict[str, str]
    inputs: tuple[Entry, ...]


class Symbol(NamedTuple):
    """A network of operators, in an order in which it can run.

    Attributes:
        nodes: Each reads nodes before it only.
        heads: The network's outputs, in order.
        version: Of the MXNet that wrote it: 905 is 0.9.5, 10901 is 1.9.1.
    """

    nodes: tuple[SymbolNode, ...]
    heads: tuple[Entry, ...]
    version: int


def read(path: Path) -> Symbol:
    """Return the graph that a symbol file describes.

    Raises:
        FormatError: It is no symbol file, is cut short, refers to what is not there, or is built
            to exhaust whoever reads it.
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    return read_data(path, data)


def read_data(path: Path, data: bytes) -> Symbol:
    """Return the graph of a symbol that is in memory; see `read`."""
    return _Reader(path).symbol(_parsed(path, data))


def _parsed(path: Path, data: bytes) -> Any:
    if not data:
        raise _error(path, 0, "an empty file", "an MXNet symbol: a JSON object")
    if len(data) > MAX_BYTES:
        raise _error(path, MAX_BYTES, "more", f"a symbol of at most {MAX_BYTES:,} bytes")
    if (values := sum(map(data.count, (b",", b"[", b"{")))) > MAX_VALUES:
        raise _error(path, 0, f"about {values:,} values", f"at most {MAX_VALUES:,} in a symbol")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise _error(path, 0, "brackets in brackets without end", "an MXNet symbol") from error
    except json.JSONDecodeError as error:
        raise _error(path, error.pos, f"no JSON ({error.msg})", "an MXNet symbol") from error
    except ValueError as error:
        raise _error(path, 0, f"no JSON ({error})", "an MXNet symbol") from error


def _error(path: Path, at: int | str, found: str, expected: str) -> FormatError:
    return FormatError(path, at, found=found, expected=expected)


class _Reader:
    """Checks parsed JSON before believing it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def symbol(self, found: Any) -> Symbol:
        if not isinstance(found, dict):
            raise self._error("symbol", found, "an object with nodes and heads")
        nodes: list[SymbolNode] = []
        for index, node in enumerate(self._list("symbol", found, "nodes")):
            nodes.append(self._node(index, node))
        entries = self._list("symbol", found, "heads")
        heads = tuple(self._entry("heads", entry, len(nodes)) for entry in entries)
        if not heads:
            raise self._error("heads", entries, "an output at least")
        return Symbol(tuple(nodes), heads, self._version(found))

    def _node(self, index: int, found: Any) -> SymbolNode:
        at = f"node {index}"
        if not isinstance(found, dict):
            raise self._error(at, found, "an object with op, name and inputs")
        op, name = (self._text(at, found.get(key), key) for key in ("op", "name"))
        if found.get("subgraphs"):
            raise self._error(f"{at} ({name})", "subgraphs", "none: control flow is no network")
        entries = self._list(at, found, "inputs")
        inputs = tuple(self._entry(f"{at} ({name})", entry, index) for entry in entries)
        attributes: dict[str, str] = {}
        for key in ("param", "attr", "attrs"):  # what comes later counts, as in MXNet's own reader
            attributes |= self._attributes(f"{at} ({name})", found.get(key, {}))
        return SymbolNode(op, name, attributes, inputs)

    def _attributes(self, at: str, found: Any) -> dict[str, str]:
        if not isinstance(found, dict):
            raise self._error(at, found, "attributes as an object")
        for key, value in found.items():
            if not isinstance(value, str):
                raise self._error(f"{at} attribute {key}", value, "a string")
        return found

    def _entry(self, at: str, found: Any, count: int) -> Entry:
        """Read `[node, output]` or `[node, output, version]`, of one of the first `count` nodes."""
        if not (isinstance(found, list) and len(found) in (2, 3)) or any(
            type(one) is not int or one < 0 for one in found
        ):
            raise self._error(at, found, "[node, output] or [node, output, version]")
        if found[0] >= count:
            raise self._error(at, f"input from node {found[0]}", f"one of the {count} before it")
        return Entry(found[0], found[1])

    def _version(self, found: dict[str, Any]) -> int:
        match found.get("attrs"):
            case None:
                return UNVERSIONED
            case {"mxnet_version": ["int", int(version)]}:
                return version
            case dict() as others if "mxnet_version" not in others:
                return UNVERSIONED
            case other:
                raise self._error("attrs", other, '{"mxnet_version": ["int", 10901]}')

    def _list(self, at: str, found: dict[str, Any], key: str) -> list[Any]:
        value = found.get(key)
        if not isinstance(value, list):
            raise self._error(f"{at}, {key}", value, "a list")
        return value

    def _text(self, at: str, value: Any, key: str) -> str:
        if not isinstance(value, str):
            raise self._error(f"{at}, {key}", value, "a string")
        if len(value) > MAX_NAME:  # each output of an operator gets the name anew
            raise self._error(f"{at}, {key}", f"{len(value):,} characters", f"at most {MAX_NAME:,}")
        return value

    def _error(self, at: str, found: Any, expected: str) -> FormatError:
        return _error(self._path, at, _shown(found), expected)


def _shown(found: Any) -> str:
    """Return a value in short; lists within lists may be deeper than Python follows."""
    match found:
        case None:
            return "nothing"
        case str():
            return found[:80]
        case dict():
            return f"an object with {', '.join(map(repr, list(found)[:4]))}"[:80]
        case list() if any(isinstance(one, list | dict) for one in found):
            return f"a list of {len(found):,}"
        case _:
            return json.dumps(found)[:80]
