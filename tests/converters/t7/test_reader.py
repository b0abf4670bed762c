"""Bytes of `.t7` files become Lua objects, or one clear error."""

import json
import re
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.packing import unpacked
from converters.t7 import reader
from converters.t7.objects import (
    NATIVE,
    TEXT,
    Function,
    Layout,
    LuaBoolean,
    LuaTable,
    Storage,
    Tensor,
    TorchObject,
    walk,
)
from models.errors import FormatError, LegacyModelError
from tests.oracles import golden
from tests.t7_writer import Module, Shared, Sizes, View, t7, write

INT, LONG = "<i", "<q"


def read(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "made.t7"
    path.write_bytes(content)
    return reader.read(path)


def plain(value: Any) -> Any:
    """Return tables as dictionaries, to compare them."""
    return (
        {key: plain(item) for key, item in value.items()} if isinstance(value, LuaTable) else value
    )


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0.0, -1.5, 1e300, "text", "", "ünï", b"\xff\x00", "a\nb\x00c"],
    ids=repr,
)
def test_scalars_come_back(tmp_path: Path, value: Any) -> None:
    """Numbers, booleans, nil and strings of any bytes are read as they were written."""
    assert read(tmp_path, t7(value)) == value


def test_minus_zero_keeps_its_sign(tmp_path: Path) -> None:
    """A number is the file's double, bit by bit."""
    assert np.signbit(read(tmp_path, t7(-0.0)))


def test_tables_nest(tmp_path: Path) -> None:
    """Array and hash parts are one table, as in Lua."""
    value = {"a": [1.0, "two", {"three": True}], 2.5: "fraction"}
    expected = {"a": {1.0: 1.0, 2.0: "two", 3.0: {"three": True}}, 2.5: "fraction"}
    assert plain(read(tmp_path, t7(value))) == expected


def test_array_stops_at_the_first_gap() -> None:
    """`array` gives what Lua's ipairs visits."""
    table = LuaTable()
    for index in (1, 2, 4):
        table[index] = f"item {index}"
    assert table.array() == ["item 1", "item 2"]


def test_true_is_not_the_key_1(tmp_path: Path) -> None:
    """`true` and 1 are two keys in Lua, though Python takes them for one."""
    content = t7({True: "boolean", "1": "number", False: "no"})
    content = content.replace(struct.pack("<ii", 2, 1) + b"1", struct.pack("<id", 1, 1.0))
    table = read(tmp_path, content)
    assert (table[LuaBoolean.TRUE], table[1], table[LuaBoolean.FALSE]) == (
        "boolean",
        "number",
        "no",
    )


def test_a_nil_value_is_an_absent_key(tmp_path: Path) -> None:
    """Setting a key to nil removes it in Lua."""
    assert plain(read(tmp_path, t7({"gone": None, "kept": 1.0}))) == {"kept": 1.0}


def test_the_last_of_two_equal_keys_wins(tmp_path: Path) -> None:
    """As when Lua sets a field twice; nil takes it away."""
    content = t7({"a": 1.0, "b": 2.0, "c": 3.0}).replace(b"b", b"a")
    assert plain(read(tmp_path, content)) == {"a": 2.0, "c": 3.0}
    content = t7({"a": 1.0, "b": None, "c": 3.0}).replace(b"b", b"a")
    assert plain(reader.read_data(tmp_path, content)) == {"c": 3.0}


def test_shared_objects_stay_shared(tmp_path: Path) -> None:
    """What is one object in the file is one object in memory, cycles included."""
    shared = {"x": 1.0}
    table = read(tmp_path, t7([shared, shared]))
    assert table[1] is table[2]
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    again = read(tmp_path, t7(cycle))
    assert again["self"] is again


def test_equal_tables_are_still_two_keys(tmp_path: Path) -> None:
    """Tables are keys by identity."""
    path = write(tmp_path / "keys.t7", ["first", {"k": 1.0}])
    table = reader.read(path)
    assert table[2] != LuaTable({"k": 1.0})
    assert hash(table[2]) == object.__hash__(table[2])


