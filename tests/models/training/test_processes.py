"""Several processes do what one does, and come back when one of them is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from models import train as training
from models.augment import evaluation
from models.checkpoint import load_pt
from models.data import open_samples
from models.errors import DeviceError, RecipeError
from models.recipes import find
from models.training import processes as launching
from models.training.flags import Options
from models.training.log import read_epochs
from models.training.processes import Processes
from models.training.run import build_network
from models.training.scores import Feed, gathered, score
from models.training.snapshots import load_snapshot
from models.training.stopping import Stop, Stopped
from tests.oracles import ROOT
from tests.small_data import write_small_data

# Five updates of two programs that add float32 numbers in other orders, at a rate of 1e-3
WEIGHTS_RTOL = 1e-4
FLAGS = [
    *("--architecture", "resnet_v2_cifar_8", "--batch-size", "16", "--workers", "0"),
    *("--device", "cpu", "--amp", "none", "--virtual-gpus", "2"),
]
RUN = ["torch.distributed.run", "--max-restarts=20"]
LONG = ["--epochs", "40", "--save-every", "0"]
TORCHRUN = [*RUN, "--standalone", "--nproc-per-node=2", "-m"]


def launch(
    data: Path, out: Path, *more: str, launcher: list[str] | None = None
) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", *(launcher or []), "models.train", *FLAGS]
    return started([*command, "--data", str(data), "-o", str(out), *more])


def started(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> int:
    """Return a process's exit status, and show what it said if that is not 0."""
    said = process.communicate(timeout=300)
    print(*said if process.returncode else ())
    return process.returncode


def weights(out: Path) -> dict[str, np.ndarray]:
    return load_pt(out / "last.pt").network.tensors


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a long run of two processes that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    assert ended(launch(data, out, *LONG, "--devices", "2")) == 0
    return out


def test_two_processes_are_one_with_two_parts(data: Path, tmp_path: Path) -> None:
    """Each process takes half of the same batches: weights are those of one with two parts."""
    more = ["--epochs", "1", "--lr", "1e-3", "--last", "keep"]  # 72 images: the last batch has 8
    runs = [
        launch(data, tmp_path / "two", *more, "--devices", "2"),
        launch(data, tmp_path / "one", *more),
    ]
    assert [ended(process) for process in runs] == [0, 0]
    ours, theirs = (weights(tmp_path / name) for name in ("two", "one"))
    for name, array in theirs.items():
        scale = max(float(np.abs(array).max()), 1e-2)  # below that, of a few updates at 1e-3
        assert np.abs(ours[name] - array).max() <= WEIGHTS_RTOL * scale, name
    one, two = (read_epochs(tmp_path / name / "log.csv")[0] for name in ("one", "two"))
    assert two.train_loss == pytest.approx(one.train_loss, rel=1e-4)
    assert two.val_top1 == one.val_top1


def workers_of(pid: int) -> list[int]:
    """Return the processes that the launcher started and that train."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if b"models.train" in _command(int(one))]
    except FileNotFoundError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def kill_again_and_again(launchers: "list[subprocess.Popen[str]]", out: Path, times: int) -> int:
    """Kill one of the workers each time that they have made some way; return how often."""
    done, seen = 0, 0
    deadline = time.monotonic() + 240
    draw = np.random.default_rng(0)
    while done < times and launchers[0].poll() is None and time.monotonic() < deadline:
        path = out / "snapshot.pt"
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        found = [worker for launcher in launchers for worker in workers_of(launcher.pid)]
        if stamp > seen and len(found) == 2:
            time.sleep(float(draw.uniform(0, 0.05)))
            os.kill(found[int(draw.integers(2))], signal.SIGKILL)
            done += 1
            time.sleep(1)  # the others notice, and are started again
            seen = path.stat().st_mtime_ns
        time.sleep(0.005)
    return done


def two_launchers(data: Path, out: Path, *more: str) -> "list[subprocess.Popen[str]]":
    """Start two launchers of a worker each; the first keeps the store that they meet at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"--rdzv-endpoint=127.0.0.1:{free.getsockname()[1]}"
    plan = [*RUN, "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", place]
    return [
        launch(data, out, *LONG, *more, launcher=[*plan, f"--rdzv-conf=is_host={host}", "-m"])
        for host in (1, 0)
    ]


