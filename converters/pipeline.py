"""The flow: a file goes in, one value travels forward, verified artifacts come out."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import onnx
import torch

from converters.formats import Format, Lowered, Source
from converters.packing import base_name, sha256, unpacked
from models import checkpoint as checkpoints
from models import ops
from models.architectures import ARCHITECTURES, Architecture, recognise
from models.build import build
from models.checkpoint import Checkpoint
from models.errors import (
    FormatError,
    LegacyModelError,
    ParityError,
    SpecError,
    UnsupportedLayer,
    WeightMismatch,
)
from models.export import annotate, export_onnx
from models.files import Written, refuse_existing, writing
from models.graph import Graph, Network, Shape
from models.labels import labels_for
from models.presets import PRESETS, RELEASES, preset
from models.report import Report
from models.spec import InputSpec, ModelSpec, Origin, Output
from models.terminal import step
from models.verify import verify

BATCH = 2  # what image networks are lowered at: with 1, Torch7's View drops the batch dimension

Decided = Literal["flag", "sha256", "fingerprint"]


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

    def refuse_existing(self, *, force: bool) -> None:
        """Raise ArtifactError if one is there already."""
        refuse_existing([path for path in self if path is not None], force=force)


class Outcome(NamedTuple):
    """What a conversion found, measured and wrote."""

    source: Path
    classes: Counter[str]
    title: str | None
    checkpoint: Checkpoint
    targets: Targets


def convert(path: Path, source_format: Format, options: Options) -> Outcome:
    """Convert one file: read, find its input convention, verify, write.

    Raises:
        LegacyModelError: Whatever stands against an exact conversion; no file is written then.
    """
    path = path.resolve()
    targets = _targets(path, options)
    targets.refuse_existing(force=options.force)
    with step("reading"), unpacked(path) as plain:
        digest = sha256(plain)
        source = source_format.open(plain, path)
        source.check(ops.infer)
    with step("translating layers"):
        lowered, given, decided, known = _resolve(source, digest, options)
    spec = ModelSpec(
        name=options.name or base_name(path),
        input=given,
        labels=labels_for(_classes(lowered.shapes), images=given is not None, file=options.labels),
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
    )


def export(path: Path, options: Options) -> Outcome:
    """Write the ONNX form of a `.pt` or `.safetensors` artifact, verified as by `convert`."""
    path = path.resolve()
    wanted = _targets(path, options)
    targets = Targets(None, wanted.onnx, None)
    targets.refuse_existing(force=options.force)
    with step("reading"):
        checkpoint = checkpoints.read(path)
    spec = replace(checkpoint.spec, name=options.name) if options.name else checkpoint.spec
    report = _write(spec, checkpoint.network, targets)
    known = ARCHITECTURES.get(spec.architecture or "")
    title = known.title if known else None
    return Outcome(path, Counter(), title, Checkpoint(spec, checkpoint.network, report), targets)


def _targets(path: Path, options: Options) -> Targets:
    folder = (options.out or path.parent).resolve()
    stem = folder / (options.name or base_name(path))
    return Targets(
        Path(f"{stem}.pt"),
        Path(f"{stem}.onnx") if options.onnx else None,
        Path(f"{stem}.safetensors") if options.safetensors else None,
    )


class Resolved(NamedTuple):
    """A lowered network, how images enter it, what decided that, and what it is."""

    lowered: Lowered
    input: InputSpec | None
    decided: Decided
    known: Architecture | None


def _resolve(source: Source, digest: str, options: Options) -> Resolved:
    """Find the input convention: what the user says, else a known file, else a known structure."""
    if options.shapes and options.input != "none":
        raise SpecError(
            "--input-shape is for networks without an input convention: it goes with --input none"
        )
    if options.input == "none":
        if not options.shapes:
            raise SpecError(
                "--input none: no shapes; --input-shape 2,3,8,8 gives them (more inputs after ;)"
            )
        return _recognised(_lowered(source, options.shapes), None, "flag")
    if options.input is not None:
        given, decided = preset(options.input), "flag"
    elif digest in RELEASES:
        given, decided = PRESETS[RELEASES[digest]], "sha256"
    else:
        return _by_structure(source)
    lowered = _lowered(source, [_image_shape(given)])
    _check_classifier(lowered)
    return _recognised(lowered, given, "flag" if decided == "flag" else "sha256")


def _by_structure(source: Source) -> Resolved:
    """Lower at every size that a known architecture takes, and look whether it is one."""
    reason = ""
    for given in dict.fromkeys(entry.input for entry in ARCHITECTURES.values()):
        try:
            found = _recognised(_lowered(source, [_image_shape(given)]), given, "fingerprint")
        except (FormatError, UnsupportedLayer, WeightMismatch) as error:
            reason = reason or f" (at {given.crop[0]} x {given.crop[1]} pixels: {error})"
            continue
        if found.known is not None and found.known.input == given:
            _check_classifier(found.lowered)
            return found
    raise SpecError(
        "how images enter this network is not in the file, and its structure is not a known one: "
        f"--input PRESET says it, with {', '.join(PRESETS)}; "
        f"or --input none with --input-shape{reason}"
    )


def _image_shape(given: InputSpec) -> Shape:
    return (BATCH, 3, *given.crop)


def _lowered(source: Source, shapes: tuple[Shape, ...] | list[Shape]) -> Lowered:
    """Lower, and find out by a second batch size whether the first dimension may have any size."""
    lowered = source.lower(shapes, ops.infer)
    graph = lowered.network.graph
    if len({shape[:1] for shape in shapes}) == 1 and shapes[0]:
        larger = [(shape[0] + 1, *shape[1:]) for shape in shapes]
        try:
            other = source.lower(larger, ops.infer).network.graph
        except LegacyModelError:
            return lowered
        graph = replace(graph, dynamic=replace(other, inputs=graph.inputs) == graph)
    return _Relowered(lowered.network._replace(graph=graph), lowered.shapes)


class _Relowered(NamedTuple):
    network: Network
    shapes: tuple[Shape, ...]


def _recognised(lowered: Lowered, given: InputSpec | None, decided: Decided) -> Resolved:
    found = recognise(lowered.network)
    if found is None:
        return Resolved(lowered, given, decided, None)
    return Resolved(_Relowered(found.network, lowered.shapes), given, decided, found.architecture)


def _check_classifier(lowered: Lowered) -> None:
    if not lowered.network.graph.dynamic or _classes(lowered.shapes) == 0:
        shapes = " and ".join("x".join(map(str, shape)) for shape in lowered.shapes)
        raise SpecError(
            f"an image classifier gives batch x classes, this network gives {shapes} "
            f"for a batch of {BATCH}: --input none --input-shape converts it as it is"
        )


def _classes(shapes: tuple[Shape, ...]) -> int:
    """Return K where the only output is N x K, else 0."""
    return shapes[0][1] if len(shapes) == 1 and len(shapes[0]) == 2 else 0


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
