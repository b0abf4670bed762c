"""Tests of models/labels."""

from pathlib import Path

import pytest

from models.errors import SpecError
from models.labels import ILSVRC2012, labels_for, read_labels
from models.spec import Label
from tests.oracles import golden


def written(folder: Path, content: bytes) -> Path:
    file = folder / "labels.txt"
    file.write_bytes(content)
    return file


def test_the_classes_of_ilsvrc_2012_are_all_there_in_folder_order() -> None:
    """A thousand classes, each with its WordNet id, in the order in which folders sort."""
    labels = read_labels(ILSVRC2012)
    wnids = [label.wnid for label in labels]
    assert len(set(wnids)) == 1000
    assert wnids == sorted(wnid for wnid in wnids if wnid)
    assert labels[0] == Label("n01440764", "tench, Tinca tinca")
    assert labels[-1] == Label("n15075141", "toilet tissue, toilet paper, bathroom tissue")


def test_the_classes_of_ilsvrc_2012_are_those_of_the_public_list() -> None:
    """Ids and names are those of the list that MXNet's models were published with."""
    lines = golden("imagenet/synset.txt").read_text(encoding="utf-8").split("\n")
    expected = [tuple(line.split(" ", 1)) for line in lines if line]
    assert [tuple(label) for label in read_labels(ILSVRC2012)] == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("n01440764 tench, Tinca tinca\n", [Label("n01440764", "tench, Tinca tinca")]),
        ("cat\ndog\n", [Label(None, "cat"), Label(None, "dog")]),
        ("cat\r\ndog", [Label(None, "cat"), Label(None, "dog")]),
        ("  cat  \n\n\n", [Label(None, "cat")]),
        ("\ufeffchâteau\n", [Label(None, "château")]),
        ("n0144 short\n", [Label(None, "n0144 short")]),
        ("n01440764\n", [Label(None, "n01440764")]),
        ("", []),
    ],
    ids=["id and name", "names", "CRLF", "spaces", "BOM", "no id", "id alone", "empty"],
)
def test_a_label_file_has_one_class_a_line(
    tmp_path: Path, content: str, expected: list[Label]
) -> None:
    """Names with or without WordNet ids are read from files of any system."""
    assert read_labels(written(tmp_path, content.encode())) == tuple(expected)


def test_a_gap_in_a_label_file_is_refused(tmp_path: Path) -> None:
    """An empty line would shift every class behind it: it is named by its number."""
    with pytest.raises(SpecError, match=r"labels.txt: line 2 is empty: a label file has one"):
        read_labels(written(tmp_path, b"cat\n\ndog\n"))


def test_a_label_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """The byte that is not UTF-8 is named."""
    with pytest.raises(SpecError, match=r"labels.txt: byte 4 is not UTF-8 text"):
        read_labels(written(tmp_path, b"cat\n\xff"))


def test_labels_come_from_the_file_that_the_caller_names(tmp_path: Path) -> None:
    """A label file decides, also for a network of a thousand outputs that takes images."""
    file = written(tmp_path, b"\n".join(b"class %d" % index for index in range(1000)))
    assert labels_for(1000, images=True, file=file)[7] == Label(None, "class 7")


def test_a_label_file_of_another_length_is_refused(tmp_path: Path) -> None:
    """A file that does not fit the network's outputs is an error that says both numbers."""
    with pytest.raises(SpecError, match="found 2 labels, expected 1,000: one for each output"):
        labels_for(1000, images=True, file=written(tmp_path, b"cat\ndog\n"))


def test_an_image_network_of_a_thousand_outputs_has_the_classes_of_ilsvrc_2012() -> None:
    """Without a file, a thousand outputs on images are the classes of ILSVRC-2012."""
    assert labels_for(1000, images=True) == read_labels(ILSVRC2012)


@pytest.mark.parametrize(("count", "images"), [(1000, False), (10, True), (0, True)])
def test_unknown_classes_are_numbered(count: int, images: bool) -> None:
    """Every other network's classes are called by their numbers, not guessed."""
    assert labels_for(count, images=images) == tuple(
        Label(None, str(index)) for index in range(count)
    )
