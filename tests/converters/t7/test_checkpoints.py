"""What training scripts left converts: the model, and the state of its optimizer."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.cli import convert
from converters.t7 import T7Source
from converters.t7.checkpoints import Located, locate
from models.checkpoint import load
from models.errors import FormatError, SpecError
from models.graph import Array, is_statistic
from models.ops import infer
from models.optimizer import load_optimizer
from tests.oracles import golden
from tests.t7_writer import Module, Shared, View, write
from tests.torch7 import box, nn, read_arrays

NAMES = ["checkpoint_cuda", "checkpoint_float"]


def copied(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    for file in golden(f"torch7/checkpoints/{name}").glob("*.t7"):
        shutil.copyfile(file, folder / file.name)
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", ["", "latest.t7", "model_2.t7"])
def test_all_ways_lead_to_the_model(name: str, at: str) -> None:
    """The folder, latest.t7 and the model itself name the model, its state and its epoch."""
    folder = golden(f"torch7/checkpoints/{name}")
    assert locate(folder / at) == Located(folder / "model_2.t7", folder / "optimState_2.t7", 2)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_momentum_come_in_module_order(name: str) -> None:
    """One after the other they are the vectors that getParameters and optim.sgd had."""
    expected = read_arrays(golden(f"torch7/checkpoints/{name}/expected.npz"))
    found = locate(golden(f"torch7/checkpoints/{name}"))
    source = T7Source(found.model)
    assert found.optimizer is not None
    state = source.sgd(found.optimizer)
    for vector, numbers in (("parameters", None), ("momentum_buffer", state.buffers)):
        tensors = source.lower([expected["input"].shape], infer, numbers).network.tensors
        learned = [array.ravel() for key, array in tensors.items() if not is_statistic(key)]
        np.testing.assert_array_equal(np.concatenate(learned), expected[vector])
    assert (state.momentum, state.dampening, state.nesterov) == (
        np.float64(0.9),
        np.float64(0),
        True,
    )


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_where_it_ended(tmp_path: Path, name: str) -> None:
    """The artifact's optimizer makes the update that optim.sgd would have made next."""
    folder = copied(tmp_path, name)
    shape = ["--input", "none", "--input-shape", "4,3,32,32"]
    assert convert([str(folder / "latest.t7"), "--optimizer", "--no-onnx", *shape]) == 0
    written = load_optimizer(folder / "model_2.optimizer.pt")
    module = load(folder / "model_2.pt").module
    optimizer = torch.optim.SGD(module.parameters(), lr=1)
    optimizer.load_state_dict(written.state_dict(module))
    before = {key: one.detach().numpy().copy() for key, one in module.named_parameters()}
    generator = np.random.default_rng(0)
    slopes = {key: generator.standard_normal(one.shape, "f4") for key, one in before.items()}
    for key, one in module.named_parameters():
        one.grad = torch.from_numpy(slopes[key])
    optimizer.step()
    assert written.epoch == 2
    for key, one in module.named_parameters():
        theirs = updated(before[key], slopes[key], written.buffers[key], written._asdict())
        bound = 4 * np.finfo("f4").eps * np.abs(theirs).max()  # four roundings to float32
        np.testing.assert_allclose(one.detach().numpy(), theirs, rtol=0, atol=bound)


def updated(x: Array, slope: Array, velocity: Array, settings: dict[str, Any]) -> Array:
    """Return the parameters after one call of optim.sgd, in float64 (torch/optim sgd.lua)."""
    slope = slope.astype("f8") + settings["weight_decay"] * x
    velocity = settings["momentum"] * velocity.astype("f8") + (1 - settings["dampening"]) * slope
    step = slope + settings["momentum"] * velocity if settings["nesterov"] else velocity
    return x - settings["learning_rate"] * step


def test_an_artifact_without_asking_has_no_optimizer(tmp_path: Path) -> None:
    """The state is written on request only."""
    folder = copied(tmp_path, NAMES[0])
    assert convert([str(folder), "--no-onnx", "--input", "none", "--input-shape", "1,3,32,32"]) == 0
    assert sorted(one.name for one in folder.iterdir() if one.suffix == ".pt") == ["model_2.pt"]


# --- where a model is ---

IDENTITY = nn("Identity")


def files(folder: Path, **content: Any) -> Path:
    for name, value in content.items():
        write(folder / f"{name}.t7", value)
    return folder


