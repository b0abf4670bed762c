"""`relume data` lays out, checks and divides data sets."""

import hashlib
import io
import json
import re
import shlex
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from models.data import archives, open_samples
from models.data.archives import PUBLISHED, held_out
from models.data.lists import read_list
from models.data.records import RecordFile, RecordWriter, packed
from relume import pack
from relume.data import main
from tests.models.data.test_matlab import written
from tests.oracles import ROOT

JPEG = simplejpeg.encode_jpeg(np.full((8, 8, 3), 99, np.uint8))


def run(*arguments: object) -> int:
    return main([str(one) for one in arguments])


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def imagenet(folder: Path) -> list[Path]:
    """Return tiny archives of ImageNet's form: two classes, three validation images."""
    inner = {
        f"{wnid}.tar": tar({f"{wnid}_{number}.JPEG": JPEG + bytes([number]) for number in (7, 18)})
        for wnid in ("n02119789", "n02100735")
    }
    val = {f"ILSVRC2012_val_{number:08}.JPEG": JPEG + bytes([number]) for number in (1, 2, 3)}
    kit = "ILSVRC2012_devkit_t12/data/"
    truth = {
        f"{kit}meta.mat": written(),
        f"{kit}ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n",
    }
    made = {
        "ILSVRC2012_img_train.tar": tar(inner),
        "ILSVRC2012_img_val.tar": tar(val),
        "ILSVRC2012_devkit_t12.tar.gz": tar(truth, "w:gz"),
    }
    return saved(folder, made)


