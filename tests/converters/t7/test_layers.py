"""Every rule gives what Torch7 gave, for the files that Torch7 wrote."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.t7 import T7Source
from converters.t7.network import layer
from models.build import build
from models.errors import FormatError, UnsupportedLayer
from models.ops import infer
from models.verify import run
from tests.oracles import golden
from tests.t7_writer import Module, Sizes, write

RELATIVE = 2e-6  # float32 sums in another order, single layers: a few of 2^-24 a term
NOISE_FACTOR = 2  # Torch7 and we are each off by the network's own noise, in opposite directions

ENTRIES = [
    entry
    for entry in json.loads(golden("torch7/manifest.json").read_text())
    if entry.get("file", "").startswith(("layers/", "models/"))
    and entry["format"] == "binary"
    and all(name in layer or name.startswith("torch.") for name in entry["stored_classes"])
]


def arrays(found: Any, stem: str) -> list[Any]:
    return [
        found[key]
        for key in sorted(found.files)
        if key.split("_")[0] == stem and "float64" not in key
    ]


def converted(path: Path, shapes: list[tuple[int, ...]]) -> torch.nn.Module:
    return build(T7Source(path).lower(shapes, infer).network)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_equals_torch7(entry: dict[str, Any]) -> None:
    """A module built from the file gives Torch7's outputs, shapes included."""
    expected = np.load(golden(f"torch7/{entry['arrays']}"))
    inputs = arrays(expected, "input")
    module = converted(golden(f"torch7/{entry['file']}"), [one.shape for one in inputs])
    outputs = run(module, inputs)
    for ours, theirs in zip(outputs, arrays(expected, "output"), strict=True):
        bound = RELATIVE * max(np.abs(theirs).max(), 1e-30)
        if "output_float64_rounded" in expected.files:
            bound = max(
                bound, NOISE_FACTOR * np.abs(theirs - expected["output_float64_rounded"]).max()
            )
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= bound


def test_every_class_of_the_seed_networks_has_a_rule() -> None:
    """No layer of Inception-ResNet-v2, of the fifteen models or of the example is left out."""
    manifest = json.loads(golden("torch7/manifest.json").read_text())
    seeds = [entry for entry in manifest if entry.get("file", "").startswith(("models/", "irv2/"))]
    classes = {
        name for entry in seeds for name in entry["stored_classes"] if not name.startswith("torch.")
    }
    example = {
        "nn.ReLU6",
        "nn.SpatialDepthWiseConvolution",
        "nn.SpatialZeroPadding",
        "nn.SpatialAveragePooling",
    }
    assert len(seeds) == 16
    assert [name for name in classes | example if name not in layer] == []


def test_inception_resnet_v2_stage_by_stage() -> None:
    """All 27 stages have Torch7's channel means, and the logits are within noise."""
    from converters.packing import unpacked

    expected = np.load(golden("torch7/irv2/irv2_full.npz"))
    packed = golden("torch7/irv2/irv2_full.t7.xz")
    with unpacked(packed) as path:
        source = T7Source(path, packed)
    network = source.lower([expected["input"].shape], infer).network
    module = build(network)
    stages: dict[int, np.ndarray[Any, Any]] = {}

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: torch.Tensor) -> None:
            stages[int(name.split(".")[0])] = output.numpy()

        return hook

    for node in network.graph.nodes:
        module.get_submodule(node.name).register_forward_hook(
            keep(node.name)
        )  # the last of a stage wins
    (logits,) = run(module, [expected["input"]])
    stages = dict(enumerate(stages[index] for index in sorted(stages)))
    assert len(stages) == 27
    for index, output in stages.items():
        means = output.mean(axis=(2, 3)) if output.ndim == 4 else output
        theirs = expected[f"stage_{index + 1}"]
        # means of up to 149 x 149 float32 values, computed in Torch7 in float32 as well
        np.testing.assert_allclose(
            means.ravel(), theirs.ravel(), rtol=1e-4, atol=1e-5 * np.abs(theirs).max()
        )
    theirs = expected["output"].ravel()
    # the file's float64 outputs are magnitudes: no sign survived, in Torch7's float32 ones they did
    noise = np.abs(np.abs(theirs) - expected["output_float64_rounded"].ravel()).max()
    assert np.abs(logits.ravel() - theirs).max() <= NOISE_FACTOR * noise


def lowered(tmp_path: Path, module: Module, *shapes: tuple[int, ...]) -> Any:
    return T7Source(write(tmp_path / "made.t7", module)).lower(shapes, infer)


