"""What a release consists of, as `make dist` has built it: wheel, source, installed, materials."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from relume import __version__
from tests.oracles import ROOT

pytestmark = pytest.mark.dist

DIST = ROOT / "dist"
INSTALLED = ROOT / "build" / "installed" / "bin"
PACKAGES = {"converters", "models", "relume", "service"}
WHEEL = f"relume-{__version__}-py3-none-any.whl"
SOURCE = f"relume-{__version__}.tar.gz"
BILL = f"relume-{__version__}.cdx.json"
LARGEST = 2_000_000  # bytes of the wheel, four times what it has: no checkpoint slipped in
DATA = {".txt", ".html", ".md", ".typed"}  # endings besides .py that packages have


@pytest.fixture(scope="module")
def wheel() -> set[str]:
    """The files of the wheel."""
    with zipfile.ZipFile(built(WHEEL)) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files of the repository, and those of a folder that is a link in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split("\0") if name]
    links = [name for name in names if (ROOT / name).is_dir()]
    behind = [f"{name}/{one.name}" for name in links for one in (ROOT / name).iterdir()]
    return {*names, *behind} - {*links}


def built(name: str) -> Path:
    """Return a file of the release; skip the test where none has been built."""
    if not DIST.exists():
        pytest.skip("no dist: `make dist` builds it")
    return DIST / name


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of the empty environment, from a folder without relume's sources."""
    built(WHEEL)
    program, *arguments = command
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        [str(INSTALLED / program), *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_wheel_has_four_packages_and_nothing_else(wheel: set[str]) -> None:
    """No stray top-level name lands in anybody's site-packages, no test, no checkpoint."""
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == PACKAGES | {f"relume-{__version__}.dist-info"}
    code = [name for name in wheel if name.partition("/")[0] in PACKAGES]
    assert {Path(name).suffix for name in code} <= {".py", *DATA}
    assert built(WHEEL).stat().st_size < LARGEST


def test_every_file_of_the_packages_is_in_the_wheel(wheel: set[str], tracked: set[str]) -> None:
    """Labels, pages and whatever else the packages read is there, not only what is Python."""
    assert {name for name in tracked if name.partition("/")[0] in PACKAGES} <= wheel


def test_a_wheel_of_the_checkout_is_the_same(wheel: set[str], tmp_path: Path) -> None:
    """Which is what `pip install .` makes: with git's files at hand, and no source archive."""
    built(WHEEL)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(tmp_path / WHEEL) as archive:
        assert set(archive.namelist()) == wheel


def test_the_wheel_has_its_licences() -> None:
    """The licence, and the notices of what is bundled, come with it as its metadata says."""
    with zipfile.ZipFile(built(WHEEL)) as archive:
        inside = f"relume-{__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{inside}/METADATA").decode())
        assert metadata["License-Expression"] == "Apache-2.0"
        assert metadata["Version"] == __version__
        assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(f"{inside}/licenses/{name}") == (ROOT / name).read_bytes()


def test_the_source_is_the_repository(tracked: set[str]) -> None:
    """Who has the source distribution has everything: tests, documents, examples, licences."""
    with tarfile.open(built(SOURCE)) as archive:
        files = [one.name for one in archive.getmembers() if one.isfile()]
    names = {name.partition("/")[2] for name in files}
    assert tracked <= names
    made = {name.partition("/")[0] for name in names - tracked}
    assert made == {"PKG-INFO", "setup.cfg", "relume.egg-info"}


def test_the_bill_of_materials_names_everything_installed() -> None:
    """Name, version and licence of every package, and nothing of the machine it was made on."""
    text = built(BILL).read_text(encoding="utf-8")
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX"
    listed = subprocess.run(
        [str(INSTALLED / "python"), "-m", "pip", "list", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    there = {_plain(one["name"]): one["version"] for one in json.loads(listed.stdout)}
    assert {_plain(one["name"]): one["version"] for one in bill["components"]} == there
    (ours,) = (one for one in bill["components"] if one["name"] == "relume")
    assert ours["version"] == __version__
    assert "Apache-2.0" in json.dumps(ours["licenses"])
    assert str(ROOT) not in text
    assert "serialNumber" not in bill


def _plain(name: str) -> str:
    """Return a package's name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_part_has_the_one_version(tmp_path: Path) -> None:
    """`relume/__init__.py` has it; the command, the doctor and the service's description repeat it.

    Source distribution, wheel and bill have it in their names, which the other tests open.
    """
    assert run(tmp_path, "relume", "--version").stdout == f"relume {__version__}\n"
    report = json.loads(run(tmp_path, "relume", "doctor", "--json").stdout)
    assert report["version"] == __version__
    described = "from service.app import create_app; from service.settings import Settings; "
    described += "print(create_app(Settings()).openapi()['info']['version'])"
    assert run(tmp_path, "python", "-c", described).stdout == f"{__version__}\n"


def test_what_needs_no_torch_works_without_it(tmp_path: Path) -> None:
    """Installed alone, with what serving needs, it inspects a checkpoint and serves."""
    example = ROOT / "examples" / "efficientnet_lite0.t7"
    done = run(tmp_path, "relume", "inspect", str(example))
    assert done.returncode == 0, done.stderr
    assert "4,652,008" in done.stdout
    assert "usage: " in run(tmp_path, "python", "-m", "service", "--help").stdout
    pages = "from importlib.resources import files; from models.labels import labels_for; "
    pages += "print(len(files('service').joinpath('page.html').read_text()) > 1000, "
    pages += "labels_for(1000, images=True)[0].name)"
    assert run(tmp_path, "python", "-c", pages).stdout == "True tench, Tinca tinca\n"


@pytest.mark.parametrize("command", ["convert", "diff"])
def test_what_needs_torch_says_so(command: str, tmp_path: Path) -> None:
    """Without torch there is one line that tells what is missing, and no traceback."""
    example = str(ROOT / "examples" / "efficientnet_lite0.t7")
    given = [example] if command == "convert" else [example, example]
    done = run(tmp_path, "relume", command, *given)
    assert done.returncode == (2 if command == "diff" else 1)
    assert "Traceback" not in done.stderr
    assert "has no package" in done.stderr