def same_weights(out: Path, other: Path) -> None:
    ours, theirs = weights(out), weights(other)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "times"), [(TORCHRUN, 5), ([], 2)], ids=["torchrun", "devices"]
)
def test_killed_workers_come_back(
    launcher: list[str], times: int, data: Path, alone: Path, tmp_path: Path
) -> None:
    """Workers killed again and again rejoin at once, and end with the bits of a run left alone.

    With torchrun's own group every second kill or so met what the dead worker had left in the
    launcher's store, and hung.
    """
    more = [] if launcher else ["--devices", "2"]
    killed = launch(data, tmp_path, *LONG, *more, launcher=launcher)
    assert kill_again_and_again([killed], tmp_path, times) == times
    assert ended(killed) == 0
    same_weights(tmp_path, alone)


@pytest.mark.slow
def test_two_launchers_lose_nothing(data: Path, alone: Path, tmp_path: Path) -> None:
    """With a launcher for each process, workers killed again and again rejoin.

    Each launcher counts the restarts that it makes itself.
    """
    first, second = two_launchers(data, tmp_path / "killed")
    assert kill_again_and_again([first, second], tmp_path / "killed", 4) == 4
    assert [ended(one) for one in (first, second)] == [0, 0]
    same_weights(tmp_path / "killed", alone)
    refused = launch(data, tmp_path / "killed", *LONG, launcher=TORCHRUN)
    assert "a run is here already; --resume goes on with it" in refused.communicate(timeout=300)[1]
    assert refused.returncode == 1  # restarted, too, as it had never begun


