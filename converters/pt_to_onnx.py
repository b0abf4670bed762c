"""Write the ONNX form of an artifact: `python converters/pt_to_onnx.py irv2.pt`."""

import sys
from pathlib import Path

# The clone, not this folder: siblings must not shadow packages.
sys.path[0] = str(Path(__file__).resolve().parents[1])
from models.terminal import missing_package

try:
    from converters.cli import pt_to_onnx
except ModuleNotFoundError as error:
    sys.exit(missing_package(error))

if __name__ == "__main__":
    sys.exit(pt_to_onnx())
