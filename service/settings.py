"""The service's settings: environment variables, read once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from models.errors import ArtifactError, LegacyModelError

DeviceChoice = Literal["auto", "cuda", "cpu"]

_COMMANDS = {  # what makes an .onnx of what people put in its place
    ".t7": "relume convert",
    ".t7.gz": "relume convert",
    ".t7.xz": "relume convert",
    ".pt": "relume onnx",
    ".safetensors": "relume onnx",
}


class SettingError(LegacyModelError):
    """A setting has a value that it cannot have."""


@dataclass(frozen=True)
class Settings:
    """Everything about the service that is not in the artifact.

    Attributes:
        model: CLASSIFY_MODEL: an .onnx file, or a folder that holds exactly one.
        device: CLASSIFY_DEVICE: `cuda` refuses to start without a GPU, `auto` takes what there is.
        threads: CLASSIFY_THREADS: of one inference on the CPU; None leaves it to onnxruntime,
            which takes every core it sees, also those that a container may not use.
        max_batch: CLASSIFY_MAX_BATCH: images that are run at once when that many wait.
        queue: CLASSIFY_QUEUE: images that may wait; one more is answered 503.
        max_upload_bytes: CLASSIFY_MAX_UPLOAD_BYTES: of one image file.
        max_pixels: CLASSIFY_MAX_PIXELS: of one image once it is decoded.
        host: CLASSIFY_HOST: address to listen on.
        port: CLASSIFY_PORT: port to listen on; 0 takes any free one.
    """

    model: Path = Path("artifacts")
    device: DeviceChoice = "auto"
    threads: int | None = None
    max_batch: int = 8  # on a CPU more gains nothing; waiting 8 inferences is still bearable
    queue: int = 64  # eight full batches: whoever waits longer is better told to come back
    max_upload_bytes: int = 20 * 2**20  # a photo of 50 megapixels at the best JPEG quality
    max_pixels: int = 50_000_000  # 15 bytes each at the peak of decoding; phones give 48 million
    host: str = "127.0.0.1"  # this machine only: there is no authentication
    port: int = 8000

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the variables that are set; one that is empty counts as not set.

        Raises:
            SettingError: A value is not of the wanted type; key, value and type are named.
        """
        given = {name: environ[key] for name, key in KEYS.items() if environ.get(key)}
        values: dict[str, Any] = {}
        for name, text in given.items():
            values[name] = _PARSERS[name](KEYS[name], text)
        return cls(**values)


def model_file(path: Path) -> Path:
    """Return the .onnx that `path` is, or the only one in the folder that it is.

    Raises:
        ArtifactError: There is none, several, or a checkpoint that must be converted first.
    """
    if path.is_dir():
        return _only_model(path)
    cure = _cure(path)
    if cure is not None:
        raise ArtifactError(f"{path}: the service runs .onnx: {cure}")
    return path


def _only_model(folder: Path) -> Path:
    files = sorted(folder.iterdir())
    models = [file for file in files if file.suffix == ".onnx"]
    if len(models) == 1:
        return models[0]
    if models:
        names = ", ".join(file.name for file in models)
        raise ArtifactError(f"{folder}: found {names}: name one, with --model or CLASSIFY_MODEL")
    cures = [cure for file in files if (cure := _cure(file)) is not None]
    cure = cures[0] if cures else "put one there, or set CLASSIFY_MODEL to a file"
    raise ArtifactError(f"{folder}: found no .onnx: {cure}")


def _cure(file: Path) -> str | None:
    """Return how the .onnx of a checkpoint is made; None for a file that is no checkpoint."""
    for suffix, command in _COMMANDS.items():
        if file.name.endswith(suffix):
            return f"`{command} {file}` writes it"
    return None


def _number(least: int, most: int | None = None) -> Callable[[str, str], int]:
    wanted = f"a whole number from {least}" + (f" to {most}" if most is not None else "")

    def parse(key: str, text: str) -> int:
        try:
            number = int(text)
        except ValueError as error:
            raise SettingError(f"{key}: found {text!r}, expected {wanted}") from error
        if number < least or (most is not None and number > most):
            raise SettingError(f"{key}: found {text!r}, expected {wanted}")
        return number

    return parse


def _device(key: str, text: str) -> DeviceChoice:
    if text not in ("auto", "cuda", "cpu"):
        raise SettingError(f"{key}: found {text!r}, expected auto, cuda or cpu")
    return cast(DeviceChoice, text)


KEYS = {name: f"CLASSIFY_{name.upper()}" for name in Settings.__dataclass_fields__}

_PARSERS: dict[str, Callable[[str, str], object]] = {
    "model": lambda key, text: Path(text),
    "device": _device,
    "threads": _number(1, 1024),
    "max_batch": _number(1),
    "queue": _number(1),
    "max_upload_bytes": _number(1),
    "max_pixels": _number(1),
    "host": lambda key, text: text,
    "port": _number(0, 65535),
}
