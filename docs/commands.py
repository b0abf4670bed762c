"""The page of the command line, from what each command answers to --help."""

import io
import re
import sys
from contextlib import redirect_stdout, suppress
from unittest.mock import patch

from relume.__main__ import COMMANDS, main

WIDTH = "88"  # columns; argparse breaks its lines there
SUBCOMMAND = re.compile(r"^ {4}([a-z][a-z0-9-]*)(?:\s|$)", re.MULTILINE)  # argparse's layout

HEAD = """\
# Command line

What `--help` says. A command ends with status 0, with 1 and a line on stderr where something is
wrong with a file, and with 2 where something is wrong with the command line.
"""


def page() -> str:
    """Return the page: a section for each command, and in it one for each of its subcommands."""
    sections = [HEAD, _fenced(help_of())]
    for name, command in COMMANDS.items():
        text = help_of(name)
        summary = command.summary[0].upper() + command.summary[1:]
        sections += [f"## relume {name}\n", f"{summary}.\n", _fenced(text)]
        for sub in SUBCOMMAND.findall(text):
            sections += [f"### relume {name} {sub}\n", _fenced(help_of(name, sub))]
    return "\n".join(sections)


def help_of(*words: str) -> str:
    """Return what `relume WORDS --help` prints."""
    printed = io.StringIO()
    with (
        patch.dict("os.environ", COLUMNS=WIDTH),
        patch.object(sys, "argv", ["relume"]),
        redirect_stdout(printed),
        suppress(SystemExit),
    ):
        main([*words, "--help"])
    return printed.getvalue()


def _fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"
