"""How the oracle walks a module tree, shares memory, and refuses what it cannot run."""

import ast
import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.t7 import reader
from converters.t7.objects import LuaTable, TorchObject, walk
from converters.t7_oracle import Call, follow, run
from converters.t7_oracle.interpreter import MAX_CALLS, on_tensor
from models.errors import FormatError, UnsupportedLayer
from tests.oracles import ROOT, golden
from tests.t7_writer import Module, Sizes, write

X = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])


def ran(tmp_path: Path, module: Module, *inputs: Any) -> list[Call]:
    path = write(tmp_path / "made.t7", module)
    return run(reader.read(path), inputs or [X], "made.t7")


def outputs(tmp_path: Path, module: Module, *inputs: Any) -> list[Any]:
    return [one.tolist() for one in ran(tmp_path, module, *inputs)[-1].outputs]


def box(name: str, *modules: Module, **fields: Any) -> Module:
    return Module(f"nn.{name}", modules=list(modules), **fields)


def times(factor: float, *, inplace: bool = False) -> Module:
    return Module("nn.MulConstant", constant_scalar=factor, inplace=inplace)


def linear(weight: Any) -> Module:
    return Module("nn.Linear", weight=np.array(weight, "f8"))


def test_calls_come_in_order_of_completion(tmp_path: Path) -> None:
    """Paths are indices from 0, children come before their container, the root is last."""
    branch = box("ConcatTable", times(2), box("Sequential", times(3), times(4)))
    calls = ran(tmp_path, box("Sequential", branch, Module("nn.CAddTable")))
    assert [(call.path, call.class_name) for call in calls] == [
        ("0.0", "nn.MulConstant"),
        ("0.1.0", "nn.MulConstant"),
        ("0.1.1", "nn.MulConstant"),
        ("0.1", "nn.Sequential"),
        ("0", "nn.ConcatTable"),
        ("1", "nn.CAddTable"),
        ("", "nn.Sequential"),
    ]
    assert [one.tolist() for one in calls[4].outputs] == [(2 * X).tolist(), (12 * X).tolist()]
    assert calls[-1].outputs[0].tolist() == (14 * X).tolist()


def test_reported_outputs_are_those_of_the_moment(tmp_path: Path) -> None:
    """What a later layer writes into does not change what was reported, nor the caller's array."""
    given = X.copy()
    calls = ran(tmp_path, box("Sequential", times(2), times(10, inplace=True)), given)
    assert calls[0].outputs[0].tolist() == (2 * X).tolist()
    assert calls[1].outputs[0].tolist() == (20 * X).tolist()
    assert given.tolist() == X.tolist()


def test_a_module_has_one_output(tmp_path: Path) -> None:
    """The second call of a module object changes what the first one's holders see."""
    twice = times(2)
    other = box("Sequential", times(5), twice)
    shared = box("Sequential", box("ConcatTable", twice, other), Module("nn.CAddTable"))
    assert outputs(tmp_path, shared) == [(20 * X).tolist()]
    apart = box("Sequential", times(5), times(2))
    added = box("Sequential", box("ConcatTable", times(2), apart), Module("nn.CAddTable"))
    assert outputs(tmp_path, added) == [(12 * X).tolist()]


def test_a_table_is_refilled(tmp_path: Path) -> None:
    """The second call of a ConcatTable changes the table that the first one gave."""
    pair = box("ConcatTable", times(1), times(2))
    again = box("Sequential", times(10), pair)
    shared = box("Sequential", box("ConcatTable", pair, again), Module("nn.FlattenTable"))
    assert outputs(tmp_path, shared) == [(factor * X).tolist() for factor in (10, 20, 10, 20)]


def test_a_view_shares_its_input(tmp_path: Path) -> None:
    """What works in place on a view changes the tensor that was viewed."""
    branch = box("Sequential", Module("nn.View", size=Sizes(-1)), times(10, inplace=True))
    both = box("ConcatTable", Module("nn.Identity"), branch)
    assert outputs(tmp_path, both) == [(10 * X).tolist(), (10 * X).ravel().tolist()]


