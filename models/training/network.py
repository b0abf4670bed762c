"""The network of a run: built from its recipe, begun from other weights, averaged."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import checkpoint as checkpoints
from models.architectures import create, find
from models.augment import augmentation
from models.build import build
from models.checkpoint import Checkpoint
from models.errors import RecipeError, SpecError
from models.optimizer import Optimizer, load_optimizer
from models.presets import PRESETS
from models.recipes.recipe import Recipe, by_epoch, flag_text

Factory = Callable[[], nn.Module]
CONVERTED = "init"  # name of a converted checkpoint in the run's folder


def factory_of(recipe: Recipe, begun: Checkpoint | None = None) -> Factory:
    """Return what makes the recipe's network, with new weights each time.

    A checkpoint whose structure has no name makes its own graph.

    Raises:
        RecipeError: The network does not take the recipe's images, or has not its outputs.
    """

    def make() -> nn.Module:
        if begun is not None and begun.spec.architecture is None:
            return build(begun.network)
        more: dict[str, Any] = {"aux_logits": True} if recipe.aux_weight else {}
        return create(recipe.architecture, num_classes=recipe.classes, **more)

    _check(recipe, make)
    return make


def _check(recipe: Recipe, make: Factory) -> None:
    if recipe.evaluation not in PRESETS:
        raise RecipeError(
            f"evaluation {recipe.evaluation}: no such preset; there are {', '.join(PRESETS)}"
        )
    _check_augmentation(recipe)
    pairs = (("augmentation", recipe.augmentation), ("evaluation", recipe.evaluation))
    for size, given_by in {PRESETS[name].crop: f"{what} {name}" for what, name in pairs}.items():
        _check_images(recipe, make, given_by, size)


def _check_augmentation(recipe: Recipe) -> None:
    for level in (None, *(level for _, level in recipe.aug_levels)):
        try:
            made = augmentation(recipe.augmentation, level=level or 1)
        except SpecError as error:
            raise RecipeError(f"augmentation: {error}") from error
        if level is not None and getattr(made, "level", None) != level:
            raise RecipeError(
                f"aug-levels {flag_text(recipe, 'aug_levels')}: {recipe.augmentation} has no level "
                f"{level}"
            )


def _check_images(recipe: Recipe, make: Factory, given_by: str, size: tuple[int, int]) -> None:
    height, width = size
    try:
        with torch.device("meta"):
            module = make().eval()
        found = module.to("meta")(torch.empty(2, 3, height, width, device="meta"))
    except SpecError as error:
        raise RecipeError(f"architecture: {error}") from error
    except TypeError as error:
        raise RecipeError(
            f"aux-weight {recipe.aux_weight}: {recipe.architecture} has no auxiliary head"
        ) from error
    except RuntimeError as error:
        raise RecipeError(
            f"{recipe.architecture} does not take images of {height} x {width}, as {given_by} "
            "gives them"
        ) from error
    if found.shape != (2, recipe.classes):
        raise RecipeError(
            f"the network gives {tuple(found.shape[1:])} outputs, expected {recipe.classes} classes"
        )


def set_bn_momentum(network: nn.Module, recipe: Recipe, epoch: int) -> None:
    """Give BatchNorm the momentum that the recipe has for an epoch, if it has one."""
    momentum = by_epoch(recipe.bn_momentum, epoch, None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and momentum is not None:
            module.momentum = momentum


def read_start(
    path: Path, folder: Path, preset: str, *, with_optimizer: bool
) -> tuple[Checkpoint, Optimizer | None]:
    """Return the checkpoint that a run starts from, and the state of its optimizer if asked for.

    What is no artifact of relume is converted first, by the command for that, into the run's
    folder; images are to enter as the preset says.

    Raises:
        SpecError: It cannot be converted; why was said on stderr.
    """
    if path.suffix not in (".pt", ".safetensors"):
        flags = ["-o", str(folder), "--name", CONVERTED, "--force", "--no-onnx", "--input", preset]
        command = [sys.executable, "-m", "relume", "convert", *flags]
        command += ["--optimizer"] if with_optimizer else []
        done = subprocess.run([*command, "--", str(path)], check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise SpecError(
                f"--init {path}: could not be converted; `relume convert` with other flags may "
                "make a .pt of it, to give instead"
            )
        path = folder / f"{CONVERTED}.pt"
    beside = path.with_name(f"{path.stem}.optimizer.pt")
    return checkpoints.read(path), load_optimizer(beside) if with_optimizer else None


def take_weights(module: nn.Module, begun: Checkpoint, recipe: Recipe) -> list[str]:
    """Load a checkpoint's weights and statistics; return the names of those that begin anew.

    These are the last layer's, where the recipe has another number of classes.

    Raises:
        RecipeError: It is of another network.
    """
    known = begun.spec.architecture
    if known not in (None, find(recipe.architecture).name):
        raise RecipeError(
            f"--init: the checkpoint is a {known}, the recipe trains a {recipe.architecture}: "
            f"--architecture {known}, if that is meant"
        )
    given = {name: torch.from_numpy(array.copy()) for name, array in begun.network.tensors.items()}
    wanted = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    extra = {name for name in wanted if name.startswith("aux.")}  # an artifact has no such head
    shapes = {
        name: tuple(tuple(one[name].shape) if name in one else None for one in (given, wanted))
        for name in (wanted.keys() | given.keys()) - extra
    }
    odd = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    classes = (len(begun.spec.labels), recipe.classes)
    head = [
        name
        for name, (theirs, ours) in odd.items()
        if theirs and ours and (theirs[0], ours[0]) == classes and theirs[1:] == ours[1:]
    ]
    if len(head) < len(odd):
        said = [
            f"{name} {' and '.join(map(_shape, pair))}" for name, pair in sorted(odd.items())[:5]
        ]
        raise RecipeError(f"--init: tensors that do not fit, theirs and ours: {'; '.join(said)}")
    module.load_state_dict({k: v for k, v in given.items() if k not in head}, strict=False)
    return sorted(head)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else " x ".join(map(str, shape)) or "a number"


class Average:
    """Weights averaged over the updates, beside those that are trained.

    The first update is taken whole; buffers are not averaged but the network's own.

    Source: torch.optim.swa_utils.AveragedModel.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {k: v.detach().clone() for k, v in module.named_parameters()}

    @torch.no_grad()
    def follow(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take in the weights after an update."""
        share = 1 - self.decay if self.updates else 1.0
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in parameters], share)
        self.updates += 1

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {"updates": self.updates, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.updates = state["updates"]
        for name, weight in state["weights"].items():
            self.weights[name].copy_(weight)
