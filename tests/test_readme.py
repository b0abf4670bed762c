"""Everything in the README is run, and what it claims is what the code says.

A command that takes minutes, or a machine that tests do not have, is run by another test; that one
is named here, and has to exist.
"""

import json
import lzma
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.architectures import ARCHITECTURES, create
from models.architectures.lineages import LINEAGES, renamed
from tests import mx_writer
from tests.oracles import ROOT, golden

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    re.sub(r"\s{2,}#.*", "", line[2:])
    for block in BLOCKS
    for line in block.splitlines()
    if line.startswith("$ ")
]
ELSEWHERE = {
    "make demo": ("tests/test_demo.py", "test_the_demo_converts_serves_and_classifies"),
    "make test": ("Makefile", "test: $(DEV)"),  # this very run
    "docker compose up": ("tests/test_compose.py", "test_every_setting_is_handed_on"),
}
DEFAULT = "python -m models.train"
SERVED = ("relume serve irv2.onnx", "curl -F img=@tench.jpg localhost:8000/classify")
RUN = [one for one in dict.fromkeys(COMMANDS) if one not in {*ELSEWHERE, *SERVED, DEFAULT}]
READY_S = 60
BEGUN_S = 120  # to the first updates, on a machine that does other things as well


@pytest.mark.parametrize(("file", "name"), ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_what_is_run_elsewhere_is(file: str, name: str) -> None:
    """The test that runs it is there."""
    assert name in (ROOT / file).read_text(encoding="utf-8")


def test_every_command_has_its_place() -> None:
    """Nothing is excused that the README does not say any more."""
    assert {*ELSEWHERE, *SERVED, DEFAULT} <= set(COMMANDS)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the checkout's own folders and the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("converters", "models", "service", "relume", "examples"):
        (folder / name).symlink_to(ROOT / name)
    program = folder / "bin"
    program.mkdir()
    for name, start in (("python", ""), ("relume", "-m relume ")):
        script = program / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {start}"$@"\n')
        script.chmod(0o755)
    packed = golden("torch7/irv2/irv2_full.t7.xz").read_bytes()
    (folder / "irv2.t7").write_bytes(lzma.decompress(packed))
    lineage = next(
        one
        for one in LINEAGES
        if (one.library, one.architecture) == ("Lornatang", "inception_v4_lornatang")
    )
    ours = create("inception_v4_lornatang").state_dict()
    theirs = {renamed(key, lineage.theirs()): tensor for key, tensor in ours.items()}
    torch.save({"state_dict": theirs}, folder / "inceptionv4.pth.tar")
    write_mxnet(folder, "resnet-152", "resnet18_v2")
    (folder / "tench.jpg").write_bytes((ROOT / "examples/cat.jpg").read_bytes())
    (folder / "pictures").mkdir()
    for picture in (ROOT / "examples").glob("*.jpg"):
        (folder / "pictures" / picture.name).write_bytes(picture.read_bytes())
    return folder


def write_mxnet(folder: Path, prefix: str, name: str) -> None:
    """Write a checkpoint of one of MXNet's own symbols, with numbers of no meaning."""
    zoo = json.loads(lzma.decompress(golden("mxnet/zoo/parameters.json.xz").read_bytes()))[name]
    numbers = np.random.default_rng(0)
    arrays = {}
    for key, (counted, shape) in zoo["parameters"].items():
        kind = "aux" if "running" in key else "arg"
        small = numbers.normal(0, 0.05, shape).astype(np.float32)
        arrays[f"{kind}:{counted}"] = small + 1 if key.endswith(("var", "gamma")) else small
    text = lzma.decompress(golden(f"mxnet/zoo/{name}-symbol.json.xz").read_bytes()).decode()
    folder.joinpath(f"{prefix}-symbol.json").write_text(text, encoding="utf-8")
    folder.joinpath(f"{prefix}-0000.params").write_bytes(mx_writer.params(arrays))


def environment(folder: Path) -> dict[str, str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}


def run(command: str, folder: Path) -> str:
    """Run it as it is typed, and return what it printed."""
    if command.startswith("relume convert"):
        command += " --force"  # it converts what the line before it has converted
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_command_runs(clone: Path) -> None:
    """In the order of the README, each leaving what the next ones need."""
    assert RUN[0] == "python converters/t7_to_pt.py irv2.t7"
    said = {command: run(command, clone) for command in RUN}
    assert "recognised by structure" in said[RUN[0]]
    assert "equal to the original's in float64" in said["relume verify irv2.t7"]
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code) == 1
    (clone / "go_on.py").write_text(code[0] + "print(spec.input.crop)\n")
    assert run("python go_on.py", clone) == "(299, 299)\n"


