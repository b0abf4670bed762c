"""Tests of relume/bulk/places.py and folder.py: stores, and what keeps us from them."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from models.errors import DataError, DeviceError, ImageError
from relume.bulk.folder import result_folder
from relume.bulk.places import exists, image_bytes, named_by, opened, size, store_of
from relume.bulk.recordio import parts_of
from relume.bulk.tables import place_of
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

FILES = images(9)


class Moody(MemoryFileSystem):  # type: ignore[misc]
    """A store that breaks off in the middle of what is called `moody`, as a network does."""

    protocol = "moody"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("moody://", "memory://"))
        return stripped

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        file = super()._open(path, mode, **more)
        if "moody" in path and mode == "rb":
            file.read = _break_off
        return file


def _break_off(_: int = -1) -> bytes:
    raise RuntimeError("connection\n reset")


fsspec.register_implementation("moody", Moody)


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    """Return a store in memory that is empty before and after."""
    store = fsspec.filesystem("memory")
    store.rm("/", recursive=True) if store.ls("/") else None
    yield store
    for name in store.ls("/", detail=False):
        store.rm(name, recursive=True)


def copy(store: MemoryFileSystem, source: Path, target: str) -> None:
    store.pipe_file(f"/bucket/{target}", source.read_bytes())


@pytest.fixture
def bucket(store: MemoryFileSystem, tmp_path: Path) -> str:
    """Return a bucket with every kind of source, each with the same images."""
    for name, content in FILES.items():
        store.pipe_file(f"/bucket/folder/deep/{name}", content)
    store.pipe_file("/bucket/folder/notes.txt", b"")
    copy(store, rec := write_rec(tmp_path / "a.rec", FILES), "a.rec")
    copy(store, rec.with_suffix(".idx"), "a.idx")
    copy(store, write_tar(tmp_path / "a.tar", FILES), "a.tar")
    table = write_table(tmp_path / "a.parquet", {"image": [*FILES.values()]})
    copy(store, table, "tables/a.parquet")
    uris = {"uri": [f"memory://bucket/folder/deep/{name}" for name in FILES]}
    copy(store, write_table(tmp_path / "b.parquet", uris), "tables/b.parquet")
    return "memory://bucket"


@pytest.mark.parametrize(
    "name", ["folder", "folder/**/*.png", "a.rec", "a.tar", "tables/a.parquet", "tables/b.parquet"]
)
def test_a_store_is_read_and_written(
    name: str, bucket: str, model: Path, store: MemoryFileSystem, tmp_path: Path
) -> None:
    """Sources of every kind come out of a store, and tables go into it, as on a disk."""
    arguments = (f"{bucket}/{name}", "--model", model, "--part", 4)
    assert run(*arguments, "-o", "memory://results/run") == 1
    assert run(*arguments, "-o", tmp_path / "out") == 1
    store.get("/results/run", str(tmp_path / "got"), recursive=True)
    assert found(tmp_path / "got") == found(tmp_path / "out")
    assert len(found(tmp_path / "got")) == len(FILES)
    assert run(*arguments, "-o", "memory://results/run") == 0


def test_ids_are_urls(bucket: str, model: Path, tmp_path: Path) -> None:
    """An image of a store is called by what fetches it."""
    run(f"{bucket}/folder", f"{bucket}/a.tar", "--model", model, "-o", tmp_path / "out")
    ids = [row["id"] for row in rows(tmp_path / "out", "predictions")]
    good = [name for name in FILES if name != "003.png"]
    folder = [f"memory:///bucket/folder/deep/{name}" for name in good]
    assert ids == [*folder, *(f"{bucket}/a.tar/{name}" for name in good)]


def test_a_url_of_this_machine_is_its_path(model: Path, folder: Path, tmp_path: Path) -> None:
    """`file://` names a folder of results, too."""
    out = tmp_path / "out"
    run(f"file://{folder}", "--model", model, "-o", f"file://{out}")
    assert {line["file"].rpartition("/")[0] for line in found(out)} == {f"file://{folder}"}


def test_records_elsewhere_need_their_index(store: MemoryFileSystem) -> None:
    """Nobody fetches a whole file to find out where its records are."""
    store.pipe_file("/bucket/alone.rec", b"")
    with pytest.raises(DataError, match=r"alone\.rec: has no memory://bucket/alone\.idx, without"):
        list(parts_of("memory://bucket/alone.rec", 5))


@pytest.mark.parametrize("name", ["moody.png", "moody.tar", "moody.rec", "moody.parquet"])
def test_a_store_that_breaks_off_ends_the_run(
    name: str,
    bucket: str,
    model: Path,
    store: MemoryFileSystem,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the network did is no image's fault: one line, and nothing is written as broken."""
    store.pipe_file(f"/bucket/{name}", store.cat_file("/bucket/a.rec"))
    store.pipe_file("/bucket/moody.idx", b"0\t0\n")
    source = f"moody://bucket/{name}"
    assert run(source, "--model", model, "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    what = "idx" if name.endswith("rec") else name.partition(".")[2]
    assert said == (
        f"error: moody://bucket/moody.{what}: cannot be reached (connection reset); "
        "what is finished is kept, so run it again (relume explain data-error)"
    )
    assert not (tmp_path / "out" / "predictions").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket/a.png", "nosuch://bucket/a.png: Protocol not known: nosuch"),
        ("nosuch://bucket/a.tar", "nosuch://bucket/a.tar: Protocol not known: nosuch"),
    ],
)
def test_an_unknown_store_is_refused(
    url: str, message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a source, and as the folder of results."""
    assert run(url, "--model", model, "-o", tmp_path / "out") == 1
    assert message in capsys.readouterr().err
    (tmp_path / "a.png").touch()
    assert run(tmp_path / "a.png", "--model", model, "-o", url) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("ask", [opened, size])
def test_a_missing_file_of_a_store_is_named(ask: Any, store: MemoryFileSystem) -> None:
    """As the system names one of its own."""
    with pytest.raises(FileNotFoundError, match="No such file .*: 'memory://bucket/no.tar'"):
        ask("memory://bucket/no.tar")
    assert not exists("memory://bucket/no.tar")
    assert named_by("memory://bucket/no.tar") == ["memory://bucket/no.tar"]


def test_a_giant_of_a_store_is_refused(
    bucket: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than an image's bytes are fetched."""
    monkeypatch.setattr("relume.bulk.places.MAX_BYTES", 20)
    run(f"{bucket}/folder/deep/000.png", "--model", model, "-o", tmp_path / "out")
    assert rows(tmp_path / "out", "broken")[0]["error"].startswith("found more than 20 bytes")


# --- the web --------------------------------------------------------------------------------------


class _Web(BaseHTTPRequestHandler):
    late = 0  # answers of 503 before one that is better

    def do_GET(self) -> None:
        """Answer with the status that the path names; 200 has a picture."""
        status = int(self.path[1:4])
        if self.path.endswith("late.png") and type(self).late:
            type(self).late -= 1
            status = 503
        self.send_response(status)
        content = FILES["000.png"] if status == 200 else b""
        if status == 302:
            self.send_header("Location", self.path)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a web server that is asked again without a pause."""
    monkeypatch.setattr("relume.bulk.places.PAUSES_S", (0.0, 0.0, 0.0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_dead_link_is_a_broken_image(web: str, model: Path, tmp_path: Path) -> None:
    """Of a table of links some are always dead, which ends nothing."""
    bad = [f"{web}/404.png", f"{web}/403.png", f"{web}/410.png", f"{web}/302.png", "http://[/a.png"]
    links = [f"{web}/200.png", *bad]
    table = write_table(tmp_path / "links.parquet", {"url": links})
    run(table, "--model", model, "-o", out := tmp_path / "out", "--id-column", "url")
    assert [row["id"] for row in rows(out, "predictions")] == links[:1]
    errors = {row["id"]: row["error"] for row in rows(out, "broken")}
    assert list(errors) == bad
    assert errors[bad[0]].startswith(f"{bad[0]}: cannot be fetched (404")
    assert errors[bad[1]].startswith(f"{bad[1]}: cannot be fetched (403")
    assert all(error.startswith(f"{url}: cannot be fetched (") for url, error in errors.items())


@pytest.mark.parametrize("where", ["408", "425", "429", "500", "503", "nobody", "no.invalid"])
def test_a_web_that_cannot_be_had_ends_the_run(
    where: str, web: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What may be this machine, or for now, makes no image broken for good."""
    elsewhere = {"nobody": "http://127.0.0.1:9/a.png", "no.invalid": "http://no.invalid/a.png"}
    link = elsewhere.get(where, f"{web}/{where}.png")
    table = write_table(tmp_path / "links.parquet", {"url": [f"{web}/200.png", link]})
    assert run(table, "--model", model, "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {link}: cannot be reached (")
    assert "what is finished is kept, so run it again, or with --skip-unreachable, which" in said
    assert not (tmp_path / "out" / "broken").exists()


def test_an_image_that_cannot_be_had_may_be_skipped(
    web: str, bucket: str, store: MemoryFileSystem, model: Path, tmp_path: Path
) -> None:
    """Of many links some lead to servers that are gone for good, and a run must come to an end."""
    store.pipe_file("/bucket/moody.png", b"")
    gone = [f"{web}/503.png", "http://127.0.0.1:9/a.png", "http://no.invalid/a.png"]
    links = [f"{web}/200.png", *gone]
    table = write_table(tmp_path / "links.parquet", {"url": links})
    sources = (table, "moody://bucket/moody.png")
    out, flags = tmp_path / "out", ("--id-column", "url", "--skip-unreachable")
    assert run(*sources, "--model", model, "-o", out, *flags) == 1
    assert [row["id"] for row in rows(out, "predictions")] == links[:1]
    errors = {row["id"]: row["error"] for row in rows(out, "broken")}
    assert set(errors) == {*gone, sources[1]}
    assert errors[gone[0]].startswith(f"{gone[0]}: cannot be reached (503")
    assert errors[sources[1]] == f"{sources[1]}: cannot be reached (connection reset)"


def test_a_table_that_cannot_be_had_is_not_skipped(
    store: MemoryFileSystem, bucket: str, model: Path, tmp_path: Path
) -> None:
    """What is in it is not known."""
    store.pipe_file("/bucket/moody.tar", store.cat_file("/bucket/a.tar"))
    arguments = ("moody://bucket/moody.tar", "--model", model, "-o", tmp_path / "out")
    assert run(*arguments, "--skip-unreachable") == 1
    assert not (tmp_path / "out" / "broken").exists()


def test_a_late_web_is_asked_again(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is busy for a moment costs a moment."""
    monkeypatch.setattr(_Web, "late", 4)  # the question for the size, and that for its beginning
    assert image_bytes(f"{web}/200-late.png") == FILES["000.png"]
    assert _Web.late == 0


def test_a_missing_package_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said which one, and no image is broken for it."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(DeviceError, match=r"aiohttp.*: pip install 'relume\[parquet\]'"):
        image_bytes("http://127.0.0.1:9/a.png")


# --- what tables may name -------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [store_of, opened, size, exists, named_by, result_folder])
def test_chained_stores_are_refused(ask: Any) -> None:
    """Some of fsspec's drivers run what a file says."""
    with pytest.raises(DataError, match=r"a\.jpg::file:///x\.json: found '::', expected the URL"):
        ask("reference://a.jpg::file:///x.json")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("reference://a.jpg::file:///x.json", "found reference://, expected a path or http://, "),
        ("http://a/b::file:///x.json", "found '::', expected the URL of one store"),
        ("nosuch://x", "found nosuch://, expected a path or http://, https://, s3://, gs://, "),
        ("memory://a.png", "found memory://, expected"),
        ("s3://", "found s3://, which names no file"),
        ("file:///", "found file:///, which names no file"),
        ("file:///tmp", "found a folder without .bmp"),
        ("/tmp", "found a folder without .bmp"),
        ("a\0.png", "found what cannot be a path (embedded null byte)"),
        ("file:///a\0.png", "found what cannot be a path (embedded null byte)"),
    ],
)
def test_a_row_of_elsewhere_is_broken(
    value: str, message: str, model: Path, tmp_path: Path
) -> None:
    """It ends nothing, and no other driver than those of files, stores and the web is asked."""
    write_folder(tmp_path / "some", FILES)
    table = write_table(tmp_path / "a.parquet", {"uri": [value, "some/000.png"]})
    assert run(table, "--model", model, "-o", out := tmp_path / "out") == 1
    assert [row["id"] for row in rows(out, "predictions")] == [f"{table}#1"]
    (row,) = rows(out, "broken")
    assert row["id"] == f"{table}#0"
    assert message in row["error"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/etc/hostname", "found a path of this machine in a table that is elsewhere"),
        ("file:///etc/hostname", "found file://, expected a path or http://"),
        ("a::b.png", "found '::', expected the URL of one store"),
    ],
)
def test_a_table_of_elsewhere_names_no_file_of_this_machine(value: str, message: str) -> None:
    """Whoever wrote it cannot know them; its own store it may name."""
    with pytest.raises(ImageError, match=message):
        place_of(value, "memory://bucket/a.parquet")
    for own in ("deep/a.png", "memory://bucket/deep/a.png"):
        assert place_of(own, "memory://bucket/a.parquet") == "memory://bucket/deep/a.png"


def test_a_folder_of_a_store_is_named(tmp_path: Path) -> None:
    """As the system names one of its own."""
    with pytest.raises(IsADirectoryError, match="Is a directory: 'file://"):
        opened(f"file://{tmp_path}").read()


# --- the folder of results ------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["here", "memory://results"])
def test_a_file_is_created_once(
    where: str, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second finds what the first one wrote; writing puts another in its place."""
    monkeypatch.chdir(tmp_path)
    folder = result_folder(where)
    assert folder.names() == set()
    assert folder.names("inside") == set()
    assert folder.read("a") is None
    folder.create("a", b"first")
    folder.create("a", b"second")
    assert folder.read("a") == b"first"
    folder.write("inside/b", b"1")
    folder.write("inside/b", b"2")
    assert folder.read("inside/b") == b"2"
    assert folder.exists("inside/b")
    assert folder.names() == {"a", "inside"}
    assert folder.names("inside") == {"b"}


def test_a_file_system_without_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the file is created by its name."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("relume.bulk.folder.os.link", refuse)
    folder = result_folder(str(tmp_path / "out"))
    folder.create("a", b"first")
    assert folder.read("a") == b"first"
    assert folder.names() == {"a"}
