"""What a conversion prints for people is whole lines, whatever its files are called."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from converters.cli import convert, verify
from tests.t7_writer import Module, write

EXACT = ["--input", "none", "--input-shape", "2,3"]


@pytest.mark.parametrize(
    ("command", "flags", "count"),
    [
        (convert, ["--no-onnx", *EXACT], 9),
        (convert, ["--only", "safetensors", "--verify", "none"], 4),
        (verify, EXACT, 4),
    ],
    ids=["network", "tensors", "comparison"],
)
def test_a_name_cannot_steer_the_terminal(
    command: Callable[[Sequence[str]], int],
    flags: list[str],
    count: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Control characters and line breaks in the name of a checkpoint are shown, never sent."""
    linear = Module("nn.Linear", weight=np.ones((2, 3), "f4"), bias=np.zeros(2, "f4"))
    assert command([str(write(tmp_path / "a\x1b[2J\nb.t7", linear)), *flags]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith("a\\x1b[2J\\nb.t7: ")
    assert len(lines) == count
    assert all(line.isprintable() for line in lines)
    assert all(line.isprintable() for line in printed.err.splitlines())


def test_what_was_written_is_named_as_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within the folder one is in without it, elsewhere whole."""
    linear = Module("nn.Linear", weight=np.ones((2, 3), "f4"), bias=np.zeros(2, "f4"))
    path = write(tmp_path / "tiny.t7", linear)
    monkeypatch.chdir(tmp_path)
    assert convert([str(path), "--no-onnx", *EXACT]) == 0
    assert "  wrote       tiny.pt (" in capsys.readouterr().out
    monkeypatch.chdir("/")
    assert convert([str(path), "--no-onnx", "--force", *EXACT]) == 0
    whole = str(tmp_path / "tiny.pt").lstrip("/")
    assert f"  wrote       {whole} (" in capsys.readouterr().out
