"""The proof: a faithful artifact passes with numbers that hold, an altered one does not."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from models.build import build
from models.checkpoint import Checkpoint
from models.errors import ParityError
from models.export import OPSET, export_onnx
from models.graph import Graph, Network
from models.report import Report
from models.self_test import FLOAT32_BOUNDS, pictures
from models.session import Session
from models.verify import DRAWS, NOISE_FACTOR, TOP, run, self_test, verify
from tests.small_networks import CLASSIFIER, TWO_IN_TWO_OUT, Layer, batches, chain, filled, graph_of
from tests.tiny_onnx import INPUT, SIDE, spec

ALTERED = 1e-4  # outputs are near 50, where float32 has steps of 4e-6 and noise of a few of them
WIDE = chain((2, 3), ("Linear", {"in_features": 3, "out_features": 7}), dynamic=True)


@pytest.fixture(scope="module")
def proto() -> onnx.ModelProto:
    """Return the classifier's ONNX form, not to be changed."""
    return export_onnx(build(filled(CLASSIFIER)), CLASSIFIER)


def altered(
    proto: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> onnx.ModelProto:
    """Return the model with the named array changed."""
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    (found,) = [one for one in other.graph.initializer if one.name == name]
    found.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(found).copy()), name))
    return other


def test_a_faithful_artifact_passes(proto: onnx.ModelProto) -> None:
    """The report says what was fed, what was measured and what was allowed."""
    report = verify(build(filled(CLASSIFIER)), CLASSIFIER, proto)
    assert [one.inputs for one in report.measured] == [((1, 3, 8, 8),), ((3, 3, 8, 8),)]
    assert report.opset == OPSET
    assert report.top5_equal is True
    for one in report.measured:
        assert one.max_abs is not None
        assert 0 <= one.max_abs <= one.bound
        assert 0 <= 2 * one.noise <= one.bound
    assert 0 < report.noise < 1e-3


def test_verifying_changes_nothing(proto: onnx.ModelProto) -> None:
    """Twice gives the same report, and the module keeps its float32 numbers."""
    network = filled(CLASSIFIER)
    module = build(network)
    assert verify(module, CLASSIFIER, proto) == verify(module, CLASSIFIER, proto)
    for name, array in network.tensors.items():
        np.testing.assert_array_equal(module.state_dict()[name].numpy(), array, strict=True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("6.bias", lambda bias: bias + ALTERED * np.float32([0, 0, 1, 0, 0, 0])),
        ("6.weight", lambda weight: weight * np.float32(1 + ALTERED)),
        ("0.weight", lambda weight: weight[:, :, ::-1]),
    ],
    ids=["one number", "all a little", "upside down"],
)
def test_an_altered_weight_is_found(
    proto: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """What is more than rounding is not passed over, with the numbers that show it."""
    message = (
        r"^input 1x3x8x8: onnxruntime differs from float64 by .*, expected at most .*: "
        r"the module's own float32 run differs by "
    )
    with pytest.raises(ParityError, match=message):
        verify(build(filled(CLASSIFIER)), CLASSIFIER, altered(proto, name, change))


@pytest.mark.parametrize("broken", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("name", ["0.weight", "1.running_mean", "6.bias"])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_network_that_is_not_finite_is_refused(broken: float, name: str) -> None:
    """NaN differs from nothing, so it is looked for by itself, and its tensor named."""
    network = filled(CLASSIFIER)
    network.tensors[name].flat[0] = broken
    with pytest.raises(ParityError, match=f"^{name}: not finite, in the file itself$"):
        verify(build(network), CLASSIFIER, None)


@pytest.mark.parametrize("layer", [("Log", {}), ("Power", {"exponent": 0.5})], ids=str)
def test_a_network_of_positive_numbers_is_fed_such(layer: tuple[str, dict[str, float]]) -> None:
    """A logarithm or a root of noise is no broken weight: it is verified on magnitudes."""
    graph = chain((2, 5), layer, dynamic=True)
    (first, second) = verify(build(filled(graph)), graph, None).measured
    assert first.noise <= first.bound
    assert second.inputs == ((3, 5),)


def test_a_network_that_overflows_is_refused() -> None:
    """Numbers beyond float32 are no outputs, though every weight is finite."""
    graph = chain((2, 5), ("Scale", {"factor": 1e38}), ("Scale", {"factor": 1e38}))
    with pytest.raises(ParityError, match="^input 2x5: outputs are not finite: numbers too large"):
        verify(build(filled(graph)), graph, None)


def test_an_artifact_that_is_not_finite_is_refused(proto: onnx.ModelProto) -> None:
    """NaN in the ONNX file alone is found too."""
    other = altered(proto, "6.weight", lambda weight: weight * np.float32(np.nan))
    with pytest.raises(ParityError, match="outputs are not finite"):
        verify(build(filled(CLASSIFIER)), CLASSIFIER, other)


def test_an_output_of_another_shape_is_refused() -> None:
    """Numbers are not compared by broadcasting."""
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["input"], ["output"])],
        "sum",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1])],
    )
    other = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    ours = chain((1, 3), ("ReLU", {}))
    with pytest.raises(ParityError, match=r"an output has shape \(1, 1\), expected \(1, 3\)"):
        verify(build(filled(ours)), ours, other)


