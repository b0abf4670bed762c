"""A tiny artifact, pictures whose class is plain to see, and a service in this process."""

import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.tiny_onnx import Tiny

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
PATIENCE_S = 30  # a machine may have much else to do


@pytest.fixture
def anyio_backend() -> str:
    """Run the async tests on the loop that the service runs on."""
    return "asyncio"


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """Return an artifact that tells red, green, blue and where it is bright."""
    return Tiny().write(tmp_path / "tiny.onnx")


@pytest.fixture
def serve(tiny_model: Path) -> Serve:
    """Return `serve(**settings)`: the service, started, behind a client, in this process."""
    settings = Settings(model=tiny_model, device="cpu", threads=1)

    @asynccontextmanager
    async def serve(**given: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(replace(settings, **given))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://relume")
        async with app.router.lifespan_context(app), client:
            yield client

    return serve


def holds(condition: Callable[[], object]) -> bool:
    """Wait until the condition holds, for half a minute at most; return whether it does.

    It keeps its thread: an event loop that is needed meanwhile gives it another one.
    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of the image's file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def plain(colour: str, size: tuple[int, int] = (32, 24)) -> Image.Image:
    """Return an image of one colour."""
    return Image.new("RGB", size, colour)


def bright_top() -> Image.Image:
    """Return an image that is white above and black below."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    return Image.fromarray(pixels)