def test_an_output_that_grows_is_seen_by_its_holders(tmp_path: Path) -> None:
    """A module called with more elements gives its first caller the larger tensor as well."""
    twice = times(2)
    doubled = Module("nn.JoinTable", dimension=1)
    self_join = box("Sequential", box("ConcatTable", Module("nn.Identity"), times(1)), doubled)
    both = box("ConcatTable", twice, box("Sequential", self_join, twice))
    larger = np.concatenate([X, X]) * 2
    assert outputs(tmp_path, both) == [larger.tolist()] * 2


def test_clones_of_a_map_table_have_outputs_of_their_own(tmp_path: Path) -> None:
    """MapTable gives three tensors where a shared module would give one; all have the path 0."""
    calls = ran(tmp_path, box("MapTable", times(2)), X, 2 * X, 3 * X)
    assert [call.path for call in calls] == ["0", "0", "0", ""]
    assert [one.tolist() for one in calls[-1].outputs] == [(n * X).tolist() for n in (2, 4, 6)]
    stored = ran(tmp_path, box("MapTable", times(2), times(7)), X, X, X)
    assert [one.tolist() for one in stored[-1].outputs] == [(n * X).tolist() for n in (2, 7, 2)]


def test_normalising_one_example_gives_its_input_a_batch(tmp_path: Path) -> None:
    """In evaluation BatchNormalization turns the very input into a batch of one."""
    fields = {"running_mean": np.zeros(3), "running_var": np.ones(3), "eps": 0}
    network = box("ConcatTable", Module("nn.Identity"), Module("nn.BatchNormalization", **fields))
    assert outputs(tmp_path, network, X[0]) == [[X[0].tolist()]] * 2


def test_a_copy_between_equal_types_is_the_input(tmp_path: Path) -> None:
    """An nn.Copy with a function of its own hands its input on; another one copies."""
    same = Module("nn.Copy", updateOutput=True)  # any value: the function is not run
    for copy, first in ((same, 10 * X), (Module("nn.Copy"), X)):
        branch = box("Sequential", Module("nn.Identity"), times(10, inplace=True))
        both = box("Sequential", times(1), box("ConcatTable", copy, branch))
        assert outputs(tmp_path, both) == [first.tolist(), (10 * X).tolist()]


def test_a_replica_works_on_copies(tmp_path: Path) -> None:
    """What works in place inside a DataParallelTable leaves its input; tables keep their form."""
    inside = box("ConcatTable", times(10, inplace=True), Module("nn.Identity"))
    parallel = box("DataParallelTable", inside)
    network = box("Sequential", box("ConcatTable", Module("nn.Identity"), parallel))
    network.fields["modules"].append(Module("nn.FlattenTable"))
    assert outputs(tmp_path, network) == [X.tolist(), (10 * X).tolist(), (10 * X).tolist()]


def test_hidden_modules_are_not_reported(tmp_path: Path) -> None:
    """A module that only another one's field holds runs without a call of its own."""
    hidden = Module("nn.SpatialContrastiveNormalization", normalizer=times(3))
    assert [call.path for call in ran(tmp_path, box("Sequential", hidden))] == ["0", ""]


def test_what_the_caller_raises_passes() -> None:
    """An error of who compares the calls is not taken for one of the module."""

    def refuse(call: Call) -> None:
        raise ValueError(f"of the caller at {call.path}")

    root = reader.read(golden("torch7/layers/same_module_twice.t7"))
    with pytest.raises(ValueError, match="of the caller at 0"):
        follow(root, [np.ones((2, 4))], "made.t7", refuse)


def shared(levels: int, name: str, *, leaf: Module | None = None) -> Module:
    module = leaf or Module("nn.Identity")
    for _ in range(levels):
        module = box(name, module, module)
    return module


def inside_itself() -> Module:
    module = box("Sequential")
    module.fields["modules"].append(module)
    return module


