"""How the oracle walks a module tree and shares memory, and that it stands by itself."""

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
from converters.t7_oracle.interpreter import on_tensor
from models.errors import FormatError, UnsupportedLayer
from tests.converters.t7_oracle.modules import X, box, ran, times
from tests.oracles import ROOT, golden
from tests.t7_writer import Module, Sizes


def outputs(tmp_path: Path, module: Module, *inputs: Any) -> list[Any]:
    return [one.tolist() for one in ran(tmp_path, module, *inputs)[-1].outputs]


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


def test_contiguous_does_not_write_where_it_reads(tmp_path: Path) -> None:
    """The output that was the input before lets go of its memory before it takes a copy."""
    module = Module("nn.Contiguous")
    repeated = box("Sequential", Module("nn.Replicate", nfeatures=2), module)
    calls = ran(tmp_path, box("ConcatTable", Module("nn.Identity"), module, repeated))
    assert [one.tolist() for one in calls[-1].outputs] == [X.tolist(), *[[X.tolist()] * 2] * 2]


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