@pytest.fixture
def serving(clone: Path) -> Iterator[str]:
    """Serve as the README does, on another port, and return its address."""
    if not (clone / "irv2.onnx").exists():
        run(RUN[0], clone)
    command = [str(clone / "bin" / "relume"), *SERVED[0].split()[1:], "--port", "0"]
    with subprocess.Popen(
        command, cwd=clone, env=environment(clone), stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        end = time.monotonic() + READY_S
        for line in server.stderr:
            assert time.monotonic() < end
            if line.startswith("listening on "):
                yield line.split("//")[1].strip()
                break
        server.terminate()


@pytest.mark.slow
def test_curl_gets_five_classes(serving: str, clone: Path) -> None:
    """With what the README says is in the answer."""
    answer = json.loads(run(SERVED[1].replace("localhost:8000", serving), clone))
    assert len(answer["predictions"]) == 5
    assert set(answer["predictions"][0]) == {"index", "wnid", "label", "probability"}


@pytest.mark.slow
def test_training_without_arguments_begins(clone: Path) -> None:
    """At once, with nothing to prepare; its five epochs take minutes, so it is told to stop."""
    runs = clone / "runs"
    with subprocess.Popen(
        [str(clone / "bin" / "python"), *DEFAULT.split()[1:]],
        cwd=clone,
        env=environment(clone),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as training:
        end = time.monotonic() + BEGUN_S
        while not any(runs.glob("*/log.jsonl")) and time.monotonic() < end:
            time.sleep(0.2)
        training.send_signal(signal.SIGINT)
        said, _ = training.communicate(timeout=BEGUN_S)
    assert training.returncode == 130, said
    assert re.search(
        r"SIGINT: saved runs/\S+ at update \d+; the same command with --resume goes on", said
    )


TABLE = README[README.index("| your file |") : README.index("Published errors are")]
ROWS = [[cell.strip() for cell in row.split("|")[1:-1]] for row in TABLE.splitlines()[2:] if row]


def test_the_table_names_networks_that_there_are() -> None:
    """Each with the error that its architecture says was published."""
    found = 0
    for _, _, network, error, _ in ROWS:
        names = re.findall(r"`([a-z]\w+_\w+)`", network)
        found += len(names)
        assert all(name in ARCHITECTURES for name in names), network
        if names and error:
            published = ARCHITECTURES[names[0]].facts.published or ""
            assert published.startswith(error), names[0]
    assert found >= 9


def test_the_table_repeats_what_was_measured() -> None:
    """Its differences stand in the tables below, too."""
    below = README[README.index("## Measured") :].replace("**", "")
    for *_, difference in ROWS:
        for figure in re.findall(r"\d\.\de-\d\d", difference):
            assert figure in below, figure


@pytest.mark.slow
def test_the_picture_is_of_the_page(tmp_path: Path) -> None:
    """Taken again it has the same size; what it shows was looked at."""
    pytest.importorskip("playwright.sync_api")
    if not (os.environ.get("RELUME_CHROMIUM") or Path("/usr/bin/chromium").exists()):
        pytest.skip("needs chromium")
    taken = tmp_path / "page.png"
    command = [sys.executable, "examples/page.py", "-o", str(taken), "--artifacts", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with Image.open(taken) as new, Image.open(ROOT / "docs/page.png") as old:
        assert new.size == old.size
