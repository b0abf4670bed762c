"""What a run will do, told before it does anything: `--list` and `--explain`."""

from collections.abc import Iterator
from dataclasses import fields
from typing import NamedTuple

from models.recipes import FACTS, RECIPES, Recipe, by_epoch, exaflop, flag_text
from models.training.curves import WIDTH, drawn

MOST_ROWS = 40  # of a timeline; a schedule that falls more often is told in stretches


class Stretch(NamedTuple):
    """Updates during which nothing but, maybe, the learning rate changes."""

    first: int
    last: int
    lr: tuple[float, float]
    weight_decay: float
    level: int
    bn_momentum: float | None
    drops: bool
    falls: int


def listed() -> str:
    """Return a line for each recipe: what it trains, for how long, and what came of it."""
    header = ("recipe", "network", "epochs x batch", "updates", "EFLOP", "expected error")
    rows = [
        (
            one.name,
            one.architecture,
            f"{one.epochs} x {one.batch_size}",
            f"{one.epochs * one.steps(one.images):,}",
            f"{exaflop(one):.3g}",
            "; ".join(filter(None, (one.expected, one.cost))),
        )
        for one in RECIPES.values()
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:>{width}}" if index in (2, 3, 4) else f"{cell:{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(lines) + "\n"


def settings(recipe: Recipe) -> str:
    """Return every setting of a recipe, as its flag takes it, and what is known of the original."""
    names = [one.name for one in fields(Recipe)]
    lines = [
        f"  {name.replace('_', '-'):16} {_shortened(flag_text(recipe, name))}".rstrip()
        for name in names
        if name not in FACTS
    ]
    facts = [f"  {name:16} {flag_text(recipe, name)}" for name in FACTS if getattr(recipe, name)]
    return "\n".join([f"recipe {recipe.name}", *lines, "", *facts, ""])


def _shortened(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."


def explained(recipe: Recipe, images: int, save_every: float) -> str:
    """Return the timeline of a run over so many images."""
    steps = recipe.steps(images)
    total = steps * recipe.epochs
    rows = [_row(one, recipe, steps) for one in _shown(list(stretches(recipe, images)))]
    header = f"{'epoch':>11}  {'update':>21}  {'learning rate':>21}  {'decay':>7}  what else"
    marks = [1 + round((total - 1) * column / (WIDTH - 1)) for column in range(WIDTH)]
    rates = tuple(
        ((update - 1) / steps, recipe.lr_at(recipe.place(update, images))) for update in marks
    )
    drawing = drawn({"learning rate by epoch, logarithmic": rates}, logarithmic=True)
    return "\n".join(
        [
            f"{recipe.epochs} epochs of {steps:,} updates of {recipe.batch_size} images: "
            f"{total:,} updates, {total * recipe.batch_size / 1e6:,.1f} million images",
            f"a snapshot every {save_every:g} s and after each epoch, validation after each epoch, "
            "best.pt whenever it is best, .pt and .onnx of the best and the last at the end",
            "",
            header,
            *rows,
            "",
            drawing,
        ]
    )


def stretches(recipe: Recipe, images: int) -> Iterator[Stretch]:
    """Yield a run's stretches in order, one for each value of anything that changes."""
    steps = recipe.steps(images)
    for epoch in range(1, recipe.epochs + 1):
        begin, end = (epoch - 1) * steps + 1, epoch * steps
        bounds = [begin, *_changes(recipe, images, begin, end), end + 1]
        for first, after in zip(bounds, bounds[1:], strict=False):
            place = recipe.place(first, images)
            rate = recipe.lr_at(place)
            yield Stretch(
                first,
                after - 1,
                (rate, rate),
                recipe.decay_at(place),
                by_epoch(recipe.aug_levels, epoch, 0),
                by_epoch(recipe.bn_momentum, epoch, None),
                epoch in recipe.momentum_drops and first == begin,
                0,
            )


def _changes(recipe: Recipe, images: int, first: int, last: int) -> list[int]:
    """Return the updates from which the rate is another; it only falls within an epoch."""
    low, high = (recipe.lr_at(recipe.place(one, images)) for one in (first, last))
    if low == high:
        return []
    if last == first + 1:
        return [last]
    middle = (first + last) // 2
    return _changes(recipe, images, first, middle) + _changes(recipe, images, middle, last)


def _shown(found: list[Stretch]) -> list[Stretch]:
    exact = _joined(found, alike=("lr", "weight_decay", "level", "bn_momentum"))
    if len(exact) <= MOST_ROWS:
        return exact
    return _joined(found, alike=("weight_decay", "level", "bn_momentum"))


def _joined(found: list[Stretch], alike: tuple[str, ...]) -> list[Stretch]:
    rows = [found[0]]
    for one in found[1:]:
        last = rows[-1]
        same = all(getattr(one, name) == getattr(last, name) for name in alike)
        if same and (not one.drops or "lr" not in alike):
            falls = last.falls + (one.lr[0] != last.lr[1])
            rows[-1] = last._replace(last=one.last, lr=(last.lr[0], one.lr[1]), falls=falls)
        else:
            rows.append(one)
    return rows


def _row(one: Stretch, recipe: Recipe, steps: int) -> str:
    epochs = f"{(one.first - 1) // steps + 1}-{(one.last - 1) // steps + 1}"
    rate = f"{one.lr[0]:.4g}"
    if one.falls:
        rate += f" to {one.lr[1]:.3g}"
    notes = [
        f"changed {one.falls} times" if one.falls else "",
        f"augmentation level {one.level}" if recipe.aug_levels else "",
        f"BatchNorm momentum {one.bn_momentum:g}" if one.bn_momentum is not None else "",
        "momentum dropped" if one.drops else "",
    ]
    updates = f"{one.first:,}-{one.last:,}"
    return (
        f"{epochs:>11}  {updates:>21}  {rate:>21}  {one.weight_decay:>7.2g}  "
        f"{', '.join(filter(None, notes))}".rstrip()
    )
