"""A run trains, leaves an artifact, and loses nothing, whatever ends it."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models import train as training
from models.augment import evaluation
from models.build import build
from models.checkpoint import Checkpoint, load, load_pt, save_pt
from models.data import open_samples
from models.data.records import RecordWriter, packed
from models.errors import ParityError, ResumeError
from models.evaluate import main as evaluation_main
from models.recipes import RECIPES, find
from models.session import Session
from models.spec import ModelSpec, Origin
from models.trace import trace
from models.training import run as running
from models.training.flags import asked_for
from models.training.log import read_epochs
from models.training.processes import Processes
from models.training.snapshots import load_snapshot, save_snapshot
from models.training.stopping import Stop
from models.training.updates import buffers_of
from models.verify import verify
from tests.oracles import ROOT, golden
from tests.small_data import write_small_data

FLAGS = [
    *("--architecture", "resnet_v2_cifar_8", "--epochs", "2", "--batch-size", "16"),
    *("--workers", "0", "--log-every", "2", "--device", "cpu", "--amp", "none"),
    "--deterministic",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Runs here have as many threads as those that are processes of their own, see `start`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Return the folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert run(data, out) == 0
    return out


def run(data: Path, out: Path, *more: str) -> int:
    return training.main([*FLAGS, "--data", str(data), "-o", str(out), *more])


def start(data: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "models.train", *FLAGS, "--data", str(data), "-o", str(out)]
    return subprocess.Popen(
        [*command, *more],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def weights(out: Path, name: str = "last") -> dict[str, bytes]:
    tensors = load_pt(out / f"{name}.pt").network.tensors
    return {key: array.tobytes() for key, array in tensors.items()}


def test_a_run_leaves_an_artifact(whole: Path, data: Path) -> None:
    """`best.pt` and `best.onnx` give the error that the run validated, and say what they are."""
    rows = read_epochs(whole / "log.csv")
    best = min(rows, key=lambda row: row.val_top1)
    module, spec = load(whole / "best.pt")
    assert (spec.name, spec.architecture) == ("whole", "resnet_v2_cifar_8")
    assert [one.name for one in spec.labels] == list("0123456789")
    assert spec.input is not None
    samples, view = open_samples(data, "val"), evaluation(spec.input)
    draw = np.random.default_rng(0)
    pixels = np.stack([view(samples.read(i), draw).pixels for i in range(len(samples))])
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    session = Session((whole / "best.onnx").read_bytes())
    for logits in (module(torch.from_numpy(images)).detach().numpy(), session.run(images)[0]):
        error = 100 * np.mean(logits.argmax(1) != samples.labels)
        assert error == pytest.approx(best.val_top1)
    assert {path.name for path in whole.iterdir()} == {
        *("best.pt", "best.onnx", "last.pt", "last.onnx", "snapshot.pt"),
        *("recipe.json", "log.jsonl", "log.csv", "curve.png"),
    }


def test_a_run_learns(whole: Path) -> None:
    """The loss falls, and what was logged on the way adds up to the epoch's line."""
    rows = read_epochs(whole / "log.csv")
    assert rows[1].train_loss < rows[0].train_loss
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train"] * 2 + ["epoch"] + ["train"] * 3 + ["epoch"]
    assert lines[-1]["update"] == 10
    assert lines[-2]["loss"] == pytest.approx(rows[1].train_loss)  # of 5 batches, the last filled


