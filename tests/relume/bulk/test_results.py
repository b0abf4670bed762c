"""Tests of relume/bulk/results.py: a part's two tables agree, whoever writes them at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models.errors import DataError
from models.postprocess import Prediction
from relume.bulk.folder import Folder, _Local
from relume.bulk.results import file_name, finished, settled, write
from relume.classifier import Result
from tests.bulk_runs import rows

NAME = file_name(0, 1)
GOOD = [Prediction(0, None, "red", 1.0)]
ONE = [Result("a", GOOD, None), Result("b", [], "no b")]
OTHER = [Result("a", [], "no a"), Result("b", GOOD, None)]


class Killed(BaseException):
    """What ends a process."""


def meet(patch: pytest.MonkeyPatch, at: int, then: Callable[[], None]) -> None:
    """Let something happen once, before or after a writer puts a file in place."""
    calls = iter(range(100))

    def meeting(original: Callable[..., object]) -> Callable[..., object]:
        def put(*arguments: object) -> object:
            if next(calls) == at:
                then()
            put = original(*arguments)
            if next(calls) == at:
                then()
            return put

        return put

    for method in ("create", "write"):
        patch.setattr(_Local, method, meeting(getattr(_Local, method)))


def ids(out: Path) -> list[str]:
    return sorted(row["id"] for table in ("predictions", "broken") for row in rows(out, table))


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("at", range(4))
def test_two_writers_of_different_results_agree(
    at: int, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image is in one of the tables, wherever another overtakes the first, which may die."""
    folder = _Local(tmp_path)

    def overtake() -> None:
        write(folder, NAME, OTHER, "00")
        if ends:
            raise Killed

    with monkeypatch.context() as patch:
        meet(patch, at, overtake)
        if ends:
            with pytest.raises(Killed):
                write(folder, NAME, ONE, "00")
        else:
            write(folder, NAME, ONE, "00")
    assert ids(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("at", range(1, 4))
def test_a_writer_that_dies_decides_all_the_same(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its predictions stay, and say which images it found broken."""
    folder = _Local(tmp_path)

    def end() -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        meet(patch, at, end)
        write(folder, NAME, ONE, "00")
    assert finished(folder, 1) == ({0} if at == 3 else set())
    write(folder, NAME, OTHER, "00")
    assert finished(folder, 1) == {0}
    assert rows(tmp_path, "broken") == [{"id": "b", "error": "no b"}]
    assert ids(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"nonsense" * 9])
def test_damaged_predictions_are_no_part(content: bytes, tmp_path: Path) -> None:
    """As where there are no links, and who wrote them was killed."""
    folder: Folder = _Local(tmp_path)
    folder.create(f"predictions/{NAME}", content)
    with pytest.raises(DataError, match=r"predictions/part-0.*: damaged; remove it, and run it ag"):
        settled(folder, NAME)


def test_without_links_one_creates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that create a file one is told that it did, and its content stays."""

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    folder = _Local(tmp_path)
    assert folder.create("a", b"first")
    assert not folder.create("a", b"second")
    assert folder.read("a") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
