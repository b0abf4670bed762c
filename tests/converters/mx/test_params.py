"""Bytes of `.params` files become arrays, or one clear error."""

import json
import re
import struct
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.mx.params import (
    MAGIC,
    MAX_ARRAYS,
    MAX_DENSE,
    V1,
    V2,
    V3,
    Params,
    is_params,
    read,
    read_data,
)
from models.errors import FormatError
from tests.mx_writer import dense, listed, params
from tests.oracles import golden

NAME = Path("made.params")
SECONDS, MEMORY = 0.05, 50_000_000  # for one damaged file of any kind
FILES = json.loads(golden("mxnet/ndarray/manifest.json").read_text(encoding="utf-8"))
MALFORMED = {
    name: entry["should"]
    for name, entry in json.loads(
        golden("mxnet/malformed/manifest.json").read_text(encoding="utf-8")
    ).items()
    if name.endswith(".params")
}


@pytest.mark.parametrize("file", FILES)
def test_files_that_mxnet_wrote(file: str) -> None:
    """Names, types, shapes and every bit are what MXNet saved."""
    entry = FILES[file]
    expected = np.load(golden(f"mxnet/ndarray/{file.removesuffix('.params')}.npz"))
    found = read(golden(f"mxnet/ndarray/{file}"))
    assert list(found.arrays) == [one["name"] for one in entry["arrays"]]
    assert found.named == bool(entry["named"])
    assert found.versions == (() if entry["format"] == "empty" else (entry["format"],))
    for one in entry["arrays"]:
        ours = found.arrays[one["name"]]
        if one.get("none"):
            assert ours is None
            continue
        key = one["key"] + ("_float32" if one["dtype"] == "bfloat16" else "")
        assert ours is not None
        assert (ours.dtype, ours.shape) == (expected[key].dtype, expected[key].shape)
        assert ours.tobytes() == expected[key].tobytes()


@pytest.mark.parametrize("version", [0, V1, V2, V3])
@pytest.mark.parametrize("kind", ["f4", "f8", "f2", "u1", "i4", "i1", "i8", "i2", "u2", "u4", "u8"])
def test_arrays_are_read_only_views_of_the_file(tmp_path: Path, kind: str, version: int) -> None:
    """An array has the numbers, copies none of them, and cannot change the file."""
    numbers = np.arange(6).reshape(2, 3).astype(kind)
    path = tmp_path / "view.params"
    path.write_bytes(listed([dense(np.ones(3, "u1"), version), dense(numbers, version)]))
    array = read(path).arrays["1"]
    assert array is not None
    assert array.dtype == np.dtype(kind)
    np.testing.assert_array_equal(array, numbers)
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_a_file_of_zeros_is_no_list() -> None:
    """Four bytes of zeros are a placeholder: so many of them are nobody's checkpoint."""
    count = MAX_ARRAYS + 1
    head = struct.pack("<QQQ", MAGIC, 0, count)
    with pytest.raises(
        FormatError, match="byte 16: found 100,001 arrays, expected at most 100,000"
    ):
        read_data(NAME, head + bytes(4 * count + 8))


def test_layouts_may_be_mixed() -> None:
    """Each array says its layout; booleans are such whatever byte stands for true."""
    arrays = [np.ones((2, 2), "f4"), np.zeros(3, "f4"), np.full(1, 7, "f4"), np.array(5.0)]
    made = [dense(one, version) for one, version in zip(arrays, (0, V1, V2, V3), strict=True)]
    flags = dense(np.array([True, False]))[:-2] + b"\x09\x00"
    found = read_data(NAME, listed([*made, flags]))
    assert found.versions == ("V0", "V1", "V2", "V3")
    for ours, theirs in zip(found.arrays.values(), [*arrays, [True, False]], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "sizes", [struct.pack("<i", -1), struct.pack("<iqq", 2, 3, -1)], ids=["none", "one of two"]
)
def test_an_array_of_unknown_shape_is_a_placeholder(sizes: bytes) -> None:
    """NumPy's shape semantics have -1 for what is not known; nothing follows it."""
    made = [struct.pack("<Ii", V3, 0) + sizes, dense(np.ones(2, "f4"))]
    found = read_data(NAME, listed(made, [b"a", b"b"]))
    assert found.arrays["a"] is None
    np.testing.assert_array_equal(found.arrays["b"], [1, 1])


