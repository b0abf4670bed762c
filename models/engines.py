"""What runs a network, behind one interface: onnxruntime on a CPU or a GPU, or OpenVINO.

Lower precision is a choice, never a surprise: an engine states what it computes in, and each is
held against the artifact's self-test before it answers anybody.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from models.cores import usable_cores
from models.errors import ArtifactError, DeviceError
from models.report import Report
from models.self_test import PICTURES, SelfTest, pictures
from models.session import BoundRun, Session, sharing_sessions
from models.spec import InputSpec

Shape = Sequence[int | str | None]
EngineName = Literal["onnxruntime", "openvino"]
Precision = Literal["float32", "bf16"]  # what an engine may be asked for
STORED = ("fp16", "int8")  # what a file may hold besides float32
# Of ResNet-50 on a CPU, 1, 2 and 8 rows a batch take the same time for each, and 8 twice the memory
# of 2; small networks gain by a second. On a GPU waiting for 8 is still bearable.
BATCH_CPU, BATCH_CUDA = 2, 8
SCALE_STEPS = 64  # float32 steps of the largest output, where no report says how many are right


@dataclass(frozen=True)
class EngineOptions:
    """What is to run a network, and how.

    Attributes:
        engine: The library.
        device: Where; `auto` takes a GPU if it can be had, `cuda` fails without one.
        precision: What float32 files are computed in.
        threads: Cores to use on a CPU; None for all that this process may use.
        max_batch: The most rows of a batch; None for what is best for the engine.
    """

    engine: EngineName = "onnxruntime"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    precision: Precision = "float32"
    threads: int | None = None
    max_batch: int | None = None


class Engine(ABC):
    """Runs batches of one network.

    Attributes:
        where: The artifact's file.
        name: The library and its version.
        device: What computes: `cpu` or `cuda`.
        reason: One line that says what computes, and why.
        precision: What it computes in.
        lanes: How many runs may be under way at once.
        max_batch: The most rows that are worth running at once.
        sizes: Batch sizes that are worth warming up.
        inputs: Names and shapes of the inputs; a free dimension is no number.
        metadata: The texts that the file carries.
    """

    where: str
    name: str
    device: str
    reason: str
    precision: str
    lanes: int
    max_batch: int
    sizes: tuple[int, ...]
    inputs: Sequence[tuple[str, Shape]]
    metadata: Mapping[str, str]

    @abstractmethod
    def run(self, batch: np.ndarray, *, alone: bool) -> np.ndarray:
        """Return the first output for a batch; `alone` lends it every core."""


def open_engine(model: Path, options: EngineOptions) -> Engine:
    """Return what runs an artifact.

    Raises:
        ArtifactError: The file is missing, no ONNX model, or damaged.
        DeviceError: What was asked for cannot be had here.
    """
    if options.engine == "openvino":
        from models.openvino_engine import OpenVino  # an extra, and half a second

        return OpenVino(model, options)
    if options.precision != "float32":
        raise DeviceError(
            f"{options.precision} was asked for, and onnxruntime computes in what the file holds: "
            "ask for the engine openvino, or make a file of lower precision by `relume quantize`"
        )
    if options.device != "cpu":
        session = Session(model, options.device, options.threads)
        if session.device == "cuda":
            return OnnxCuda(session, options.max_batch or BATCH_CUDA)
        reason = session.reason
        del session
        return OnnxCpu(model, options, reason)
    return OnnxCpu(model, options, "cpu: asked for")


class OnnxCpu(Engine):
    """onnxruntime on the CPU: one run on all cores, or one on each.

    Both ways hold the same weights. A run on all cores answers a lone image soonest; runs of one
    thread each waste no time waiting for each other, so more images a second come out.
    """

    def __init__(self, model: Path, options: EngineOptions, reason: str) -> None:
        self.lanes = options.threads or usable_cores()
        self._wide, self._narrow = sharing_sessions(model, [self.lanes, 1])
        self.where, self.device, self.reason = str(model), "cpu", reason
        self.name = f"onnxruntime {self._wide.version}"
        self.max_batch = options.max_batch or BATCH_CPU
        self.sizes = (min(PICTURES, self.max_batch),)
        self.inputs = _inputs(self._wide)
        self.metadata = self._wide.metadata
        self.precision = stored_precision(self.metadata, self.where)

    def run(self, batch: np.ndarray, *, alone: bool) -> np.ndarray:
        """Return the first output for a batch; `alone` lends it every core."""
        return (self._wide if alone else self._narrow).run(batch)[0]


class OnnxCuda(Engine):
    """onnxruntime on an NVIDIA GPU, through memory that stays there.

    cuDNN looks for the fastest way at each batch size that it meets first. So there are a few
    sizes, each warmed up, and a batch is filled up to the next.
    """

    def __init__(self, session: Session, max_batch: int) -> None:
        self._session, self.lanes = session, 1
        self.where, self.device, self.reason = session.where, session.device, session.reason
        self.name = f"onnxruntime-gpu {session.version}"
        self.inputs = _inputs(session)
        free = not isinstance(self.inputs[0][1][0], int)
        self.max_batch = max_batch
        self.sizes = _doublings(max_batch) if free else (1,)
        self.metadata = session.metadata
        self.precision = stored_precision(self.metadata, self.where)
        self._bound: dict[int, BoundRun] = {}

    def run(self, batch: np.ndarray, *, alone: bool) -> np.ndarray:
        """Return the first output for a batch; `alone` makes no difference."""
        count = len(batch)
        size = next((size for size in self.sizes if size >= count), count)
        if size not in self._bound:
            self._bound[size] = BoundRun(self._session, size)
        if size > count:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
        return self._bound[size].run(batch)[:count]


def _doublings(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... and at last `most`."""
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return tuple(sizes)


