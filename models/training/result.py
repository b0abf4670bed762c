"""What a run leaves: the artifact that the converters write, of the weights that it trained."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import nn

from models import checkpoint as checkpoints
from models.architectures import find
from models.build import build
from models.checkpoint import Checkpoint
from models.data.samples import Samples
from models.export import annotate, export_onnx
from models.files import writing
from models.graph import Graph
from models.labels import labels_for
from models.presets import PRESETS
from models.recipes import Recipe
from models.spec import Label, ModelSpec, Origin, Output
from models.trace import trace
from models.training.network import Factory
from models.verify import verify

WNID = re.compile(r"n\d{8}")
FORMAT = "relume-training"


def checkpoint_of(
    name: str, recipe: Recipe, make: Factory, weights: Mapping[str, torch.Tensor], samples: Samples
) -> Checkpoint:
    """Return a run's weights as a verified checkpoint of that name.

    Raises:
        ArtifactError: The network does something that graphs have no word for.
    """
    module = make()
    module.load_state_dict({name: one.detach().cpu().float() for name, one in weights.items()})
    spec = PRESETS[recipe.evaluation]
    network = trace(module.eval(), [(2, 3, *spec.crop)])
    decided = f"{recipe.to_json()}\n{samples.digest}".encode()
    made = ModelSpec(
        name=name,
        input=spec,
        labels=labels_of(samples.classes),
        output=_output_kind(network.graph),
        architecture=find(recipe.architecture).name if _is_named(module) else None,
        origin=Origin(FORMAT, f"{recipe.name}.json", hashlib.sha256(decided).hexdigest(), "flag"),
    )
    report = verify(build(network), network.graph, None)
    return Checkpoint(made, network, report)


def _is_named(module: nn.Module) -> bool:
    return not isinstance(module, torch.fx.GraphModule)


def labels_of(classes: tuple[str, ...]) -> tuple[Label, ...]:
    """Return labels for the classes of a data set; ImageNet's folders are WordNet ids."""
    known = {one.wnid: one for one in labels_for(1000, images=True)}
    return tuple(
        known.get(name, Label(name, name)) if WNID.fullmatch(name) else Label(None, name)
        for name in classes
    )


def _output_kind(graph: Graph) -> Output:
    node = graph.node(graph.outputs[0])
    return "log_probabilities" if node is not None and node.op == "LogSoftmax" else "logits"


def write_pt(path: Path, checkpoint: Checkpoint) -> None:
    """Put the `.pt` in place."""
    with writing() as files:
        checkpoints.save_pt(files.new(path), checkpoint)


def write_onnx(path: Path) -> Checkpoint:
    """Write the `.onnx` beside a `.pt`, and the `.pt` again with what was measured of both.

    Raises:
        ExportError: ONNX cannot express the network.
        ParityError: The ONNX form differs.
    """
    given = checkpoints.load_pt(path)
    module = build(given.network)
    proto = export_onnx(module, given.network.graph)
    report = verify(module, given.network.graph, proto)
    written = given._replace(report=report)
    texts = {
        "model_spec": given.spec.to_json(),
        "source_sha256": given.spec.origin.sha256,
        "report": report.to_json(),
    }
    with writing() as files:
        checkpoints.save_pt(files.new(path), written)
        onnx.save_model(annotate(proto, texts), files.new(path.with_suffix(".onnx")))
    return written
