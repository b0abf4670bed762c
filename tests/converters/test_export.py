"""`relume export` hands on to who writes the wanted form."""

from pathlib import Path

import pytest

from converters.export import export


def test_batches_are_tritons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that would do nothing is refused."""
    target = tmp_path / "out.pth"
    flags = ["x.pt", "--to", "timm", "-o", str(target), "--max-batch", "4"]
    assert export(flags) == 1
    assert "--max-batch: timm takes weights alone; triton has batches" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to", "triton"], "the following arguments are required: -o/--out"),
        (["--to", "tensorrt", "-o", "x"], "argument --to: invalid choice: 'tensorrt'"),
        (["--to", "triton", "-o", "x", "--max-batch", "0"], "'0' is not a whole number from 1"),
    ],
    ids=["no target", "no such form", "no batch"],
)
def test_wrong_flags_are_usage(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    """Usage errors give 2 and say what is wrong."""
    with pytest.raises(SystemExit, match="2"):
        export(["x.onnx", *flags])
    assert message in capsys.readouterr().err
