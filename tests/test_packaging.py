"""What the package says of itself agrees with itself."""

import re
import subprocess
import tomllib
from pathlib import Path

from relume import __version__
from tests.oracles import ROOT

PYPROJECT = tomllib.loads(
    (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
)


def test_the_serving_image_installs_what_the_package_asks_for() -> None:
    """The group `serve` repeats lines of the dependencies, unchanged, and has no torch."""
    serve = PYPROJECT["dependency-groups"]["serve"]
    assert set(serve) <= set(PYPROJECT["project"]["dependencies"])
    assert not [line for line in serve if line.startswith("torch")]


def test_the_pages_of_errors_are_in_the_package() -> None:
    """`relume explain` finds them where relume is installed, as in a clone and in the images."""
    root = Path(__file__).resolve().parents[1]
    pages = root / "relume" / "pages"
    assert pages.resolve() == root / "docs" / "errors"
    assert PYPROJECT["tool"]["setuptools"]["package-data"]["relume.pages"] == ["*.md"]
    built = (root / "Dockerfile").read_text(encoding="utf-8")
    stages = built.count("COPY relume relume\n")
    assert built.count("COPY docs/errors docs/errors\n") == stages > 0
    assert "!docs/errors\n" in (root / ".dockerignore").read_text(encoding="utf-8")


def test_no_extra_repeats_a_dependency() -> None:
    """What everybody installs is said once."""
    project = PYPROJECT["project"]
    always = {_name(line) for line in project["dependencies"]}
    for extra, lines in project["optional-dependencies"].items():
        assert not always & {_name(line) for line in lines}, extra


def test_what_images_install_names_no_other_extra() -> None:
    """The Dockerfile hands the lines of EXTRAS to pip, which would ask PyPI for relume."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    for extra in extras.keys() - {"dev"}:
        assert "relume" not in map(_name, extras[extra]), extra


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def test_the_version_stands_in_one_place() -> None:
    """The package reads it from `relume`, and Makefile gets the same from there for the images."""
    assert "version" in PYPROJECT["project"]["dynamic"]
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "relume.__version__"}
    said = subprocess.run(
        ["make", "--dry-run", "image"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"--tag relume:{__version__} --build-arg VERSION={__version__} " in said.stdout
    assert re.search(r"--build-arg REVISION=[0-9a-f]{40}\b", said.stdout)


def test_bundled_data_has_its_notice() -> None:
    """What is not Python and comes with the packages, or is by others, is named in NOTICE."""
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for path in (ROOT / "models" / "labels").glob("*.txt"):
        assert path.relative_to(ROOT).as_posix() in notice
    for name in ("examples/efficientnet_lite0.t7", "examples/*.jpg", "tests/golden"):
        assert name in notice
    pictures = (ROOT / "examples" / "NOTICE.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.jpg"):
        assert f"`{path.name}`" in pictures