@pytest.mark.parametrize("kind", ["f4", "f8", "f2", "i8", "i4", "u1"])
def test_tensors_are_read_only_views_of_the_file(tmp_path: Path, kind: str) -> None:
    """An array over a tensor has the numbers, copies none of them, and cannot change the file."""
    numbers = np.arange(6).reshape(2, 3).astype(kind)
    array = read(tmp_path, t7(numbers)).array()
    assert array.dtype == np.dtype(kind)
    np.testing.assert_array_equal(array, numbers)
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_views_share_one_storage(tmp_path: Path) -> None:
    """Transposed, offset and expanded views of one storage read the same numbers."""
    storage = Shared(np.arange(6, dtype="f4"))
    table = read(
        tmp_path,
        t7(
            [
                View(storage, (3, 2), (1, 3)),
                View(storage, (2,), (1,), 4),
                View(storage, (4, 2), (0, 1), 1),
            ]
        ),
    )
    assert table[1].storage is table[2].storage is table[3].storage
    np.testing.assert_array_equal(table[1].array(), np.arange(6).reshape(2, 3).T)
    np.testing.assert_array_equal(table[2].array(), [4, 5])
    np.testing.assert_array_equal(table[3].array(), [[1, 2]] * 4)


def test_empty_tensors(tmp_path: Path) -> None:
    """A tensor without dimensions, and one without storage, have no elements."""
    tensor = read(tmp_path, t7(View(None, (), ())))
    assert (tensor.size, tensor.array().size, repr(tensor)) == (0, 0, "<torch.FloatTensor empty>")


def test_cuda_names_hold_the_same_bytes(tmp_path: Path) -> None:
    """torch.CudaTensor is a tensor of floats."""
    content = t7(np.ones(3, "f4")).replace(
        b"\x11\0\0\0torch.FloatTensor", b"\x10\0\0\0torch.CudaTensor"
    )
    content = content.replace(b"\x12\0\0\0torch.FloatStorage", b"\x11\0\0\0torch.CudaStorage")
    tensor = read(tmp_path, content)
    assert tensor.class_name == "torch.CudaTensor"
    np.testing.assert_array_equal(tensor.array(), [1, 1, 1])


def test_objects_of_unknown_classes_keep_their_fields(tmp_path: Path) -> None:
    """A class that nobody knows is still an object with fields."""
    found = read(tmp_path, t7(Module("my.Thing", a=1.0, sizes=Sizes(2, 3))))
    assert isinstance(found, TorchObject)
    assert (found.class_name, found.version, found.fields["a"], repr(found)) == (
        "my.Thing",
        1,
        1.0,
        "<my.Thing>",
    )
    assert isinstance(found.fields["sizes"], Storage)
    assert found.fields["sizes"].array().tolist() == [2, 3]
    assert repr(found.fields["sizes"]) == "<torch.LongStorage of 2>"


@pytest.mark.parametrize("layout", [NATIVE, TEXT], ids=str)
def test_class_names_may_have_any_letters(layout: Layout) -> None:
    """A name's length counts bytes, not letters, the second time too."""
    content = t7([Module("my.Größe", a=1.0), Module("my.Größe", a=2.0)], layout)
    found = reader.read_data(Path("made.t7"), content).array()
    assert [(one.class_name, one.fields["a"]) for one in found] == [
        ("my.Größe", 1),
        ("my.Größe", 2),
    ]


def test_records_without_a_version(tmp_path: Path) -> None:
    """A file from before versions existed has the class name where the version would be."""
    name = b"nn.Old"
    content = struct.pack("<iii", 4, 1, len(name)) + name + t7({"k": 2.0})
    content = content.replace(struct.pack("<ii", 3, 1), struct.pack("<ii", 3, 2))
    found = read(tmp_path, content)
    assert (found.class_name, found.version, found.fields["k"]) == ("nn.Old", 0, 2.0)


@pytest.mark.parametrize("tag", [6, 7, 8])
def test_functions_are_opaque(tmp_path: Path, tag: int) -> None:
    """All three function records are kept as bytes with their upvalues, and never run."""
    head = struct.pack("<i", tag) + (b"" if tag == 6 else struct.pack("<i", 1))
    found = read(tmp_path, head + struct.pack("<i", 4) + b"code" + t7(3.0))
    assert isinstance(found, Function)
    assert (found.record_type, found.bytecode, found.upvalues) == (tag, b"code", 3.0)
    assert repr(found) == "<function>"


