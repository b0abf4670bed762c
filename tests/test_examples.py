"""The examples run as their documentation says, from a clean clone."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import compare, finetune
from examples.demo import DemoError
from examples.finetune import Picture
from tests.oracles import ROOT

LISTED = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


def run(name: str, *arguments: object) -> str:
    """Run an example as a user does, and return what it printed."""
    command = [sys.executable, f"examples/{name}.py", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda one: one.stem)
def test_every_example_is_listed_and_says_what_you_see(path: Path) -> None:
    """examples/README.md has it; its docstring has the command, or `make demo`."""
    assert f"`{path.name}`" in LISTED
    docstring = path.read_text(encoding="utf-8").partition('"""')[2].partition('"""')[0]
    assert f"python examples/{path.name}" in docstring


@pytest.mark.slow
def test_checkpoints_are_compared(tmp_path: Path) -> None:
    """The converted network is the same; one changed channel is found, by name, in its place."""
    printed = run("compare", "-o", tmp_path)
    assert re.findall(r"exit status (\d)", printed) == ["0", "0", "1", "0"]
    assert "weights differ in 1 of 247 tensors" in printed
    assert f"| {compare.CHANGED}" in printed
    assert "same network; same weights, to 0.5 of the largest" in printed


@pytest.mark.slow
def test_a_network_is_fine_tuned_and_served(tmp_path: Path) -> None:
    """From the Torch7 file to answers over HTTP in ten new classes, which ImageNet has not.

    So few images teach it little; how much the defaults do is in the example's documentation.
    """
    printed = run("finetune", "-o", tmp_path, "--images", 2, "--epochs", 1)
    assert "begin anew" in printed
    assert re.search(r"epoch 1/1 .* validation error", printed)
    lines = printed.partition("a picture of")[2].splitlines()
    rows = [re.split(r"  +", line.strip()) for line in lines[1:11]]
    classes = {path.name for path in (tmp_path / "data" / "train").iterdir()}
    assert {row[0] for row in rows} == classes
    assert not {row[1] for row in rows} & classes
    assert {row[2] for row in rows} <= classes
    assert re.search(r"\d+ of 10 held-out pictures right \(\d+%\); guessing gives 10%", printed)


def test_pictures_are_laid_out_for_training(tmp_path: Path) -> None:
    """Both parts have the same ten classes, so many pictures of each, and no leftovers."""
    for images in (3, 2):
        finetune.lay_out(tmp_path, {"train": images, "val": 1})
    folders = {split: sorted((tmp_path / split).iterdir()) for split in ("train", "val")}
    names = [one.name for one in folders["train"]]
    assert names == [one.name for one in folders["val"]]
    assert len(names) == 10
    assert {len(list(one.iterdir())) for one in folders["train"]} == {2}
    pictures = finetune.held_out(tmp_path)
    assert [one.name for one in pictures] == finetune.classes(pictures) == names
    with Image.open(pictures[0].path) as image:
        assert np.asarray(image).shape[2] == 3


def test_answers_stand_side_by_side() -> None:
    """A line for each picture; of ImageNet's several names for a class the first is shown."""
    pictures = [Picture(Path("1.png"), "Coat"), Picture(Path("2.png"), "Ankle boot")]
    assert finetune.table(pictures, ["cloak", "clog, geta"], ["Coat", "Sandal"]).splitlines()[
        1:
    ] == [
        "  a picture of  before  after",
        "  Coat          cloak   Coat",
        "  Ankle boot    clog    Sandal",
    ]


def test_a_command_that_fails_ends_an_example() -> None:
    """The status that was not expected is said; the command itself has said why."""
    with pytest.raises(DemoError, match="relume inspect ended with status 1"):
        finetune.relume("inspect", "nothing.t7")
    with pytest.raises(DemoError, match="relume diff: status 2, expected 0"):
        compare.relume("diff", "nothing.t7", "nothing.t7")
