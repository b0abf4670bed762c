"""A module -> ONNX, with the spec, the report and the source's digest inside the file."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout

import numpy as np
import onnx
import torch
from torch import fx

from models.build import build
from models.errors import ExportError
from models.graph import Graph, Input, Network, Node, Shape, numbered
from models.ops import infer

OPSET = 18  # the exporter's own; every runtime of the last years reads it


def export_onnx(module: fx.GraphModule, graph: Graph) -> onnx.ModelProto:
    """Return the ONNX form of what `build(Network(graph, ...))` gave.

    Inputs are named as in the graph, outputs `output` or `output_1`, ...; the first dimension is
    `batch` where the graph is dynamic. Weights are inside. The exporter folds BatchNorm into
    convolutions, so initializers differ from the module's tensors by design: compare outputs.

    Raises:
        ExportError: ONNX, or its exporter, cannot express the network exactly.
    """
    try:
        with _quiet():
            proto = _exported(module, graph)
    except _REFUSALS as error:
        layers = ", ".join(_inexpressible(graph)) or "the network, though it can each layer"
        raise ExportError(f"ONNX cannot express {layers}: {_reason(error)}") from error
    batches = [given.type.tensor_type.shape.dim[0] for given in proto.graph.input]
    if graph.dynamic and not all(batch.dim_param for batch in batches):
        raise ExportError(
            f"ONNX cannot express a batch of any size: it came out as {batches[0].dim_value}"
        )
    return proto


_REFUSALS = (
    torch.onnx.OnnxExporterError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
)


def _exported(module: fx.GraphModule, graph: Graph) -> onnx.ModelProto:
    examples = tuple(torch.zeros(_example(given.shape, graph.dynamic)) for given in graph.inputs)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        module,
        examples,
        dynamo=True,
        verbose=False,
        external_data=False,
        opset_version=OPSET,
        input_names=[given.name for given in graph.inputs],
        output_names=list(graph.output_names()),
        dynamic_shapes=tuple({0: batch} for _ in examples) if graph.dynamic else None,
    )
    assert program is not None  # None is for a call that writes the file itself
    proto: onnx.ModelProto = program.model_proto
    _forget_origin(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _forget_origin(proto: onnx.ModelProto) -> None:
    """Remove what the exporter noted of the program and the machine that it ran on."""
    graph = proto.graph
    for noted in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del noted.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]


def _reason(error: Exception) -> str:
    """Return the exporter's own last word, which its message wraps in advice about itself."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join(str(error).split())[-300:]


def _inexpressible(graph: Graph) -> list[str]:
    """Return the layers, with their ops, that cannot be exported even alone."""
    shapes = {given.name: given.shape for given in graph.inputs}
    indices = {node.name for node in graph.nodes if node.op == "MaxPoolIndices"}
    found: list[str] = []
    tried: dict[str, bool] = {}
    for node in graph.nodes:
        inputs = [shapes[name] for name in node.inputs]
        inferred = infer(node.op, node.attrs, inputs)
        shapes[node.name] = inferred.shape
        key = f"{node.op} {node.attrs} {inputs}"
        if indices.intersection(node.inputs):  # whole numbers, of which alone there are none
            continue
        if key not in tried:
            tried[key] = _exports(node, inputs, inferred.tensors)
        if not tried[key]:
            found.append(f"{node.name} ({node.op})")
    return found


def _exports(node: Node, shapes: list[Shape], tensors: Mapping[str, Shape]) -> bool:
    names = numbered("input", len(shapes))
    inputs = tuple(Input(name, shape) for name, shape in zip(names, shapes, strict=True))
    graph = Graph(inputs, (node._replace(inputs=names),), (node.name,))
    numbers = {f"{node.name}.{name}": np.ones(size, np.float32) for name, size in tensors.items()}
    try:
        with _quiet():
            _exported(build(Network(graph, numbers)), graph)
    except _REFUSALS:
        return False
    return True


def annotate(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Put texts into `metadata_props`, where onnxruntime's `get_modelmeta` finds them."""
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return proto


def _example(shape: tuple[int, ...], dynamic: bool) -> tuple[int, ...]:
    # torch.export takes a size of 0 or 1 for a constant, so a dynamic batch is shown as 3
    return (3, *shape[1:]) if dynamic else shape


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter about itself off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
