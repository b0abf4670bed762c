"""Does one part after the other, in any process: reads, classifies, writes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from models.cores import usable_cores
from models.errors import ArtifactError
from relume.bulk import results
from relume.bulk.folder import result_folder
from relume.bulk.parts import Part, skipped
from relume.bulk.progress import Progress
from relume.classifier import Device, Options, Result, classify, open_network

READERS = 32  # images that are fetched at a time where each is a request to a store


@dataclass(frozen=True)
class Job:
    """What every worker of a run must know.

    Attributes:
        out: The folder of the results, a path or URL.
        parts: How many there are.
        model: The artifact, which each worker opens.
        model_sha256: Of it.
        device: What runs it.
        threads: Of the network, on the CPU, and as many that decode; None for every core.
        options: How images are prepared and run.
        skip_unreachable: Whether an image whose server or store cannot be reached is broken, and
            does not end the run.
    """

    out: str
    parts: int
    model: Path
    model_sha256: str
    device: Device
    threads: int | None
    options: Options
    skip_unreachable: bool = False


Numbered = Sequence[tuple[int, Part]]  # parts and their places among all
Engine = Callable[[Job, Numbered, Progress], None]  # does them, in this process or in others


class Outcome(NamedTuple):
    """What became of a part; of one that another process had finished, no images."""

    number: int
    images: int
    broken: int


class Worker:
    """Holds the network, which is opened once."""

    def __init__(self, job: Job) -> None:
        """Open the network.

        Raises:
            ArtifactError: It is none of relume, cannot be run, or is not the one of the run.
            DeviceError: The device cannot be had.
        """
        if (found := sha256(job.model)) != job.model_sha256:
            raise ArtifactError(
                f"{job.model}: found SHA-256 {found}, expected the run's {job.model_sha256}: "
                "every machine needs the same file"
            )
        self._job = job
        self._network = open_network(job.model, job.device, job.threads)
        self._folder = result_folder(job.out)

    def do(self, number: int, part: Part, seen: Callable[[Result], None]) -> Outcome:
        """Classify a part's images and write its tables, unless they are there.

        Args:
            number: The part's.
            part: The images.
            seen: Is told of each result as it comes.
        """
        job, name = self._job, results.file_name(number, self._job.parts)
        if results.settled(self._folder, name):
            return Outcome(number, 0, 0)
        found = []
        readers = job.options.readers or job.threads or usable_cores()
        options = job.options._replace(readers=max(READERS, readers) if part.remote else readers)
        images = map(skipped, part.images()) if job.skip_unreachable else part.images()
        for result in classify(images, self._network, options):
            found.append(result)
            seen(result)
        results.write(self._folder, name, found, job.model_sha256)
        return Outcome(number, len(found), sum(one.error is not None for one in found))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        ArtifactError: There is no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
