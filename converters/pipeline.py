"""The flow: a file goes in, one value travels forward, verified artifacts come out."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from torch import fx

from converters.comparison import Comparison, compare
from converters.convention import Resolved, classes, resolve
from converters.formats import Opener, Source
from converters.lowering import Lowered
from converters.packing import base_name, sha256, unpacked
from models import checkpoint as checkpoints
from models import ops
from models.architectures import find, recognise
from models.build import build, check_shapes
from models.checkpoint import Checkpoint
from models.errors import ArtifactError, ExportError, ParityError, SpecError
from models.export import annotate, export_onnx
from models.files import Written, refuse_existing, writing
from models.graph import Graph, Shape, float32, is_statistic
from models.labels import labels_for, read_labels
from models.optimizer import Optimizer, save_optimizer
from models.presets import preset
from models.report import Report
from models.spec import ModelSpec, Origin, Output
from models.terminal import step
from models.verify import self_test, verify


@dataclass(frozen=True)
class Options:
    """What the user said about a conversion.

    Attributes:
        out: Folder of the artifacts; None for the source's own.
        name: File name without ending, and the model's name; None for the source's.
        input: Preset name, `none` for a network that takes no image, None to find it out.
        shapes: Exact shape of each input, with `input="none"` only.
        labels: Label file.
        kinds: Which artifacts to write: `pt`, `onnx`, `safetensors`.
        optimizer: State of the optimizer that trained the network, to be written beside it.
        epoch: How many epochs it was trained for, where known.
        compare: Hold every layer against the original's definition as well.
        force: Overwrite.
    """

    out: Path | None = None
    name: str | None = None
    input: str | None = None
    shapes: tuple[Shape, ...] = ()
    labels: Path | None = None
    kinds: frozenset[str] = frozenset({"pt", "onnx"})
    optimizer: Path | None = None
    epoch: int | None = None
    compare: bool = False
    force: bool = False


class Targets(NamedTuple):
    """Where the artifacts of a conversion go; None for one that is not wanted."""

    pt: Path | None
    onnx: Path | None
    safetensors: Path | None
    optimizer: Path | None = None


class Outcome(NamedTuple):
    """What a conversion found, measured and wrote."""

    source: Path
    classes: Counter[str]
    title: str | None
    checkpoint: Checkpoint
    targets: Targets
    no_onnx: str | None = None  # why there is no ONNX file though one was wanted
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()


class Compared(NamedTuple):
    """What the comparison of a checkpoint with its original's definitions found."""

    source: Path
    sha256: str
    format: str
    classes: Counter[str]
    shapes: tuple[Shape, ...]
    comparison: Comparison


def convert(path: Path, opener: Opener, options: Options) -> Outcome:
    """Convert one file: read, find its input convention, verify, write.

    Raises:
        LegacyModelError: Whatever stands against an exact conversion; no file is written then.
    """
    path = path.resolve()
    targets = _targets(path, options)
    _refuse_early(path, targets, options)
    source, digest = opened(path, opener)
    _refuse_taken(path, targets, options)
    with step("translating layers"):
        resolved = resolve(source, digest, options.input, options.shapes)
    spec = _spec(
        path, Origin(source.format, path.name, digest, resolved.decided), resolved, options
    )
    comparison = _compared(source, resolved.wired) if options.compare else None
    network = resolved.lowered.network
    module = build(network)
    proto, refused = _exported(module, network.graph, targets)
    if refused is not None and targets.pt is targets.safetensors is None:
        raise ExportError(f"{path}: {refused}")
    checkpoint = Checkpoint(spec, network, _verified(path, module, network.graph, proto))
    optimizer = _optimizer(source, options, checkpoint) if options.optimizer else None
    _write(checkpoint, proto, targets, optimizer)
    if refused is not None and targets.onnx is not None:
        targets.onnx.unlink(missing_ok=True)  # with --force: it would be another network's
        targets = targets._replace(onnx=None)
    title = resolved.known.title if resolved.known else None
    return Outcome(
        path, source.classes, title, checkpoint, targets, refused, comparison, source.notes
    )


def opened(path: Path, opener: Opener) -> tuple[Source, str]:
    """Return the open checkpoint, whose layers all have rules, and the digest of its bytes.

    Raises:
        SpecError: There is no such file.
        FormatError, UnsupportedLayer: It is damaged, or has layers that nobody knows.
    """
    if not path.exists():
        raise SpecError(f"{path}: no such file")
    with step("reading"), unpacked(path) as plain:
        digest = sha256(plain)
        source = opener(plain, path)
        source.check(ops.infer)
    return source, digest


def _spec(path: Path, origin: Origin, resolved: Resolved, options: Options) -> ModelSpec:
    count = classes(resolved.lowered.shapes)
    return ModelSpec(
        name=options.name or base_name(path),
        input=resolved.input,
        labels=labels_for(count, images=resolved.input is not None, file=options.labels),
        output=_output_kind(resolved.lowered.network.graph),
        architecture=resolved.known.name if resolved.known else None,
        origin=origin,
    )


def verify_source(
    path: Path, opener: Opener, asked: str | None, shapes: Sequence[Shape]
) -> Compared:
    """Hold the network that a checkpoint converts to against the original's definitions.

    Args:
        path: The checkpoint.
        opener: Opens its format.
        asked: A preset's name, `none`, or None to find out, as for `convert`.
        shapes: Exact shape of each input, with `none` only.

    Raises:
        ParityError: A layer gives something else than its definition; the first is named.
        LegacyModelError: Whatever stands against an exact conversion.
    """
    path = path.resolve()
    source, digest = opened(path, opener)
    with step("translating layers"):
        wired = resolve(source, digest, asked, shapes).wired
    given = tuple(one.shape for one in wired.network.graph.inputs)
    found = _compared(source, wired)
    return Compared(path, digest, source.format, source.classes, given, found)


