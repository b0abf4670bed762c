"""Convert a Torch7 .t7 checkpoint: `python converters/t7_to_pt.py irv2.t7`."""

import sys
from pathlib import Path

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # the clone, not this folder: siblings must not shadow packages
from converters.cli import t7_to_pt

if __name__ == "__main__":
    sys.exit(t7_to_pt())