@pytest.mark.slow
def test_a_launcher_can_be_replaced(
    data: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is gone, with its launcher and worker, is replaced, and nothing is lost."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    out = tmp_path / "killed"
    first, second = two_launchers(data, out, "--resume")
    while len(found := workers_of(second.pid)) == 0 or not (out / "snapshot.pt").exists():
        time.sleep(0.05)
    for gone in (second.pid, *found):
        os.kill(gone, signal.SIGKILL)
    second.communicate()
    third = started(second.args)
    assert kill_again_and_again([first, third], out, 1) == 1
    assert [ended(one) for one in (first, third)] == [0, 0]
    same_weights(out, alone)


def test_a_name_is_for_those_that_are_there() -> None:
    """Whatever the dead left in the store, and in whatever order processes come, they meet."""
    store = dist.HashStore()
    store.set("name", "dead")
    store.set("dead/1", "nobody")
    store.set("nobody", "dead")
    names = set()
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        with ThreadPoolExecutor(3) as pool:
            found = [pool.submit(launching.meet, store, number, 3) for number in order]
            met = {one.result(timeout=20) for one in found}
        assert len(met) == 1
        names |= met
    assert len(names) == 3


def test_a_first_process_that_does_not_come_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting has an end."""
    monkeypatch.setattr(launching, "TIMEOUT", timedelta(seconds=0.1))
    with pytest.raises(DeviceError, match="process 1 of 2 waits in vain for the first one"):
        launching.meet(dist.HashStore(), 1, 2)


@pytest.mark.slow
def test_a_batch_of_fewer_images_than_processes(data: Path, tmp_path: Path) -> None:
    """The last batch of an epoch may leave a process without an image: it waits for the others."""
    more = ["--epochs", "2", "--batch-size", "71", "--virtual-gpus", "1", "--last", "keep"]
    assert ended(launch(data, tmp_path, *more, "--devices", "2")) == 0
    assert [row.update for row in read_epochs(tmp_path / "log.csv")] == [2, 4]


@pytest.mark.slow
def test_sigterm_reaches_all_and_nothing_is_lost(data: Path, tmp_path: Path) -> None:
    """Ended by SIGTERM, two processes save at the same update and go on to the same weights."""
    more = ["--epochs", "20", "--devices", "2"]
    process = launch(data, tmp_path / "run", *more)
    while not (tmp_path / "run/snapshot.pt").exists():
        time.sleep(0.01)
    process.terminate()
    out, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command with --resume goes on" in out
    assert "Traceback" not in said
    again = launch(data, tmp_path / "run", *more, "--resume")
    assert ended(again) == 0
    alone = launch(data, tmp_path / "alone", *more)
    assert ended(alone) == 0
    ours, theirs = (weights(tmp_path / name) for name in ("run", "alone"))
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


def test_another_number_of_processes_is_refused(data: Path, tmp_path: Path) -> None:
    """A run of one process goes on as two only if allowed; an error is said once."""
    assert ended(launch(data, tmp_path, "--epochs", "1")) == 0
    more = ["--epochs", "1", "--devices", "2", "--resume"]
    process = launch(data, tmp_path, *more)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.count("there were 1 processes, there are 2. --allow processes goes on") == 1
    assert "Traceback" not in said


@pytest.mark.slow
def test_machines_without_a_common_folder_are_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that finds no snapshot where the other does would train from other weights."""
    assert ended(launch(data, tmp_path / "0", "--epochs", "1", "--devices", "2")) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    processes = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        processes.append(launch(data, tmp_path / rank, "--epochs", "2", "--force"))
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert "its folder (-o) has to be one that every machine sees" in said[0]
    assert [process.returncode for process in processes] == [1, 1]


@pytest.mark.slow
def test_what_one_process_meets_is_said(tmp_path: Path) -> None:
    """An image that only the second process reads is named by it; the first ends without fuss."""
    data = tmp_path / "data"
    for split, count in (("train", 16), ("val", 4)):
        for name in ("ant", "bee"):
            (data / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (40, 40), (number, 9, 99))
                picture.save(data / split / name / f"{number}.png")
    (data / "train/bee/3.png").write_bytes(b"no picture")
    more = ["--classes", "2", "--epochs", "1", "--devices", "2"]
    process = launch(data, tmp_path / "run", *more)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.count("3.png") == 1
    assert "Traceback" not in said


# Two processes by torchrun, the program changed by what a test writes in the middle
CHANGED = """
import os, signal, sys
from models import train
plain = train.{name}
def {name}(run, *rest):
    {body}
    return plain(run, *rest)
train.{name} = {name}
sys.exit(train.main(sys.argv[1:]))
"""


def launch_changed(
    data: Path, out: Path, name: str, body: str, *more: str
) -> "subprocess.Popen[str]":
    program = out.with_suffix(".py")
    program.write_text(CHANGED.format(name=name, body=body))
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    return subprocess.Popen(
        [sys.executable, "-m", *torchrun, *FLAGS, "--data", str(data), "-o", str(out), *more],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_several_processes_save_before_they_validate(data: Path, tmp_path: Path) -> None:
    """Killed in validation, which takes no notice of signals there, they lose no update."""
    more = ["--epochs", "1"]
    killed = launch_changed(
        data, tmp_path / "cut", "validate", "os.kill(os.getpid(), signal.SIGKILL)", *more
    )
    killed.communicate(timeout=120)
    progress = load_snapshot(tmp_path / "cut/snapshot.pt").progress
    assert (progress.update, progress.validated) == (5, 0)
    again = launch(data, tmp_path / "cut", *more, "--devices", "2", "--resume")
    alone = launch(data, tmp_path / "alone", *more, "--devices", "2")
    assert [ended(process) for process in (again, alone)] == [0, 0]
    ours, theirs = (weights(tmp_path / name) for name in ("cut", "alone"))
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    ours_row, theirs_row = (
        read_epochs(tmp_path / name / "log.csv")[0] for name in ("cut", "alone")
    )
    assert ours_row[:9] == theirs_row[:9]  # what follows is times


@pytest.mark.slow
def test_a_loss_that_is_none_on_one_process_is_said(data: Path, tmp_path: Path) -> None:
    """All of them stop at it, and the first says what it is."""
    body = "if run.processes.rank == 1: return plain(run, *rest) * float('nan')"
    process = launch_changed(data, tmp_path / "run", "update", body, "--log-every", "2")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.count("error: update 2: the loss is not finite") == 1
    assert "another process of the run has died" not in said


@pytest.mark.slow
def test_what_several_processes_log_is_of_all(tmp_path: Path) -> None:
    """Lines on the way have all images in them, and unread ones are named whoever met them."""
    data = tmp_path / "data"
    for split, count in (("train", 8), ("val", 4)):
        for name in ("ant", "bee"):
            (data / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (40, 40), (number, 9, 99))
                picture.save(data / split / name / f"{number}.png")
    bad = [data / "train/bee/3.png", data / "train/ant/5.png", data / "train/bee/6.png"]
    for path in bad:
        path.write_bytes(b"no picture")
    more = ["--classes", "2", "--epochs", "1", "--devices", "2", "--on-bad", "skip"]
    more += ["--log-every", "1"]
    process = launch(data, tmp_path / "run", *more)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    trained, warning, epoch = lines
    assert trained["loss"] == pytest.approx(epoch["train_loss"])
    assert trained["top1"] == pytest.approx(epoch["train_top1"])
    assert all(any(str(path) in image for image in warning["images"]) for path in bad)
    assert said.count(f"{len(warning['images'])} images of training could not be read") == 1


@pytest.fixture
def group() -> Iterator[None]:
    """Let this process be a group by itself."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("compiled", ["plain", "compiled"])
def test_only_the_last_part_is_shared(compiled: str) -> None:
    """Else processes with another number of parts would wait for each other for ever."""
    shared = DistributedDataParallel(torch.nn.Linear(2, 2))
    computes = torch.compile(shared) if compiled == "compiled" else shared
    run = SimpleNamespace(computes=computes)
    for last in (False, True):
        with training.alone(run, last=last):  # type: ignore[arg-type]
            assert shared.require_backward_grad_sync is last


@pytest.mark.usefixtures("group")
def test_a_network_is_shared_without_a_warning() -> None:
    """Statistics stay each process's own; torch is asked for that in its present words."""
    recipe = find("fashion-mnist")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, computes = build_network(
            replace(recipe, architecture="resnet_v2_cifar_8", compile=False),
            Options(),
            Processes(0, 2, torch.device("cpu")),
            lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)),
        )
    assert isinstance(computes, DistributedDataParallel)
    assert not computes.forward_sync_buffers


