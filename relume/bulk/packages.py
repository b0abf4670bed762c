"""Packages that only whoever classifies in bulk has installed."""

from importlib import import_module
from types import ModuleType
from typing import Literal

from models.errors import DeviceError


def optional(name: str, extra: Literal["parquet", "ray"]) -> ModuleType:
    """Return a module of a package that an extra of relume installs.

    Raises:
        DeviceError: It is not installed, or cannot be loaded.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise DeviceError(f"{error}: pip install 'relume[{extra}]'") from error
