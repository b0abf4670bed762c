"""The compose file and the board of Grafana name what the service has."""

import json
import os
import re
import subprocess
import tomllib

import pytest

from service.observation import Metrics
from service.settings import KEYS
from tests.oracles import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
BOARD = json.loads((ROOT / "monitoring" / "board.json").read_text(encoding="utf-8"))
FIXED = {"CLASSIFY_HOST", "CLASSIFY_PORT"}  # the address within the container


def test_every_setting_is_handed_on() -> None:
    """Whoever sets a variable for the service alone can set it for the container."""
    assert set(re.findall(r"CLASSIFY_[A-Z_]*[A-Z]", COMPOSE)) == set(KEYS.values()) - FIXED


def test_the_image_can_hold_what_settings_ask_for() -> None:
    """The build argument takes extras, as many as one likes, and Compose hands it on."""
    command = re.search(r"python -c .*?(?= > runtime\.txt)", DOCKERFILE, re.DOTALL)
    assert command is not None
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for given in ("", "openvino tracing"):
        environ = {"PATH": os.environ["PATH"], "RUNTIME": "cpu", "EXTRAS": given}
        ran = subprocess.run(
            ["sh", "-c", command[0]], cwd=ROOT, env=environ, capture_output=True, check=True
        )
        names = ["cpu", *given.split()]
        wanted = [one for name in names for one in extras["optional-dependencies"][name]]
        assert ran.stdout.decode().splitlines() == wanted
    assert COMPOSE.count("EXTRAS: ${RELUME_EXTRAS:-}") == COMPOSE.count("RUNTIME: ") == 2


@pytest.mark.parametrize("stage", ["serve", "convert"])
def test_images_say_what_they_are(stage: str) -> None:
    """Labels of the Open Container Initiative, whose version and revision the build is given.

    Source: opencontainers/image-spec annotations.md.
    """
    _, _, after = DOCKERFILE.partition(f"FROM python:3.12-slim AS {stage}\n")
    text = after.partition("\nFROM ")[0]
    labels = dict(re.findall(r"org\.opencontainers\.image\.(\w+)=(\S+)", text))
    for name in ("version", "revision", "source"):
        assert labels[name] == f"${name.upper()}"
        assert re.search(rf"^ARG .*\b{name.upper()}=", text, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert labels["licenses"] == f'"{project["license"]}"'
    assert labels["title"].startswith('"relume')
    assert labels["description"]


def test_what_the_image_copies_reaches_the_build() -> None:
    """.dockerignore lets in what a COPY names, and what the package declares as its licences."""
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = set(re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    assert {f"!{name}" for name in names} <= set(let_in)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert names >= {*project["license-files"], project["readme"]}


@pytest.mark.parametrize("panel", BOARD["panels"], ids=lambda panel: panel["title"])
def test_the_board_asks_for_figures_that_there_are(panel: dict[str, list[dict[str, str]]]) -> None:
    """Every name in a query is one that `/metrics` has."""
    page = Metrics().page().decode()
    known = set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
    known |= {f"{name}_{end}" for name in known for end in ("bucket", "sum", "count")}
    for target in panel["targets"]:
        names = set(re.findall(r"relume_\w+", target["expr"]))
        assert names
        assert names <= known


def test_every_figure_is_documented() -> None:
    """docs/deploying.md names each."""
    page = Metrics().page().decode()
    text = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^# TYPE (\w+?) (?:counter|gauge|histogram)", page, re.MULTILINE))
    missing = {name for name in names if name not in text and not name.endswith("_created")}
    assert missing == set()
