"""The service's settings: environment variables, read once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from models.engines import EngineName, Precision
from models.errors import ArtifactError, LegacyModelError
from models.terminal import meant

DeviceChoice = Literal["auto", "cuda", "cpu"]
LogFormat = Literal["text", "json"]
PREFIX = "CLASSIFY_"  # of the variables

_COMMANDS = {  # what makes an .onnx of what people put in its place
    ".t7": "relume convert",
    ".t7.gz": "relume convert",
    ".t7.xz": "relume convert",
    ".params": "relume convert",
    ".params.gz": "relume convert",
    ".params.xz": "relume convert",
    ".pt": "relume onnx",
    ".safetensors": "relume onnx",
}


class SettingError(LegacyModelError):
    """A setting has a value that it cannot have."""


@dataclass(frozen=True)
class Settings:
    """Everything about the service that is not in an artifact; docs/deploying.md says it in full.

    Attributes:
        models: CLASSIFY_MODELS: folder of artifacts; what changes in it is taken up.
        model: CLASSIFY_MODEL: one file, or another folder, instead of that.
        default_model: CLASSIFY_DEFAULT_MODEL: who answers requests that name none.
        reload_s: CLASSIFY_RELOAD_S: seconds between two looks at the files; 0 never looks again.
        engine: CLASSIFY_ENGINE: the library that computes.
        device: CLASSIFY_DEVICE: `cuda` refuses to start without a GPU, `auto` takes what there is.
        precision: CLASSIFY_PRECISION: what float32 files are computed in.
        threads: CLASSIFY_THREADS: cores to compute on; None for all that the process may use.
        workers: CLASSIFY_WORKERS: processes that serve the one port.
        max_batch: CLASSIFY_MAX_BATCH: images that are run at once when that many wait; None leaves
            it to the engine.
        queue: CLASSIFY_QUEUE: images that may wait for a model; one more is answered 503.
        max_images: CLASSIFY_MAX_IMAGES: of one request.
        max_upload_bytes: CLASSIFY_MAX_UPLOAD_BYTES: of one request's images together.
        max_pixels: CLASSIFY_MAX_PIXELS: of one image once it is decoded.
        max_connections: CLASSIFY_MAX_CONNECTIONS: open at the same time; one more gets 503.
        header_s: CLASSIFY_HEADER_S: seconds for a request's headers.
        body_s: CLASSIFY_BODY_S: seconds for its body.
        request_s: CLASSIFY_REQUEST_S: seconds from the whole body to the answer.
        drain_s: CLASSIFY_DRAIN_S: seconds for those inside to be answered at the end.
        tokens: CLASSIFY_TOKENS: one of these must be sent; empty lets everybody in.
        cors_origins: CLASSIFY_CORS_ORIGINS: whose pages may call; empty for none but our own.
        url_hosts: CLASSIFY_URL_HOSTS: where images may be fetched from; empty for nowhere.
        log_format: CLASSIFY_LOG_FORMAT: `text` for people, `json` for programs.
        traces: CLASSIFY_TRACES: OTLP endpoint that traces are sent to; empty for none.
        host: CLASSIFY_HOST: address to listen on.
        port: CLASSIFY_PORT: port to listen on; 0 takes any free one.
    """

    models: Path = Path("artifacts")
    model: Path | None = None
    default_model: str = ""
    reload_s: float = 2.0  # a look costs one `stat` a file
    engine: EngineName = "onnxruntime"
    device: DeviceChoice = "auto"
    precision: Precision = "float32"
    threads: int | None = None
    workers: int = 1  # one process uses every core, and its batches are larger
    max_batch: int | None = None
    queue: int = 64  # eight full batches: whoever waits longer is better told to come back
    max_images: int = 32  # half a queue, so that one request does not fill it
    max_upload_bytes: int = 20 * 2**20  # a photo of 50 megapixels at the best JPEG quality
    max_pixels: int = 50_000_000  # 15 bytes each at the peak of decoding; phones give 48 million
    max_connections: int = 512  # half of the files that a process may have open, by default
    header_s: float = 10.0  # a header is one packet: who takes longer does so on purpose
    body_s: float = 30.0  # a photo of 3 MB over a line of 1 Mbit/s
    request_s: float = 30.0  # far beyond a full queue, which is over in seconds
    drain_s: float = 8.0  # `docker stop` kills after ten
    tokens: tuple[str, ...] = field(default=(), repr=False)
    cors_origins: tuple[str, ...] = ()
    url_hosts: tuple[str, ...] = ()
    log_format: LogFormat = "text"
    traces: str = ""
    host: str = "127.0.0.1"  # this machine only: there is no authentication by default
    port: int = 8000

    @property
    def source(self) -> Path:
        """The file or folder that is served."""
        return self.models if self.model is None else self.model

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


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence on each variable that is called like a setting and is none."""
    odd = sorted(key for key in environ if key.startswith(PREFIX) and key not in KEYS.values())
    return [f"{key}: no such setting{meant(key, KEYS.values())}" for key in odd]