def _inputs(session: Session) -> list[tuple[str, Shape]]:
    return list(zip(session.input_names, session.input_shapes, strict=True))


def stored_precision(metadata: Mapping[str, str], where: str) -> str:
    """Return what the numbers in a file are: `float32` unless it says so.

    Raises:
        ArtifactError: It says something that cannot be read.
    """
    text = metadata.get("precision")
    if text is None:
        return "float32"
    try:
        name = json.loads(text)["name"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{where}: damaged precision: {error}") from error
    if name not in STORED:
        raise ArtifactError(
            f"{where}: found the precision {name!r}, expected {' or '.join(STORED)}"
        )
    return str(name)


def check_engine(engine: Engine, spec: InputSpec) -> str:
    """Hold an engine against the artifact's self-test at every batch size, and say what was found.

    This warms it up, too.

    Raises:
        ParityError: The engine computes something else.
        ArtifactError: The network fails.
    """
    images = pictures(spec)
    test, source = _expected(engine, images)
    what = f"{engine.where}: {engine.name}"
    worst = 0.0
    for alone in (True, False):
        for size in _allowed(engine):
            rows = images[np.arange(max(size, PICTURES)) % PICTURES]  # each at least once
            batches = np.split(rows, len(rows) // size)
            outputs = np.concatenate([engine.run(batch, alone=alone) for batch in batches])
            worst = max(worst, test.check(outputs, engine.precision, what))
    return f"{source}: off by {worst:.0%} of what {engine.precision} may be"


def _allowed(engine: Engine) -> tuple[int, ...]:
    fixed = engine.inputs[0][1][0]
    return (fixed,) if isinstance(fixed, int) else engine.sizes


def _expected(engine: Engine, images: np.ndarray) -> tuple[SelfTest, str]:
    """Return what the artifact gives for the pictures, and who says so.

    An artifact of before the self-test is held against onnxruntime on the CPU, which is what was
    measured when it was made, to the bound that was derived then.
    """
    text = engine.metadata.get("self_test")
    if text is not None:
        return SelfTest.from_json(text, engine.where), "the artifact's self-test"
    session = Session(Path(engine.where))
    outputs = np.concatenate([session.run(row[None])[0] for row in images])
    report = engine.metadata.get("report")
    bounds = (
        [one.bound for one in Report.from_json(report, engine.where).measured] if report else []
    )
    least = SCALE_STEPS * float(np.finfo(np.float32).eps * np.abs(outputs).max(initial=0))
    return SelfTest(outputs, max([least, *bounds])), "onnxruntime, for want of a self-test"
