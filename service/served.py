"""A loaded artifact, checked and warmed up, and the way through it."""

import ctypes
import hashlib
import json
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models import geometry
from models.decoding import decode
from models.engines import Engine, EngineOptions, check_engine, open_engine
from models.errors import ArtifactError
from models.image_network import ImageNetwork
from models.postprocess import Prediction, probabilities, top_k
from models.preprocess import preprocess
from models.report import Report
from models.spec import ModelSpec
from service.pipeline import Observer, Pipeline, Prepared, Stages
from service.settings import Settings

NOT_IN_NAMES = "@/"  # they part a name from its version, and the parts of a path
VERSION_DIGITS = 12  # of the SHA-256: 48 bits tell apart what anybody will ever serve


class Agreement(NamedTuple):
    """Share of images on which lower precision and float32 name the same classes."""

    top1: float
    top5: float
    images: int

    @classmethod
    def from_json(cls, text: str, where: str) -> "Agreement":
        """Read it from what a file of lower precision says of itself.

        Raises:
            ArtifactError: The file does not say it.
        """
        try:
            given = json.loads(text)
            values = tuple(given[name] for name in cls._fields)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{where}: damaged precision: {error}") from error
        if not all(type(one) in (int, float) for one in values) or type(values[2]) is not int:
            raise ArtifactError(f"{where}: damaged precision: found {values}, expected numbers")
        return cls(*values)


class Served:
    """What one artifact makes of images.

    Attributes:
        path: The file.
        sha256: Of the file.
        version: The digest's first digits.
        modified: When the file was changed last, in seconds of the epoch.
        spec: The artifact's own description.
        report: What was measured when it was made; None where the file does not say.
        engine: What runs it.
        checked: What the engine's check found.
        agreement: What was measured of a file of lower precision; None for other files.
        pipeline: The way through it.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        """Load, check and warm up an artifact.

        Raises:
            ArtifactError: It is none that the service can run.
            SpecError: The network takes no image.
            DeviceError: The device or the engine that was asked for cannot be had.
            ParityError: The engine computes something else than the artifact says.
        """
        self.path, self.modified = path, path.stat().st_mtime if path.exists() else 0.0
        self.engine: Engine = open_engine(path, _options(settings))
        self.spec = ModelSpec.of_metadata(self.engine.metadata, str(path))
        if not self.name or set(self.name) & set(NOT_IN_NAMES):
            raise ArtifactError(
                f"{path}: found the name {self.name!r}, expected one without "
                f"{' and '.join(NOT_IN_NAMES)}: convert it again with --name"
            )
        engine = self.engine  # and not self, here and in `open`: see there
        self.network = ImageNetwork(
            str(path), self.spec, engine.inputs, lambda rows: engine.run(rows, alone=True)
        )
        self.sha256 = _sha256(path)
        self.version = self.sha256[:VERSION_DIGITS]
        report = self.engine.metadata.get("report")
        self.report = Report.from_json(report, str(path)) if report else None
        precision = self.engine.metadata.get("precision")
        self.agreement = None if precision is None else Agreement.from_json(precision, str(path))
        self.max_batch = self.network.fixed_batch or self.engine.max_batch
        self._max_pixels = settings.max_pixels
        black = np.zeros((*self.network.input.crop, 3), np.uint8)
        self.network.probabilities(preprocess(black, self.network.input)[None])
        self.checked = check_engine(self.engine, self.network.input)
        give_back_memory()

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.spec.name

    def open(self, queue: int, decoders: ThreadPoolExecutor, observer: Observer) -> None:
        """Make the way through it, on the running event loop."""
        # It holds its pipeline: were it held by that in turn, its memory would stay until the next
        # garbage collection, which is long after another took its place.
        itself = weakref.proxy(self)
        stages = Stages(
            prepare=lambda image, orientation: itself.prepare(image, orientation),
            run=lambda batch, alone: itself.run(batch, alone),
            lanes=self.engine.lanes,
            max_batch=self.max_batch,
        )
        self.pipeline = Pipeline(stages, queue=queue, decoders=decoders, observer=observer)

    def prepare(self, image: bytes, orientation: bool) -> Prepared:
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
        row = preprocess(pixels, self.network.input)
        done = time.perf_counter()
        height, width, _ = pixels.shape
        return Prepared(row, (height, width), (decoded - start) * 1000, (done - decoded) * 1000)

    def run(self, batch: np.ndarray, alone: bool) -> np.ndarray:
        """Return what the network's last layer gives: N x 3 x H x W to N x K.

        Raises:
            ArtifactError: The network does not take the batch, or gives something else than one
                finite number for each label.
        """
        return self.network.outputs(batch, lambda rows: self.engine.run(rows, alone=alone))

    def best(self, output: np.ndarray, count: int) -> list[Prediction]:
        """Return the `count` most probable classes of one row of outputs, best first."""
        return top_k(probabilities(output[None], self.spec.output)[0], self.spec.labels, count)

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of an image that the network sees: x, y, width, height, 0 to 1 each."""
        spec = self.network.input
        resized = geometry.resized(geometry.Size(*size), spec)
        rows, columns = geometry.centre(resized, spec)
        return (
            columns.start / resized.width,
            rows.start / resized.height,
            len(columns) / resized.width,
            len(rows) / resized.height,
        )


def _options(settings: Settings) -> EngineOptions:
    return EngineOptions(
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        max_batch=settings.max_batch,
    )


def give_back_memory() -> None:
    """Return to the system what was freed; glibc keeps most of it by itself."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
