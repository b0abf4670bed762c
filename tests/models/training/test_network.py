"""The network of a run: what a recipe asks for, begun elsewhere, averaged."""

import numpy as np
import pytest
import torch
from torch import nn

from models.build import build
from models.checkpoint import Checkpoint
from models.errors import RecipeError
from models.recipes import RECIPES, changed
from models.report import Report
from models.spec import Label, ModelSpec, Origin
from models.trace import trace
from models.training.network import Average, factory_of, set_bn_momentum, take_weights

SMALL = changed(RECIPES["fashion-mnist"], {"architecture": "resnet_v2_cifar_8"})


def checkpoint(
    module: nn.Module, architecture: str | None, size: int = 32, classes: int = 0
) -> Checkpoint:
    network = trace(module.eval(), [(2, 3, size, size)])
    labels = tuple(Label(None, str(one)) for one in range(classes))
    origin = Origin("torch7-binary", "x.t7", "0" * 64, "flag")
    return Checkpoint(
        ModelSpec("x", None, labels, "logits", architecture, origin), network, Report((), None)
    )


def test_an_inception_v3_has_its_auxiliary_head() -> None:
    """A weight for the head's loss builds the head; an artifact without one is still a start."""
    recipe = changed(RECIPES["inception-v3"], {"classes": "10"})
    with torch.device("meta"):
        module = factory_of(recipe)()
    assert any(name.startswith("aux.") for name, _ in module.named_parameters())


def test_a_network_without_a_name_trains_its_own_graph() -> None:
    """A converted checkpoint of any structure is a start, and needs no class."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(30), nn.Flatten())
    given = checkpoint(layers.append(nn.Linear(4, 10)), None)
    make = factory_of(SMALL, given)
    module = make()
    take_weights(module, given, SMALL)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(module(images), build(given.network)(images))


def test_a_graph_of_other_outputs_is_refused() -> None:
    """The number of classes is the recipe's."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(30), nn.Flatten())
    with pytest.raises(RecipeError, match=r"gives \(4,\) outputs, expected 10 classes"):
        factory_of(SMALL, checkpoint(layers, None))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"evaluation": "foo"}, "evaluation foo: no such preset; there are torch-299, torch-224"),
        ({"augmentation": "foo"}, "augmentation: .* no such preset"),
        ({"augmentation": "mxnet-224-squash"}, "augmentation: .* no training is known"),
        (
            {"augmentation": "torch-299"},
            "does not take images of 299 x 299, as augmentation torch-299 gives them",
        ),
        ({"evaluation": "mxnet-224"}, "of 224 x 224, as evaluation mxnet-224 gives them"),
        ({"aug_levels": "1:1,2:9"}, "augmentation: --aug-level 9: expected 1, 2 or 3"),
        ({"aug_levels": "2"}, "aug-levels 1:2: mxnet-cifar10 has no level 2"),
        (
            {"aug_levels": "1:1,2:2", "augmentation": "torch-cifar10"},
            "aug-levels 1:1,2:2: torch-cifar10 has no level 1",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(given: dict[str, str], message: str) -> None:
    """What training and validation do to images is known before the first of them is read."""
    with pytest.raises(RecipeError, match=message):
        factory_of(changed(SMALL, given))


def test_tensors_that_do_not_fit_are_named() -> None:
    """A checkpoint of the same class with other shapes is refused, with both."""
    recipe = changed(SMALL, {"classes": "12"})
    given = checkpoint(factory_of(recipe)(), "resnet_v2_cifar_8")  # which does not say its classes
    message = "theirs and ours: classifier.bias 12 and 10; classifier.weight 12 x 64 and 10 x 64"
    with pytest.raises(RecipeError, match=message):
        take_weights(factory_of(SMALL)(), given, SMALL)


def test_other_classes_begin_anew() -> None:
    """The last layer of a checkpoint of other classes is not taken; everything else is."""
    recipe = changed(SMALL, {"classes": "12"})
    given = checkpoint(factory_of(recipe)(), "resnet_v2_cifar_8", classes=12)
    module = factory_of(SMALL)()
    before = module.get_parameter("classifier.weight").clone()
    assert take_weights(module, given, SMALL) == ["classifier.bias", "classifier.weight"]
    assert torch.equal(module.get_parameter("classifier.weight"), before)
    taken = module.get_parameter("stages.0.0.branch.conv1.weight")
    assert np.array_equal(
        taken.detach().numpy(), given.network.tensors["stages.0.0.branch.conv1.weight"]
    )


def test_batch_norm_follows_the_recipe() -> None:
    """Its momentum is the recipe's from the epochs that it names, else the network's own."""
    recipe = changed(SMALL, {"bn_momentum": "3:0.5"})
    layer = nn.BatchNorm2d(3)
    found = []
    for epoch in (1, 3, 4):
        set_bn_momentum(nn.Sequential(layer), recipe, epoch)
        found.append(layer.momentum)
    assert found == [0.1, 0.5, 0.5]


def test_an_average_is_of_the_weights_since_the_first_update() -> None:
    """The first update is taken whole, each later one by its share; a state goes on."""
    layer = nn.Linear(1, 1)
    average = Average(layer, 0.75)
    expected = None
    for value in (4.0, 8.0, 2.0):
        nn.init.constant_(layer.weight, value)
        average.follow(layer.parameters())
        expected = value if expected is None else 0.75 * expected + 0.25 * value
        assert average.weights["weight"].item() == pytest.approx(expected)
    other = Average(nn.Linear(1, 1), 0.75)
    other.restore(average.state())
    assert other.updates == 3
    assert torch.equal(other.weights["weight"], average.weights["weight"])


def test_as_published_is_the_current_model() -> None:
    """Lornatang's average takes nearly all of the current weights, as its program computes it."""
    layer = nn.Linear(1, 1)
    average = Average(layer, RECIPES["inception-v4-as-published"].ema)
    for value in (4.0, 8.0):
        nn.init.constant_(layer.weight, value)
        average.follow(layer.parameters())
    assert average.weights["weight"].item() == pytest.approx(8 * 0.99998 + 4 * 0.00002)
