"""Proofs that processes may be killed at any time: no image is lost, and none is there twice."""

from pathlib import Path

import numpy as np
import pytest

from tests.bulk_runs import found, images, run, write_folder, write_tar
from tests.relume.bulk.processes import contents, done, end, started, wait_for

COUNT, PART = 1500, 5
SEED = 3


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "tars"])
def test_shards_may_be_killed_again_and_again(source: str, model: Path, tmp_path: Path) -> None:
    """Two shards at a time, each killed ten times somewhere in its work, end with the whole."""
    files = images(COUNT)
    if source == "folder":
        given = [write_folder(tmp_path / "many", files)]
    else:
        names = list(files)
        given = [
            write_tar(tmp_path / f"{at:04}.tar", {name: files[name] for name in names[at : at + 9]})
            for at in range(0, COUNT, 9)
        ]
    whole, out = tmp_path / "whole", tmp_path / "out"
    arguments = (*given, "--model", model, "--part", PART)
    run(*arguments, "-o", whole)
    pauses = np.random.default_rng(SEED).integers(1, 6, 10).tolist()
    for more in pauses:
        before = done(out)
        with (
            started(*arguments, "-o", out, "--shard", "0/2") as first,
            started(*arguments, "-o", out, "--shard", "1/2") as second,
        ):
            wait_for(lambda: done(out) >= before + more, first)  # noqa: B023  waits here
            end(first.pid)
            end(second.pid)
    assert sum(pauses) <= done(out) < done(whole)
    for shard in ("0/2", "1/2"):
        run(*arguments, "-o", out, "--shard", shard)
    assert contents(out) == contents(whole)
    assert len({line["file"] for line in found(whole)}) == COUNT
