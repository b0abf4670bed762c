"""Convert a PyTorch checkpoint: `python converters/pth_to_pt.py inceptionv4.pth.tar`."""

import sys
from pathlib import Path

# The clone, not this folder: siblings must not shadow packages.
sys.path[0] = str(Path(__file__).resolve().parents[1])
from models.terminal import missing_package

try:
    from converters.cli import convert
except ModuleNotFoundError as error:
    sys.exit(missing_package(error))

if __name__ == "__main__":
    sys.exit(convert())
