"""Five layouts, of which a file says nothing but its first bytes: the right one is found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.t7 import reader
from converters.t7.objects import NATIVE, TEXT, Layout, TorchObject, walk
from models.errors import FormatError
from tests.converters.t7.test_serialization import Form, renumbered
from tests.oracles import ROOT, golden
from tests.t7_writer import Module, Raw, Shared, Sizes, View, t7

LAYOUTS = [NATIVE, Layout("<", 4), Layout(">", 8), Layout(">", 4), TEXT]
LONG_4 = Layout("<", 4)


def read(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / f"{hash(content)}.t7"  # one each: a file stays mapped while it is used
    path.write_bytes(content)
    return reader.read(path)


FLOATS = Shared(np.linspace(0, 1, 24, dtype="f4"))
WHOLE = Module(
    "nn.Sequential",
    train=False,
    sizes=Sizes(0, -1, 4),
    modules=[
        Module("nn.Linear", weight=View(FLOATS, (2, 3), (3, 1)), bias=View(FLOATS, (2,), (1,), 6)),
        Module("nn.View", size=Sizes(3)),
        [1.5, float("inf"), True, "text\n", b"\xff\x00", "", {}, None],
    ],
    half=np.array([[0.5, -2]], "f2"),
    double=np.array([[1e300], [-0.0], [0.1]]),
    long=np.array([2**31 - 1, -(2**31)], "i8"),
    short=np.array([-32768, 5], "i2"),
    byte=np.array([10, 32, 255], "u1"),
    char=np.array([-1, 10], "i1"),
    empty=View(None, (), ()),
    shared=FLOATS,
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_all_layouts_read_the_same(tmp_path: Path, layout: Layout) -> None:
    """What is written in any layout comes back with its types, its numbers and its sharing."""
    found = read(tmp_path, t7(WHOLE, layout))
    expected = read(tmp_path, t7(WHOLE))
    assert json.dumps(renumbered(Form().of(found))) == json.dumps(renumbered(Form().of(expected)))
    weight = found.fields["modules"][1].fields["weight"]
    assert (weight.file.layout, weight.array().dtype) == (layout, np.dtype("f4"))
    assert not weight.array().flags.writeable


SMALL = {
    "an empty tensor": View(None, (), ()),
    "a tensor": np.ones((2, 3), "f4"),
    "a tensor of zeros": np.zeros(4, "f8"),
    "sizes": Sizes(0, 0, 2),
    "no sizes": Sizes(),
    "sizes and more": [Sizes(0, 1), False],
    "empty, then more": [View(None, (), ()), "x", View(None, (), ())],
    "zeros, then more": {"a": Shared(np.zeros(3, "f4")), "weight": 1.0, "b": True},
    "resized to nothing": View(Shared(np.zeros(2, "f4")), (), ()),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("value", SMALL.values(), ids=list(SMALL))
def test_little_evidence_is_enough(tmp_path: Path, value: Any, layout: Layout) -> None:
    """A single tensor or storage shows how long a long is, even if all its numbers are zero."""
    found, expected = read(tmp_path, t7(value, layout)), read(tmp_path, t7(value))
    assert renumbered(Form().of(found)) == renumbered(Form().of(expected))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_cut_file_is_no_file_of_another_layout(tmp_path: Path, layout: Layout) -> None:
    """However short a file is cut, nothing is made of it; the error says how far it went."""
    content = t7(WHOLE, layout)
    for cut in range(1, len(content), 7):
        with pytest.raises(FormatError, match="byte "):
            read(tmp_path, content[:cut])


def test_the_error_is_that_of_the_likelier_layout(tmp_path: Path) -> None:
    """A damaged file is described in the layout in which its tensors made sense."""
    for layout, named in ((NATIVE, ""), (LONG_4, r" \(read as .* with a long of 4 bytes\)")):
        content = t7([np.ones(5, "f4"), "end"], layout)[:-2]
        with pytest.raises(FormatError, match=f"found a string of 3 bytes{named}, expected 0 to"):
            read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0\x03", r"the end of the file \(read as big-endian with a long of 8 bytes\)"),
        (b"3\n1\n1\n9\n", r"byte 6: found type id 9 \(read as text\), expected 0 to 8"),
        (b"1\n1.5", r"found b'1\.5' \(read as text\), expected a number"),
        (b"1\n1.5x\n", r"byte 2: found b'1\.5x\\n'"),
        (b"2\n3\nab", "a string of 3 bytes .*, expected 0 to the 2 that are left"),
        (b"2\n-1\nab", "a string of -1 bytes"),
        (b"3\n1\n2147483648\n", "byte 4: found 2147483648 .*, expected a number of 32 bits"),
        (b"4\n1\n18\ntorch.FloatStorage\n-1\n", "a storage of -1 numbers"),
        (b"4\n1\n18\ntorch.FloatStorage\n2\n1 2", "a line of 3 bytes .*, expected 2 numbers and"),
        (b"4\n1\n18\ntorch.FloatStorage\n9\n1 2\n", "a line of 3 bytes .*, expected 9 numbers"),
        (b"4\n1\n17\ntorch.ByteStorage\n9\n1 2\n", "a storage of 9 bytes .*, expected 0 to the 4"),
        (b"4\r\n1\r\n", "byte 0: found bytes 34 0d 0a 31 0d 0a, expected a .t7"),
    ],
)
def test_lies_in_rare_layouts_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    """Text and big-endian files are checked as native ones are."""
    with pytest.raises(FormatError, match=message):
        read(tmp_path, content)


def test_text_of_numbers_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    """A word among the numbers of a storage is an error for whoever wants them, and nobody else."""
    content = t7({"bad": np.ones(3, "f4"), "good": np.ones(2, "f4")}, TEXT)
    found = read(tmp_path, content.replace(b"1 1 1", b"1 x 1"))
    assert found["good"].array().tolist() == [1, 1]
    assert found["good"].array().base is found["good"].storage.array()
    for _ in range(2):
        with pytest.raises(FormatError, match="found b'x'"):
            found["bad"].array()


def test_white_space_before_a_number_is_skipped(tmp_path: Path) -> None:
    """C's scanf takes any white space, and so does text that was laid out by hand."""
    assert dict(read(tmp_path, b"3\n 1\t1\n\n1 \n  2.5\n5\n1\n")) == {2.5: True}


