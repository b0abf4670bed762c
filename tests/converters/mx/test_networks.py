"""Whole networks that MXNet wrote: its own logits, through the module and through ONNX."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.convention import resolve
from converters.lowering import Lowered
from converters.mx import MXSource
from converters.mx.checkpoints import of_epoch
from converters.packing import unpacked
from models.build import build
from models.export import export_onnx
from models.fingerprint import fingerprint
from models.graph import Shape
from models.ops import infer
from models.session import Session
from models.verify import run
from tests.oracles import golden

RESNET_BOUND = 5e-3  # x std(logits): ten times what MXNet's own two ways differ by on the deepest
GLUON_BOUND = 1e-3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The structure that each file is recognised as.
RESNETS = {
    "cifar10-110": "resnet_v2_cifar_110",
    "cifar10-164": "resnet_v2_cifar_164",
    "imagenet-152": "resnet_v2_152",
    "imagenet-18-narrow": "resnet_v2_18",
    "imagenet-18-tiny-v08": "resnet_v2_18",
    "imagenet-18-tiny-v095": "resnet_v2_18",
    "imagenet-18-tiny-v011": "resnet_v2_18",
    "imagenet-18-tiny-v100": "resnet_v2_18",
    "imagenet-18-tiny-v191": "resnet_v2_18",
    "imagenet-200": "resnet_v2_200",
    "imagenet-50": "resnet_v2_50",
    "imagenet-50-narrow-memonger": "resnet_v2_50",
    "imagenet11k-200-narrow": "resnet_v2_200",
}
GLUON = (
    "densenet-narrow",
    "inceptionv3",
    "mobilenet0.25",
    "mx1.2-resnet_v2-tiny",
    "resnet18_v1-narrow",
    "resnet50_v2",
    "squeezenet1.1",
    "vgg11_bn-narrow",
)
VINTAGES = [name for name in RESNETS if "tiny" in name]


def opened(kind: str, name: str) -> MXSource:
    located = of_epoch(golden(f"mxnet/{kind}") / name, 0)
    with unpacked(located.params) as plain:  # which stays mapped when it is gone
        return MXSource(plain, located.params, symbol_path=located.symbol)


def expected(kind: str, name: str) -> Any:
    return np.load(golden(f"mxnet/{kind}/{name}-expected.npz"))


def images(name: str, theirs: Any) -> np.ndarray:
    """Return the batch that MXNet was fed: pixels as they are, or as the model zoo has them."""
    if "logits" not in theirs:
        file = "inputs_cifar" if name.startswith("cifar") else "inputs_imagenet"
        pixels = np.load(golden(f"mxnet/resnet/{file}.npz"))["images"]
        return pixels[: len(theirs["softmax"])].astype(np.float32)
    pixels = theirs["images"].astype(np.float32)
    if name.startswith("mx1.2"):
        return (pixels - np.float32(127.5)) / 64
    mean, std = (np.float32(one).reshape(3, 1, 1) for one in (MEAN, STD))
    return (pixels / 255 - mean) / std


def check(ours: np.ndarray, theirs: np.ndarray, bound: float) -> None:
    """Hold logits against MXNet's: the distance in units of their spread, and the five best."""
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= bound * theirs.std()
    best = [np.argsort(-one, 1, kind="stable")[:, :5] for one in (ours, theirs)]
    np.testing.assert_array_equal(*best)


def lowered(source: MXSource, shape: Shape) -> Lowered:
    with torch.device("meta"):
        return source.lower([shape], infer)


def in_onnx(source: MXSource, shape: Shape) -> Session:
    network = lowered(source, shape).network
    return Session(export_onnx(build(network), network.graph).SerializeToString())


TWINS = ("cifar10-164", "imagenet-200")  # at their depths another one is fast already


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in TWINS else ()) for one in RESNETS]
)
def test_resnet_equals_mxnet(name: str) -> None:
    """Every ResNet-v2, in every vintage of file, gives MXNet's logits and softmax."""
    theirs = expected("resnet", name)
    batch = images(name, theirs)
    (logits,) = run(build(lowered(opened("resnet", name), batch.shape).network), [batch])
    check(logits, theirs["fc1"], RESNET_BOUND)
    np.testing.assert_array_equal(np.argsort(-logits, 1, kind="stable")[:, :5], theirs["top5"])


