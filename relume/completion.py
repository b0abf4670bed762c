"""`relume completion SHELL`: a script that completes commands, flags, choices and files.

It is written from the parsers of the commands themselves, so that it knows what they know; the
shells' own languages are shtab's.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from models.presets import PRESETS
from models.recipes import RECIPES
from models.terminal import missing_package, new_parser, reports_errors
from relume.__main__ import COMMANDS, parser_of
from relume.explain import pages

SHELLS = ("bash", "zsh", "fish")

# What files end with, by what the arguments are called in the parsers.
PACKED = ("*.gz", "*.xz")
ARTIFACTS = ("*.onnx", "*.pt", "*.safetensors")
CHECKPOINTS = ("*.t7", "*.params", "*.pth", "*.tar", "*.safetensors", *PACKED)
PICTURES = ("*.jpg", "*.jpeg", "*.png", "*.webp", "*.bmp", "*.gif", "*.tif", "*.tiff")
CONTAINERS = ("*.rec", "*.parquet", "*.pq", "*.tar", "*.tar.gz", "*.tgz")  # with `classify -o`
SUFFIXES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("convert", "source"): CHECKPOINTS,
    ("convert", "symbol"): ("*.json",),
    ("convert", "labels"): ("*.txt",),
    ("inspect", "source"): CHECKPOINTS,
    ("inspect", "symbol"): ("*.json",),
    ("verify", "source"): (*CHECKPOINTS, "*.onnx"),
    ("verify", "symbol"): ("*.json",),
    ("diff", "sources"): (*CHECKPOINTS, "*.pt"),
    ("onnx", "source"): ("*.pt", "*.safetensors"),
    ("export", "source"): ("*.pt", "*.safetensors"),
    ("quantize", "model"): ("*.onnx",),
    ("classify", "images"): (*PICTURES, *CONTAINERS),
    ("classify", "model"): ARTIFACTS,
    ("evaluate", "model"): ARTIFACTS,
    ("pack", "list"): ("*.lst",),
    ("serve", "model"): ("*.onnx",),
    ("train", "init"): (*CHECKPOINTS, "*.pt"),
    ("plot", "logs"): ("*.log", "*.csv", "*.txt"),
}
FOLDERS = {("serve", "models"), ("verify", "images"), ("quantize", "images")}  # other texts


def words() -> dict[tuple[str, str], Sequence[str]]:
    """Return the words that an argument takes, where its parser takes any text."""
    presets = [*PRESETS, "none"]
    return {
        ("convert", "input"): presets,
        ("verify", "input"): presets,
        ("diff", "input"): presets,
        ("train", "recipe"): list(RECIPES),
        ("explain", "name"): list(pages()),
    }


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume completion`."""
    made = new_parser(
        "Print a script that completes relume's commands, flags, choices and files in a shell.",
        "relume completion bash > ~/.local/share/bash-completion/completions/relume",
        "relume completion zsh > ~/.zfunc/_relume      # a folder of $fpath, before compinit",
        "relume completion fish > ~/.config/fish/completions/relume.fish",
    )
    made.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return made


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print the script of a shell."""
    given = parser().parse_args(argv)
    try:
        shtab = import_module("shtab")
    except ModuleNotFoundError as error:  # the serving image has none
        print(missing_package(error), file=sys.stderr)
        return 1
    print(shtab.complete(whole(shtab), given.shell))
    return 0


def whole(shtab: Any) -> argparse.ArgumentParser:
    """Return relume as one parser, whose arguments say how shtab completes them."""
    top = argparse.ArgumentParser("relume")
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers(metavar="COMMAND")
    known = words()
    for name, command in COMMANDS.items():
        try:
            own = [parser_of(command)]
        except ModuleNotFoundError:  # as torch in the serving image: its commands are named alone
            own = []
        for one in own:
            _mark(one, name, known, shtab)
        commands.add_parser(name, help=command.summary, parents=own, add_help=not own)
    return top


def _mark(
    parser: argparse.ArgumentParser, name: str, known: Mapping[tuple[str, str], Any], shtab: Any
) -> None:
    """Say of each argument of a command, and of its own commands, what it takes."""
    for action in parser._actions:
        key = (name, action.dest)
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _mark(below, name, known, shtab)
        elif key in known:
            action.choices = known[key]
        elif key in SUFFIXES:
            vars(action)["complete"] = shtab.glob(*SUFFIXES[key])
        elif action.metavar == "DIR" or key in FOLDERS:
            vars(action)["complete"] = shtab.DIRECTORY
        elif action.type is Path:
            vars(action)["complete"] = shtab.FILE
