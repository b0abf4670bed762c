"""Tests of relume/bulk/worker.py: how many images a worker prepares at a time."""

from pathlib import Path

import pytest

from relume import classifier
from relume.bulk.parts import Files
from relume.bulk.worker import READERS, Job, Worker, sha256
from relume.classifier import Options

CORES = 5  # that this process may use


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the pools of threads that are made."""
    sizes: list[int] = []
    pool = classifier.ThreadPoolExecutor

    def made(size: int) -> classifier.ThreadPoolExecutor:
        sizes.append(size)
        return pool(size)

    monkeypatch.setattr("relume.classifier.ThreadPoolExecutor", made)
    monkeypatch.setattr("relume.classifier.usable_cores", lambda: CORES)
    monkeypatch.setattr("relume.bulk.worker.usable_cores", lambda: CORES)
    return sizes


@pytest.mark.parametrize(
    ("threads", "name", "readers"),
    [(None, "a.png", CORES), (3, "a.png", 3), (3, "memory://a.png", READERS)],
)
def test_a_worker_keeps_to_its_threads(
    threads: int | None, name: str, readers: int, asked: list[int], model: Path, tmp_path: Path
) -> None:
    """Several of a machine share its cores; waiting for a store takes none."""
    options = Options(5, 1, True, 8)
    job = Job(str(tmp_path / "out"), 1, model, sha256(model), "cpu", threads, options)
    Worker(job).do(0, Files((name,)), lambda _: None)
    assert asked == [readers]


def test_images_are_prepared_on_the_cores_that_may_be_used(asked: list[int], model: Path) -> None:
    """A container's share of the machine, not all that it has."""
    network = classifier.open_network(model, "cpu", 1)
    assert list(classifier.classify([], network, Options(5, 1, True, 8))) == []
    assert asked == [CORES]
