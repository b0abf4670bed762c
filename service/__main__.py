"""Classify images over HTTP: `python -m service --model irv2.onnx`."""

import sys

from models.terminal import missing_package

try:
    from service.server import main
except ModuleNotFoundError as error:
    sys.exit(missing_package(error))

if __name__ == "__main__":
    sys.argv[0] = "python -m service"  # what argparse calls the program
    sys.exit(main())
