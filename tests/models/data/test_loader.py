"""Batches are the same for any number of workers, processes and restarts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch

from models.augment import augmentation, evaluation
from models.augment.device import apply
from models.augment.draws import generator
from models.data import open_samples
from models.data.loader import Batch, batches
from models.data.order import Balanced, Sequential, Shuffled
from models.data.samples import Arrays
from models.errors import ImageError
from models.preprocess import preprocess
from tests.oracles import golden

COUNT, SIZE = 22, 5
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)
TOY = Arrays("toy", "abc", PIXELS, np.arange(COUNT) % 3)
AUGMENT = augmentation("torch-cifar10")


def epoch(**options: Any) -> list[Batch]:
    given: dict[str, Any] = {"epoch": 3, "batch_size": SIZE, "seed": 9} | options
    return list(batches(TOY, given.pop("order", Shuffled(COUNT, 9)), AUGMENT, **given))


def tensors(many: list[Batch]) -> list[torch.Tensor]:
    return [torch.cat(list(column)) for column in list(zip(*many, strict=True))[:5]]


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return all(map(torch.equal, tensors(one), tensors(other)))


def test_an_epoch_has_every_image_once() -> None:
    """Images, labels and views belong together."""
    found = epoch()
    assert [len(one.labels) for one in found] == [5, 5, 5, 5, 2]
    indices = torch.cat([one.indices for one in found]).tolist()
    assert indices == Shuffled(COUNT, 9).epoch(3).tolist()
    assert torch.cat([one.labels for one in found]).tolist() == [i % 3 for i in indices]
    view = AUGMENT(PIXELS[indices[7]], generator(9, 3, 7))
    assert (found[1].pixels[2].numpy() == view.pixels).all()
    assert (found[1].matrix[2].numpy() == view.matrix).all()
    assert found[0].replaced == ()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    """The batches of one or two worker processes are those of none."""
    assert equal(epoch(workers=workers), epoch())


@pytest.mark.parametrize("world", [2, 3])
def test_processes_change_nothing(world: int) -> None:
    """Together the processes get what one alone would, batch by batch."""
    parts = zip(*(epoch(rank=rank, world=world) for rank in range(world)), strict=True)
    for whole, shares in zip(epoch(), parts, strict=True):
        joined = (torch.cat(column) for column in list(zip(*shares, strict=True))[:5])
        assert all(map(torch.equal, whole[:5], joined))


def test_a_restart_changes_nothing() -> None:
    """From any batch on, the rest of the epoch is what it would have been."""
    for start in range(6):
        rest = epoch(start_batch=start)
        assert len(rest) == 5 - start
        assert not rest or equal(rest, epoch()[start:])


def test_epochs_and_seeds_change_everything() -> None:
    """Another epoch or seed has another order and other draws."""
    assert not equal(epoch(), epoch(epoch=4))
    assert not equal(epoch(order=Sequential(COUNT)), epoch(order=Sequential(COUNT), seed=8))


def test_an_image_taken_twice_is_drawn_for_twice() -> None:
    """Class-balanced draws with replacement do not repeat a view."""
    order = Balanced(TOY.labels, 60, seed=1)
    found = epoch(order=order, batch_size=60)[0]
    same = [np.flatnonzero(found.indices.numpy() == index) for index in range(COUNT)]
    repeated = next(one for one in same if len(one) >= 3)
    views = {found.pixels[int(one)].numpy().tobytes() for one in repeated}
    assert len(views) > 1


def test_the_last_batch_is_filled_from_the_head() -> None:
    """MXNet's rule, with draws of their own for the images that come again."""
    found = epoch(last="fill")
    assert [len(one.labels) for one in found] == [5] * 5
    assert torch.equal(found[-1].indices[2:], found[0].indices[:3])
    assert len(epoch(last="drop")) == 4


def test_the_device_step_equals_the_map() -> None:
    """`apply` is matrix and vector for each pixel, channels first."""
    one = epoch()[0]
    found = apply(one.pixels, one.matrix, one.vector)
    wanted = np.einsum("nck,nhwk->nchw", one.matrix.numpy(), one.pixels.numpy().astype(np.float64))
    wanted += one.vector.numpy()[:, :, None, None]
    assert found.shape == (5, 3, 32, 32)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - wanted).max() <= 1e-5  # of numbers up to 4, four roundings


@pytest.mark.parametrize("ten", [False, True])
def test_evaluation_arrives_untouched(ten: bool) -> None:
    """The network's input is that of `preprocess`, to the last bit."""
    view = evaluation("torch-cifar10", size=24, ten=ten)
    (one,) = batches(TOY, Sequential(COUNT), view, epoch=1, batch_size=COUNT)
    found = apply(one.pixels, one.matrix, one.vector)
    assert found.is_contiguous()
    if ten:
        assert found.shape == (COUNT, 10, 3, 24, 24)
        found = found[:, 0]
    assert (found[4].numpy() == preprocess(PIXELS[4], view.spec)).all()


def test_validation_records_give_mxnets_batch() -> None:
    """From the `.rec` to the network's input: what MXNet's iterator gives for its own records."""
    samples = open_samples(golden("mxnet/recordio/sample_256_q90.rec"), "val", classes=1000)
    with np.load(golden("mxnet/recordio/iter-expected.npz")) as expected:
        wanted = expected["val-center-crop"]
    order = Sequential(len(wanted))
    (one,) = batches(samples, order, evaluation("mxnet-224"), epoch=1, batch_size=len(wanted))
    assert (apply(one.pixels, one.matrix, one.vector).numpy() == wanted).all()
    assert one.labels.tolist() == [7, 671, 24, 407]


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Eight images, of which 2, 3 and 7 cannot be decoded."""
    folder = tmp_path / "train" / "only"
    folder.mkdir(parents=True)
    for number in range(8):
        data = simplejpeg.encode_jpeg(PIXELS[number], 90)
        bad = {2: b"no image", 3: data[: len(data) // 3], 7: b""}
        (folder / f"{number}.jpg").write_bytes(bad.get(number, data))
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_ends_the_run_by_name(damaged: Path, workers: int) -> None:
    """One line that names the file, from a worker process too."""
    samples = open_samples(damaged, "train")
    made = batches(samples, Sequential(8), AUGMENT, epoch=1, batch_size=8, workers=workers)
    message = r"only/2\.jpg: found 8 bytes that begin with b'no image'.*; --on-bad skip takes"
    with pytest.raises(ImageError, match=message):
        list(made)


def test_or_its_neighbour_takes_its_place(damaged: Path) -> None:
    """Skipped images are named, and what was read instead is told."""
    samples = open_samples(damaged, "train")
    order = Sequential(8)
    (one,) = batches(samples, order, AUGMENT, epoch=1, batch_size=8, on_bad="skip")
    assert one.indices.tolist() == [0, 1, 4, 4, 4, 5, 6, 0]
    assert [text.split("/")[-1].split(":")[0] for text in one.replaced] == [
        *("2.jpg", "3.jpg", "3.jpg", "7.jpg")
    ]


def test_when_nothing_can_be_read_the_run_ends(damaged: Path) -> None:
    """Skipping is for single images, not for a disk that is gone."""
    samples = open_samples(damaged, "train")
    for number in range(8):
        (damaged / f"train/only/{number}.jpg").unlink()
    made = batches(samples, Sequential(8), AUGMENT, epoch=1, batch_size=8, on_bad="skip")
    with pytest.raises(ImageError, match="0.jpg: No such file or directory; nor can the next"):
        list(made)
