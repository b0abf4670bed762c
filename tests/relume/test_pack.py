"""`relume pack` writes what im2rec writes."""

import json
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from models.data import open_samples
from models.data.lists import Entry, entries_in, read_list, write_list
from models.data.packed import read_classes, write_classes
from models.data.records import RecordFile
from models.decoding import decode
from models.errors import DataError, FormatError
from relume.pack import main
from tests.oracles import golden

PICTURES = np.random.default_rng(3).integers(0, 256, (12, 40, 50, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of four images."""
    for number, pixels in enumerate(PICTURES):
        path = tmp_path / "train" / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(simplejpeg.encode_jpeg(pixels, 95))
    return tmp_path / "train"


def run(*arguments: object) -> int:
    return main([str(one) for one in arguments])


@pytest.mark.parametrize(("side", "name"), [(480, "sample_480_q90"), (256, "sample_256_q90")])
def test_photographs_become_the_bytes_that_im2rec_wrote(
    side: int, name: str, tmp_path: Path
) -> None:
    """Resized and encoded from the originals, the records are MXNet's, byte for byte."""
    originals = RecordFile(golden("mxnet/recordio/passthrough.rec"))
    wanted = RecordFile(golden(f"mxnet/recordio/{name}.rec"))
    entries = []
    for index in range(len(originals)):
        record = originals.record(index)
        (tmp_path / f"{index}.jpg").write_bytes(record.payload)
        entries.append(Entry(index, tuple(record.labels.tolist()), f"{index}.jpg"))
    write_list(tmp_path / "some.lst", entries)
    options = ("--list", tmp_path / "some.lst", "--resize", side, "--quality", 90, "--workers", 2)
    assert run(tmp_path, "-o", tmp_path / "out", *options) == 0
    found = RecordFile(tmp_path / "out.rec")
    assert len(found) == len(originals) == 3
    for index in range(len(found)):
        assert found.raw(index) == wanted.raw(index)


def test_a_list_is_im2recs(folder: Path, tmp_path: Path) -> None:
    """Numbers, labels, order and spelling of the list are im2rec's."""
    assert run(folder, "-o", tmp_path / "a") == 0
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    lines = [f"{n}\t{names[n][5]}.000000\t{names[n]}\n" for n in range(12)]
    random.seed(100)
    random.shuffle(lines)
    assert (tmp_path / "a.lst").read_text() == "".join(lines)
    keys = [int(line.split("\t")[0]) for line in lines]
    file = RecordFile(tmp_path / "a.rec")
    assert file.keys is not None
    assert file.keys.tolist() == keys
    assert (tmp_path / "classes.txt").read_text() == "class0\nclass1\nclass2\n"
    samples = open_samples(tmp_path / "a.rec", "train")
    assert samples.labels.tolist() == [int(names[key][5]) for key in keys]


def test_lists_of_im2rec_are_written_again(tmp_path: Path) -> None:
    """A list that im2rec wrote, read and written again, is the same file."""
    source = golden("mxnet/recordio/sample_256_q90.lst")
    write_list(tmp_path / "copy.lst", read_list(source))
    assert (tmp_path / "copy.lst").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", ["cifar_like", "multilabel", "passthrough"])
def test_lists_say_what_the_records_hold(name: str) -> None:
    """Numbers and labels, one or several, are those of the records made from the list."""
    entries = read_list(golden(f"mxnet/recordio/{name}.lst"))
    file = RecordFile(golden(f"mxnet/recordio/{name}.rec"))
    found = [(one.key, one.labels) for one in entries]
    records = [file.record(index) for index in range(len(file))]
    assert found == [(one.key, tuple(one.labels.tolist())) for one in records]


def test_workers_and_order(folder: Path, tmp_path: Path) -> None:
    """Any number of processes writes the same file; without shuffling it is the sorted order."""
    for workers in (1, 3):
        options = ("--no-shuffle", "--workers", workers, "--resize", 32)
        assert run(folder, "-o", tmp_path / f"w{workers}.rec", *options) == 0
    assert (tmp_path / "w1.rec").read_bytes() == (tmp_path / "w3.rec").read_bytes()
    assert [one.key for one in read_list(tmp_path / "w1.lst")] == list(range(12))
    pixels = simplejpeg.decode_jpeg(RecordFile(tmp_path / "w1.rec").record(0).payload)
    assert pixels.shape == (32, 40, 3)


def test_bytes_can_pass_through(folder: Path, tmp_path: Path) -> None:
    """The files' own bytes become the payloads."""
    assert run(folder, "-o", tmp_path / "a", "--pass-through", "--no-shuffle") == 0
    file = RecordFile(tmp_path / "a.rec")
    assert file.record(0).payload == (folder / "class0/0.jpg").read_bytes()


def test_png_keeps_every_pixel(folder: Path, tmp_path: Path) -> None:
    """A square of PNG is the middle of the image."""
    options = ("--encoding", ".png", "--center-crop", "--no-shuffle")
    assert run(folder, "-o", tmp_path / "a", *options) == 0
    samples = open_samples(tmp_path / "a.rec", "train")
    data = samples.read(0)
    assert isinstance(data, bytes)
    whole = decode((folder / "class0/0.jpg").read_bytes())
    assert (decode(data) == whole[:, 5:45]).all()


def test_a_damaged_image_ends_it_or_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, or all but the image, which is named; the status says so."""
    (folder / "class1/1.jpg").write_bytes(b"no image")
    assert run(folder, "-o", tmp_path / "a") == 1
    assert "class1/1.jpg: found 8 bytes that begin with" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["train"]
    assert run(folder, "-o", tmp_path / "a", "--on-bad", "skip", "--json") == 1
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["images"] == 11
    assert result["left_out"][0].startswith("class1/1.jpg: found 8 bytes")
    assert "1 images were left out" in printed.err
    assert len(read_list(tmp_path / "a.lst")) == len(RecordFile(tmp_path / "a.rec")) == 11


def test_a_strip_is_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would take all memory once resized, or is too long for JPEG, is named like damage."""
    for name, width in (("long", 60_000), ("short", 30_000)):
        strip = cv2.imencode(".png", np.zeros((1 if name == "long" else 100, width, 3), np.uint8))
        (folder / "class0" / f"{name}.png").write_bytes(strip[1].tobytes())
    assert run(folder, "-o", tmp_path / "a", "--resize", 224, "--on-bad", "skip") == 1
    said = capsys.readouterr().err
    assert "long.png: found 60,000 x 1, resized 13,440,000 x 224 pixels, expected at most" in said
    assert "short.png: found 67,200 x 224 pixels, expected sides of at most 65,500 for JPEG" in said
    assert len(RecordFile(tmp_path / "a.rec")) == 12


def test_any_name_of_a_class_survives(tmp_path: Path) -> None:
    """Names that are no UTF-8, or look like the end of a line, are the same when read back."""
    names = ["a\x85b", "\udcff", "ü"]
    write_classes(tmp_path / "classes.txt", names)
    assert read_classes(tmp_path / "classes.txt") == tuple(names)


def test_nothing_is_overwritten_unasked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that are there stay, and so do other classes' names."""
    assert run(folder, "-o", tmp_path / "a") == 0
    assert run(folder, "-o", tmp_path / "a") == 1
    assert "a.rec, " in (error := capsys.readouterr().err)
    assert "already there; --force overwrites" in error
    assert run(folder, "-o", tmp_path / "a", "--force") == 0
    (tmp_path / "classes.txt").write_text("other\n")
    assert run(folder, "-o", tmp_path / "b") == 1
    assert "classes.txt: has other classes; --force overwrites it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\t2\n", "line 1: found '1.t2.n', expected a number, labels and a file"),
        ("x\t0\ta.jpg\n", "line 1: found"),
        ("1\tx\ta.jpg\n", "line 1: found"),
        ("\n", "line 1: found"),
    ],
)
def test_a_damaged_list_is_refused(line: str, message: str, tmp_path: Path) -> None:
    """A line that is none is an error, not an image less."""
    (tmp_path / "bad.lst").write_text(line)
    with pytest.raises(FormatError, match=message):
        read_list(tmp_path / "bad.lst")


