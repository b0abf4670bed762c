"""`relume verify`: a checkpoint against its definitions, or a precision against float32."""

import sys
from collections.abc import Sequence
from importlib import import_module


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the work to who can do it; only that is imported."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    lower = any(one.partition("=")[0] == "--precision" for one in arguments)
    module, function = ("relume.precision", "verify") if lower else ("converters.cli", "verify")
    if {"-h", "--help"} & set(arguments) and not lower:
        print("with MODEL.onnx --precision bf16|int8|fp16 --images DIR: what that precision does")
        print("to the classes; relume verify --precision bf16 --help says more\n")
    status: int = getattr(import_module(module), function)(arguments)
    return status
