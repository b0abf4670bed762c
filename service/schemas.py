"""What the service answers, as JSON."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from models.postprocess import Prediction


class ClassPrediction(BaseModel):
    """One class and how probable the network finds it."""

    index: int = Field(description="Number of the network's output, from 0.")
    wnid: str | None = Field(description="WordNet id of the class; null where it is not known.")
    label: str
    probability: float


class Timings(BaseModel):
    """Where the time of one request went, in milliseconds."""

    decode: float = Field(description="From the file's bytes to pixels.")
    preprocess: float = Field(description="Resize, crop and normalisation.")
    queue: float = Field(description="Waiting for the batch before to end.")
    inference: float = Field(description="Of the whole batch that this image was part of.")


class ClassifyResponse(BaseModel):
    """The best classes of one image, most probable first."""

    model: str
    predictions: list[ClassPrediction]
    timings_ms: Timings

    @classmethod
    def of(
        cls, model: str, predictions: Sequence[Prediction], timings_ms: Timings
    ) -> "ClassifyResponse":
        """Return the answer that says so."""
        listed = [ClassPrediction(**vars(prediction)) for prediction in predictions]
        return cls(model=model, predictions=listed, timings_ms=timings_ms)


class Health(BaseModel):
    """The process lives, or the model is ready."""

    status: Literal["alive", "ready"]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One sentence.")
