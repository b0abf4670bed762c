"""A run's state in one file that is there whole or not at all: what decides every step to come."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.checkpoint import save_content, unpacked_pt
from models.errors import ArtifactError, ResumeError, some
from models.files import writing
from models.recipes import FACTS, Recipe, flag_text
from models.recipes.recipe import from_json
from models.training.flags import RECIPE_FILE

FORMAT = "relume-snapshot"
SCHEMA = 1
NAME = "snapshot.pt"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        update: Updates done.
        validated: Epochs that are over and validated.
        seconds: Time spent on updates so far, by every run of the program together.
        best_epoch, best_error: Of the validations; top-1 error in percent.
        sums: Loss, wrong first guesses, wrong first fives and images of the epoch so far.
    """

    update: int = 0
    validated: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_error: float = float("inf")
    sums: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Identity:
    """What two runs must have in common for one to go on where the other ended."""

    recipe: Recipe
    train: str
    val: str
    world: int

    def differences(self, other: "Identity") -> dict[str, str]:
        """Return what differs from an earlier run, with both values, by the name that allows it."""
        found = {}
        changed = [
            f"{name.replace('_', '-')} was {flag_text(other.recipe, name)}, "
            f"is {flag_text(self.recipe, name)}"
            for name in asdict(self.recipe)
            if name not in FACTS and getattr(self.recipe, name) != getattr(other.recipe, name)
        ]
        if changed:
            found["recipe"] = f"the recipe differs: {'; '.join(changed)}"
        splits = (("train", other.train, self.train), ("val", other.val, self.val))
        images = [
            f"the images of {split} differ: their SHA-256 was {was[:12]}, is {now[:12]}"
            for split, was, now in splits
            if was != now
        ]
        if images:
            found["data"] = "; ".join(images)
        if self.world != other.world:
            found["processes"] = f"there were {other.world} processes, there are {self.world}"
        return found


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot's file holds.

    Attributes:
        identity: What decides the run.
        steps: Updates of an epoch.
        progress: How far it is.
        network: Weights and statistics.
        momentum: The optimizer's buffers, by the parameters' names.
        scaler: Of the loss, where it is scaled.
        average: Of the weights, where they are averaged.
        processes: An entry for each process of the run.
    """

    identity: Identity
    steps: int
    progress: Progress
    network: dict[str, torch.Tensor]
    momentum: dict[str, torch.Tensor]
    scaler: dict[str, Any]
    average: dict[str, Any]
    processes: list[dict[str, Any]]


def random_state() -> dict[str, Any]:
    """Return the state of every generator of random numbers of this process."""
    numpy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    inner = numpy["state"]
    numpy["state"] = {"key": torch.from_numpy(inner["key"].astype(np.int64)), "pos": inner["pos"]}
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": numpy,
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Let every generator go on from a state that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    numpy, inner = state["numpy"], state["numpy"]["state"]
    np.random.set_state({**numpy, "state": {**inner, "key": inner["key"].numpy().astype("u4")}})
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Put a snapshot, with its recipe beside it, in place of the last one.

    That one stays until the new one is whole.

    Raises:
        OSError: It could not be written; the last one is still there.
    """
    identity, progress = snapshot.identity, snapshot.progress
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        "identity": {**vars(identity), "recipe": identity.recipe.to_json()},
        "progress": asdict(progress),
        **{name: getattr(snapshot, name) for name in _PLAIN},
    }
    with writing() as files:
        save_content(files.new(path), content)
        save_recipe(files.new(path.with_name(RECIPE_FILE)), identity.recipe)


def save_recipe(path: Path, recipe: Recipe) -> None:
    """Write the recipe of a run; the caller chooses a temporary name."""
    path.write_text(recipe.to_json(), encoding="utf-8")


_PLAIN = ("steps", "network", "momentum", "scaler", "average", "processes")


def load_snapshot(path: Path) -> Snapshot:
    """Return what `save_snapshot` wrote.

    Raises:
        ResumeError: There is none, or it is damaged or of another schema.
    """
    check_there(path)
    try:
        with path.open("rb") as file:
            content = unpacked_pt(path, file)
    except ArtifactError as error:
        raise ResumeError(f"{path}: damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResumeError(f"{path}: a PyTorch file, but no snapshot of relume")
    if content.get("schema") != SCHEMA:
        raise ResumeError(f"{path}: schema {content.get('schema')!r}, this relume reads {SCHEMA}")
    try:
        given = dict(content["identity"])
        given["recipe"] = from_json(given["recipe"], str(path))
        known = {one.name for one in fields(Progress)}
        progress = Progress(**{key: content["progress"][key] for key in known})
        plain = {name: content[name] for name in _PLAIN}
        return Snapshot(identity=Identity(**given), progress=progress, **plain)
    except (KeyError, TypeError) as error:
        raise ResumeError(f"{path}: damaged: no {error}") from error


def check_there(path: Path) -> None:
    """Raise ResumeError where there is no snapshot."""
    if not path.is_file():
        raise ResumeError(f"{path}: no snapshot to go on from: leave --resume out to begin")


def check_same(now: Identity, then: Identity, allowed: frozenset[str]) -> list[str]:
    """Return the differences of two runs, all of which are allowed.

    Raises:
        ResumeError: One is not; the message names it and what allows it.
    """
    found = now.differences(then)
    if refused := {key: text for key, text in found.items() if key not in allowed}:
        raise ResumeError(
            f"--resume: {'; '.join(refused.values())}. --allow {' '.join(refused)} goes on all the "
            "same, though not as the run would have"
        )
    return list(found.values())


def place_of(then: Snapshot, recipe: Recipe, steps: int) -> int:
    """Return the updates done, where a run goes on with other batches or images than before.

    Epochs that are over stay so. Of one that was interrupted as many images count as seen as were,
    in whole batches; where nothing differs, it is the snapshot's own update.
    """
    into = then.progress.update - then.progress.validated * then.steps
    seen = into * then.identity.recipe.batch_size // recipe.batch_size
    return then.progress.validated * steps + min(seen, steps)


def check_fits(network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Raise ResumeError where a snapshot's tensors are not a network's."""
    ours, theirs = (
        {name: tuple(one.shape) for name, one in each.items()}
        for each in (network.state_dict(), state)
    )
    if odd := sorted(name for name, _ in ours.items() ^ theirs.items()):
        raise ResumeError(
            f"--resume: the snapshot is of another network, which no --allow goes on with; "
            f"tensors that do not fit: {some(list(dict.fromkeys(odd)))}"
        )


def check_shared(seen: Sequence[Any]) -> None:
    """Raise ResumeError where processes see different states of the run's folder."""
    if any(one != seen[0] for one in seen):
        raise ResumeError(
            "the processes find the run at different places: its folder (-o) has to be one that "
            "every machine sees"
        )


def stamp(path: Path) -> int:
    """Return when a snapshot was written, to tell it from others; 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def sweep(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
