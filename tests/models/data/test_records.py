"""RecordIO is held against files that MXNet 1.9.1 wrote, and damaged ones it met."""

import hashlib
import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from models.data.records import MAGIC_BYTES, RecordFile, RecordWriter, packed
from models.errors import FormatError
from tests.oracles import golden

FILES = (
    *("cifar_like", "gray", "headers", "multilabel", "multipart", "passthrough"),
    *("png_center_crop", "sample_256_q90", "sample_480_q90"),
)


def manifest(name: str) -> dict:
    path = golden("mxnet/recordio/manifest.json")
    return json.loads(path.read_text(encoding="utf-8"))[f"{name}.rec"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_every_record_is_what_mxnet_reads(name: str) -> None:
    """Keys, offsets, bytes, labels and numbers of every record are those of MXNet's reader."""
    wanted, file = manifest(name), RecordFile(golden(f"mxnet/recordio/{name}.rec"))
    assert file.keys is not None
    assert file.keys.tolist() == wanted["keys"]
    assert file.offsets.tolist() == wanted["offsets"]
    assert len(file) == len(wanted["records"])
    for index, one in enumerate(wanted["records"]):
        raw = file.raw(index)
        assert (len(raw), sha256(raw)) == (one["length"], one["sha256"])
        if "payload_sha256" in one:
            record = file.record(index)
            assert record.labels.tolist() == np.atleast_1d(one["label"]).tolist()
            assert file.labels(index).tolist() == record.labels.tolist()
            assert (record.key, record.key2) == (one["id"], one["id2"])
            assert sha256(record.payload) == one["payload_sha256"]


def test_records_of_several_parts_are_joined() -> None:
    """A payload that holds the magic number comes back whole."""
    file = RecordFile(golden("mxnet/recordio/multipart.rec"))
    with np.load(golden("mxnet/recordio/multipart.npz")) as payloads:
        wanted = [payloads[name].tobytes() for name in payloads.files]
    assert [file.raw(index) for index in range(len(file))] == wanted


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_equals_mxnets_file(name: str, tmp_path: Path) -> None:
    """Records written anew give the `.rec` and the `.idx` that MXNet wrote, byte for byte."""
    source = golden(f"mxnet/recordio/{name}.rec")
    file = RecordFile(source)
    assert file.keys is not None
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        for index, key in enumerate(file.keys):
            writer.write(int(key), file.raw(index))
    assert (tmp_path / "a.rec").read_bytes() == source.read_bytes()
    assert (tmp_path / "a.idx").read_bytes() == source.with_suffix(".idx").read_bytes()


@pytest.mark.parametrize("name", ["cifar_like", "multilabel"])
def test_headers_are_packed_as_mxnet_does(name: str) -> None:
    """A record packed from its labels, key and payload has MXNet's bytes."""
    file = RecordFile(golden(f"mxnet/recordio/{name}.rec"))
    for index in range(len(file)):
        one = file.record(index)
        assert packed(one.labels.tolist(), one.key, one.payload) == file.raw(index)


@pytest.mark.parametrize("case", ["part0of2", "part1of2", "part0of3", "part1of3", "part2of3"])
def test_parts_hold_the_records_that_mxnet_gives_them(case: str) -> None:
    """`num_parts` and `part_index` divide a file as MXNet's iterator does."""
    path = golden("mxnet/recordio/iter-manifest.json")
    entry = json.loads(path.read_text(encoding="utf-8"))[case]
    wanted = [label for batch in entry["batches"] for label in batch["labels"]]
    wanted = wanted[: len(wanted) - entry["batches"][-1]["pad"]]
    file = RecordFile(golden("mxnet/recordio/cifar_like.rec"))
    part = file.part(entry["options"]["num_parts"], entry["options"].get("part_index", 0))
    assert [file.labels(index)[0] for index in part] == wanted


def test_without_an_idx_the_lengths_lead(tmp_path: Path) -> None:
    """A lone `.rec` has the same records, and no keys."""
    source = golden("mxnet/recordio/cifar_like.rec")
    shutil.copy(source, tmp_path / "alone.rec")
    file = RecordFile(tmp_path / "alone.rec")
    assert file.keys is None
    assert file.offsets.tolist() == manifest("cifar_like")["offsets"]


def test_a_pickled_file_opens_itself_again() -> None:
    """A worker process that is not forked gets the same records, and no copy of the file."""
    file = RecordFile(golden("mxnet/recordio/cifar_like.rec"))
    blob = pickle.dumps(file)
    assert len(blob) < 5_000
    assert pickle.loads(blob).raw(7) == file.raw(7)


DAMAGED = [
    ("truncated-payload", 1, 1, "byte 2,624: found 192 bytes left in the file, expected 2,114"),
    ("truncated-header", 1, 1, "byte 2,624: found 5 bytes at the end of the file, expected a part"),
    ("wrong-magic", 2, 2, "byte 2,624: found 0xdeadbeef, expected the magic number 0xced7230a"),
    ("length-huge", 1, 2, "byte 0: found 5,240 bytes left in the file, expected 536,870,911 of a"),
    ("starts-with-middle", 0, 1, "byte 0: found a part of kind 2, expected 0 or 1"),
    ("start-without-end", 0, 1, "byte 0: found the end of the file, expected the record's next"),
    ("cflag7", 0, 1, "byte 0: found a part of kind 7, expected 0 or 1"),
]


@pytest.mark.parametrize(
    ("name", "readable", "damaged", "message"), DAMAGED, ids=[one[0] for one in DAMAGED]
)
def test_damage_is_named_or_counted(name: str, readable: int, damaged: int, message: str) -> None:
    """A damaged file is refused with its place; or the rest is read and the damage counted."""
    path = golden(f"mxnet/malformed/rec-{name}.rec")
    with pytest.raises(FormatError, match=message) as caught:
        RecordFile(path)
    assert str(path) in str(caught.value)
    file = RecordFile(path, damage="skip")
    assert len(file) == readable
    assert len(file.damage) == damaged
    assert all(file.record(index).payload for index in range(readable))


def test_many_damaged_places_are_counted(tmp_path: Path) -> None:
    """The message has the first places and says how many there are."""
    record = packed([1.0], 0, b"payload!")
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        for key in range(30):
            writer.write(key, record)
    data = bytearray((tmp_path / "a.rec").read_bytes())
    for at in range(0, len(data), 80):
        data[at] ^= 1
    (tmp_path / "a.rec").write_bytes(data)
    with pytest.raises(FormatError, match=r"15 damaged places, .* 80, .* and 6 more"):
        RecordFile(tmp_path / "a.rec")
    assert len(RecordFile(tmp_path / "a.rec", damage="skip")) == 15


def test_an_empty_file_has_no_records() -> None:
    """No bytes are no records, and no error."""
    assert len(RecordFile(golden("mxnet/malformed/rec-empty.rec"))) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short-header", "byte 0: found a record of 10 bytes, expected at least 24"),
        ("flag-too-big", "byte 0: found a record of 40 bytes, expected 4,024 for .* 1,000 labels"),
    ],
)
def test_a_record_that_is_no_image_is_refused_when_unpacked(name: str, message: str) -> None:
    """What is too short for its header or its labels is an error with its place."""
    file = RecordFile(golden(f"mxnet/malformed/rec-{name}.rec"))
    with pytest.raises(FormatError, match=message):
        file.record(0)
    with pytest.raises(FormatError, match=message):
        file.labels(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t0\n1\t9\n", "line 2: found offset 9, expected where a record begins"),
        ("0\t0\n1\n", "line 2: found '1', expected a key and an offset"),
        ("0\t0\n", "found 1 records, expected the 2 of the .rec"),
    ],
)
def test_an_idx_of_another_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """An index that does not fit its `.rec` is an error, not a shorter data set."""
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        for key in range(2):
            writer.write(key, packed([1.0], key, b""))
    (tmp_path / "a.idx").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        RecordFile(tmp_path / "a.rec")


def test_any_byte_changed_or_cut_gives_our_error_or_records(tmp_path: Path) -> None:
    """A damaged file is refused or read; nothing else is raised, and skipping always ends."""
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        for key in range(3):
            writer.write(key, packed([1.0, 2.0], key, b"some" + MAGIC_BYTES * key + b"more"))
    good, path = (tmp_path / "a.rec").read_bytes(), tmp_path / "b.rec"
    for at in range(len(good)):
        for bad in (good[:at], good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :]):
            path.write_bytes(bad)
            file = RecordFile(path, damage="skip")
            for index in range(len(file)):
                with suppress(FormatError):
                    file.record(index)


def test_a_record_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length has 29 bits; a longer record is not cut short in silence."""
    monkeypatch.setattr("models.data.records.MAX_LENGTH", 9)
    with (
        RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer,
        pytest.raises(FormatError, match="record 3: found 10 bytes, expected at most 9"),
    ):
        writer.write(3, bytes(10))
