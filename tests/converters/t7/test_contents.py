"""Every value of a file has one place, and what is not listed is counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.packing import unpacked
from converters.t7 import contents as contents_module
from converters.t7 import reader
from converters.t7.contents import MAX_DEPTH, Contents, key_text, plain, role
from converters.t7.module import Ledger, modules
from converters.t7.module import Module as OpenModule
from converters.t7.objects import LuaBoolean, LuaTable, TorchObject, walk
from tests.oracles import GOLDEN, golden
from tests.t7_writer import Module, Sizes, write


def listed(tmp_path: Path, value: Any) -> Contents:
    return Contents(reader.read(write(tmp_path / "made.t7", value)))


def kinds(found: Contents) -> dict[str, str]:
    return {one.path: one.kind for one in found.entries}


MODELS = sorted((GOLDEN / "torch7" / "models").glob("*.t7")) + sorted(
    (GOLDEN / "torch7" / "layers").glob("*.t7")
)


def test_paths_are_those_of_the_converter() -> None:
    """Modules are called what errors and artifacts call them."""
    for path in MODELS:
        root = reader.read(path)
        assert isinstance(root, TorchObject)
        expected = {id(one.source): one.path for one in modules(OpenModule(root, "", Ledger(path)))}
        found = {key: at for key, (at, _) in Contents(root).modules.items()}
        assert found == expected, path


def test_everything_has_one_entry() -> None:
    """What a file holds is listed once, however often it is referred to."""
    for name in ("cyclic", "functions", "tables", "data_parallel_table", "user_classes"):
        root = reader.read(golden(f"torch7/serialization/{name}.t7"))
        found = Contents(root)
        values = [id(one.value) for one in found.entries if one.kind != "reference"]
        assert len(values) == len(set(values))
        assert len({one.path for one in found.entries}) == len(found.entries)
        assert found.not_listed == 0


def test_references_name_their_target() -> None:
    """A table that holds itself is marked; one that is met again is not."""
    found = Contents(reader.read(golden("torch7/serialization/cyclic.t7")))
    references = {one.path: (one.of, one.cycle) for one in found.entries if one.of is not None}
    assert references["self"] == ("", True)
    assert references["s2"] == ("s1", False)
    assert references["t2"] == ("t1", False)


def test_a_field_does_not_take_a_module_from_its_place(tmp_path: Path) -> None:
    """A module that another one looks at is listed where it runs."""
    pooling = Module("nn.SpatialMaxPooling")
    unpooling = Module("nn.SpatialMaxUnpooling", pooling=pooling)
    root = Module("nn.Sequential", modules=[unpooling, pooling])
    found = listed(tmp_path, root)
    assert kinds(found) == {"": "module", "0": "module", "0.pooling": "reference", "1": "module"}
    assert found.entries[2].of == "1"
    assert not found.entries[2].cycle


def test_modules_beside_others(tmp_path: Path) -> None:
    """Networks in a table are modules; what has a class and is none is an object."""
    generator = Module("nn.Sequential", modules=[Module("nn.Mystery")])
    value = {"epoch": 3, "G": generator, "D": Module("my.Net", output=None, gradInput=Sizes(1))}
    found = listed(tmp_path, {**value, "options": Module("my.Options", lr=0.1)})
    assert kinds(found) == {
        "": "table",
        "G": "module",
        "G.0": "module",
        "D": "module",
        "D.gradInput": "storage",
        "options": "object",
    }
    assert found.without_rule() == ["my.Net", "nn.Mystery"]
    assert found.entries[0].values == {"epoch": 3}


def test_what_stands_among_modules_is_listed() -> None:
    """What is behind a gap, where Lua does not look, is there all the same, but is no layer."""
    found = Contents(reader.read(golden("torch7/malformed/module_modules_hole.t7")))
    assert kinds(found) == {
        "": "module",
        "0": "module",
        "modules": "table",
        "modules[1]": "reference",
        "modules[3]": "object",
    }
    assert found.classes() == {"nn.Sequential": 1, "nn.Identity": 1}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("weight", "parameter"),
        ("running_mean", "statistic"),
        ("running_std", "statistic"),
        ("gradWeight", "state"),
        (1.0, "parameter"),
    ],
)
def test_a_field_says_what_a_tensor_is(field: Any, expected: str) -> None:
    """Old statistics included."""
    assert role(field) == expected


def test_roles_reach_into_tables(tmp_path: Path) -> None:
    """A table of outputs is state; a parameter stays one where an output looks at it as well."""
    weight = np.ones(2, "f4")
    net = Module("nn.Linear", output=[np.ones(3, "f4"), weight], weight=weight, extra=[weight])
    roles = {one.path: one.role for one in listed(tmp_path, net).entries}
    assert roles["weight"] == "parameter"
    assert roles["output[1]"] == "state"
    assert roles["extra"] == "other"


@pytest.mark.parametrize("name", ["deep_tables", "deep_keys", "deep_objects", "deep_functions"])
def test_nesting_without_end_is_cut(name: str) -> None:
    """What is too deep is counted, and nothing is lost of the count."""
    with unpacked(golden(f"torch7/malformed/{name}.t7.xz")) as path:
        root = reader.read(path)
    found = Contents(root)
    assert max(one.depth for one in found.entries) == MAX_DEPTH
    parts = {id(one.fields) for one in walk(root) if isinstance(one, TorchObject)}
    everything = [one for one in walk(root) if id(one) not in parts]
    assert len(found.entries) + found.not_listed == len(everything)
    assert found.not_listed > 10_000


def test_a_ladder_is_listed_once() -> None:
    """Sixty tables that each hold the next one twice are sixty tables, not 2 to the 60."""
    found = Contents(reader.read(golden("torch7/malformed/shared_ladder_60.t7")))
    assert len(found.entries) < 200
    assert found.not_listed == 0


@pytest.mark.parametrize(
    ("what", "kind", "again"),
    [("modules", "table", "1.modules"), ("fields", "reference", "")],
)
def test_what_modules_share_is_listed_once(
    what: str, kind: str, again: str, tmp_path: Path
) -> None:
    """A table that a thousand modules have is a thousand values, not a million."""
    boxes: list[Module] = []
    fields: dict[str, Any] = {"modules": boxes, **{f"key{n}": [n] for n in range(300)}}
    for _ in range(1_000):
        boxes.append(Module("nn.Sequential", modules=boxes))
        if what == "fields":
            boxes[-1].fields = fields
    found = listed(tmp_path, boxes[0])
    paths = {one.path: one for one in found.entries}
    assert len(paths) == len(found.entries) < 5_000
    assert found.not_listed == 0
    assert {one.of for one in found.entries} <= {None, *paths}
    assert paths[f"1.{what}"].kind == kind
    assert paths[f"2.{what}"].of == again


def test_length_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more values than anybody reads, references included, the rest is counted."""
    monkeypatch.setattr(contents_module, "MAX_ENTRIES", 10)
    monkeypatch.setattr(contents_module, "MAX_VALUES", 5)
    one: list[Any] = []
    found = listed(tmp_path, [[], one, [], *[one] * 20, *range(8)])
    assert len(found.entries) == 10
    assert found.not_listed == 23 + 1 - 10
    assert len(found.entries[0].values) == 5
    assert found.entries[0].more_values == 3