LAST = (1 << 63) - 1  # one more is the smallest: differences of such numbers turn over

# Sparse arrays ------------------------------------------------------------------------------------


def longs(*values: int) -> bytes:
    return struct.pack(f"<i{len(values)}q", len(values), *values)


def sparse(storage: int, shape: tuple[int, ...], numbers: Any, *indices: Any) -> bytes:
    """Return a sparse array; its index arrays are int64."""
    values = np.array(numbers, "f4")
    parts = [np.array(one, "i8") for one in indices]
    head = struct.pack("<Ii", V2, storage) + longs(*values.shape) + longs(*shape)
    types = b"".join(struct.pack("<i", 6) + longs(*one.shape) for one in parts)
    data = b"".join(one.tobytes() for one in (values, *parts))
    return head + struct.pack("<iii", 1, 0, 0) + types + data


def test_sparse_arrays_are_made_dense() -> None:
    """Row by row, and number by number; what is not said is 0."""
    rows = sparse(1, (4, 2), [[1, 2], [3, 4]], [1, 3])
    single = sparse(2, (2, 3), [5, 6], [0, 2, 2], [0, 2])
    found = read_data(NAME, listed([rows, single])).arrays
    np.testing.assert_array_equal(found["0"], [[0, 0], [1, 2], [0, 0], [3, 4]])
    np.testing.assert_array_equal(found["1"], [[5, 0, 6], [0, 0, 0]])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (sparse(1, (4, 2), [[1, 2]], [4]), "4 x 2 with rows that do not rise from 0 to 3"),
        (sparse(1, (4, 2), [[1, 2]], [-1]), "rows that do not rise"),
        (sparse(1, (4, 2), [[1, 2]] * 3, [0, LAST, 3 - LAST]), "rows that do not rise"),
        (sparse(2, (3, 3), [5], [0, LAST, -LAST, 1], [0]), "pointers that fall"),
        (sparse(1, (4, 2), [[1, 2]] * 2, [2, 2]), "rows that do not rise"),
        (sparse(1, (4, 2), [[1, 2, 3]], [2]), "1 x 3 numbers for the rows 1"),
        (sparse(2, (2, 3), [5, 6], [0, 3, 2], [0, 2]), "pointers that fall"),
        (sparse(2, (2, 3), [5, 6], [0, 2, 3], [0, 2]), "pointers from 0 to 3, not 0 to 2"),
        (sparse(2, (2, 3), [5, 6], [0, 2], [0, 2]), "2 pointers, 2 columns"),
        (sparse(2, (2, 3), [5, 6], [0, 2, 2], [0, 3]), "columns outside 0 to 2"),
        (sparse(2, (2, 3), [5, 6], [0, 2, 2], [1, 1]), "columns that do not rise within a row"),
        (
            sparse(1, (1 << 20, 5), [[1] * 5], [7]),
            f"sparse arrays of {5 << 20:,} numbers, nearly all 0, expected at most {MAX_DENSE:,}",
        ),
        (
            sparse(1, (4, 2), [[1, 2]], [1]).replace(struct.pack("<ii", 6, 1), b"\0" * 8),
            "indices of type 0, expected whole numbers of 4 or 8 bytes",
        ),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value[:40],
)
def test_places_in_sparse_arrays_are_checked(made: bytes, message: str) -> None:
    """A place outside the array, or one that is named twice, is an error."""
    with pytest.raises(FormatError, match=re.escape(message)):
        read_data(NAME, listed([made]))


# Damage -------------------------------------------------------------------------------------------

