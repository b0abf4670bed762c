"""What a million images cost: processor time of one image, in each stage of `relume classify`.

    python benchmarks/cost.py FOLDER MODEL.onnx ... [-n 5] [--engine openvino] [--precision bf16]

FOLDER holds JPEG files. Every stage is run by one thread and timed by the processor time of the
process, so that a machine that others use too gives the same figures; in each of n rounds every
network takes all images, and figures are medians of the rounds. An hour of one core for a million
images, at 1 / 3,600 of a core hour a second, is what 3.6 ms an image come to.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])

from models.decoding import decode  # noqa: E402  needs the line above
from models.engines import EngineOptions, open_engine  # noqa: E402
from models.postprocess import probabilities, top_k  # noqa: E402
from models.preprocess import preprocess  # noqa: E402
from models.spec import ModelSpec  # noqa: E402

T = TypeVar("T")
SUFFIXES = (".jpg", ".jpeg")
CORE_HOURS = 1_000_000 / 3_600_000  # of a million images that take a millisecond each


class Cost(NamedTuple):
    """Milliseconds of one core for one image."""

    read: float
    decode: float
    preprocess: float
    network: float
    answer: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what a million images cost on a CPU.")
    parser.add_argument("folder", type=Path, help="a folder of JPEG files")
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="an .onnx of relume")
    parser.add_argument("-n", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--engine", choices=("onnxruntime", "openvino"), default="onnxruntime")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    files = sorted(path for path in given.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise SystemExit(f"{given.folder}: found no {' or '.join(SUFFIXES)}")
    options = EngineOptions(given.engine, "cpu", given.precision, threads=1)
    networks = {path.stem: Network(path, options) for path in given.models}
    rounds = [{name: one.cost(files) for name, one in networks.items()} for _ in range(given.n + 1)]
    costs = {  # the first round fills the caches
        name: Cost(
            *(statistics.median(part) for part in zip(*(r[name] for r in rounds[1:]), strict=True))
        )
        for name in networks
    }
    if given.json:
        print(json.dumps({name: cost._asdict() for name, cost in costs.items()}))
    else:
        print(table(costs))
    return 0


class Network:
    """One network, ready to run."""

    def __init__(self, path: Path, options: EngineOptions) -> None:
        """Open the file."""
        self._engine = open_engine(path, options)
        self._spec = ModelSpec.of_metadata(self._engine.metadata, str(path))

    def cost(self, files: Sequence[Path]) -> Cost:
        """Return what each stage takes for one of the files, on average."""
        spec = self._spec
        assert spec.input is not None
        given = spec.input
        reading, data = _timed(lambda: [file.read_bytes() for file in files])
        decoding, images = _timed(lambda: [decode(one, orientation=False) for one in data])
        preparing, rows = _timed(lambda: [preprocess(image, given) for image in images])
        size = self._engine.max_batch
        batches = [np.stack(rows[at : at + size]) for at in range(0, len(rows), size)]
        running, outputs = _timed(
            lambda: [self._engine.run(batch, alone=True) for batch in batches]
        )
        answering, _ = _timed(
            lambda: [
                top_k(row, spec.labels, 5)
                for output in outputs
                for row in probabilities(output, spec.output)
            ]
        )
        return Cost(
            *(1000 * s / len(files) for s in (reading, decoding, preparing, running, answering))
        )


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def table(costs: dict[str, Cost]) -> str:
    """Return a Markdown table: milliseconds of a core an image, and what a million come to."""
    lines = [
        "| network | " + " | ".join(Cost._fields) + " | all, ms | core hours a million |",
        "|---" * (len(Cost._fields) + 3) + "|",
    ]
    for name, cost in costs.items():
        whole = sum(cost)
        parts = " | ".join(f"{part:.2f}" for part in cost)
        lines.append(f"| {name} | {parts} | {whole:.1f} | {whole * CORE_HOURS:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
