"""Updates are those of the original programs: real MXNet's trace, and Torch7's formula."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from converters.t7 import T7Source
from converters.t7.checkpoints import locate
from models.architectures.resnet_v2 import ResNetV2
from models.build import build
from models.errors import RecipeError
from models.graph import Array, is_statistic
from models.ops import infer
from models.recipes import RECIPES, changed
from models.training.schedules import Milestones
from models.training.updates import build_optimizer, prepare, take_buffers
from tests.oracles import golden
from tests.torch7 import read_arrays

# 14 updates in float32 by two programs: the fixture's own note says 2e-5
TRACE_ATOL = 2e-5
CHECKPOINTS = ("checkpoint_cuda", "checkpoint_float")


def ours(name: str) -> str:
    """Return our name of an MXNet parameter of the traced network."""
    kind = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
    layer, _, last = name.rpartition("_")
    if layer.startswith("stage"):
        stage, unit, inner = layer.split("_")
        inside = inner if inner == "bn1" else f"branch.{inner}"
        inside = "shortcut" if inner == "sc" else inside
        layer = f"stages.{int(stage[5:]) - 1}.{int(unit[4:]) - 1}.{inside}"
    else:
        layer = {"conv0": "stem.conv0", "fc1": "classifier"}.get(layer, layer)
    return f"{layer}.{kind[last]}"


def parameters(trace: dict[str, Array], prefix: str) -> dict[str, torch.Tensor]:
    return {
        ours(name.partition(":")[2]): torch.from_numpy(array)
        for name, array in trace.items()
        if name.startswith(f"{prefix}/") and "moving" not in name
    }


def test_weights_follow_mxnet() -> None:
    """Fourteen updates of real MXNet, over two falls of the rate, are followed to 2e-5."""
    facts = json.loads(golden("mxnet/training/nag-basic.json").read_text())
    trace = dict(np.load(golden("mxnet/training/nag-basic.npz")))
    recipe = replace(
        RECIPES["resnet-v2-cifar-164"],
        lr=facts["lr"],
        weight_decay=facts["wd"],
        schedule=Milestones(tuple(facts["lr_steps"]), 0.1),
    )
    network = ResNetV2(8, cifar=True, widths=tuple(facts["net"]["filter_list"]), num_classes=10)
    names = parameters(trace, "init")
    missing, unexpected = network.load_state_dict(names, strict=False)
    assert not unexpected
    assert all(is_statistic(name) or "num_batches" in name for name in missing)
    optimizer = build_optimizer(recipe, network.train())
    images, labels = (torch.from_numpy(trace[name]) for name in ("images", "labels"))
    for step in range(facts["steps"]):
        # one update an epoch: milestones of this trace are counted in updates
        prepare(optimizer, recipe, recipe.place(step + 1, recipe.batch_size))
        loss = cross_entropy(network(images[step].float()), labels[step].long())
        assert abs(loss.item() - trace["losses"][step]) <= 1e-4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if f"step{step + 1}/arg:conv0_weight" in trace:
            got = network.state_dict()
            for name, value in parameters(trace, f"step{step + 1}").items():
                if name != "bn_data.weight":  # decayed in the file, and never used
                    apart = (got[name] - value).abs().max().item()
                    assert apart <= TRACE_ATOL, (step, name)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_an_update_from_saved_momentum_is_torch7s(name: str) -> None:
    """Beginning with the buffers of a Torch7 run, the next update is optim.sgd's formula.

    Source: torch/optim sgd.lua: g + wd x; v = m v + that; x - lr (that + m v).
    """
    folder = golden(f"torch7/checkpoints/{name}")
    found = locate(folder)
    source = T7Source(found.model)
    assert found.optimizer is not None
    state = source.sgd(found.optimizer)
    shape = read_arrays(folder / "expected.npz")["input"].shape
    module = build(source.lower([shape], infer, None).network).train()
    lent = source.lower([shape], infer, state.buffers).network.tensors
    recipe = replace(
        RECIPES["fb-resnet-cifar-20"], lr=state.learning_rate, weight_decay=state.weight_decay
    )
    optimizer = build_optimizer(recipe, module)
    take_buffers(optimizer, module, lent)
    prepare(optimizer, recipe, recipe.place(2, 50_000))
    generator = torch.Generator().manual_seed(0)
    expected = {}
    for key, x in module.named_parameters():
        x.grad = torch.randn(x.shape, generator=generator)
        g = x.grad.double() + state.weight_decay * x.detach().double()
        v = state.momentum * torch.from_numpy(np.array(lent[key], np.float64)) + g
        expected[key] = x.detach().double() - state.learning_rate * (g + state.momentum * v)
    optimizer.step()
    for key, x in module.named_parameters():
        # four float32 roundings of numbers no larger than the largest that enter
        bound = 4 * np.finfo(np.float32).eps * float(expected[key].abs().max() + 1)
        assert (x.detach().double() - expected[key]).abs().max() <= bound, key


def test_momentum_of_other_parameters_is_refused() -> None:
    """Buffers belong to parameters by name and shape."""
    network = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(RECIPES["irv2-setting1"], network)
    given = {"weight": np.zeros((2, 3), "f4"), "bias": np.zeros(3, "f4")}
    with pytest.raises(RecipeError, match="--optimizer: no momentum of that shape for bias"):
        take_buffers(optimizer, network, given)


@pytest.mark.parametrize(
    ("name", "still"), [("resnet-v2-18", {"1.bias", "0.bias"}), ("enet-v2", set())]
)
def test_what_decays(name: str, still: set[str]) -> None:
    """MXNet spares biases and BatchNorm's shifts; Torch7 spares nothing."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))
    recipe = RECIPES[name]
    optimizer = build_optimizer(recipe, network)
    prepare(optimizer, recipe, recipe.place(1, recipe.images))
    names = {id(one): key for key, one in network.named_parameters()}
    decays = {
        names[id(one)]: group["weight_decay"]
        for group in optimizer.param_groups
        for one in group["params"]
    }
    assert decays == {key: 0.0 if key in still else recipe.weight_decay for key in names.values()}


def test_momentum_begins_anew_where_the_recipe_says() -> None:
    """ENet's regimes begin with empty buffers, at their first update alone."""
    recipe = RECIPES["enet-v2"]
    network = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(recipe, network)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for update, kept in ((180_000, True), (180_002, True), (180_001, False)):
        prepare(optimizer, recipe, recipe.place(update, recipe.images))
        assert bool(optimizer.state) == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lr": "1e38", "schedule": "epochs at=2 factor=1e3"},
            r"--schedule: gives 1e\+41 for update 5,006, .* most 3.4e\+38, float32's largest",
        ),
        (
            {"weight_decay": "1", "decay_schedule": "epochs at=2 factor=1e39"},
            r"--decay-schedule: gives 1e\+39 for update 5,006, expected at most 3.4e\+38",
        ),
    ],
    ids=["learning rate", "decay"],
)
def test_a_factor_beyond_float32_is_an_error(changes: dict[str, str], message: str) -> None:
    """Only torch would refuse it, with words that name no flag."""
    recipe = changed(RECIPES["fb-resnet-18"], changes)
    optimizer = build_optimizer(recipe, torch.nn.Linear(2, 2))
    last = recipe.steps(recipe.images)
    prepare(optimizer, recipe, recipe.place(last, recipe.images))
    with pytest.raises(RecipeError, match=message):
        prepare(optimizer, recipe, recipe.place(last + 1, recipe.images))
