"""A loaded artifact as the service needs it: bytes to a row, a batch to probabilities, a top 5."""

import time
from typing import NamedTuple

import numpy as np

from models.decoding import decode
from models.errors import ArtifactError, SpecError
from models.postprocess import Prediction, probabilities, top_k
from models.preprocess import preprocess
from models.session import Session
from models.spec import InputSpec
from service.settings import Settings, model_file


class Prepared(NamedTuple):
    """One image as the network wants it, and what that took."""

    row: np.ndarray  # (3, H, W) float32
    decode_ms: float
    preprocess_ms: float


class Classifier:
    """What one artifact makes of images.

    Attributes:
        spec: The artifact's own description.
        device: What computes.
        reason: One line that says what computes, and why.
        max_batch: Rows that may be run at once; 1 where the artifact allows no more.
    """

    def __init__(self, settings: Settings) -> None:
        """Load the model that the settings name.

        Raises:
            ArtifactError: There is no such model, or it is none that the service can run.
            SpecError: The network takes no image.
            DeviceError: The device that was asked for cannot be had.
        """
        session = Session(model_file(settings.model), settings.device, settings.threads)
        self.spec = session.spec
        self.device, self.reason = session.device, session.reason
        self._input = _image_input(self.spec.input, session.where)
        self.max_batch = _max_batch(session, settings.max_batch)
        self._max_pixels = settings.max_pixels
        self._session = session

    def prepare(self, image: bytes, *, orientation: bool) -> Prepared:
        """Return the row of an encoded image.

        Args:
            image: A whole file: JPEG, PNG, WebP or another format that Pillow reads.
            orientation: Whether the camera's EXIF orientation is applied.

        Raises:
            ImageError: It cannot be decoded, or has too many pixels.
        """
        start = time.perf_counter()
        pixels = decode(image, orientation=orientation, max_pixels=self._max_pixels)
        decoded = time.perf_counter()
        row = preprocess(pixels, self._input)
        done = time.perf_counter()
        return Prepared(row, (decoded - start) * 1000, (done - decoded) * 1000)

    def blank(self) -> np.ndarray:
        """Return the row of a black image, to warm up with.

        Raises:
            SpecError: The artifact's input convention contradicts itself.
        """
        height, width = self._input.crop
        return preprocess(np.zeros((height, width, 3), np.uint8), self._input)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return the probabilities of a batch: N x 3 x H x W to N x K.

        Raises:
            ArtifactError: The network does not take the batch, gives something else than one number
                for each label, or no numbers at all.
        """
        output = self._session.run(batch)[0]
        wanted = (len(batch), len(self.spec.labels))
        if output.shape != wanted:
            raise ArtifactError(
                f"{self._session.where}: found an output of shape {output.shape}, "
                f"expected {wanted}: one number for each label"
            )
        answer = probabilities(output, self.spec.output)
        if not np.isfinite(answer).all():
            raise ArtifactError(f"{self._session.where}: found NaN or infinity among its outputs")
        return answer

    def best(self, row: np.ndarray, count: int) -> list[Prediction]:
        """Return the `count` most probable classes of one row of probabilities, best first."""
        return top_k(row, self.spec.labels, count)


def _image_input(given: InputSpec | None, where: str) -> InputSpec:
    if given is None:
        raise SpecError(
            f"{where}: takes no image, so it cannot be served: its checkpoint was converted with "
            "`--input none`; convert it again with the preset that says how images enter"
        )
    return given


def _max_batch(session: Session, wanted: int) -> int:
    """Return how many rows may run at once: `wanted`, unless the file fixes its batch size."""
    if len(session.input_shapes) != 1:
        names = ", ".join(session.input_names)
        raise ArtifactError(f"{session.where}: found the inputs {names}, expected one: the image")
    fixed = session.input_shapes[0][0] if session.input_shapes[0] else 0
    if not isinstance(fixed, int):  # a name or None: any number of rows
        return wanted
    if fixed != 1:
        raise ArtifactError(f"{session.where}: found a batch size of {fixed}, expected 1 or any")
    return 1
