"""ONNX: every op computes what the module computes, under names that can be relied on."""

import logging
from dataclasses import replace

import numpy as np
import onnx
import pytest

from models.build import build
from models.errors import ExportError
from models.export import OPSET, annotate, export_onnx
from models.graph import Graph, Network
from models.session import Session
from models.verify import run
from tests.oracles import ROOT
from tests.small_networks import (
    CASES,
    CLASSIFIER,
    SHARED,
    TWO_IN_TWO_OUT,
    Layer,
    batches,
    chain,
    filled,
    graph_of,
)

RELATIVE = 4 * float(np.finfo(np.float32).eps)  # of the largest output; sums of up to 36 products

TABLE = [
    case for case in CASES if case.op != "MaxUnpool" and case.attrs.get("shape") != (2, 7, 4, 8)
]
BATCH = 3  # not 2, at which the graphs below were made


class Exported:
    """A network, its module, and the session of its ONNX form."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.module = build(network)
        self.proto = export_onnx(self.module, network.graph)
        self.session = Session(self.proto.SerializeToString())

    def both(self, *shapes: tuple[int, ...]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return onnxruntime's outputs for seeded noise of these shapes, and the module's."""
        inputs = batches(shapes)
        return self.session.run(*inputs), run(self.module, inputs)


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=RELATIVE * max(1, np.abs(theirs).max()))


def every_op() -> Graph:
    """Return a graph with one output for each case: a single export is what takes the time."""
    shapes = list(dict.fromkeys(shape for case in TABLE for shape in case.shapes))
    names = {shape: f"input_{index}" for index, shape in enumerate(shapes, 1)}
    layers = [
        Layer(f"case{index}", case.op, tuple(names[shape] for shape in case.shapes), case.attrs)
        for index, case in enumerate(TABLE)
    ]
    return graph_of(shapes, *layers, outputs=[layer.name for layer in layers], dynamic=True)


@pytest.fixture(scope="module")
def exported_ops() -> Exported:
    """Return every op of the table, exported in one file."""
    return Exported(filled(every_op()))


@pytest.mark.parametrize("index", range(len(TABLE)), ids=[str(case) for case in TABLE])
def test_every_op_computes_the_same_in_onnxruntime(exported_ops: Exported, index: int) -> None:
    """Each op, in every setting of the table, at a batch size that the export never saw."""
    graph = exported_ops.network.graph
    ours, theirs = exported_ops.both(*((BATCH, *one.shape[1:]) for one in graph.inputs))
    assert_close(ours[index], theirs[index])


STATIC = {
    "unpooling": graph_of(
        [(1, 2, 5, 6)],
        Layer("pool", "MaxPool2d", ("input",), {"kernel_size": 2}),
        Layer("places", "MaxPoolIndices", ("input",), {"kernel_size": 2}),
        Layer("unpool", "MaxUnpool", ("pool", "places"), {"output_size": (5, 6)}),
    ),
    "reshape": chain((2, 4, 8, 7), ("Reshape", {"shape": (2, 7, 4, 8)})),
    "used twice": SHARED,
}


@pytest.mark.parametrize("graph", STATIC.values(), ids=STATIC)
def test_static_graphs_compute_the_same(graph: Graph) -> None:
    """Shapes that are not free are numbers in the file."""
    exported = Exported(filled(graph))
    (given,) = graph.inputs
    assert exported.session.input_shapes == (given.shape,)
    ours, theirs = exported.both(given.shape)
    assert_close(ours[0], theirs[0])


@pytest.fixture(scope="module")
def classifier() -> Exported:
    """Return a small classifier, exported."""
    return Exported(filled(CLASSIFIER))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_dynamic_graph_takes_any_batch(classifier: Exported, batch: int) -> None:
    """One file serves single images and batches; only the batch is free."""
    assert classifier.session.input_shapes == (("batch", 3, 8, 8),)
    ours, theirs = classifier.both((batch, 3, 8, 8))
    assert_close(ours[0], theirs[0])


def test_one_input_and_one_output_have_plain_names(classifier: Exported) -> None:
    """Callers may rely on `input` and `output`."""
    assert classifier.session.input_names == ("input",)
    assert classifier.session.output_names == ("output",)


def test_several_inputs_and_outputs_are_numbered() -> None:
    """In the graph's order, and with one free batch for all."""
    exported = Exported(filled(TWO_IN_TWO_OUT))
    assert exported.session.input_names == ("input_1", "input_2")
    assert exported.session.output_names == ("output_1", "output_2")
    assert exported.session.input_shapes == (("batch", 3), ("batch", 3))
    ours, theirs = exported.both((4, 3), (4, 3))
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


def test_the_opset_is_ours(classifier: Exported) -> None:
    """The file says the version that the constant says, and one file is all there is."""
    (opset,) = [
        one.version for one in classifier.proto.opset_import if one.domain in ("", "ai.onnx")
    ]
    assert opset == OPSET
    assert not any(one.external_data for one in classifier.proto.graph.initializer)


def test_exporting_leaves_the_module_as_it_was(classifier: Exported) -> None:
    """The module's numbers and its names are those of the network."""
    state = classifier.module.state_dict()
    for name, array in classifier.network.tensors.items():
        np.testing.assert_array_equal(state[name].numpy(), array)


def test_texts_travel_in_the_file(classifier: Exported) -> None:
    """What `annotate` puts in, onnxruntime gives back; a second call replaces the first."""
    proto = onnx.ModelProto()
    proto.CopyFrom(classifier.proto)
    annotate(proto, {"model_spec": "old", "gone": "x"})
    annotate(proto, {"model_spec": '{"é": 1}', "report": ""})
    metadata = Session(proto.SerializeToString()).metadata
    assert metadata == {"model_spec": '{"é": 1}', "report": ""}


def test_exporting_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """The exporter's progress and advice are not shown to the user."""
    export_onnx(build(filled(SHARED)), SHARED)
    assert capfd.readouterr() == ("", "")


def test_exporting_leaves_the_exporters_log_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that wants the exporter's own log still has it afterwards."""
    logger = logging.getLogger("torch.onnx")
    monkeypatch.setattr(logger, "level", logging.INFO)
    export_onnx(build(filled(SHARED)), SHARED)
    assert logger.level == logging.INFO


REFUSED = {
    "fixed batch": (
        replace(chain((3, 4), ("Reshape", {"shape": (3, 2, 2)})), dynamic=True),
        "a batch of any size: it came out as 3",
    ),
    # torch leaves out a last window that begins in the border; ONNX's opset 18 counts it
    "window in the border": (
        chain(
            (1, 1, 7, 7),
            ("MaxPool2d", {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}),
        ),
        r"0 \(MaxPool2d\): .*Inferred shape and existing shape differ",
    ),
}


@pytest.mark.parametrize(("graph", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_onnx_cannot_express_is_refused(graph: Graph, reason: str) -> None:
    """The error names the layers, with their ops, and the exporter's reason."""
    with pytest.raises(ExportError, match=f"^ONNX cannot express {reason}"):
        export_onnx(build(filled(graph)), graph)


def test_the_table_is_the_whole_vocabulary() -> None:
    """No op is left out of the comparison with onnxruntime."""
    static = {node.op for graph in STATIC.values() for node in graph.nodes}
    assert {case.op for case in TABLE} | static >= {case.op for case in CASES}


def test_nothing_of_the_machine_is_in_the_file() -> None:
    """No path of the program that exported it, in any of its strings."""
    written = export_onnx(build(filled(CLASSIFIER)), CLASSIFIER).SerializeToString()
    assert b".py" not in written
    assert str(ROOT).encode() not in written
