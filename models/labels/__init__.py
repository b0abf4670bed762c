"""Class names: one line a class, in index order, a leading WordNet id allowed."""

import re
from pathlib import Path

from models.errors import SpecError
from models.spec import Label

ILSVRC2012 = Path(__file__).with_name("ilsvrc2012.txt")
_LINE = re.compile(r"(?:(?P<wnid>n\d{8})\s+)?(?P<name>.+)")


def read_labels(path: Path) -> tuple[Label, ...]:
    """Return the classes of a label file, in order.

    Raises:
        SpecError: The file is not UTF-8 text, or has an empty line before its end.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{path}: byte {error.start:,} is not UTF-8 text: a label file has one name a line"
        ) from error
    labels = []
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise SpecError(f"{path}: line {number} is empty: a label file has one name a line")
        labels.append(Label(match["wnid"], match["name"]))
    return tuple(labels)


def labels_for(count: int, *, images: bool, file: Path | None = None) -> tuple[Label, ...]:
    """Return one label for each of `count` outputs.

    They come from `file` if given; a network that takes images and has 1,000 outputs has the
    classes of ILSVRC-2012, sorted by WordNet id as every framework of the time sorted its folders;
    all others are numbered.

    Raises:
        SpecError: The file has another number of lines than the network has outputs.
    """
    if file is not None:
        labels = read_labels(file)
        if len(labels) != count:
            raise SpecError(
                f"{file}: found {len(labels):,} labels, expected {count:,}: one for each output"
            )
        return labels
    if images and count == 1000:
        return read_labels(ILSVRC2012)
    return tuple(Label(None, str(index)) for index in range(count))
