"""Recipes are data: complete, readable back, changed by the texts of flags, refused by name."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.architectures import create
from models.architectures import find as find_architecture
from models.errors import RecipeError
from models.presets import PRESETS
from models.recipes import DEFAULT, GMACS, RECIPES, by_epoch, changed, exaflop, find
from models.recipes.recipe import from_json
from tests.oracles import ROOT


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_back(name: str, tmp_path: Path) -> None:
    """What a run saves is its recipe, and a recipe to run again, by its file."""
    recipe = RECIPES[name]
    assert from_json(recipe.to_json(), name) == recipe
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    assert find(str(tmp_path / "recipe.json")) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_what_there_is(name: str) -> None:
    """Network, preset and source are there; the network has the preset's size of image."""
    recipe = RECIPES[name]
    assert find_architecture(recipe.architecture).size == PRESETS[recipe.evaluation].crop[0]
    assert recipe.source
    assert recipe.expected or recipe.differs
    assert exaflop(recipe) > 0


SLOW_DEPTHS = ("1001", "269", "200", "152", "101", "v4", "164", "lornatang")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith(SLOW_DEPTHS) else ())
        for name in GMACS
    ],
)
def test_the_cost_is_counted(name: str) -> None:
    """The table of multiply-adds is what torch counts for one image."""
    with torch.device("meta"):
        size = find_architecture(name).size
        with FlopCounterMode(display=False) as counter:
            create(name).eval()(torch.empty(1, 3, size, size))
    assert GMACS[name] == float(f"{counter.get_total_flops() / 2e9:.3g}")


def test_flags_change_any_field() -> None:
    """Every kind of field is set by a text: number, share, choice, switch, schedule, by epoch."""
    given = {
        "lr": "0.2",
        "batch_size": "32",
        "decay_on": "weights",
        "channels_last": "True",
        "schedule": "epochs at=2,4 factor=0.5",
        "aug_levels": "1:2,3:1",
        "momentum_drops": "2,3",
    }
    recipe = changed(RECIPES["irv2-setting1"], given)
    assert recipe.lr == 0.2
    assert recipe.channels_last
    assert recipe.momentum_drops == (2, 3)
    assert recipe.lr_at(recipe.place(1 + 3 * 4, 100)) == pytest.approx(0.05)
    assert [by_epoch(recipe.aug_levels, epoch, 0) for epoch in (1, 2, 3, 9)] == [2, 2, 1, 1]
    assert by_epoch((), 5, 7) == 7
    assert changed(recipe, {"aug_levels": "3"}).aug_levels == ((1, 3),)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("lr", "fast", "--lr fast: expected float"),
        ("batch_size", "0", "batch-size 0: expected 1 or more"),
        ("batch_size", "1.5", "--batch-size 1.5: expected int"),
        ("momentum", "1", "momentum 1.0: expected a number from 0, below 1"),
        ("lr", "nan", "lr nan: expected a number from 0 that float32 holds"),
        ("lr", "1e39", "lr 1e[+]39: expected a number from 0 that float32 holds"),
        ("weight_decay", "3.5e38", r"weight-decay 3.5e\+38: expected a number from 0 that float32"),
        ("last", "lose", "--last lose: expected keep|fill|drop"),
        ("nesterov", "maybe", "--nesterov maybe: expected True|False"),
        ("aug_levels", "3:1,2:2", "aug-levels 3:1,2:2: expected EPOCH:VALUE pairs"),
        ("aug_levels", "x", "--aug-levels x: expected numbers"),
        ("seed", str(2**63), "expected a number from 0, below 2 [*][*] 63"),
        ("seed", "-1", "seed -1: expected a number from 0"),
        ("bn_momentum", "1:7", "bn-momentum 1:7.0: expected EPOCH:VALUE pairs, .* from 0 to 1"),
        ("bn_momentum", "nan", "bn-momentum 1:nan: expected EPOCH:VALUE pairs"),
        ("order", "balanced", "order balanced: expected draws"),
        ("schedule", "stairs", "no stairs"),
    ],
)
def test_a_flag_that_cannot_be_is_refused(field: str, text: str, message: str) -> None:
    """The message names flag, value and what would do."""
    with pytest.raises(RecipeError, match=message.replace("|", r"\|")):
        changed(RECIPES["irv2-setting1"], {field: text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no recipe of relume"),
        ("[]", "no recipe of relume"),
        ("{}", "no recipe of relume"),
        ('{"nothing": 1}', "no recipe of relume: KeyError"),
        (json.dumps({**json.loads(RECIPES["enet-v2"].to_json()), "lr": "-1"}), "lr -1.0: expected"),
    ],
)
def test_a_file_that_holds_no_recipe_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """A recipe's file is checked as flags are."""
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        find(str(path))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text are said to be none."""
    path = tmp_path / "mine.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8 text"):
        find(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet-v2-5",
            r"no such recipe; did you mean resnet-v2-50\? `relume train --list` has all",
        ),
        ("irv3", r"--recipe irv3: no such recipe; `relume train --list` has all \d\d$"),
    ],
)
def test_an_unknown_name_is_told_where_the_names_are(name: str, message: str) -> None:
    """With the one that was meant, where one is like it."""
    with pytest.raises(RecipeError, match=message):
        find(name)


def test_an_epoch_without_an_update_is_refused() -> None:
    """Fewer images than a batch are none where short batches are dropped; so is no image at all."""
    recipe = changed(RECIPES["irv2-setting1"], {"last": "drop"})
    assert recipe.steps(64) == 1
    with pytest.raises(RecipeError, match="batch-size 64, last drop: 63 images are not one whole"):
        recipe.steps(63)
    with pytest.raises(RecipeError, match="0 images are not one whole batch"):
        RECIPES["irv2-setting1"].steps(0)


PAGE = (ROOT / "docs/training.md").read_text()


@pytest.mark.parametrize("name", [one for one in RECIPES if one != DEFAULT])
def test_the_page_has_the_recipe(name: str) -> None:
    """docs/training.md says of every recipe what it is, gives and costs, as the recipe has it."""
    recipe = RECIPES[name]
    updates = recipe.epochs * recipe.steps(recipe.images)
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == [
        f"`{recipe.architecture}`",
        f"{recipe.epochs} x {recipe.batch_size}",
        f"{updates:,}",
        f"{exaflop(recipe):.3g}",
        recipe.expected,
        recipe.cost,
        recipe.differs.strip(),
    ]


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("resnet-v2-18-512batch", (24, 96)),
        ("resnet-v2-34", (58, 76, 77, 96)),
        ("resnet-v2-200", (96, 119)),
        ("resnet-v2-200-11k", (96,)),
    ],
)
def test_restarts_by_hand_drop_momentum(name: str, epochs: tuple[int, ...]) -> None:
    """The epoch after each of the original's restarts begins with empty buffers."""
    assert RECIPES[name].momentum_drops == epochs
