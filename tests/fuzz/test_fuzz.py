"""Fuzzing as a test: a fixed number of inputs from a fixed start."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracles import ROOT

RUNS = 200_000


@pytest.mark.slow
@pytest.mark.parametrize("script", ["fuzz_t7.py", "fuzz_mx.py"])
def test_a_fuzzed_file_is_a_value_or_our_error(tmp_path: Path, script: str) -> None:
    """Inputs that a fuzzer makes end in a value or a FormatError, in time and in memory."""
    pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 alone")
    command = [sys.executable, f"tests/fuzz/{script}", str(tmp_path), f"-runs={RUNS}", "-seed=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
