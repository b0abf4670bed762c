"""Tests of what is damaged within tars, records and tables: a row of its own, never the end."""

import gzip
import io
import re
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.data.records import MAGIC_BYTES
from models.errors import DataError, FormatError
from relume.bulk.sources import planned
from relume.bulk.tables import Columns
from tests.bulk_runs import (
    found,
    images,
    rows,
    run,
    write_folder,
    write_rec,
    write_table,
    write_tar,
)

GOOD = {name: data for name, data in images(9).items() if name != "003.png"}
NONE = Columns(None, None)


def damaged(model: Path, source: Path, out: Path) -> tuple[list[str], list[str]]:
    """Return the ids of a run's images and the lines about its broken ones, without the path."""
    run(source, "--model", model, "-o", out, "--part", 3)
    ids = [row["id"].removeprefix(str(source)) for row in rows(out, "predictions")]
    return ids, [
        f"{row['id']}: {row['error']}".replace(str(source), "") for row in rows(out, "broken")
    ]


def cut(keep: int) -> Callable[[bytearray], bytearray]:
    return lambda data: data[:keep]


def flip(at: int, count: int = 8) -> Callable[[bytearray], bytearray]:
    def change(data: bytearray) -> bytearray:
        data[at : at + count] = bytes(255 - one for one in data[at : at + count])
        return data

    return change


# A member is 1,024 bytes: a header and a block, as is the text beside it.
@pytest.mark.parametrize(
    ("change", "good", "said"),
    [
        (cut(0), 0, [": damaged behind the member at byte 0 (empty header): nothing more"]),
        (flip(0), 0, [": damaged behind the member at byte 0 (bad checksum): nothing more"]),
        (
            cut(2 * 2048 + 520),
            2,
            [
                "/002.png: the tar ends within it (unexpected end of data)",
                ": damaged behind the member at byte 4,096 (unexpected end of data): nothing more",
            ],
        ),
        (cut(2 * 2048), 2, [": damaged behind the member at byte 3,072 (empty header): nothing"]),
        (cut(2 * 2048 + 9), 2, [": damaged behind the member at byte 3,072 (truncated header)"]),
        (flip(2 * 2048), 2, [": damaged behind the member at byte 3,072 (bad checksum)"]),
        (flip(2 * 2048 + 512), 7, ["/002.png: found "]),
    ],
    ids=["nothing", "no tar", "in a member", "between", "in a header", "a header", "an image"],
)
def test_a_damaged_tar(
    change: Callable[[bytearray], bytearray],
    good: int,
    said: list[str],
    model: Path,
    tmp_path: Path,
) -> None:
    """What lies before the damage is classified; a row says that there was more, and where."""
    source = write_tar(tmp_path / "a.tar", GOOD)
    source.write_bytes(change(bytearray(source.read_bytes())))
    ids, lines = damaged(model, source, tmp_path / "out")
    if good == 7:
        assert ids == [f"/{name}" for name in GOOD if name != "002.png"]
    else:
        assert ids == [f"/{name}" for name in list(GOOD)[:good]]
    assert len(lines) == len(said)
    assert all(line.startswith(begin) for line, begin in zip(lines, said, strict=True))


