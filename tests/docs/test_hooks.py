"""Tests of docs/hooks.py, and of the site that it helps to build."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation, Section

from docs import hooks
from docs.hooks import OUTSIDE, expanded, indented, relinked, source_of
from tests.oracles import ROOT

BUILD_S = 240  # five seconds, under load a multiple of that


@pytest.mark.parametrize(
    ("link", "source", "target", "expected"),
    [
        ("[a](docs/data.md)", "README.md", "index.md", "[a](data.md)"),
        ("[a](docs/data.md#11k)", "README.md", "index.md", "[a](data.md#11k)"),
        ("![a](docs/resizes.png)", "README.md", "index.md", "![a](resizes.png)"),
        ("[a](../README.md#use)", "docs/data.md", "data.md", "[a](index.md#use)"),
        ("[a](../CONTRIBUTING.md)", "docs/data.md", "data.md", "[a](contributing.md)"),
        ("[a](../LICENSE)", "examples/NOTICE.md", "notice.md", "[a](license.txt)"),
        ("[a](../faq.md)", "docs/errors/index.md", "errors/index.md", "[a](../faq.md)"),
        ("[a](../../README.md)", "docs/errors/a.md", "errors/a.md", "[a](../index.md)"),
        ("[a](other.md)", "docs/errors/a.md", "errors/a.md", "[a](other.md)"),
        ("[code](../models/graph.py)", "docs/data.md", "data.md", "code"),
        ("[a](../gone.md)", "docs/data.md", "data.md", "[a](../gone.md)"),
        ("![a](../examples/cat.jpg)", "docs/data.md", "data.md", "![a](../examples/cat.jpg)"),
        ("[a](https://host/a.md)", "docs/data.md", "data.md", "[a](https://host/a.md)"),
        ("[a](#here)", "docs/data.md", "data.md", "[a](#here)"),
    ],
)
def test_links_follow_to_the_site(link: str, source: str, target: str, expected: str) -> None:
    """What is in the site is linked, code loses its link, the rest is MkDocs' to refuse."""
    assert relinked(f"see {link}.", source, target) == f"see {expected}."


def test_pages_come_from_where_they_lie() -> None:
    """Those of docs/ from there, the others from outside."""
    assert source_of("index.md") == "README.md"
    assert source_of("errors/index.md") == "docs/errors/index.md"


def test_a_pattern_of_the_navigation_is_the_pages_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`index.md` first, then by name; none leave no entry."""
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    entry = {"Errors": "errors/*.md"}
    assert expanded(entry) is None
    (tmp_path / "docs" / "errors").mkdir(parents=True)
    for name in ("z", "index", "a"):
        (tmp_path / "docs" / "errors" / f"{name}.md").touch()
    assert expanded(entry) == {"Errors": ["errors/index.md", "errors/a.md", "errors/z.md"]}
    assert expanded({"Home": "index.md"}) == {"Home": "index.md"}
    nested = expanded({"Reference": [{"Formats": "formats.md"}, entry, {"None": "none/*.md"}]})
    assert nested == {"Reference": [{"Formats": "formats.md"}, expanded(entry)]}


def test_sections_of_pages_are_entries_of_the_navigation() -> None:
    """`PAGE.md#SECTION` leads there; a page that is not there stops the build."""
    config = load_config(str(ROOT / "mkdocs.yml"))
    files = Files([File("deploying.md", config.docs_dir, config.site_dir, use_directory_urls=True)])
    link = Link("Settings", "deploying.md#settings")
    hooks.on_nav(Navigation([Section("Reference", [link])], []), config, files)
    assert link.url == "deploying/#settings"
    lost = Navigation([Link("Lost", "lost.md#there")], [])
    with pytest.raises(PluginError, match=r"nav: no page lost\.md#there"):
        hooks.on_nav(lost, config, files)


def test_what_belongs_to_an_item_stays_with_it() -> None:
    """Code and paragraphs of a list, which two programs indent differently; fences are left."""
    fence = "```\n- no list\n  of ours\n```\n"
    page = f"- a\n  b\n\n      $ ls\n- c\n\n  d\n\ne\n\n    f\n\n{fence}"
    assert indented(page) == (f"- a\n    b\n\n        $ ls\n- c\n\n    d\n\ne\n\n    f\n\n{fence}")


def listed(nav: Any) -> list[str]:
    """Return the pages of a navigation."""
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [page for entry in entries for page in listed(entry)]


def test_the_navigation_lists_every_page_once() -> None:
    """A page that nobody can get to is not there."""
    config = load_config(str(ROOT / "mkdocs.yml"))
    hooks.on_config(config)
    docs = ROOT / "docs"
    pages = [path.relative_to(docs).as_posix() for path in docs.rglob("*.md")]
    named = [page for page in listed(config.nav) if "#" not in page]
    others = [page for page in OUTSIDE.values() if page.endswith(".md")]
    assert sorted(named) == sorted([*pages, *others, "commands.md"])


@pytest.mark.slow
def test_the_site_has_no_broken_link_and_asks_nobody(tmp_path: Path) -> None:
    """It builds strictly, and its pages load nothing from elsewhere."""
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=True,
        timeout=BUILD_S,
    )
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(pages) > 20
    loaded = [
        re.findall(r"<(?:link|script|img|iframe)\b[^>]*\"https?://[^>]*>", page) for page in pages
    ]
    assert [tag for tags in loaded for tag in tags] == []
    assert "LegacyModelError            entry points print" in (site / "api/index.html").read_text()
    sections = [
        one.split("#") for one in listed(load_config(str(ROOT / "mkdocs.yml")).nav) if "#" in one
    ]
    for page, section in sections:
        built = site / page.removesuffix(".md") / "index.html"
        assert f'id="{section}"' in built.read_text(encoding="utf-8")