def holding_itself() -> Module:
    pair = box("ConcatTable", Module("nn.Identity"))
    return box("Sequential", pair, pair)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (inside_itself(), "nn.Sequential: modules nest more than 100 deep"),
        (shared(30, "Sequential"), f"more than {MAX_CALLS:,} calls of modules"),
        (shared(30, "ConcatTable"), "a table of more than 10,000 entries"),
        (shared(30, "ConcatTable", leaf=box("ConcatTable")), "a table of more than 10,000 entries"),
        (holding_itself(), "1: nn.ConcatTable: a table that nests more than 100 deep"),
        (box("Sequential", Module("nn.Nonesuch")), "0: nn.Nonesuch. A rule"),
        (Module("nn.CAddTable"), "nn.CAddTable: takes a table, its input is a tensor"),
        (box("Sequential", box("ConcatTable"), Module("nn.CAddTable")), "input has no entries"),
        (box("Sequential", box("ConcatTable"), Module("nn.Tanh")), "takes a tensor, its input is"),
        (linear(np.ones((2, 5))), "nn.Linear: matmul"),
        (Module("nn.View", size=Sizes(4)), r"nn.View: a view of \(2, 3\) as \(4,\)"),
        (Module("nn.View", size=Sizes(3), numInputDims=3), "takes 3 dimensions or more"),
        (Module("nn.Reshape", size=Sizes(5)), r"a view of \(2, 3\) as \(2, 5\)"),
        (
            box(
                "Sequential",
                Module("nn.Replicate", nfeatures=2, dim=1),
                Module("nn.View", size=Sizes(-1)),
            ),
            "a view of a tensor that is not contiguous",
        ),
        (Module("nn.Replicate", nfeatures=2**28), "are more than 268,435,456 elements"),
        (Module("nn.Replicate", nfeatures=2, dim=9), "a dimension before 9"),
        (Module("nn.Padding", dim=1, pad=-(2.0**27)), "are more than 268,435,456 elements"),
        (Module("nn.Padding", dim=9, pad=1, value=0), "dimension 9 of a tensor of 2"),
        (Module("nn.Padding", dim=1, pad=1, value=0, index=9), "pads at -5 of 2"),
        (Module("nn.Select", dimension=1, index=9), r"slice 9 along dimension 1 of \(2, 3\)"),
        (Module("nn.Squeeze", dim=7), r"dimension 7 of \(2, 3\)"),
        (Module("nn.Unsqueeze", pos=1, numInputDims=3), "takes 3 dimensions or more"),
        (Module("nn.Narrow", dimension=1, index=2, length=5), "takes 5 from 2 on of 2"),
        (Module("nn.SpatialMaxPooling", kW=2, kH=2), "takes 3 or 4 dimensions, its input has 2"),
        (Module("nn.Dropout", p=0.5, stochastic_inference=True), "draws random numbers"),
        (Module("nn.SpatialDropout", p=0.5, stochastic_inference=True), "draws random numbers"),
        (Module("nn.GatedLinearUnit"), r"halves dimension 2 of \(2, 3\)"),
        (Module("nn.Threshold", threshold=0, val=1, inplace=True), "a value above the threshold"),
        (Module("nn.PReLU", nOutputPlane=2, weight=np.ones(2)), "2 planes, an input of"),
        (Module("nn.Add", bias=np.ones(2)), r"adds 2 numbers to an input of \(2, 3\)"),
        (Module("nn.AddConstant", constant_scalar=np.ones(2)), "adds 2 numbers"),
        (Module("nn.BatchNormalization", running_mean=np.ones(4), running_var=np.ones(4), eps=0),
         "normalises 4 planes, its input has 3"),
        (box("Concat", dimension=1), "joins nothing"),
        (box("Parallel", Module("nn.Identity"), inputDimension=1, outputDimension=1),
         "its module 2 does not exist"),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)  # fmt: skip
def test_what_cannot_run_is_refused(tmp_path: Path, module: Module, message: str) -> None:
    """An input or a setting without a result, or without an end, is refused by module and class."""
    with pytest.raises(UnsupportedLayer, match=message):
        ran(tmp_path, module)


PAIR = (X, 2 * X)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (box("ParallelTable", times(1), times(1), times(1)), "3 modules, and a table of 2"),
        (Module("nn.SelectTable", index=3), "selects entry 3 of a table of 2"),
        (Module("nn.CAddTensorTable"), "takes a table, its input is a tensor"),
        (Module("nn.ZipTable"), "takes a table, its input is a tensor"),
        (Module("nn.ZipTableOneToMany"), "takes a table, its input is a tensor"),
        (Module("nn.MixtureTable", dim=9), "dimension 9 of a tensor of 2"),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)
