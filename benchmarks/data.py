"""What augmentation costs, next to plain Pillow code in torchvision's manner doing the same job.

    python benchmarks/data.py IMAGES [-n 7] [--json]

IMAGES is a folder with a folder of JPEG files for each class, or a .rec; it is packed anew into
records as it is, of short side 256 and of short side 480. The job is an image on disk to what a
worker hands over; for plain code that is the network's input (decoded, cropped, varied, float32,
normalised, channels first), for ours the crop's bytes and the map of its colours, which a GPU
applies. The column `with map` has it applied here instead, by torch, so that both give the same.
In each of n rounds everything takes all images in turn, so that a slow minute of the machine hits
all that is compared. Figures are images a second of processor time of one thread, medians.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance

sys.path[0] = str(Path(__file__).resolve().parents[1])

from models.augment import augmentation  # noqa: E402  needs the line above
from models.augment.colour import EIGENVALUES, EIGENVECTORS  # noqa: E402
from models.augment.device import apply  # noqa: E402
from models.augment.draws import generator  # noqa: E402
from models.augment.lornatang import OPERATIONS, drawn_strength  # noqa: E402
from models.data.folders import Folders  # noqa: E402
from models.data.packed import Packed  # noqa: E402
from models.data.samples import Samples  # noqa: E402
from models.presets import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from relume import pack  # noqa: E402

MEAN, STD = (np.array(value, np.float32)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))

Plain = Callable[[bytes, np.random.Generator], Any]


class Job(NamedTuple):
    """An augmentation from a source, and the plain code that does the same."""

    name: str
    level: int
    source: str
    plain: Plain


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time augmentation of JPEG files.")
    parser.add_argument("images", type=Path, help="folders of JPEG files, or a .rec of them")
    parser.add_argument("-n", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sources = _sources(given.images, Path(folder))
        rows = [_measured(job, sources[job.source], given.n) for job in JOBS]
    if given.json:
        print(json.dumps({"images": len(sources["folders"]), "rounds": given.n, "rates": rows}))
        return 0
    print(f"{len(sources['folders'])} images, {given.n} rounds, images a second of one core")
    print(
        f"{'augmentation':16} {'from':12} {'relume':>8} {'with map':>9} {'Pillow':>8} {'ratio':>6}"
    )
    for row in rows:
        numbers = f"{row['relume']:8,.0f} {row['with map']:9,.0f} {row['Pillow']:8,.0f}"
        print(f"{row['name']:16} {row['source']:12} {numbers} {row['ratio']:5.2f}x")
    return 0


def _sources(images: Path, folder: Path) -> dict[str, Samples]:
    """Return the images in folders, in records as they are, and resized in records."""
    root = images
    if images.suffix == ".rec":
        root, samples = folder / "images", Packed(images, None)
        for index, label in enumerate(samples.labels):
            path = root / f"{label:05}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(samples.read(index))
    sources: dict[str, Samples] = {"folders": Folders(root)}
    for name, options in {
        ".rec": ["--pass-through"],
        ".rec of 256": ["--resize", "256"],
        ".rec of 480": ["--resize", "480"],
    }.items():
        prefix = folder / name.replace(" ", "-").lstrip(".")
        if pack.main([str(root), "-o", str(prefix), *options, "--json"]):
            raise SystemExit(f"{root}: could not be packed")
        sources[name] = Packed(prefix.with_suffix(".rec"), None)
    return sources


def _measured(job: Job, samples: Samples, rounds: int) -> dict[str, Any]:
    augment = augmentation(job.name, level=job.level)

    def ours(index: int, draw: np.random.Generator) -> Any:
        return augment(samples.read(index), draw)

    def mapped(index: int, draw: np.random.Generator) -> Any:
        view = augment(samples.read(index), draw)
        return apply(*(torch.tensor(part)[None] for part in view))

    def plain(index: int, draw: np.random.Generator) -> Any:
        data = samples.read(index)
        assert isinstance(data, bytes)
        return job.plain(data, draw)

    kinds = {"relume": ours, "with map": mapped, "Pillow": plain}
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(rounds + 1):
        for name, work in kinds.items():
            start = time.thread_time()
            for index in range(len(samples)):
                work(index, generator(0, turn, index))
            taken[name].append(time.thread_time() - start)
    rates = {
        name: len(samples) / statistics.median(times[1:])  # the first round fills caches
        for name, times in taken.items()
    }
    level = f" level {job.level}" if job.name == "mxnet-224" else ""
    ratio = rates["relume"] / rates["Pillow"]
    return {"name": job.name + level, "source": job.source, **rates, "ratio": ratio}


def _image(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def _mirrored(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    flip = draw.random() < 0.5
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


def _numbers(image: Image.Image) -> Any:
    """Return float32 from 0 to 1, channels first."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32) / 255


