"""Tests of relume/bulk/ray_engine.py: the same files, whoever of the cluster dies meanwhile."""

import json
import pickle
import signal
import socket
import subprocess
import threading
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import DeviceError
from models.terminal import described
from relume.bulk.parts import Files
from relume.bulk.ray_engine import _cluster, _outcomes, _RayWorker
from relume.bulk.worker import Job, sha256
from relume.classifier import Options
from tests.bulk_runs import found, images, run, write_folder
from tests.relume.bulk.processes import contents, descendants, done, end, gone, started, wait_for

COUNT, PART = 600, 1
RAY = ("--engine", "ray", "--workers", 2)
THREADS_S = 1.0  # for what they have begun
ENDING_S = 20.0  # from the driver's end to that of the workers, which the raylet tells
quiet = pytest.mark.quiet  # two clusters at a time have no room


@pytest.fixture(autouse=True)
def own_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use no cluster that this machine may have."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Return a folder of so many pictures that a run can be met half way."""
    return write_folder(tmp_path / "many", images(COUNT))


def job(model: Path, out: Path) -> Job:
    return Job(str(out), 1, model, sha256(model), "cpu", 1, Options(5, 1, True, 8))


# --- without a cluster ----------------------------------------------------------------------------


def test_a_worker_does_a_part(model: Path, folder: Path, tmp_path: Path) -> None:
    """It takes a row of Ray's and gives one, with what is counted."""
    part = Files(tuple(map(str, sorted(folder.iterdir()))))
    row = {"number": 0, "part": pickle.dumps(part)}
    done = _RayWorker(job(model, tmp_path / "out"), str(tmp_path))(row)
    assert done == {"number": 0, "images": 23, "broken": 1, "error": b""}
    run(folder, "--model", model, "-o", tmp_path / "whole")
    assert found(tmp_path / "out") == found(tmp_path / "whole")


@pytest.mark.parametrize("fault", ["model", "folder", "store", "disk"])
def test_a_worker_tells_what_is_wrong(fault: str, model: Path, tmp_path: Path) -> None:
    """What the user can mend is handed back, where Ray would make a traceback of it."""
    given, cwd, names = job(model, tmp_path / "out"), str(tmp_path), ("a.png",)
    if fault == "model":
        model.write_bytes(b"another")
    elif fault == "folder":
        cwd = str(tmp_path / "elsewhere")
    elif fault == "store":
        names = ("nosuch://a.png",)
    else:
        (tmp_path / "out").write_bytes(b"")
    row = {"number": 0, "part": pickle.dumps(Files(names))}
    error = pickle.loads(_RayWorker(given, cwd)(row)["error"])
    said = described(error) if isinstance(error, OSError) else str(error)
    wanted = {
        "model": "expected the run's ",
        "folder": "elsewhere: No such file or directory",
        "store": "Protocol not known: nosuch",
        "disk": "out/",
    }
    assert wanted[fault] in said


def test_no_cluster_is_one_line(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address where nobody listens is told at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = (folder, "--model", model, "-o", tmp_path / "out", "--engine", "ray")
    assert run(*arguments, "--address", address) == 1
    assert f"error: {address}: no Ray cluster can be had (" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "127.0.0.1", "head:", ":6379x"])
