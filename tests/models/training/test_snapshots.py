"""A snapshot is there whole or not at all, and says what is wrong with it."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ResumeError
from models.recipes import RECIPES
from models.training.snapshots import (
    FORMAT,
    Identity,
    Progress,
    Snapshot,
    check_same,
    load_snapshot,
    place_of,
    random_state,
    save_snapshot,
    set_random_state,
    sweep,
)

IDENTITY = Identity(RECIPES["enet-v2"], "a" * 64, "b" * 64, 1)


def snapshot() -> Snapshot:
    return Snapshot(
        IDENTITY,
        4,
        Progress(7, 1, 3.5, 1, 42.0, (1.0, 2.0, 3.0, 4.0)),
        {"weight": torch.ones(2, 3)},
        {"weight": torch.zeros(2, 3)},
        {},
        {"updates": 3, "weights": {"weight": torch.zeros(2, 3)}},
        [{"random": random_state(), "buffers": {}, "sums": (0.0,)}],
    )


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """Identity, progress and every tensor come back."""
    given = snapshot()
    save_snapshot(tmp_path / "snapshot.pt", given)
    found = load_snapshot(tmp_path / "snapshot.pt")
    assert (found.identity, found.progress) == (given.identity, given.progress)
    assert torch.equal(found.network["weight"], given.network["weight"])
    assert found.average["updates"] == 3


def test_random_numbers_go_on(tmp_path: Path) -> None:
    """Every generator of the process goes on where the snapshot was taken."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(3)
    random.gauss(0, 1)
    np.random.standard_normal()
    save_snapshot(tmp_path / "snapshot.pt", snapshot())

    def draw() -> tuple[float, float, float, float]:
        ours = (random.gauss(0, 1), random.random(), float(np.random.standard_normal()))
        return (*ours, float(torch.rand(1)))

    expected = draw()
    draw()
    set_random_state(load_snapshot(tmp_path / "snapshot.pt").processes[0]["random"])
    assert draw() == expected


def test_any_cut_or_flipped_snapshot_is_refused(tmp_path: Path) -> None:
    """Damage is an error of ours, wherever it is."""
    path = tmp_path / "snapshot.pt"
    save_snapshot(path, snapshot())
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(40):
        place = int(draw.integers(len(whole)))
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(draw.integers(8))
        for damaged in (whole[:place], bytes(flipped)):
            path.write_bytes(damaged)
            try:
                found = load_snapshot(path)
            except ResumeError:
                continue
            assert found.progress == snapshot().progress


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "other"}, "a PyTorch file, but no snapshot of relume"),
        ({"format": FORMAT, "schema": 99}, "schema 99, this relume reads 1"),
        ({"format": FORMAT, "schema": 1}, "damaged: no 'identity'"),
    ],
)
def test_another_file_is_refused(content: dict[str, object], message: str, tmp_path: Path) -> None:
    """What is no snapshot is said to be none."""
    torch.save(content, tmp_path / "snapshot.pt")
    with pytest.raises(ResumeError, match=message):
        load_snapshot(tmp_path / "snapshot.pt")


def test_no_file_is_refused(tmp_path: Path) -> None:
    """The message says how to begin."""
    with pytest.raises(ResumeError, match="no snapshot to go on from: leave --resume out"):
        load_snapshot(tmp_path / "snapshot.pt")


def test_every_difference_is_named() -> None:
    """All differences are in one message, with the words that allow them."""
    now = replace(
        IDENTITY, recipe=replace(IDENTITY.recipe, lr=0.5, seed=3), train="c" * 64, world=2
    )
    with pytest.raises(ResumeError) as caught:
        check_same(now, IDENTITY, frozenset())
    for part in ("lr was 0.01, is 0.5", "seed was 0, is 3", "images of train", "1 processes"):
        assert part in str(caught.value)
    assert "--allow recipe data processes" in str(caught.value)
    allowed = check_same(now, IDENTITY, frozenset({"recipe", "data", "processes"}))
    assert len(allowed) == 3
    other_words = replace(IDENTITY, recipe=replace(IDENTITY.recipe, differs="said otherwise"))
    assert check_same(other_words, IDENTITY, frozenset()) == []


@pytest.mark.parametrize(
    ("batch_size", "steps", "update"),
    [(96, 10, 13), (48, 20, 26), (192, 5, 6), (96, 2, 4), (1, 7, 14)],
    ids=["same", "half", "double", "fewer images", "small"],
)
def test_the_place_in_an_epoch_is_that_of_the_images(
    batch_size: int, steps: int, update: int
) -> None:
    """Three batches of 96 into the second epoch, whatever the batches and epochs are now."""
    identity = replace(IDENTITY, recipe=replace(IDENTITY.recipe, batch_size=96))
    then = replace(snapshot(), identity=identity, steps=10, progress=Progress(13, 1))
    now = replace(then.identity.recipe, batch_size=batch_size)
    assert place_of(then, now, steps) == update


def test_leftovers_are_swept(tmp_path: Path) -> None:
    """What a killed process was writing goes; what is whole stays."""
    (tmp_path / ".snapshot.pt.abc.part").write_bytes(b"half")
    (tmp_path / "snapshot.pt").write_bytes(b"whole")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.pt"]