def test_what_a_table_cannot_give_is_refused(tmp_path: Path, module: Module, message: str) -> None:
    """A table without the entries that a module takes is refused."""
    with pytest.raises(UnsupportedLayer, match=message):
        ran(tmp_path, module, *PAIR)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CSubTable", "takes two entries, its table has one"),
        ("DotProduct", "takes two entries, its table has one"),
        ("CAddTensorTable", "takes a tensor and a table"),
        ("ZipTableOneToMany", "takes an entry and a table"),
        ("MixtureTable", "takes a gate and experts"),
    ],
)
def test_a_table_of_one_is_refused(tmp_path: Path, name: str, message: str) -> None:
    """Where two entries are wanted, one is refused."""
    network = box("Sequential", box("ConcatTable", Module("nn.Identity")), Module(f"nn.{name}"))
    with pytest.raises(UnsupportedLayer, match=f"1: nn.{name}: {message}"):
        ran(tmp_path, network)


IMAGE = np.ones((2, 3, 6, 6))
WINDOW: dict[str, Any] = {"kW": 3, "kH": 3, "dW": 1, "dH": 1, "padW": 0, "padH": 0}


def conv(name: str = "nn.SpatialConvolution", **fields: Any) -> Module:
    weight = np.ones((4, 3, 3, 3))
    given = {**WINDOW, "nInputPlane": 3, "nOutputPlane": 4, "weight": weight, **fields}
    return Module(name, **given)


def full(**fields: Any) -> Module:
    return conv("nn.SpatialFullConvolution", weight=np.ones((3, 4, 3, 3)), **fields)


def pool(name: str, **fields: Any) -> Module:
    return Module(name, **{**WINDOW, "ceil_mode": False, "divide": True, **fields})


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (conv(weight=np.ones((4, 2, 3, 3))), "takes 2 planes, its input has 3"),
        (conv(bias=np.ones(3)), "3 biases for 4 planes"),
        (conv(kW=7, weight=np.ones((4, 3, 3, 7))), "is smaller than the kernel"),
        (conv(padW=2**14, padH=2**14), "are more than 268,435,456 elements"),
        (conv("cudnn.SpatialConvolution", groups=2), "2 groups of 3 and 4 planes"),
        (full(adjW=1), r"adds \(0, 1\) to a result of stride \(1, 1\)"),
        (full(padW=9), "leave no element"),
        (conv("nn.SpatialConvolutionMap", weight=np.ones((4, 3, 3)), connTable=np.ones((3, 2))),
         r"\(3, 2\) pairs for a weight of \(4, 3, 3\)"),
        (pool("nn.SpatialMaxPooling", padW=2), "padding 2 is more than half of a kernel of 3"),
        (pool("nn.SpatialMaxPooling", kW=9), "is smaller than the kernel"),
        (pool("cudnn.SpatialAveragePooling", divide=False), "divide is false, which cudnn refuses"),
        (Module("nn.SpatialMaxUnpooling", pooling=pool("nn.SpatialMaxPooling")), "did not run"),
        (Module("nn.SpatialCrossMapLRN", size=4), "a window of 4 planes has no centre"),
        (Module("nn.SpatialZeroPadding", pad_l=-6, pad_r=0, pad_t=0, pad_b=0),
         "crops 6 by 6 and 0"),
        (Module("nn.SpatialReflectionPadding", pad_l=6, pad_r=0, pad_t=0, pad_b=0),
         "pads 6 by 6 and 0"),
        (Module("nn.SpatialUpSamplingNearest", scale_factor=2**14), "are more than 268,435,456"),
        (Module("nn.SpatialAdaptiveMaxPooling", W=2**14, H=2**14), "are more than 268,435,456"),
        (Module("nn.PixelShuffle", upscaleFactor=2), "cannot reshape"),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)  # fmt: skip
def test_what_an_image_cannot_give_is_refused(tmp_path: Path, module: Module, message: str) -> None:
    """Windows, planes and paddings that do not go with the image are refused."""
    with pytest.raises(UnsupportedLayer, match=message):
        ran(tmp_path, module, IMAGE)


