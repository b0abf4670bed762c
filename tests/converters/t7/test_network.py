"""Torch7's memory, its nesting, and the account of a file's tensors."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.t7 import T7Source
from converters.t7.module import MAX_DEPTH
from models.build import build
from models.errors import FormatError, UnsupportedLayer, WeightMismatch
from models.ops import infer
from models.verify import run
from tests.t7_writer import Module, Shared, Sizes, View, write

X = np.array([[-1.0, 2.0, -3.0]], "f4")


def sequential(*modules: Module) -> Module:
    return Module("nn.Sequential", modules=list(modules))


def table(*modules: Module) -> Module:
    return Module("nn.ConcatTable", modules=list(modules))


def linear(weight: Any, **fields: Any) -> Module:
    return Module("nn.Linear", weight=weight, **fields)


def source(tmp_path: Path, module: Module) -> T7Source:
    return T7Source(write(tmp_path / "made.t7", module))


def outputs(tmp_path: Path, module: Module, x: Any = X) -> list[Any]:
    network = source(tmp_path, module).lower([x.shape], infer).network
    return [one.tolist() for one in run(build(network), [x])]


IN_PLACE = Module("nn.ReLU", inplace=True, threshold=0, val=0)
IDENTITY = Module("nn.Identity")


def test_writing_in_one_branch_shows_in_the_other(tmp_path: Path) -> None:
    """A branch that returns the input itself returns what a later branch made of it."""
    assert outputs(tmp_path, table(IDENTITY, IN_PLACE)) == [[[0, 2, 0]], [[0, 2, 0]]]


def test_a_branch_that_copied_first_keeps_its_copy(tmp_path: Path) -> None:
    """Only who holds the tensor sees a later write."""
    double = Module("nn.MulConstant", constant_scalar=2)
    assert outputs(tmp_path, table(double, IN_PLACE)) == [[[-2, 4, -6]], [[0, 2, 0]]]


def test_writing_through_a_view_shows_in_the_viewed(tmp_path: Path) -> None:
    """View shares its input's memory, so a write to the view is a write to the input."""
    viewed = sequential(Module("nn.View", size=Sizes(3, 1)), IN_PLACE)
    assert outputs(tmp_path, table(IDENTITY, viewed)) == [[[0, 2, 0]], [[0], [2], [0]]]


def test_an_in_place_sum_meets_itself(tmp_path: Path) -> None:
    """A sum written into its first operand adds the sum so far where that operand comes again."""
    network = sequential(table(IDENTITY, Module("nn.MulConstant", constant_scalar=1), IDENTITY))
    network.fields["modules"].append(Module("nn.CAddTable", inplace=True))
    assert outputs(tmp_path, network) == [[[-4, 8, -12]]]  # (x + x) + (x + x)


def test_a_layer_used_twice_is_one_set_of_weights(tmp_path: Path) -> None:
    """One module object in two places gives tied tensors, counted once."""
    layer = linear(np.eye(3, dtype="f4"), bias=np.ones(3, "f4"))
    network = source(tmp_path, sequential(layer, layer)).lower([X.shape], infer).network
    assert network.graph.ties == (("1.weight", "0.weight"), ("1.bias", "0.bias"))
    assert network.parameters == 12
    built = build(network)
    assert built.get_submodule("0").weight is built.get_submodule("1").weight


def test_two_views_of_the_same_numbers_are_tied(tmp_path: Path) -> None:
    """Sharing is told by memory, not by object: `share` makes two tensors of one storage."""
    storage = Shared(np.arange(18, dtype="f4"))
    views = [View(storage, (3, 3), (3, 1), offset) for offset in (0, 0, 9)]
    network = source(tmp_path, sequential(*map(linear, views))).lower([X.shape], infer).network
    assert network.graph.ties == (("1.weight", "0.weight"),)
    assert network.parameters == 18


def test_unknown_classes_are_listed_at_once(tmp_path: Path) -> None:
    """All layers without a rule are in one error, with their paths, also where nothing ran."""
    network = sequential(Module("nn.Mystery"), table(IDENTITY, sequential(Module("my.Other"))))
    message = r"2 layers cannot be converted exactly: 0: nn\.Mystery; 1\.1\.0: my\.Other"
    with pytest.raises(UnsupportedLayer, match=message):
        source(tmp_path, network).check(infer)
    with pytest.raises(UnsupportedLayer, match=message):
        source(tmp_path, network).lower([X.shape], infer)


