"""What MXNet's rules refuse of what an operator reads: inputs, outputs and stored arrays."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.lowering import Lowered
from converters.mx import MXSource
from models.errors import FormatError, UnsupportedLayer
from models.ops import infer
from tests.mx_writer import checkpoint, node, symbol

IMAGE = (2, 4, 8, 7)
DATA = node("null", "data")


def source(folder: Path, text: str, **arrays: np.ndarray) -> MXSource:
    path = checkpoint(folder, text, arrays)
    return MXSource(path, symbol_path=folder / "net-symbol.json")


def lowered(made: MXSource) -> Lowered:
    """Lower for the image wherever data enters."""
    return made.lower([IMAGE] * len(made.inputs()), infer)


CONV = {"kernel": "(1,1)", "num_filter": "4"}
STORED = node("null", "w")
WEIGHT = np.ones((4, 4, 1, 1), "f4")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [STORED, node("Convolution", "x", [0, 1], no_bias="1", layout="NHWC", **CONV)],
            "layout NHWC: only NCHW is converted",
        ),
        (
            [
                node("expand_dims", "r", [0], axis="1"),
                STORED,
                node("Convolution", "x", [1, 2], no_bias="1", kernel="(1,1,1)"),
            ],
            "a kernel of 3 dimensions",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], kernel="(1, 1)", layout="NHWC")],
            "layout NHWC",
        ),
        ([STORED, node("relu", "x", [1])], "reads a stored array where it takes the network's"),
        (
            [STORED, node("elemwise_div", "x", [0, 1])],
            "reads a stored array where it takes the network's tensors",
        ),
        (
            [STORED, node("elemwise_add", "x", [0, 1])],
            "takes equal shapes, its inputs have (2, 4, 8, 7) and (4, 4, 1, 1)",
        ),
        (
            [node("sum", "s", [0]), STORED, node("GroupNorm", "x", [1, 2, 2])],
            "takes maps, its input has 1 dimensions",
        ),
        (
            [STORED, node("GroupNorm", "x", [0, 1, 1], num_groups="2")],
            "weight of shape (4, 4, 1, 1) where 2 groups have one",
        ),
        (
            [
                node("sum", "s", [0]),
                STORED,
                node("UpSampling", "x", [1, 2], scale="2", sample_type="bilinear"),
            ],
            "takes images, its input has 1 dimensions",
        ),
        (
            [
                node("sum", "s", [0]),
                STORED,
                node("FullyConnected", "x", [1, 2], no_bias="1", num_hidden="2"),
            ],
            "takes samples, its input has 1 dimensions",
        ),
        (
            [
                node("Flatten", "f", [0]),
                STORED,
                node("Deconvolution", "x", [1, 2], kernel="(1, 1)", num_filter="4"),
            ],
            "takes images, its input has 2 dimensions",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], stride="(2, 1)", dilate="(2, 1)", **CONV)],
            "stride with dilate: MXNet's own code and MKL-DNN spread differently",
        ),
        (
            [
                node("SliceChannel", "r", [0], num_outputs="4", squeeze_axis="1"),
                STORED,
                node("Convolution_v1", "x", [1, 2], no_bias="1", kernel="(1,)", num_filter="4"),
            ],
            "takes images, its input has 3 dimensions",
        ),
        (
            [
                node("SliceChannel", "r", [0], num_outputs="4", squeeze_axis="1"),
                STORED,
                node("BatchNorm_v1", "x", [1, 2, 2, 2, 2]),
            ],
            "axis 1 of 3 dimensions",
        ),
        (
            [node("relu", "r", [0]), node("FullyConnected", "x", [0, 1], no_bias="1")],
            "its weight is computed by the network, by r",
        ),
        (
            [node("Flatten", "f", [0]), node("elemwise_add", "x", [0, 1])],
            "takes equal shapes, its inputs have (2, 4, 8, 7) and (2, 224)",
        ),
        (
            [node("Flatten", "f", [0]), node("broadcast_add", "x", [0, 1])],
            "its inputs have 4 and 2 dimensions",
        ),
        (
            [node("Flatten", "f", [0]), node("add_n", "x", [0, 1], num_args="2")],
            "adds tensors of shapes (2, 4, 8, 7) and (2, 224)",
        ),
        (
            [node("UpSampling", "x", [0, 0], scale="2", sample_type="nearest", num_args="2")],
            "joins 2 inputs",
        ),
        (
            [node("Flatten", "f", [0]), STORED, node("BatchNorm", "x", [1, 2, 2, 2, 2], axis="3")],
            "axis 3 of 2 dimensions",
        ),
        (
            [node("Flatten", "f", [0]), STORED, node("InstanceNorm", "x", [1, 2, 2])],
            "takes maps, its input has 2 dimensions",
        ),
        ([node("Frobnicate", "x", [0]), node("Mystery", "y", [1])], "x: Frobnicate; y: Mystery"),
    ],
)
def test_wirings_without_an_exact_form(
    tmp_path: Path, nodes: list[dict[str, Any]], message: str
) -> None:
    """What reads what is checked as well."""
    with pytest.raises(UnsupportedLayer, match=re.escape(message)):
        lowered(source(tmp_path, symbol(DATA, *nodes), w=WEIGHT))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("add_n", "x", [])], "layer x (add_n): found 0 inputs, expected num_args, 1"),
        ([node("relu", "x", [])], "layer x (relu): found 0 inputs, expected 1: data"),
        ([node("relu", "x", [0, 0])], "layer x (relu): found 2 inputs, expected 1: data"),
        ([node("Pooling", "x", [0, 0], kernel="(2, 2)")], "found 2 inputs, expected 1: data"),
        ([node("MakeLoss", "x", [0, 0])], "found 2 inputs, expected 1: data"),
        ([node("SVMOutput", "x", [0] * 4)], "found 4 inputs, expected 2: data, label"),
        ([node("Concat", "x", [0, 0], num_args="7")], "found 2 inputs, expected num_args, 7"),
        ([node("Crop", "x", [0] * 3, num_args="3")], "found 3 inputs, expected 2: data, crop_like"),
        (
            [STORED, node("GroupNorm", "x", [0, 1, 1], num_groups="3")],
            "num_groups = 3, expected equal groups of 4 maps",
        ),
        (
            [node("relu", "r", [0]), {**node("relu", "x"), "inputs": [[1, 5, 0]]}],
            "layer r (relu): found its output 5 in use, expected output 0 only",
        ),
        (
            [
                node("SliceChannel", "r", [0], num_outputs="2"),
                {**node("relu", "x"), "inputs": [[1, 2, 0]]},
            ],
            "layer r (SliceChannel): found its output 2 in use, expected outputs 0 to 1",
        ),
        (
            [STORED, node("Convolution", "x", [0, 1], no_bias="1", num_filter="4")],
            "kernel = (), expected 2 numbers",
        ),
        (
            [STORED, node("Convolution", "x", [0, 1], no_bias="1", pad="(-1,-1)", **CONV)],
            "pad = (-1,-1), expected numbers from 0 on",
        ),
        (
            [STORED, node("Convolution", "x", [0, 1], no_bias="1", dilate="(0,0)", **CONV)],
            "dilate = (0,0), expected numbers from 1 on",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], num_filter="4")],
            "kernel = (), expected 2 numbers",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], stride="(0, 1)", **CONV)],
            "stride = (0, 1), expected numbers from 1 on",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], pad="(-1, 0)", **CONV)],
            "pad = (-1, 0), expected numbers from 0 on",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], adj="(-1, 0)", **CONV)],
            "adj = (-1, 0), expected numbers from 0 on",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], adj="(1, 0)", **CONV)],
            "adj = (1, 0), expected rows and columns to add, (1, 0), below the strides (1, 1)",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], target_shape="(7, 7)", **CONV)],
            "target_shape = (7, 7), expected rows and columns to add, (1, 0), below the strides",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], target_shape="(0, 6)", **CONV)],
            "target_shape = (0, 6), expected 1 or more, and no more than without padding",
        ),
        (
            [STORED, node("Convolution", "x", [0, 1], no_bias="1", kernel="(1, 1)")],
            "num_filter = nothing, expected a whole number",
        ),
        (
            [STORED, node("Deconvolution", "x", [0, 1], target_shape="(99, 99)", **CONV)],
            "target_shape = (99, 99), expected 1 or more, and no more than without padding",
        ),
        (
            [STORED, node("LayerNorm", "x", [0, 1, 1], axis="4")],
            "axis = 4, expected one of 4 dimensions",
        ),
        (
            [node("null", "i"), node("Convolution", "x", [0, 1], no_bias="1", **CONV)],
            "array i: found int32 numbers, expected floats",
        ),
    ],
)
def test_wrong_wirings_are_named(tmp_path: Path, nodes: list[dict[str, Any]], message: str) -> None:
    """An input, an output or an array that is not what an operator needs is named."""
    made = source(tmp_path, symbol(DATA, *nodes), w=WEIGHT, i=WEIGHT.astype("i4"))
    with pytest.raises(FormatError, match=re.escape(message)):
        lowered(made)