def test_long_paths_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is too long to print ends the descent."""
    monkeypatch.setattr(contents_module, "MAX_PATH", 12)
    found = listed(tmp_path, {"outer": {"inner": {"more": {}}}})
    assert [one.path for one in found.entries] == ["", "outer", "outer.inner"]
    assert found.not_listed == 1


def test_keys_are_written_as_in_lua() -> None:
    """A number and the text of it are two keys; a name is a name."""
    shown = {
        "weight": "weight",
        "12": '["12"]',
        12.0: "[12]",
        1.5: "[1.5]",
        LuaBoolean.TRUE: "[true]",
        b"\xff": '["\\\\xff"]',
        "two words": '["two words"]',
    }
    assert {key: key_text(key) for key in shown} == shown
    assert key_text("x" * 1_000) == f'["{"x" * 60}... and 940 more"]'


def test_plain_values_fit_into_json() -> None:
    """Whole numbers are whole, minus zero keeps its sign, and what JSON lacks is spelled out."""
    values = [3.0, 0.5, 1e300, float("inf"), None, True, "text", b"\xfe"]
    expected = [3, 0.5, 1e300, {"number": "inf"}, None, True, "text", "\\xfe"]
    assert [plain(one) for one in values] == expected
    assert np.signbit(plain(-0.0))
    assert plain("y" * 300) == f"{'y' * 200}... and 100 more"


def test_a_key_of_any_kind_is_listed(tmp_path: Path) -> None:
    """Tables are keys in Lua, and have contents."""
    root = LuaTable()
    key = LuaTable({1.0: "inside"})
    root[key] = "value"
    found = Contents(root)
    assert kinds(found) == {"": "table", "[key 1]": "table"}
    assert found.entries[0].values == {"[of key 1]": "value"}
    assert found.entries[1].values == {"[1]": "inside"}