def test_unpooling_what_was_not_pooled_is_refused(tmp_path: Path) -> None:
    """Places go with the tensor they were taken from, and every window has one."""
    pooling = pool("nn.SpatialMaxPooling", dW=3, dH=3)
    unpooling = Module("nn.SpatialMaxUnpooling", pooling=pooling)
    crop = Module("nn.SpatialZeroPadding", pad_l=-1, pad_r=0, pad_t=0, pad_b=0)
    with pytest.raises(UnsupportedLayer, match=r"undoes a pooling of \(2, 3, 2, 2\), its input"):
        ran(tmp_path, box("Sequential", pooling, crop, unpooling), IMAGE)
    with pytest.raises(UnsupportedLayer, match="a window without a maximum"):
        ran(tmp_path, box("Sequential", pooling, unpooling), IMAGE * np.nan)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (times("x"), r"layer \(the whole file\) \(nn.MulConstant\): found constant_scalar = 'x'"),  # type: ignore[arg-type]
        (box("Sequential", Module("nn.Dropout")), r"layer 0 \(nn.Dropout\): found p = nil"),
        (conv(kW=1.5), "found kW = 1.5, expected a whole number"),
        (conv(dW=0), "found dW = 0, expected 1 or more"),
        (conv(kW=2**15), "found kW = 32768, expected 16,384 or less"),
        (conv(weight=None), "found weight = nil, expected a tensor"),
        (conv(weight=1), "found weight = 1, expected a tensor"),
        (Module("nn.View", size=[2]), "found size = a table, expected a LongStorage"),
        (Module("nn.Sequential", modules=3), "found modules = 3, expected a table"),
        (Module("nn.Sequential", modules=[3]), "found modules = a table, expected modules only"),
        (Module("nn.SpatialMaxUnpooling"), "found pooling = nil, expected a module"),
        (Module("nn.Transpose", permutations=[[1]]), "permutations = a table, expected pairs"),
        (Module("nn.gModule", forwardnodes=[3]), "expected nodes with data"),
        (conv("nn.SpatialConvolutionMap", weight=np.ones((1, 3, 3)), connTable=np.zeros((1, 2))),
         "expected planes from 1 on"),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)  # fmt: skip
def test_broken_fields_are_named(tmp_path: Path, module: Module, message: str) -> None:
    """A field that is missing or of the wrong kind is named, with its layer."""
    with pytest.raises(FormatError, match=message):
        ran(tmp_path, module, IMAGE)