def test_trailing_bytes_are_ignored(tmp_path: Path) -> None:
    """Like torch.load, `read` returns the first object."""
    assert read(tmp_path, t7("first") + t7("second")) == "first"


def long_(value: int) -> bytes:
    return struct.pack("<q", value)


def tensor_record(rank: int, geometry: list[int], storage: bytes) -> bytes:
    name = b"torch.FloatTensor"
    head = struct.pack("<iii", 4, 1, 3) + b"V 1" + struct.pack("<i", len(name)) + name
    return head + struct.pack(f"<i{len(geometry)}q", rank, *geometry) + storage


STORAGE = t7(Shared(np.arange(6, dtype="f4"))).replace(
    struct.pack("<ii", 4, 1), struct.pack("<ii", 4, 9), 1
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: found an empty file, expected a .t7"),
        (b"\x07", "byte 0: found bytes 07, expected a .t7: type id 0 to 8"),
        (b"PK\x03\x04rest", "zip archive, as PyTorch and NumPy write .`relume convert`"),
        (b"\x89PNG\r\n", "PNG image"),
        (b"\xff\xd8\xff\xe0", "JPEG image"),
        (b"\x08\x0a\x12\x07pytorch", "an ONNX file, which a conversion writes"),
        (b"\x80\x02}q\x00", "Python pickle"),
        (struct.pack(INT, 9), "found bytes 09 00 00 00"),
        (
            struct.pack("<iii", 3, 1, 1) + struct.pack("<i", 77),
            "byte 12: found type id 77, expected 0 to 8",
        ),
        (
            struct.pack("<ii", 2, -1),
            "byte 4: found a string of -1 bytes, expected 0 to the 0 that are left",
        ),
        (
            struct.pack("<ii", 2, 9) + b"abc",
            "found a string of 9 bytes, expected 0 to the 3 that are left",
        ),
        (struct.pack("<i", 1) + b"abc", "byte 4: found the end of the file, expected more bytes"),
        (struct.pack("<iii", 3, 1, -3), "found a table of -3 entries, expected 0 or more"),
        (struct.pack("<iii", 3, 1, 1) + t7(None), "nil or NaN as a table key"),
        (struct.pack("<iii", 3, 1, 1) + t7(float("nan")), "nil or NaN as a table key"),
        (struct.pack("<iii", 4, 1, 2) + b"\xff\xfe", "class name"),
        (struct.pack("<iii", 4, 1, 3) + b"a\nb" + t7({}), "expected a name of 1 to 200"),
        (
            struct.pack("<iii", 4, 1, 5) + b"V abc" + t7({}),
            "found version 'abc', expected a small whole number",
        ),
        (struct.pack("<ii", 6, 99) + b"abc", "found a function of 99 bytes, expected 0 to the 3"),
        (tensor_record(-1, [], b""), "a tensor of -1 dimensions, expected 0 to 64"),
        (tensor_record(1, [-2, 1, 1], STORAGE), "none below 0"),
        (tensor_record(1, [2, -1, 1], STORAGE), "none below 0"),
        (tensor_record(1, [2, 1, 0], STORAGE), "found storage offset 0, expected 1 or more"),
        (tensor_record(1, [2, 1, 1], t7({})), "expected a storage"),
        (
            tensor_record(
                1,
                [2, 1, 1],
                STORAGE.replace(
                    b"\x12\0\0\0torch.FloatStorage", b"\x13\0\0\0torch.DoubleStorage"
                ).replace(long_(6), long_(3)),
            ),
            "torch.FloatTensor over torch.DoubleStorage, expected one type",
        ),
        (
            struct.pack("<iii", 4, 1, 9) + b"nn.Linear" + t7(1.0),
            "found a number as the fields of nn.Linear",
        ),
        (
            STORAGE.replace(long_(6), long_(1 << 61)),
            "found a storage of 2,305,843,009,213,693,952 x 4 bytes",
        ),
        (STORAGE.replace(long_(6), long_(-6)), "found a storage of -6 numbers, expected 0 or more"),
    ],
)
def test_lies_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    """What a file claims is checked before it is believed, and the error says where and what."""
    with pytest.raises(FormatError, match=message.replace("(", r"\(")):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ([7, 1, 1], "reaches element 7, expected at most 6: its storage's size"),
        ([2, 1 << 62, 1], "expected at most 6"),
        ([1 << 62, 1, 1], "expected at most 6"),
        ([1, 1 << 61, 1], "found strides (2305843009213693952,), expected strides within the st"),
        ([1 << 40, 0, 1], "1,099,511,627,776 elements repeated from 6, expected at most 4,194,304"),
    ],
)
def test_a_tensor_outside_its_storage_has_no_array(
    tmp_path: Path, geometry: list[int], message: str
) -> None:
    """A view is checked against its storage when it is used; nothing large is ever allocated."""
    tensor = read(tmp_path, tensor_record(1, geometry, STORAGE))
    with pytest.raises(FormatError, match=re.escape(message)):
        tensor.array()
    assert tensor.problem() is not None


