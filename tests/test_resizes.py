"""Tests of examples/resizes.py, and of what docs/preprocessing.md says it printed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters.pipeline import Options, convert
from converters.t7 import T7Source
from examples.resizes import GAP, RESAMPLES, SHOWN, TITLE
from tests.oracles import ROOT
from tests.tiny_onnx import INPUT, SIDE, Tiny, spec


def run(image: Path, model: Path, out: Path) -> str:
    command = [sys.executable, "examples/resizes.py", image, "--model", model, "-o", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_there_is_a_column_for_each_resize(tmp_path: Path) -> None:
    """The picture has three rows; where a resize is the network's own, the third is even grey."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    own = spec(replace(INPUT, resample="pillow-bicubic"))
    model = Tiny(spec=own).write(tmp_path / "tiny.onnx")
    table = run(tmp_path / "noise.png", model, tmp_path / "resizes.png")
    assert [line.split("`")[1] for line in table.splitlines()[2:]] == [*RESAMPLES]
    with Image.open(tmp_path / "resizes.png") as sheet:
        pixels = np.asarray(sheet)
    columns = len(SHOWN) * (SIDE + GAP) - GAP
    assert pixels.shape == (TITLE + 3 * (SIDE + GAP) - GAP, columns, 3)
    assert np.ptp(pixels[-SIDE:, :SIDE]) > 0
    assert (pixels[-SIDE:, -SIDE:] == 128).all()


@pytest.mark.slow
def test_the_table_of_the_docs_is_what_the_script_prints(tmp_path: Path) -> None:
    """docs/preprocessing.md shows this very network and photograph, number for number."""
    source = ROOT / "examples" / "efficientnet_lite0.t7"
    convert(source, T7Source, Options(out=tmp_path))
    table = run(
        ROOT / "examples" / "cat.jpg", tmp_path / "efficientnet_lite0.onnx", tmp_path / "cat.png"
    )
    assert table in (ROOT / "docs" / "preprocessing.md").read_text(encoding="utf-8")
    with Image.open(tmp_path / "cat.png") as ours, Image.open(ROOT / "docs/resizes.png") as shown:
        titles = (0, TITLE, ours.width, ours.height)  # fonts differ between Pillows
        assert ours.crop(titles).tobytes() == shown.crop(titles).tobytes()
