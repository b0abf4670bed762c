"""Every rule equals a second, independent definition, in settings that no fixture has as well."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from converters.comparison import compare
from converters.mx import MXSource
from converters.mx.network import RULES
from converters.mx_oracle import DEFINITIONS, Call
from models.errors import UnsupportedLayer
from models.ops import infer
from tests.mx_writer import checkpoint, node, symbol
from tests.oracles import golden

EXACT = 1e-12  # of the largest output, both in float64, sums of up to a hundred terms
RELATIVE = 1e-6  # MXNet's own outputs are float32
OPS = json.loads(golden("mxnet/ops/manifest.json").read_text(encoding="utf-8"))
CONVERTED = [name for name in OPS if not name.endswith("emptywindow")]

IMAGE = (2, 4, 8, 7)
ROWS = (2, 6)


class Case(NamedTuple):
    """An operator on one or more inputs of the network, and arrays after those."""

    op: str
    settings: dict[str, str] = {}
    shapes: tuple[tuple[int, ...], ...] = (IMAGE,)
    arrays: dict[str, tuple[int, ...]] = {}
    version: int = 10901

    def __str__(self) -> str:
        """Name the case in the list of tests."""
        said = "-".join(f"{key}={value}".replace(" ", "") for key, value in self.settings.items())
        return f"{self.op}({said})"


def window(**settings: str) -> dict[str, str]:
    return {"kernel": "(3, 2)", "num_filter": "4", "num_group": "2", **settings}


NORM = {"gamma": (4,), "beta": (4,), "moving_mean": (4,), "moving_var": (4,)}
FULL = {"kernel": "(3, 2)", "stride": "(2, 2)", "pooling_convention": "full"}
CASES = [
    Case("Convolution_v1", window(workspace="64"), arrays={"w": (4, 2, 3, 2), "b": (4,)}),
    Case(
        "Deconvolution",
        window(no_bias="False", stride="(1L, 3L)", dilate="[2, 1]", pad="(1, 0)", adj="(0, 2)"),
        arrays={"w": (4, 2, 3, 2), "b": (4,)},
    ),
    Case(
        "Deconvolution",
        window(stride="(2, 2)", target_shape="(15, 13)"),
        arrays={"w": (4, 2, 3, 2)},
    ),
    Case(
        "FullyConnected",
        {"num_hidden": "3"},
        (ROWS,),
        {"w": (3, 6), "b": (3, 1)},
    ),
    Case(
        "UpSampling",
        {"scale": "3", "sample_type": "bilinear", "num_filter": "4", "num_args": "2"},
        arrays={"w": (4, 1, 5, 5)},
    ),
    Case("BatchNorm", {"fix_gamma": "0", "axis": "-3"}, arrays=NORM),
    Case("BatchNorm_v1", {}, ((2, 4),), NORM),
    Case("CuDNNBatchNorm", {"fix_gamma": "false", "eps": "0.5"}, ((2, 4),), NORM),
    Case("_contrib_SyncBatchNorm", {"ndev": "4", "key": "bn"}, arrays=NORM),
    Case("InstanceNorm", {}, ((2, 4, 9),), {"gamma": (4,), "beta": (4,)}),
    Case("GroupNorm", {"num_groups": "2"}, arrays={"gamma": (2,), "beta": (2,)}),
    Case("LayerNorm", {"axis": "1", "eps": "0.1"}, arrays={"gamma": (4,), "beta": (4,)}),
    Case("LRN", {"nsize": "5", "alpha": "2", "knorm": "0.5"}),
    Case("LRN", {"nsize": "2147483647", "alpha": "1e9"}),
    Case("L2Normalization", {"mode": "spatial"}),
    Case("L2Normalization", {"eps": "2"}, (ROWS,)),
    *(Case("Pooling", {**FULL, "pool_type": kind}) for kind in ("max", "avg")),
    Case("Pooling", {**FULL, "pool_type": "avg", "pad": "(1,0)", "count_include_pad": "0"}),
    Case("Pooling", {"kernel": "(2,2)", "pad": "(1,1)", "pool_type": "sum", "stride": "None"}),
    Case("Pooling", {"kernel": "(3,3)", "pool_type": "lp", "p_value": "1"}),
    Case("Pooling_v1", {"global_pool": "1", "kernel": "(5,)", "pool_type": "avg"}),
    *(
        Case("Pooling_v1", {**FULL, "pad": "(1, 1)", "pool_type": kind})
        for kind in ("max", "avg", "sum")
    ),
    Case("Pooling_v1", {"kernel": "(2, 2)", "pad": "(1, 1)", "pool_type": "avg"}),
    *(
        Case("Pooling", {**FULL, "pool_type": kind}, version=version)
        for kind in ("max", "avg", "sum")
        for version in (800, 903)
    ),
    Case("_contrib_AdaptiveAvgPooling2D"),
    Case("_contrib_AdaptiveAvgPooling2D", {"output_size": "3"}),
    *(Case(name) for name in ("relu", "sigmoid", "tanh", "softsign", "exp", "abs")),
    *(Case(name) for name in ("negative", "square")),
    Case("LeakyReLU", {"act_type": "prelu"}, arrays={"gamma": (1,)}),
    Case("LeakyReLU", {"act_type": "elu", "slope": "1.5"}),
    Case("hard_sigmoid"),
    Case("clip", {"a_min": "0", "a_max": "6"}),
    *(
        Case(name, {"scalar": "3"})
        for name in ("_PlusScalar", "_MinusScalar", "_RMinusScalar", "_MulScalar", "_DivScalar")
    ),
    *(
        Case(name, {"scalar": "2"})
        for name in ("_RDivScalar", "_PowerScalar", "_MaximumScalar", "_MinimumScalar")
    ),
    *(
        Case(name, {}, (IMAGE, IMAGE))
        for name in ("_add", "_plus", "_Plus", "_sub", "_minus", "_Minus", "_mul", "_Mul")
    ),
    *(
        Case(name, {}, (IMAGE, IMAGE))
        for name in ("_div", "_Div", "_maximum", "_Maximum", "_minimum", "_Minimum")
    ),
    *(
        Case(f"broadcast_{name}", {}, (IMAGE, (1, 4, 1, 1)))
        for name in ("add", "plus", "sub", "minus", "mul", "div", "maximum", "minimum")
    ),
    Case("broadcast_mul", {}, arrays={"scale": (1, 4, 1, 1)}),
    Case("broadcast_add", {}, arrays={"shift": (1, 4, 8, 1)}),
    Case("ElementWiseSum", {"num_args": "1"}),
    Case("Softmax", {}, ((2, 1, 4),), {"label": (2,)}),
    Case("SoftmaxOutput", {"multi_output": "1", "preserve_shape": "1"}),
    Case("SoftmaxActivation"),
    Case("log_softmax", {"axis": "1", "temperature": "0.5"}),
    *(Case(name, {}, (IMAGE,)) for name in ("MAERegressionOutput", "SVMOutput", "MakeLoss")),
    *(Case(name) for name in ("stop_gradient", "identity")),
    Case("cast", {"dtype": "float32"}),
    Case("amp_cast", {"dtype": "float32"}),
    Case("Dropout", {"axes": "(2, 3)"}),
    Case("flatten"),
    Case("Flatten", {}, ((2,),)),
    Case("reshape", {"target_shape": "(0, 28)", "shape": "()"}),
    Case("Reshape", {"target_shape": "(5, 7, 0)", "keep_highest": "True"}),
    Case("Reshape", {"shape": "(-3, -4, -1, 4, 0)"}),
    Case("Reshape", {"shape": "(0, -4, 2, 2, -2)"}),
    Case("Reshape", {"shape": "(-1, -4, 2, 2, 0, 0)"}),
    Case("transpose"),
    Case("swapaxes", {"dim1": "-1", "dim2": "1"}),
    Case("expand_dims", {"axis": "-1"}),
    Case("squeeze", {}, ((2, 1, 3, 1),)),
    Case("squeeze"),
    Case("squeeze", {}, ((1, 1),)),
    Case("squeeze", {"axis": "(0,)"}, ((1,),)),
    Case("concat", {"dim": "-1", "num_args": "2"}, (IMAGE, (2, 4, 8, 2))),
    Case("slice_axis", {"axis": "-2", "begin": "-5", "end": "-1"}),
    Case("slice_axis", {"axis": "2", "begin": "0", "end": "None"}),
    Case("crop", {"begin": "(None, -3)", "end": "(2, None)", "step": "(1, None)"}),
    Case("SliceChannel", {"num_outputs": "4", "squeeze_axis": "True"}),
    Case("split", {"num_outputs": "2", "axis": "2"}),
    Case("Crop", {"num_args": "2", "offset": "(1, 2)"}, (IMAGE, (1, 1, 5, 4))),
    Case("pad", {"mode": "constant", "pad_width": "(0,0,0,0,1,2,3,0)", "constant_value": "2"}),
    *(Case(name, {"axis": "(1, -1)"}) for name in ("sum_axis", "max_axis", "min_axis", "min")),
    Case("mean", {"axis": "1", "exclude": "True", "keepdims": "True"}),
    Case("max"),
    Case("BatchNorm", {}, arrays={"x_gamma": (4,), "x_beta": (4,)}, version=800),
]
# The logarithm and the roots take numbers above 0, and in old symbols two arrays are no inputs.
POSITIVE = [Case(name) for name in ("log", "sqrt", "rsqrt", "reciprocal")]
HIDDEN = {"x_moving_mean": (4,), "x_moving_var": (4,)}


def opened(folder: Path, case: Case) -> MXSource:
    """Write a case's checkpoint, with the input's exponential in front of what is positive only."""
    generator = np.random.default_rng(3)
    shapes = {**case.arrays, **(HIDDEN if case.version == 800 else {})}
    arrays = {
        name: np.abs(generator.normal(size=shape)).astype("f4") + np.float32(0.5)
        for name, shape in shapes.items()
    }
    data = [node("null", f"data{index}") for index in range(len(case.shapes))]
    made = [*data, *(node("null", name) for name in case.arrays)]
    reads = list(range(len(made)))
    if case in POSITIVE:
        made.append(node("exp", "before", [0]))
        reads = [len(made) - 1]
    made.append(node(case.op, "x", reads, **case.settings))
    path = checkpoint(folder, symbol(*made, version=case.version), arrays)
    return MXSource(path, symbol_path=folder / "net-symbol.json")


@pytest.mark.parametrize("case", [*CASES, *POSITIVE], ids=str)
def test_rules_equal_definitions(tmp_path: Path, case: Case) -> None:
    """The converted operator gives what its definition says, in float64."""
    source = opened(tmp_path, case)
    found = compare(source, source.lower(case.shapes, infer))
    assert found.largest <= EXACT
    assert found.uncompared == 0


def calls(source: MXSource, *inputs: Any) -> Iterator[Call]:
    found: list[Call] = []
    source.follow(inputs, found.append)
    return iter(found)


@pytest.mark.parametrize("name", CONVERTED)
def test_definitions_equal_mxnet(name: str) -> None:
    """The definitions give what MXNet gave, and the rules what the definitions give."""
    folder = golden("mxnet/ops")
    source = MXSource(folder / f"{name}-0000.params", symbol_path=folder / f"{name}-symbol.json")
    expected = np.load(folder / f"{name}-expected.npz")
    outputs = {one.path: one.outputs for one in calls(source, expected["data"])}
    _, graph = source.graph()
    for index, head in enumerate(graph.heads):
        ours = outputs[graph.nodes[head.node].name][head.output]
        theirs = expected[f"output{index}"]
        assert ours.dtype == np.float64
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= RELATIVE * np.abs(theirs).max()
    lowered = source.lower([tuple(OPS[name]["data_shape"])], infer)
    assert compare(source, lowered).largest <= EXACT


def test_every_rule_is_held_against_a_definition() -> None:
    """No operator converts that nobody has stated twice, and none is untested."""
    assert sorted(DEFINITIONS) == RULES.names()
    tested = {case.op for case in [*CASES, *POSITIVE]}
    tested |= {op for name in CONVERTED for op in OPS[name]["ops"]}
    tested |= {"SoftmaxOutput", "LogisticRegressionOutput", "LinearRegressionOutput"}
    assert sorted(set(RULES.names()) - tested) == []


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("Frobnicate"), "x: Frobnicate"),
        (Case("LRN", {"nsize": "4"}), "a window without a centre"),
        (
            Case("Convolution", window(layout="NHWC"), arrays={"w": (4, 2, 3, 2)}),
            "channels last",
        ),
        (Case("Convolution", window(), arrays={"w": (4, 2, 3, 3)}), "a weight of"),
        (
            Case("UpSampling", {"scale": "2", "sample_type": "nearest"}, (IMAGE, IMAGE)),
            "several inputs",
        ),
        (
            Case(
                "Pooling",
                {"kernel": "(1,1)", "stride": "(3,3)", "pooling_convention": "full"},
                ((1, 1, 9, 9),),
            ),
            "a window with nothing in it",
        ),
    ],
    ids=str,
)
def test_what_has_no_definition_is_refused(tmp_path: Path, case: Case, message: str) -> None:
    """The definitions do not guess either."""
    source = opened(tmp_path, case)
    with pytest.raises(UnsupportedLayer, match=message):
        list(calls(source, *(np.ones(shape) for shape in case.shapes)))