def test_a_file_is_its_own_model(tmp_path: Path) -> None:
    """A file of another name has no epoch and no state; a numbered one has those beside it."""
    files(tmp_path, mine=IDENTITY, model_7=IDENTITY, optimState_8={})
    assert locate(tmp_path / "mine.t7") == Located(tmp_path / "mine.t7")
    assert locate(tmp_path / "model_7.t7") == Located(tmp_path / "model_7.t7", None, 7)
    for name in ("packed.t7.xz", "nothing.t7"):  # not opened here: whoever reads it says why
        assert locate(tmp_path / name) == Located(tmp_path / name)


def test_a_folder_with_one_model_needs_no_latest(tmp_path: Path) -> None:
    """Optimizers' states are no models."""
    files(tmp_path, model_3=IDENTITY, optimState_3={}, optimState_4={})
    state = tmp_path / "optimState_3.t7"
    assert locate(tmp_path) == Located(tmp_path / "model_3.t7", state, 3)


def test_latest_names_files_beside_it(tmp_path: Path) -> None:
    """A folder that moved still works: only names count, and what is not named is not there."""
    files(tmp_path, model_3=IDENTITY, other=IDENTITY, latest={"modelFile": "/data/out/model_3.t7"})
    assert locate(tmp_path) == Located(tmp_path / "model_3.t7")
    files(tmp_path, latest={"modelFile": "model_3.t7", "epoch": 3.5})
    assert locate(tmp_path) == Located(tmp_path / "model_3.t7")
    files(tmp_path, latest=IDENTITY)
    assert locate(tmp_path) == Located(tmp_path / "latest.t7")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "a folder with no .t7 or .params file; expected latest.t7, or one model alone"),
        ({"optimState_3": {}}, "a folder with no .t7 or .params file; expected latest.t7"),
        ({"model_1": IDENTITY, "model_2": IDENTITY}, "a folder with model_1.t7, model_2.t7; exp"),
    ],
)
def test_a_folder_that_does_not_say_is_refused(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    """Without latest.t7 there has to be exactly one model."""
    with pytest.raises(SpecError, match=message):
        locate(files(tmp_path, **content))


@pytest.mark.parametrize(
    ("latest", "message"),
    [
        ({"modelFile": "model_9.t7"}, "found the name 'model_9.t7', expected a file beside it"),
        ({"modelFile": "../../etc/passwd"}, "found the name '../../etc/passwd', expected a file"),
        ({"modelFile": "latest.t7"}, "found the name 'latest.t7', expected a file beside it"),
        ({"modelFile": ""}, "found the name '', expected a file beside it"),
        ({"modelFile": "/"}, "found the name '/', expected a file beside it"),
        ({"modelFile": "a\0b"}, "expected a file beside it"),
        ({"modelFile": ".."}, "found the name '..', expected a file beside it"),
        ({"modelFile": "x" * 5000}, "expected a file beside it"),
    ],
)
def test_latest_that_names_nothing_is_refused(
    tmp_path: Path, latest: dict[str, Any], message: str
) -> None:
    """A name of no file beside latest.t7, and latest.t7 itself."""
    with pytest.raises(FormatError, match=message):
        locate(files(tmp_path, latest=latest, model_3=IDENTITY))


@pytest.mark.parametrize("name", ["gone.t7", "latest.t7", "", "a\0b", "x" * 5000, 3, []])
def test_a_model_needs_no_optimizer(tmp_path: Path, name: Any) -> None:
    """Whatever latest.t7 says of a state that is not there, the model is found."""
    latest = {"modelFile": "model_3.t7", "optimFile": name, "epoch": 3}
    files(tmp_path, model_3=IDENTITY, latest=latest)
    assert locate(tmp_path) == Located(tmp_path / "model_3.t7", None, 3)


@pytest.mark.parametrize("source", ["mine.t7", "latest.t7"])
def test_an_optimizer_that_is_not_there_is_refused(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--optimizer needs the state beside the model."""
    files(tmp_path, mine=IDENTITY, latest={"modelFile": "mine.t7", "optimFile": "gone.t7"})
    assert convert([str(tmp_path / source), "--optimizer"]) == 1
    assert "--optimizer: " in (said := capsys.readouterr().err)
    assert "mine.t7 has no optimState beside it" in said


def test_only_latest_is_opened_to_find_a_model(tmp_path: Path) -> None:
    """A file of any other name is not read twice, whatever is in it."""
    pointer = {"modelFile": "model_3.t7"}
    files(tmp_path, model_3=IDENTITY, mine=pointer)
    assert locate(tmp_path / "mine.t7") == Located(tmp_path / "mine.t7")
    (tmp_path / "mine.t7").write_bytes(b"damaged")
    assert locate(tmp_path / "mine.t7") == Located(tmp_path / "mine.t7")
    (tmp_path / "latest.t7").write_bytes(b"damaged")
    with pytest.raises(FormatError, match="latest.t7: byte 0: found "):
        locate(tmp_path)


# --- the optimizer's state ---


def linear(weight: Any, bias: Any = None) -> Module:
    return nn("Linear", weight=weight, bias=np.zeros(0, "f4") if bias is None else bias)


def sgd(tmp_path: Path, network: Module, state: Any) -> Any:
    source = T7Source(write(tmp_path / "model_1.t7", network))
    return source, source.sgd(write(tmp_path / "optimState_1.t7", state))


def vector(count: int, kind: str = "f4") -> Array:
    return np.arange(1, count + 1).astype(kind)


def test_missing_settings_are_those_of_optim_sgd(tmp_path: Path) -> None:
    """Rate 0.001, no decay; dampening is the momentum unless said otherwise."""
    network = linear(np.eye(3, dtype="f4"))
    _, state = sgd(tmp_path, network, {"dfdx": vector(9), "momentum": 0.5})
    assert state[:-1] == (1e-3, 0.5, 0.5, 0.0, False, 0)
    _, state = sgd(tmp_path, network, {"dfdx": vector(9)})
    assert state[:-1] == (1e-3, 0.0, 0.0, 0.0, False, 0)


def test_the_rate_is_that_of_the_next_update(tmp_path: Path) -> None:
    """It decays with the number of updates."""
    given = {"learningRate": 0.3, "learningRateDecay": 0.5, "evalCounter": 4, "weightDecay": 0.1}
    _, state = sgd(tmp_path, linear(np.eye(3, dtype="f4")), {"dfdx": vector(9), **given})
    assert state[:-1] == (0.3 / 3, 0.0, 0.0, 0.1, False, 4)


def test_double_and_flat_and_shaped_vectors(tmp_path: Path) -> None:
    """The momentum has the type that training had."""
    source, state = sgd(tmp_path, linear(np.eye(3)), {"dfdx": vector(9, "f8")})
    network = source.lower([(2, 3)], infer, state.buffers).network
    np.testing.assert_array_equal(network.tensors["layer.weight"], vector(9).reshape(3, 3))


SETTINGS = "expected a number of 0 or more"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (3.0, "found a number, expected the state of optim.sgd: a table with dfdx"),
        ({"learningRate": 0.1}, "found a table, expected the state of optim.sgd: a table with df"),
        ({"dfdx": 3.0}, "found a table, expected the state of optim.sgd: a table with dfdx"),
        ({"dfdx": vector(9, "i8")}, "found dfdx of int64, expected floats"),
        ({"dfdx": vector(8)}, "dfdx: found 8 numbers, expected 9: as many as the network has"),
        ({"dfdx": vector(10)}, "dfdx: found 10 numbers, expected 9: as many as the network has"),
        ({"dfdx": vector(9), "learningRate": "slow"}, f"learningRate: found a string, {SETTINGS}"),
        ({"dfdx": vector(9), "learningRate": -1}, f"learningRate: found -1, {SETTINGS}"),
        ({"dfdx": vector(9), "momentum": float("nan")}, f"momentum: found nan, {SETTINGS}"),
        ({"dfdx": vector(9), "weightDecay": float("inf")}, f"weightDecay: found inf, {SETTINGS}"),
        ({"dfdx": vector(9), "evalCounter": True}, f"evalCounter: found a boolean, {SETTINGS}"),
        ({"dfdx": vector(9), "learningRateDecay": []}, f"Decay: found a table, {SETTINGS}"),
        ({"dfdx": vector(9), "learningRates": vector(9)}, "found one for each parameter, expected"),
        ({"dfdx": vector(9), "weightDecays": vector(9)}, "weightDecays: found one for each param"),
        ({"dfdx": vector(9), "nesterov": True, "momentum": 0.9},
         "nesterov: found momentum 0.9 and dampening 0.9, expected momentum, and no dampening"),
        ({"dfdx": vector(9), "nesterov": True, "dampening": 0},
         "nesterov: found momentum 0 and dampening 0, expected momentum, and no dampening"),
    ],
)  # fmt: skip
def test_a_state_that_is_not_the_networks_is_refused(
    tmp_path: Path, state: Any, message: str
) -> None:
    """Another kind of file, another network, or settings that optim.sgd does not take."""
    with pytest.raises(FormatError, match=message):
        sgd(tmp_path, linear(np.eye(3, dtype="f4")), state)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (box("WeightNorm", linear(np.eye(3, dtype="f4")), v=np.eye(3, dtype="f4"), g=vector(3)),
         "found the momentum of nn.WeightNorm, expected that of weights and biases"),
        (Module("inn.ConstAffine", a=vector(3), b=vector(3)), "the momentum of inn.ConstAffine"),
    ],
)  # fmt: skip
def test_momentum_of_other_parameters_is_refused(
    tmp_path: Path, network: Module, message: str
) -> None:
    """What is learned there is not what the converted network has."""
    with pytest.raises(FormatError, match=message):
        sgd(tmp_path, network, {"dfdx": vector(9)})


def test_a_parameter_outside_its_storage_is_refused(tmp_path: Path) -> None:
    """A damaged tensor of the model is found before anything is laid out by it."""
    network = linear(View(Shared(vector(4)), (3, 3), (3, 1)))
    with pytest.raises(FormatError, match="found a tensor that reaches element 9, expected at m"):
        sgd(tmp_path, network, {"dfdx": vector(9)})


# --- how getParameters lays storages ---


def flattened(views: list[View]) -> tuple[int, list[Array]]:
    """Return how long the flat vector is, and where in it every parameter's numbers are.

    Restated from Module.flatten of nn/Module.lua, by offsets and their cumulative sums.
    """
    starts: dict[int, int] = {}
    total = 0
    for view in views:
        assert view.storage is not None
        if id(view.storage) not in starts:
            starts[id(view.storage)] = total
            total += view.storage.numbers.size
    mask = np.zeros(total, int)
    places = []
    for view in views:
        index = np.indices(view.shape).reshape(len(view.shape), -1)
        place = starts[id(view.storage)] + view.offset + np.dot(view.strides, index)
        mask[place] = 1
        places.append(place.reshape(view.shape))
    compact = np.cumsum(mask) - 1
    return int(mask.sum()), [compact[place] for place in places]


ONE, OTHER = Shared(np.zeros(30, "f4")), Shared(np.zeros(20, "f4"))
SQUARE = View(ONE, (3, 3), (3, 1), 4)
LAYOUTS = {
    "holes": [SQUARE, View(ONE, (3, 3), (3, 1), 16)],
    "backwards": [View(ONE, (3, 3), (3, 1), 16), View(ONE, (3, 3), (3, 1), 0)],
    "one-tensor-twice": [SQUARE, SQUARE],
    "same-numbers": [SQUARE, View(ONE, (3, 3), (3, 1), 4)],
    "same-numbers-turned": [SQUARE, View(ONE, (3, 3), (1, 3), 4)],
    "interleaved-storages": [
        View(ONE, (3, 3), (3, 1), 12),
        View(OTHER, (3, 3), (3, 1), 5),
        View(ONE, (3, 3), (3, 1), 2),
    ],
    "turned": [View(ONE, (3, 3), (1, 3), 2), View(OTHER, (3, 3), (1, 3), 11)],
}


@pytest.mark.parametrize("views", LAYOUTS.values(), ids=LAYOUTS)
def test_momentum_is_laid_out_as_getparameters_does(tmp_path: Path, views: list[View]) -> None:
    """Storages in order of first encounter, without what no parameter covers."""
    count, places = flattened(views)
    network = box("Sequential", *(linear(view) for view in views))
    _, state = sgd(tmp_path, network, {"dfdx": vector(count)})
    source = T7Source(tmp_path / "model_1.t7")
    state = source.sgd(tmp_path / "optimState_1.t7")
    found = source.lower([(2, 3)], infer, state.buffers).network
    owners = dict(found.graph.ties)
    for index, place in enumerate(places):
        name = f"{index}.weight"
        ours = found.tensors[owners.get(name, name)]
        np.testing.assert_array_equal(ours, vector(count)[place])
