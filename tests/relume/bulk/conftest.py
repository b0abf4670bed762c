"""A model of a few hundred bytes, and pictures for it."""

from pathlib import Path

import pytest

from tests.bulk_runs import images, write_folder
from tests.tiny_onnx import Tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return an artifact that tells red, green, blue."""
    return Tiny().write(tmp_path / "tiny.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of 23 pictures of which one is damaged."""
    return write_folder(tmp_path / "pictures", images(23))
