"""Tests of relume/bulk/sources.py: every kind of source gives the same answers."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from models.errors import DataError
from relume.bulk.parts import Files
from relume.bulk.sources import digest, planned
from relume.bulk.tables import Columns
from tests.bulk_runs import (
    by_name,
    found,
    images,
    plain,
    rows,
    run,
    write_folder,
    write_rec,
    write_table,
    write_tar,
)

NONE = Columns(None, None)
COUNT = 23
FILES = images(COUNT)


def rec(path: Path) -> Path:
    return write_rec(path / "all.rec", FILES)


def rec_alone(path: Path) -> Path:
    rec(path).with_suffix(".idx").unlink()
    return path / "all.rec"


def tar(path: Path) -> Path:
    return write_tar(path / "all.tar", FILES)


def tgz(path: Path) -> Path:
    return write_tar(path / "all.tgz", FILES)


def table(path: Path) -> Path:
    return write_table(path / "all.parquet", {"label": [1] * COUNT, "image": [*FILES.values()]})


def hugging_face(path: Path) -> Path:
    structs = [{"bytes": content, "path": name} for name, content in FILES.items()]
    return write_table(path / "all.parquet", {"image": structs, "label": [1] * COUNT})


def paths(path: Path) -> Path:
    """Relative to the table, absolute, and as URLs."""
    write_folder(path / "elsewhere", FILES)
    full = [str(path / "elsewhere" / name) for name in FILES]
    near = [f"elsewhere/{name}" for name in FILES]
    mixed = [*near[:9], *full[9:15], *(f"file://{name}" for name in full[15:])]
    return write_table(path / "all.parquet", {"uri": mixed})


@pytest.mark.parametrize("write", [rec, rec_alone, tar, tgz, table, hugging_face, paths])
@pytest.mark.parametrize("part", [5, 1000])
def test_every_source_gives_the_same_answers(
    write: Callable[[Path], Path],
    part: int,
    model: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What an image is found to be does not depend on what it lies in; nor does the damaged one."""
    source = write(tmp_path)
    assert run(source, "--model", model, "-o", tmp_path / "out", "--part", part) == 1
    got = sorted(found(tmp_path / "out"), key=lambda line: _place(line["file"]))
    wanted = plain(capsys, folder, "--model", model)
    assert [line.get("predictions") for line in got] == [line.get("predictions") for line in wanted]
    assert got[3]["error"] == wanted[3]["error"]
    ids = [line["file"] for line in got]
    if source.suffix in (".rec", ".parquet"):
        assert ids == [f"{source}#{number}" for number in range(COUNT)]
    else:
        assert ids == [f"{source}/{name}" for name in FILES]


def _place(name: str) -> tuple[int, str]:
    number = name.rpartition("#")[2]
    return (int(number) if number.isdecimal() else 0, name)


def test_sources_can_be_mixed(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files first, then what holds images, in the order of the arguments; patterns are sorted."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.tar", "a.tar"):
        write_tar(tmp_path / name, dict(list(FILES.items())[:2]))
    rec(tmp_path)
    run("*.tar", "all.rec", "pictures/001.png", "--model", model, "-o", "out", "--part", 20)
    ids = [row["id"] for row in rows("out", "predictions")]
    tars = [f"{name}/{number}.png" for name in ("a.tar", "b.tar") for number in ("000", "001")]
    records = [f"all.rec#{number}" for number in range(COUNT) if number != 3]
    assert ids == ["pictures/001.png", *tars, *records]


def test_parts_are_the_same_in_every_process(folder: Path, tmp_path: Path) -> None:
    """The same files give the same digest; a new name, or another length, another one."""
    rec_alone(tmp_path)
    sources = [str(folder), str(tmp_path / "all.rec")]
    first = digest(planned(sources, 5, NONE))
    assert digest(planned(sources, 5, NONE)) == first
    assert digest(planned(sources, 6, NONE)) != first
    with (tmp_path / "all.rec").open("ab") as file:
        file.write(bytes(4))
    longer = digest(planned(sources, 5, NONE))
    (folder / "new.png").touch()
    assert len({first, longer, digest(planned(sources, 5, NONE))}) == 3


def test_any_file_name_has_an_id(model: Path, tmp_path: Path) -> None:
    """Bytes that are no text are written as text."""
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "a\udcff.png").write_bytes(FILES["000.png"])
    assert run(folder, "--model", model, "-o", tmp_path / "out") == 0
    assert rows(tmp_path / "out", "predictions")[0]["id"] == f"{folder}/a\\udcff.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pictures", "pictures/000.png"], r"would be classified twice: pictures/000\.png"),
        (["all.tar", "all.tar"], r"would be classified twice: all\.tar"),
        (["all.tar", "pictures/../all.tar"], r"classified twice: pictures/\.\./all\.tar"),
        (["all.tar", "file://CWD/all.tar"], r"classified twice: file:///.*/all\.tar"),
        (["pictures/000.png", "CWD/pictures/000.png"], r"twice: /.*/pictures/000\.png"),
        (["pictures", "link/001.png"], r"twice: link/001\.png"),
        (["empty"], r"empty: no image in it; of other files, name a pattern, such as '\*\.tar'"),
        (["none.rec"], r"none\.rec: no image in it"),
        (["missing.tar"], r"missing\.tar: no such file or folder, and no pattern of any"),
        (["pictures", "miss/", "no*.png"], r"miss/, no\*\.png: no such file or folder"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    arguments: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is classified twice, and nothing that was named is passed over."""
    monkeypatch.chdir(tmp_path)
    tar(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.rec").touch()
    (tmp_path / "link").symlink_to("pictures")
    with pytest.raises((DataError, FileNotFoundError), match=message):
        planned([one.replace("CWD", str(tmp_path)) for one in arguments], 5, NONE)


def test_a_missing_image_is_broken(model: Path, tmp_path: Path) -> None:
    """What a folder lists and has not got, as it is without `-o`."""
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "no.png").symlink_to("gone.png")
    assert run(folder, "--model", model, "-o", tmp_path / "out") == 1
    broken = [{"id": str(folder / "no.png"), "error": "No such file or directory"}]
    assert rows(tmp_path / "out", "broken") == broken


def test_files_are_cut_evenly(folder: Path) -> None:
    """The last part has what is left."""
    parts = planned([str(folder)], 10, NONE)
    assert [len(part.names) for part in parts if isinstance(part, Files)] == [10, 10, 3]


def test_names_add_up(model: Path, tmp_path: Path) -> None:
    """A tar may have a member twice; each is an image of its own."""
    write_tar(tmp_path / "twice.tar", {"a.png": FILES["000.png"]})
    with tarfile.open(tmp_path / "twice.tar", "a") as tar:
        tar.add(write_folder(tmp_path / "more", FILES) / "001.png", "a.png")
    run(tmp_path / "twice.tar", "--model", model, "-o", tmp_path / "out")
    assert by_name(found(tmp_path / "out")).keys() == {"a.png", "a.png#2"}
