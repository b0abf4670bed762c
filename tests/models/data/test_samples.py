"""A data set is opened by what is in its folder, or refused with what is wrong with it."""

import gzip
import pickle
import struct
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data import open_samples, small_images
from models.data.folders import Folders
from models.data.records import RecordWriter, packed
from models.data.samples import Arrays
from models.data.small_images import DEBIAN, Split, digits, fashion_mnist
from models.errors import DataError, FormatError
from tests.oracles import golden

SEED = np.random.default_rng(5)


def folders(root: Path, split: str, classes: dict[str, int]) -> None:
    for name, count in classes.items():
        (root / split / name).mkdir(parents=True)
        for number in range(count):
            (root / split / name / f"{number}.JPEG").write_bytes(f"{split}{name}{number}".encode())


def records(path: Path, labels: list[float]) -> None:
    with RecordWriter(path, path.with_suffix(".idx")) as writer:
        for key, label in enumerate(labels):
            writer.write(key, packed([label], key, b"image %d" % key))


def test_folders_are_classes_in_sorted_order(tmp_path: Path) -> None:
    """Labels follow the sorted names of the folders; what is no image is no sample."""
    folders(tmp_path, "train", {"b": 2, "a": 1, "c": 3})
    (tmp_path / "train" / "b" / "notes.txt").write_text("no image")
    samples = open_samples(tmp_path, "train")
    assert samples.classes == ("a", "b", "c")
    assert samples.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert samples.read(2) == b"trainb1"
    assert samples.where(2) == str(tmp_path / "train" / "b" / "1.JPEG")
    assert len(samples) == 6


def test_a_digest_tells_data_sets_apart(tmp_path: Path) -> None:
    """Another name, size or label is another data set; the same files elsewhere are not."""
    digests = []
    for number, classes in enumerate([{"a": 2, "b": 2}] * 2 + [{"a": 1, "b": 3}, {"a": 2, "d": 2}]):
        folders(tmp_path / str(number), "train", classes)
        digests.append(open_samples(tmp_path / str(number), "train").digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    (tmp_path / "0/train/a/0.JPEG").write_bytes(b"longer than it was")
    assert open_samples(tmp_path / "0", "train").digest != digests[0]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ({"a": 1, "b": 1}, {"a": 1}, "1 of 2 class folders are missing: b"),
        ({"a": 1}, {"a": 1, "x": 1}, "found 1 folders that are no class of the training .*: x"),
        ({"a": 1, "b": 1}, {"a": 1, "b": 0}, r"1 of 2 class folders have no image \(.*\): b"),
        ({"a": 1}, {}, "found no folders, expected one for each class"),
    ],
)
def test_folders_that_are_wrong_are_named(
    tmp_path: Path, train: dict[str, int], val: dict[str, int], message: str
) -> None:
    """A missing, unknown or empty class folder is an error with its name."""
    folders(tmp_path, "train", train)
    (tmp_path / "val").mkdir()
    folders(tmp_path, "val", val)
    with pytest.raises(DataError, match=message):
        open_samples(tmp_path, "val")


def test_many_names_are_counted(tmp_path: Path) -> None:
    """The message names the first and says how many more there are."""
    folders(tmp_path, "train", {f"class{number:02}": 0 for number in range(20)})
    with pytest.raises(DataError, match="20 of 20 .* class00, .*class07 and 12 more"):
        open_samples(tmp_path, "train")


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    """What the folder might have is said."""
    with pytest.raises(DataError, match=r"found none of: folders of classes in val/, val\.rec"):
        open_samples(tmp_path, "val")
    with pytest.raises(DataError, match="there is no such folder"):
        open_samples(tmp_path / "absent", "val")


def test_records_carry_their_labels() -> None:
    """The first label is the class; the image is the record's payload."""
    samples = open_samples(golden("mxnet/recordio/multilabel.rec"), "train", classes=1000)
    assert samples.labels.tolist() == [7, 671, 24, 407, 530]
    assert len(samples.classes) == 1000
    image = samples.read(3)
    assert isinstance(image, bytes)
    assert image[:2] == b"\xff\xd8"
    assert samples.where(3).endswith("multilabel.rec: record 3 at byte 9,036")


def test_records_in_a_folder_have_the_names_beside_them(tmp_path: Path) -> None:
    """`classes.txt` names the classes, and says how many there are."""
    records(tmp_path / "val.rec", [0, 2, 1])
    assert open_samples(tmp_path, "val").classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("cat\ndog\nhen\nowl\n")
    samples = open_samples(tmp_path, "val")
    assert samples.classes == ("cat", "dog", "hen", "owl")
    with pytest.raises(DataError, match="classes.txt: found 4 classes, expected 3"):
        open_samples(tmp_path, "val", classes=3)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 1, 7, 9], 5, "found 2 labels out of range, expected 0 to 4: .*record 2 at byte .*: 7"),
        ([0, -1], None, "found 1 labels out of range"),
        ([0, 0.5], None, "record 1 at byte 40: found label 0.5, expected a whole number"),
        ([], None, "found no record of an image"),
    ],
)
def test_labels_of_records_are_checked(
    tmp_path: Path, labels: list[float], classes: int | None, message: str
) -> None:
    """A label that is of no class is an error with its record, before training starts."""
    records(tmp_path / "train.rec", labels)
    with pytest.raises(DataError, match=message):
        open_samples(tmp_path, "train", classes=classes)


