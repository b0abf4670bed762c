"""Labelled images by index, and the order in which a run takes them.

`open_samples` finds out what is in a folder; `order` says what an epoch consists of; `loader`,
which alone knows torch, makes batches of it in worker processes.

For who reads batches: evaluation's pixels are float32 and the network's input already, ten crops
have a dimension more, and `models/augment/device.py` takes all of these; chance depends on an
image's place in the epoch, so that an image drawn twice is varied twice; a batch says in `replaced`
what could not be read, and has no images where there are more processes than images.
"""

from pathlib import Path
from typing import Literal

from models.data.folders import Folders, class_names
from models.data.packed import Packed
from models.data.samples import Samples
from models.data.small_images import Split, cifar, idx_images
from models.errors import DataError


def open_samples(
    path: Path,
    split: Split,
    *,
    classes: int | None = None,
    damage: Literal["refuse", "skip"] = "refuse",
) -> Samples:
    """Return the labelled images of a data set.

    Args:
        path: A folder with `train` and `val`, folders or `.rec` files; a `.rec` itself; a folder
            with the binary files of CIFAR-10 or CIFAR-100, or with MNIST's or Fashion-MNIST's.
        split: Which images of it.
        classes: How many there must be; None takes what is there.
        damage: Whether damaged records of a `.rec` are refused or left out.

    Raises:
        DataError: There is no data set, or its classes are not what they should be.
        FormatError: A file is damaged.
    """
    samples = _found(path, split, classes, damage)
    if samples is None:
        raise DataError(
            f"{path}: {'found none' if path.is_dir() else 'there is no such folder; expected one'} "
            f"of: folders of classes in {split}/, {split}.rec, CIFAR's binary files, MNIST's idx"
        )
    if classes is not None and len(samples.classes) != classes:
        raise DataError(
            f"{samples.name}: found {len(samples.classes):,} classes, expected {classes:,}; "
            f"`relume train --classes {len(samples.classes)}` trains as many"
        )
    return samples


def _found(
    path: Path, split: Split, classes: int | None, damage: Literal["refuse", "skip"]
) -> Samples | None:
    if path.suffix == ".rec":
        return Packed(path, classes, damage)
    if (path / f"{split}.rec").exists():
        return Packed(path / f"{split}.rec", classes, damage)
    if (path / split).is_dir():
        trained = (path / "train").is_dir()
        return Folders(path / split, class_names(path / "train") if trained else None)
    return cifar(path, split) or idx_images(path, split)
