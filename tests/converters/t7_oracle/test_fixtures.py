"""The oracle gives what Torch7 gave, for the files that Torch7 wrote."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from converters.t7 import reader
from converters.t7_oracle import DEFINITIONS, run
from tests.oracles import golden

RELATIVE = 2e-6  # Torch7's float32 sums: a few of 2^-24 a term, of the largest output
NOISE_FACTOR = 2  # Torch7's own float32 noise, where its float64 outputs tell it
ROUNDING = 2e-7  # float64 outputs that were rounded to float32 at the end

ENTRIES = [
    entry
    for entry in json.loads(golden("torch7/manifest.json").read_text())
    if entry.get("file", "").startswith(("layers/", "models/", "eras/")) and "arrays" in entry
]
NO_LAYERS = ("torch.", "graph.", "nngraph.", "nn.DataParallelTable.")  # and functions


def arrays(found: Any, stem: str) -> list[npt.NDArray[np.float32]]:
    names = (name for name in found.files if name.split("_")[0] == stem and "float64" not in name)
    return [found[name] for name in sorted(names)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_equals_torch7(entry: dict[str, Any]) -> None:
    """The last call is the root's, and its outputs are Torch7's, shapes included."""
    expected = np.load(golden(f"torch7/{entry['arrays']}"))
    path = golden(f"torch7/{entry['file']}")
    root = run(reader.read(path), arrays(expected, "input"), path)[-1]
    assert root.path == ""
    for ours, theirs in zip(root.outputs, arrays(expected, "output"), strict=True):
        assert ours.dtype == np.float64
        assert ours.shape == theirs.shape
        bound = RELATIVE * np.abs(theirs).max()
        if "output_float64_rounded" in expected.files:
            exact = expected["output_float64_rounded"]
            assert np.abs(ours - exact).max() <= ROUNDING * np.abs(exact).max()
            bound = max(bound, NOISE_FACTOR * np.abs(theirs - exact).max())
        assert np.abs(ours - theirs).max() <= bound


def test_every_class_of_the_fixtures_has_a_definition() -> None:
    """No class that a fixture stores is left out."""
    classes = {name for entry in ENTRIES for name in entry["stored_classes"]}
    layers = {name for name in classes if not name.startswith((*NO_LAYERS, "<"))}
    assert len(ENTRIES) > 200
    assert len(layers) > 120
    assert sorted(layers - set(DEFINITIONS)) == []
