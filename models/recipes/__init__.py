"""The seeds' training runs, and one to begin with, by name."""

from pathlib import Path

from models.errors import RecipeError
from models.recipes import lornatang, mxnet, torch7
from models.recipes.recipe import FACTS, Recipe, by_epoch, changed, flag_text, read_recipe
from models.terminal import meant

RECIPES: dict[str, Recipe] = {
    one.name: one.checked()
    for one in (
        mxnet.FASHION,
        *torch7.IRV2,
        *lornatang.LORNATANG,
        *mxnet.IMAGENET,
        *mxnet.CIFAR,
        *torch7.FB_RESNET,
        *torch7.ENET,
    )
}
DEFAULT = mxnet.FASHION.name

# Billions of multiply-adds of one image's forward pass; a test counts them again.
GMACS = {
    "inception_resnet_v2_torch": 9.19,
    "inception_v4_lornatang": 12.3,
    "inception_resnet_v2_lornatang": 13.2,
    "inception_v3": 5.71,
    "enet_v2": 0.235,
    "enet_v3": 0.427,
    "enet_v6": 0.427,
    "enet_v7": 0.274,
    "resnet_v2_18": 1.83,
    "resnet_v2_34": 3.68,
    "resnet_v2_50": 4.09,
    "resnet_v2_101": 7.8,
    "resnet_v2_152": 11.5,
    "resnet_v2_200": 15.0,
    "resnet_v2_269": 20.0,
    "resnet_v2_cifar_14": 0.027,
    "resnet_v2_cifar_110": 0.253,
    "resnet_v2_cifar_164": 0.248,
    "resnet_v2_cifar_1001": 1.49,
    "fb_resnet_18": 1.81,
    "fb_resnet_34": 3.66,
    "fb_resnet_50": 4.09,
    "fb_resnet_101": 7.8,
    "fb_resnet_152": 11.5,
    "fb_preresnet_200": 15.0,
    "fb_resnet_cifar_20": 0.0406,
    "fb_resnet_cifar_110": 0.253,
}
BACKWARD = 3  # a training step computes as much again for the weights, and for the inputs


def find(name: str) -> Recipe:
    """Return the recipe of that name, or of that `.json` file.

    Raises:
        RecipeError: There is none; the message says which may have been meant.
    """
    if name.endswith(".json"):
        return read_recipe(Path(name))
    if name not in RECIPES:
        guess = meant(name, RECIPES) or ";"
        listed = f"`relume train --list` has all {len(RECIPES)}"
        raise RecipeError(f"--recipe {name}: no such recipe{guess} {listed}")
    return RECIPES[name]


def exaflop(recipe: Recipe) -> float:
    """Return the floating-point operations of a whole run, in units of 10^18."""
    seen = recipe.epochs * (recipe.draws or recipe.images)
    return 2 * BACKWARD * GMACS.get(recipe.architecture, 0.0) * seen / 1e9


__all__ = [
    "DEFAULT",
    "FACTS",
    "GMACS",
    "RECIPES",
    "Recipe",
    "by_epoch",
    "changed",
    "exaflop",
    "find",
    "flag_text",
    "read_recipe",
]