def test_records_without_a_header_are_refused_or_left_out(tmp_path: Path) -> None:
    """Framing that is good does not make an image's record."""
    with RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx") as writer:
        for key, record in enumerate([packed([1], 0, b"x"), b"short", packed([0], 2, b"y")]):
            writer.write(key, record)
    with pytest.raises(FormatError, match="byte 36: found a record too short for its header"):
        open_samples(tmp_path, "train")
    samples = open_samples(tmp_path, "train", damage="skip")
    assert samples.labels.tolist() == [1, 0]
    assert samples.read(1) == b"y"
    assert "record 2" in samples.where(1)


def cifar10(root: Path) -> np.ndarray:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n\n")
    rows = SEED.integers(0, 256, (6, 3073)).astype(np.uint8)
    rows[:, 0] = [0, 2, 1, 1, 0, 2]
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(rows[number - 1].tobytes())
    (folder / "test_batch.bin").write_bytes(rows[5].tobytes())
    return rows


def test_cifar10_is_read_from_its_binary_files(tmp_path: Path) -> None:
    """A label byte, then three planes of 32 x 32."""
    rows = cifar10(tmp_path)
    for root in (tmp_path, tmp_path / "cifar-10-batches-bin"):
        samples = open_samples(root, "train")
        assert samples.classes == ("airplane", "automobile", "bird")
        assert samples.labels.tolist() == [0, 2, 1, 1, 0]
        pixels = samples.read(3)
        assert isinstance(pixels, np.ndarray)
        assert (pixels[..., 1].ravel() == rows[3, 1025:2049]).all()
    assert open_samples(tmp_path, "val").labels.tolist() == [2]


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    """Of the two label bytes the second counts."""
    (tmp_path / "fine_label_names.txt").write_text("apple\naquarium_fish\n")
    row = bytes([17, 1]) + bytes(range(256)) * 12
    (tmp_path / "train.bin").write_bytes(row * 2)
    assert open_samples(tmp_path, "train").labels.tolist() == [1, 1]


def test_a_cifar_file_cut_short_is_refused(tmp_path: Path) -> None:
    """A file that holds no whole number of images is an error."""
    cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(bytes(3000))
    with pytest.raises(FormatError, match="found 3,000 bytes, expected a multiple of 3,073"):
        open_samples(tmp_path, "val")


def test_a_pickled_cifar_is_not_opened(tmp_path: Path) -> None:
    """The form for Python could run a program; the message names the other."""

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "trapped",))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="a pickle can run any program and is not opened: take the"):
        open_samples(tmp_path, "train")
    assert not (tmp_path / "trapped").exists()


def idx(root: Path, images: bytes, labels: bytes, *, packed: bool = True) -> None:
    for name, data in (("train-images-idx3", images), ("train-labels-idx1", labels)):
        path = root / f"{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)


IMAGES = struct.pack(">4I", 0x803, 2, 2, 3) + bytes(range(12))
LABELS = struct.pack(">2I", 0x801, 2) + bytes([3, 9])


@pytest.mark.parametrize("compressed", [True, False])
def test_idx_files_are_read(tmp_path: Path, compressed: bool) -> None:
    """Grey images have three equal channels."""
    idx(tmp_path, IMAGES, LABELS, packed=compressed)
    samples = open_samples(tmp_path, "train")
    assert samples.labels.tolist() == [3, 9]
    pixels = samples.read(1)
    assert isinstance(pixels, np.ndarray)
    assert (pixels == np.arange(6, 12).reshape(2, 3, 1)).all()
    assert pixels.shape == (2, 3, 3)
    assert samples.where(1).endswith("train: image 1")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:-1], LABELS, "byte 16: found 11 bytes, expected 2 x 2 x 3"),
        (b"\0\0\x0d\x03" + IMAGES[4:], LABELS, "byte 0: found"),
        (IMAGES, LABELS[:-1], "byte 8: found 1 bytes, expected 2"),
        (IMAGES[:7], LABELS, "byte 0: found"),
    ],
)
def test_damaged_idx_files_are_refused(
    tmp_path: Path, images: bytes, labels: bytes, message: str
) -> None:
    """Sizes are checked before they are believed."""
    idx(tmp_path, images, labels)
    with pytest.raises(FormatError, match=message):
        open_samples(tmp_path, "train")


