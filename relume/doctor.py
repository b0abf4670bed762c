"""`relume doctor`: what is installed here, what computes, and what to install for a GPU."""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from models.cores import usable_cores
from models.engines import EngineOptions, open_engine
from models.errors import DeviceError, LegacyModelError
from models.session import runtime
from models.terminal import escaped, new_parser, reports_errors, size_of
from relume import __version__

State = Literal["works", "absent", "broken"]

# Packages that relume can do without for some of its work, and what they are for.
OPTIONAL = {
    "torch": "to convert and train",
    "onnx": "to convert",
    "shtab": "for `relume completion`: pip install shtab",
    "openvino": "a second engine for CPUs, with bf16 and int8: pip install 'relume[openvino]'",
    "nncf": "for `relume quantize`: pip install 'relume[quantize]'",
    "matplotlib": "for pictures of curves: pip install 'relume[plot]'",
    "tensorboard": "for `relume train --tensorboard`: pip install 'relume[plot]'",
    "opentelemetry-sdk": "for CLASSIFY_TRACES: pip install 'relume[tracing]'",
    "pyarrow": "to read and write Parquet: pip install 'relume[parquet]'",
    "ray": "to classify and serve on several machines: pip install 'relume[ray]'",
    "mkdocs-material": "to build the documentation's site: pip install 'relume[docs]'",
}
NEEDED = ("numpy", "pillow", "opencv-python-headless", "simplejpeg", "fastapi", "uvicorn")
ENGINES = (
    EngineOptions("onnxruntime", "cpu"),
    EngineOptions("onnxruntime", "cuda"),
    EngineOptions("openvino", "cpu"),
    EngineOptions("openvino", "cpu", "bf16"),
)
GPU_ENGINE = 1  # of those
SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
SMI_S = 10.0  # a driver that hangs is as good as none
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # where a container finds its own

# A graph of one Relu over 1 x 3 x 1 x 1, of opset 18: the engine that runs it can run.
RELU = bytes.fromhex(
    "080812003a4b0a0c0a0178120179220452656c751201675a1b0a017812160a14080112100a0208010a0208030a02"
    "08010a020801621b0a017912160a14080112100a0208010a0208030a0208010a02080142040a001012"
)


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        part: What it is about.
        state: Whether it works, is not here, or is here and fails.
        said: What was found, and what to do about it where something is to be done.
    """

    part: str
    state: State
    said: str


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume doctor`."""
    parser = new_parser(
        "Say what is installed here, what computes, by letting it compute, and what to install for "
        "more. What works has no mark, what is absent -, what is broken !, and ends with 1.",
        "relume doctor",
        "relume doctor --json         # to attach to a report",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; 1 where something is broken."""
    given = parser().parse_args(argv)
    found = list(findings())
    if given.json:
        print(json.dumps({"version": __version__, "findings": [one._asdict() for one in found]}))
    else:
        marks = {"works": " ", "absent": "-", "broken": "!"}
        for part, state, said in found:
            print(f"{marks[state]} {part:24} {escaped(said)}")
    return int(any(one.state == "broken" for one in found))


def findings() -> Iterator[Finding]:
    """Yield what is found, one thing after the other."""
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("relume", "works", f"{__version__}, Python {platform.python_version()}, {system}")
    yield from (_package(name, "") for name in NEEDED)
    yield from (_package(name, purpose) for name, purpose in OPTIONAL.items())
    yield Finding("cores", "works", f"{usable_cores()} of {os.cpu_count()}")
    yield _threads()
    yield _memory()
    yield _providers()
    tried = [_engine(options) for options in ENGINES]
    driver, torch = _gpu(), _torch()
    yield from tried
    yield driver
    yield torch
    yield _for_gpu(driver, torch, tried[GPU_ENGINE])


def _package(name: str, purpose: str) -> Finding:
    try:
        return Finding(name, "works", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        if purpose:
            return Finding(name, "absent", f"not installed; {purpose}")
        return Finding(name, "broken", f"not installed: pip install {name}")


def _threads() -> Finding:
    """Say on how many threads each library computes, unless it is told otherwise."""
    said = f"an engine {usable_cores()} (CLASSIFY_THREADS, --threads)"
    try:
        import torch

        said += f", torch {torch.get_num_threads()} (OMP_NUM_THREADS)"
    except ImportError:
        pass  # that it is not here has a line of its own
    return Finding("threads", "works", said)


def _providers() -> Finding:
    """Say what onnxruntime is built for; whether that computes here is tried below."""
    try:
        module = runtime()
    except DeviceError as error:
        both = "both installed" in str(error)
        return Finding("onnxruntime", "broken" if both else "absent", str(error))
    names = (name.removesuffix("ExecutionProvider") for name in module.get_available_providers())
    return Finding("onnxruntime", "works", f"{module.__version__}, built for {', '.join(names)}")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(MEMORY_LIMIT.read_text())
    except (OSError, ValueError):  # no control groups, or `max`
        limit = total
    bounded = f", of which this container may use {size_of(limit)}" if limit < total else ""
    return Finding("memory", "works", f"{size_of(total)}{bounded}")


def _gpu() -> Finding:
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Finding("NVIDIA driver", "absent", "no nvidia-smi that answers")
    if done.returncode:
        return Finding("NVIDIA driver", "broken", f"nvidia-smi: {done.stdout.strip()}")
    return Finding("NVIDIA driver", "works", "; ".join(done.stdout.strip().splitlines()))


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch on a GPU", "absent", f"no torch ({error})")
    if torch.cuda.is_available():
        names = (torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("torch on a GPU", "works", ", ".join(names))
    built = torch.version.cuda
    said = f"built for CUDA {built}, and finds no GPU" if built else "built without CUDA"
    return Finding("torch on a GPU", "absent", said)


def _for_gpu(driver: Finding, torch: Finding, engine: Finding) -> Finding:
    """Say what is to be installed so that an NVIDIA GPU computes, in order."""
    steps = []
    if driver.state != "works":
        steps.append("NVIDIA's driver, so that nvidia-smi lists the GPU (docker run --gpus all)")
    if engine.state != "works":  # the two packages overwrite each other's files
        steps.append(
            "to serve, pip uninstall onnxruntime onnxruntime-gpu, then pip install 'relume[gpu]'"
        )
    if torch.state != "works":
        steps.append("to train, pip uninstall torch, then pip install torch: PyPI's has CUDA")
    if not steps:
        return Finding("for a GPU", "works", "nothing is missing")
    return Finding("for a GPU", "absent", "; ".join(steps))


def _engine(options: EngineOptions) -> Finding:
    """Run a graph by an engine: what a library lists it can do says little of this machine."""
    part = " ".join((options.engine, options.device, options.precision))
    with tempfile.TemporaryDirectory(prefix="relume-") as folder:
        path = Path(folder) / "relu.onnx"
        path.write_bytes(RELU)
        try:
            engine = open_engine(path, options)
            given = np.array([-1, 0.5, 2], np.float32).reshape(1, 3, 1, 1)
            answer = engine.run(given, alone=True)
        except DeviceError as error:
            return Finding(part, "absent", str(error))
        except LegacyModelError as error:
            return Finding(part, "broken", str(error))
    right = np.array_equal(answer, np.maximum(given, 0))  # exact in bf16, too
    said = engine.name if right else f"{engine.name} gives {answer.ravel().tolist()}"
    return Finding(part, "works" if right else "broken", said)
