"""Operators whose sources are easily misread: what MXNet 1.9.1 gave, on both of its code paths.

Its own code and MKL-DNN's agree in all of these. The inputs are small enough to follow by hand.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from converters.mx import MXSource
from models.build import build
from models.errors import UnsupportedLayer
from models.ops import infer
from models.verify import run
from tests.mx_writer import checkpoint, node, symbol

ROUNDING = 1e-6  # the outputs below are float32 of at most 110, exact ones among them
ONES = np.ones((1, 1, 4, 4), "f4")
CUBE = np.arange(8, dtype="f4").reshape(1, 2, 2, 2)
MAPS = np.array([0, 2, 1, 3], "f4").reshape(1, 4, 1)
OVER = {"kernel": "(3,3)", "stride": "(2,2)"}
GROUPS = {"gamma": np.array([1, 10], "f4"), "beta": np.array([0, 100], "f4")}
LOW, HIGH = 0.268941, 0.731059  # softmax of 0 and 1
FIRST, SECOND = 0.017986, 0.982014  # softmax of 0 and 4


def opened(folder: Path, version: int, *nodes: dict[str, Any], **arrays: np.ndarray) -> MXSource:
    """Write the nodes behind the network's input and stored arrays."""
    given = [node("null", name) for name in ("data", *arrays)]
    path = checkpoint(folder, symbol(*given, *nodes, version=version), arrays)
    return MXSource(path, symbol_path=folder / "net-symbol.json")


def both(source: MXSource, x: np.ndarray) -> list[np.ndarray]:
    """Return the last output by the rules and by the definitions."""
    outputs: list[np.ndarray] = []
    source.follow([x], lambda call: outputs.append(call.outputs[0]))
    (ours,) = run(build(source.lower([x.shape], infer).network), [x])
    return [ours, outputs[-1]]


@pytest.mark.parametrize(
    ("op", "settings", "x", "expected"),
    [
        (
            "Pooling_v1",
            {**OVER, "pool_type": "avg", "pooling_convention": "full"},
            ONES,
            [[[[1, 2 / 3], [2 / 3, 4 / 9]]]],
        ),
        ("Pooling_v1", {**OVER, "pool_type": "max", "pad": "(1,1)"}, -ONES, [[[[0, 0], [0, -1]]]]),
        (
            "Pooling_v1",
            {**OVER, "pool_type": "sum", "pad": "(1,1)", "pooling_convention": "full"},
            ONES,
            [[[[4, 6, 2], [6, 9, 3], [2, 3, 1]]]],
        ),
        (
            "Pooling",
            {**OVER, "pool_type": "avg", "pooling_convention": "full"},
            ONES,
            [[[[1, 1], [1, 1]]]],
        ),
        ("SoftmaxActivation", {}, CUBE, [[[[LOW, HIGH]] * 2] * 2]),
        (
            "SoftmaxOutput",
            {"multi_output": "1", "preserve_shape": "1"},
            CUBE,
            [[[[FIRST] * 2] * 2, [[SECOND] * 2] * 2]],
        ),
        ("squeeze", {}, ONES[:, :, :1, :1], [1]),
        ("GroupNorm", {"num_groups": "2", "eps": "0"}, MAPS, [[[-1], [1], [90], [110]]]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_equals_mxnet(
    tmp_path: Path, op: str, settings: dict[str, str], x: np.ndarray, expected: Any
) -> None:
    """The converted operator gives what MXNet gave, and so does its definition."""
    arrays = GROUPS if op == "GroupNorm" else {}
    inputs = range(1 + len(arrays))
    source = opened(tmp_path, 10901, node(op, "x", inputs, **settings), **arrays)
    for found in both(source, x):
        np.testing.assert_allclose(found, np.array(expected), rtol=ROUNDING, atol=ROUNDING)


MAX = {**OVER, "pool_type": "max", "pad": "(1,1)"}


@pytest.mark.parametrize("version", [800, 901, 903])
def test_old_pooling_is_converted_where_cpu_and_gpu_agreed(tmp_path: Path, version: int) -> None:
    """Before 0.9.5 zeros around an image were the largest only on a CPU: not behind a ReLU."""
    relu = node("Activation", "r", [0], act_type="relu")
    joined = [relu, node("Concat", "c", [1, 1], num_args="2"), node("Pooling", "x", [2], **MAX)]
    noise = np.random.default_rng(0).standard_normal((2, 3, 7, 8)).astype("f4")
    source = opened(tmp_path, version, *joined)
    ours, theirs = both(source, noise)
    np.testing.assert_array_equal(ours, theirs.astype("f4"))
    assert isinstance(build(source.lower([noise.shape], infer).network).x, nn.MaxPool2d)
    for nodes in (
        [node("Pooling", "x", [0], **MAX)],
        [relu, node("Concat", "c", [0, 1], num_args="2"), node("Pooling", "x", [2], **MAX)],
        [node("Activation", "r", [0], act_type="tanh"), node("Pooling", "x", [1], **MAX)],
    ):
        with pytest.raises(UnsupportedLayer, match="zeros on a CPU, and no numbers on a GPU"):
            opened(tmp_path, version, *nodes).lower([noise.shape], infer)


def test_old_global_pooling_with_padding_is_refused(tmp_path: Path) -> None:
    """Before 1.2 `pad` shifted the window that was to be the whole map."""
    settings = {"kernel": "(7,7)", "global_pool": "True", "pad": "(1,1)", "pool_type": "avg"}
    for op, version in (("Pooling", 800), ("Pooling", 905), ("Pooling_v1", 10100)):
        with pytest.raises(UnsupportedLayer, match="shifted the window before MXNet 1.2"):
            opened(tmp_path, version, node(op, "x", [0], **settings)).lower([ONES.shape], infer)
    source = opened(tmp_path, 10200, node("Pooling", "x", [0], **settings))
    for found in both(source, ONES):
        np.testing.assert_array_equal(found, [[[[1]]]])


def test_a_rest_that_mxnet_fills_in_elsewhere_is_refused(tmp_path: Path) -> None:
    """MXNet makes 2x2x1x1x15 of 5x2x6 here, where the codes say 2x2x1x15x1."""
    source = opened(tmp_path, 10901, node("Reshape", "x", [0], shape="(2,-4,-1,1,-1,1)"))
    with pytest.raises(UnsupportedLayer, match="what is left is filled in elsewhere"):
        source.follow([np.ones((5, 2, 6), "f4")], print)
