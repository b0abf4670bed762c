"""What docs/getting-started.md and others tell a newcomer to type is typed here."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracles import ROOT

WALK_S = 300  # half a minute, under load a multiple of that
START = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
PROGRAM = "from relume.__main__ import main; import sys; sys.exit(main())"
EACH = "import sys; [exec(code, {}) for code in sys.argv[1:]]"  # alone, but for what is imported
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def run(folder: Path, *words: str) -> str:
    """Return what a program prints that has to end well."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=WALK_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def steps() -> list[tuple[str, list[str]]]:
    """Return each `relume` line of the page, and what the page shows below it."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", START, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *shown = part.splitlines()
            if line.startswith("relume "):
                found.append((line, shown))
    return found


def blocks(page: str) -> list[str]:
    """Return the Python of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_first_steps_do_what_the_page_shows(tmp_path: Path) -> None:
    """Each command ends well and prints the lines below it, and the Python of three pages runs.

    Lines that are shortened, or whose last digits are the machine's, are not compared; serving is
    `make demo`'s test.
    """
    for name in ("efficientnet_lite0.t7", "cat.jpg", "coffee.jpg"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    for line, shown in steps():
        if line.startswith("relume serve"):
            continue
        printed = run(tmp_path, "-c", PROGRAM, *shlex.split(line)[1:]).splitlines()
        exact = [one for one in shown if "..." not in one and "e-" not in one]
        wanted = [one.replace("/tmp/", f"{tmp_path}/") for one in exact]
        assert [one for one in wanted if one not in printed] == []
    pages = ("getting-started.md", "leaving.md", "api.md")
    run(tmp_path, "-c", EACH, *(code for page in pages for code in blocks(page)))


def test_the_page_has_steps() -> None:
    """The walk above is not empty by mistake."""
    lines = [line for line, _ in steps()]
    assert [line.split()[1] for line in lines] == [
        "doctor",
        "inspect",
        "convert",
        "verify",
        "classify",
        "serve",
    ]
    assert all(blocks(page) for page in ("getting-started.md", "leaving.md", "api.md"))
