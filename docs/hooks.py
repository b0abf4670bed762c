"""What the site has besides the files of docs/: MkDocs calls this module (mkdocs.yml, `hooks`).

Pages link to each other by paths in the repository, so that they read well on a Git host. Some of
those lie outside docs/; they become pages of the site here, and links follow.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure import StructureItem
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation, Section
from mkdocs.structure.pages import Page

from docs import commands
from models import errors

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {  # what pages link to outside docs/, and what it is in the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "examples/NOTICE.md": "notice.md",
    "LICENSE": "license.txt",
}
ERRORS_END = "api.md"  # this page: with the tree that the module draws
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LIST = re.compile(r"^- .*(?:\n+(?: {2}|- ).*)*", re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Replace each pattern of the navigation by the pages that there are."""
    config.nav = _all_expanded(config.nav or [])


def _all_expanded(entries: list[Any]) -> list[Any]:
    return [entry for entry in map(expanded, entries) if entry is not None]


def expanded(entry: Any) -> Any:
    """Return an entry of the navigation, a pattern as its pages; None where there is none.

    The first is the folder's `index.md`.
    """
    ((title, target),) = entry.items()
    if isinstance(target, list):
        return {title: _all_expanded(target)}
    if "*" not in target:
        return entry
    folder = ROOT / "docs"
    pages = sorted(folder.glob(target), key=lambda page: (page.stem != "index", page.name))
    return {title: [page.relative_to(folder).as_posix() for page in pages]} if pages else None


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages from outside docs/ and the one that the commands write."""
    for source, target in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=text))
    files.append(File.generated(config, "commands.md", content=commands.page()))


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:
    """Lead entries of the navigation that are sections of pages, `PAGE.md#SECTION`, there."""
    for entry in _entries(nav.items):
        if isinstance(entry, Link):
            page, _, section = entry.url.partition("#")
            file = files.get_file_from_path(page)
            if file is None:
                raise PluginError(f"mkdocs.yml: nav: no page {entry.url}")
            entry.url = f"{file.url}#{section}"


def _entries(items: Iterable[StructureItem]) -> Iterator[StructureItem]:
    for item in items:
        yield item
        if isinstance(item, Section):
            yield from _entries(item.children)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page whose links lead to pages of the site, the one of the API with the errors."""
    target = page.file.src_uri
    if target == ERRORS_END:
        markdown += f"\n```text\n{errors.__doc__}```\n"
    return indented(relinked(markdown, source_of(target), target))


def source_of(target: str) -> str:
    """Return where in the repository a page of the site comes from."""
    sources = {there: source for source, there in OUTSIDE.items()}
    return sources.get(target, f"docs/{target}")


def relinked(text: str, source: str, target: str) -> str:
    """Return a page's text with links that lead from its place in the site.

    What is in the repository and not in the site (code, for one) keeps its text without a link;
    what is in neither stays as it is, for MkDocs to complain about.
    """

    def replaced(link: re.Match[str]) -> str:
        picture, words, path, anchor = link.groups()
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        inside = OUTSIDE.get(found, found.removeprefix("docs/"))
        if inside != found:
            start = posixpath.dirname(target) or "."
            return f"{picture}[{words}]({posixpath.relpath(inside, start)}{anchor or ''})"
        return words if (ROOT / found).exists() and not picture else link[0]

    return LINK.sub(replaced, text)


def indented(text: str) -> str:
    """Return a page's text with what belongs to an item of a list two spaces further in.

    Git hosts count from the item's text, as CommonMark has it, Python-Markdown by fours.
    """

    def further(block: re.Match[str]) -> str:
        return re.sub(r"^(?= {2})", "  ", block[0], flags=re.MULTILINE)

    parts = FENCED.split(text)
    parts[::2] = [LIST.sub(further, part) for part in parts[::2]]
    return "".join(parts)