def conv(**fields: Any) -> Module:
    given = {
        "nInputPlane": 3,
        "nOutputPlane": 4,
        "kW": 1,
        "kH": 1,
        "dW": 1,
        "dH": 1,
        "padW": 0,
        "padH": 0,
    }
    given["weight"] = np.ones((4, 3, 1, 1), "f4")
    return Module("nn.SpatialConvolution", **{**given, **fields})


def pool(class_name: str, **fields: Any) -> Module:
    given = {
        "kW": 2,
        "kH": 2,
        "dW": 2,
        "dH": 2,
        "padW": 0,
        "padH": 0,
        "ceil_mode": False,
        "divide": True,
    }
    return Module(class_name, **{**given, **fields})


IMAGE = (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (Module("nn.CAddTable"), IMAGE, "nn.CAddTable: its input is not a table of tensors"),
        (
            Module("nn.Linear", weight=np.ones((2, 3), "f4")),
            IMAGE,
            "takes a vector or a matrix, its input has 4",
        ),
        (conv(), (3,), "takes images, its input has 1 dimensions"),
        (Module("nn.Concat", modules=[], dimension=2), IMAGE, "joins nothing"),
        (
            Module("nn.Dropout", p=0.5, v2=True, stochastic_inference=True),
            IMAGE,
            "draws random numbers",
        ),
        (
            Module("nn.SpatialDropout", p=0.5, stochastic_inference=True),
            IMAGE,
            "draws random numbers",
        ),
        (Module("nn.SpatialCrossMapLRN", size=4), IMAGE, "a window of 4 maps has no centre"),
        (Module("cudnn.LogSoftMax"), IMAGE, "all pixels of an image at once"),
        (Module("nn.SoftMax"), (1, 1, 1, 1, 2), "takes 1 to 4 dimensions, its input has 5"),
        (
            pool("nn.SpatialMaxPooling", kW=1, kH=1, dW=3, dH=3, ceil_mode=True),
            (2, 3, 9, 9),
            "window that lies wholly outside the image",
        ),
        (
            pool("cudnn.SpatialAveragePooling", kW=3, kH=3, ceil_mode=True),
            IMAGE,
            "windows that stick out of the image",
        ),
        (
            pool("cudnn.SpatialAveragePooling", divide=False),
            IMAGE,
            "divide is false, which cudnn refuses as well",
        ),
        (
            Module("nn.SpatialMaxUnpooling"),
            IMAGE,
            "the pooling that it undoes did not run before it",
        ),
        (
            Module(
                "nn.DepthConcat",
                dimension=2,
                modules=[Module("nn.Identity"), Module("nn.View", size=Sizes(192), numInputDims=3)],
            ),
            IMAGE,
            "its parts differ in rank",
        ),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)
def test_what_cannot_be_exact_is_refused(
    tmp_path: Path, module: Module, shape: tuple[int, ...], message: str
) -> None:
    """A setting that has no exact form is refused with its reason, though its class has a rule."""
    with pytest.raises(UnsupportedLayer, match=message):
        lowered(tmp_path, module, shape)


def test_unpooling_a_single_image_is_refused(tmp_path: Path) -> None:
    """Unpooling has no form without a batch dimension."""
    pooling = pool("nn.SpatialMaxPooling")
    network = Module(
        "nn.Sequential", modules=[pooling, Module("nn.SpatialMaxUnpooling", pooling=pooling)]
    )
    with pytest.raises(UnsupportedLayer, match="unpools an image without a batch dimension"):
        lowered(tmp_path, network, (3, 8, 8))


