"""Every file of the serialization fixtures reads as exactly what Torch7 says it holds.

The expected values are Torch7's own, as JSON: see the README beside them. Ours are put into the
same form, and both are renumbered alike, since IDs only express sharing and items have no order.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from converters.t7 import reader
from converters.t7.objects import Function, LuaBoolean, LuaTable, Storage, Tensor, TorchObject
from tests.oracles import golden

FOLDER = golden("torch7/serialization")
KINDS = ("table", "tensor", "storage", "object", "function")


class Form:
    """Values in the JSON form of the fixtures; an object is described once, then referred to."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}

    def of(self, value: Any) -> dict[str, Any]:
        """Return the form of a value."""
        if value is None:
            return {"nil": True}
        if isinstance(value, (bool, LuaBoolean)):
            return {"boolean": value is True or value is LuaBoolean.TRUE}
        if isinstance(value, float):
            return {"number": value}
        if isinstance(value, (str, bytes)):
            raw = value.encode() if isinstance(value, str) else value
            printable = all(32 <= byte < 127 for byte in raw)
            return {"string": value} if printable else {"bytes_b64": base64.b64encode(raw).decode()}
        if id(value) in self.ids:
            return {"ref": self.ids[id(value)]}
        self.ids[id(value)] = len(self.ids) + 1
        return self.object(value, len(self.ids))

    def object(self, value: Any, number: int) -> dict[str, Any]:
        """Return the form of an object seen for the first time."""
        if isinstance(value, LuaTable):
            return {"table": number, "items": self.items(value)}
        if isinstance(value, Tensor):
            return {
                "tensor": number,
                "class": value.class_name,
                "version": written_version(value),
                "size": list(value.shape),
                "stride": list(value.strides),
                "offset": value.offset + 1,
                "storage": self.of(value.storage),
            }
        if isinstance(value, Storage):
            data = value.array().tolist()
            return {
                "storage": number,
                "class": value.class_name,
                "size": value.size,
                "data": data,
            }
        if isinstance(value, Function):
            pairs = value.upvalues.array()
            return {
                "function": number,
                "record_type": value.record_type,
                "bytecode_b64": base64.b64encode(value.bytecode).decode(),
                "upvalues": [
                    {"name": one["name"], "value": self.of(one.get("value"))} for one in pairs
                ],
            }
        assert isinstance(value, TorchObject)
        form = {"object": number, "class": value.class_name, "version": written_version(value)}
        if value.payload is None:
            return {**form, "fields": self.items(value.fields)}
        return {**form, "payload": [self.of(value.payload), self.of(value.fields)]}

    def items(self, table: LuaTable) -> list[Any]:
        """Return the pairs of a table."""
        return [[self.of(key), self.of(item)] for key, item in table.items()]


def written_version(value: TorchObject | Tensor) -> int:
    """Return the version the JSON has: that of the class, even if its record was left without one.

    Reading gives 0 then, as Torch7's File.lua does, and classes tell such files by it.
    """
    return value.version or 1


def parts(form: Any) -> Iterator[dict[str, Any]]:
    """Yield every form inside a form."""
    if isinstance(form, dict):
        yield form
    for one in form.values() if isinstance(form, dict) else form if isinstance(form, list) else ():
        yield from parts(one)


def number_of(form: dict[str, Any]) -> int | None:
    return next((form[kind] for kind in KINDS if kind in form), None)


def renumbered(form: dict[str, Any]) -> Any:
    """Return a form with its items sorted and its objects numbered in that order."""
    known = {number_of(one): one for one in parts(form) if number_of(one)}
    numbers: dict[int, int] = {}

    def scalar(value: Any, class_name: str) -> str:
        if isinstance(value, str):
            return value  # "nan", "inf", "-inf"
        return str(value) if class_name.endswith(INTEGERS) else repr(float(value))

    def rank(pair: list[dict[str, Any]]) -> str:
        key = known[pair[0]["ref"]] if "ref" in pair[0] else pair[0]
        if number_of(key) is None:
            return json.dumps(flat(key))
        rest = {name: value for name, value in key.items() if not isinstance(value, (dict, list))}
        return "~" + json.dumps({**rest, **dict.fromkeys(KINDS)}, sort_keys=True)

    def flat(one: Any) -> Any:
        if isinstance(one, list):
            return [flat(item) for item in one]
        if not isinstance(one, dict):
            return one
        if "number" in one:
            return {"number": scalar(one["number"], "")}
        if "ref" in one and one["ref"] in numbers:
            return {"ref": numbers[one["ref"]]}
        if "ref" in one:
            one = known[one["ref"]]
        number = number_of(one)
        if number in numbers:
            return {"ref": numbers[number]}
        result = dict(one)
        if number is not None:
            numbers[number] = result[next(k for k in KINDS if k in one)] = len(numbers) + 1
        for name in ("items", "fields"):
            if name in one:
                result[name] = [flat(pair) for pair in sorted(one[name], key=rank)]
        if "data" in one:
            result["data"] = [scalar(value, one["class"]) for value in one["data"]]
        for name in ("storage", "payload", "upvalues", "value"):
            if isinstance(one.get(name), (dict, list)):
                result[name] = flat(one[name])
        return result

    return flat(form)


INTEGERS = tuple(f"{kind}Storage" for kind in ("Byte", "Char", "Short", "Int", "Long"))
NAMES = sorted(path.stem for path in FOLDER.glob("*.t7"))


def test_none_is_missing() -> None:
    """The folder is whole: 39 files, each with what it holds."""
    assert len(NAMES) == 39
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name != "generator"])
def test_read_as_torch7_wrote_it(name: str) -> None:
    """Binary or text, any byte order and long: types, numbers, sharing and cycles are Torch7's."""
    expected = json.loads((FOLDER / f"{name}.json").read_text())
    found = Form().of(reader.read(FOLDER / f"{name}.t7"))
    assert renumbered(found) == renumbered(expected)


def test_a_generator_is_its_bytes() -> None:
    """torch.Generator writes its struct, 5,048 bytes, and no object; what follows is read on."""
    table = reader.read(FOLDER / "generator.t7")
    generator = table.pop("gen")
    assert (generator.class_name, len(generator.payload)) == ("torch.Generator", 5048)
    assert dict(table) == {"before": 1.0, "after": 2.0}


def test_every_layout_gives_the_same() -> None:
    """Byte order and size of a long are found out, and leave no trace in what is read."""
    forms = [
        renumbered(Form().of(reader.read(FOLDER / f"layout_{name}.t7")))
        for name in ("native", "b32", "bigendian", "bigendian_b32")
    ]
    assert all(form == forms[0] for form in forms)
