"""The one command, which imports only what the chosen subcommand needs."""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from relume.__main__ import COMMANDS, EXAMPLES, GROUPS, main, parser_of
from tests.oracles import ROOT


def test_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`relume --help` is the whole product on one screen of 80 x 24, a prompt below it included."""
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and command.summary in printed for name, command in COMMANDS.items())
    lines = printed.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def test_every_command_is_in_one_group() -> None:
    """By what one wants; none is forgotten, none is there twice."""
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_examples_are_command_lines(line: str) -> None:
    """What the help says to type is taken by the commands' parsers."""
    _, name, *rest = line.split()
    assert parser_of(COMMANDS[name]).parse_args(rest)


def test_no_command_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the usage is shown, and the status says that nothing was done."""
    assert main([]) == 2
    assert "usage: relume COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not a command is said, with what is, or with what was meant."""
    assert main(["enlighten"]) == 2
    assert "no command enlighten; there are convert, inspect" in capsys.readouterr().err
    assert main(["convrt"]) == 2
    assert capsys.readouterr().err == "relume: no command convrt; did you mean convert?\n"
    assert main(["\x1b[2J"]) == 2
    assert "no command \\x1b[2J; there" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is the package's."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("relume 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(name: str) -> None:
    """Each subcommand explains itself, under its own name."""
    done = subprocess.run(
        [sys.executable, "-m", "relume", name, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"usage: relume {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_is_complete(name: str) -> None:
    """It begins with a sentence, ends with lines to type, and says what each flag is for."""
    found = parser_of(COMMANDS[name])
    assert re.match(r"[A-Z].*\.", found.description or "", re.DOTALL)
    title, *lines = (found.epilog or "").splitlines()
    assert title == "examples:"
    assert [line for line in lines if f"relume {name}" in line]
    assert list(silent(found, name)) == []


def silent(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    """Yield the arguments without a help; a recipe's fields have the one of their group."""
    for one in parser._actions:
        if isinstance(one, argparse._SubParsersAction):
            for word, below in one.choices.items():
                yield from silent(below, f"{name} {word}")
        elif not one.help and not one.dest.startswith("recipe_"):
            yield f"{name}: {one.dest}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_help_are_command_lines(name: str) -> None:
    """Each that calls the command has arguments that its parser takes."""
    found = parser_of(COMMANDS[name])
    for line in (found.epilog or "").splitlines():
        _, called, rest = line.partition(f"relume {name} ")
        if called:
            assert found.parse_args(shlex.split(rest.partition(" > ")[0], comments=True))


def test_inspect_loads_no_torch() -> None:
    """`relume inspect` answers without torch."""
    code = (
        "import sys; from relume.__main__ import main;"
        "main(['inspect', 'examples/efficientnet_lite0.t7', '--json']);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["parameters"] == 4_652_008
    assert found["without_rule"] == []


def test_a_missing_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where torch is not installed, as in the serving image, `convert` says what is missing."""
    monkeypatch.setitem(sys.modules, "converters.cli", None)
    assert main(["convert", "x.t7"]) == 1
    assert "has no package converters.cli: `. .venv/bin/activate`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["converters/t7_to_pt.py"], ["converters/pt_to_onnx.py"], ["-m", "service"]],
    ids=lambda command: command[-1],
)
def test_a_python_without_our_packages_is_told(command: list[str]) -> None:
    """Run by the system's Python, a doorway says how to get what it needs, without a traceback."""
    bare = [sys.executable, "-S", "-E", *command, "--help"]  # -S: no site-packages
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no package" in done.stderr
    assert "Traceback" not in done.stderr