@pytest.mark.parametrize("name", GLUON)
def test_gluon_equals_mxnet(name: str) -> None:
    """Every exported network of Gluon's model zoo gives MXNet's logits."""
    theirs = expected("gluon", name)
    batch = images(name, theirs)
    (logits,) = run(build(lowered(opened("gluon", name), batch.shape).network), [batch])
    check(logits, theirs["logits"], GLUON_BOUND)


def fast(*names: str) -> list[Any]:
    """Return all networks for a test that takes seconds; all but these in the long proof alone."""
    every = [*(("resnet", name) for name in RESNETS), *(("gluon", name) for name in GLUON)]
    slow = pytest.mark.slow
    return [pytest.param(*one, marks=() if one[1] in names else slow) for one in every]


@pytest.mark.parametrize(("kind", "name"), fast("imagenet-18-tiny-v08", "squeezenet1.1"))
def test_onnx_equals_mxnet(kind: str, name: str) -> None:
    """The ONNX form gives MXNet's logits as well."""
    theirs = expected(kind, name)
    batch = images(name, theirs)
    (logits,) = in_onnx(opened(kind, name), batch.shape).run(batch)
    resnet = kind == "resnet"
    check(logits, theirs["fc1" if resnet else "logits"], RESNET_BOUND if resnet else GLUON_BOUND)


def test_five_vintages_are_one_network() -> None:
    """The same weights in five forms of file become the same graph with the same numbers."""
    shape = (2, 3, 224, 224)
    first, *others = (lowered(opened("resnet", name), shape).network for name in VINTAGES)
    for other in others:
        assert fingerprint(other.graph) == fingerprint(first.graph)
        assert other.tensors.keys() == first.tensors.keys()
        for name, array in first.tensors.items():
            np.testing.assert_array_equal(array, other.tensors[name])


SMALL = ("cifar10-110", "imagenet-18-tiny-v08", "imagenet-50-narrow-memonger")


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=() if one in SMALL else pytest.mark.slow) for one in RESNETS],
)
def test_resnets_are_recognised(name: str) -> None:
    """Structure alone says which ResNet-v2 it is, and how images enter."""
    found = resolve(opened("resnet", name), "", None, ())
    assert found.known is not None
    assert found.known.name == RESNETS[name]
    assert found.decided == "fingerprint"
    assert found.input == found.known.input
    assert found.lowered.network.graph.dynamic


def test_an_ignored_scale_is_one() -> None:
    """The first normalisation has a fixed scale: what the file holds in its place is not used."""
    source = opened("resnet", "imagenet-18-tiny-v191")
    network = lowered(source, (1, 3, 224, 224)).network
    assert np.abs(source.arrays["bn_data_gamma"] - 1).max() > 0.1
    np.testing.assert_array_equal(network.tensors["bn_data.weight"], 1)
    np.testing.assert_array_equal(network.tensors["bn0.weight"], source.arrays["bn0_gamma"])


def test_the_imagenet_checkpoint_equals_mxnet() -> None:
    """EfficientNet-Lite0's logits for 20 pictures, to the rounding of float32."""
    theirs = np.load(golden("pretrained/images_20.npz"))
    batch = (theirs["crops_u8"].astype(np.float32) - 127) / 128
    folder: Path = golden("pretrained/efficientnet_lite0-0000.params").parent
    located = of_epoch(folder / "efficientnet_lite0", 0)
    source = MXSource(located.params, symbol_path=located.symbol)
    (logits,) = run(build(lowered(source, batch.shape).network), [batch])
    bound = 4 * np.abs(theirs["mxnet_logits"] - theirs["float64_logits_rounded"]).max()
    assert np.abs(logits - theirs["mxnet_logits"]).max() <= bound
