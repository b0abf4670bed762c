"""What training and evaluation do to an image before the network sees it.

An augmentation is named as the input convention of `models/presets.py` that belongs to it.
"""

from dataclasses import replace

from models.augment.evaluation import Evaluation
from models.augment.lornatang import Wide
from models.augment.mxnet_family import Levels
from models.augment.torch_family import PaddedCrop, RandomCrop, RandomSizedCrop
from models.augment.view import Augmentation
from models.errors import SpecError
from models.presets import preset
from models.spec import InputSpec

LEVELS = (1, 2, 3)
RECORD_SIDES = {1: 256, 2: 480, 3: 480}  # of crops of 224
CIFAR_BORDER = 4


def augmentation(name: str, *, level: int = 1) -> Augmentation:
    """Return the augmentation of training that belongs to a preset.

    Args:
        name: Of the preset: `torch-*`, `enet-224`, `mxnet-*` or `lornatang-299`.
        level: Of MXNet's, 1 to 3.

    Raises:
        SpecError: There is no such preset, none that training used, or no such level.
    """
    spec = preset(name)
    size = spec.crop[0]
    if name in ("torch-299", "torch-224"):
        return RandomSizedCrop(spec, size)
    if name in ("torch-cifar10", "torch-cifar100"):
        return PaddedCrop(spec, size, CIFAR_BORDER)
    if name == "enet-224":
        return RandomCrop(spec, size)
    if name == "lornatang-299":
        return Wide(spec, size)
    if level not in LEVELS:
        raise SpecError(f"--aug-level {level}: expected 1, 2 or 3")
    if name == "mxnet-224":
        return Levels(spec, size, level, RECORD_SIDES[level])
    if name == "mxnet-cifar10":
        return Levels(spec, size, 1, size, CIFAR_BORDER)
    raise SpecError(f"{name}: no training is known that used this preset")


def evaluation(
    name: str | InputSpec, *, size: int | None = None, resize: int | None = None, ten: bool = False
) -> Evaluation:
    """Return the view of evaluation.

    Args:
        name: Of a preset, or an artifact's input convention.
        size: Of the crop; the preset's unless given.
        resize: Of the shorter side before it; the preset's unless given.
        ten: Ten crops instead of one.

    Raises:
        SpecError: There is no such preset.
    """
    spec = preset(name) if isinstance(name, str) else name
    crop = spec.crop if size is None else (size, size)
    return Evaluation(replace(spec, crop=crop, resize=resize or spec.resize), ten)
