"""Compare two checkpoints layer by layer: is it the same network, and where do the weights differ?

    python examples/compare.py

The example network is converted, and a copy of the result gets one channel of one convolution
halved. You see `relume diff` find that the converted network is the one in the Torch7 file; that
the changed one differs, in which tensor of each file and in how many numbers; and that it is the
same within a tolerance. Each command is shown with its exit status, which is that of diff(1): 0 for
equal, 1 for different.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path[0] = str(Path(__file__).resolve().parents[1])

from examples.demo import CHECKPOINT, ROOT, DemoError  # noqa: E402  needs the line above
from models.terminal import reports_errors  # noqa: E402

EQUAL, DIFFERENT = 0, 1
CHANGED = "blocks.4.branch.project.conv.weight"


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Compare two checkpoints layer by layer.")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        default=ROOT / "artifacts" / "compare",
        help="folder of what is written (default: artifacts/compare)",
    )
    out: Path = parser.parse_args(argv).out.resolve()
    relume("convert", CHECKPOINT, "-o", out, "--name", "same", "--no-onnx", "--force")
    change(out / "same.pt", out / "changed.pt")
    relume("diff", CHECKPOINT, out / "same.pt")
    relume("diff", CHECKPOINT, out / "changed.pt", expected=DIFFERENT)
    relume("diff", CHECKPOINT, out / "changed.pt", "--tolerance", 0.5)
    return 0


def change(source: Path, target: Path) -> None:
    """Write an artifact again with half a channel's weights: it is plain data and tensors."""
    content = torch.load(source, weights_only=True)
    content["state_dict"][CHANGED][3] /= 2
    torch.save(content, target)


def relume(*arguments: object, expected: int = EQUAL) -> None:
    """Show a command, run it, and show its exit status.

    Raises:
        DemoError: It is not the expected one; what is wrong has been said.
    """
    texts = [str(one) for one in arguments]
    print(f"\n$ relume {' '.join(texts)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "relume", *texts], cwd=ROOT, check=False)
    print(f"exit status {done.returncode}", flush=True)
    if done.returncode != expected:
        raise DemoError(f"relume {texts[0]}: status {done.returncode}, expected {expected}")


if __name__ == "__main__":
    sys.exit(main())
