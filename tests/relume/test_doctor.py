"""The doctor says what computes here, by computing, and what to do where nothing does."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from models.cores import usable_cores
from models.engines import Engine
from models.errors import DeviceError
from relume import doctor
from relume.__main__ import main
from relume.doctor import RELU, SMI_S, findings
from tests.oracles import ROOT


def found(part: str) -> doctor.Finding:
    return next(one for one in findings() if one.part == part)


def test_the_graph_is_a_relu() -> None:
    """What the engines are tried with is a whole model of one operator."""
    model = onnx.load_model_from_string(RELU)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu"]


def test_engines_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    """OpenVINO and onnxruntime compute here; the package for CPUs has no CUDA, and says so."""
    assert main(["doctor", "--json"]) == 0
    told = {one["part"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert told["onnxruntime cpu float32"]["state"] == "works"
    assert told["openvino cpu float32"]["state"] == "works"
    assert told["torch"]["said"] == importlib.metadata.version("torch")
    cuda = told["onnxruntime cuda float32"]
    assert cuda["state"] == "works" or "pip install 'relume[gpu]'" in cuda["said"]


def test_threads_and_providers_are_told() -> None:
    """How many threads compute, and what onnxruntime is built for."""
    assert found("threads").said == (
        f"an engine {usable_cores()} (CLASSIFY_THREADS, --threads), "
        f"torch {torch.get_num_threads()} (OMP_NUM_THREADS)"
    )
    assert re.fullmatch(r"1\.\d+\.\d+, built for .*\bCPU\b.*", found("onnxruntime").said)


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ("onnxruntime and onnxruntime-gpu are both installed and overwrite each other", "broken"),
        ("onnxruntime cannot be imported (gone): pip install 'relume[cpu]'", "absent"),
    ],
    ids=["two", "none"],
)
def test_a_runtime_that_is_not_there(
    message: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that have overwritten each other are broken, none is absent; each says the cure."""

    def refuse() -> None:
        raise DeviceError(message)

    monkeypatch.setattr(doctor, "runtime", refuse)
    assert found("onnxruntime") == doctor.Finding("onnxruntime", state, message)


def test_without_torch_the_engines_threads_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the serving image."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert found("threads").said == f"an engine {usable_cores()} (CLASSIFY_THREADS, --threads)"
    assert found("torch on a GPU").state == "absent"


@pytest.mark.parametrize(
    ("states", "state", "said"),
    [
        (("works", "works", "works"), "works", ["nothing is missing"]),
        (("absent", "works", "works"), "absent", ["NVIDIA's driver, so that nvidia-smi lists"]),
        (
            ("works", "works", "absent"),
            "absent",
            ["to serve, pip uninstall onnxruntime onnxruntime-gpu, then pip install 'relume[gpu]'"],
        ),
        (
            ("broken", "absent", "broken"),
            "absent",
            ["NVIDIA's driver", "to serve, pip uninstall onnxruntime", "to train, pip uninstall"],
        ),
    ],
    ids=["all", "no driver", "no runtime", "nothing"],
)
def test_what_to_install_for_a_gpu(states: Any, state: str, said: list[str]) -> None:
    """Only what is missing is named, in the order in which it is to be done."""
    answer = doctor._for_gpu(*(doctor.Finding("", one, "") for one in states))
    assert answer.state == state
    steps = answer.said.split("; ")
    assert all(step.startswith(start) for step, start in zip(steps, said, strict=True))


def test_every_extra_is_told_of() -> None:
    """Whatever can be installed besides is named with what it is for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].keys() - {"dev", "bench", "cpu", "gpu"}
    assert [one for one in extras if f"'relume[{one}]'" not in str(doctor.OPTIONAL)] == []


def test_an_engine_that_is_wrong_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running is not enough: the numbers have to be right."""

    class Wrong(Engine):
        name = "wrong 1.0"

        def run(self, batch: np.ndarray, *, alone: bool) -> np.ndarray:
            return batch

    monkeypatch.setattr(doctor, "open_engine", lambda *_: Wrong())
    one = found("onnxruntime cpu float32")
    assert one.state == "broken"
    assert one.said == "wrong 1.0 gives [-1.0, 0.5, 2.0]"


def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What relume needs is broken without it and gives 1; what is optional says what it is for."""
    whole = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("pillow", "nncf"):
            raise importlib.metadata.PackageNotFoundError(name)
        return whole(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "! pillow                   not installed: pip install pillow" in lines
    assert any(line.startswith("- nncf") and "relume[quantize]" in line for line in lines)


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (FileNotFoundError("nvidia-smi"), "absent", "no nvidia-smi that answers"),
        (subprocess.TimeoutExpired("nvidia-smi", SMI_S), "absent", "no nvidia-smi that answers"),
        ((9, "Driver/library version mismatch\n"), "broken", "nvidia-smi: Driver/library version"),
        ((0, "H100, 580.1, 80 GiB\nH100, 580.1, 80 GiB\n"), "works", "80 GiB; H100, 580.1"),
    ],
)
def test_the_driver_is_asked(
    answer: Any, state: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may be away, hang, be broken, or list its GPUs."""

    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess("nvidia-smi", answer[0], answer[1])

    monkeypatch.setattr(subprocess, "run", run)
    one = found("NVIDIA driver")
    assert one.state == state
    assert said in one.said


def test_a_container_s_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit below the machine's memory is told beside it; `max` is none."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "MEMORY_LIMIT", limit)
    limit.write_text("512000000\n")
    assert found("memory").said.endswith(", of which this container may use 512.0 MB")
    limit.write_text("max\n")
    assert "container" not in found("memory").said