ONE = np.ones((2, 3), "f4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: found an empty file, expected an MXNet .params file"),
        (b"\x80\x02}q", "found a Python pickle, as PyTorch wrote"),
        (b"\x13" + bytes(30), "found bytes 13 00 00 00 00 00 00 00"),
        (listed([])[:20], "byte 16: found the end of the file, expected more bytes"),
        (listed([dense(ONE)])[:-30], "2 x 3 numbers of 4 bytes, expected at most the 2 bytes left"),
        (listed([dense(ONE)] * 2, [b"a"]), "found 1 names, expected 2, one for each array"),
        (listed([dense(ONE)] * 2, [b"a", b"a"]), "the name 'a' a second time, expected another"),
        (listed([dense(ONE)], [b"\xff"]), r"found the name b'\xff', expected UTF-8"),
        (
            listed([dense(ONE)], [b"abc"]).replace(b"\x03" + bytes(7) + b"abc", bytes([9] * 8)),
            "expected at most the 0 left",
        ),
        (
            listed([dense(ONE)]).replace(struct.pack("<q", 2), struct.pack("<q", -2)),
            "found sizes -2 x 3, expected none below 0",
        ),
        (
            listed([dense(ONE)]).replace(struct.pack("<q", 2), struct.pack("<q", 0)),
            "found an array of 0 x 3, expected sizes of 1 or more",
        ),
        (
            listed([dense(ONE, V1)]).replace(struct.pack("<q", 2), struct.pack("<q", 0)),
            "found an array of 0 x 3, expected sizes of 1 or more",
        ),
        (
            listed([dense(np.ones((0, 3), "f4"), V3)]).replace(
                struct.pack("<q", 3), struct.pack("<q", LAST)
            ),
            "found no numbers of sizes 0 x 9,223,372,036,854,775,807, expected sizes that exist",
        ),
        (
            listed([dense(ONE, 0)]).replace(struct.pack("<II", 2, 2), struct.pack("<II", 99, 2)),
            "found an array of 99 dimensions (0x63), expected 0 to 32",
        ),
        (
            listed([dense(ONE, V3)]).replace(struct.pack("<Ii", V3, 0), struct.pack("<Ii", V3, 1)),
            "byte 28: found storage type 1, expected 0 (dense), or in V2 1 or 2 (sparse)",
        ),
        (
            listed([dense(ONE)]).replace(
                struct.pack("<iii", 1, 0, 0), struct.pack("<iii", 1, 0, 13)
            ),
            "found type 13, expected 0 to 12",
        ),
        (
            struct.pack("<QQQ", 0x112, 0, 1 << 60) + bytes(8),
            "found 1,152,921,504,606,846,976 arrays, expected at most 2 in the 8 bytes left",
        ),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value[:40],
)
def test_lies_are_named(content: bytes, message: str) -> None:
    """What a file claims is checked before it is believed, and the error says where and what."""
    with pytest.raises(FormatError, match=re.escape(message)):
        read_data(NAME, content)


def numbers_of(found: Params) -> float:
    return sum(float(one.sum()) for one in found.arrays.values() if one is not None and one.size)


@pytest.mark.parametrize("file", MALFORMED)
def test_hostile_files(file: str) -> None:
    """Every file that was damaged for this ends as its list says, at once and in little memory."""
    data = golden(f"mxnet/malformed/{file}").read_bytes()
    tracemalloc.start()
    start = time.process_time()
    outcome = "load"
    try:
        numbers_of(read_data(Path(file), data))
    except FormatError:
        outcome = "refused"
    taken = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome in MALFORMED[file]
    assert taken < SECONDS
    assert peak < MEMORY


SEED_FILES = [
    params({"arg:w": ONE, "aux:m": np.zeros(2, "f8"), "": np.array([True])}),
    listed([dense(ONE, 0), dense(ONE, V1), dense(np.array(1.0), V3), struct.pack("<I", 0)]),
    listed([sparse(1, (4, 2), [[1, 2]], [1]), sparse(2, (2, 3), [5, 6], [0, 2, 2], [0, 2])]),
]


@given(st.data())
def test_any_byte_flipped_is_our_error_or_a_value(data: st.DataObject) -> None:
    """Damage never ends in another exception, nor in more numbers than the limit."""
    content = bytearray(data.draw(st.sampled_from(SEED_FILES)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with suppress(FormatError), np.errstate(all="ignore"):
        found = read_data(NAME, bytes(content[:cut] if data.draw(st.booleans()) else content))
        numbers_of(found)
        sizes = (one.size for one in found.arrays.values() if one is not None)
        assert sum(sizes) <= MAX_DENSE + len(content)


def test_the_first_bytes_tell() -> None:
    """A list of NDArrays begins with its magic number, and nothing else does."""
    assert is_params(listed([]))
    assert not is_params(b"\x12\x01\x00\x00")
