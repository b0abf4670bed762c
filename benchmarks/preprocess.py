"""What decoding and preprocessing cost, next to plain Pillow and plain OpenCV doing the same job.

    python benchmarks/preprocess.py FOLDER [-n 7] [--json]

FOLDER holds JPEG files. The job is an encoded image to the row of a batch: decode, resize, crop,
float32, mean and std, channels first. Pillow and OpenCV do it as a program of twenty lines would,
with the nearest filter they have (none has Torch7's). In each of n rounds every preset takes all
images with each of them in turn, so that a slow minute of the machine hits all that is compared;
figures are medians of the rounds, in processor time of one thread.
"""

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

sys.path[0] = str(Path(__file__).resolve().parents[1])

from models.decoding import decode  # noqa: E402  needs the line above
from models.preprocess import preprocess  # noqa: E402
from models.presets import PRESETS  # noqa: E402
from models.spec import InputSpec  # noqa: E402

SUFFIXES = (".jpg", ".jpeg")

Job = Callable[[bytes, InputSpec], Any]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time decoding and preprocessing of JPEG files.")
    parser.add_argument("folder", type=Path, help="a folder of JPEG files")
    parser.add_argument("-n", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    files = sorted(path for path in given.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise SystemExit(f"{given.folder}: found no {' or '.join(SUFFIXES)}")
    images = [path.read_bytes() for path in files]
    rates = {name: _rates(images, spec, given.n) for name, spec in PRESETS.items()}
    if given.json:
        print(json.dumps({"images": len(images), "rounds": given.n, "rates": rates}))
    else:
        print(_table(images, rates, given.n))
    return 0


def relume(data: bytes, spec: InputSpec) -> Any:
    """Return the row as this project makes it."""
    return preprocess(decode(data, orientation=False), spec)


def pillow(data: bytes, spec: InputSpec) -> Any:
    """Return the row as a plain Pillow program makes it."""
    with Image.open(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
    cubic = spec.resample.endswith("bicubic")
    method = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    resized = rgb.resize(_target(*rgb.size, spec), method)
    return _normalised(np.asarray(resized), spec)


def opencv(data: bytes, spec: InputSpec) -> Any:
    """Return the row as a plain OpenCV program makes it."""
    return _normalised(opencv_resized(data, spec), spec)


def opencv_resized(data: bytes, spec: InputSpec) -> Any:
    """Return the resized pixels, without crop and numbers."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise SystemExit("OpenCV cannot decode an image of the folder")
    pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    method = cv2.INTER_CUBIC if spec.resample.endswith("bicubic") else cv2.INTER_LINEAR
    height, width = pixels.shape[:2]
    return cv2.resize(pixels, _target(width, height, spec), interpolation=method)


def _target(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    if spec.resize_mode == "exact":
        return spec.resize, spec.resize
    shorter = min(width, height)
    return width * spec.resize // shorter, height * spec.resize // shorter


def _normalised(pixels: Any, spec: InputSpec) -> Any:
    height, width = spec.crop
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    numbers = pixels[top : top + height, left : left + width].astype(np.float32)
    numbers *= np.float32(spec.scale)
    numbers -= np.array(spec.mean, np.float32)
    numbers /= np.array(spec.std, np.float32)
    return np.ascontiguousarray(numbers.transpose(2, 0, 1))


JOBS: dict[str, Job] = {
    "relume": relume,
    "Pillow": pillow,
    "OpenCV": opencv,
    "OpenCV, decode and resize": opencv_resized,
}


def _rates(images: Sequence[bytes], spec: InputSpec, rounds: int) -> dict[str, float]:
    """Return images a second of one core."""
    taken: dict[str, list[float]] = {name: [] for name in JOBS}
    for turn in range(rounds + 1):
        for name, job in JOBS.items():
            start = time.thread_time()
            for data in images:
                job(data, spec)
            if turn:  # the first fills the caches
                taken[name].append(time.thread_time() - start)
    return {name: len(images) / statistics.median(seconds) for name, seconds in taken.items()}


def _table(images: Sequence[bytes], rates: dict[str, dict[str, float]], rounds: int) -> str:
    size = statistics.median(map(len, images)) / 1000
    lines = [
        f"{len(images)} images, median {size:.0f} kB; images/s a core, medians of {rounds} rounds;",
        "ratios are relume's rate by the other's; the last: OpenCV only decodes and resizes",
        f"{'':22}{'':16}{'relume':>8}{'Pillow':>8}{'OpenCV':>8}"
        f"{'x Pillow':>10}{'x OpenCV':>10}{'x OpenCV, less':>16}",
    ]
    for name, rate in rates.items():
        ours, pillows, opencvs, less = (rate[job] for job in JOBS)
        lines.append(
            f"{name:22}{PRESETS[name].resample:16}{ours:8.0f}{pillows:8.0f}{opencvs:8.0f}"
            f"{ours / pillows:10.2f}{ours / opencvs:10.2f}{ours / less:16.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
