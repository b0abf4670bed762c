"""The artifact for people who go on in PyTorch: spec, graph, report and tensors in one file.

`.pt` is a dictionary of JSON texts and a `state_dict`, loadable with `weights_only=True` and
without any class of ours; `.safetensors` holds the same, its texts in the metadata. docs/formats.md
says what is promised.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import fx

from models.build import build
from models.errors import ArtifactError
from models.graph import Array, Graph, Network, float32
from models.report import Report
from models.spec import ModelSpec

FORMAT = "relume"
SCHEMA = 1
TEXTS = ("spec", "graph", "report")

# What zipfile and torch.load raise for bytes that somebody, or something, has changed.
DAMAGE = (
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    OSError,  # a seek to before the file's start
)


class Checkpoint(NamedTuple):
    """A network, what its users must know, and what was measured when it was made."""

    spec: ModelSpec
    network: Network
    report: Report


class Loaded(NamedTuple):
    """A module in evaluation mode and its spec."""

    module: fx.GraphModule
    spec: ModelSpec


def load(path: str | Path) -> Loaded:
    """Return the module and the spec of a `.pt` or `.safetensors` artifact.

    The module takes a float32 batch N x 3 x H x W as `spec.input` describes it (or what the graph's
    inputs say) and gives what `spec.output` names.

    Raises:
        ArtifactError: The file is not ours, is damaged, or is of a newer schema.
        WeightMismatch: Its tensors do not fit its graph.
    """
    checkpoint = read(Path(path))
    return Loaded(build(checkpoint.network), checkpoint.spec)


def read(path: Path) -> Checkpoint:
    """Return the content of a `.pt` or `.safetensors` artifact."""
    return load_safetensors(path) if path.suffix == ".safetensors" else load_pt(path)


def is_artifact(path: Path) -> bool:
    """Tell whether relume wrote a file, which may be damaged since: no tensor is read."""
    try:
        with path.open("rb") as file:
            safe = file.read(9)[8:] == b"{"
        if safe:
            with safetensors.safe_open(path, framework="numpy") as opened:
                return (opened.metadata() or {}).get("format") == FORMAT
        with zipfile.ZipFile(path) as archive:
            (content,) = (one for one in archive.namelist() if one.endswith("/data.pkl"))
            with archive.open(content) as pickled:
                head = pickled.read(64)  # a dictionary whose first entry is the format
                return b"format" in head and FORMAT.encode() in head
    except (safetensors.SafetensorError, *DAMAGE):
        return False


def save_pt(path: Path, checkpoint: Checkpoint) -> None:
    """Write a `.pt`; the caller chooses a temporary name."""
    state = {name: torch.from_numpy(array) for name, array in _owned(checkpoint.network).items()}
    save_content(
        path, {"format": FORMAT, "schema": SCHEMA, **_texts(checkpoint), "state_dict": state}
    )


def save_content(path: Path, content: dict[str, Any]) -> None:
    """Write plain data and tensors; the caller chooses a temporary name."""
    with path.open("wb") as file:  # a path's name would be in the archive, temporary as it is
        torch.save(content, file)


def load_pt(path: Path) -> Checkpoint:
    """Return what `save_pt` wrote."""
    with path.open("rb") as file:
        content = unpacked_pt(path, file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{path}: a PyTorch file, but no relume artifact")
    _check_schema(path, content.get("schema"))
    state = content.get("state_dict")
    if not isinstance(state, dict) or not all(_is_plain(value) for value in state.values()):
        raise ArtifactError(f"{path}: damaged: state_dict is not a dictionary of float32 tensors")
    tensors = {str(name): value.detach().numpy() for name, value in state.items()}
    return _checkpoint(path, content, tensors)


def unpacked_pt(path: Path, file: IO[bytes]) -> Any:
    """Return what is in a `.pt` whose checksums hold; nothing but plain data is unpickled."""
    try:
        check_sums(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own message advises to load such a file unsafely
        raise ArtifactError(
            f"{path}: not a .pt of relume: holds more than texts and tensors"
        ) from error
    except DAMAGE as error:
        raise ArtifactError(
            f"{path}: not a .pt of relume, or damaged: {_first_line(error)}"
        ) from error


def check_sums(file: IO[bytes]) -> None:
    """Raise BadZipFile for a changed bit, which torch.load does not look for, or packed members.

    torch.save packs nothing; a packed member may be a thousand times what the file is.
    """
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise zipfile.BadZipFile("members are compressed")
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} differs")
    file.seek(0)


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == torch.float32
        and value.layout == torch.strided
    )


def save_safetensors(path: Path, checkpoint: Checkpoint) -> None:
    """Write a `.safetensors` with the same content as the `.pt`."""
    texts, tensors = _texts(checkpoint), _owned(checkpoint.network)
    digest = _digest(texts, tensors)
    metadata = {"format": FORMAT, "schema": str(SCHEMA), "digest": digest, **texts}
    safetensors.numpy.save_file(tensors, path, metadata)


def load_safetensors(path: Path) -> Checkpoint:
    """Return what `save_safetensors` wrote."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (
        safetensors.SafetensorError,
        ValueError,
        TypeError,
    ) as error:  # TypeError: no such dtype
        raise ArtifactError(
            f"{path}: not a safetensors file, or damaged: {_first_line(error)}"
        ) from error
    if metadata.get("format") != FORMAT:
        raise ArtifactError(f"{path}: a safetensors file, but no relume artifact")
    schema = metadata.get("schema", "")
    _check_schema(path, int(schema) if schema.isdecimal() else schema)
    checkpoint = _checkpoint(path, metadata, tensors)
    if metadata.get("digest") != _digest(metadata, tensors):
        raise ArtifactError(f"{path}: damaged: the digest differs from what was written")
    return checkpoint


def _digest(texts: Mapping[str, str], tensors: Mapping[str, Array]) -> str:
    """Return the SHA-256 of everything that counts; the format itself has no checksum."""
    digest = hashlib.sha256()
    for key in TEXTS:
        digest.update(texts[key].encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _owned(network: Network) -> dict[str, Array]:
    return {name: np.array(float32(array), order="C") for name, array in network.tensors.items()}


def _texts(checkpoint: Checkpoint) -> dict[str, str]:
    return {
        "spec": checkpoint.spec.to_json(),
        "graph": checkpoint.network.graph.to_json(),
        "report": checkpoint.report.to_json(),
    }


def _checkpoint(path: Path, texts: dict[str, Any], tensors: dict[str, Array]) -> Checkpoint:
    if missing := [key for key in TEXTS if not isinstance(texts.get(key), str)]:
        raise ArtifactError(f"{path}: damaged: no {', '.join(missing)}")
    if odd := [name for name, array in tensors.items() if array.dtype != np.float32]:
        raise ArtifactError(f"{path}: damaged: {', '.join(odd)}: found other than float32")
    where = str(path)
    network = Network(Graph.from_json(texts["graph"], where), tensors)
    return Checkpoint(
        ModelSpec.from_json(texts["spec"], where), network, Report.from_json(texts["report"], where)
    )


def _check_schema(path: Path, schema: Any) -> None:
    if schema != SCHEMA:
        raise ArtifactError(
            f"{path}: artifact schema {schema!r}, this relume reads {SCHEMA}: "
            "use the relume that wrote it"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
