"""Mounted under a path, the service is the same: guards, figures, page and links."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from service.app import create_app
from service.prefix import Prefix, path_of
from service.settings import Settings
from tests.service.conftest import encoded, plain

PREFIX = "/irv2"
pytestmark = pytest.mark.anyio


@asynccontextmanager
async def mounted(model: Path, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve under a prefix, as Ray Serve and proxies that say so do."""
    app = create_app(replace(Settings(model=model, device="cpu", threads=1), **given))
    transport = httpx.ASGITransport(app, root_path=PREFIX)
    client = httpx.AsyncClient(transport=transport, base_url=f"http://relume{PREFIX}")
    async with app.router.lifespan_context(app), client:
        yield client


async def test_images_are_classified(tiny_model: Path) -> None:
    """And counted under the names that the routes have everywhere."""
    async with mounted(tiny_model) as client:
        answer = await client.post("/classify", files={"img": encoded(plain("blue"))})
        assert answer.json()["predictions"][0]["label"] == "blue"
        page = (await client.get("/metrics")).text
    assert 'relume_requests_total{route="/classify",status="200"} 1.0' in page


async def test_tokens_are_asked_for_where_they_are_elsewhere(tiny_model: Path) -> None:
    """Health checks need none, images do."""
    async with mounted(tiny_model, tokens=("secret",)) as client:
        assert (await client.get("/readyz")).status_code == 200
        answer = await client.post("/classify", files={"img": encoded(plain("red"))})
        assert answer.status_code == 401


async def test_the_page_is_found_and_its_links_hold(tiny_model: Path) -> None:
    """Without the slash, links would be relative to the folder above; programs are told, too."""
    async with mounted(tiny_model) as client:
        answer = await client.get("http://relume/irv2")
        assert (answer.status_code, answer.headers["location"]) == (307, "./irv2/")
        assert answer.url.join(answer.headers["location"]) == "http://relume/irv2/"
        page = (await client.get("http://relume/irv2/")).text
        assert 'fetch("models"' in page
        assert 'href="docs"' in page
        document = (await client.get("/openapi.json")).json()
        assert document["servers"] == [{"url": PREFIX}]


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/classify", "", "/classify"),
        ("/", "", "/"),
        ("/a/classify", "/a", "/classify"),
        ("/a/a/b", "/a", "/a/b"),
        ("/a", "/a", ""),
        ("/a/", "/a/", "/"),
        ("/abc", "/a", "/abc"),
    ],
)
async def test_the_path_is_what_is_behind_the_prefix(
    path: str, root_path: str, expected: str
) -> None:
    """Whole parts of it only."""
    assert path_of({"path": path, "root_path": root_path}) == expected


async def test_a_path_without_prefix_is_the_path() -> None:
    """A server need not say `root_path` at all."""
    assert path_of({"path": "/x"}) == "/x"


@pytest.mark.parametrize("given", [{}, {"root_path": ""}, {"root_path": "/"}, {"root_path": "/a"}])
async def test_an_empty_path_is_not_redirected(given: dict[str, str]) -> None:
    """It has no prefix that lacks its slash, so the service itself says what it has there."""
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])

    await Prefix(app)({"type": "http", "path": "", **given}, None, None)  # type: ignore[arg-type]
    assert seen == [""]
