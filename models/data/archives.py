"""From the archives in which data sets are published to folders of classes.

What lies in an archive is found by its name there; where it goes is made anew from the class and
the last part of the name, so that no archive can write elsewhere. What is there already, in its
full size, is not written again: a run that was stopped goes on.
"""

import hashlib
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from models.data.folders import SUFFIXES
from models.data.matlab import structs
from models.data.small_images import CIFARS
from models.errors import DataError, FormatError

BLOCK = 2**22  # bytes that are read at a time


class Member(NamedTuple):
    """A file in an archive."""

    name: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


Placing = Callable[[Sequence[Path]], Callable[[Member], str | None]]  # reads what it needs first


class Published(NamedTuple):
    """How a data set is published.

    Attributes:
        images: How many files it becomes, for the progress.
        md5: Of its archives, by their names; without any, archives of any name are taken.
        placing: Given the archives, says where in the layout a member goes, None for nowhere.
    """

    images: int
    md5: dict[str, str]
    placing: Placing


def unknown(name: str, archives: Sequence[Path]) -> list[str]:
    """Return the names of archives that are not those of the data set."""
    known = PUBLISHED[name].md5
    return [path.name for path in archives if known and path.name not in known]


def md5(path: Path, advance: Callable[[int], None]) -> str:
    """Return a file's MD5; `advance` is told how many bytes have been read."""
    total = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
            advance(len(block))
    return total.hexdigest()


def members(path: Path) -> Iterator[Member]:
    """Yield the files of an archive, and of the archives in it, as they lie there.

    Raises:
        FormatError: The archive is damaged or none.
    """
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        name, size = PurePosixPath(info.filename), info.file_size
                        yield from _inner(Member(name, size, partial(archive.open, info)))
        else:
            with tarfile.open(path) as tar:
                yield from _of_tar(tar)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise FormatError(path, "the archive", found=str(error), expected="a whole one") from error


