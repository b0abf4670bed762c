"""`relume explain NAME`: the page about an error, with its causes and cures.

The pages are docs/errors/*.md. The folder `pages` of this package is a link to them, which
installing follows.
"""

import argparse
from collections.abc import Mapping, Sequence
from importlib.resources import files

from models.terminal import meant, new_parser, reports_errors

INDEX = "index"  # the pages' table of contents, which is about no error


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume explain`."""
    made = new_parser(
        "Say what an error means, where it comes from and what to do about it. Its name stands at "
        "the end of its line.",
        "relume explain format-error",
        "relume explain FormatError     # as a traceback names it",
    )
    made.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="of the page, or of the class in a traceback (default: list them all)",
    )
    return made


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print a page, or what pages there are."""
    made = parser()
    name = made.parse_args(argv).name
    there = pages()
    if name is None:
        width = max(map(len, there))
        for page, text in there.items():
            print(f"{page:{width}}  {meaning(text)}")
        return 0
    if (found := matching(name, there)) is None:
        cure = meant(_plain(name), there) or "; `relume explain` lists them"
        made.error(f"no page {name}{cure}")
    print(there[found].rstrip())
    return 0


def pages() -> dict[str, str]:
    """Return the text of every page, by its name."""
    there = sorted(files("relume").joinpath("pages").iterdir(), key=lambda one: one.name)
    named = {one.name.removesuffix(".md"): one for one in there if one.name.endswith(".md")}
    return {name: one.read_text("utf-8") for name, one in named.items() if name != INDEX}


def meaning(page: str) -> str:
    """Return what an error means: the first paragraph under the page's title."""
    return " ".join(page.split("\n\n")[1].split())


def matching(name: str, there: Mapping[str, str]) -> str | None:
    """Return the page that is meant by its name, its class, or a beginning that is no other's."""
    asked = _plain(name.rpartition(".")[2])  # a traceback has the class's module before it
    plain = {_plain(page): page for page in there}
    for whole in (asked, f"{asked}error"):
        if whole in plain:
            return plain[whole]
    begun = [page for text, page in plain.items() if text.startswith(asked)]
    return begun[0] if len(begun) == 1 else None


def _plain(name: str) -> str:
    return "".join(one for one in name.lower() if one.isalnum())
