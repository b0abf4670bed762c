"""Symbol files become nodes, or one clear error, whichever release wrote them."""

import json
import re
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.mx.symbol import MAX_BYTES, MAX_VALUES, Entry, SymbolNode, read, read_data
from models.errors import FormatError
from tests.mx_writer import node, symbol
from tests.oracles import golden

NAME = Path("made-symbol.json")
SECONDS, MEMORY = 0.05, 50_000_000

DATA = {"op": "null", "name": "data", "inputs": []}


def of(text: str | bytes) -> Any:
    return read_data(NAME, text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("spelling", "version"),
    [
        ({"param": {"kernel": "(1,1)"}, "attr": {"lr_mult": "2"}, "inputs": [[0, 0]]}, None),
        ({"attr": {"kernel": "(1,1)", "lr_mult": "2"}, "inputs": [[0, 0, 0]]}, 905),
        ({"attrs": {"kernel": "(1,1)", "lr_mult": "2"}, "inputs": [[0, 0, 0]]}, 10901),
    ],
    ids=["0.8", "0.9", "1.9"],
)
def test_every_dialect_says_the_same(spelling: dict[str, Any], version: int | None) -> None:
    """Settings are param, attr or attrs; inputs have two numbers or three."""
    made: dict[str, Any] = {"nodes": [DATA, {"op": "X", "name": "x", **spelling}]}
    made["heads"] = [[1, 0, 0][: len(spelling["inputs"][0])]]
    if version is not None:
        made["attrs"] = {"mxnet_version": ["int", version]}
    found = of(json.dumps(made))
    attributes = {"kernel": "(1,1)", "lr_mult": "2"}
    assert found.nodes[1] == SymbolNode("X", "x", attributes, (Entry(0, 0),))
    assert found.heads == (Entry(1, 0),)
    assert found.version == (version or 800)


def test_what_users_attach_counts_before_settings() -> None:
    """MXNet reads the one over the other in this order."""
    both = {"op": "X", "name": "x", "param": {"a": "1"}, "attr": {"a": "2"}, "inputs": [[0, 0]]}
    assert of(symbol(DATA, both)).nodes[1].attributes == {"a": "2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: found an empty file"),
        (b"\xff\xfe", "found no JSON ('utf-8' codec"),
        (b'{"nodes": [', "byte 11: found no JSON (Expecting value)"),
        (b'{"nodes": 1' + b"0" * 5000 + b"}", "found no JSON (Exceeds the limit"),
        (b"[" * 20_000, "found brackets in brackets without end"),
        (b"[" * (MAX_VALUES + 1), f"found about {MAX_VALUES + 1:,} values, expected at most"),
        (b"[1, 2, 3]", "symbol: found [1, 2, 3], expected an object with nodes and heads"),
        (b"{}", "symbol, nodes: found nothing, expected a list"),
        (b'{"nodes": []}', "symbol, heads: found nothing, expected a list"),
        (b'{"nodes": [], "heads": []}', "heads: found [], expected an output at least"),
        (b'{"nodes": [[[]]], "heads": []}', "node 0: found a list of 1, expected an object"),
        (b'{"nodes": [{"name": "x"}], "heads": []}', "node 0, op: found nothing, expected a str"),
        (b'{"nodes": [{"op": "x"}], "heads": []}', "node 0, name: found nothing, expected a str"),
        (
            symbol({**DATA, "name": "x" * 1001}),
            "node 0, name: found 1,001 characters, expected at most 1,000",
        ),
        (symbol({**DATA, "inputs": None}), "node 0, inputs: found nothing, expected a list"),
        (symbol({**DATA, "attrs": []}), "node 0 (data): found [], expected attributes as an"),
        (
            symbol({**DATA, "attrs": {"k": [3, 3]}}),
            "node 0 (data) attribute k: found [3, 3], expected a string",
        ),
        (
            symbol({**DATA, "subgraphs": [{}]}),
            "node 0 (data): found subgraphs, expected none: control flow is no network",
        ),
        (symbol(DATA, node("X", "x", [1])), "node 1 (x): found input from node 1, expected one of"),
        (symbol(DATA, heads=[7]), "heads: found input from node 7, expected one of the 1 before"),
        (symbol(DATA, node("X", "x", [-1])), "node 1 (x): found [-1, 0, 0], expected [node, out"),
        (
            symbol(DATA, {**node("X", "x"), "inputs": [{"a": 1}]}),
            "node 1 (x): found an object with 'a', expected [node, output]",
        ),
        (
            symbol(DATA, {**node("X", "x"), "inputs": [[True, 0]]}),
            "node 1 (x): found [true, 0], expected [node, output]",
        ),
        (
            symbol(DATA).replace('["int", 10901]', '"10901"'),
            "attrs: found an object with 'mxnet_version', expected",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) and value[0] != "{" else "",
)
def test_lies_are_named(content: str | bytes, message: str) -> None:
    """What a file claims is checked before it is believed, and the error says where and what."""
    with pytest.raises(FormatError, match=re.escape(message)):
        of(content)


def test_a_file_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    """A symbol has a size that nobody's network reaches."""
    path = tmp_path / "long-symbol.json"
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(FormatError, match=f"byte {MAX_BYTES:,}: found more, expected a symbol of"):
        read(path)


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 20_000,
        b'{"a":' * 20_000,
        b"[" + b"[]," * (MAX_VALUES // 2) + b"[]]",
        b'{"nodes": [' + b'{"op":"null"},' * 90_000 + b"]}",
        b'{"nodes": ["' + b"x" * 10_000_000 + b'"]}',
    ],
    ids=["depth", "depth of objects", "lists", "objects", "text"],
)
def test_bombs_are_refused_in_little_memory(bomb: bytes) -> None:
    """Depth and size are looked at before they become objects."""
    tracemalloc.start()
    with pytest.raises(FormatError, match="^made-symbol.json: "):
        of(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEMORY


MALFORMED = {
    name: entry["should"]
    for name, entry in json.loads(
        golden("mxnet/malformed/manifest.json").read_text(encoding="utf-8")
    ).items()
    if name.startswith("net-json")
}
# What only the operators' rules can see.
LATER = {
    "bad-attr",
    "evil-attr",
    "huge-attr",
    "missing-attr",
    "output-range",
    "too-few-inputs",
    "unknown-op",
    "unsupported-act",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_hostile_symbols(name: str) -> None:
    """Every symbol that was damaged for this is refused here, or where its operators are read."""
    path = golden(f"mxnet/malformed/{name}-symbol.json")
    start = time.process_time()
    try:
        read(path)
        outcome = "read"
    except FormatError:
        outcome = "refused"
    assert time.process_time() - start < SECONDS
    assert outcome == ("read" if name.removeprefix("net-json-") in LATER else "refused")


GOOD = golden("mxnet/malformed/net-good-symbol.json").read_bytes()


@given(st.data())
def test_any_byte_changed_is_our_error_or_a_graph(data: st.DataObject) -> None:
    """Damage never ends in another exception, and what is read refers backwards only."""
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.sampled_from(b'0159"[]{},:-n e.')
        )
    with suppress(FormatError):
        found = of(bytes(content))
        for index, one in enumerate(found.nodes):
            assert all(entry.node < index for entry in one.inputs)