class Data(dict[str, Any]):
    """The data table of a graph node, which keys of other tables are."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # identity, as Lua has it

    def __eq__(self, other: object) -> bool:
        return self is other


def graph(
    contents: list[dict[str, Any]], edges: list[tuple[int, int, float]], **fields: Any
) -> Module:
    """Return a gModule: what its nodes hold, in order; edges are source, target, place there."""
    nodes = [Module("nngraph.Node", data=Data(content), children=[]) for content in contents]
    for source, target, place in edges:
        nodes[source].fields["children"].append(nodes[target])
        places = nodes[target].fields["data"].setdefault("mapindex", {})
        places[nodes[source].fields["data"]] = place
    sources = [nodes[source] for source, target, _ in edges if target == len(nodes) - 1]
    outnode = Module("nngraph.Node", data=nodes[-1].fields["data"], children=sources)
    modules = [content["module"] for content in contents if "module" in content]
    given = {"modules": modules, "forwardnodes": nodes, "innode": nodes[0], "outnode": outnode}
    return Module("nn.gModule", **{**given, "nInputs": 1, **fields})


def test_a_graph_reports_modules_by_their_index(tmp_path: Path) -> None:
    """Calls of a graph go by the index in `modules`; operands by `mapindex`, not by order."""
    contents = [{}, *({"module": one} for one in (times(3), times(2), Module("nn.CSubTable"))), {}]
    module = graph(contents, [(0, 1, 1), (0, 2, 1), (1, 3, 2), (2, 3, 1), (3, 4, 1)])
    calls = ran(tmp_path, module)
    assert [call.path for call in calls] == ["0", "1", "2", ""]
    assert calls[-1].outputs[0].tolist() == (-X).tolist()


CHAIN: list[tuple[int, int, float]] = [(0, 1, 1), (1, 2, 1)]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (graph([{}, {}, {}], CHAIN, nInputs=3), "3 inputs, and a table of 2"),
        (graph([{}, {}, {}], [(0, 1, 2), (1, 2, 1)]), "a node comes before one that feeds it"),
        (graph([{}, {}, {}], [*CHAIN, (0, 2, 1)]), "two nodes feed one input"),
        (graph([{}, {"selectindex": 3}, {}], CHAIN), "selects entry 3 of a table of 2"),
        (graph([{}, {"module": times(1)}, {}], CHAIN, modules=[]), "its module 0 does not exist"),
    ],
    ids=["inputs", "order", "sources", "selectindex", "modules"],
)
def test_a_graph_without_sense_is_refused(tmp_path: Path, module: Module, message: str) -> None:
    """Graphs that nngraph could not evaluate are refused."""
    with pytest.raises(UnsupportedLayer, match=message):
        ran(tmp_path, module, *PAIR)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (graph([{}, {}, {}], CHAIN, innode=1), "expected nodes with data"),
        (graph([{}, {}, {}], [(0, 1, 0.5), (1, 2, 1)]), "nodes that say where an input goes"),
        (graph([{}, {"selectindex": "x"}, {}], CHAIN), "nodes that select a number"),
        (graph([{}, {}, {}], CHAIN, innode=Module("nngraph.Node", data={})), "with children"),
    ],
    ids=["innode", "place", "selectindex", "children"],
)
def test_a_broken_graph_is_named(tmp_path: Path, module: Module, message: str) -> None:
    """Nodes without what nngraph stores in them are named."""
    with pytest.raises(FormatError, match=message):
        ran(tmp_path, module, *PAIR)


@pytest.mark.parametrize("levels", [99, 100])
def test_a_hundred_modules_may_nest(levels: int) -> None:
    """As many as are allowed do run, from wherever they are called; one more is refused."""
    module = TorchObject("nn.Identity", 1)
    for _ in range(levels):
        container = TorchObject("nn.Sequential", 1)
        container.fields["modules"] = LuaTable({1.0: module})
        module = container
    if levels == 99:
        assert run(module, [X], "made.t7")[-1].outputs[0].tolist() == X.tolist()
        return
    with pytest.raises(UnsupportedLayer, match="modules nest more than 100 deep"):
        run(module, [X], "made.t7")


def test_a_class_has_one_definition() -> None:
    """Registering a class again is a mistake of ours, found when the package is imported."""
    with pytest.raises(ValueError, match="nn.Tanh has two definitions"):
        on_tensor("nn.Tanh")(lambda layer, x: x)


def test_the_oracle_shares_nothing_but_the_reader() -> None:
    """Its modules import the standard library, numpy, the reader's objects and our errors."""
    allowed = {*sys.stdlib_module_names, "numpy"}
    ours = ("converters.t7.objects", "converters.t7_oracle", "models.errors")
    files = sorted((ROOT / "converters" / "t7_oracle").glob("*.py"))
    assert len(files) > 8
    for path in files:
        for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in found.names] if isinstance(found, ast.Import) else []
            if isinstance(found, ast.ImportFrom):
                names = [str(found.module)]
            for name in names:
                assert name.startswith(ours) or name.partition(".")[0] in allowed, (path.name, name)


# fmt: off
SEEDS = ("layers/lppool", "layers/max_unpool", "layers/map_table", "layers/nngraph_split",
         "layers/weight_norm", "layers/mixture", "layers/bottle", "layers/depth_concat",
         "models/nin_grouped_cifar", "eras/torch2015_batchnorm", "layers/upsample_bilinear_size",
         "layers/full_conv", "layers/reflectpad", "layers/adaptive_maxpool", "layers/prelu_channel",
         "layers/narrow", "layers/transpose", "layers/padding_index", "layers/cmul", "layers/lrn")
# fmt: on
WRONG = (None, True, "wide", -1.0, 0.0, 0.5, 3.0, 1e9, float("nan"), float("inf"), LuaTable())


@pytest.mark.parametrize("name", SEEDS)
def test_any_wrong_field_gives_a_result_or_an_error_of_ours(name: str) -> None:
    """Whatever stands in a field, the run ends with a result or one of our errors."""
    expected = np.load(golden(f"torch7/{name}.npz"))
    inputs = [expected[key] for key in sorted(expected.files) if key.startswith("input")]
    root = reader.read(golden(f"torch7/{name}.t7"))
    modules = [one for one in walk(root) if isinstance(one, TorchObject)]
    tried = 0
    for module in modules[:: max(1, len(modules) // 6)]:
        for field in list(module.fields):
            if field in ("output", "gradInput", "_type", "gradWeight", "gradBias", "train"):
                continue
            kept = module.fields[field]
            for value in WRONG:
                module.fields[field] = value
                with contextlib.suppress(FormatError, UnsupportedLayer):
                    run(root, inputs, name)
                tried += 1
            module.fields[field] = kept
    assert tried >= len(WRONG)
    assert run(root, inputs, name)[-1].path == ""
