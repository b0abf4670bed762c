"""Images in, their most probable classes out: decoded in all cores while the network computes."""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from models.cores import usable_cores
from models.decoding import decode
from models.errors import ArtifactError, DeviceError, ImageError
from models.image_network import ImageNetwork
from models.postprocess import Prediction, top_k
from models.preprocess import preprocess, ten_crops
from models.session import Session
from models.terminal import escaped
from relume.images import Image
from relume.processes import ahead

Device = Literal["auto", "cuda", "cpu"]


class Result(NamedTuple):
    """What became of one image: its classes, best first, or why there are none."""

    name: str
    predictions: list[Prediction]
    error: str | None = None


class Options(NamedTuple):
    """How images are prepared and run."""

    top: int
    crops: int
    orientation: bool
    batch: int
    readers: int | None = None  # images that are read and decoded at a time; None: a core each


def open_network(path: Path, device: Device, threads: int | None) -> ImageNetwork:
    """Return the network of an artifact, and say on stderr what runs it.

    Raises:
        ArtifactError: It is none of relume, or cannot be run.
        DeviceError: The device cannot be had, or does not run such a file.
        ModuleNotFoundError: There is no torch, which a .pt needs.
    """
    if path.suffix == ".onnx":
        session = Session(path, device, threads)
        print(escaped(f"{path}: {session.reason}"), file=sys.stderr)
        return ImageNetwork.of_session(session)
    if path.suffix not in (".pt", ".safetensors"):
        raise ArtifactError(
            f"{path}: expected an .onnx, .pt or .safetensors of relume; "
            "`relume convert` makes them of a checkpoint"
        )
    if device == "cuda":
        raise DeviceError(f"{path}: is run on the CPU; `relume onnx {path}` makes what a GPU runs")
    return _torch_network(path, threads)


def _torch_network(path: Path, threads: int | None) -> ImageNetwork:
    torch = import_module("torch")
    checkpoint, building, verifying = (
        import_module(f"models.{name}") for name in ("checkpoint", "build", "verify")
    )
    if threads is not None:
        torch.set_num_threads(threads)
    spec, network, _ = checkpoint.read(path)
    graph = network.graph
    inputs = [(name, ("N", *shape[1:]) if graph.dynamic else shape) for name, shape in graph.inputs]

    def run(batch: np.ndarray) -> np.ndarray:
        try:
            output: np.ndarray = verifying.run(module, [batch])[0]
        except RuntimeError as error:  # what the check did not see, such as numbers for indices
            reason = str(error).partition("\n")[0]
            raise ArtifactError(f"{path}: cannot run: {reason}") from error
        return output

    classifier = ImageNetwork(str(path), spec, inputs, run)
    images = graph.inputs[0]._replace(shape=(classifier.fixed_batch or 2, 3, *spec.input.crop))
    building.check_shapes(replace(graph, inputs=(images,)), str(path))
    module = building.build(network)
    print(escaped(f"{path}: cpu: torch {torch.__version__}"), file=sys.stderr)
    return classifier


def classify(images: Iterable[Image], network: ImageNetwork, options: Options) -> Iterator[Result]:
    """Yield a result for each image, in order; a bad image is one, too, and ends nothing.

    A few batches of images are in memory at a time, however many there are.

    Raises:
        ArtifactError: The network cannot be run, or gives no numbers.
    """
    at_once = max(options.batch // options.crops, 1)
    readers = options.readers or usable_cores()
    with ThreadPoolExecutor(readers) as pool:
        prepared = ahead(
            lambda image: pool.submit(_prepared, image, network, options),
            images,
            max(2 * at_once, readers),
        )
        while group := list(islice(prepared, at_once)):
            rows = [row for _, row in group if not isinstance(row, str)]
            answers = iter(network.probabilities(np.stack(rows)) if rows else ())
            for name, row in group:
                if isinstance(row, str):
                    yield Result(name, [], row)
                else:
                    yield Result(name, top_k(next(answers), network.spec.labels, options.top))


Prepared = tuple[str, "np.ndarray | str"]


def _prepared(image: Image, network: ImageNetwork, options: Options) -> Prepared:
    """Return the image's name and its row, or why there is none."""
    try:
        pixels = decode(image.read(), orientation=options.orientation)
        prepare = preprocess if options.crops == 1 else ten_crops
        return image.name, prepare(pixels, network.input)
    except ImageError as error:
        return image.name, str(error)
    except OSError as error:
        return image.name, error.strerror or str(error)
