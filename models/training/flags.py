"""The command line of a training run: every field of a recipe is a flag, and how to run it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args, get_origin

from models.data.loader import OnBad
from models.errors import RecipeError
from models.recipes import DEFAULT, FACTS, Recipe, changed, find, read_recipe
from models.terminal import at_least, new_parser

ALLOWED = ("recipe", "data", "processes")
RECIPE_FILE = "recipe.json"
What = Literal["train", "list", "explain"]


@dataclass(frozen=True)
class Options:
    """How a recipe is run: on which images, from where, on what machine.

    Attributes:
        data: The data set; None for the recipe's own, where it is known where that is.
        out: Folder of the run.
        resume: Go on from the folder's snapshot.
        allow: Differences that resuming overlooks.
        force: Begin anew where there is a snapshot.
        init: Checkpoint to start from.
        optimizer: Whether its momentum is taken over too.
        device: `auto`, `cpu` or `cuda`.
        workers: Processes that decode images, for each process that trains.
        memonger: GiB of activations to keep to, 0 for the least; None keeps all of them.
        save_every: Seconds between snapshots.
        log_every: Updates between lines of the log.
        on_bad: What an image that cannot be read does.
        tensorboard: Whether its files are written too.
        deterministic: Whether only operations are used that give the same bits every time.
    """

    data: Path | None = None
    out: Path = Path("runs") / DEFAULT
    resume: bool = False
    allow: frozenset[str] = frozenset()
    force: bool = False
    init: Path | None = None
    optimizer: bool = False
    device: str = "auto"
    workers: int = 2
    memonger: float | None = None
    save_every: float = 300.0
    log_every: int = 50
    on_bad: OnBad = "fail"
    tensorboard: bool = False
    deterministic: bool = False


@dataclass(frozen=True)
class Asked:
    """What a command line asks for."""

    recipe: Recipe
    options: Options
    devices: int
    what: What


def asked_for(arguments: Sequence[str]) -> Asked:
    """Return what a command line asks for.

    Raises:
        RecipeError: There is no such recipe, or a flag does not fit it.
    """
    given = parser().parse_args(arguments)
    texts = {
        one.name: str(text)
        for one in fields(Recipe)
        if (text := getattr(given, f"recipe_{one.name}", None)) is not None
    }
    recipe = changed(_base(given), texts)
    out = given.out or Path("runs") / recipe.name
    known = {one.name: getattr(given, one.name) for one in fields(Options) if one.name != "out"}
    options = Options(**{**known, "allow": frozenset(given.allow), "out": out})
    if given.optimizer and given.init is None:
        raise RecipeError("--optimizer: goes with --init, whose optimizer it is")
    if options.memonger is not None and recipe.compile:
        raise RecipeError("--memonger: not with --compile, which plans memory itself")
    what: What = "list" if given.list else "explain" if given.explain else "train"
    return Asked(recipe, options, given.devices, what)


def _base(given: argparse.Namespace) -> Recipe:
    saved = given.out / RECIPE_FILE if given.out else None
    if given.resume and given.recipe is None and saved is not None and saved.exists():
        return read_recipe(saved)
    return find(given.recipe or DEFAULT)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume train`."""
    parser = new_parser(
        "Train a network by a recipe. Without arguments: a small ResNet on Fashion-MNIST, in "
        "minutes. docs/training.md says what each recipe needs and gives.",
        "relume train --list",
        "relume train --recipe resnet-v2-18 --explain",
        "relume train --recipe resnet-v2-18 --data imagenet --devices 2",
        "relume train --recipe resnet-v2-18 --data imagenet --devices 2 --resume",
    )
    parser.usage = "%(prog)s [--recipe NAME] [--data DIR] [-o DIR] [--resume] [flags]"
    parser.add_argument("--recipe", metavar="NAME", help=f"or a recipe's .json; default {DEFAULT}")
    parser.add_argument("--list", action="store_true", help="show the recipes, and end")
    parser.add_argument("--explain", action="store_true", help="show the run's timeline, and end")
    run = parser.add_argument_group("the run")
    run.add_argument("--data", type=Path, metavar="DIR", help="data set, see docs/data.md")
    run.add_argument("-o", "--out", type=Path, metavar="DIR", help="default: runs/RECIPE")
    run.add_argument("--resume", action="store_true", help="go on from the folder's snapshot")
    run.add_argument(
        "--allow", nargs="+", default=[], choices=ALLOWED, help="differences to resume with"
    )
    run.add_argument("--force", action="store_true", help="begin anew where there is a snapshot")
    run.add_argument(
        "--init", "--retrain", type=Path, metavar="FILE", help=".pt, .t7 or .params to start from"
    )
    run.add_argument("--optimizer", action="store_true", help="with its optimizer's momentum too")
    machine = parser.add_argument_group("the machine")
    _add_machine(machine)
    _add_records(machine)
    _add_recipe(
        parser.add_argument_group(
            "the recipe's fields, to change them", "--explain shows what they are in a recipe."
        )
    )
    return parser


def _add_machine(machine: argparse._ArgumentGroup) -> None:
    machine.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: a GPU if there is one (default)",
    )
    machine.add_argument(
        "--devices",
        type=at_least(1),
        default=1,
        metavar="N",
        help="processes, each with a GPU if any",
    )
    machine.add_argument(
        "--workers",
        type=at_least(0),
        default=2,
        metavar="N",
        help="processes that decode (default 2)",
    )
    machine.add_argument(
        "--memonger",
        type=at_least(0.0),
        nargs="?",
        const=0.0,
        metavar="GIB",
        help="compute activations again, to keep to so much memory for them, or to the least",
    )
    machine.add_argument(
        "--on-bad",
        choices=get_args(OnBad),
        default="fail",
        help="what an image that cannot be read does (default fail)",
    )
    machine.add_argument(
        "--deterministic", action="store_true", help="the same bits every time, if slower"
    )


def _add_records(machine: argparse._ArgumentGroup) -> None:
    """Add what says how often the run is written down."""
    seconds, updates = at_least(0.0), at_least(1)
    machine.add_argument(
        "--save-every", type=seconds, default=300.0, metavar="SECONDS", help="default 300"
    )
    machine.add_argument(
        "--log-every", type=updates, default=50, metavar="UPDATES", help="default 50"
    )
    machine.add_argument("--tensorboard", action="store_true", help="write its files too")


def _add_recipe(group: argparse._ArgumentGroup) -> None:
    for one in fields(Recipe):
        if one.name in FACTS:
            continue
        flag, dest = f"--{one.name.replace('_', '-')}", f"recipe_{one.name}"
        if one.type is bool:
            group.add_argument(flag, dest=dest, action=argparse.BooleanOptionalAction)
        elif get_origin(one.type) is Literal:
            group.add_argument(flag, dest=dest, choices=get_args(one.type))
        else:
            name = getattr(one.type, "__name__", "")
            meta = {"int": "N", "float": "X", "str": "NAME"}.get(name, "TEXT")
            group.add_argument(flag, dest=dest, metavar=meta)
