"""What a user of a network must know besides its weights, as one JSON text."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from models.errors import ArtifactError

SCHEMA = 1  # raised when a reader of the old number would misread the new text

Resample = Literal[
    "torch7-bicubic", "torch7-bilinear", "opencv-bilinear", "pillow-bilinear", "pillow-bicubic"
]
CropOrigin = Literal["ceil", "floor", "half-even"]
DecidedBy = Literal["flag", "sha256", "names", "fingerprint"]
Output = Literal["logits", "log_probabilities", "probabilities"]

T = TypeVar("T")


@dataclass(frozen=True)
class InputSpec:
    """Everything that decides a pixel's value; no field has a default.

    Attributes:
        resize: Target in pixels: of the shorter side, or of both.
        resize_mode: `shorter` keeps the aspect ratio, `exact` squashes to a square.
        resample: The resize by what it is; see `models/preprocess.py`.
        crop: Centre crop, `(height, width)`.
        crop_origin: Where an odd margin goes: the crop begins at half of it, rounded up, down or to
            the even neighbour.
        order: Channel order the network was trained on.
        scale: Factor applied to the 0..255 pixel before mean and std.
        mean: Subtracted after scaling, in `order`.
        std: Divided by after that, in `order`.
        source: File of the original program that says so.
    """

    resize: int
    resize_mode: Literal["shorter", "exact"]
    resample: Resample
    crop: tuple[int, int]
    crop_origin: CropOrigin
    order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str

    def __str__(self) -> str:
        """`shorter 328 torch7-bicubic | crop 299x299 ceil | RGB x 1/255 | mean ... | std ...`."""
        size = f"{self.resize_mode} {self.resize} {self.resample}"
        height, width = self.crop
        factor = f"1/{1 / self.scale:g}" if self.scale < 1 else f"{self.scale:g}"
        mean = " ".join(f"{value:g}" for value in self.mean)
        std = " ".join(f"{value:g}" for value in self.std)
        return (
            f"{size} | crop {height}x{width} {self.crop_origin} | {self.order} x {factor} "
            f"| mean {mean} | std {std}"
        )


class Label(NamedTuple):
    """A class: its WordNet id where known, and its name."""

    wnid: str | None
    name: str


@dataclass(frozen=True)
class Origin:
    """Where the numbers come from.

    Attributes:
        format: What was read, such as `torch7-binary`.
        file: The source's file name, without its folder.
        sha256: Of the checkpoint's own bytes (unpacked, where it came as .xz or .gz).
        decided_by: What chose the input convention: the flag, a known file, the tensors' names, or
            a known structure.
    """

    format: str
    file: str
    sha256: str
    decided_by: DecidedBy


@dataclass(frozen=True)
class ModelSpec:
    """A network's contract with whoever runs it.

    Attributes:
        name: What the service calls it.
        input: How an image becomes pixels; None for a network that takes no image.
        labels: One for each output; their numbers where the classes are unknown.
        output: What the network's last layer gives.
        architecture: Name in the registry when the structure is a known one.
        origin: The file it was made from.
    """

    name: str
    input: InputSpec | None
    labels: tuple[Label, ...]
    output: Output
    architecture: str | None
    origin: Origin

    def to_json(self) -> str:
        """Return the spec as JSON text that `from_json` reads back to an equal value."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str = "model_spec") -> "ModelSpec":
        """Read a spec; `where` names its file in errors.

        Raises:
            ArtifactError: The text is no spec, or one of a newer schema.
        """
        try:
            fields = json.loads(text)
            schema = fields.pop("schema")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{where}: not a relume model spec") from error
        if schema != SCHEMA:
            raise ArtifactError(
                f"{where}: spec schema {schema!r}, this relume reads {SCHEMA}: "
                "use the relume that wrote it"
            )
        try:
            return cls._from_fields(fields)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ArtifactError(f"{where}: damaged model spec: {error}") from error

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str], where: str) -> "ModelSpec":
        """Read the spec that an .onnx file carries.

        Raises:
            ArtifactError: The file carries no spec, or one that this relume cannot read.
        """
        text = metadata.get("model_spec")
        if text is None:
            raise ArtifactError(
                f"{where}: carries no model_spec: it was not written by relume; "
                "convert the original checkpoint with `relume convert`"
            )
        return cls.from_json(text, where)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> "ModelSpec":
        given = fields["input"]
        if given is not None:
            given = checked_input(given)
        return cls(
            name=_typed(fields["name"], str),
            input=given,
            labels=tuple(
                Label(_text_or_none(wnid), _typed(name, str)) for wnid, name in fields["labels"]
            ),
            output=_one_of(fields["output"], Output),
            architecture=_text_or_none(fields["architecture"]),
            origin=_checked_origin(fields["origin"]),
        )


def checked_input(fields: dict[str, Any]) -> InputSpec:
    """Return the convention that parsed JSON holds; ValueError, TypeError or KeyError if none."""
    height, width = (_positive(size) for size in fields["crop"])
    mean, std = (tuple(_finite(value) for value in fields[key]) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise ValueError("mean and std need three numbers each, no std of 0")
    _one_of(fields["resample"], Resample)
    _one_of(fields["resize_mode"], Literal["shorter", "exact"])
    _one_of(fields["crop_origin"], CropOrigin)
    _one_of(fields["order"], Literal["RGB", "BGR"])
    _positive(fields["resize"])
    _typed(fields["source"], str)
    scale = _finite(fields["scale"])
    if scale <= 0:
        raise ValueError(f"a scale of {scale:g} leaves no picture")
    exact = {**fields, "crop": (height, width), "scale": scale, "mean": mean, "std": std}
    return InputSpec(**exact)


def _checked_origin(fields: dict[str, Any]) -> Origin:
    texts: dict[str, Any] = {key: _typed(value, str) for key, value in fields.items()}
    origin = Origin(**texts)
    _one_of(origin.decided_by, DecidedBy)
    return origin


def _one_of(value: Any, allowed: Any) -> Any:
    if value not in get_args(allowed):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(allowed))}")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _typed(value, str)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return number


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _positive(value: Any) -> int:
    if _typed(value, int) < 1:
        raise ValueError(f"{value} is not a positive size")
    return int(value)
