"""Recipes of Lornatang's PyTorch programs, as intended and as published."""

from dataclasses import replace

from models.recipes.recipe import Recipe
from models.training.schedules import Cosine

EMA = 0.99998
_V4 = Recipe(
    name="inception-v4",
    architecture="inception_v4_lornatang",
    dataset="imagenet",
    images=1_281_167,
    classes=1000,
    batch_size=128,
    epochs=600,
    lr=0.1,
    schedule=Cosine(150, 5e-4),  # down to 5e-5
    nesterov=False,
    weight_decay=2e-5,
    label_smoothing=0.1,
    ema=EMA,
    augmentation="lornatang-299",
    evaluation="lornatang-299",
    last="drop",
    amp="fp16",
    channels_last=True,
    expected="22.2 / 6.1",
    source="Lornatang/InceptionV4-PyTorch config.py, train.py, dataset.py",
    differs="The paper (20.0 / 5.0) trained with RMSProp and dropout. The averaged weights are "
    "averaged here; -as-published keeps the program's average, which is the current weights.",
)
_IRV2 = replace(
    _V4,
    name="inception-resnet-v2",
    architecture="inception_resnet_v2_lornatang",
    expected="23.5 / 6.6",
    differs=_V4.differs.replace("20.0 / 5.0", "19.9 / 4.9"),
)
_V3 = replace(
    _V4,
    name="inception-v3",
    architecture="inception_v3",
    aux_weight=0.3,
    expected="22.7 / 6.5",
    source="Lornatang/InceptionV3-PyTorch config.py, train.py",
    differs="The paper has 21.2 / 5.6. The program builds the network without the auxiliary head "
    "and so stops; were it there, its 0.3 would weigh the network's own loss and 1.0 the head's. "
    "Here the head is there, and 0.3 weighs its loss.",
)


def _as_published(recipe: Recipe) -> Recipe:
    """Return the recipe with the program's average, which takes old weights for new."""
    return replace(
        recipe,
        name=f"{recipe.name}-as-published",
        ema=round(1 - EMA, 5),
        differs="As the program computes it: the average takes 0.99998 of the current weights. "
        "That it stops at constructor arguments that do not exist is left out.",
    )


LORNATANG = (_V4, _as_published(_V4), _IRV2, _as_published(_IRV2), _V3)