def test_a_damaged_compressed_tar(model: Path, tmp_path: Path) -> None:
    """A stream that ends early, or is none, is damage like any other."""
    source = write_tar(tmp_path / "a.tgz", GOOD)
    whole = gzip.decompress(source.read_bytes())
    source.write_bytes(gzip.compress(whole, 0)[: len(whole) // 3])
    ids, lines = damaged(model, source, tmp_path / "out")
    assert ids == [f"/{name}" for name in list(GOOD)[: len(ids)]]
    assert "damaged behind the member at byte " in lines[-1]


def test_a_giant_in_a_tar_is_refused_unread(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length is known before its bytes are."""
    monkeypatch.setattr("relume.bulk.tars.MAX_BYTES", 100)
    _, lines = damaged(
        model, write_tar(tmp_path / "a.tar", GOOD | {"b.png": bytes(101)}), tmp_path / "out"
    )
    assert lines[-1] == "/b.png: found 101 bytes, expected at most 100 of an image"


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "abc"},
        {"GNU.sparse.map": "0,9,5,9"},
        {"GNU.sparse.map": "0,-5,9,9"},
        {"GNU.sparse.map": f"0,{1 << 70}"},
        {"GNU.sparse.size": "abc"},
        {"GNU.sparse.realsize": "abc"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"size": "-600"},
        {"size": str(1 << 60)},
        {"size": str(1 << 70)},
        {"comment": "x" * (1 << 20)},
    ],
    ids=lambda headers: "-".join(f"{name}={value[:9]}" for name, value in headers.items()),
)
def test_a_header_that_means_nothing_is_damage(
    headers: dict[str, str], model: Path, tmp_path: Path
) -> None:
    """Numbers that are none, or impossible, end that tar with a row; nothing hangs."""
    source = tmp_path / "a.tar"
    with tarfile.open(source, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in list(GOOD.items())[:3]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.pax_headers = headers if name == "002.png" else {}
            tar.addfile(member, io.BytesIO(content))
    ids, lines = damaged(model, source, tmp_path / "out")
    assert ids == ["/000.png", "/001.png"]
    (line,) = lines
    assert re.match(r": damaged behind the member at byte [0-9,]+ \(.+\): nothing more", line), line


def test_what_is_no_image_is_not_read(model: Path, tmp_path: Path) -> None:
    """A little file may promise much: members of zeros cost no memory, and read like a file."""
    source = write_tar(tmp_path / "a.tgz", {f"{one}.jpg": bytes(1 << 26) for one in range(2)})
    write_folder(tmp_path / "b", {"0.jpg": bytes(1 << 26)})
    tracemalloc.start()
    try:
        _, lines = damaged(model, source, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = "found 67,108,864 bytes that begin with b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'"
    assert [line.startswith(f"/{number}.jpg: {said}") for number, line in enumerate(lines)]
    assert peak < 1 << 26  # tarfile inflates 10 kB at a time, up to a thousandfold
    _, alone = damaged(model, tmp_path / "b", tmp_path / "alone")
    assert alone == lines[:1]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_damaged_record(indexed: bool, model: Path, tmp_path: Path) -> None:
    """It is one broken image; the ones behind it are classified and keep their numbers."""
    source = write_rec(tmp_path / "a.rec", GOOD)
    offsets = [int(line.split()[1]) for line in source.with_suffix(".idx").read_text().splitlines()]
    source.write_bytes(flip(offsets[2], 4)(bytearray(source.read_bytes())))
    if not indexed:
        source.with_suffix(".idx").unlink()
    ids, lines = damaged(model, source, tmp_path / "out")
    assert ids == [f"#{number}" for number in range(len(GOOD)) if number != 2]
    (line,) = lines
    assert f"#2: : byte {offsets[2]:,}: found 0x" in line
    assert "expected the magic number 0xced7230a" in line


def test_a_truncated_record_file(model: Path, tmp_path: Path) -> None:
    """Every record that the index promises is in one of the tables."""
    source = write_rec(tmp_path / "a.rec", GOOD)
    source.write_bytes(source.read_bytes()[:-200])
    ids, lines = damaged(model, source, tmp_path / "out")
    assert len(ids) + len(lines) == len(GOOD)
    assert len(lines) >= 1


def test_a_record_that_the_index_leaves_out(model: Path, tmp_path: Path) -> None:
    """An image that nobody names is not passed over: the one before it says that there is more."""
    source = write_rec(tmp_path / "a.rec", GOOD)
    lines = source.with_suffix(".idx").read_text().splitlines(keepends=True)
    source.with_suffix(".idx").write_text("".join(lines[:3] + lines[4:]))
    ids, said = damaged(model, source, tmp_path / "out")
    assert ids == ["#0", "#1", "#3", "#4", "#5", "#6"]
    assert "bytes behind a record, expected the next record of the index" in said[0]


def test_an_index_that_is_none(tmp_path: Path) -> None:
    """Its line is named."""
    source = write_rec(tmp_path / "a.rec", GOOD)
    source.with_suffix(".idx").write_text("0\t0\nnonsense\n")
    with pytest.raises(FormatError, match=r"a\.idx: line 2: found 'nonsense', expected a key and"):
        planned([str(source)], 3, NONE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[2:], "its records: found a first record at byte 2.., expected one at"),
        (lambda lines: lines[:5], "found a last record that ends at byte [0-9]+, expected one tha"),
        (lambda _: [], "its records: found no record, expected one at byte 0; without the .idx"),
        (
            lambda lines: ["9\t-8\n", *lines],
            "found a first record at byte -8, expected one at byte",
        ),
        (lambda lines: lines[1:] + ["0\t4\n"], "found a first record at byte 4, expected one at b"),
    ],
    ids=["late", "cut", "empty", "negative", "within a record"],
)
@pytest.mark.parametrize("name", ["a.rec", "A.REC"])
def test_an_index_that_leaves_out_an_end(
    name: str,
    change: Callable[[list[str]], list[str]],
    said: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Images before its first record or behind its last would be lost; nothing is done at all."""
    source = write_rec(tmp_path / name, GOOD)
    index = source.with_suffix(".idx")
    index.write_text("".join(change(index.read_text().splitlines(keepends=True))))
    assert run(source, "--model", model, "-o", tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert re.search(said, message), message
    assert f"error: {index}: " in message
    assert not (tmp_path / "out").exists()


def test_an_index_of_any_order_and_parts_of_a_record(tmp_path: Path) -> None:
    """Its last line need not be the last record, which may be of several parts."""
    source = write_rec(tmp_path / "a.rec", GOOD | {"z.png": MAGIC_BYTES * 3 + b"1"})
    index = source.with_suffix(".idx")
    index.write_text("".join(reversed(index.read_text().splitlines(keepends=True))))
    (part,) = planned([str(source)], 99, NONE)
    assert [image.read() for image in part.images()][-1] == MAGIC_BYTES * 3 + b"1"


# --- tables ---------------------------------------------------------------------------------------


def test_nulls_are_broken(model: Path, tmp_path: Path) -> None:
    """An image that is null, and one whose name is."""
    names, data = list(GOOD)[:4], list(GOOD.values())[:4]
    columns = {"image": [data[0], None, data[2], data[3]], "key": [names[0], names[1], None, "x"]}
    source = write_table(tmp_path / "a.parquet", columns)
    run(source, "--model", model, "-o", out := tmp_path / "out", "--id-column", "key")
    assert [row["id"] for row in rows(out, "predictions")] == ["000.png", "x"]
    assert rows(out, "broken") == [
        {"id": "001.png", "error": "found null in the column image"},
        {"id": f"{source}#2", "error": "found null in the column key"},
    ]


def test_text_that_is_none_is_broken(model: Path, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 in a column of text: an image's path, and its name."""
    write_folder(tmp_path / "some", GOOD)
    path, bad = b"some/000.png", b"\xff\xfe.png"
    columns = {"path": [path, bad, path, path], "key": [b"a", b"b", bad, b"d"]}
    text = {name: pa.array(cells, pa.binary()).view(pa.string()) for name, cells in columns.items()}
    source = write_table(tmp_path / "a.parquet", text)
    flags = ("--column", "path", "--id-column", "key")
    assert run(source, "--model", model, "-o", out := tmp_path / "out", *flags) == 1
    assert [row["id"] for row in rows(out, "predictions")] == ["a", "d"]
    assert rows(out, "broken") == [
        {"id": "b", "error": "found text that is not UTF-8 in the column path"},
        {"id": f"{source}#2", "error": "found text that is not UTF-8 in the column key"},
    ]


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """Nobody can say which of them counts."""
    table = pa.table([[b""], [b""]], names=["image", "image"])
    pq.write_table(table, source := tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"a\.parquet: found columns of the same name, .*: image \(b"
    ):
        planned([str(source)], 3, NONE)


def test_numbers_are_names(model: Path, tmp_path: Path) -> None:
    """Whole numbers are ids as well as text is."""
    source = write_table(tmp_path / "a.parquet", {"image": [*GOOD.values()], "key": range(8)})
    run(source, "--model", model, "-o", tmp_path / "out", "--id-column", "key")
    assert [row["id"] for row in rows(tmp_path / "out", "predictions")] == [*"01234567"]


def test_bytes_are_taken_by_row_groups(tmp_path: Path) -> None:
    """A part of bytes ends with a row group, one of paths anywhere."""
    data = write_table(tmp_path / "a.parquet", {"image": [b""] * 20}, group=4)
    names = write_table(tmp_path / "b.parquet", {"uri": ["x"] * 20}, group=4)
    bounds = [(part.begin, part.end) for part in planned([str(data)], 6, NONE)]  # type: ignore[attr-defined]
    assert bounds == [(0, 8), (8, 16), (16, 20)]
    bounds = [(part.begin, part.end) for part in planned([str(names)], 6, NONE)]  # type: ignore[attr-defined]
    assert bounds == [(0, 6), (6, 12), (12, 18), (18, 20)]


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        ({"label": [1]}, NONE, r"a\.parquet: --column must say which one .* label \(int64\)"),
        ({"a": [b""], "b": [b""]}, NONE, r"--column must say which one .* a \(binary\), b \(bin"),
        ({"a": [""], "b": [""]}, NONE, "--column must say which one"),
        ({"a": [b""]}, Columns("b", None), r"no column b of bytes or of text for --column; it has"),
        ({"a": [1]}, Columns("a", None), "no column a of bytes or of text for --column"),
        ({"a": [b""]}, Columns(None, "b"), "no column b of text or of whole numbers for --id-col"),
        ({"a": [b""]}, Columns(None, "a"), "no column a of text or of whole numbers for --id-col"),
    ],
)
def test_columns_must_be_clear(
    columns: dict[str, list[object]], given: Columns, message: str, tmp_path: Path
) -> None:
    """What cannot be told is asked, with what there is."""
    source = write_table(tmp_path / "a.parquet", columns)
    with pytest.raises(DataError, match=message):
        planned([str(source)], 3, given)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"nonsense" * 99])
def test_no_parquet_is_refused(content: bytes, tmp_path: Path) -> None:
    """A file that is none ends the run before it begins."""
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.parquet: its end: found a damaged file \("):
        planned([str(tmp_path / "a.parquet")], 3, NONE)


def test_a_column_without_a_name_is_damage(tmp_path: Path) -> None:
    """A name that is no UTF-8 is refused before the run begins, as any other damage is."""
    source = write_table(tmp_path / "a.parquet", {"image": [b""]})
    source.write_bytes(source.read_bytes().replace(b"image", b"\xffmage"))
    with pytest.raises(FormatError, match=r"a\.parquet: its end: found a damaged file \(.*utf-8"):
        planned([str(source)], 3, NONE)


def test_damaged_pages_are_broken_rows(model: Path, tmp_path: Path) -> None:
    """Rows that cannot be read are broken, each by its number; the others are classified."""
    source = write_table(tmp_path / "a.parquet", {"image": [*GOOD.values()]}, group=4)
    group = pq.ParquetFile(source).metadata.row_group(1).column(0)
    begin = group.dictionary_page_offset or group.data_page_offset
    source.write_bytes(flip(begin, 16)(bytearray(source.read_bytes())))
    ids, lines = damaged(model, source, tmp_path / "out")
    assert ids == ["#0", "#1", "#2", "#3"]
    assert [line.partition(":")[0] for line in lines] == ["#4", "#5", "#6", "#7"]
    assert all(": damaged from row 4 on (" in line for line in lines)


def test_paths_that_lead_nowhere_are_broken(model: Path, tmp_path: Path) -> None:
    """A dead path is like a missing file."""
    write_folder(tmp_path / "some", GOOD)
    source = write_table(tmp_path / "a.parquet", {"path": ["some/000.png", "some/no.png"]})
    run(source, "--model", model, "-o", tmp_path / "out", "--id-column", "path")
    assert [line["file"] for line in found(tmp_path / "out")] == ["some/000.png", "some/no.png"]
    assert rows(tmp_path / "out", "broken")[0]["error"] == "No such file or directory"
