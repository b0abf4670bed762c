"""What the service answers, as JSON."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.observation import stages
from service.pipeline import Answer
from service.problems import KINDS
from service.served import Served

_WHO: dict[str, Any] = {
    "model": "efficientnet_lite0",
    "version": "e4d13c0719b3",
    "precision": "float32",
}
_SEEN: dict[str, Any] = {
    "predictions": [
        {
            "index": 0,
            "wnid": "n01440764",
            "label": "tench, Tinca tinca",
            "probability": 0.8691666126251221,
        }
    ],
    "timings_ms": {"decode": 1.72, "preprocess": 7.09, "queue": 0.03, "inference": 18.34},
    "size": [500, 375],
    "crop": {"x": 0.17, "y": 0.0625, "width": 0.657, "height": 0.875},
}
_PROBLEM: dict[str, Any] = {
    "type": "/problems/invalid-image",
    "title": KINDS["invalid-image"].title,
    "status": 422,
    "detail": "found 8 bytes that begin with b'no image', expected a whole JPEG, PNG, WebP, GIF, "
    "BMP or TIFF image",
}
_SUMMARY: dict[str, Any] = {
    **_WHO,
    "engine": "onnxruntime 1.31.1",
    "device": "cpu",
    "classes": 1000,
    "architecture": "efficientnet_lite0",
    "sha256": "e4d13c0719b3" + 52 * "0",
}


class ClassPrediction(BaseModel):
    """One class and how probable the network finds it."""

    index: int = Field(description="Number of the network's output, from 0.")
    wnid: str | None = Field(description="WordNet id of the class; null where it is not known.")
    label: str
    probability: float


class Timings(BaseModel):
    """Where the time of one image went, in milliseconds."""

    decode: float = Field(description="From the file's bytes to pixels.")
    preprocess: float = Field(description="Resize, crop and normalisation.")
    queue: float = Field(description="Waiting for a free lane.")
    inference: float = Field(description="Of the whole batch that this image was part of.")


class Crop(BaseModel):
    """The part of the upright image that the network saw, each from 0 to 1 of its sides."""

    x: float
    y: float
    width: float
    height: float


class Seen(BaseModel):
    """What is said of one image that was classified."""

    predictions: list[ClassPrediction]
    timings_ms: Timings
    size: tuple[int, int] = Field(description="Width and height of the image in pixels.")
    crop: Crop

    @classmethod
    def of(cls, served: Served, answer: Answer, top: int) -> "Seen":
        """Return what is said of an answer."""
        height, width = answer.prepared.size
        crop = dict(zip(Crop.model_fields, served.window((height, width)), strict=True))
        milliseconds = {stage: round(took, 2) for stage, took in stages(answer).items()}
        return cls(
            predictions=[ClassPrediction(**vars(one)) for one in served.best(answer.output, top)],
            timings_ms=Timings(**milliseconds),
            size=(width, height),
            crop=Crop(**crop),
        )


class Model(BaseModel):
    """Who answered."""

    model: str
    version: str = Field(description="First digits of the file's SHA-256.")
    precision: str = Field(description="What the network is computed in: float32, bf16, ...")


class ClassifyResponse(Model, Seen):
    """The best classes of one image, most probable first."""

    model_config = ConfigDict(json_schema_extra={"example": {**_WHO, **_SEEN}})


class Problem(BaseModel):
    """Why a request was refused: a problem document of RFC 9457."""

    type: str = Field(description="Which reason; it stays what it is, and leads to advice.")
    title: str
    status: int
    detail: str = Field(description="One sentence.")
    error: str | None = Field(None, description="The same, as the Open Inference Protocol wants.")

    model_config = ConfigDict(json_schema_extra={"example": _PROBLEM})


class Result(BaseModel):
    """What became of one image of several: what was seen, or the problem."""

    name: str = Field(description="The file's name, as it was sent.")
    seen: Seen | None = None
    problem: Problem | None = None


class BatchResponse(Model):
    """What became of each image, in the order in which they were sent."""

    results: list[Result]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_WHO,
                "results": [
                    {"name": "tench.jpg", "seen": _SEEN},
                    {"name": "broken.jpg", "problem": _PROBLEM},
                ],
            }
        }
    )


class Health(BaseModel):
    """The process lives, or a model is ready."""

    status: Literal["alive", "ready"]


class Advice(BaseModel):
    """What a type of problem means."""

    title: str
    status: int
    advice: str


class Parity(BaseModel):
    """How far the file was from the original's float64 numbers when it was made."""

    max_abs: float
    noise: float = Field(description="What two float32 runs of the original differ by.")
    top5_equal: bool | None


class Agreement(BaseModel):
    """Share of images on which lower precision and float32 name the same classes."""

    top1: float
    top5: float
    images: int


class Preprocessing(BaseModel):
    """How an image becomes numbers."""

    resize: int
    resize_mode: str
    resample: str
    crop: tuple[int, int] = Field(description="Height and width.")
    crop_origin: str
    order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str


class ModelSummary(Model):
    """One model that is served."""

    engine: str
    device: str
    classes: int
    architecture: str | None
    sha256: str

    @classmethod
    def of(cls, served: Served) -> "ModelSummary":
        """Return what is said of it in the list."""
        return cls(
            model=served.name,
            version=served.version,
            precision=served.engine.precision,
            engine=served.engine.name,
            device=served.engine.device,
            classes=len(served.spec.labels),
            architecture=served.spec.architecture,
            sha256=served.sha256,
        )


class ModelDetails(ModelSummary):
    """All that is known of a model that is served."""

    checked: str = Field(description="What the engine's check against the self-test found.")
    max_batch: int
    input: Preprocessing
    output: str = Field(description="What the network's last layer gives.")
    labels: list[tuple[str | None, str]] = Field(description="WordNet id and name of each class.")
    origin: dict[str, str]
    parity: Parity | None
    agreement: Agreement | None = Field(description="Of a file of lower precision.")

    @classmethod
    def of(cls, served: Served) -> "ModelDetails":
        """Return all that is known of it."""
        report, agreement = served.report, served.agreement
        return cls(
            **ModelSummary.of(served).model_dump(),
            checked=served.checked,
            max_batch=served.max_batch,
            input=Preprocessing(**vars(served.network.input)),
            output=served.spec.output,
            labels=list(served.spec.labels),
            origin=vars(served.spec.origin),
            parity=None
            if report is None
            else Parity(max_abs=report.max_abs, noise=report.noise, top5_equal=report.top5_equal),
            agreement=None if agreement is None else Agreement(**agreement._asdict()),
        )


class ModelList(BaseModel):
    """What is served."""

    models: list[ModelSummary]

    model_config = ConfigDict(json_schema_extra={"example": {"models": [_SUMMARY]}})
