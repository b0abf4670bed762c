"""How learning rate and weight decay change during a run.

A schedule is a factor of a base value, given the place in the run: no state, so that a run that
goes on asks the same question and gets the same answer. Each one is written as its name and its
fields, `milestones at=30,60,90 factor=0.1`, which is what `--schedule` takes and `--explain` shows.
"""

import math
import re
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, get_args, get_origin

from models.errors import RecipeError


class Place(NamedTuple):
    """A place in a run.

    Attributes:
        update: Of the whole run, from 1.
        epoch: From 1.
        steps: Updates in an epoch.
        full: Those of them that a whole batch of new images is there for, floor(N / B).
    """

    update: int
    epoch: int
    steps: int
    full: int


Pairs = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Constant:
    """The base value all along."""

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        return 1.0


@dataclass(frozen=True)
class Steps:
    """Times `factor` after every so many updates, which are counted from 1 over the whole run.

    Source: lim0606/fb.resnet.torch train.lua, learningRateStep.
    """

    every: int
    factor: float

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        return float(self.factor ** (place.update // self.every))


@dataclass(frozen=True)
class Epochs:
    """Times `factor` from each of these epochs on.

    Source: facebook/fb.resnet.torch train.lua, learningRate.
    """

    at: tuple[int, ...]
    factor: float

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        return float(self.factor ** sum(place.epoch >= one for one in self.at))


@dataclass(frozen=True)
class Milestones:
    """Times `factor` once these epochs of whole batches are over, as MXNet counts.

    Its epochs are floor(N / B) updates long, although the data's have one more; the first update
    with the lower value is the one after a milestone. `restarts` are epochs, counted by the data,
    after which the original was started again by hand with another base: what came before counts
    for nothing from there, and later milestones are counted from there.

    Source: tornadomeet/ResNet train_resnet.py, multi_factor_scheduler; MXNet lr_scheduler.py.
    """

    at: tuple[int, ...]
    factor: float
    restarts: Pairs = ()

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        past = [(epoch, value) for epoch, value in self.restarts if place.epoch > epoch]
        if not past:
            return float(self.factor ** sum(place.update > one * place.full for one in self.at))
        begin, base = past[-1]
        done = place.update - begin * place.steps
        left = [one - begin for one in self.at if one > begin]
        return float(base * self.factor ** sum(done > one * place.full for one in left))


@dataclass(frozen=True)
class Rows:
    """A factor for each stretch of epochs: `until` these, and one more to the end.

    Source: soumith/imagenet-multiGPU.torch train.lua, paramsForEpoch.
    """

    until: tuple[int, ...]
    factors: tuple[float, ...]

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        return self.factors[sum(place.epoch > last for last in self.until)]


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to `floor` every `period` epochs, stepped once an epoch.

    Source: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts with T_mult 1, as
    Lornatang/InceptionV4-PyTorch train.py steps it.
    """

    period: int
    floor: float = 0.0

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        done = (place.epoch - 1) % self.period / self.period
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Linear:
    """Down a straight line that reaches 0 when `epochs` are over."""

    epochs: int

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        return max(1 - (place.epoch - 1) / self.epochs, 0.0)


@dataclass(frozen=True)
class RunningLinear:
    """Each epoch's value is the last one's times `1 - epoch / epochs`: what was called linear.

    Source: the regimes of ENet V6 in the form of soumith/imagenet-multiGPU.torch train.lua.
    """

    epochs: int

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        return math.prod(max(1 - epoch / self.epochs, 0.0) for epoch in range(2, place.epoch + 1))


@dataclass(frozen=True)
class Exponential:
    """Times `factor` every epoch."""

    factor: float

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        return float(self.factor ** (place.epoch - 1))


@dataclass(frozen=True)
class RunningExponential:
    """Each epoch's value is the last one's times `factor ** (epoch - 1)`: called exponential.

    Source: the regimes of ENet V7 in the form of soumith/imagenet-multiGPU.torch train.lua.
    """

    factor: float

    def factor_at(self, place: Place) -> float:
        """Return what the base value is multiplied by."""
        return float(self.factor ** (place.epoch * (place.epoch - 1) // 2))


Schedule = (
    Constant
    | Steps
    | Epochs
    | Milestones
    | Rows
    | Cosine
    | Linear
    | RunningLinear
    | Exponential
    | RunningExponential
)
NAMES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "steps": Steps,
    "epochs": Epochs,
    "milestones": Milestones,
    "rows": Rows,
    "cosine": Cosine,
    "linear": Linear,
    "running-linear": RunningLinear,
    "exponential": Exponential,
    "running-exponential": RunningExponential,
}


def written(schedule: Schedule) -> str:
    """Return a schedule as the text that `parsed` reads back to an equal one."""
    name = next(key for key, kind in NAMES.items() if kind is type(schedule))
    given = {one.name: getattr(schedule, one.name) for one in fields(schedule)}
    words = [f"{key}={written_value(value)}" for key, value in given.items() if value != ()]
    return " ".join([name, *words])


def parsed(text: str) -> Schedule:
    """Return the schedule that a text describes.

    Raises:
        RecipeError: It describes none; the message says what it may be.
    """
    name, *words = text.split() or ["schedule"]
    kind = NAMES.get(name)
    if kind is None:
        raise RecipeError(f"schedule {text!r}: no {name}; there are {', '.join(NAMES)}")
    wanted = {one.name: one.type for one in fields(kind)}
    given = dict(word.partition("=")[::2] for word in words)
    try:
        schedule = kind(**{key: parsed_value(value, wanted[key]) for key, value in given.items()})
    except (KeyError, TypeError, ValueError) as error:
        form = " ".join([name, *(f"{key}=..." for key in wanted)])
        raise RecipeError(f"schedule {text!r}: expected {form}") from error
    _check(schedule, text)
    return schedule


def _check(schedule: Schedule, text: str) -> None:
    """Refuse what has the form of a schedule and no meaning."""
    lengths = ("every", "period", "epochs")
    if any(getattr(schedule, name, 1) < 1 for name in lengths):
        raise RecipeError(f"schedule {text!r}: a length below 1")
    if re.search(r"\b(nan|inf)\b", written(schedule)):
        raise RecipeError(f"schedule {text!r}: expected finite numbers")
    at = getattr(schedule, "at", getattr(schedule, "until", ()))
    if list(at) != sorted(set(at)):
        raise RecipeError(f"schedule {text!r}: epochs that do not rise")
    if isinstance(schedule, Rows) and len(schedule.factors) != len(schedule.until) + 1:
        raise RecipeError(
            f"schedule {text!r}: {len(schedule.factors)} factors for {len(schedule.until)} ends, "
            "expected one more than ends"
        )


def written_value(value: Any) -> str:
    """Return a field's value as a flag has it: `30,60,90`, `1:2,99:1`, `0.1`."""
    if isinstance(value, tuple):
        return ",".join(
            ":".join(map(written_value, one)) if isinstance(one, tuple) else written_value(one)
            for one in value
        )
    return str(value)


def parsed_value(text: str, kind: Any) -> Any:
    """Return what `written_value` wrote, of that type; ValueError if it is none.

    A value alone, where pairs of epoch and value belong, holds from epoch 1.
    """
    if get_origin(kind) is not tuple:
        return kind(text)
    inner = get_args(kind)[0]
    if get_origin(inner) is tuple:
        words = [word if ":" in word else f"1:{word}" for word in text.split(",") if word]
        pairs = [word.split(":") for word in words]
        return tuple((int(first), get_args(inner)[1](second)) for first, second in pairs)
    return tuple(inner(word) for word in text.split(",") if word)
