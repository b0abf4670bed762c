"""Tests of docs/commands.py, and of what the documents tell people to type."""

import re
from functools import cache
from pathlib import Path

import pytest

from docs.commands import SUBCOMMAND, help_of, page
from relume.__main__ import COMMANDS
from tests.oracles import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
TYPED = re.compile(r"^(?:\$ )?relume ([a-z]+)\b(.*)$", re.MULTILINE)


@cache
def sections() -> dict[str, str]:
    """Return what the page says of each command, its subcommands included."""
    parts = re.split(r"^## relume (\S+)\n", page(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def typed() -> list[tuple[str, str, str]]:
    """Return page, command and the rest of each line that a block tells to type."""
    found = []
    for path in PAGES:
        for block in FENCE.findall(path.read_text(encoding="utf-8")):
            lines = TYPED.findall(block.replace("\\\n", " "))
            found += [(path.name, name, rest.partition(" # ")[0]) for name, rest in lines]
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_its_help(name: str) -> None:
    """The page cannot go stale: it is what the command answers."""
    assert f"usage: relume {name}" in sections()[name]


def test_subcommands_have_sections() -> None:
    """`relume data check` says more of itself."""
    assert "### relume data check\n" in sections()["data"]
    assert "usage: relume data check" in sections()["data"]
    assert SUBCOMMAND.findall("  WHAT\n    check   count\n                two\n") == ["check"]


def test_a_line_of_help_fits_its_block() -> None:
    """Nobody scrolls sideways, whatever the terminal that the site was built in."""
    assert max(map(len, help_of("convert").splitlines())) <= 88


@pytest.mark.parametrize("line", sorted(set(typed())), ids=lambda line: "-".join(line[:2]))
def test_what_pages_tell_to_type_exists(line: tuple[str, str, str]) -> None:
    """Each command is one, and each of its flags is in its help."""
    _, name, rest = line
    assert name in COMMANDS
    flags = re.findall(r"(?<!\S)--?[A-Za-z][\w-]*", rest)
    assert [flag for flag in flags if not re.search(rf"{flag}\b", sections()[name])] == []


def test_there_are_such_lines() -> None:
    """The table above is not empty by mistake."""
    assert len(typed()) > 40
    assert ("getting-started.md", "inspect") in [line[:2] for line in typed()]


def test_pages_are_found() -> None:
    """Those of folders, too."""
    assert ROOT / "docs" / "faq.md" in PAGES
    assert all(isinstance(one, Path) for one in PAGES)