def test_an_empty_list_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No image is no data set."""
    (tmp_path / "none.lst").write_text("")
    assert run(tmp_path, "-o", tmp_path / "a", "--list", tmp_path / "none.lst") == 1
    assert "none.lst: found no image" in capsys.readouterr().err


def test_a_whole_data_set_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its parts are no classes; the message says how each is packed."""
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole / "train")
    shutil.copytree(folder, whole / "val")
    assert main([str(whole), "-o", str(tmp_path / "a")]) == 1
    expected = f"`relume pack {whole}/train` and `relume pack {whole}/val`"
    assert f"a data set, expected a folder of classes: {expected}" in capsys.readouterr().err
    assert not (tmp_path / "a.rec").exists()


def test_an_empty_class_is_refused(folder: Path) -> None:
    """A class without an image would shift no label, but be missed later."""
    (folder / "class7").mkdir()
    with pytest.raises(DataError, match="1 class folders have no image: class7"):
        entries_in(folder, shuffle=True)


@pytest.mark.parametrize(
    "options", [("--quality", "0"), ("--quality", "10", "--encoding", ".png"), ("--resize", "0")]
)
def test_impossible_options_are_usage(
    options: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers that make no image are refused before anything is read."""
    with pytest.raises(SystemExit, match="2"):
        run(folder, "-o", folder / "a", *options)
    assert (
        "expected 1 to 100" in (error := capsys.readouterr().err)
        or "expected 0 to 9" in error
        or ("is not a whole number from 1" in error)
    )