def test_a_sum_of_different_shapes_is_refused(tmp_path: Path) -> None:
    """Torch7 adds by element count; what it means for other shapes is not guessed."""
    with pytest.raises(UnsupportedLayer, match=r"adds tensors of shapes \(2, 3\) and \(3, 2\)"):
        lowered(tmp_path, Module("nn.CAddTable"), (2, 3), (3, 2))


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (
            conv(kW="wide"),
            IMAGE,
            r"layer \(the whole file\) \(nn.SpatialConvolution\): found kW = 'wide', expected",
        ),
        (conv(kW=1.5), IMAGE, "found kW = 1.5, expected a whole number"),
        (conv(weight=None), IMAGE, "found weight = nil, expected a tensor"),
        (conv(dW=0), IMAGE, r"found dH, dW = \(1, 0\), expected 1 or more"),
        (conv(), (2, 5, 8, 8), "found an input of 2x5x8x8, expected one that Conv2d takes"),
        (Module("nn.View", size=[1, 2]), IMAGE, "found size = a table, expected a LongStorage"),
        (
            Module("nn.View", size=Sizes(7)),
            IMAGE,
            r"found size = \(7,\), expected a shape for 384 elements",
        ),
        (Module("nn.Reshape", size=Sizes(7)), IMAGE, "one that Reshape takes"),
        (Module("nn.Linear", weight=np.ones(3, "f4")), (2, 3), "expected two dimensions"),
        (Module("nn.Padding", dim=9, pad=1), IMAGE, "found dim = 9, expected 1 to 4"),
        (Module("nn.Padding", dim=2, pad=1, index=9), IMAGE, "found index = 9, expected 1 to 4"),
        (
            Module("nn.Concat", dimension=7, modules=[Module("nn.Identity")]),
            IMAGE,
            "found dimension = 7, expected 1 to 4",
        ),
    ],
    ids=lambda value: value.class_name if isinstance(value, Module) else None,
)
def test_broken_fields_are_named(
    tmp_path: Path, module: Module, shape: tuple[int, ...], message: str
) -> None:
    """A field that is missing, of the wrong kind or out of range is named."""
    with pytest.raises(FormatError, match=message):
        lowered(tmp_path, module, shape)


def test_depthwise_filters_are_interleaved_by_plane(tmp_path: Path) -> None:
    """The weight has filters first, the output planes first."""
    weight = np.arange(6, dtype="f4").reshape(2, 3)  # 2 filters for each of 3 planes, 1 x 1
    bias = 10 * np.arange(6, dtype="f4").reshape(2, 3)
    fields = {"nInputPlane": 3, "nOutputPlane": 2, "kW": 1, "kH": 1, "dW": 1, "dH": 1}
    module = Module("nn.SpatialDepthWiseConvolution", weight=weight, bias=bias, **fields)
    network = lowered(tmp_path, module, (1, 3, 1, 1)).network
    (output,) = run(build(network), [np.ones((1, 3, 1, 1), "f4")])
    np.testing.assert_array_equal(output.ravel(), (weight + bias).T.ravel())


def test_full_convolution_takes_the_size_of_its_second_input(tmp_path: Path) -> None:
    """A table {x, like} chooses the output padding so that the output is as large as `like`."""
    fields = {
        "nInputPlane": 1,
        "nOutputPlane": 1,
        "kW": 3,
        "kH": 3,
        "dW": 2,
        "dH": 2,
        "padW": 1,
        "padH": 1,
    }
    module = Module("nn.SpatialFullConvolution", weight=np.ones((1, 1, 3, 3), "f4"), **fields)
    assert lowered(tmp_path, module, (1, 1, 4, 4), (1, 1, 8, 7)).shapes == ((1, 1, 8, 7),)


def test_one_padding_for_both_sides_goes_first(tmp_path: Path) -> None:
    """Old nn convolutions have `padding`, which goes before padW; cudnn's ignores it."""
    old = conv(padding=0, padW=1, padH=1)
    assert lowered(tmp_path, old, IMAGE).shapes == ((2, 4, 8, 8),)
    old.class_name = "cudnn.SpatialConvolution"
    assert lowered(tmp_path, old, IMAGE).shapes == ((2, 4, 10, 10),)


def test_old_cudnn_pooling_has_no_padding(tmp_path: Path) -> None:
    """A cudnn average pooling saved before `ceil_mode` existed ignores its padding fields."""
    old = pool("cudnn.SpatialAveragePooling", padW=1, padH=1)
    assert lowered(tmp_path, old, IMAGE).shapes == ((2, 3, 5, 5),)
    del old.fields["ceil_mode"]
    assert lowered(tmp_path, old, IMAGE).shapes == ((2, 3, 4, 4),)


def test_batch_norm_with_only_a_scale(tmp_path: Path) -> None:
    """A missing shift is 0, a missing scale is 1."""
    statistics = {"running_mean": np.zeros(3, "f4"), "running_var": np.ones(3, "f4"), "eps": 0}
    module = Module("nn.SpatialBatchNormalization", weight=np.full(3, 2, "f4"), **statistics)
    (output,) = run(build(lowered(tmp_path, module, IMAGE).network), [np.ones(IMAGE, "f4")])
    np.testing.assert_array_equal(output, 2)