def test_numbers_without_a_storage(tmp_path: Path) -> None:
    """Sizes over no storage are refused when they are used."""
    tensor = read(tmp_path, tensor_record(1, [2, 1, 1], t7(None)))
    with pytest.raises(FormatError, match="expected at most 0"):
        tensor.array()


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    """There is no error of our own for what the system says better."""
    with pytest.raises(FileNotFoundError, match=r"gone\.t7"):
        reader.read(tmp_path / "gone.t7")


def use(value: Any) -> None:
    """Materialise every tensor and storage, as a conversion would."""
    for found in walk(value):
        if isinstance(found, (Tensor, Storage)):
            found.array().sum()


SEED = Module(
    "nn.Sequential",
    train=False,
    modules=[
        Module("nn.Linear", weight=np.ones((2, 3), "f4"), bias=np.zeros(2, "f4")),
        Module("nn.ReLU"),
    ],
    table={"a": [1.0, 2.0], True: "x"},
    size=Sizes(-1, 4),
    double=np.array([0.1, -1e300]),
)
LAYOUTS = [NATIVE, Layout("<", 4), Layout(">", 8), Layout(">", 4), TEXT]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@given(data=st.data())
def test_any_byte_flipped_is_our_error_or_a_value(layout: Layout, data: st.DataObject) -> None:
    """Damage never ends in another exception, whatever the layout."""
    content = bytearray(t7(SEED, layout))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    damaged = bytes(content[:cut]) if data.draw(st.booleans()) else bytes(content)
    with suppress(FormatError):
        use(reader.read_data(Path("flipped.t7"), damaged))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@given(noise=st.binary(max_size=200))
def test_noise_after_a_good_start_is_our_error_or_a_value(layout: Layout, noise: bytes) -> None:
    """A file may say anything after its first table began."""
    start = t7({"key": 1.0, "tensor": np.ones(2, "f4")}, layout)
    for cut in (len(start) // 4, len(start) // 2, len(start) - 9):
        with suppress(FormatError):
            use(reader.read_data(Path("noise.t7"), start[:cut] + noise))


MAX_MEMORY = 50_000_000  # bytes; the largest, of 100,000 nested tables, has 3 MB itself
MALFORMED = json.loads((golden("torch7/malformed/malformed.json")).read_text())


@pytest.mark.parametrize(
    "case",
    MALFORMED,
    ids=lambda case: case["file"],
)
def test_hostile_files(case: dict[str, str]) -> None:
    """Every damaged file that was made for this ends as its list says: a value or our error.

    It takes no more memory than the bytes of the file can justify, and comes to an end.
    """
    path = golden(f"torch7/malformed/{case['file']}")
    outcome = "value"
    with unpacked(path) as content:
        tracemalloc.start()
        try:
            use(reader.read(content, path))
        except LegacyModelError:
            outcome = "error"
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert outcome in case["must"].partition("_then_")[0]
    assert peak < MAX_MEMORY


def test_a_second_try_does_not_keep_the_first() -> None:
    """A file that fails with both sizes of a long takes the memory of one reading."""
    depth = 20_000
    nest = b"".join(struct.pack("<5i", 3, index, 1, 2, 1) + b"k" for index in range(depth))
    lie = t7(Sizes(1)).replace(long_(1), long_(1 << 40), 1)
    content = nest + lie.replace(struct.pack("<ii", 4, 1), struct.pack("<ii", 4, depth), 1)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="a storage of 1,099,511,627,776 x 8 bytes"):
            reader.read_data(Path("nest.t7"), content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 18 * len(content)  # one reading has 13 times the file's bytes, two have 23
