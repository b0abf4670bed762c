"""CIFAR's and MNIST's own files of many small images, and scikit-learn's digits.

CIFAR is distributed in three forms; the binary one is read. The one for Python is a pickle, which
can run any program when it is loaded: it is not opened.
"""

import gzip
import hashlib
import os
import struct
import urllib.request
import zlib
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.data.samples import Arrays, Labels
from models.errors import DataError, FormatError
from models.files import writing

Split = Literal["train", "val"]

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FASHION_MD5 = {  # zalandoresearch/fashion-mnist README.md
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
FASHION_LABELS = {  # MD5 of the labels themselves: Debian packs the files anew
    "train": "3236f6424fc25388b2834cb19942cf7e",
    "val": "8dea97a4e78c1bd1b5a6e8efbb870b6e",
}
IDX_NAMES = {"train": "train", "val": "t10k"}


class Cifar(NamedTuple):
    """How a CIFAR archive is laid out.

    Attributes:
        folder: That the archive unpacks to.
        names: The file of the classes' names.
        files: Those of each split.
        label_bytes: Before an image; the last is the class.
    """

    folder: str
    names: str
    files: dict[Split, tuple[str, ...]]
    label_bytes: int


CIFARS = {
    "CIFAR-10": Cifar(
        "cifar-10-batches-bin",
        "batches.meta.txt",
        {
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "val": ("test_batch.bin",),
        },
        1,
    ),
    "CIFAR-100": Cifar(
        "cifar-100-binary",
        "fine_label_names.txt",
        {"train": ("train.bin",), "val": ("test.bin",)},
        2,
    ),
}


def cifar(root: Path, split: Split) -> Arrays | None:
    """Return the CIFAR images of a folder, or of the archive's folder in it; None without any.

    Raises:
        FormatError: A file is not as long as its images.
        DataError: Only the pickled form is there.
    """
    for name, layout in CIFARS.items():
        for folder in (root, root / layout.folder):
            if (folder / layout.names).exists():
                return _cifar(f"{name} {split}", layout, folder, split)
    for pickled in ("cifar-10-batches-py", "cifar-100-python"):
        if (root / pickled).exists():
            raise DataError(
                f"{root / pickled}: a pickle can run any program and is not opened: take the "
                "binary version of the archive from the same page"
            )
    return None


def _cifar(name: str, layout: Cifar, folder: Path, split: Split) -> Arrays:
    classes = (folder / layout.names).read_text(encoding="utf-8").split()
    size = layout.label_bytes + 3 * 32 * 32
    parts = []
    for file in layout.files[split]:
        data = np.fromfile(folder / file, np.uint8)
        if not data.size or data.size % size:
            wanted = f"a multiple of {size:,}"
            raise FormatError(
                folder / file, "its end", found=f"{data.size:,} bytes", expected=wanted
            )
        parts.append(data.reshape(-1, size))
    rows = np.concatenate(parts)
    planes = rows[:, layout.label_bytes :].reshape(-1, 3, 32, 32)
    pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return Arrays(name, classes, pixels, rows[:, layout.label_bytes - 1].astype(np.int64))


def idx_images(root: Path, split: Split) -> Arrays | None:
    """Return the images of MNIST's idx files in a folder, packed or not; None without any.

    The classes are Fashion-MNIST's if the labels are its own, else the numbers 0 to 9.

    Raises:
        FormatError: A file is damaged.
    """
    stem = root / IDX_NAMES[split]
    images, labels = (
        next((path for path in _spellings(stem, kind) if path.exists()), None)
        for kind in ("images-idx3", "labels-idx1")
    )
    if images is None or labels is None:
        return None
    numbers = _idx(labels, 1)
    fashion = _md5(numbers.tobytes()) == FASHION_LABELS[split]
    classes = FASHION_CLASSES if fashion else tuple(map(str, range(10)))
    name = f"{'Fashion-MNIST' if fashion else root} {split}"
    return Arrays(name, classes, _idx(images, 3)[..., None], numbers.astype(np.int64))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _spellings(stem: Path, kind: str) -> list[Path]:
    return [stem.with_name(f"{stem.name}-{kind}-ubyte{end}") for end in (".gz", "")]


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of an idx file: two zeros, kind, dimensions, sizes, bytes.

    Source: yann.lecun.com/exdb/mnist, THE IDX FILE FORMAT.
    """
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(path, "its end", found=str(error), expected="a whole .gz") from error
    begin = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])  # 8: bytes
    if data[:4] != magic or len(data) < begin:
        raise FormatError(path, 0, found=repr(data[:4])[1:], expected=repr(magic)[1:])
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    numbers = np.frombuffer(data, np.uint8, offset=begin)
    if numbers.size != int(np.prod(shape, dtype=object)):
        found = f"{numbers.size:,} bytes"
        raise FormatError(path, begin, found=found, expected=" x ".join(map(str, shape)))
    return numbers.reshape(shape)


def fashion_mnist(split: Split) -> tuple[Arrays, str]:
    """Return Fashion-MNIST, or digits where it cannot be had, and a sentence that says which.

    It is looked for where Debian's package puts it and where an earlier download is kept, and then
    downloaded.
    """
    kept = _cache() / "fashion-mnist"
    for folder in (DEBIAN, kept):
        if found := idx_images(folder, split):
            return found, f"Fashion-MNIST from {folder}"
    try:
        _download(kept)
    except OSError as error:  # URLError among them
        reason = getattr(error, "reason", None) or error.strerror or error
        return digits(split), (
            f"no Fashion-MNIST in {DEBIAN} (apt install dataset-fashion-mnist), and {FASHION_URL} "
            f"does not answer ({reason}): scikit-learn's 1,797 digits instead"
        )
    return fashion_mnist(split)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relume"


def _download(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with writing() as files:
        for name, wanted in FASHION_MD5.items():
            with urllib.request.urlopen(FASHION_URL + name, timeout=20) as answer:
                data = answer.read()
            if (found := _md5(data)) != wanted:
                raise DataError(f"{FASHION_URL}{name}: found MD5 {found}, expected {wanted}")
            files.new(folder / name).write_bytes(data)


def digits(split: Split) -> Arrays:
    """Return scikit-learn's 8 x 8 digits, enlarged to 32 x 32; every fifth is for validation.

    Raises:
        DataError: There is no scikit-learn.
    """
    try:
        bunch = import_module("sklearn.datasets").load_digits()
    except ModuleNotFoundError as error:
        raise DataError(
            "no data: apt install dataset-fashion-mnist, or pip install scikit-learn for its "
            "digits, or name a data set with --data"
        ) from error
    held_out = np.arange(len(bunch.target)) % 5 == 0
    chosen = held_out if split == "val" else ~held_out
    small = (bunch.images[chosen] * (255 / 16)).astype(np.uint8)  # 17 levels of grey
    pixels = small.repeat(4, axis=1).repeat(4, axis=2)[..., None]
    labels: Labels = bunch.target[chosen].astype(np.int64)
    return Arrays(f"digits {split}", tuple(map(str, range(10))), pixels, labels)
