"""What decides the result of a run, as one value that can be printed, saved and changed."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from models.data.order import steps
from models.errors import RecipeError
from models.training.schedules import (
    Constant,
    Place,
    Schedule,
    parsed,
    parsed_value,
    written,
    written_value,
)

FLOAT32_MAX = (2 - 2**-23) * 2.0**127  # weights are float32, and torch refuses larger factors

ByEpoch = tuple[tuple[int, int], ...]  # (from this epoch on, this value)
ValueByEpoch = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Recipe:
    """A run's settings; two runs of equal recipes on equal data give equal weights.

    Attributes:
        name: What users type.
        architecture: Name in the registry of networks.
        dataset: Which images it is for, as docs/data.md calls them.
        images: How many images the original trained on; the data given may have others.
        classes: Outputs of the network.
        batch_size: Images of an update, on all devices together.
        epochs: How many there are.
        lr: Base of the learning rate.
        schedule: What the learning rate is multiplied by, and when.
        momentum, nesterov: Of SGD, without dampening.
        weight_decay, decay_schedule: The same for weight decay.
        decay_on: `all` parameters, or `weights`: no bias and no shift of BatchNorm.
        momentum_drops: Epochs that begin with empty momentum buffers.
        label_smoothing: Share of the target that is spread over all classes.
        aux_weight: Weight of an auxiliary head's loss; 0 for a network without that head.
        ema: Decay of the averaged weights, which are what is validated then; 0 for none.
        clip: Largest norm of the gradient; 0 for any.
        augmentation: What happens to training images: that of the preset of this name.
        aug_levels: Level of augmentation from each of these epochs on.
        order: `shuffled`, or `balanced`: classes in equal numbers, drawn with replacement.
        draws: Images of an epoch where they are drawn; 0 for one pass over all.
        last: What becomes of an epoch's last short batch: `keep`, `fill` from the head, `drop`.
        evaluation: Preset by which images enter for validation, and in the artifact.
        virtual_gpus: Parts of a batch whose statistics BatchNorm takes each for itself.
        statistics: Which running statistics stay: those of the `first` part, or their `mean`.
        bn_momentum: BatchNorm's momentum from each of these epochs on, where not the network's own.
        amp: Type of number under autocast: `none`, `bf16`, `fp16`.
        channels_last: Whether images are stored with their channels last.
        compile: Whether torch.compile is used.
        accumulate: Parts of a batch whose gradients are added up before an update.
        seed: Of the initial weights, the order, and every draw.
        expected: Error in percent that the original reports, first guess / first five.
        cost: What the original took, where it says.
        source: Repository and file that this was read from.
        differs: What else is known, such as where program and text disagree.
    """

    name: str
    architecture: str
    dataset: str
    images: int
    classes: int
    batch_size: int
    epochs: int
    lr: float
    augmentation: str
    evaluation: str
    schedule: Schedule = field(default_factory=Constant)
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay_schedule: Schedule = field(default_factory=Constant)
    decay_on: Literal["all", "weights"] = "all"
    momentum_drops: tuple[int, ...] = ()
    label_smoothing: float = 0.0
    aux_weight: float = 0.0
    ema: float = 0.0
    clip: float = 0.0
    aug_levels: ByEpoch = ()
    order: Literal["shuffled", "balanced"] = "shuffled"
    draws: int = 0
    last: Literal["keep", "fill", "drop"] = "keep"
    virtual_gpus: int = 1
    statistics: Literal["first", "mean"] = "first"
    bn_momentum: ValueByEpoch = ()
    amp: Literal["none", "bf16", "fp16"] = "none"
    channels_last: bool = False
    compile: bool = False
    accumulate: int = 1
    seed: int = 0
    expected: str = ""
    cost: str = ""
    source: str = ""
    differs: str = ""

    def steps(self, images: int) -> int:
        """Return the updates of an epoch over so many images.

        Raises:
            RecipeError: There is none.
        """
        count = self.draws or images
        found = steps(count, self.batch_size, self.last)
        if found < 1:
            raise RecipeError(
                f"batch-size {self.batch_size}, last {self.last}: {count:,} images are not one "
                "whole batch"
            )
        return found

    def place(self, update: int, images: int) -> Place:
        """Return where in the run an update is, counted from 1."""
        steps, full = self.steps(images), max((self.draws or images) // self.batch_size, 1)
        return Place(update, (update - 1) // steps + 1, steps, full)

    def lr_at(self, place: Place) -> float:
        """Return the learning rate of an update."""
        return self.lr * self.schedule.factor_at(place)

    def decay_at(self, place: Place) -> float:
        """Return the weight decay of an update."""
        return self.weight_decay * self.decay_schedule.factor_at(place)

    def to_json(self) -> str:
        """Return the recipe as JSON text that `from_json` reads back to an equal value."""
        return json.dumps({name: flag_text(self, name) for name in asdict(self)}, indent=1)

    def checked(self) -> "Recipe":
        """Return the recipe itself.

        Raises:
            RecipeError: It says what cannot be; all of it at once.
        """
        wrong = [
            f"{name.replace('_', '-')} {flag_text(self, name)}: expected {expected}"
            for name, (holds, expected) in _RULES.items()
            if not holds(getattr(self, name))
        ]
        if self.order == "balanced" and not self.draws:
            wrong.append("order balanced: expected draws, the images of an epoch")
        if wrong:
            raise RecipeError(f"recipe {self.name}: {'; '.join(wrong)}")
        return self


def _rising(value: Any) -> bool:
    epochs = [one[0] for one in value]
    return epochs == sorted(set(epochs)) and all(epoch >= 1 for epoch in epochs)


def _shares(value: Any) -> bool:
    return _rising(value) and all(0 <= share <= 1 for _, share in value)


_SHARE = (lambda value: 0 <= value < 1, "a number from 0, below 1")
_COUNT = (lambda value: value >= 1, "1 or more")
_NOT_NEGATIVE = (lambda value: 0 <= value < float("inf"), "a number from 0")
_FLOAT32 = (lambda value: 0 <= value <= FLOAT32_MAX, "a number from 0 that float32 holds")
_PAIRS = "EPOCH:VALUE pairs, epochs from 1 and rising"
_RULES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("batch_size", "epochs", "classes", "virtual_gpus", "accumulate"), _COUNT),
    **dict.fromkeys(("momentum", "label_smoothing", "ema"), _SHARE),
    **dict.fromkeys(("lr", "weight_decay", "aux_weight", "clip"), _FLOAT32),
    "draws": _NOT_NEGATIVE,
    "seed": (lambda value: 0 <= value < 2**63, "a number from 0, below 2 ** 63"),
    "aug_levels": (_rising, _PAIRS),
    "bn_momentum": (_shares, f"{_PAIRS}, values from 0 to 1"),
}

FACTS = (
    "name",
    "dataset",
    "images",
    "expected",
    "cost",
    "source",
    "differs",
)  # what no flag changes


def flag_text(recipe: Recipe, name: str) -> str:
    """Return a field's value as its flag takes it."""
    value = getattr(recipe, name)
    return written(value) if isinstance(value, Schedule) else written_value(value)