def test_a_tensor_that_no_rule_used_is_an_error(tmp_path: Path) -> None:
    """Weights are never dropped in silence; gradients and buffers are."""
    module = linear(np.eye(3, dtype="f4"), gradWeight=np.ones((3, 3), "f4"), extra=np.ones(2, "f4"))
    with pytest.raises(
        WeightMismatch, match=r"made\.t7: tensors do not match: unexpected: 0\.extra"
    ):
        source(tmp_path, sequential(module)).lower([X.shape], infer)


def test_misshapen_tensors_are_listed_at_once(tmp_path: Path) -> None:
    """Every tensor that does not fit its layer is in one error."""
    first = linear(np.eye(3, dtype="f4"), bias=np.ones(2, "f4"))
    second = linear(np.eye(3, dtype="f4"), bias=np.ones(5, "f4"))
    message = r"0\.bias is \(2,\), expected \(3,\), 1\.bias is \(5,\), expected \(3,\)"
    with pytest.raises(WeightMismatch, match=message):
        source(tmp_path, sequential(first, second)).lower([X.shape], infer)


def test_half_and_double_weights_become_float32(tmp_path: Path) -> None:
    """Weights of other precisions are widened or rounded to the float32 that networks run in."""
    network = (
        source(tmp_path, sequential(linear(np.eye(3, dtype="f2")), linear(np.eye(3, dtype="f8"))))
        .lower([X.shape], infer)
        .network
    )
    assert {array.dtype.name for array in network.tensors.values()} == {"float32"}


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({1: IDENTITY, 3: IDENTITY}, "found modules = '2 entries', expected 1 to 2 without a gap"),
        ([1.0], r"found modules\[1\] = 1.0, expected a module"),
        ("none", "found modules = 'none', expected a table of modules"),
    ],
)
def test_broken_containers_are_named(tmp_path: Path, modules: Any, message: str) -> None:
    """A hole in a container, or what is no module, is an error and not a shorter network."""
    with pytest.raises(FormatError, match=message):
        source(tmp_path, Module("nn.Sequential", modules=modules)).lower([X.shape], infer)


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    """A module that contains itself ends in one line."""
    network = Module("nn.Sequential", modules=[])
    network.fields["modules"].append(network)
    with pytest.raises(UnsupportedLayer, match=f"modules nested more than {MAX_DEPTH} deep"):
        source(tmp_path, network).lower([X.shape], infer)