def test_two_objects_are_written_since_version_2() -> None:
    """An older nn.DataParallelTable wrote its fields alone; the GPU list was a field.

    Source: torch/cunn DataParallelTable.lua, __read.
    """
    folder = golden("torch7/serialization")
    newer = reader.read(folder / "data_parallel_table.t7")
    assert (newer.version, newer.payload.array()) == (3, [1, 2])
    assert newer.payload is newer.fields["gpuAssignments"]
    older = reader.read(golden("torch7/layers/data_parallel_v1.t7"))
    (parallel,) = [
        one
        for one in walk(older)
        if isinstance(one, TorchObject) and one.class_name == "nn.DataParallelTable"
    ]
    assert (parallel.version, parallel.payload) == (1, None)
    assert parallel.fields["modules"].array()


def generator(long: str) -> bytes:
    """Return struct THGenerator of a machine whose long is `long`: seed, left, seeded, next, ..."""
    words = np.random.default_rng(1).integers(1, 2**32, 624, "u4")
    head = np.array([5489], long).tobytes() + np.array([397, 1], "i4").tobytes()
    tail = np.zeros(3, "f8").tobytes() + bytes(8)
    return head + np.array([227], long).tobytes() + words.astype(long).tobytes() + tail


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("long", ["<u8", ">u8", "<u4"])
def test_a_generator_is_as_long_as_its_machines_longs(
    tmp_path: Path, layout: Layout, long: str
) -> None:
    """The struct is written raw: its words, of 32 bits, show how many bytes a long had."""
    struct = generator(long)
    table = read(tmp_path, t7({"it": Raw("torch.Generator", struct), "after": 2.0}, layout))
    assert (table["it"].payload, table["after"]) == (struct, 2.0)


def test_a_cut_generator_is_an_error(tmp_path: Path) -> None:
    """A struct is whole or an error."""
    with pytest.raises(FormatError, match="a generator of 2,544 bytes, expected 0 to the 2,000"):
        read(tmp_path, t7(Raw("torch.Generator", generator("<u8")[:2000])))


def test_the_documents_example_is_a_file(tmp_path: Path) -> None:
    """What docs/formats.md spells out, in bytes and in text, is what it says."""
    blocks = (ROOT / "docs" / "formats.md").read_text().split("```\n")[1::2]
    shown = next(block for block in blocks if block.startswith("03 00"))
    content = bytes.fromhex("".join(line[:52] for line in shown.splitlines()))
    text = next(block for block in blocks if block.startswith("3\n")).encode()
    for found in (read(tmp_path, content), read(tmp_path, text)):
        assert found["w"].array().tolist() == [1, -2]
    assert content == t7({"w": np.array([1, -2], "f4")})
    assert text == t7({"w": np.array([1, -2], "f4")}, TEXT)
