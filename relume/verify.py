"""`relume verify`: a checkpoint against its definitions, or a precision against float32."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

PRECISION = "--precision"  # the flag that tells the two apart


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the work to who can do it; only that is imported."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    lower = any(one.partition("=")[0] == PRECISION for one in arguments)
    if {"-h", "--help"} & set(arguments) and not lower:
        parser().parse_args(["--help"])  # of both, and ends there
    module = "relume.precision" if lower else "converters.cli"
    status: int = import_module(module).verify(arguments)
    return status


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume verify`, with the flags of both."""
    made: argparse.ArgumentParser = import_module("converters.cli").verify_parser()
    title = "what a lower precision does to the classes of an .onnx, which is SOURCE then"
    import_module("relume.precision").add_comparison(made.add_argument_group(title), required=False)
    return made