def _compared(source: Source, wired: Lowered) -> Comparison:
    with step("running the original's definitions"):
        return compare(source, wired)


def export(path: Path, options: Options) -> Outcome:
    """Write the ONNX form of a `.pt` or `.safetensors` artifact, verified as by `convert`."""
    path = path.resolve()
    wanted = _targets(path, options)
    targets = Targets(None, wanted.onnx, None)
    _refuse_early(path, targets, options)
    with step("reading"):
        checkpoint = checkpoints.read(path)
        check_shapes(checkpoint.network.graph, str(path))
    _refuse_taken(path, targets, options)
    spec = replace(checkpoint.spec, name=options.name) if options.name else checkpoint.spec
    graph = checkpoint.network.graph
    module = build(checkpoint.network)
    proto, refused = _exported(module, graph, targets)
    if refused is not None:
        raise ExportError(f"{path}: {refused}")
    written = Checkpoint(spec, checkpoint.network, _verified(path, module, graph, proto))
    _write(written, proto, targets)
    title = find(spec.architecture).title if spec.architecture else None
    return Outcome(path, Counter(), title, written, targets)


def _refuse_early(path: Path, targets: Targets, options: Options) -> None:
    """Find what would fail at the end anyway, before any work."""
    if not path.exists():
        raise SpecError(f"{path}: no such file")
    wanted = [target for target in targets if target is not None]
    folder = wanted[0].parent
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        raise SpecError(f"-o {folder}: {there} is a file, expected a folder")
    if not os.access(there, os.W_OK):
        raise SpecError(f"{there}: nothing can be written there; -o DIR chooses another folder")
    try:
        folder.joinpath(wanted[0].name).as_posix().encode()
    except UnicodeEncodeError as error:
        raise SpecError(f"{path!a}: not a UTF-8 name: --name NAME gives another") from error
    if options.input not in (None, "none"):
        preset(options.input)
    if options.labels is not None:
        read_labels(options.labels)


def _refuse_taken(path: Path, targets: Targets, options: Options) -> None:
    """Refuse to replace the source, or results that are there; what the file is comes first."""
    wanted = [target for target in targets if target is not None]
    if path in wanted:
        raise ArtifactError(f"{path}: the result would replace its source; -o DIR or --name NAME")
    refuse_existing(wanted, force=options.force)


def _targets(path: Path, options: Options) -> Targets:
    folder = (options.out or path.parent).resolve()
    stem = folder / (options.name or base_name(path))
    return Targets(
        Path(f"{stem}.pt") if "pt" in options.kinds else None,
        Path(f"{stem}.onnx") if "onnx" in options.kinds else None,
        Path(f"{stem}.safetensors") if "safetensors" in options.kinds else None,
        Path(f"{stem}.optimizer.pt") if options.optimizer else None,
    )


def _output_kind(graph: Graph) -> Output:
    """Read off the last layer what the output is."""
    node = graph.node(graph.outputs[0])
    while node is not None and node.op in ("Reshape", "Flatten", "Identity"):
        node = graph.node(node.inputs[0])
    if node is not None and node.op == "LogSoftmax":
        return "log_probabilities"
    if node is not None and node.op in ("Softmax", "Sigmoid"):  # Sigmoid: each class its own
        return "probabilities"
    return "logits"


def _exported(
    module: fx.GraphModule, graph: Graph, targets: Targets
) -> tuple[onnx.ModelProto | None, str | None]:
    """Return the ONNX form where one is wanted, or what stands against it."""
    if targets.onnx is None:
        return None, None
    with step("exporting to ONNX"):
        try:
            return export_onnx(module, graph), None
        except ExportError as error:
            return None, str(error)


def _verified(
    path: Path, module: fx.GraphModule, graph: Graph, proto: onnx.ModelProto | None
) -> Report:
    with step("verifying against float64"):
        try:
            return verify(module, graph, proto)
        except ParityError as error:
            raise ParityError(f"{path}: {error}") from error


def _optimizer(source: Source, options: Options, checkpoint: Checkpoint) -> Optimizer:
    """Return what the optimizer kept, under the names of the checkpoint's parameters.

    The network is lowered once more with the buffers in place of the parameters, so that whatever
    a rule does to a parameter happens to its buffer as well.
    """
    assert options.optimizer is not None
    state = source.sgd(options.optimizer)
    graph = checkpoint.network.graph
    network = source.lower([one.shape for one in graph.inputs], ops.infer, state.buffers).network
    if checkpoint.spec.architecture is not None and (found := recognise(network)) is not None:
        network = found.network
    buffers = {
        name: float32(array) for name, array in network.tensors.items() if not is_statistic(name)
    }
    settings = {key: value for key, value in state._asdict().items() if key != "buffers"}
    return Optimizer(**settings, epoch=options.epoch, buffers=buffers)


def _write(
    checkpoint: Checkpoint,
    proto: onnx.ModelProto | None,
    targets: Targets,
    optimizer: Optimizer | None = None,
) -> None:
    """Write every wanted artifact, or none."""
    spec, report = checkpoint.spec, checkpoint.report
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
            if (test := self_test(checkpoint)) is not None:
                metadata["self_test"] = test.to_json()
            onnx.save_model(annotate(proto, metadata), files.new(targets.onnx))
        if targets.optimizer is not None and optimizer is not None:
            save_optimizer(files.new(targets.optimizer), optimizer)


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