def test_an_address_of_another_kind_is_refused(
    address: str,
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ray's words for it mislead; ours say what to give, whichever way it came."""
    arguments = (folder, "--model", model, "-o", tmp_path / "out", "--engine", "ray")
    said = f"error: {address}: expected HOST:PORT of a Ray cluster's head, such as head:6379, or au"
    assert run(*arguments, "--address", address) == 1
    assert said in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert run(*arguments) == 1
    assert said in capsys.readouterr().err


def test_a_cluster_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is too busy Ray gives up after half a minute, by a bare Exception."""

    def give_up(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.")  # noqa: TRY002

    monkeypatch.setattr(pytest.importorskip("ray"), "init", give_up)
    with (
        pytest.raises(DeviceError, match="local: no Ray cluster can be had .The current node"),
        _cluster("local"),
    ):
        pass


def test_a_cluster_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost head is told with what to do; it is disconnected from in any case."""
    ray, calls = pytest.importorskip("ray"), []
    monkeypatch.setattr(ray, "init", lambda *_, **__: calls.append("init"))
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    lost = ray.exceptions.RaySystemError("the head is gone\nand more")
    with pytest.raises(DeviceError, match="local: the Ray cluster failed .*so run it again"):  # noqa: PT012, SIM117
        with _cluster("local"):
            raise lost
    assert calls == ["init", "shutdown"]


def test_sigterm_keeps_its_meaning_while_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray answers it with an exit of its own; who called gets the signal."""
    came: list[int] = []
    monkeypatch.setattr(pytest.importorskip("ray"), "init", _end_as_ray_does)
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with suppress(SystemExit), _cluster("local"):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]


def _end_as_ray_does(*_: object, **__: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(15)


# --- with one -------------------------------------------------------------------------------------


@pytest.mark.slow
@quiet
def test_ray_writes_the_same_files(model: Path, many: Path, tmp_path: Path) -> None:
    """Byte for byte those of one process; stdout has the object of `--json` and nothing else."""
    arguments = (many, "--model", model, "--part", PART)
    run(*arguments, "-o", whole := tmp_path / "whole")
    with started(*arguments, "-o", tmp_path / "out", *RAY, "--json") as process:
        printed, said = process.communicate()
    assert process.returncode == 1
    assert printed, said
    assert json.loads(printed)["images"] == COUNT
    assert f"error: 1 could not be classified: see {tmp_path / 'out'}/broken\n" in said
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.slow
@quiet
def test_a_killed_worker_loses_and_doubles_nothing(model: Path, many: Path, tmp_path: Path) -> None:
    """Of two workers one is killed half way, and another one later: its part is done again."""
    arguments = (many, "--model", model, "--part", PART)
    run(*arguments, "-o", whole := tmp_path / "whole")
    out, killed = tmp_path / "out", set()
    with started(*arguments, "-o", out, *RAY) as process:
        for least in (10, 30):
            wait_for(lambda: done(out) >= least, process)  # noqa: B023  waits here
            wait_for(lambda: workers(process), process)
            victim = workers(process)[0]
            killed.add(victim)
            end(victim)
        assert done(out) < COUNT // PART
        _, said = process.communicate()
    assert len(killed) == 2
    assert process.returncode == 1, said
    assert contents(out) == contents(whole)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes in which parts are done."""
    family = descendants(process.pid)
    return [pid for pid, name in family.items() if "ray::MapWorker" in name]


@pytest.mark.slow
@quiet
def test_a_killed_driver_goes_on(model: Path, many: Path, tmp_path: Path) -> None:
    """The whole cluster is killed half way and started again: what is finished is skipped."""
    arguments = (many, "--model", model, "--part", PART)
    run(*arguments, "-o", whole := tmp_path / "whole")
    out = tmp_path / "out"
    with started(*arguments, "-o", out, *RAY) as process:
        wait_for(lambda: done(out) >= 10, process)
        end(process.pid)
    before = done(out)
    assert 10 <= before < COUNT // PART
    with started(*arguments, "-o", out, *RAY, "--json") as process:
        printed, _ = process.communicate()
    assert json.loads(printed)["skipped"] >= before
    assert contents(out) == contents(whole)


@pytest.mark.slow
@quiet
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of its own settings
def test_no_thread_of_rays_outlives_the_parts(model: Path, many: Path, tmp_path: Path) -> None:
    """One that finds no cluster ends the process without a word, whatever we were to say."""
    parts = [(number, Files((str(path),))) for number, path in enumerate(sorted(many.iterdir()))]
    work = replace(job(model, tmp_path / "out"), parts=len(parts))
    with _cluster("local") as ray:
        before = set(threading.enumerate())
        with closing(_outcomes(ray, work, parts, 2)) as rows:
            assert next(rows)["images"] == 1
        left = set(threading.enumerate()) - before
        for thread in left:
            thread.join(THREADS_S)
        assert [thread.name for thread in left if thread.is_alive()] == []


@pytest.mark.slow
@quiet
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_cluster(
    number: signal.Signals, model: Path, many: Path, tmp_path: Path
) -> None:
    """Ctrl-C and SIGTERM end as they do elsewhere, and leave no process and no half of a file."""
    out = tmp_path / "out"
    with started(many, "--model", model, "-o", out, "--part", PART, *RAY) as process:
        wait_for(lambda: done(out) >= 5, process)
        family = descendants(process.pid)
        process.send_signal(number)
        _, said = process.communicate()
        assert process.returncode == 128 + number, said
        *_, where, last = said.splitlines()
        assert last == {2: "interrupted", 15: "terminated"}[number]
        assert where.startswith(f"{out}: ")
        assert where.endswith("; run it again to go on")
        assert "Traceback" not in said
        workers = [pid for pid, name in family.items() if "ray::MapWorker" in name]
        assert workers
        assert gone(workers, ENDING_S)


@pytest.mark.slow
@quiet
def test_a_worker_without_a_network_is_one_line(many: Path, tmp_path: Path, model: Path) -> None:
    """What is wrong with the model comes out of the cluster as it would here."""
    model.write_bytes(b"no model")
    with started(many, "--model", model, "-o", tmp_path / "out", *RAY) as process:
        printed, said = process.communicate()
    assert process.returncode == 1
    assert printed == ""
    assert said.splitlines()[-1].startswith(f"error: {model}: not an ONNX model that ")
    assert said.endswith("(relume explain artifact-error)\n")
    assert "Traceback" not in said
