"""A module -> ONNX, with the spec, the report and the source's digest inside the file."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout

import onnx
import torch
from torch import fx

from models.errors import ArtifactError
from models.graph import Graph

OPSET = 18  # the exporter's own; every runtime of the last years reads it


def export_onnx(module: fx.GraphModule, graph: Graph) -> onnx.ModelProto:
    """Return the ONNX form of what `build(Network(graph, ...))` gave.

    Inputs are named as in the graph, outputs `output` or `output_1`, ...; the first dimension is
    `batch` where the graph is dynamic. Weights are inside. The exporter folds BatchNorm into
    convolutions, so initializers differ from the module's tensors by design: compare outputs.

    Raises:
        ArtifactError: The exporter cannot express the network.
    """
    examples = tuple(torch.zeros(_example(given.shape, graph.dynamic)) for given in graph.inputs)
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
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
        onnx.checker.check_model(proto, full_check=True)
    except (
        torch.onnx.OnnxExporterError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        reason = " ".join(str(error).split())[-300:]
        raise ArtifactError(
            f"ONNX cannot express this network, --no-onnx converts without it: {reason}"
        ) from error
    batches = [given.type.tensor_type.shape.dim[0] for given in proto.graph.input]
    if graph.dynamic and not all(batch.dim_param for batch in batches):
        raise ArtifactError(
            "ONNX cannot express this network, --no-onnx converts without it: "
            f"the exporter fixed the batch at {batches[0].dim_value}"
        )
    return proto


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
