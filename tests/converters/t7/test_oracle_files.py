"""Every rule gives what Torch7 gave, for the files that Torch7 wrote."""

import itertools
import json
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest

from converters.t7 import T7Source
from models.build import build
from models.export import export_onnx
from models.graph import Array, Network
from models.ops import infer
from models.session import Session
from models.verify import run
from tests.oracles import GOLDEN, golden
from tests.torch7 import arrays, read_arrays, side_by_side

RELATIVE = 2e-6  # float32 sums in another order, single layers: a few of 2^-24 a term
NOISE_FACTOR = 2  # Torch7 and we are each off by the network's own noise, in opposite directions

MANIFEST = json.loads(golden("torch7/manifest.json").read_text())
ENTRIES = [
    entry
    for entry in MANIFEST
    if entry.get("file", "").startswith(("layers/", "eras/", "models/", "checkpoints/"))
]
SINGLE = [entry for entry in ENTRIES if entry["file"].startswith(("layers/", "eras/"))]
NETWORKS = [entry for entry in ENTRIES if entry not in SINGLE]
# An export costs more for itself than for each node, so small files are exported side by side:
# those that are committed apart from those that not every machine has.
TOGETHER = 50
COMMITTED = [(GOLDEN / "torch7" / entry["file"]).exists() for entry in SINGLE]
BUNDLES = [
    files[start : start + TOGETHER]
    for here in (True, False)
    for files in ([entry for entry, found in zip(SINGLE, COMMITTED, strict=True) if found == here],)
    for start in range(0, len(files), TOGETHER)
]


class Fixture(NamedTuple):
    """A file that was converted at the shapes of Torch7's inputs, and what Torch7 gave for them."""

    entry: dict[str, Any]
    network: Network
    inputs: list[Array]
    outputs: list[Array]
    noise: float  # by how much Torch7's float32 run was off its float64 run, where that is known


def fixture(entry: dict[str, Any]) -> Fixture:
    expected = read_arrays(golden(f"torch7/{entry['arrays']}"))
    inputs, outputs = arrays(expected, "input"), arrays(expected, "output")
    source = T7Source(golden(f"torch7/{entry['file']}"))
    network = source.lower([one.shape for one in inputs], infer).network
    exact = expected.get("output_float64_rounded")
    noise = 0.0 if exact is None else float(np.abs(outputs[0] - exact).max())
    return Fixture(entry, network, inputs, outputs, noise)


def check(found: Fixture, ours: list[Array]) -> None:
    file = found.entry["file"]
    assert [one.shape for one in ours] == [one.shape for one in found.outputs], file
    for one, theirs in zip(ours, found.outputs, strict=True):
        bound = max(RELATIVE * np.abs(theirs).max(), NOISE_FACTOR * found.noise)
        assert np.abs(one - theirs).max() <= bound, file


def test_no_file_is_left_out() -> None:
    """All files of layers, eras, models and checkpoints are compared, and all have arrays."""
    folders = Counter(entry["file"].split("/")[0] for entry in ENTRIES)
    assert folders == {"layers": 196, "eras": 7, "models": 15, "checkpoints": 2}
    assert sum(map(len, BUNDLES)) + len(NETWORKS) == len(ENTRIES) == 220
    assert [entry["file"] for entry in ENTRIES if not entry["shapes"].get("input")] == [
        entry["file"] for entry in ENTRIES if "input_1" in entry["shapes"]
    ]
    others = {entry.get("file", entry["arrays"]).split("/")[0] for entry in MANIFEST} - {*folders}
    assert others == {"irv2", "preprocess"}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle[0]["file"])
def test_layers_equal_torch7(bundle: list[dict[str, Any]]) -> None:
    """Module and ONNX file give Torch7's outputs, shapes included."""
    found = [fixture(entry) for entry in bundle]
    for one in found:
        check(one, run(build(one.network), one.inputs))
    together = side_by_side([one.network for one in found])
    session = Session(export_onnx(build(together), together.graph).SerializeToString())
    results = iter(session.run(*(array for one in found for array in one.inputs)))
    for one in found:
        check(one, list(itertools.islice(results, len(one.outputs))))
    assert not list(results)


@pytest.mark.parametrize("entry", NETWORKS, ids=lambda entry: entry["file"])
def test_networks_equal_torch7(entry: dict[str, Any]) -> None:
    """Module and ONNX file give Torch7's outputs, shapes included."""
    found = fixture(entry)
    module = build(found.network)
    check(found, run(module, found.inputs))
    proto = export_onnx(module, found.network.graph)
    check(found, Session(proto.SerializeToString()).run(*found.inputs))