def changed(recipe: Recipe, given: dict[str, str]) -> Recipe:
    """Return the recipe with fields replaced by the texts of flags.

    Raises:
        RecipeError: A text is not of the field's type, or the recipe cannot be.
    """
    kinds = {one.name: one.type for one in fields(Recipe)}
    values = {name: _value(name, text, kinds[name]) for name, text in given.items()}
    return replace(recipe, **values).checked()


def _value(name: str, text: str, kind: Any) -> Any:
    form = getattr(kind, "__name__", "")
    if get_origin(kind) is UnionType:
        return parsed(text)
    if get_origin(kind) is Literal or kind is bool:
        choices = {"True": True, "False": False} if kind is bool else {x: x for x in get_args(kind)}
        if text in choices:
            return choices[text]
        form = "|".join(choices)
    else:
        try:
            return parsed_value(text, kind)
        except ValueError:
            form = "numbers" if get_origin(kind) is tuple else form
    raise RecipeError(f"--{name.replace('_', '-')} {text}: expected {form}")


def from_json(text: str, where: str) -> Recipe:
    """Return the recipe that `Recipe.to_json` wrote.

    Raises:
        RecipeError: The text is none.
    """
    try:
        given = json.loads(text)
        kinds = {one.name: one.type for one in fields(Recipe)}
        values = {name: _value(name, str(value), kinds[name]) for name, value in given.items()}
        return Recipe(**values).checked()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(f"{where}: no recipe of relume: {error!r}") from error


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a file, such as a run's own `recipe.json`, edited or not."""
    try:
        return from_json(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: no recipe of relume: not UTF-8 text") from error


def by_epoch(pairs: tuple[tuple[int, Any], ...], epoch: int, default: Any) -> Any:
    """Return the value that holds in an epoch."""
    return ([default] + [value for begin, value in pairs if begin <= epoch])[-1]
