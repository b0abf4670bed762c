"""An optimizer's state beside a checkpoint, so that a run can go on where it ended."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from models.checkpoint import save_content, unpacked_pt
from models.errors import ArtifactError
from models.graph import Array

FORMAT = "relume-optimizer"
SCHEMA = 1


class Optimizer(NamedTuple):
    """The state of SGD with momentum, in torch.optim.SGD's words.

    Attributes:
        learning_rate: Of the next update.
        momentum, dampening, weight_decay, nesterov: As torch.optim.SGD has them.
        updates: How many there were.
        epoch: How many epochs there were; None where nobody noted it.
        buffers: The momentum buffer of every parameter, by its name in the checkpoint.
    """

    learning_rate: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    updates: int
    epoch: int | None
    buffers: dict[str, Array]

    def state_dict(self, module: nn.Module) -> dict[str, Any]:
        """Return what `torch.optim.SGD(module.parameters(), lr=...).load_state_dict` takes.

        Raises:
            ArtifactError: The module's parameters are not those that there are buffers for.
        """
        parameters = dict(module.named_parameters())
        shapes = {name: tuple(one.shape) for name, one in parameters.items()}
        if shapes != {name: one.shape for name, one in self.buffers.items()}:
            odd = sorted(shapes.keys() ^ self.buffers.keys()) or ["their shapes"]
            raise ArtifactError(f"the optimizer is of other parameters: {', '.join(odd[:5])}")
        optimizer = torch.optim.SGD(
            parameters.values(),
            lr=self.learning_rate,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )
        for name, parameter in parameters.items():
            buffer = torch.from_numpy(self.buffers[name].copy())
            optimizer.state[parameter]["momentum_buffer"] = buffer
        return optimizer.state_dict()


def save_optimizer(path: Path, optimizer: Optimizer) -> None:
    """Write the state; the caller chooses a temporary name."""
    fields = optimizer._asdict()
    fields["buffers"] = {
        name: torch.from_numpy(array.copy()) for name, array in optimizer.buffers.items()
    }
    save_content(path, {"format": FORMAT, "schema": SCHEMA, **fields})


def load_optimizer(path: Path) -> Optimizer:
    """Return what `save_optimizer` wrote.

    Raises:
        ArtifactError: The file is none, or is damaged.
    """
    with path.open("rb") as file:
        content = unpacked_pt(path, file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{path}: a PyTorch file, but no optimizer's state of relume")
    if content.get("schema") != SCHEMA:
        raise ArtifactError(f"{path}: schema {content.get('schema')!r}, this relume reads {SCHEMA}")
    buffers = content.get("buffers")
    fields: dict[str, Any] = {name: content.get(name) for name in _KINDS}
    if not isinstance(buffers, dict) or not all(map(_is_plain, buffers.values())):
        raise ArtifactError(f"{path}: damaged: buffers is not a dictionary of float32 tensors")
    if odd := [name for name, value in fields.items() if not isinstance(value, _KINDS[name])]:
        raise ArtifactError(f"{path}: damaged: no {', '.join(odd)}")
    arrays = {str(name): one.detach().numpy() for name, one in buffers.items()}
    return Optimizer(**fields, buffers=arrays)


_KINDS: dict[str, Any] = {
    "learning_rate": float,
    "momentum": float,
    "dampening": float,
    "weight_decay": float,
    "nesterov": bool,
    "updates": int,
    "epoch": int | None,
}


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == torch.float32
        and value.layout == torch.strided
    )
