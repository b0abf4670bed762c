"""An .onnx as Triton's model repository: what its onnxruntime backend needs to serve it.

Source: triton-inference-server/server docs/user_guide/model_repository.md and
model_configuration.md; triton-inference-server/common protobuf/model_config.proto;
triton-inference-server/core src/model_config_utils.cc for what it refuses.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from models.engines import EngineOptions, check_engine, open_engine
from models.errors import ArtifactError
from models.image_network import ImageNetwork
from models.preprocess import preprocess
from models.spec import InputSpec, ModelSpec
from models.terminal import escaped

CONFIG, LABELS, MODEL = "config.pbtxt", "labels.txt", "1/model.onnx"
ANY = -1  # how Triton writes a size that is not fixed
MOST = 2**31 - 1  # images of a batch: max_batch_size is an int32
# onnxruntime's default on a GPU is TensorFloat-32, which keeps ten bits of a product; the numbers
# that were verified have 24. The backend hands these parameters on to the CUDA provider.
EXACT = (
    "optimization {",
    "  execution_accelerators {",
    "    gpu_execution_accelerator {",
    '      name: "cuda"',
    '      parameters { key: "use_tf32" value: "0" }',
    "    }",
    "  }",
    "}",
)


class Tensor(NamedTuple):
    """One input or output of the graph."""

    name: str
    shape: tuple[int, ...]  # with the batch; ANY where it is free


class Model(NamedTuple):
    """What the configuration is made of.

    Attributes:
        spec: The artifact's own description.
        input: How an image becomes a row of a batch.
        image: The tensor that takes the batch.
        outputs: The first gives the classes.
        fixed: Whether the network takes one image at a time.
        sha256: Of the .onnx.
    """

    spec: ModelSpec
    input: InputSpec
    image: Tensor
    outputs: Sequence[Tensor]
    fixed: bool
    sha256: str


def export(source: Path, repository: Path, *, max_batch: int, force: bool) -> None:
    """Write the model's folder into a repository, and say what it is.

    Raises:
        ArtifactError: The source is no classifier that relume wrote, a folder is in the way, or the
            batch is larger than Triton can be told.
        SpecError: The network takes no image.
        ParityError: It computes something else here than it says of itself.
    """
    if max_batch > MOST:
        raise ArtifactError(f"--max-batch: found {max_batch:,}, expected at most {MOST:,}")
    model, checked = read(source)
    texts = {CONFIG: config(model, max_batch), LABELS: labels(model.spec, source)}
    target = repository / model.spec.name
    with _folder(target, force=force) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / MODEL).parent.mkdir()
        shutil.copyfile(source, folder / MODEL)
    lines = (
        f"{target}: for Triton's onnxruntime backend",
        f"  checked     {checked}",
        f"  input       {model.image.name}: {model.spec.input}",
        f"  output      {model.outputs[0].name}: {model.spec.output} of {LABELS}",
        f"  batches     {'one image, as the file says' if model.fixed else f'up to {max_batch}'}",
        f"  serve       tritonserver --model-repository={repository}",
    )
    print("\n".join(map(escaped, lines)))


def read(source: Path) -> tuple[Model, str]:
    """Return what is known of an .onnx, and what running it here showed.

    Raises:
        ArtifactError, SpecError, ParityError: As for `export`.
    """
    if source.suffix != ".onnx":
        raise ArtifactError(
            f"{source}: expected an .onnx: `relume convert` writes it, `relume onnx` that of a .pt"
        )
    engine = open_engine(source, EngineOptions(device="cpu"))
    spec = ModelSpec.of_metadata(engine.metadata, str(source))
    network = ImageNetwork(
        str(source), spec, engine.inputs, lambda rows: engine.run(rows, alone=True)
    )
    if not _is_folders(spec.name):
        raise ArtifactError(
            f"{source}: found the name {spec.name!r}, expected one that a folder can have: "
            "convert it again with --name"
        )
    black = preprocess(np.zeros((*network.input.crop, 3), np.uint8), network.input)
    network.probabilities(np.stack([black, black]))
    checked = check_engine(engine, network.input)
    image, outputs = _tensors(source)
    classes = len(spec.labels)  # as the run has shown, where the graph does not say it
    outputs[0] = outputs[0]._replace(shape=(outputs[0].shape[0], classes))
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    fixed = network.fixed_batch is not None
    return Model(spec, network.input, image, outputs, fixed, digest), checked


def _is_folders(name: str) -> bool:
    """Tell whether a folder of the repository can have a name that a file says."""
    return name.isprintable() and re.fullmatch(r"[^./\\][^/\\]*", name) is not None


def config(model: Model, max_batch: int) -> str:
    """Return config.pbtxt: protobuf's text form of Triton's ModelConfig.

    A batch is whatever waits when an instance is free, so no image waits for others to come. No
    size is preferred: the backend runs every one alike.
    """
    format_ = [] if model.fixed else ["  format: FORMAT_NCHW"]  # of three dimensions, no more
    about = {
        "relume_input": json.dumps(asdict(model.input)),
        "relume_output": model.spec.output,
        "relume_sha256": model.sha256,
    }
    lines = [
        f"name: {_quoted(model.spec.name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {0 if model.fixed else max_batch}",
        *_tensor("input", model.image, model.fixed, format_),
    ]
    for at, output in enumerate(model.outputs):
        named = [f"  label_filename: {_quoted(LABELS)}"] if at == 0 else []
        lines += _tensor("output", output, model.fixed, named)
    lines += ["version_policy { latest { num_versions: 1 } }"]
    lines += [] if model.fixed else ["dynamic_batching { }"]
    lines += EXACT
    for key, text in about.items():
        value = f"value {{ string_value: {_quoted(text)} }}"
        lines.append(f"parameters {{ key: {_quoted(key)} {value} }}")
    return "\n".join(lines) + "\n"


def labels(spec: ModelSpec, source: Path) -> str:
    """Return the names of the classes, one a line in the order of the outputs.

    Raises:
        ArtifactError: A name would be more than one line.
    """
    for at, label in enumerate(spec.labels):
        if len(label.name.splitlines()) > 1:
            raise ArtifactError(
                f"{source}: label {at}: found {label.name!r}, expected one line: convert it "
                "again with --labels"
            )
    return "".join(f"{label.name}\n" for label in spec.labels)


def _tensors(source: Path) -> tuple[Tensor, list[Tensor]]:
    """Return the only input and the outputs, as the file declares them.

    Raises:
        ArtifactError: A tensor is of a type or shape that cannot be told to Triton, or weights are
            in another file.
    """
    graph = onnx.load(source, load_external_data=False).graph
    if any(one.data_location == TensorProto.EXTERNAL for one in graph.initializer):
        raise ArtifactError(f"{source}: its weights are in another file, expected them within")
    weights = {one.name for one in graph.initializer}
    (image,) = (one for one in graph.input if one.name not in weights)
    return _declared(source, image), [_declared(source, one) for one in graph.output]


def _declared(source: Path, value: onnx.ValueInfoProto) -> Tensor:
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT or not tensor.HasField("shape"):
        found = TensorProto.DataType.Name(tensor.elem_type)
        found += "" if tensor.HasField("shape") else " without a shape"
        raise ArtifactError(f"{source}: {value.name}: found {found}, expected FLOAT with a shape")
    sizes = (one.dim_value if one.HasField("dim_value") else ANY for one in tensor.shape.dim)
    return Tensor(value.name, tuple(sizes))


def _tensor(field: str, tensor: Tensor, fixed: bool, more: Sequence[str]) -> list[str]:
    shape = tensor.shape if fixed else tensor.shape[1:]  # Triton puts the batch before it
    return [
        f"{field} {{",
        f"  name: {_quoted(tensor.name)}",
        "  data_type: TYPE_FP32",  # in files of lower precision, too
        *(f"  dims: {size}" for size in shape),
        *more,
        "}",
    ]


def _quoted(text: str) -> str:
    """Return a text as protobuf's text form has it: bytes that are not plain are octal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').encode()
    plain = (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in escaped)
    return f'"{"".join(plain)}"'


@contextmanager
def _folder(target: Path, *, force: bool) -> Iterator[Path]:
    """Give an empty folder that takes the target's place when the block ends well.

    Raises:
        ArtifactError: Something is there, and may not or should not be replaced.
    """
    if target.exists():
        if not force:
            raise ArtifactError(f"{target}: already there; --force overwrites, -o writes elsewhere")
        ours = {CONFIG, LABELS, MODEL}
        files = (one.relative_to(target) for one in target.rglob("*") if not one.is_dir())
        if not target.is_dir() or (others := {one.as_posix() for one in files} - ours):
            what = f"holds {sorted(others)[0]}" if target.is_dir() else "is a file"
            raise ArtifactError(f"{target}: {what}, which relume did not write: move it away")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".relume-") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        yield new
        try:
            if target.exists():
                os.rename(target, old)
            os.rename(new, target)
        except BaseException:  # SIGTERM, too: the old model would end with the folder beside it
            if old.exists() and not target.exists():
                os.rename(old, target)
            raise