def test_the_same_run_gives_the_same_bits(whole: Path, data: Path, tmp_path: Path) -> None:
    """Neither workers nor the time of day are in the weights."""
    assert run(data, tmp_path / "again", "--workers", "2") == 0
    assert weights(tmp_path / "again") == weights(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(
    number: signal.Signals,
    whole: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run ends at the next update with the shell's status, and goes on to the same weights."""
    plain = training.update

    def interrupted(run: training.Run, *rest: object) -> torch.Tensor:
        if run.progress.update == 6:
            signal.raise_signal(number)
        return plain(run, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training, "update", interrupted)
        assert run(data, tmp_path / "cut") == 128 + number
    assert "at update 7; the same command with --resume goes on" in capsys.readouterr().out
    assert not (tmp_path / "cut/last.pt").exists()
    assert run(data, tmp_path / "cut", "--resume") == 0
    assert "going on at update 7, in epoch " in capsys.readouterr().out
    assert weights(tmp_path / "cut") == weights(whole)
    assert weights(tmp_path / "cut", "best") == weights(whole, "best")


def test_going_on_holds_to_the_number_of_threads(whole: Path, data: Path, tmp_path: Path) -> None:
    """With another number sums would be of another order, and bits others."""
    assert run(data, tmp_path / "cut", "--epochs", "1") == 0
    torch.set_num_threads(2)
    more = ["--epochs", "2", "--allow", "recipe"]
    assert run(data, tmp_path / "cut", "--resume", *more) == 0
    assert torch.get_num_threads() == 1
    assert weights(tmp_path / "cut") == weights(whole)


def test_a_signal_to_all_processes_saves_and_ends(data: Path, tmp_path: Path) -> None:
    """What ends a job reaches the processes that decode as well; they finish their batches."""
    out = tmp_path / "run"
    process = start(data, out, "--epochs", "500", "--workers", "2", "--log-every", "1")
    deadline = time.monotonic() + 60
    while not (out / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    assert "SIGTERM: saved" in said
    assert (out / "snapshot.pt").exists()


def test_a_signal_during_validation_saves_and_ends(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not validated is validated when the run goes on."""
    plain = training.weights_of

    def interrupted(run: training.Run) -> dict[str, torch.Tensor]:
        if run.progress.update == 5:
            signal.raise_signal(signal.SIGTERM)
        return plain(run)

    with monkeypatch.context() as patch:
        patch.setattr(training, "weights_of", interrupted)
        assert run(data, tmp_path / "cut") == 128 + signal.SIGTERM
    assert run(data, tmp_path / "cut", "--resume") == 0
    assert weights(tmp_path / "cut") == weights(whole)
    ours, theirs = (read_epochs(one / "log.csv") for one in (tmp_path / "cut", whole))
    assert [row.val_top1 for row in ours] == [row.val_top1 for row in theirs]


def killed(data: Path, out: Path, *, times: int, seed: int) -> int:
    """Kill a run so many times at random moments, most of them while it saves; return saves seen.

    It saves after every update, so that a kill falls into a save as often as not.
    """
    draw = np.random.default_rng(seed)
    saves = 0
    for number in range(times):
        more = ["--resume"] if (out / "snapshot.pt").exists() else []
        process = start(data, out, "--save-every", "0", *more, *(["--force"] if not more else []))
        before = os.stat(out / "snapshot.pt").st_mtime_ns if more else 0
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            now = os.stat(out / "snapshot.pt").st_mtime_ns if (out / "snapshot.pt").exists() else 0
            if now != before:
                saves += 1
                break
            time.sleep(0.001)
        time.sleep(float(draw.uniform(0, 0.03 * (number + 1))))
        process.kill()
        process.communicate()
    return saves


def test_killed_runs_end_with_the_same_bits(whole: Path, data: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, also while a snapshot is written, changes no bit of the result."""
    out = tmp_path / "killed"
    assert killed(data, out, times=2, seed=int(time.time()) % 1000) == 2
    assert run(data, out, "--resume") == 0
    assert weights(out) == weights(whole)
    assert not list(out.glob(".*.part"))


@pytest.mark.slow
def test_runs_killed_again_and_again_end_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    """Twelve kills of a run with every kind of state: averages, dropout, momentum dropped."""
    flags = ["--ema", "0.9", "--epochs", "6", "--momentum-drops", "3", "--label-smoothing", "0.1"]
    assert run(data, tmp_path / "whole", *flags) == 0
    out = tmp_path / "killed"
    for seed in range(4):
        killed_run = [*flags]
        draw = np.random.default_rng(seed)
        for _ in range(3):
            more = ["--resume"] if (out / "snapshot.pt").exists() else ["--force"]
            process = start(data, out, "--save-every", "0", *killed_run, *more)
            time.sleep(float(draw.uniform(3, 9)))
            process.kill()
            process.communicate()
    more = ["--resume"] if (out / "snapshot.pt").exists() else ["--force"]
    assert run(data, out, *flags, *more) == 0
    assert weights(out) == weights(tmp_path / "whole")


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    assert status == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lr", "0.2"], "the recipe differs: lr was 0.1, is 0.2. --allow recipe goes on"),
        (["--schedule", "constant"], "schedule was cosine period=5 floor=0.0, is constant"),
    ],
)
def test_a_changed_recipe_is_refused(
    more: list[str],
    message: str,
    whole: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Going on with another recipe is an error that names field and values, unless allowed."""
    out = tmp_path / "changed"
    out.mkdir()
    (out / "snapshot.pt").write_bytes((whole / "snapshot.pt").read_bytes())
    (out / "log.csv").write_bytes((whole / "log.csv").read_bytes())
    assert message in refused(capsys, run(data, out, "--resume", *more))
    assert run(data, out, "--resume", "--epochs", "3", "--allow", "recipe", *more) == 0
    assert len(read_epochs(out / "log.csv")) == 3
    plain = ["--workers", "0", "--device", "cpu", "--data", str(data), "-o", str(out), "--resume"]
    assert training.main(plain) == 0  # what was allowed once is the run's own recipe now


def begun(data: Path, out: Path, *more: str) -> training.Run:
    """Return a run that is about to train."""
    asked = asked_for([*FLAGS, "--data", str(data), "-o", str(out), *more])
    begun = running.begin(asked.recipe, asked.options, Processes(0, 1, torch.device("cpu")), Stop())
    begun.log.close()
    return begun


def copied(whole: Path, out: Path) -> Path:
    """Return the folder of another run at the same place."""
    out.mkdir()
    for name in ("snapshot.pt", "log.csv", "recipe.json"):
        (out / name).write_bytes((whole / name).read_bytes())
    return out


ALLOWED = ("--resume", "--allow", "recipe")


def test_an_allowed_recipe_holds(whole: Path, data: Path, tmp_path: Path) -> None:
    """What is changed is in force, and momentum goes on whatever the optimizer's groups are."""
    out = copied(whole, tmp_path / "run")
    kept = load_snapshot(out / "snapshot.pt").momentum
    more = ["--momentum", "0.5", "--no-nesterov", "--decay-on", "weights", "--amp", "fp16"]
    found = begun(data, out, *ALLOWED, *more, "--ema", "0.5")
    groups = found.optimizer.param_groups
    assert [(one["momentum"], one["nesterov"]) for one in groups] == [(0.5, False)] * 2
    momentum = buffers_of(found.optimizer, found.network)
    assert momentum.keys() == kept.keys()
    assert len(kept) > 10
    assert all(torch.equal(momentum[name], one) for name, one in kept.items())
    assert found.average is not None
    for name, one in found.network.named_parameters():
        assert torch.equal(found.average.weights[name], one)


def test_another_network_is_refused(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No weights of one network go on in another, whatever is allowed."""
    out = copied(whole, tmp_path / "run")
    said = refused(capsys, run(data, out, *ALLOWED, "--architecture", "resnet_v2_cifar_14"))
    assert "the snapshot is of another network, which no --allow goes on with" in said
    assert (out / "recipe.json").read_bytes() == (whole / "recipe.json").read_bytes()


def test_other_batches_go_on_behind_the_same_images(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of an epoch, a run of other batches does what is left of the epoch."""
    plain = training.update

    def ending(run: training.Run, *rest: object) -> torch.Tensor:
        run.stop.signal = signal.SIGTERM * (run.progress.update == 7)
        return plain(run, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training, "update", ending)
        assert run(data, tmp_path) == 128 + signal.SIGTERM  # 48 of 72 images into epoch 2
    assert run(data, tmp_path, *ALLOWED, "--batch-size", "32", "--virtual-gpus", "1") == 0
    assert [row.update for row in read_epochs(tmp_path / "log.csv")] == [5, 6]


@pytest.mark.parametrize("statistics", ["first", "mean"])
def test_another_number_of_processes_takes_over_all(
    statistics: str, data: Path, tmp_path: Path
) -> None:
    """One process goes on with the sums of two, and with the statistics that would have stayed."""
    found = begun(data, tmp_path, "--statistics", statistics)
    running.save(found)
    saved = load_snapshot(tmp_path / "snapshot.pt")
    own = saved.processes[0]
    buffers = {name: torch.full_like(one, 5) for name, one in own["buffers"].items()}
    other = {**own, "buffers": buffers, "sums": (1.0, 2.0, 3.0, 8.0)}
    two = [{**own, "sums": (2.0, 1.0, 1.0, 8.0)}, other]
    identity = replace(saved.identity, world=2)
    save_snapshot(tmp_path / "snapshot.pt", replace(saved, identity=identity, processes=two))
    more = ["--resume", "--allow", "processes"]
    resumed = begun(data, tmp_path, "--statistics", statistics, *more)
    assert resumed.progress.sums == (3.0, 3.0, 4.0, 16.0)
    for name, one in resumed.network.named_buffers():
        expected = own["buffers"][name]
        if statistics == "mean" and one.is_floating_point():
            expected = (expected + 5) / 2
        assert torch.equal(one, expected), name


def test_a_graph_of_no_known_class_goes_on(data: Path, tmp_path: Path) -> None:
    """A run keeps what it started from, and needs the file no more; a run begun anew has none."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AvgPool2d(30), nn.Flatten())
    network = trace(layers.append(nn.Linear(4, 10)).eval(), [(2, 3, 32, 32)])
    origin = Origin("torch7-binary", "x.t7", "0" * 64, "flag")
    spec = ModelSpec("x", None, (), "logits", None, origin)
    given, out = tmp_path / "x.pt", tmp_path / "run"
    measured = verify(build(network), network.graph, None)
    save_pt(given, Checkpoint(spec, network, measured))
    assert run(data, out, "--epochs", "1", "--init", str(given)) == 0
    given.unlink()
    trained = begun(data, out, "--epochs", "1", "--resume").network.state_dict()
    assert {name: tuple(one.shape) for name, one in trained.items() if one.dim()} == {
        name: one.shape for name, one in load_pt(out / "last.pt").network.tensors.items()
    }
    assert not torch.equal(trained["4.weight"], layers[4].weight)
    begun(data, out, "--force")
    assert not (out / "init.pt").exists()


OTHER_PLACE = "its folder (-o) has to be one that every machine sees"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda resume, there: (resume, not there), OTHER_PLACE),
        (lambda who, steps, update, over: (who, steps, update + 1, over), OTHER_PLACE),
        (lambda who, *rest: (replace(who, val="x"), *rest), "process 1 against the first one: the"),
    ],
    ids=["folder", "snapshot", "data"],
)
def test_processes_that_disagree_are_refused(
    change: Callable[..., tuple[object, ...]],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Machines that see other folders or other images do not train together."""

    def share(_: Processes, value: tuple[object, ...]) -> list[object]:
        try:
            return [value, change(*value)]
        except TypeError:  # what this case does not change
            return [value, value]

    monkeypatch.setattr(Processes, "share", share)
    with pytest.raises(ResumeError, match=re.escape(message)):
        begun(data, tmp_path)


def test_other_images_are_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Going on with other images is an error that names the split."""
    other = write_small_data(tmp_path / "other", seed=1)
    said = refused(capsys, run(other, whole, "--resume"))
    assert "the images of train differ: their SHA-256 was" in said


def test_another_run_in_the_way_is_not_touched(
    whole: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with a run is refused, with what to do."""
    before = (whole / "snapshot.pt").read_bytes()
    said = refused(capsys, run(data, whole))
    assert "a run is here already; --resume goes on with it, --force begins anew" in said
    assert (whole / "snapshot.pt").read_bytes() == before


def test_a_saved_recipe_is_gone_on_with(whole: Path, data: Path) -> None:
    """`--resume -o FOLDER` needs no word about the recipe."""
    flags = ["--workers", "0", "--device", "cpu", "--data", str(data), "-o", str(whole)]
    assert training.main([*flags, "--resume"]) == 0


def test_a_full_disk_loses_nothing(
    whole: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What cannot be written is said, the log's lines too; the snapshot before stays, and the run.

    The disk is full from the fourth update to the seventh, over the end of the first epoch.
    """
    plain = training.update
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def squeezed(run: training.Run, *rest: object) -> torch.Tensor:
        small = 4 <= run.progress.update < 7
        resource.setrlimit(resource.RLIMIT_FSIZE, (0 if small else limits[0], limits[1]))
        return plain(run, *rest)  # type: ignore[arg-type]

    out = tmp_path / "full"
    monkeypatch.setattr(training, "update", squeezed)
    try:
        assert run(data, out, "--save-every", "0") == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert "warning: update 5: " in said
    assert "the file from before is whole" in said
    assert said.count("lines of the log are missing") == 1
    assert [row.epoch for row in read_epochs(out / "log.csv")] == [2]
    assert weights(out) == weights(whole)
    assert not list(out.glob(".*.part"))


def test_a_torn_line_of_the_table_keeps_no_artifact_back(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a full disk left of a line is not drawn; everything else is there at the end."""
    out = Path(shutil.copytree(whole, tmp_path / "torn"))
    (out / "last.onnx").unlink()
    with (out / "log.csv").open("a") as table:
        table.write("3,15,0.0")
    flags = ["--workers", "0", "--device", "cpu", "--data", str(data), "-o", str(out)]
    assert training.main([*flags, "--resume"]) == 0
    assert "best: epoch" in capsys.readouterr().out
    assert (out / "last.onnx").exists()


def test_nothing_is_said_to_be_saved_that_is_not(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A signal at an epoch's end, and no room for the snapshot: an error, and no good news."""
    plain = training.finish_epoch
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def interrupted(*given: object) -> None:
        plain(*given)  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGTERM)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))

    monkeypatch.setattr(training, "finish_epoch", interrupted)
    try:
        status = run(data, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr()
    assert (status, "saved" in said.out) == (1, False)
    assert "snapshot.pt: File too large" in said.err


def test_beginning_anew_destroys_nothing_before_it_can(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--force` with what is refused leaves the run as it was; else nothing of it stays."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(data, out, "--force", "--virtual-gpus", "16") == 1
    assert run(data, out, "--force", "--init", "nothing.pt") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    def interrupted(*_: object) -> None:
        raise ParityError("at the first update")

    monkeypatch.setattr(training, "update", interrupted)
    assert run(data, out, "--force", "--init", str(out / "best.pt")) == 1
    assert {path.name for path in out.iterdir()} == {"recipe.json", "best.pt", "init.pt"}
    assert run(data, out, "--force") == 1
    assert {path.name for path in out.iterdir()} == {"recipe.json"}


def test_weights_that_are_none_reach_no_snapshot(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first update's loss is finite, the weights after it are not."""
    more = ["--lr", "1e38", "--weight-decay", "1e5", "--save-every", "0"]
    said = refused(capsys, run(data, tmp_path, *more))
    assert "update 1: the weights are not finite: a lower --lr, or --clip" in said
    assert not (tmp_path / "snapshot.pt").exists()


def test_a_run_that_diverges_is_ended(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers that are none end the run before they reach a snapshot."""
    said = refused(capsys, run(data, tmp_path / "far", "--lr", "1e30"))
    assert "the loss is not finite: a lower --lr, or --clip" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--aux-weight", "0.3"], "aux-weight 0.3: resnet_v2_cifar_8 has no auxiliary head"),
        (["--architecture", "resnet_v3"], "architecture: no architecture resnet_v3"),
        (["--architecture", "inception_v4"], "inception_v4 does not take images of 32 x 32"),
        (["--classes", "12"], "found 10 classes, expected 12"),
        (["--virtual-gpus", "16"], "batch-size 16: 1 images for each of 16 parts are too few"),
        (
            ["--virtual-gpus", "2", "--accumulate", "3"],
            "virtual-gpus 2: cannot be shared out among",
        ),
        (["--last", "drop", "--batch-size", "80"], "72 images are not one whole batch"),
        (["--memonger", "0.0001"], "GiB of activations are the least"),
        (["--memonger", "--compile"], "--memonger: not with --compile"),
        (["--optimizer"], "--optimizer: goes with --init"),
        (["--resume"], "no snapshot to go on from"),
        (["--resume", "--devices", "2"], "no snapshot to go on from"),
        (["--aug-levels", "7", "--augmentation", "mxnet-224"], "--aug-level 7: expected 1, 2 or 3"),
        (["--device", "cuda"], "--device cuda: process 0 finds 0 GPUs on this machine"),
        (["--init", "nothing.pt"], "nothing.pt"),
        (["--init", "nothing.t7"], "--init nothing.t7: could not be converted"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    more: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line names what does not fit; no traceback."""
    if "cuda" in more:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert message in refused(capsys, run(data, tmp_path / "none", *more))


def test_no_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A seed's recipe needs to be told where its images are."""
    status = training.main(["--recipe", "enet-v2", "-o", str(tmp_path / "x"), "--device", "cpu"])
    assert "--data: recipe enet-v2 needs the folder of imagenet" in refused(capsys, status)


def test_a_converted_checkpoint_is_a_start(whole: Path, data: Path, tmp_path: Path) -> None:
    """With a rate of 0 the weights that come out are those that went in."""
    more = ["--init", str(whole / "best.pt"), "--lr", "0", "--epochs", "1"]
    assert run(data, tmp_path / "again", *more) == 0
    learned = {key: one for key, one in weights(whole, "best").items() if "running" not in key}
    got = weights(tmp_path / "again")
    assert {key: got[key] for key in learned} == learned


def test_a_torch7_checkpoint_is_a_start(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--init` takes a .t7 with its momentum as it is; of another network, it says so."""
    file = golden("torch7/checkpoints/checkpoint_float/latest.t7")
    more = ["--init", str(file), "--optimizer", "--epochs", "1"]
    said = refused(capsys, run(data, tmp_path / "other", *more))
    assert (
        "the checkpoint is a fb_preresnet_cifar_8_b, the recipe trains a resnet_v2_cifar_8" in said
    )
    kind = ["--recipe", "fb-resnet-cifar-20", "--architecture", "fb_preresnet_cifar_8_b"]
    assert run(data, tmp_path / "same", *kind, *more, "--lr", "0") == 0
    start_weights = weights(tmp_path / "same", "init")
    learned = {key: one for key, one in start_weights.items() if "running" not in key}
    got = weights(tmp_path / "same")
    assert {key: got[key] for key in learned} == learned


@pytest.mark.parametrize(
    "more",
    [
        ["--amp", "bf16", "--channels-last"],
        ["--ema", "0.5", "--label-smoothing", "0.1", "--clip", "1"],
        ["--accumulate", "2", "--virtual-gpus", "4", "--statistics", "first"],
        ["--order", "balanced", "--draws", "80", "--last", "drop"],
        ["--bn-momentum", "1:0.1,2:0.5", "--aug-levels", "1:1,2:1", "--deterministic"],
        ["--tensorboard"],
    ],
    ids=lambda more: more[0],
)
def test_options_train(more: list[str], data: Path, tmp_path: Path) -> None:
    """Each option of the engine trains to the end, and what it leaves is verified."""
    assert run(data, tmp_path / "run", "--epochs", "1", *more) == 0
    assert load_pt(tmp_path / "run/best.pt").report.max_abs is not None
    if more == ["--tensorboard"]:
        assert list((tmp_path / "run").glob("events.out.tfevents*"))


def test_parts_of_a_batch_leave_the_statistics_of_slices(data: Path, tmp_path: Path) -> None:
    """Two devices' halves, computed one after the other, are the halves of one batch."""
    more = ["--epochs", "1", "--virtual-gpus", "2", "--lr", "0"]
    found = []
    for name, accumulate in (("slices", "1"), ("parts", "2")):
        assert run(data, tmp_path / name, *more, "--accumulate", accumulate) == 0
        found.append(load_snapshot(tmp_path / name / "snapshot.pt").network)
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-5, atol=1e-6)


class TwoHeads(nn.Module):
    """A network with a head that only training computes."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.aux = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        flat = images.flatten(1)
        return (self.main(flat), self.aux(flat)) if self.training else self.main(flat)


def test_a_process_without_images_gives_every_gradient() -> None:
    """Others wait for the gradients of a head, too, that only training computes."""
    network = TwoHeads()
    place = Processes(0, 2, torch.device("cpu"))
    found = SimpleNamespace(
        recipe=find("fashion-mnist"), processes=place, network=network, computes=network
    )
    found.recipe = replace(found.recipe, amp="none")
    none = torch.zeros(0, dtype=torch.int64)
    sums = training.backward(found, torch.zeros(0, 3, 2, 2), none, 4)  # type: ignore[arg-type]
    assert sums.tolist() == [0, 0, 0, 0]
    assert [one.grad is not None and not one.grad.any() for one in network.parameters()] == [
        True
    ] * 4
    assert network.training


def write_folders(root: Path) -> Path:
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(256, size=(40, 48, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    for split in ("train", "val"):
        (root / split / "bee" / "3.png").write_bytes(b"no picture")
    return root


def test_an_unreadable_image_is_named_or_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends the run by its name; asked to, the run goes on, and says how many there were."""
    data = write_folders(tmp_path / "data")
    more = ["--classes", "2", "--batch-size", "8", "--epochs", "1"]
    said = refused(capsys, run(data, tmp_path / "run", *more))
    assert "3.png" in said
    assert "--on-bad skip" in said
    assert run(data, tmp_path / "run", *more, "--on-bad", "skip") == 0
    said = capsys.readouterr().err
    assert f"warning: 1 images of training could not be read: {data}/train/bee/3.png: " in said
    assert f"warning: 1 images of validation could not be read: {data}/val/bee/3.png" in said
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    warnings = [line for line in lines if line["kind"] == "warning"]
    assert [line["text"] for line in warnings] == [
        "training: 1 images unread",
        "validation: 1 images unread",
    ]
    assert [len(line["images"]) for line in warnings] == [1, 1]
    assert "train/bee/3.png" in warnings[0]["images"][0]


def test_damaged_records_are_left_out_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--on-bad skip` does what the refusal says it does, in training and in evaluation."""
    images = write_folders(tmp_path / "images")
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "val"):
        (images / split / "bee/3.png").unlink()
        files = sorted((images / split).glob("*/*.png"))
        with RecordWriter(data / f"{split}.rec", tmp_path / "unused.idx") as writer:
            for number, path in enumerate(files):
                label = float(path.parent.name == "bee")
                writer.write(number, packed([label], number, path.read_bytes()))
        with (data / f"{split}.rec").open("r+b") as file:
            file.write(b"torn")
    flags = ["--data", str(data), "--workers", "0", "--device", "cpu"]
    more = ["--classes", "2", "--batch-size", "8", "--epochs", "1"]
    assert "--on-bad skip leaves out" in refused(capsys, run(data, tmp_path / "run", *more))
    more += ["--on-bad", "skip"]
    assert training.main([*flags, *more, "--explain"]) == 0
    assert run(data, tmp_path / "run", *more) == 0
    said = capsys.readouterr().err
    assert f"warning: {data}/train.rec: 1 damaged records are left out: byte 0: " in said
    assert f"warning: {data}/val.rec: 1 damaged records are left out: byte 0: " in said
    evaluated = [*flags, "--model", str(tmp_path / "run/best.pt"), "--json"]
    assert "--on-bad skip leaves out" in refused(capsys, evaluation_main(evaluated))
    assert evaluation_main([*evaluated, "--on-bad", "skip"]) == 0
    assert "val.rec: 1 damaged records are left out" in capsys.readouterr().err


def test_weights_that_cannot_be_verified_do_not_end_a_run(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot goes on; only what would be written of those weights is missing, and said."""

    def refuse(*_: object) -> None:
        raise ParityError("not finite")

    with monkeypatch.context() as patch:
        patch.setattr(running, "checkpoint_of", refuse)
        assert run(data, tmp_path, "--epochs", "1") == 1  # at the end nothing could be written
    text = (tmp_path / "log.jsonl").read_text()
    assert "update 5: not finite; the file from before is whole" in text
    assert run(data, tmp_path, "--resume", "--allow", "recipe") == 0
    assert weights(tmp_path) == weights(whole)


@pytest.mark.slow
def test_an_mxnet_checkpoint_is_a_start(data: Path, tmp_path: Path) -> None:
    """`--retrain`, the seed's word, takes .params as they are."""
    file = golden("mxnet/resnet/cifar10-110-0000.params.xz")
    more = ["--recipe", "resnet-v2-cifar-110", "--architecture", "resnet_v2_cifar_110", "--lr", "0"]
    assert run(data, tmp_path / "run", *more, "--epochs", "1", "--retrain", str(file)) == 0
    given, got = (load_pt(tmp_path / f"run/{name}.pt").network.tensors for name in ("init", "last"))
    for name, array in given.items():  # as numbers: a step of 0 may turn the sign of a zero
        assert "running" in name or np.array_equal(got[name], array), name


@pytest.mark.slow
def test_a_compiled_network_trains(data: Path, tmp_path: Path) -> None:
    """`--compile` gives the same weights within rounding."""
    flags = ["--epochs", "1", "--lr", "1e-3"]
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        assert run(data, tmp_path / name, *flags, *more) == 0
    ours, theirs = (load_pt(tmp_path / one / "last.pt") for one in ("compiled", "plain"))
    for name, array in theirs.network.tensors.items():
        np.testing.assert_allclose(ours.network.tensors[name], array, rtol=1e-3, atol=1e-5)


def test_memonger_changes_no_bit(whole: Path, data: Path, tmp_path: Path) -> None:
    """Recomputed activations give the weights of the run without."""
    assert run(data, tmp_path / "less", "--memonger") == 0
    assert weights(tmp_path / "less") == weights(whole)


def test_lists_and_timelines_need_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` names every recipe with its error, `--explain` the edges of a schedule."""
    assert training.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in RECIPES)
    assert "24.407 / 7.407" in listed
    assert training.main(["--recipe", "resnet-v2-18", "--explain"]) == 0
    said = capsys.readouterr().out
    assert "150,121-300,240" in said
    assert "augmentation level 1, momentum dropped" in said


def test_a_timeline_is_of_the_images_that_are_there(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With data at hand its images make the epochs."""
    assert training.main(["--explain", "--data", str(data), "--batch-size", "16"]) == 0
    assert "5 epochs of 5 updates of 16 images: 25 updates" in capsys.readouterr().out