@pytest.mark.slow
def test_another_number_of_processes_can_be_allowed(data: Path, tmp_path: Path) -> None:
    """What one process began two finish, if allowed."""
    assert ended(launch(data, tmp_path, "--epochs", "1")) == 0
    more = ["--epochs", "2", "--devices", "2", "--resume", "--allow", "processes", "recipe"]
    assert ended(launch(data, tmp_path, *more)) == 0
    assert [row.epoch for row in read_epochs(tmp_path / "log.csv")] == [1, 2]


@pytest.mark.parametrize("world", [1, 2, 3, 7, 40])
def test_every_image_is_scored_once(world: int, data: Path) -> None:
    """However many processes share the images, each image counts once, in its place."""
    samples, view = open_samples(data, "val"), evaluation("mxnet-cifar10")

    def forward(images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 3))[:, ::3]

    pairs = []
    for rank in range(world):
        place = Processes(rank, world, torch.device("cpu"))
        pairs += list(score(forward, samples, view, place, Feed(16, 0)))
    indices = torch.cat([one for one, _ in pairs]).tolist()
    assert sorted(indices) == list(range(len(samples)))
    alone = Processes(0, 1, torch.device("cpu"))
    expected = gathered(list(score(forward, samples, view, alone, Feed(7, 0))), 30, alone)
    got = gathered(pairs, 30, alone)
    assert expected is not None
    assert got is not None
    assert got.tolist() == expected.tolist()


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how many there are."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(DeviceError, match="--device cuda: process 1 finds 1 GPUs"):
        launching.join("cuda")


def test_the_death_of_another_process_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What gloo and NCCL throw then becomes a line; any other error stays a bug's traceback."""

    def gone(_: object) -> int:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")

    def broken(_: object) -> int:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(training, "run_asked", gone)
    assert training.main(["--device", "cpu"]) == 1
    assert "another process of the run has died, and this one ends too" in capsys.readouterr().err
    monkeypatch.setattr(training, "run_asked", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        training.main(["--device", "cpu"])


def test_one_of_all_says_what_all_have_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the recipe or the data is the same everywhere: only the first process says it."""

    def refuse(_: object) -> int:
        raise RecipeError("no such thing")

    monkeypatch.setattr(training, "run_asked", refuse)
    for rank, said in (("0", "error: no such thing (relume explain recipe-error)\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert training.main(["--device", "cpu"]) == 1
        assert capsys.readouterr().err == said


def test_an_earlier_snapshot_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that die before their first snapshot do not take up what another run has left."""
    asked: list[Callable[[], bool]] = []
    monkeypatch.setattr(launching, "start_many", lambda *given: asked.append(given[2]) or 0)
    snapshot = tmp_path / "snapshot.pt"
    snapshot.write_bytes(b"another run's")
    assert training.main(["--devices", "2", "--force", "-o", str(tmp_path)]) == 0
    assert not asked[0]()
    snapshot.unlink()
    assert not asked[0]()
    time.sleep(0.02)  # a tick of the file system's clock
    snapshot.write_bytes(b"its own")
    assert asked[0]()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C do what it does, which a shell's `&` has ended for all that it started."""
    given = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, given)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_is_obeyed_at_once() -> None:
    """The first is noted, the second does what it always did; afterwards all is as before."""
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before
    assert str(Stopped(signal.SIGTERM)) == "SIGTERM"
