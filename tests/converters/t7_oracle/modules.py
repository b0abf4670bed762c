"""Modules made for tests of the oracle, and what it makes of them."""

from pathlib import Path
from typing import Any

import numpy as np

from converters.t7 import reader
from converters.t7_oracle import Call, run
from tests.t7_writer import Module, write

X = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])


def ran(tmp_path: Path, module: Module, *inputs: Any) -> list[Call]:
    """Write a module, read it, and run it on X if nothing else is given."""
    path = write(tmp_path / "made.t7", module)
    return run(reader.read(path), inputs or [X], "made.t7")


def box(name: str, *modules: Module, **fields: Any) -> Module:
    """Return a container of nn."""
    return Module(f"nn.{name}", modules=list(modules), **fields)


def times(factor: Any, *, inplace: bool = False) -> Module:
    """Return a layer that multiplies."""
    return Module("nn.MulConstant", constant_scalar=factor, inplace=inplace)
