"""A loaded artifact as the service needs it: bytes to a row, a batch to probabilities, a top 5."""

import time
from typing import NamedTuple

import numpy as np

from models.decoding import decode
from models.image_network import ImageNetwork
from models.postprocess import Prediction, top_k
from models.preprocess import preprocess
from models.session import Session
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
        self._network = ImageNetwork.of_session(session)
        self.spec = self._network.spec
        self.device, self.reason = session.device, session.reason
        self.max_batch = self._network.fixed_batch or settings.max_batch
        self._max_pixels = settings.max_pixels

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
        row = preprocess(pixels, self._network.input)
        done = time.perf_counter()
        return Prepared(row, (decoded - start) * 1000, (done - decoded) * 1000)

    def blank(self) -> np.ndarray:
        """Return the row of a black image, to warm up with.

        Raises:
            SpecError: The artifact's input convention contradicts itself.
        """
        height, width = self._network.input.crop
        return preprocess(np.zeros((height, width, 3), np.uint8), self._network.input)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return the probabilities of a batch: N x 3 x H x W to N x K.

        Raises:
            ArtifactError: The network does not take the batch, gives something else than one number
                for each label, or no numbers at all.
        """
        return self._network.probabilities(batch)

    def best(self, row: np.ndarray, count: int) -> list[Prediction]:
        """Return the `count` most probable classes of one row of probabilities, best first."""
        return top_k(row, self.spec.labels, count)