def _of_tar(tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        if info.isfile():
            opened = partial(_opened, tar, info)
            yield from _inner(Member(PurePosixPath(info.name), info.size, opened))
        tar.members.clear()  # type: ignore[attr-defined]  # or it keeps a million of them


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    assert file is not None  # members that are no files are not opened
    return file


def _inner(member: Member) -> Iterator[Member]:
    if member.name.name.endswith((".tar", ".tar.gz")):
        with member.open() as file, tarfile.open(fileobj=file) as tar:
            yield from _of_tar(tar)
    else:
        yield member


def lay_out(
    name: str, archives: Sequence[Path], folder: Path, advance: Callable[[int], None]
) -> int:
    """Put the files of a data set into its layout; return how many there are.

    Args:
        name: In `PUBLISHED`.
        archives: All of them.
        folder: Gets `train` and `val`.
        advance: Is told of each file.

    Raises:
        FormatError: An archive is damaged.
        DataError: There is nothing of the data set in an archive, or a class is not known.
    """
    place = PUBLISHED[name].placing(archives)
    total = 0
    for path in archives:
        before = total
        for member in members(path):
            if (target := place(member)) is not None:
                _write(member, folder / target)
                total += 1
                advance(1)
        if total == before and "devkit" not in path.name:
            raise DataError(f"{path}: found nothing of {name}")
    return total


def _write(member: Member, target: Path) -> None:
    """Write a file whole or not at all, unless it is there."""
    if target.exists() and target.stat().st_size == member.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with member.open() as source, part.open("wb") as copy:
            shutil.copyfileobj(source, copy, BLOCK)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _imagenet(archives: Sequence[Path]) -> Callable[[Member], str | None]:
    """Training images carry their class in their name; validation images have it in the devkit.

    The devkit numbers the classes otherwise than the sorted names do, and only its meta.mat says
    how; its text file has a number for each validation image.

    Source: ILSVRC2012_devkit_t12/readme.txt.
    """
    devkit = _texts(archives, ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"))
    names: dict[int, str] = {}
    if meta := devkit.get("meta.mat"):
        for one in structs("meta.mat", meta, "synsets"):
            number, wnid = one.get("ILSVRC2012_ID"), one.get("WNID")
            if isinstance(number, float) and isinstance(wnid, str):
                names[int(number)] = wnid
    truth = re.findall(rb"\d+", devkit.get("ILSVRC2012_validation_ground_truth.txt", b""))

    def place(member: Member) -> str | None:
        name = member.name.name
        if found := re.fullmatch(r"(n\d{8})_\d+\.JPEG", name):
            return f"train/{found[1]}/{name}"
        if found := re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", name):
            number = int(found[1])
            if not 0 < number <= len(truth) or int(truth[number - 1]) not in names:
                raise DataError(f"{name}: the devkit does not name its class")
            return f"val/{names[int(truth[number - 1])]}/{name}"
        return None

    return place


def _tiny_imagenet(archives: Sequence[Path]) -> Callable[[Member], str | None]:
    """Training images lie in folders of classes; a table has the validation images' classes."""
    table = _texts(archives, ("val_annotations.txt",)).get("val_annotations.txt", b"").decode()
    classes = dict(re.findall(r"^(\S+)\t(n\d{8})\t", table, re.MULTILINE))

    def place(member: Member) -> str | None:
        parts, name = member.name.parts, member.name.name
        if found := re.fullmatch(r"(n\d{8})_\d+\.JPEG", name):
            return f"train/{found[1]}/{name}"
        if "val" not in parts or not name.endswith(".JPEG"):
            return None  # the test images have no labels
        if name not in classes:
            raise DataError(f"{member.name}: val_annotations.txt does not name its class")
        return f"val/{classes[name]}/{name}"

    return place


def _cifar(name: str) -> Placing:
    layout = CIFARS[name]
    wanted = {layout.names, *layout.files["train"], *layout.files["val"]}

    def place(member: Member) -> str | None:
        known = member.name.name in wanted
        return f"{layout.folder}/{member.name.name}" if known else None

    return lambda _: place


def _held_out(share: float, class_of: Callable[[Member], str | None]) -> Placing:
    """Return the rule for a data set without a validation part: a share of each class becomes one.

    Which images these are is decided by a hash of their names, the same everywhere.
    """

    def placing(archives: Sequence[Path]) -> Callable[[Member], str | None]:
        classes: dict[str, list[str]] = defaultdict(list)
        for path in archives:
            for member in members(path):
                if (name := class_of(member)) is not None:
                    classes[name].append(member.name.name)
        chosen = {
            name: held_out(name, files, round(share * len(files)))
            for name, files in classes.items()
        }

        def place(member: Member) -> str | None:
            name = class_of(member)
            if name is None:
                return None
            split = "val" if member.name.name in chosen[name] else "train"
            return f"{split}/{name}/{member.name.name}"

        return place

    return placing


def held_out(name: str, files: Sequence[str], count: int, seed: int = 0) -> set[str]:
    """Return `count` files of a class, chosen by the hashes of seed, class and file name.

    So neither the order of the files nor the machine matters, and a file more changes the choice
    by one at most.
    """

    def key(file: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}/{file}".encode("utf-8", "surrogateescape")).digest()

    return set(sorted(files, key=key)[:count])


def _by_folder(member: Member) -> str | None:
    """Return Caltech's class of an image: the folder that it lies in, but for the background."""
    *above, folder, name = ("", *member.name.parts)[-3:]
    is_image = name.lower().endswith(SUFFIXES) and above[-1:] and "_ObjectCategories" in above[-1]
    return folder if is_image and folder not in ("BACKGROUND_Google", "..") else None


def _by_wnid(member: Member) -> str | None:
    """Return the WordNet id in the name of an image or its folder."""
    if not member.name.name.lower().endswith(SUFFIXES):
        return None
    found = re.search(r"n\d{8}", str(member.name))
    return found[0] if found else None


def _texts(archives: Sequence[Path], names: Sequence[str]) -> dict[str, bytes]:
    """Return small files of the archives by their names; of large archives nothing is read."""
    found: dict[str, bytes] = {}
    for path in archives:
        if path.name.startswith("ILSVRC2012_img_"):
            continue
        for member in members(path):
            if member.name.name in names:
                with member.open() as file:
                    found[member.name.name] = file.read()
    return found


PUBLISHED: dict[str, Published] = {
    "imagenet": Published(
        1_281_167 + 50_000,
        {
            "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
            "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
            "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
        },
        _imagenet,
    ),
    "tiny-imagenet": Published(
        110_000, {"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"}, _tiny_imagenet
    ),
    # 100 classes of 600 images, of which its makers keep classes apart, not images; 100 of each
    # class are held out here. There is no one archive of it.
    "mini-imagenet": Published(60_000, {}, _held_out(1 / 6, _by_wnid)),
    "cifar10": Published(
        7, {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}, _cifar("CIFAR-10")
    ),
    "cifar100": Published(
        3, {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"}, _cifar("CIFAR-100")
    ),
    # Neither has a validation part; a fifth of each class is held out.
    "caltech101": Published(
        8_677,
        {
            "101_ObjectCategories.tar.gz": "b224c7392d521a49829488ab0f1120d9",
            "caltech-101.zip": "3138e1922a9193bfa496528edbbc45d0",
        },
        _held_out(1 / 5, _by_folder),
    ),
    "caltech256": Published(
        30_607,
        {"256_ObjectCategories.tar": "67b4f42ca05d46448c6bb8ecd2220f6d"},
        _held_out(1 / 5, _by_folder),
    ),
}
