"""A shell that has read the script completes what the parsers take."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import shtab

from models.presets import PRESETS
from models.recipes import RECIPES
from relume import completion
from relume.__main__ import COMMANDS, main, parser_of
from relume.bulk import recordio, tables, tars
from relume.completion import CONTAINERS, FOLDERS, SHELLS, SUFFIXES, whole, words
from relume.explain import pages

# Runs the completion of a line, as bash does when Tab is pressed at its end.
PRESS_TAB = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_relume relume "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `relume completion bash` prints, as a file."""
    path = tmp_path_factory.mktemp("completion") / "relume.bash"
    path.write_text(shtab.complete(whole(shtab), "bash"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one of each, in which the shell is."""
    for name in ("irv2.t7", "irv2.pt", "irv2.onnx", "net-symbol.json", "cat.jpg", "notes.txt"):
        (tmp_path / name).touch()
    for ending in ("params", "rec", "parquet", "pq", "tar", "tgz"):
        (tmp_path / f"a.{ending}").touch()
    (tmp_path / "pictures").mkdir()
    return tmp_path


def completed(script: Path, folder: Path, *line: str) -> set[str]:
    """Return what bash offers for the last word of a line."""
    done = subprocess.run(
        ["bash", "-uc", PRESS_TAB, "bash", str(script), *line],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["c"], {"convert", "classify", "completion"}),
        (["--v"], {"--version"}),
        (["convert", ""], {"irv2.t7", "a.params", "a.tar", "pictures"}),
        (["convert", "irv2.t7", "--verify", ""], {"standard", "full", "none"}),
        (["convert", "irv2.t7", "--input", "torch-2"], {"torch-224", "torch-299"}),
        (["convert", "a.params", "--symbol", ""], {"net-symbol.json", "pictures"}),
        (["convert", "irv2.t7", "-o", ""], {"pictures"}),
        (["convert", "irv2.t7", "--no"], {"--no-onnx"}),
        (["classify", ""], {"cat.jpg", "a.rec", "a.parquet", "a.pq", "a.tar", "a.tgz", "pictures"}),
        (["diff", "irv2.t7", ""], {"irv2.t7", "irv2.pt", "a.params", "a.tar", "pictures"}),
        (["diff", "irv2.t7", "irv2.pt", "--input", "torch-2"], {"torch-224", "torch-299"}),
        (["classify", "--model", ""], {"irv2.onnx", "irv2.pt", "pictures"}),
        (["serve", "--engine", ""], {"onnxruntime", "openvino"}),
        (["serve", "--models", ""], {"pictures"}),
        (["verify", "irv2.onnx", "--precision", "b"], {"bf16"}),
        (["data", "c"], {"cifar10", "cifar100", "caltech101", "caltech256", "check"}),
        (["data", "split", "pictures", "--at"], {"--at-least"}),
        (["train", "--recipe", "irv2-s"], {"irv2-setting1", "irv2-setting2", "irv2-setting3"}),
        (["train", "--amp", ""], {"none", "bf16", "fp16"}),
        (["explain", "im"], {"image-error", "image-too-large"}),
        (["completion", "z"], {"zsh"}),
    ],
    ids=lambda words: " ".join(sorted(words) if isinstance(words, set) else words),
)
def test_bash_offers(line: list[str], offered: set[str], script: Path, folder: Path) -> None:
    """Commands, flags, choices, files by their suffix, folders, presets, recipes and pages."""
    if line[-1] == "torch-2":
        offered = {name for name in PRESETS if name.startswith("torch-2")}
    assert completed(script, folder, "relume", *line) == offered


def test_every_command_and_flag_is_offered(script: Path, folder: Path) -> None:
    """Nothing that a parser takes is forgotten."""
    assert completed(script, folder, "relume", "") >= COMMANDS.keys()
    for name, command in COMMANDS.items():
        flags = {flag for one in parser_of(command)._actions for flag in one.option_strings}
        assert completed(script, folder, "relume", name, "-") == flags, name


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_read_its_script(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the shell is installed it finds no fault; everywhere each command is in it."""
    assert main(["completion", shell]) == 0
    written = capsys.readouterr().out
    assert all(name in written for name in COMMANDS)
    path = tmp_path / "script"
    path.write_text(written)
    if there := shutil.which(shell):
        done = subprocess.run([there, "-n", str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_what_is_marked_is_there() -> None:
    """Every argument that files, folders or words are known of is one of the command's parser."""
    for name, dest in (*SUFFIXES, *FOLDERS, *words()):
        found = parser_of(COMMANDS[name])
        assert dest in {one.dest for one in found._actions}, (name, dest)


def test_the_words_are_those_that_the_commands_know() -> None:
    """Presets, recipes and pages come from where the commands take them."""
    known = words()
    for name in ("convert", "verify", "diff"):
        assert set(known[name, "input"]) == {*PRESETS, "none"}
    assert set(known["train", "recipe"]) == set(RECIPES)
    assert set(known["explain", "name"]) == set(pages())


def test_containers_are_those_that_are_classified() -> None:
    """Every ending of a file that holds many images."""
    endings = (*recordio.ENDINGS, *tables.ENDINGS, *tars.ENDINGS)
    assert set(CONTAINERS) == {f"*{one}" for one in endings}


def test_a_command_without_its_packages_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no torch, the rest is completed."""
    monkeypatch.setitem(sys.modules, "models.train", None)
    made = whole(shtab)
    (commands,) = (one for one in made._actions if isinstance(one, argparse._SubParsersAction))
    assert commands.choices.keys() == COMMANDS.keys()
    flags = {flag for one in commands.choices["train"]._actions for flag in one.option_strings}
    assert flags == {"-h", "--help"}


def test_without_shtab_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The serving image does not hold it."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert completion.main(["bash"]) == 1
    assert "has no package shtab" in capsys.readouterr().err
