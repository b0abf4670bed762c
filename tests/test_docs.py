"""The documents say what the code does."""

import re
from pathlib import Path

import pytest

from converters import cli
from docs import layers, mxnet
from models import errors
from models.presets import PRESETS
from relume import precision
from relume.__main__ import COMMANDS
from service import server
from service.app import create_app
from service.problems import KINDS
from service.settings import KEYS, Settings
from tests.oracles import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*.md"),
    ]
)
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def flags(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return every long flag of the converters."""
    found: set[str] = set()
    for main in (cli.convert, cli.pt_to_onnx, cli.verify):
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        found |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    return found - {"--help", "--out"}


def test_every_flag_is_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that nobody can read about is not there."""
    assert [flag for flag in sorted(flags(capsys)) if flag not in TEXT] == []


@pytest.mark.parametrize("name", [*PRESETS, *KEYS.values(), *COMMANDS])
def test_every_preset_setting_and_command_is_in_the_docs(name: str) -> None:
    """Names that users type are written down."""
    assert name in TEXT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    """A link to a file is a link to a file that exists."""
    for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:converters|models|service|tests)/[\w/]+\.py)`", TEXT)))
)
def test_files_named_in_the_docs_exist(path: str) -> None:
    """A file that a document names is where it says."""
    assert (ROOT / path).exists()


def test_the_table_of_layers_is_current() -> None:
    """docs/layers.md is what `python -m docs.layers` writes."""
    assert layers.TARGET.read_text(encoding="utf-8") == layers.page()


def test_the_table_of_operators_is_current() -> None:
    """docs/mxnet.md is what `python -m docs.mxnet` writes."""
    assert mxnet.TARGET.read_text(encoding="utf-8") == mxnet.page()


def test_the_error_tree_is_whole() -> None:
    """Every error class of models is drawn, with the class that it derives from."""
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    assert all(one.__name__ in str(errors.__doc__) for one in classes if issubclass(one, Exception))


@pytest.mark.parametrize("name", KINDS)
def test_every_problem_is_in_the_docs(name: str) -> None:
    """With the status that it has."""
    assert f"| `{name}` | {KINDS[name].status} |" in TEXT


@pytest.mark.parametrize("path", sorted(create_app(Settings()).openapi()["paths"]))
def test_every_path_is_in_the_docs(path: str) -> None:
    """A path that nobody can read about is not there."""
    page = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    assert path.replace("/versions/{version}", "") in page


def test_every_flag_of_the_service_is_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of `relume serve`, `relume quantize` and `relume verify --precision`."""
    page = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    found: set[str] = set()
    for main in (server.main, precision.quantize, precision.verify):
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        found |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert [flag for flag in sorted(found - {"--help", "--out"}) if flag not in page] == []
