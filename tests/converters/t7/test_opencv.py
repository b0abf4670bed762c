"""A second, foreign execution: OpenCV's own importer of Torch7 files, where it takes them.

OpenCV reads `.t7` by code of its own (modules/dnn/src/torch/torch_importer.cpp) and runs networks
by its own layers. It knows fewer classes than we do, and no memory: what works in place, or twice,
it computes otherwise than Torch7 did. Those files are named here; ours equals Torch7 on all.
"""

import json
from typing import Any

import numpy as np
import pytest

from converters.t7 import T7Source
from models.build import build
from models.ops import infer
from models.verify import run
from tests.oracles import golden

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is for tests only")

RELATIVE = 1e-5  # two float32 programs, each a few steps a layer from Torch7, up to 60 layers
ACCEPTED = 120  # of the 218 files; a later OpenCV may know more classes

# What OpenCV computes otherwise than Torch7 itself did, by its own outputs in the same folder.
OTHERWISE = {
    "layers/concat_table.t7",  # gives one of two outputs
    "layers/inplace_branch_first.t7",
    "layers/inplace_branch_last.t7",
    "layers/inplace_caddtable.t7",
    "layers/inplace_threshold_then_branch.t7",
    "layers/logsoftmax_1d.t7",  # takes the first dimension for a batch
    "layers/same_module_twice.t7",
    "layers/sbn_3d_input.t7",
    "layers/softmax_1d.t7",
    "layers/softmax_3d.t7",
    "layers/view_infer.t7",  # the same numbers in three dimensions, of which Torch7 makes two
}


def opencv(entry: dict[str, Any], image: np.ndarray) -> np.ndarray | None:
    """Return what OpenCV computes; None where it refuses the file."""
    try:
        binary = entry["format"] == "binary"
        network = cv2.dnn.readNetFromTorch(str(golden(f"torch7/{entry['file']}")), binary, True)
        network.setInput(image)
        output: np.ndarray = network.forward()
    except cv2.error:
        return None
    return output


def test_opencv_computes_the_same() -> None:
    """On every file that it takes, but for those named, OpenCV and we give the same numbers."""
    manifest = json.loads(golden("torch7/manifest.json").read_text())
    accepted, otherwise = 0, set()
    for entry in manifest:
        if not entry.get("file", "").startswith(("layers/", "eras/", "models/")):
            continue
        with np.load(golden(f"torch7/{entry['arrays']}")) as arrays:
            if "input" not in arrays.files:
                continue
            image = arrays["input"]
        theirs = opencv(entry, image)
        if theirs is None:
            continue
        accepted += 1
        source = T7Source(golden(f"torch7/{entry['file']}"))
        ours = run(build(source.lower([image.shape], infer).network), [image])[0]
        if (
            ours.shape != theirs.shape
            or np.abs(ours - theirs).max() > RELATIVE * np.abs(ours).max()
        ):
            otherwise.add(entry["file"])
    assert otherwise == OTHERWISE
    assert accepted >= ACCEPTED
