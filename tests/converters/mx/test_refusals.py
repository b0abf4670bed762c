"""What MXNet's rules refuse, and what they say is wrong with a setting."""

import re
from pathlib import Path

import numpy as np
import pytest
from torch import fx, nn

from converters.lowering import Lowered
from converters.mx import MXSource
from converters.mx.naming import TAKEN, plain
from models.errors import FormatError, SpecError, UnsupportedLayer, WeightMismatch
from models.ops import infer
from tests.mx_writer import checkpoint, node, symbol
from tests.oracles import golden

IMAGE = (2, 4, 8, 7)
DATA = node("null", "data")
ONES = np.ones(4, "f4")


def source(folder: Path, text: str, **arrays: np.ndarray) -> MXSource:
    path = checkpoint(folder, text, arrays)
    return MXSource(path, symbol_path=folder / "net-symbol.json")


def one(folder: Path, op: str, given: tuple[int, ...], /, **attributes: str) -> Lowered:
    """Lower one operator on the network's input."""
    return source(folder, symbol(DATA, node(op, "x", [0], **attributes))).lower([given], infer)


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "message"),
    [
        ("Activation", {}, IMAGE, "act_type = nothing, expected a value: it has no default"),
        ("Activation", {"act_type": "mish"}, IMAGE, "act_type = mish, expected one of relu, sigm"),
        ("clip", {"a_min": "low", "a_max": "1"}, IMAGE, "a_min = low, expected a number"),
        ("clip", {"a_max": "1"}, IMAGE, "a_min = nothing, expected a number"),
        (
            "clip",
            {"a_min": "0", "a_max": "1e308"},
            IMAGE,
            "1e308, expected a number that float32 h",
        ),
        ("clip", {"a_min": "0", "a_max": "1_0"}, IMAGE, "a_max = 1_0, expected a number"),
        ("clip", {"a_min": "0", "a_max": "inf"}, IMAGE, "a_max = inf, expected a number"),
        ("_maximum_scalar", {"scalar": "-1e308"}, IMAGE, "a number that float32 holds"),
        ("_div_scalar", {"scalar": "1e-320"}, IMAGE, "a number that float32 holds"),
        ("LeakyReLU", {"slope": "1e308"}, IMAGE, "a number that float32 holds"),
        ("Pad", {"mode": "edge"}, IMAGE, "pad_width = (), expected 8 numbers"),
        ("Pad", {"mode": "edge", "pad_width": "()"}, IMAGE, "pad_width = (), expected 8 numbers"),
        (
            "Pad",
            {"mode": "constant", "pad_width": "(0,0,0,0,1,1,1,1)", "constant_value": "1e308"},
            IMAGE,
            "a number that float32 holds",
        ),
        ("clip", {"a_min": "2", "a_max": "1"}, IMAGE, "one that Hardtanh takes"),
        ("expand_dims", {}, IMAGE, "axis = nothing, expected a whole number"),
        ("expand_dims", {"axis": "1.5"}, IMAGE, "axis = 1.5, expected a whole number"),
        ("expand_dims", {"axis": "(1, 2)"}, IMAGE, "axis = (1, 2), expected a whole number"),
        ("expand_dims", {"axis": "1L"}, IMAGE, "axis = 1L, expected a whole number"),
        ("expand_dims", {"axis": "\u0661"}, IMAGE, "expected a whole number"),
        ("expand_dims", {"axis": "9" * 5000}, IMAGE, "expected a whole number"),
        ("expand_dims", {"axis": "9"}, IMAGE, "axis = 9, expected one of 5 dimensions"),
        ("expand_dims", {"axis": str(1 << 40)}, IMAGE, "expected numbers up to 2,147,483,647"),
        ("relu", {"slope": "1"}, IMAGE, "slope = 1, expected no such setting for this operator"),
        ("Dropout", {"p": "1.5"}, IMAGE, "p = 1.5, expected 0 or more, below 1"),
        ("softmax", {"axis": "7"}, IMAGE, "axis, temperature = 7, 1, expected 4 dimensions"),
        ("softmax", {"use_length": "maybe"}, IMAGE, "use_length = maybe, expected True or False"),
        ("Reshape", {}, IMAGE, "shape = nothing, expected sizes"),
        ("Reshape", {"shape": "(5, 5)"}, IMAGE, "shape = (5, 5), expected sizes for (2, 4, 8, 7)"),
        ("Reshape", {"shape": "(-1, -1)"}, IMAGE, "shape = (-1, -1), expected one -1 at most"),
        ("Reshape", {"shape": "(0, 0, 0, 0, 0)"}, IMAGE, "expected codes for (2, 4, 8, 7)"),
        ("Reshape", {"shape": "(0, -4, 3, -1, -2)"}, IMAGE, "-4, 3, -1, expected a split of 4"),
        ("Reshape", {"shape": "(0, -4, 2)"}, IMAGE, "expected codes for (2, 4, 8, 7)"),
        ("Reshape", {"shape": "(-2, -1)"}, IMAGE, "(-2, -1), expected -1 where MXNet fills in"),
        ("Reshape", {"shape": "(-4, 1, -1, -1)"}, IMAGE, "expected -1 where MXNet fills in"),
        ("Reshape", {"target_shape": "(0, 0)"}, (1, 1), "(0, 0), expected sizes for (1, 1)"),
        ("Reshape", {"shape": "(-5,)"}, IMAGE, "expected codes for (2, 4, 8, 7)"),
        ("transpose", {"axes": "(-1, 0, 1, 2)"}, IMAGE, "expected an order of 4 dimensions"),
        ("transpose", {"axes": "(0, 1)"}, IMAGE, "axes = (0, 1), expected an order of 4 dimens"),
        ("SwapAxis", {"dim1": "4"}, IMAGE, "dim1 = 4, expected one of 4 dimensions"),
        ("squeeze", {"axis": "1"}, IMAGE, "axis = [1], expected dimensions of size 1 in (2, 4, 8"),
        ("slice_axis", {"axis": "1", "begin": "3", "end": "2"}, IMAGE, "3, 2, expected a part of"),
        ("slice", {"begin": "(0,)", "end": "(1, 2)"}, IMAGE, "expected as many, of (2, 4, 8, 7)"),
        ("slice", {"begin": "(0, 0)", "end": "(1, 1)", "step": "(1,)"}, IMAGE, "expected as many"),
        ("slice", {"begin": "(5,)", "end": "(9,)"}, IMAGE, "begin, end = 5, 9, expected a part of"),
        ("slice", {"begin": "(a,)", "end": "(9,)"}, IMAGE, "begin = a, expected a whole number"),
        ("SliceChannel", {"num_outputs": "3"}, IMAGE, "num_outputs = 3, expected equal parts of 4"),
        ("Crop", {"h_w": "(9, 2)"}, IMAGE, "h_w, offset = (9, 2), (0, 0), expected a part of (8"),
        (
            "Pad",
            {"mode": "edge", "pad_width": "(0, 0, 1, 1, 0, 0, 0, 0)"},
            IMAGE,
            "expected borders of the last 2 of 4 dimensions",
        ),
        ("Pad", {"mode": "edge", "pad_width": "(1, 1)"}, IMAGE, "(1, 1), expected 8 numbers"),
        ("sum", {"axis": "(0,1,2,3)", "exclude": "1"}, IMAGE, "all dimensions, expected one at l"),
        ("Pooling", {"kernel": "(2,)"}, IMAGE, "kernel = (2,), expected 2 numbers"),
        ("Pooling", {}, IMAGE, "kernel = (), expected 2 numbers"),
        (
            "Pooling",
            {"kernel": "(2,2)", "pool_type": "None"},
            IMAGE,
            "pool_type = None, expected one",
        ),
        (
            "Pooling",
            {"kernel": "(2,2)", "stride": "(0,1)"},
            IMAGE,
            "stride = (0,1), expected numbers from 1 on",
        ),
        ("Pooling", {"kernel": "(9,9)"}, IMAGE, "(9, 9), expected no more than the padded image"),
        ("Pooling_v1", {"kernel": "(2,2)", "pool_type": "lp"}, IMAGE, "one of max, avg, sum"),
        ("Pooling_v1", {"kernel": "(2,2)", "pooling_convention": "same"}, IMAGE, "valid, full"),
        ("Pooling_v1", {"kernel": "(2,2)", "p_value": "2"}, IMAGE, "no such setting"),
        ("Pooling_v1", {"kernel": "(2,2)", "count_include_pad": "0"}, IMAGE, "no such setting"),
        (
            "_contrib_AdaptiveAvgPooling2D",
            {"output_size": "(1,2,3)"},
            IMAGE,
            "output_size = (1, 2, 3), expected 1 or 2 numbers",
        ),
        ("UpSampling", {"scale": "0", "sample_type": "nearest"}, IMAGE, "scale = 0, expected 1 or"),
        ("GroupNorm", {}, IMAGE, "found 1 inputs, expected 3: data, gamma, beta"),
        ("LayerNorm", {}, IMAGE, "found 1 inputs, expected 3: data, gamma, beta"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_wrong_settings_are_named(
    tmp_path: Path, op: str, attributes: dict[str, str], shape: tuple[int, ...], message: str
) -> None:
    """The error says which operator, which setting, what it is and what it may be."""
    with pytest.raises(FormatError, match=rf"layer x.*{re.escape(message)}"):
        one(tmp_path, op, shape, **attributes)


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "message"),
    [
        ("Pooling", {"kernel": "(2,)"}, (2, 4, 9), "takes images, its input has 3 dimensions"),
        ("Pooling", {"kernel": "(2,2)", "layout": "NHWC"}, IMAGE, "only NCHW is converted"),
        ("Pooling", {"kernel": "(2,2)", "pooling_convention": "same"}, IMAGE, "for rows only"),
        (
            "Pooling",
            {
                "kernel": "(3,3)",
                "stride": "(2,2)",
                "pooling_convention": "full",
                "pool_type": "sum",
            },
            IMAGE,
            "pool_type sum with windows that stick out of the image",
        ),
        (
            "Pooling",
            {"kernel": "(2,2)", "pool_type": "lp", "p_value": "3"},
            IMAGE,
            "p_value 3: only 1 and 2 have an exact form",
        ),
        ("_contrib_AdaptiveAvgPooling2D", {}, (2, 4), "takes images, its input has 2"),
        ("LRN", {"nsize": "4"}, IMAGE, "a window of 4 maps has no centre: MXNet refuses it, too"),
        ("LRN", {"nsize": "-1"}, IMAGE, "a window of -1 maps has no centre"),
        ("LRN", {"nsize": "3"}, (2, 4, 8), "takes images, its input has 3 dimensions"),
        ("SoftmaxOutput", {}, IMAGE, "over the whole sample by MXNet's own code, over its last"),
        ("SoftmaxOutput", {}, (4,), "takes samples, its input has 1 dimensions"),
        ("SoftmaxActivation", {"mode": "channel"}, (2, 4), "takes maps, its input has 2"),
        ("Pooling_v1", {"kernel": "(2,)"}, (2, 4, 9), "takes images, its input has 3"),
        (
            "Pooling_v1",
            {"kernel": "(1,1)", "stride": "(3,3)", "pooling_convention": "full"},
            IMAGE,
            "with a window wholly outside the image",
        ),
        ("L2Normalization", {"mode": "channel"}, (2, 4), "mode channel of 2 dimensions"),
        ("_div_scalar", {"scalar": "0"}, IMAGE, "divides by 0"),
        ("softmax", {"use_length": "True"}, IMAGE, "use_length: softmax over a part"),
        ("softmax", {"dtype": "float16"}, IMAGE, "another dtype than float32"),
        ("Cast", {"dtype": "float16"}, IMAGE, "computes in float16"),
        ("Dropout", {"mode": "always"}, IMAGE, "mode always: draws random numbers"),
        ("Dropout", {"axes": "(1,)"}, IMAGE, "drops along (1,): only numbers and whole maps"),
        (
            "slice",
            {"begin": "(0,)", "end": "(2,)", "step": "(2,)"},
            IMAGE,
            "steps over numbers",
        ),
        ("Dropout", {"axes": "(2, 3)"}, (2, 4), "only numbers and whole maps"),
        ("Crop", {"h_w": "(1, 1)"}, (2, 4), "takes images, its input has 2 dimensions"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_cannot_be_exact_is_refused(
    tmp_path: Path, op: str, attributes: dict[str, str], shape: tuple[int, ...], message: str
) -> None:
    """A setting without an exact form is refused with its reason, though there is a rule."""
    with pytest.raises(UnsupportedLayer, match=f"x: {op}: .*{re.escape(message)}"):
        one(tmp_path, op, shape, **attributes)


CONV = {"kernel": "(1,1)", "num_filter": "4"}
STORED = node("null", "w")
WEIGHT = np.ones((4, 4, 1, 1), "f4")


def test_missing_arrays_are_listed(tmp_path: Path) -> None:
    """All arrays that operators need and the file does not have, in one error."""
    made = source(
        tmp_path,
        symbol(
            DATA,
            *(node("null", name) for name in ("w", "b", "gamma")),
            node("Convolution", "c", [0, 1, 2], **CONV),
            node("LeakyReLU", "p", [4, 3], act_type="prelu"),
        ),
        w=WEIGHT,
    )
    with pytest.raises(WeightMismatch, match=r"net-0000.params: .* missing: b, gamma$"):
        made.lower([IMAGE], infer)


def test_statistics_that_an_old_symbol_implies_are_missed(tmp_path: Path) -> None:
    """They are no inputs there, but no network without them."""
    text = symbol(DATA, STORED, node("BatchNorm", "bn", [0, 1, 1]), version=800)
    with pytest.raises(WeightMismatch, match="missing: bn_moving_mean, bn_moving_var$"):
        source(tmp_path, text, w=ONES).lower([IMAGE], infer)


def test_an_output_that_is_an_array_is_refused(tmp_path: Path) -> None:
    """A network has to compute something."""
    with pytest.raises(UnsupportedLayer, match="w: the network's output is a stored array"):
        source(tmp_path, symbol(DATA, STORED), w=ONES).lower([], infer)


def test_every_input_needs_a_shape(tmp_path: Path) -> None:
    """The message names the variables through which data enters."""
    text = symbol(DATA, node("null", "more"), node("elemwise_add", "x", [0, 1]))
    made = source(tmp_path, text)
    assert made.inputs() == ["data", "more"]
    message = "1 shapes for 2 inputs: data, more; are arrays missing from the file.* --input none"
    with pytest.raises(SpecError, match=message):
        made.lower([IMAGE], infer)


def test_a_label_is_no_input_though_it_is_computed(tmp_path: Path) -> None:
    """What only a loss compares with is not run: its operators need no rule, nor it a shape."""
    nodes = [node("null", "label"), node("one_hot", "r", [1]), node("SoftmaxOutput", "x", [0, 2])]
    made = source(tmp_path, symbol(DATA, *nodes))
    assert made.inputs() == ["data"]
    assert made.lower([(2, 4)], infer).shapes == ((2, 4),)


def test_files_without_names_or_with_two_of_one(tmp_path: Path) -> None:
    """A symbol calls arrays by name: there has to be one, and only one of it."""
    twice = {"arg:w": ONES, "aux:w": ONES}
    with pytest.raises(FormatError, match="array aux:w: found w a second time"):
        source(tmp_path, symbol(DATA), **twice)
    path = golden("mxnet/ndarray/mx1.9-list.params")
    with pytest.raises(FormatError, match="the names: found none, expected one for each array"):
        MXSource(path, symbol_path=None)


def test_no_symbol_no_network(tmp_path: Path) -> None:
    """Arrays alone can be listed; their graph is in the symbol."""
    made = MXSource(golden("mxnet/ndarray/mx1.9-checkpoint.params"), symbol_path=None)
    assert (made.role("conv0_weight"), made.role("bn0_moving_var")) == ("parameter", "statistic")
    assert made.inputs() == []
    for step in (lambda: made.check(infer), lambda: made.lower([IMAGE], infer)):
        with pytest.raises(SpecError, match="no symbol beside it, which has the graph: --symbol"):
            step()
    with pytest.raises(SpecError, match="the state of an MXNet optimizer is not read"):
        made.sgd(tmp_path / "net-0000.states")


def test_no_layer_gets_a_name_that_torch_has() -> None:
    """Every attribute of a graph's module is known to be one."""
    own = {name for name in dir(fx.GraphModule) if not name.startswith("_")}
    assert own - TAKEN == set()
    for name in ("train", "", "_modules"):
        assert not hasattr(fx.GraphModule(nn.Module(), fx.Graph()), plain(name))
    assert plain("stage1/unit 1:ä.b") == "stage1_unit_1___b"
    assert (plain("_plus0"), plain("in"), plain("train")) == ("_plus0", "in_", "train_")