def test_exponential_sharing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few modules can be reached on more paths than any network has operations."""
    monkeypatch.setattr("converters.lowering.MAX_NODES", 500)
    network = Module("nn.MulConstant", constant_scalar=1)
    for _ in range(60):
        network = sequential(network, network)
    with pytest.raises(UnsupportedLayer, match="unfolds into more than 500 operations"):
        source(tmp_path, network).lower([X.shape], infer)


OTHER = Module("nn.Tanh")


@pytest.mark.parametrize(
    "value",
    [
        {"model": OTHER, "epoch": 3.0, "opt": {"nested": IDENTITY}},
        {"model": OTHER, "best": OTHER},
        [1.0, OTHER],
        {"net": Module("my.Net", modules=[OTHER]), "criterion": Module("nn.ClassNLLCriterion")},
    ],
    ids=["beside its epoch", "twice", "in a list", "of a class of its own"],
)
def test_the_one_module_of_a_table_is_taken(tmp_path: Path, value: Any) -> None:
    """A script that saves a table beside the model has one module in it."""
    found = T7Source(write(tmp_path / "made.t7", value)).root
    assert found.class_name in ("nn.Tanh", "my.Net")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"options": 1.0, "epoch": 3.0, 7: 1.0},
            r"found a table with the keys options, epoch, \[7\], expected a module, such as",
        ),
        ({"opt": {"nested": IDENTITY}}, "found a table with the keys opt, expected a module"),
        (
            {"encoder": IDENTITY, "epoch": 3.0, "decoder": OTHER, 2: Module("nn.Abs")},
            r"found a table with 3 modules, encoder, decoder, \[2\], expected a module",
        ),
        ({}, "found an empty table, expected a module"),
        (2.0, "found a number, expected a module"),
        (IDENTITY.class_name, "found a string, expected a module"),
    ],
)
def test_a_file_without_a_module_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    """What is not a module is named as what it is, several by their keys."""
    with pytest.raises(FormatError, match=message):
        T7Source(write(tmp_path / "made.t7", value))


def test_a_network_that_gives_nothing_is_refused(tmp_path: Path) -> None:
    """An empty table is no output."""
    with pytest.raises(
        UnsupportedLayer, match=r"the network itself: nn\.ConcatTable: gives an empty"
    ):
        source(tmp_path, table()).lower([X.shape], infer)


def test_unpooling_knows_where_the_maximum_was(tmp_path: Path) -> None:
    """What is written into the pooled tensor afterwards does not move the maxima."""
    window = {"kW": 2, "kH": 1, "dW": 2, "dH": 1, "padW": 0, "padH": 0}
    first, second = (Module("nn.SpatialMaxPooling", **window) for _ in range(2))
    negate = Module("nn.MulConstant", constant_scalar=-1, inplace=True)
    unpooling = Module("nn.SpatialMaxUnpooling", pooling=first)
    x = np.array([[[[1.0, 5.0]]]], "f4")
    found = outputs(tmp_path, table(first, negate, sequential(second, unpooling)), x)
    assert [np.ravel(one).tolist() for one in found] == [[5], [-1, -5], [0, -1]]


def test_half_weights_stay_tied(tmp_path: Path) -> None:
    """Sharing is found before numbers are widened."""
    layer = linear(np.eye(3, dtype="f2"))
    network = source(tmp_path, sequential(layer, layer)).lower([X.shape], infer).network
    assert network.graph.ties == (("1.weight", "0.weight"),)


def test_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    """A network of integers is not what Torch7 could run."""
    with pytest.raises(
        FormatError, match=r"found weight = <torch\.LongTensor 3x3>, expected a tensor"
    ):
        source(tmp_path, linear(np.eye(3, dtype="i8"))).lower([X.shape], infer)


def test_a_small_file_cannot_ask_for_a_huge_tensor(tmp_path: Path) -> None:
    """Padding by two thousand million is refused before anything is allocated."""
    with pytest.raises(
        UnsupportedLayer, match=r"Pad would give 1x2147483003, 268,435,456 numbers at"
    ):
        source(tmp_path, Module("nn.Padding", dim=2, pad=2147483000)).lower([X.shape], infer)


def test_an_input_may_be_the_output(tmp_path: Path) -> None:
    """A network that does nothing still has a node to give out."""
    assert outputs(tmp_path, IDENTITY) == [X.tolist()]


def test_a_module_that_runs_twice_has_one_output(tmp_path: Path) -> None:
    """Both calls return the same tensor object, so the first result becomes the second."""
    layer = linear(np.eye(3, dtype="f4"))
    ten = Module("nn.MulConstant", constant_scalar=10)
    network = sequential(table(layer, sequential(ten, layer)), Module("nn.CAddTable"))
    assert outputs(tmp_path, network) == [[[-20, 40, -60]]]  # 10 x + 10 x, not x + 10 x


def test_a_shared_in_place_layer_points_to_its_last_input(tmp_path: Path) -> None:
    """`output:set(input)` moves the one output of a module, for who kept it as well."""
    relu = Module("nn.ReLU", inplace=True, threshold=0, val=0)
    one, five = (Module("nn.MulConstant", constant_scalar=factor) for factor in (1, 5))
    network = table(sequential(one, relu), sequential(five, relu))
    assert outputs(tmp_path, network) == [[[0, 10, 0]], [[0, 10, 0]]]


def test_numbers_of_other_precision_are_not_tied_by_their_address(tmp_path: Path) -> None:
    """A weight that a rule made anew is not taken for one that had its address before."""
    fields = {"nInputPlane": 1, "nOutputPlane": 2, "kW": 1, "kH": 1, "dW": 1, "dH": 1}
    layers = [
        Module("nn.SpatialDepthWiseConvolution", weight=np.full((2, planes), value, "f8"), **fields)
        for value, planes in ((1.0, 1), (2.0, 2), (3.0, 4), (4.0, 8))
    ]
    for layer, planes in zip(layers, (1, 2, 4, 8), strict=True):
        layer.fields["nInputPlane"] = planes
    network = source(tmp_path, sequential(*layers)).lower([(1, 1, 1, 1)], infer).network
    assert network.graph.ties == ()
    assert sorted(float(array.max()) for array in network.tensors.values()) == [1, 2, 3, 4]


def test_a_lua_function_in_place_of_a_method_is_refused(tmp_path: Path) -> None:
    """An object may override what its class does, and that is not ours to guess."""
    path = write(tmp_path / "made.t7", Module("nn.Identity", updateOutput="FUNCTION"))
    function = struct.pack("<iii", 8, 99, 4) + b"code" + struct.pack("<i", 0)
    path.write_bytes(path.read_bytes().replace(struct.pack("<ii", 2, 8) + b"FUNCTION", function))
    with pytest.raises(UnsupportedLayer, match=r"nn\.Identity with a Lua function of its own"):
        T7Source(path).lower([X.shape], infer)


def test_exponential_tables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few calls can give a table of tables that has more entries than any network needs."""
    monkeypatch.setattr("converters.t7.network.MAX_ENTRIES", 500)
    network = sequential(*(table(IDENTITY, IDENTITY) for _ in range(20)))
    with pytest.raises(UnsupportedLayer, match="gives a table of more than 500 entries"):
        source(tmp_path, network).lower([X.shape], infer)