def saved(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def tree(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def test_imagenet_is_laid_out_by_the_devkit(tmp_path: Path) -> None:
    """Training images go by their names, validation images by the devkit's numbers."""
    out = tmp_path / "out"
    assert run("imagenet", *imagenet(tmp_path), "-o", out, "--skip-checksum") == 0
    assert tree(out) == [
        "train/n02100735/n02100735_18.JPEG",
        "train/n02100735/n02100735_7.JPEG",
        "train/n02119789/n02119789_18.JPEG",
        "train/n02119789/n02119789_7.JPEG",
        "val/n02100735/ILSVRC2012_val_00000001.JPEG",
        "val/n02100735/ILSVRC2012_val_00000003.JPEG",
        "val/n02119789/ILSVRC2012_val_00000002.JPEG",
    ]
    assert (out / "train/n02119789/n02119789_7.JPEG").read_bytes() == JPEG + b"\x07"
    assert open_samples(out, "val").labels.tolist() == [0, 0, 1]


def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there in full is not written again, what is cut short is."""
    out, given = tmp_path / "out", imagenet(tmp_path)
    assert run("imagenet", *given, "-o", out, "--skip-checksum") == 0
    whole = out / "train/n02100735/n02100735_7.JPEG"
    time = whole.stat().st_mtime_ns
    cut = out / "train/n02119789/n02119789_7.JPEG"
    cut.write_bytes(b"half")
    (out / "val/n02119789/ILSVRC2012_val_00000002.JPEG").unlink()
    capsys.readouterr()
    assert run("imagenet", *given, "-o", out, "--skip-checksum", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(out), "files": 7}
    assert whole.stat().st_mtime_ns == time
    assert cut.read_bytes() == JPEG + b"\x07"
    assert len(tree(out)) == 7

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    cut.unlink()
    monkeypatch.setattr("shutil.copyfileobj", full)
    assert run("imagenet", *given, "-o", out, "--skip-checksum") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert len(tree(out)) == 6


def test_checksums_are_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive of other bytes, or another name, is refused before anything is written."""
    given, out = imagenet(tmp_path), tmp_path / "out"
    assert run("imagenet", *given, "-o", out) == 1
    assert "expected 1d675b47d978889d74fa0da5fadfb00e: load it again" in capsys.readouterr().err
    (tmp_path / "train.tar").write_bytes(b"")
    assert run("imagenet", tmp_path / "train.tar", "-o", out) == 1
    assert "train.tar: no archive of imagenet; expected ILSVRC2012" in capsys.readouterr().err
    assert not out.exists()
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in given}
    monkeypatch.setitem(PUBLISHED, "imagenet", PUBLISHED["imagenet"]._replace(md5=sums))
    assert run("imagenet", *given, "-o", out) == 0
    assert "as published" in capsys.readouterr().err


def test_validation_images_need_the_devkit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it their classes are not known."""
    _, val, _ = imagenet(tmp_path)
    assert run("imagenet", val, "-o", tmp_path / "out", "--skip-checksum") == 1
    assert "val_00000001.JPEG: the devkit does not name its class" in capsys.readouterr().err


TINY = {
    "tiny-imagenet-200/wnids.txt": b"n01443537\n",
    "tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG": JPEG,
    "tiny-imagenet-200/train/n01443537/n01443537_boxes.txt": b"",
    "tiny-imagenet-200/val/val_annotations.txt": b"val_0.JPEG\tn01443537\t0\t32\t44\t62\n",
    "tiny-imagenet-200/val/images/val_0.JPEG": JPEG,
    "tiny-imagenet-200/test/images/test_0.JPEG": JPEG,
}
CIFAR10 = {
    f"cifar-10-batches-bin/{name}": b"airplane\n" if name.endswith("txt") else bytes(3073)
    for name in (
        *(f"data_batch_{number}.bin" for number in range(1, 6)),
        *("test_batch.bin", "batches.meta.txt", "readme.html"),
    )
}
CIFAR100 = {
    "cifar-100-binary/train.bin": bytes(3074),
    "cifar-100-binary/test.bin": bytes(3074),
    "cifar-100-binary/fine_label_names.txt": b"apple\n",
    "cifar-100-binary/coarse_label_names.txt": b"fruit\n",
}
CALTECH = {
    f"101_ObjectCategories/{name}/image_{number:04}.jpg": JPEG
    for name in ("accordion", "yin_yang", "BACKGROUND_Google")
    for number in range(10)
}
MINI = {
    f"images/{wnid}0000000{number}.jpg": JPEG
    for wnid in ("n01532829", "n01558993")
    for number in range(6)
}


@pytest.mark.parametrize(
    ("name", "file", "content", "train", "val"),
    [
        ("tiny-imagenet", "tiny-imagenet-200.zip", zipped(TINY), 1, 1),
        ("cifar10", "cifar-10-binary.tar.gz", tar(CIFAR10, "w:gz"), 5, 1),
        ("cifar100", "cifar-100-binary.tar.gz", tar(CIFAR100, "w:gz"), 1, 1),
        ("caltech101", "101_ObjectCategories.tar.gz", tar(CALTECH, "w:gz"), 16, 4),
        (
            "caltech101",
            "caltech-101.zip",
            zipped({"caltech-101/101_ObjectCategories.tar.gz": tar(CALTECH, "w:gz")}),
            *(16, 4),
        ),
        (
            "caltech256",
            "256_ObjectCategories.tar",
            tar({name.replace("101", "256"): data for name, data in CALTECH.items()}),
            *(16, 4),
        ),
        ("mini-imagenet", "mini.zip", zipped(MINI), 10, 2),
    ],
)
def test_each_data_set_opens_once_laid_out(
    name: str, file: str, content: bytes, train: int, val: int, tmp_path: Path
) -> None:
    """What is laid out is what training opens, with as many images of each part."""
    (path,) = saved(tmp_path, {file: content})
    assert run(name, path, "-o", tmp_path / "out", "--skip-checksum") == 0
    assert len(open_samples(tmp_path / "out", "train")) == train
    assert len(open_samples(tmp_path / "out", "val")) == val


def test_a_held_out_part_is_the_same_everywhere() -> None:
    """Neither order nor further files change more than they must."""
    files = [f"{number}.jpg" for number in range(100)]
    chosen = held_out("cat", files, 10)
    assert chosen == held_out("cat", files[::-1], 10)
    assert len(chosen & held_out("cat", [*files, "new.jpg"], 10)) >= 9
    assert chosen != held_out("dog", files, 10)
    assert chosen != held_out("cat", files, 10, seed=1)
    assert sorted(chosen)[:3] == ["1.jpg", "39.jpg", "46.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar", b"no archive", "a.tar: the archive: found"),
        ("a.zip", b"no archive", "a.zip: the archive: found File is not a zip file"),
        ("a.tar", tar(CALTECH)[:3000], "a.tar: the archive: found"),
        ("a.tar", tar({"x.txt": b""}), "a.tar: found nothing of caltech101"),
    ],
)
def test_archives_that_are_none_are_refused(
    name: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged archive, or one of something else, is one line and a status."""
    (path,) = saved(tmp_path, {name: content})
    assert run("caltech101", path, "-o", tmp_path / "out", "--skip-checksum") == 1
    assert message in capsys.readouterr().err


def test_an_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    """Names that lead out of the folder lead nowhere."""
    evil = {
        "../../101_ObjectCategories/../evil.jpg": JPEG,
        "/etc/101_ObjectCategories/good/../../x.jpg": JPEG,
        "101_ObjectCategories/good/one.jpg": JPEG,
    }
    (path,) = saved(tmp_path, {"a.tar": tar(evil)})
    assert run("caltech101", path, "-o", tmp_path / "in" / "out", "--skip-checksum") == 0
    assert {one.split("/")[0] for one in tree(tmp_path)} == {"a.tar", "in"}
    assert all(one.startswith(("train/", "val/")) for one in tree(tmp_path / "in/out"))


def folders(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{name}{number:03}.jpg").write_bytes(JPEG)
    return root


def test_check_counts_and_finds_what_is_unreadable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every image is decoded; the damaged are named and the status is 1."""
    folders(tmp_path / "train", {"a": 70, "b": 3})
    folders(tmp_path / "val", {"a": 1, "b": 2})
    assert run("check", tmp_path, "--workers", 2) == 0
    printed = capsys.readouterr().out
    assert "train: 73 images of 2 classes, 3 to 70 of each; 0 unreadable" in printed
    assert "val: 3 images of 2 classes, 1 to 2 of each; 0 unreadable" in printed
    (tmp_path / "train/a/a066.jpg").write_bytes(JPEG[:200])
    (tmp_path / "val/b/b001.jpg").write_bytes(b"")
    assert run("check", tmp_path, "--json", "--workers", 2) == 1
    printed = capsys.readouterr()
    reports: dict[str, Any] = json.loads(printed.out)
    assert reports["train"]["images"] == 73
    assert "a066.jpg: found" in reports["train"]["unreadable"][0]
    assert "b001.jpg: found no bytes" in printed.err


def test_check_finds_damaged_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records that cannot be read are told beside images that cannot be decoded."""
    with RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx") as writer:
        for key, data in enumerate([JPEG, b"no image", JPEG, JPEG]):
            writer.write(key, packed([key % 2], key, data))
    data = bytearray((tmp_path / "train.rec").read_bytes())
    at = int(RecordFile(tmp_path / "train.rec").offsets[2])
    data[at] ^= 1
    (tmp_path / "train.rec").write_bytes(data)
    assert run("check", tmp_path / "train.rec", "--json", "--workers", 1) == 1
    found = json.loads(capsys.readouterr().out)["train"]
    assert found["images"] == 3
    assert f"byte {at:,}: found 0xced7230b, expected the magic number" in found["unreadable"][0]
    assert "record 1 at byte" in found["unreadable"][1]


def test_split_lists_large_classes_and_pack_takes_the_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes of too few images are left out; of the others some images are held out."""
    root, out = folders(tmp_path / "all", {"a": 12, "b": 5, "c": 9}), tmp_path / "lists"
    options = ("--at-least", 9, "--held-out", 2)
    assert run("split", root, "-o", out, *options) == 0
    assert "2 classes of 9 images or more: 17 to train, 4 held out" in capsys.readouterr().out
    train, val = (read_list(out / f"{split}.lst") for split in ("train", "val"))
    assert [one.labels[0] for one in val] == [0, 0, 1, 1]
    files = [one.file for one in (*train, *val)]
    assert len(set(files)) == 21
    assert not any(file.startswith("b/") for file in files)
    assert (out / "classes.txt").read_text() == "a\nc\n"
    for split in ("train", "val"):
        given = [root, "-o", out / split, "--list", out / f"{split}.lst", "--workers", 1]
        assert pack.main([str(one) for one in given]) == 0
        samples = open_samples(out, split)  # type: ignore[arg-type]
        assert samples.classes == ("a", "c")
    first = (out / "train.lst").read_bytes()
    assert run("split", root, "-o", out, *options) == 1
    assert "already there; --force overwrites" in capsys.readouterr().err
    assert run("split", root, "-o", out, *options, "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"classes": 2, "train": 17, "val": 4}
    assert (out / "train.lst").read_bytes() == first
    assert run("split", root, "-o", out, *options, "--force", "--seed", 1) == 0
    assert (out / "train.lst").read_bytes() != first


def test_a_split_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No class large enough, or more held out than a class has, is an error."""
    root = folders(tmp_path / "all", {"a": 2})
    assert run("split", root, "-o", tmp_path / "out") == 1
    assert "no class has 500 images" in capsys.readouterr().err
    assert run("split", root, "-o", tmp_path / "out", "--held-out", 500) == 1
    assert "--held-out 500: expected 1 to 499" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_data_set_has_a_sum_that_is_an_md5() -> None:
    """A checksum that is mistyped would refuse the right archive."""
    sums = [one for published in archives.PUBLISHED.values() for one in published.md5.values()]
    assert all(len(bytes.fromhex(one)) == 16 for one in sums)
    assert len(set(sums)) == len(sums)


def commands() -> list[list[str]]:
    """Return the commands of docs/data.md, in their order, without `relume`."""
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [shlex.split(line) for line in "".join(blocks).splitlines()]
    assert all(line[0] == "relume" for line in lines)
    return [line[1:] for line in lines]


def test_every_flag_is_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that nobody can read about is not there."""
    for call in (["imagenet"], ["check"], ["split"], None):
        with pytest.raises(SystemExit, match="0"):
            main([*call, "--help"]) if call else pack.main(["--help"])
    flags = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help", "--out"}
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert [flag for flag in sorted(flags) if flag not in text] == []


def test_every_command_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/data.md from the first command to the last, with small archives of the same names."""
    monkeypatch.chdir(tmp_path)
    imagenet(tmp_path)
    made = {
        "tiny-imagenet-200.zip": zipped(TINY),
        "mini-imagenet.zip": zipped(MINI),
        "cifar-10-binary.tar.gz": tar(CIFAR10, "w:gz"),
        "cifar-100-binary.tar.gz": tar(CIFAR100, "w:gz"),
        "101_ObjectCategories.tar.gz": tar(CALTECH, "w:gz"),
        "256_ObjectCategories.tar": tar(
            {name.replace("101", "256"): data for name, data in CALTECH.items()}
        ),
    }
    saved(tmp_path, made)
    folders(tmp_path / "fall11", {"n00000001": 500, "n00000002": 499})
    for command, *arguments in commands():
        laid_out = command == "data" and arguments[0] in PUBLISHED
        options = ["--skip-checksum"] if laid_out else []
        run_it = {"data": main, "pack": pack.main}[command]
        assert run_it([*arguments, *options]) == 0, (command, arguments)
    assert len(open_samples(tmp_path / "11k", "train")) == 450
    assert len(open_samples(tmp_path / "records-480", "val")) == 3
