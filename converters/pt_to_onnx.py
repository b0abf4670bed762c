"""Write the ONNX form of an artifact: `python converters/pt_to_onnx.py irv2.pt`."""

import sys
from pathlib import Path

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # the clone, not this folder: siblings must not shadow packages
from converters.cli import pt_to_onnx

if __name__ == "__main__":
    sys.exit(pt_to_onnx())
