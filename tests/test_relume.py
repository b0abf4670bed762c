"""The one command, which imports only what the chosen subcommand needs."""

import json
import subprocess
import sys

import pytest

from relume.__main__ import COMMANDS, main
from tests.oracles import ROOT


def test_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`relume --help` is the whole product on one screen."""
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and command.summary in printed for name, command in COMMANDS.items())


def test_no_command_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the usage is shown, and the status says that nothing was done."""
    assert main([]) == 2
    assert "usage: relume COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not a command is said, with what is."""
    assert main(["enlighten"]) == 2
    assert "no command enlighten; there are convert, inspect" in capsys.readouterr().err


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
