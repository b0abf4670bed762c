"""`relume COMMAND`: finds the command's module and imports only that.

So `relume inspect` answers in a moment, and `relume serve` runs where there is no torch.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from models.terminal import escaped, meant, missing_package
from relume import __version__


class Command(NamedTuple):
    """Where a command's function is, and what it does.

    Its parser stands beside it: `parser` beside `main`, `export_parser` beside `export`.
    """

    module: str
    function: str
    summary: str


COMMANDS = {
    "convert": Command(
        "converters.cli", "convert", "turn an old checkpoint into .pt and .onnx, verified"
    ),
    "inspect": Command("converters.summary", "inspect", "say what is in a checkpoint"),
    "onnx": Command("converters.cli", "pt_to_onnx", "write the .onnx of a .pt"),
    "export": Command(
        "converters.export", "export", "write weights as timm or torchvision do, or Triton's files"
    ),
    "verify": Command(
        "relume.verify", "main", "hold a checkpoint or precision against what it should give"
    ),
    "diff": Command("relume.diff", "main", "say where two checkpoints differ, layer by layer"),
    "quantize": Command("relume.precision", "quantize", "write an .onnx in int8 or fp16, measured"),
    "classify": Command(
        "relume.classify", "main", "say what is in images, folders of them as well"
    ),
    "pack": Command("relume.pack", "main", "pack folders of images into an MXNet .rec"),
    "data": Command("relume.data", "main", "lay out, check and split data sets"),
    "train": Command("models.train", "main", "train a network by a recipe, the seeds' or your own"),
    "evaluate": Command("models.evaluate", "main", "count the errors of an artifact on a data set"),
    "plot": Command("relume.plot", "main", "draw the curves of training logs"),
    "serve": Command("service.server", "main", "answer images over HTTP"),
    "doctor": Command("relume.doctor", "main", "say what is installed here and what computes"),
    "explain": Command("relume.explain", "main", "say what an error means and what to do about it"),
    "completion": Command("relume.completion", "main", "complete all this in bash, zsh or fish"),
}
GROUPS = {  # by what one wants
    "convert": ("convert", "inspect", "onnx", "export"),
    "prove": ("verify", "diff", "evaluate"),
    "serve": ("serve", "quantize"),
    "classify": ("classify",),
    "train": ("train", "plot"),
    "data": ("data", "pack"),
    "help": ("doctor", "explain", "completion"),
}
EXAMPLES = {
    "relume convert irv2.t7": "writes irv2.pt and irv2.onnx, verified",
    "relume serve irv2.onnx": "and open http://127.0.0.1:8000",
    "relume train": "a small ResNet on Fashion-MNIST, in minutes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; usage errors give 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"relume {__version__}")
        return 0
    if name not in COMMANDS:
        cure = meant(name, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        print(f"relume: no command {escaped(name)}{cure}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    sys.argv[0] = f"relume {name}"  # what argparse calls the program
    try:
        module = import_module(command.module)
    except ModuleNotFoundError as error:  # the serving image, for one, has no torch
        print(missing_package(error), file=sys.stderr)
        return 1
    run: Callable[[list[str]], int] = getattr(module, command.function)
    return run(rest)


def parser_of(command: Command) -> argparse.ArgumentParser:
    """Return the parser of a command, of which all is imported.

    Raises:
        ModuleNotFoundError: A package that the command needs is not installed.
    """
    name = "parser" if command.function == "main" else f"{command.function}_parser"
    make: Callable[[], argparse.ArgumentParser] = getattr(import_module(command.module), name)
    return make()


def _usage() -> str:
    """Return the whole product on one screen."""
    lines = ["usage: relume COMMAND ...       `relume COMMAND --help` says more of each", ""]
    width, wide = max(map(len, GROUPS)), max(map(len, COMMANDS))
    for group, names in GROUPS.items():
        for name in names:
            lines.append(f"{group:{width}}  {name:{wide}}  {COMMANDS[name].summary}")
            group = ""
    shown = max(map(len, EXAMPLES))
    lines += ["", *(f"  {line:{shown}}   # {what}" for line, what in EXAMPLES.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