def test_a_view_of_an_output_shows_the_next_call(tmp_path: Path) -> None:
    """Who looks at what a module gave sees what it gives when it runs again."""
    double = Module("nn.MulConstant", constant_scalar=2)
    viewed = sequential(double, Module("nn.View", size=Sizes(3, 1)))
    again = sequential(Module("nn.MulConstant", constant_scalar=10), double)
    assert outputs(tmp_path, table(viewed, again))[0] == [[-20], [40], [-60]]


def test_an_output_of_another_shape_is_not_followed(tmp_path: Path) -> None:
    """What looks at a module's output cannot be told when that is laid out anew."""
    double = Module("nn.MulConstant", constant_scalar=2)
    viewed = sequential(double, Module("nn.View", size=Sizes(3)))
    again = sequential(Module("nn.View", size=Sizes(3, 1)), double)
    with pytest.raises(UnsupportedLayer, match="0.0: is still read after the module ran again and"):
        source(tmp_path, table(viewed, again)).lower([X.shape], infer)


def test_what_has_no_gaps_is_told_by_strides(tmp_path: Path) -> None:
    """One row of what has gaps has none: nn.Contiguous then hands on the very memory."""
    entry = [Module("nn.SplitTable", dimension=2), Module("nn.SelectTable", index=1)]
    row = [Module("nn.SplitTable", dimension=1), Module("nn.SelectTable", index=2)]
    x = np.arange(1, 13, dtype="f4").reshape(2, 3, 2)
    ten = Module("nn.MulConstant", constant_scalar=10, inplace=True)
    seen = sequential(*entry, *row, Module("nn.Contiguous"), ten)
    kept, changed = outputs(tmp_path, table(IDENTITY, seen), x)
    assert changed == [70, 80]
    assert kept == [[[1, 2], [3, 4], [5, 6]], [[70, 80], [9, 10], [11, 12]]]


def test_a_copy_over_what_was_passed_on_is_refused(tmp_path: Path) -> None:
    """nn.Contiguous hands its input on, and the next time copies into that very tensor."""
    contiguous = Module("nn.Contiguous")
    gaps = [Module("nn.SplitTable", dimension=2), Module("nn.SelectTable", index=1)]
    double = Module("nn.MulConstant", constant_scalar=2)
    network = table(sequential(double, contiguous), sequential(*gaps, contiguous))
    with pytest.raises(UnsupportedLayer, match="writes into what it passed on when it ran before"):
        source(tmp_path, network).lower([(2, 3)], infer)


def test_exponential_containers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers that add no operation are counted as well."""
    monkeypatch.setattr("converters.t7.network.MAX_CALLS", 500)
    network = IDENTITY
    for _ in range(60):
        network = sequential(network, network)
    with pytest.raises(UnsupportedLayer, match="modules run more than 500 times"):
        source(tmp_path, network).lower([X.shape], infer)
