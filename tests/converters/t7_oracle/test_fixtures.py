"""The oracle gives what Torch7 gave, for the files that Torch7 wrote."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from converters.packing import unpacked
from converters.t7 import reader
from converters.t7.objects import LuaTable, TorchObject
from converters.t7_oracle import DEFINITIONS, Call, follow, run
from tests.oracles import golden

RELATIVE = 2e-6  # Torch7's float32 sums: a few of 2^-24 a term, of the largest output
NOISE_FACTOR = 2  # Torch7's own float32 noise, where its float64 outputs tell it
ROUNDING = 2e-7  # float64 outputs that were rounded to float32 at the end

ENTRIES = [
    entry
    for entry in json.loads(golden("torch7/manifest.json").read_text())
    if entry.get("file", "").startswith(("layers/", "models/", "eras/")) and "arrays" in entry
]
NO_LAYERS = ("torch.", "graph.", "nngraph.", "nn.DataParallelTable.", "<function>")


def arrays(found: Any, stem: str) -> list[npt.NDArray[np.float32]]:
    names = (name for name in found.files if name.split("_")[0] == stem and "float64" not in name)
    return [found[name] for name in sorted(names)]


def check(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float32], expected: Any) -> None:
    assert ours.dtype == np.float64
    assert ours.shape == theirs.shape
    bound = RELATIVE * np.abs(theirs).max()
    if "output_float64_rounded" in expected.files:
        exact = expected["output_float64_rounded"]
        assert np.abs(ours - exact).max() <= ROUNDING * np.abs(exact).max()
        bound = max(bound, NOISE_FACTOR * np.abs(theirs - exact).max())
    assert np.abs(ours - theirs).max() <= bound


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_equals_torch7(entry: dict[str, Any]) -> None:
    """The last call is the root's, and its outputs are Torch7's, shapes included."""
    expected = np.load(golden(f"torch7/{entry['arrays']}"))
    path = golden(f"torch7/{entry['file']}")
    root = run(reader.read(path), arrays(expected, "input"), path)[-1]
    assert root.path == ""
    for ours, theirs in zip(root.outputs, arrays(expected, "output"), strict=True):
        check(ours, theirs, expected)


def test_every_class_of_the_fixtures_has_a_definition() -> None:
    """No class that a fixture stores is left out."""
    classes = {name for entry in ENTRIES for name in entry["stored_classes"]}
    layers = {name for name in classes if not name.startswith(NO_LAYERS)}
    assert len(ENTRIES) == 218
    assert len(layers) == 115
    assert sorted(layers - set(DEFINITIONS)) == []


@pytest.mark.parametrize("name", ["checkpoint_cuda", "checkpoint_float"])
def test_a_checkpoint_of_training_gives_its_evaluation(name: str) -> None:
    """A model that was saved while training, activations and all, runs as `evaluate()` makes it."""
    expected = np.load(golden(f"torch7/checkpoints/{name}/expected.npz"))
    path = golden(f"torch7/checkpoints/{name}/model_2.t7")
    (output,) = run(reader.read(path), [expected["input"]], path)[-1].outputs
    check(output, expected["output"], expected)


def indexed(module: TorchObject, path: str) -> list[tuple[str, str]]:
    """Return path and class of a tree of plain containers, children before their container."""
    found: list[tuple[str, str]] = []
    modules = module.fields.get("modules")
    for index, child in enumerate(modules.array() if isinstance(modules, LuaTable) else []):
        found += indexed(child, f"{path}.{index}" if path else str(index))
    return [*found, (path, module.class_name)]


def test_inception_resnet_v2_stage_by_stage() -> None:
    """Every module is called once, in order; stages have Torch7's channel means and outputs."""
    expected = np.load(golden("torch7/irv2/irv2_full.npz"))
    packed = golden("torch7/irv2/irv2_full.t7.xz")
    calls: list[tuple[str, str]] = []
    stages: list[npt.NDArray[np.float64]] = []

    def keep(call: Call) -> None:
        calls.append((call.path, call.class_name))
        if call.path.isdecimal():
            stages.append(*call.outputs)

    with unpacked(packed) as path:
        root = reader.read(path)
        follow(root, [expected["input"]], packed, keep)
    assert calls == indexed(root, "")
    assert len(calls) == 761
    assert len(stages) == 27
    for index, stage in enumerate(stages):
        means = stage.mean((2, 3)) if stage.ndim == 4 else stage
        theirs = expected[f"stage_{index + 1}"].ravel()
        assert np.abs(means.ravel() - theirs).max() <= RELATIVE * np.abs(theirs).max()
    exact = expected["output_float64_rounded"].ravel()
    # the file's float64 outputs are magnitudes: no sign survived, in Torch7's float32 ones they did
    assert np.abs(np.abs(stages[-1].ravel()) - exact).max() <= ROUNDING * exact.max()
    assert np.abs(stages[-1] - expected["output"]).max() <= RELATIVE * exact.max()