@pytest.mark.parametrize(
    ("graph", "inputs"),
    [
        (chain((5, 3), ("ReLU", {})), [((5, 3),)]),
        (chain((5, 3), ("ReLU", {}), dynamic=True), [((1, 3),), ((3, 3),)]),
        (TWO_IN_TWO_OUT, [((1, 3), (1, 3)), ((3, 3), (3, 3))]),
    ],
    ids=["static", "dynamic", "two inputs"],
)
def test_what_is_fed(graph: Graph, inputs: list[tuple[tuple[int, ...], ...]]) -> None:
    """A static graph at exactly its shapes, a dynamic one alone and in a batch."""
    report = verify(build(filled(graph)), graph, None)
    assert [one.inputs for one in report.measured] == inputs


def test_without_onnx_the_module_is_still_measured() -> None:
    """The report then has no opset, and the module's own difference."""
    report = verify(build(filled(CLASSIFIER)), CLASSIFIER, None)
    assert report.opset is None
    assert all(one.max_abs is None for one in report.measured)
    assert report.max_abs == report.noise


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (WIDE, True),
        (chain((2, 3), ("Linear", {"in_features": 3, "out_features": TOP}), dynamic=True), True),
        (chain((2, 3), ("Linear", {"in_features": 3, "out_features": TOP - 1})), None),
        (chain((2, 3, 8, 8), ("ReLU", {})), None),
        (TWO_IN_TWO_OUT, None),
    ],
    ids=["seven", "five", "four", "an image", "two outputs"],
)
def test_classes_are_ranked_where_there_are_five(graph: Graph, expected: bool | None) -> None:
    """A single output of N x K with K of five or more is a classifier."""
    assert verify(build(filled(graph)), graph, None).top5_equal is expected


def equal_classes() -> Network:
    """Return a network of seven classes, all with the same numbers."""
    network = filled(WIDE)
    row = network.tensors["0.weight"][:1]
    same = {"0.weight": np.repeat(row, 7, axis=0), "0.bias": np.zeros(7, np.float32)}
    return network._replace(tensors=same)


def test_equal_classes_are_no_difference() -> None:
    """Which of two equal classes stands first is not a question of correctness."""
    network = equal_classes()
    report = verify(build(network), WIDE, None)
    assert report.top5_equal is True


def test_classes_in_another_order_are_found() -> None:
    """An artifact that gives the right numbers to the wrong classes does not pass."""
    network = filled(WIDE)
    swapped = {name: array[::-1].copy() for name, array in network.tensors.items()}
    proto = export_onnx(build(network._replace(tensors=swapped)), WIDE)
    with pytest.raises(ParityError, match="^input 1x3: onnxruntime differs from float64 by"):
        verify(build(network), WIDE, proto)


# Below 16 float32 numbers are this far apart; the bound of an output of 16 is 8 such steps.
STEP = 16 * float(np.finfo(np.float32).eps) / 2


def close_classes(gap: int) -> Network:
    """Return seven classes that no input changes; the second is `gap` steps behind the first."""
    bias = np.float32([16, 16 - gap * STEP, 12, 11, 10, 9, 8])
    return Network(WIDE, {"0.weight": np.zeros((7, 3), np.float32), "0.bias": bias})


def with_a_lower_first(network: Network) -> onnx.ModelProto:
    """Return the ONNX form in which the first class is seven steps lower: less than the bound."""
    proto = export_onnx(build(network), WIDE)
    return altered(proto, "0.bias", lambda bias: bias - np.float32([7 * STEP, 0, 0, 0, 0, 0, 0]))


def test_classes_that_change_places_are_reported() -> None:
    """Within the bound any float32 program may swap two classes: no error, but said."""
    report = verify(build(close_classes(gap=6)), WIDE, with_a_lower_first(close_classes(gap=6)))
    assert [one.max_abs for one in report.measured] == [7 * STEP] * 2
    assert report.top5_equal is False


def test_classes_that_float32_cannot_tell_apart_are_equal() -> None:
    """Which of two classes as close as a float32 step comes first is no question at all."""
    report = verify(build(close_classes(gap=2)), WIDE, with_a_lower_first(close_classes(gap=2)))
    assert report.top5_equal is True


def test_a_small_output_beside_a_large_one_has_its_own_bound() -> None:
    """Zeros in place of a small output are not hidden by the rounding of a large one."""
    linear = {"in_features": 3, "out_features": 3}
    graph = graph_of(
        [(2, 3)],
        Layer("large", "Linear", ("input",), linear),
        Layer("small", "Linear", ("input",), linear),
        outputs=("large", "small"),
        dynamic=True,
    )
    network = filled(graph)
    network.tensors["large.weight"] *= np.float32(1e6)
    network.tensors["small.weight"] *= np.float32(1e-2)
    nothing = {**network.tensors}
    for name in ("small.weight", "small.bias"):
        nothing[name] = np.zeros_like(network.tensors[name])
    proto = export_onnx(build(network._replace(tensors=nothing)), graph)
    with pytest.raises(ParityError, match="onnxruntime differs from float64 by"):
        verify(build(network), graph, proto)


