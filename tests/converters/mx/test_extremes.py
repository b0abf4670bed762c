"""Whatever a setting says, an operator converts and runs, or is refused by a typed error."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.mx import MXSource
from models.build import build
from models.errors import LegacyModelError
from models.ops import infer
from models.verify import run
from tests.mx_writer import checkpoint, node, symbol

IMAGE = (2, 4, 8, 7)
MOST = 1 << 20  # numbers of an output that the test computes
FOUR = (4,)
NORM = {"gamma": FOUR, "beta": FOUR}
KERNEL = {"kernel": "(3,3)", "stride": "(1,1)", "pad": "(0,0)"}
CONV = {**KERNEL, "num_filter": "4", "dilate": "(1,1)", "num_group": "1", "no_bias": "0"}
WEIGHTS = {"w": (4, 4, 3, 3), "b": FOUR}
FOLD = {"axis": "(1,)", "keepdims": "0", "exclude": "0"}
BORDER = "(0,0,0,0,1,1,1,1)"
# Each operator with every setting that it has, and the arrays that it reads.
SETTINGS: list[tuple[str, dict[str, str], dict[str, tuple[int, ...]]]] = [
    ("Convolution", {**CONV, "layout": "NCHW"}, WEIGHTS),
    ("Deconvolution", {**CONV, "adj": "(0,0)", "target_shape": "(0,0)"}, WEIGHTS),
    ("FullyConnected", {"num_hidden": "3", "flatten": "1", "no_bias": "1"}, {"w": (3, 224)}),
    (
        "UpSampling",
        {"scale": "2", "sample_type": "bilinear", "num_filter": "4"},
        {"w": (4, 1, 4, 4)},
    ),
    ("UpSampling", {"scale": "2", "sample_type": "nearest", "num_args": "1"}, {}),
    ("BatchNorm", {"eps": "1", "axis": "1", "momentum": ".9"}, {**NORM, "m": FOUR, "v": FOUR}),
    ("InstanceNorm", {"eps": "1"}, NORM),
    ("GroupNorm", {"eps": "1", "num_groups": "4"}, NORM),
    ("LayerNorm", {"eps": "1", "axis": "1"}, NORM),
    ("LRN", {"nsize": "5", "alpha": "1", "beta": "1", "knorm": "2"}, {}),
    ("L2Normalization", {"eps": "1", "mode": "instance"}, {}),
    *(
        ("Pooling", {**KERNEL, "pool_type": kind, "pooling_convention": "full", "p_value": "2"}, {})
        for kind in ("max", "avg", "lp")
    ),
    *(
        ("Pooling_v1", {**KERNEL, "pool_type": kind, "global_pool": "0"}, {})
        for kind in ("max", "avg")
    ),
    ("_contrib_AdaptiveAvgPooling2D", {"output_size": "(2,2)"}, {}),
    *(("LeakyReLU", {"act_type": kind, "slope": ".1"}, {}) for kind in ("leaky", "elu")),
    ("LeakyReLU", {"act_type": "rrelu", "lower_bound": ".1", "upper_bound": ".3"}, {}),
    ("LeakyReLU", {"act_type": "prelu"}, {"gamma": FOUR}),
    ("Activation", {"act_type": "relu"}, {}),
    ("hard_sigmoid", {"alpha": ".1", "beta": ".5"}, {}),
    ("clip", {"a_min": "0", "a_max": "1"}, {}),
    *(
        (f"_{name}_scalar", {"scalar": "2"}, {})
        for name in ("plus", "mul", "div", "rdiv", "power", "maximum", "minimum")
    ),
    ("Reshape", {"shape": "(0,-1)", "reverse": "0"}, {}),
    ("Reshape", {"target_shape": "(0,4)", "keep_highest": "1"}, {}),
    ("transpose", {"axes": "(0,1,2,3)"}, {}),
    ("SwapAxis", {"dim1": "1", "dim2": "2"}, {}),
    ("expand_dims", {"axis": "1"}, {}),
    ("squeeze", {"axis": "(1,)"}, {}),
    ("Concat", {"dim": "1", "num_args": "1"}, {}),
    ("add_n", {"num_args": "1"}, {}),
    ("slice_axis", {"axis": "1", "begin": "0", "end": "2"}, {}),
    ("slice", {"begin": "(0,0)", "end": "(2,2)", "step": "()"}, {}),
    ("SliceChannel", {"num_outputs": "2", "axis": "1", "squeeze_axis": "0"}, {}),
    ("Crop", {"num_args": "1", "h_w": "(2,2)", "offset": "(0,0)", "center_crop": "0"}, {}),
    *(("Pad", {"mode": kind, "pad_width": BORDER}, {}) for kind in ("edge", "reflect")),
    ("Pad", {"mode": "constant", "pad_width": BORDER, "constant_value": "0"}, {}),
    *((name, FOLD, {}) for name in ("sum", "mean", "max")),
    ("SoftmaxOutput", {"multi_output": "1", "preserve_shape": "0"}, {}),
    ("SoftmaxActivation", {"mode": "channel"}, {}),
    ("softmax", {"axis": "-1", "temperature": "1", "dtype": "None"}, {}),
    ("Dropout", {"p": ".5", "axes": "()", "mode": "training"}, {}),
    ("Cast", {"dtype": "float32"}, {}),
]
LARGEST = 2**31 - 1
SMALL = ["0", "1", "-1", "2", "3", "-2", "-3", "-4", "7", "65536", "1L"]
ODD = ["1e308", "-1e308", "1e-320", "-0.0", "nan", "inf", "1_0", "\u0663", "9" * 2000]
NUMBERS = st.sampled_from([*SMALL, *ODD, str(LARGEST), str(-LARGEST), str(LARGEST + 1)])
TUPLES = st.lists(NUMBERS, max_size=5).map(lambda parts: f"({', '.join(parts)})")
WORDS = st.sampled_from(["", "None", "true", "False", "(,)", "(None, None)", "(3 3)", "x" * 2000])
SHAPES = st.sampled_from([IMAGE] * 4 + [(2,), (2, 4), (2, 4, 8), (2, 4, 8, 7, 3), (1, 1, 1, 1)])


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data(), case=st.sampled_from(SETTINGS), shape=SHAPES)
def test_a_value_or_a_typed_error(data: Any, case: Any, shape: tuple[int, ...]) -> None:
    """One setting is anything: the outputs have the shapes that were said, or it is refused."""
    op, attributes, arrays = case
    key = data.draw(st.sampled_from(sorted(attributes)))
    value = data.draw(st.one_of(NUMBERS, TUPLES, WORDS))
    made = [node("null", "data"), *(node("null", name) for name in arrays)]
    made.append(node(op, "x", range(len(made)), **{**attributes, key: value}))
    with tempfile.TemporaryDirectory() as folder:
        ones = {name: np.ones(size, "f4") for name, size in arrays.items()}
        path = checkpoint(Path(folder), symbol(*made), ones)
        try:
            source = MXSource(path, symbol_path=path.with_name("net-symbol.json"))
            lowered = source.lower([shape], infer)
        except LegacyModelError:
            return
    if all(math.prod(one) <= MOST for one in lowered.shapes):
        outputs = run(build(lowered.network), [np.ones(shape, "f4")])
        assert [one.shape for one in outputs] == list(lowered.shapes)
