"""What a million images cost is measured on any folder of pictures."""

import json
import subprocess
import sys
from pathlib import Path

from tests.oracles import ROOT
from tests.tiny_onnx import Tiny


def test_every_stage_has_its_time(tmp_path: Path) -> None:
    """The network's time is there, and none is negative."""
    model = Tiny().write(tmp_path / "tiny.onnx")
    command = [sys.executable, "benchmarks/cost.py", "examples", str(model), "-n", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    cost = json.loads(done.stdout)["tiny"]
    assert set(cost) == {"read", "decode", "preprocess", "network", "answer"}
    assert cost["decode"] > 0
    assert cost["preprocess"] > 0
    assert cost["network"] > 0


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    """One line says what was expected."""
    command = [sys.executable, "benchmarks/cost.py", str(tmp_path), "x.onnx"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: found no .jpg or .jpeg\n"