def test_a_cut_gz_is_refused(tmp_path: Path) -> None:
    """A packed file that ends early is our error."""
    idx(tmp_path, IMAGES, LABELS)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match="expected a whole .gz"):
        open_samples(tmp_path, "train")


def test_labels_and_images_must_be_as_many(tmp_path: Path) -> None:
    """Files of two data sets do not become one."""
    idx(tmp_path, IMAGES, struct.pack(">2I", 0x801, 1) + bytes([3]))
    with pytest.raises(DataError, match="found 1 labels of 2 images"):
        open_samples(tmp_path, "train")


def test_the_number_of_classes_can_be_asked_for(tmp_path: Path) -> None:
    """A network for other classes than the data's is refused before it is built."""
    folders(tmp_path, "train", {"a": 1, "b": 1})
    assert len(open_samples(tmp_path, "train", classes=2)) == 2
    with pytest.raises(DataError, match="found 2 classes, expected 1,000"):
        open_samples(tmp_path, "train", classes=1000)


@pytest.fixture
def no_fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Debian's package, whose downloads go to a folder of the test."""
    monkeypatch.setattr(small_images, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_fashion_mnist_is_taken_from_debians_folder(
    no_fashion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a package brought is used, and has the classes' names only if the labels are those."""
    (no_fashion / "debian").mkdir()
    idx(no_fashion / "debian", IMAGES, LABELS)
    samples, said = fashion_mnist("train")
    assert said == f"Fashion-MNIST from {no_fashion / 'debian'}"
    assert samples.classes == tuple("0123456789")
    monkeypatch.setitem(small_images.FASHION_LABELS, "train", small_images._md5(LABELS[8:]))
    assert fashion_mnist("train")[0].classes[9] == "Ankle boot"


@pytest.mark.skipif(not DEBIAN.exists(), reason="no package dataset-fashion-mnist")
@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("val", 10_000)])
def test_debians_fashion_mnist_is_the_real_one(split: Split, count: int) -> None:
    """The package's files, which are packed anew, hold all images and the known labels."""
    samples, _ = fashion_mnist(split)
    assert len(samples) == count
    assert samples.classes[9] == "Ankle boot"
    assert np.bincount(samples.labels).tolist() == [count // 10] * 10


def test_fashion_mnist_is_downloaded_and_kept(
    no_fashion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is held against its checksum; the second time nothing is fetched."""
    idx(no_fashion, IMAGES, LABELS)
    served = {path.name: path.read_bytes() for path in no_fashion.glob("*.gz")}
    monkeypatch.setattr(
        small_images,
        "FASHION_MD5",
        {name: small_images._md5(data) for name, data in served.items()},
    )
    monkeypatch.setattr(small_images, "FASHION_URL", no_fashion.as_uri() + "/")
    samples, said = fashion_mnist("train")
    assert samples.labels.tolist() == [3, 9]
    assert said == f"Fashion-MNIST from {no_fashion / 'cache/relume/fashion-mnist'}"
    monkeypatch.setattr(small_images, "FASHION_URL", "file:///absent/")
    assert len(fashion_mnist("train")[0]) == 2


def test_a_download_of_other_bytes_is_refused(
    no_fashion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong checksum is an error, and nothing is kept."""
    idx(no_fashion, IMAGES, LABELS)
    monkeypatch.setattr(small_images, "FASHION_URL", no_fashion.as_uri() + "/")
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte\.gz: found MD5 .*, expected 8d4f"
    ):
        fashion_mnist("train")
    assert not list((no_fashion / "cache/relume/fashion-mnist").iterdir())


def test_offline_there_are_digits(no_fashion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network scikit-learn's digits stand in, and it is said."""
    pytest.importorskip("sklearn")

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("offline")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    samples, said = fashion_mnist("val")
    assert "scikit-learn's 1,797 digits instead" in said
    assert "(offline)" in said
    assert len(samples) + len(digits("train")) == 1797
    assert samples.read(0).shape == (32, 32, 3)


def test_without_scikit_learn_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data at all is an error that lists the ways out."""
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist, or pip install scikit"):
        digits("train")


def test_arrays_check_labels() -> None:
    """Images in memory go through the same check as all others."""
    pixels = np.zeros((3, 4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="toy: image 2: 5"):
        Arrays("toy", ["a", "b"], pixels, np.array([0, 1, 5]))
    one, other = (Arrays("toy", ["a", "b"], pixels + k, np.array([0, 1, 1])) for k in (0, 1))
    assert one.digest != other.digest


def test_folders_survive_a_pickle(tmp_path: Path) -> None:
    """Workers that are not forked get the list of files."""
    folders(tmp_path, "train", {"a": 2, "ü": 1})
    copy = pickle.loads(pickle.dumps(Folders(tmp_path / "train")))
    assert copy.read(2) == "trainü0".encode()
