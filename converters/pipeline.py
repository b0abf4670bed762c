"""The flow: a file goes in, one value travels forward, verified artifacts come out."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import onnx
import torch

from converters.convention import classes, resolve
from converters.formats import Opener
from converters.packing import base_name, sha256, unpacked
from models import checkpoint as checkpoints
from models import ops
from models.architectures import ARCHITECTURES
from models.build import build, check_shapes
from models.checkpoint import Checkpoint
from models.errors import ArtifactError, ParityError, SpecError
from models.export import annotate, export_onnx
from models.files import Written, refuse_existing, writing
from models.graph import Graph, Network, Shape
from models.labels import labels_for, read_labels
from models.presets import preset
from models.report import Report
from models.spec import ModelSpec, Origin, Output
from models.terminal import step
from models.verify import verify


@dataclass(frozen=True)
class Options:
    """What the user said about a conversion.

    Attributes:
        out: Folder of the artifacts; None for the source's own.
        name: File name without ending, and the model's name; None for the source's.
        input: Preset name, `none` for a network that takes no image, None to find it out.
        shapes: Exact shape of each input, with `input="none"` only.
        labels: Label file.
        onnx: Write the ONNX file.
        safetensors: Write the `.safetensors` file as well.
        force: Overwrite.
    """

    out: Path | None = None
    name: str | None = None
    input: str | None = None
    shapes: tuple[Shape, ...] = ()
    labels: Path | None = None
    onnx: bool = True
    safetensors: bool = False
    force: bool = False


class Targets(NamedTuple):
    """Where the artifacts of a conversion go; None for one that is not wanted."""

    pt: Path | None
    onnx: Path | None
    safetensors: Path | None


class Outcome(NamedTuple):
    """What a conversion found, measured and wrote."""

    source: Path
    classes: Counter[str]
    title: str | None
    checkpoint: Checkpoint
    targets: Targets
    notes: tuple[str, ...] = ()


def convert(path: Path, opener: Opener, options: Options) -> Outcome:
    """Convert one file: read, find its input convention, verify, write.

    Raises:
        LegacyModelError: Whatever stands against an exact conversion; no file is written then.
    """
    path = path.resolve()
    targets = _targets(path, options)
    _refuse_early(path, targets, options)
    with step("reading"), unpacked(path) as plain:
        digest = sha256(plain)
        source = opener(plain, path)
        source.check(ops.infer)
    with step("translating layers"):
        lowered, given, decided, known = resolve(source, digest, options.input, options.shapes)
    spec = ModelSpec(
        name=options.name or base_name(path),
        input=given,
        labels=labels_for(classes(lowered.shapes), images=given is not None, file=options.labels),
        output=_output_kind(lowered.network.graph),
        architecture=known.name if known else None,
        origin=Origin(source.format, path.name, digest, decided),
    )
    network = lowered.network
    report = _write(spec, network, targets)
    return Outcome(
        path,
        source.classes,
        known.title if known else None,
        Checkpoint(spec, network, report),
        targets,
        source.notes,
    )


def export(path: Path, options: Options) -> Outcome:
    """Write the ONNX form of a `.pt` or `.safetensors` artifact, verified as by `convert`."""
    path = path.resolve()
    wanted = _targets(path, options)
    targets = Targets(None, wanted.onnx, None)
    _refuse_early(path, targets, options)
    with step("reading"):
        checkpoint = checkpoints.read(path)
        check_shapes(checkpoint.network.graph, str(path))
    spec = replace(checkpoint.spec, name=options.name) if options.name else checkpoint.spec
    report = _write(spec, checkpoint.network, targets)
    known = ARCHITECTURES.get(spec.architecture or "")
    title = known.title if known else None
    return Outcome(path, Counter(), title, Checkpoint(spec, checkpoint.network, report), targets)


def _refuse_early(path: Path, targets: Targets, options: Options) -> None:
    """Find what would fail at the end anyway, before any work."""
    if not path.exists():
        raise SpecError(f"{path}: no such file")
    wanted = [target for target in targets if target is not None]
    if path in wanted:
        raise ArtifactError(f"{path}: the result would replace its source; -o DIR or --name NAME")
    folder = wanted[0].parent
    if folder.exists() and not folder.is_dir():
        raise SpecError(f"-o {folder}: a file, expected a folder")
    try:
        folder.joinpath(wanted[0].name).as_posix().encode()
    except UnicodeEncodeError as error:
        raise SpecError(f"{path!a}: not a UTF-8 name: --name NAME gives another") from error
    if options.input not in (None, "none"):
        preset(options.input)
    if options.labels is not None:
        read_labels(options.labels)
    refuse_existing(wanted, force=options.force)


def _targets(path: Path, options: Options) -> Targets:
    folder = (options.out or path.parent).resolve()
    stem = folder / (options.name or base_name(path))
    return Targets(
        Path(f"{stem}.pt"),
        Path(f"{stem}.onnx") if options.onnx else None,
        Path(f"{stem}.safetensors") if options.safetensors else None,
    )


def _output_kind(graph: Graph) -> Output:
    """Read off the last layer what the output is."""
    node = graph.node(graph.outputs[0])
    while node is not None and node.op in ("Reshape", "Flatten", "Identity"):
        node = graph.node(node.inputs[0])
    if node is not None and node.op == "LogSoftmax":
        return "log_probabilities"
    if node is not None and node.op == "Softmax":
        return "probabilities"
    return "logits"


def _write(spec: ModelSpec, network: Network, targets: Targets) -> Report:
    """Build, export, verify, and write every wanted artifact, or none."""
    module = build(network)
    proto: onnx.ModelProto | None = None
    if targets.onnx is not None:
        with step("exporting to ONNX"):
            proto = export_onnx(module, network.graph)
    with step("verifying against float64"):
        report = verify(module, network.graph, proto)
    checkpoint = Checkpoint(spec, network, report)
    for target in filter(None, targets):
        target.parent.mkdir(parents=True, exist_ok=True)
    with step("writing"), writing() as files:
        if targets.pt is not None:
            _write_pt(files, targets.pt, checkpoint)
        if targets.safetensors is not None:
            checkpoints.save_safetensors(files.new(targets.safetensors), checkpoint)
        if targets.onnx is not None and proto is not None:
            metadata = {
                "model_spec": spec.to_json(),
                "source_sha256": spec.origin.sha256,
                "report": report.to_json(),
            }
            onnx.save_model(annotate(proto, metadata), files.new(targets.onnx))
    return report


def _write_pt(files: Written, target: Path, checkpoint: Checkpoint) -> None:
    """Write the `.pt` and read it back: every bit of every tensor has to be there."""
    temporary = files.new(target)
    checkpoints.save_pt(temporary, checkpoint)
    again = checkpoints.load_pt(temporary)
    built, rebuilt = build(checkpoint.network).state_dict(), build(again.network).state_dict()
    if again.spec != checkpoint.spec or again.network.graph != checkpoint.network.graph:
        raise ParityError(
            f"{target}: the spec or the graph read back differs from what was written"
        )
    if built.keys() != rebuilt.keys() or not all(
        torch.equal(built[name], rebuilt[name]) for name in built
    ):
        raise ParityError(f"{target}: tensors read back differ from what was written")