def _normalised(numbers: Any) -> Any:
    return (numbers - MEAN) / STD


def _sized_crop(image: Image.Image, size: int, draw: np.random.Generator) -> Image.Image:
    for _ in range(10):
        area = draw.uniform(0.08, 1) * image.width * image.height
        ratio = draw.uniform(3 / 4, 4 / 3)
        width, height = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if width <= image.width and height <= image.height:
            left = int(draw.integers(image.width - width + 1))
            top = int(draw.integers(image.height - height + 1))
            box = image.crop((left, top, left + width, top + height))
            return box.resize((size, size), Image.Resampling.BILINEAR)
    return image.resize((size, size), Image.Resampling.BILINEAR)


def torch_sized(size: int) -> Plain:
    """Return crop, jitter and lighting in torchvision's manner."""

    def work(data: bytes, draw: np.random.Generator) -> Any:
        image = _sized_crop(_image(data), size, draw)
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for one in draw.permutation(3):
            image = enhancers[one](image).enhance(draw.uniform(0.6, 1.4))
        numbers = _numbers(_mirrored(image, draw))
        light = EIGENVECTORS @ (draw.normal(0, 0.1, 3) * EIGENVALUES)
        return _normalised(numbers + light.astype(np.float32)[:, None, None])

    return work


def _cropped(image: Image.Image, size: int, draw: np.random.Generator) -> Image.Image:
    left, top = (int(draw.integers(length - size + 1)) for length in image.size)
    return image.crop((left, top, left + size, top + size))


def enet(data: bytes, draw: np.random.Generator) -> Any:
    """Resize the shorter side to 256, crop, mirror."""
    image = _image(data)
    scale = 256 / min(image.size)
    size = (max(round(image.width * scale), 256), max(round(image.height * scale), 256))
    resized = image.resize(size, Image.Resampling.BILINEAR)
    return _normalised(_numbers(_mirrored(_cropped(resized, 224, draw), draw)))


def mxnet_level(level: int) -> Plain:
    """Return what a level of MXNet's does, with Pillow's affine map and HSV for its HLS."""

    def work(data: bytes, draw: np.random.Generator) -> Any:
        image = _image(data)
        if level > 1:
            scale, angle = draw.uniform(0.533, 1), draw.uniform(-0.17, 0.17) * (level - 2)
            across, down = np.cos(angle) / scale, np.sin(angle) / scale
            size = (int(image.width * scale), int(image.height * scale))
            image = image.transform(
                *(size, Image.Transform.AFFINE, (across, down, 0, -down, across, 0)),
                resample=Image.Resampling.BILINEAR,
                fillcolor=(127, 127, 127),
            )
        image = _cropped(image, 224, draw)
        if level > 1:
            added = np.trunc(draw.uniform(-1, 1, (3, 1)) * [[36], [50], [50]])
            table = (np.arange(256) + added).clip(0, 255).astype(int)
            image = image.convert("HSV").point(table.ravel().tolist()).convert("RGB")
        pixels = np.asarray(_mirrored(image, draw)).transpose(2, 0, 1)
        return np.ascontiguousarray(pixels).astype(np.float32)

    return work


def lornatang(data: bytes, draw: np.random.Generator) -> Any:
    """Do as torchvision does, transform by transform."""
    image = _sized_crop(_image(data), 299, draw)
    name = tuple(OPERATIONS)[draw.integers(len(OPERATIONS))]
    image = OPERATIONS[name](image, drawn_strength(name, draw)).rotate(draw.uniform(0, 270))
    image = _mirrored(image, draw)
    if draw.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return _normalised(_numbers(image))


JOBS: Sequence[Job] = (
    Job("torch-224", 1, "folders", torch_sized(224)),
    Job("torch-224", 1, ".rec", torch_sized(224)),
    Job("torch-224", 1, ".rec of 256", torch_sized(224)),
    Job("torch-299", 1, "folders", torch_sized(299)),
    Job("mxnet-224", 1, ".rec of 256", mxnet_level(1)),
    Job("mxnet-224", 2, ".rec of 480", mxnet_level(2)),
    Job("mxnet-224", 3, ".rec of 480", mxnet_level(3)),
    Job("enet-224", 1, "folders", enet),
    Job("enet-224", 1, ".rec of 256", enet),
    Job("lornatang-299", 1, "folders", lornatang),
)

if __name__ == "__main__":
    sys.exit(main())