def artifacts(path: Path) -> list[Path]:
    """Return the .onnx files that `path` is, or that are in the folder that it is, sorted.

    Raises:
        ArtifactError: There is none, or a checkpoint that must be converted first.
    """
    if not path.is_dir():
        if (cure := conversion(path)) is not None:
            raise ArtifactError(f"{path}: the service runs .onnx: {cure}")
        if path.suffix != ".onnx" and not path.exists():
            raise ArtifactError(
                f"{path}: no such folder: make it and put an .onnx there, or name one: "
                "`relume serve FILE.onnx`"
            )
        return [path]
    files = sorted(path.iterdir())
    if found := [file for file in files if file.suffix == ".onnx" and file.name[0] != "."]:
        return found
    cures = [cure for file in files if (cure := conversion(file)) is not None]
    cure = cures[0] if cures else "put one there, or set CLASSIFY_MODEL to a file"
    raise ArtifactError(f"{path}: found no .onnx: {cure}")


def conversion(file: Path) -> str | None:
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


def _seconds(key: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise SettingError(f"{key}: found {text!r}, expected seconds") from error
    if not 0 <= seconds < 1e6:  # also refuses what is not a number
        raise SettingError(f"{key}: found {text!r}, expected seconds from 0")
    return seconds


def _time(key: str, text: str) -> float:
    """Return the seconds that a client has; none at all would refuse everybody."""
    if (seconds := _seconds(key, text)) == 0:
        raise SettingError(f"{key}: found {text!r}, expected seconds above 0")
    return seconds


def _one_of(choices: Any) -> Callable[[str, str], str]:
    names = get_args(choices)
    wanted = f"{', '.join(names[:-1])} or {names[-1]}"

    def parse(key: str, text: str) -> str:
        if text not in names:
            raise SettingError(f"{key}: found {text!r}, expected {wanted}")
        return text

    return parse


def _list(key: str, text: str) -> tuple[str, ...]:
    return tuple(filter(None, (one.strip() for one in text.split(","))))


def _tokens(key: str, text: str) -> tuple[str, ...]:
    """Return at least one: whoever set the variable does not want everybody in."""
    if not (tokens := _list(key, text)):
        raise SettingError(f"{key}: found no token, expected some with commas between")
    return tokens


def _text(key: str, text: str) -> str:
    return text


KEYS = {name: f"{PREFIX}{name.upper()}" for name in Settings.__dataclass_fields__}

_PARSERS: dict[str, Callable[[str, str], object]] = {
    "models": lambda key, text: Path(text),
    "model": lambda key, text: Path(text),
    "default_model": _text,
    "reload_s": _seconds,
    "engine": _one_of(EngineName),
    "device": _one_of(DeviceChoice),
    "precision": _one_of(Precision),
    "threads": _number(1, 1024),
    "workers": _number(1, 1024),
    "max_batch": _number(1),
    "queue": _number(1),
    "max_images": _number(1),
    "max_upload_bytes": _number(1),
    "max_pixels": _number(1),
    "max_connections": _number(1),
    "header_s": _time,
    "body_s": _time,
    "request_s": _time,
    "drain_s": _seconds,
    "tokens": _tokens,
    "cors_origins": _list,
    "url_hosts": _list,
    "log_format": _one_of(LogFormat),
    "traces": _text,
    "host": _text,
    "port": _number(0, 65535),
}
