"""Every error leads to a page, and every page says what the code says."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import examples.demo
import service.pipeline
import service.problems
import service.settings
from models.errors import LegacyModelError
from relume import explain
from relume.__main__ import main
from relume.explain import matching, meaning, pages
from tests.oracles import ROOT

PAGES = pages()
FOLDER = ROOT / "docs" / "errors"
SOURCES = sorted(
    path
    for room in ("converters", "models", "service", "relume", "examples")
    for path in (ROOT / room).rglob("*.py")
)
ELSEWHERE = (examples.demo, service.pipeline, service.problems, service.settings)
LETTERS = (
    6  # of its own that a message has to have: `{path}: {error}` would match whatever there is
)
COLUMNS = 100  # of a page's prose; messages are as long as they are


def classes() -> dict[str, type[LegacyModelError]]:
    """Return every class under LegacyModelError, by its name."""

    def below(one: type[LegacyModelError]) -> list[type[LegacyModelError]]:
        return [two for child in one.__subclasses__() for two in (child, *below(child))]

    return {one.__name__: one for one in below(LegacyModelError) if "tests" not in one.__module__}


def test_every_class_was_found() -> None:
    """What the sources define is what was imported: no class can hide in a module of its own."""
    assert all(vars(module) for module in ELSEWHERE)
    defined: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                defined[node.name] = [ast.unparse(base) for base in node.bases]
    known = {"LegacyModelError"}
    while more := {name for name, bases in defined.items() if known & set(bases)} - known:
        known |= more
    assert classes().keys() == known - {"LegacyModelError"}


def test_every_class_has_a_page_and_every_page_a_class() -> None:
    """The page's name follows from the class; nothing is borrowed from a parent."""
    assert {one.page() for one in classes().values()} == PAGES.keys()


@pytest.mark.parametrize("name", sorted(classes()))
def test_a_page_has_what_a_page_needs(name: str) -> None:
    """Title, meaning in one sentence, messages, causes with cures, and what to report."""
    text = PAGES[classes()[name].page()]
    assert text.startswith(f"# {name}\n\n")
    assert re.fullmatch(r"[^.]+(\.\w[^.]*)*\.", meaning(text).replace("...", "")), "one sentence"
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Messages",
        "Causes and cures",
        "To report it",
    ]
    prose = re.sub(r"```text\n.*?```", "", text, flags=re.DOTALL)
    assert max(map(len, prose.splitlines())) <= COLUMNS


def test_the_index_lists_every_page_with_its_meaning() -> None:
    """docs/errors/index.md and `relume explain` say the same."""
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([\w-]+)\]\(([\w-]+)\.md\) \| (.*) \|$", index, re.MULTILINE)
    assert rows == [(name, name, meaning(text)) for name, text in PAGES.items()]


def pattern(node: ast.expr) -> str:
    """Return what matches the text that an expression gives: its constant parts, in order."""
    match node:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(map(pattern, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return pattern(left) + pattern(right)
        case _:
            return ".*"


def raised(call: ast.Call) -> str:
    """Return what matches the message of an error that is made so."""
    given = {one.arg: pattern(one.value) for one in call.keywords}
    parts = [pattern(one) for one in call.args]
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name == "FormatError":
        place = f"byte {parts[1]}" if parts[1].isdecimal() else parts[1]
        return f"{parts[0]}: {place}: found {given['found']}, expected {given['expected']}"
    if name == "UnsupportedLayer":
        return rf"{parts[0]}: \d+ layers? cannot be converted exactly: .*"
    if name == "WeightMismatch":
        return f"{parts[0]}: tensors do not match: .*"
    return parts[-1]


def templates() -> dict[str, list[str]]:
    """Return the patterns of all messages that the code can make, by class."""
    found = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in classes()
            ):
                found[node.func.id].append(raised(node))
    return found


@pytest.mark.parametrize("name", sorted(classes()))
def test_the_messages_of_a_page_are_the_code_s(name: str) -> None:
    """A message that is reworded is reworded on its page."""
    known = [one for one in templates()[name] if len(re.findall(r"[a-z]", one)) >= LETTERS]
    shown = re.findall(r"```text\n(.*?)\n```", PAGES[classes()[name].page()], re.DOTALL)
    lines = [line for block in shown for line in block.splitlines()]
    assert len(lines) >= 2
    assert [one for one in lines if not any(re.fullmatch(text, one) for text in known)] == []


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("format-error", "format-error"),
        ("FormatError", "format-error"),
        ("format_error", "format-error"),
        ("format", "format-error"),
        ("image", "image-error"),  # and not image-too-large, which begins so as well
        ("image-too", "image-too-large"),
        ("UnsupportedLayer", "unsupported-layer"),
        ("models.errors.FormatError", "format-error"),
        ("re", None),  # of several
        ("", None),
        ("fromat-error", None),
    ],
)
def test_a_name_in_any_form(name: str, page: str | None) -> None:
    """A page's name, a class's, with its module or not, or a beginning that only one has."""
    assert matching(name, PAGES) == page


def test_a_page_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As it was written."""
    assert main(["explain", "FormatError"]) == 0
    assert capsys.readouterr().out == (FOLDER / "format-error.md").read_text(encoding="utf-8")


def test_without_a_name_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its meaning, on a line of its own."""
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PAGES)
    assert lines[0].endswith(meaning(PAGES["artifact-error"]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fromat-error", "no page fromat-error; did you mean format-error?"),
        ("wieghtmismatch", "no page wieghtmismatch; did you mean weight-mismatch?"),
        ("xyz", "no page xyz; `relume explain` lists them\n"),
    ],
)
def test_a_wrong_name_is_usage(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the page that was meant, where one is like it."""
    with pytest.raises(SystemExit, match="2"):
        explain.main([name])
    assert said in capsys.readouterr().err


def test_an_error_s_line_leads_to_its_page(tmp_path: Path) -> None:
    """What the last line of a failure says to type prints the page."""
    path = tmp_path / "x.t7"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    failed = relume("inspect", str(path))
    assert failed.returncode == 1
    (command,) = re.findall(r" \(relume (explain [\w-]+)\)\n$", failed.stderr)
    assert relume(*command.split()).stdout.startswith("# FormatError\n")


def relume(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "relume", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