def far_and_back() -> Network:
    """Return a network of one output whose noise is rounding far away from it."""
    graph = chain(
        (2, 3),
        ("Linear", {"in_features": 3, "out_features": 3}),
        ("Linear", {"in_features": 3, "out_features": 1}),
        dynamic=True,
    )
    one, far = np.eye(3, dtype=np.float32), np.full(3, 5e4, np.float32)
    return Network(graph, {"0.weight": one, "0.bias": far, "1.weight": one[:1], "1.bias": -far[:1]})


def test_the_noise_is_the_networks_and_not_one_batchs() -> None:
    """One batch may be lucky: where rounding decides, every bound is twice the largest noise."""
    network = far_and_back()
    report = verify(build(network), network.graph, None)
    assert len({one.noise for one in report.measured}) == 2
    assert {one.bound for one in report.measured} == {NOISE_FACTOR * report.noise}


@pytest.mark.parametrize(("beyond", "holds"), [(1.05, True), (3, False)])
def test_who_exceeds_a_lucky_noise_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, beyond: float, holds: bool
) -> None:
    """More inputs draw more noise: a little too far is noise, thrice is not."""
    network = far_and_back()
    exact = build(network).double()
    lucky = verify(build(network), network.graph, None)

    class Beyond:
        def __init__(self, proto: bytes) -> None:
            self.error = beyond * lucky.measured[0].bound

        def run(self, x: np.ndarray) -> list[np.ndarray]:
            return [one + self.error for one in run(exact, [x], torch.float64)]

    monkeypatch.setattr("models.verify.Session", Beyond)
    if not holds:
        with pytest.raises(ParityError, match="onnxruntime differs from float64 by"):
            verify(build(network), network.graph, onnx.ModelProto())
        return
    report = verify(build(network), network.graph, onnx.ModelProto())
    assert len(report.measured) == DRAWS * len(lucky.measured)
    assert all(one.max_abs is not None and one.max_abs <= one.bound for one in report.measured)


def test_a_network_of_zeros_passes() -> None:
    """Where there is no noise and no scale, equal is equal."""
    network = filled(WIDE)
    zeros = {name: np.zeros_like(array) for name, array in network.tensors.items()}
    report: Report = verify(build(network._replace(tensors=zeros)), WIDE, None)
    assert (report.noise, report.measured[0].bound) == (0.0, 0.0)


def test_run_leaves_its_inputs_alone() -> None:
    """A batch that was fed can be fed again."""
    (batch,) = batches([(2, 3)])
    before = batch.copy()
    (output,) = run(build(filled(chain((2, 3), ("ReLU", {})))), [batch])
    np.testing.assert_array_equal(batch, before)
    np.testing.assert_array_equal(output, np.maximum(before, 0))


def test_a_graph_that_is_not_dynamic_is_not_resized() -> None:
    """A fixed reshape is verified as it is."""
    graph = chain((2, 4), ("Reshape", {"shape": (2, 2, 2)}))
    assert verify(build(filled(graph)), graph, None).measured[0].inputs == ((2, 4),)


def classifier(batch: int, *, dynamic: bool = False) -> Graph:
    """Return a network of images as large as the tiny artifact's."""
    conv = {"in_channels": 3, "out_channels": 4, "kernel_size": 3}
    linear = {"in_features": 4 * (SIDE - 2) ** 2, "out_features": 7}
    flatten = {"start_dim": 1, "end_dim": -1}
    layers = (("Conv2d", conv), ("ReLU", {}), ("Flatten", flatten), ("Linear", linear))
    return chain((batch, 3, SIDE, SIDE), *layers, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [True, False], ids=["any batch", "batch of 1"])
def test_the_self_test_is_what_the_network_gives(dynamic: bool) -> None:
    """The stored answers are float64's; onnxruntime is within the stored bound of them."""
    graph = classifier(2, dynamic=True) if dynamic else classifier(1)
    network = filled(graph)
    test = self_test(Checkpoint(spec(), network, Report((), None)))
    assert test is not None
    images = pictures(INPUT)
    exact = run(build(network).double(), [images[:1]], torch.float64)[0]
    np.testing.assert_array_equal(test.outputs[:1], exact.astype(np.float32))
    session = Session(export_onnx(build(network), graph).SerializeToString())
    outputs = np.concatenate([session.run(row[None])[0] for row in images])
    assert test.check(outputs, "float32", "onnxruntime") <= 1 / FLOAT32_BOUNDS


def test_what_cannot_be_served_has_no_self_test() -> None:
    """A network that takes no image, or several at a time only."""
    network = filled(classifier(2))
    assert self_test(Checkpoint(spec(), network, Report((), None))) is None
    assert self_test(Checkpoint(spec(None), network, Report((), None))) is None
