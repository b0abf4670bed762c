"""Tests of relume/bulk/run.py: the tables say what is printed otherwise, whoever does the parts."""

import json
import os
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from relume.bulk import results, worker
from relume.bulk.folder import _Local
from tests.bulk_runs import found, plain, rows, run


@pytest.mark.parametrize("part", [1, 5, 23, 1000])
def test_the_tables_say_what_is_printed(
    part: int, model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids, classes and probabilities are those of `--format jsonl`, to the last bit."""
    assert run(folder, "--model", model, "-o", tmp_path / "out", "--part", part, "--top", 3) == 1
    printed = plain(capsys, folder, "--model", model, "--top", 3)
    assert found(tmp_path / "out") == sorted(printed, key=lambda line: "error" in line)


def test_every_table_has_its_columns(model: Path, folder: Path, tmp_path: Path) -> None:
    """A part without broken images has an empty table of them, with the same columns."""
    run(folder, "--model", model, "-o", out := tmp_path / "out", "--part", 5)
    names = [f"part-{number:05}-of-00005.parquet" for number in range(5)]
    predictions = ["id", "index", "wnid", "label", "probability", "model_sha256"]
    for table, columns in (("predictions", predictions), ("broken", ["id", "error"])):
        assert sorted(path.name for path in (out / table).iterdir()) == names
        schemas = [pq.read_schema(path) for path in (out / table).iterdir()]
        assert all(schema == schemas[0] for schema in schemas)
        assert schemas[0].names == columns
    digest = sha256(model.read_bytes()).hexdigest()
    assert {row["model_sha256"] for row in rows(out, "predictions")} == {digest}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_add_up_to_the_whole(count: int, model: Path, folder: Path, tmp_path: Path) -> None:
    """Whatever their number and order, shards write the same files as one run."""
    run(folder, "--model", model, "-o", whole := tmp_path / "whole", "--part", 4)
    shared = tmp_path / "shared"
    for index in reversed(range(count)):
        run(folder, "--model", model, "-o", shared, "--part", 4, "--shard", f"{index}/{count}")
    assert contents(shared) == contents(whole)


def test_good_images_end_with_0(model: Path, folder: Path, tmp_path: Path) -> None:
    """The status is that of the images; a run that finds all done has none that are broken."""
    arguments = (folder, "--model", model, "-o", tmp_path / "out", "--part", 1)
    assert run(*arguments, "--shard", "0/2") == 0
    assert run(*arguments, "--shard", "1/2") == 1
    assert run(*arguments) == 0


def test_the_end_is_an_object(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` prints one line, for programs; for people the same is on stderr."""
    arguments = (folder, "--model", model, "-o", tmp_path / "out", "--part", 5, "--json")
    run(*arguments, "--shard", "0/2")
    first = capsys.readouterr()
    said = json.loads(first.out)
    del said["seconds"], said["model_sha256"]
    assert said == {
        **{"out": str(tmp_path / "out"), "parts": 5, "shard": "0/2", "done": 3, "skipped": 0},
        **{"images": 13, "broken": 1},
    }
    assert "3 of 3 parts, 13 images, 1 broken, " in first.err
    assert f"error: 1 could not be classified: see {tmp_path / 'out'}/broken\n" in first.err
    run(*arguments)
    second = capsys.readouterr()
    assert json.loads(second.out)["skipped"] == 3
    assert "5 of 5 parts (3 before), 10 images, 0 broken, " in second.err
    run(*arguments)
    third = capsys.readouterr().err
    assert (
        third
        == f"{tmp_path / 'out'}: nothing left to do: 5 parts were done before; see broken/ too\n"
    )


def test_a_run_that_is_done_opens_nothing(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the network nor an image is read again."""
    run(folder, "--model", model, "-o", tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr(worker, "open_network", None)
    assert run(folder, "--model", model, "-o", tmp_path / "out") == 0
    assert contents(tmp_path / "out") == before


class Killed(BaseException):
    """What ends a process; nothing in it catches this."""


def at_prediction(count: int) -> Callable[..., object]:
    """Return a `top_k` that ends the process at an image, in the middle of a part."""
    left = iter(range(count))
    original = worker.classify

    def classify(*arguments: object) -> object:
        for result in original(*arguments):  # type: ignore[arg-type]
            if next(left, None) is None:
                raise Killed
            yield result

    return classify


def end_at_file(patch: pytest.MonkeyPatch, count: int, when: str) -> None:
    """End the process before or after a file of a part is in place."""
    left = iter(range(count))

    def ending(original: Callable[..., object]) -> Callable[..., object]:
        def put(self: object, name: str, content: bytes) -> object:
            if when == "before" and name != "run.json" and next(left, None) is None:
                raise Killed
            put = original(self, name, content)
            if when == "after" and name != "run.json" and next(left, None) is None:
                raise Killed
            return put

        return put

    for method in ("create", "write"):
        patch.setattr(_Local, method, ending(getattr(_Local, method)))


@pytest.mark.parametrize("at", ["image", "before", "after"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_a_run_goes_on_where_it_was_killed(
    at: str,
    count: int,
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a part, between its two files, before or after either: nothing is lost or twice."""
    run(folder, "--model", model, "-o", whole := tmp_path / "whole", "--part", 4)
    arguments = (folder, "--model", model, "-o", tmp_path / "out", "--part", 4)
    with monkeypatch.context() as patch:
        if at == "image":
            patch.setattr(worker, "classify", at_prediction(count))
        else:
            end_at_file(patch, count, at)
        with pytest.raises(Killed):
            run(*arguments)
    done = len(list((tmp_path / "out" / "predictions").glob("*")))
    assert done == {"image": count // 4, "before": (count + 1) // 2, "after": count // 2 + 1}[at]
    run(*arguments)
    assert contents(tmp_path / "out") == contents(whole)


def test_a_part_that_another_process_finished_is_left(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes late to a part sees that before it begins, not only when it starts."""
    run(folder, "--model", model, "-o", out := tmp_path / "out", "--part", 4)
    monkeypatch.setattr(results, "finished", lambda *_: set())
    monkeypatch.setattr(worker, "classify", None)
    assert run(folder, "--model", model, "-o", out, "--part", 4) == 0


@pytest.mark.parametrize(("table", "call"), [("predictions", "fsync"), ("broken", "replace")])
def test_a_full_disk_is_one_line(
    table: str,
    call: str,
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The system's refusal names the file, leaves no half of one, and can be repeated."""
    arguments = (folder, "--model", model, "-o", tmp_path / "out")
    run(*arguments, "--shard", "1/2")  # writes what the run is, and has no part

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        assert run(*arguments) == 1
    said = f"{tmp_path / 'out' / table}/part-00000-of-00001.parquet: No space left on device"
    assert said in capsys.readouterr().err
    assert not [*(tmp_path / "out" / table).iterdir()]
    assert run(*arguments) == (table == "predictions")
    assert len(found(tmp_path / "out")) == 23


@pytest.mark.parametrize(
    ("package", "flags", "advice"),
    [
        ("pyarrow.parquet", (), "pip install 'relume[parquet]'"),
        ("fsspec", (), "pip install 'relume[parquet]'"),
        ("ray.data", ("--engine", "ray"), "pip install 'relume[ray]'"),
    ],
)
def test_a_missing_package_is_explained(
    package: str,
    flags: tuple[str, ...],
    advice: str,
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line says which extra brings it."""
    monkeypatch.setitem(sys.modules, package, None)
    assert run(folder, "--model", model, "-o", tmp_path / "out", *flags) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.rstrip().endswith(f"{advice} (relume explain device-error)")


def test_a_model_that_is_not_there_leaves_no_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with the model is said before anything is written."""
    assert run(folder, "--model", tmp_path / "no.onnx", "-o", tmp_path / "out") == 1
    assert "no.onnx: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_worker_needs_the_model_of_the_run(
    model: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine with another file of that name is refused, not mixed in."""
    monkeypatch.setattr("relume.bulk.run.sha256", lambda _: "0" * 64)
    assert run(folder, "--model", model, "-o", tmp_path / "out") == 1
    assert "every machine needs the same file" in capsys.readouterr().err


def contents(out: Path) -> dict[str, bytes]:
    """Return every file of a folder by its name."""
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def test_shards_without_parts_are_told(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More shards than parts are no error, and nobody has to wonder why most do nothing."""
    flags = ("--model", model, "-o", tmp_path / "out", "--part", 12)
    assert run(folder, *flags, "--shard", "7/8") == 0
    said = "parts in all: 2, so 6 of 8 shards have nothing to do; --part N cuts smaller ones"
    assert said in capsys.readouterr().err
    run(folder, *flags, "--shard", "1/2")
    assert "parts in all:" not in capsys.readouterr().err
