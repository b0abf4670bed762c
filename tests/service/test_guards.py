"""Who may come in, and what becomes of those who are slow, leave, or ask from elsewhere."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest
from starlette.types import Message

from service.app import create_app
from service.served import Served
from service.settings import Settings
from tests.service.conftest import Serve, encoded, plain
from tests.service.test_app import problem

pytestmark = pytest.mark.anyio
RED = {"img": encoded(plain("red"))}
TOKENS = ("one-secret", "another")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer one-secret", 200),
        ("bearer another", 200),
        ("Bearer one-secre", 401),
        ("Bearer ", 401),
        ("Basic one-secret", 401),
        ("one-secret", 401),
        (None, 401),
    ],
)
async def test_a_token_opens_the_service(serve: Serve, header: str | None, status: int) -> None:
    """One of those that were set, in the header; anything else is told what is wanted."""
    headers = {"Authorization": header} if header else {}
    async with serve(tokens=TOKENS) as client:
        answer = await client.post("/classify", files=RED, headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert problem(answer) == "unauthorized"
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_orchestrators_and_the_page_need_no_token(serve: Serve) -> None:
    """Health says nothing that is secret; all else is closed."""
    async with serve(tokens=TOKENS) as client:
        for path in ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert (await client.get(path)).status_code == 200, path
        for path in ("/models", "/metrics", "/docs", "/openapi.json", "/v2/models/tiny"):
            assert (await client.get(path)).status_code == 401, path


async def test_a_token_is_in_no_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a right one nor a wrong one."""
    with caplog.at_level(logging.DEBUG):
        async with serve(tokens=TOKENS) as client:
            for token in ("one-secret", "wrong-secret"):
                headers = {"Authorization": f"Bearer {token}"}
                await client.post("/classify", files=RED, headers=headers)
    assert "secret" not in caplog.text + str([vars(record) for record in caplog.records])


@pytest.mark.parametrize(
    ("origins", "allowed"), [((), None), (("https://a.example",), "https://a.example")]
)
async def test_other_pages_may_ask_only_where_that_was_set(
    serve: Serve, origins: tuple[str, ...], allowed: str | None
) -> None:
    """A browser keeps the answer from a page unless its origin is named back."""
    async with serve(cors_origins=origins) as client:
        headers = {"Origin": "https://a.example"}
        answer = await client.get("/models", headers=headers)
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        other = await client.get("/models", headers={"Origin": "https://b.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


async def test_a_body_that_comes_too_slowly_is_408(serve: Serve) -> None:
    """Who sends half and stops holds a place for that long only."""

    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.sleep(10)
        yield b"the rest"

    async with serve(body_s=0.1) as client:
        headers = {"Content-Type": "image/png"}
        answer = await client.post("/classify", content=body(), headers=headers)
    assert problem(answer) == "slow-request"
    assert answer.headers["Connection"] == "close"


async def test_an_answer_that_takes_too_long_is_503(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told when to come back, and the place is free again."""
    opened, run = threading.Event(), Served.run

    def slow(served: Served, batch: np.ndarray, alone: bool) -> np.ndarray:
        opened.wait(5)
        return run(served, batch, alone)

    async with serve(request_s=0.05) as client:
        monkeypatch.setattr(Served, "run", slow)
        # The pipeline holds what it was made with.
        state = client._transport.app.state.service  # type: ignore[attr-defined]
        (served,) = state.catalog.served
        served.pipeline._stages = served.pipeline._stages._replace(run=served.run)
        answer = await client.post("/classify", files=RED)
        opened.set()
        assert problem(answer) == "timeout"
        assert answer.headers["Retry-After"] == "1"
        assert served.pipeline.waiting == 0


async def test_work_for_a_client_who_left_is_dropped(tiny_model: object) -> None:
    """Before its batch runs: what nobody waits for costs nothing."""
    app = create_app(Settings(model=tiny_model, device="cpu", threads=1, max_batch=1))  # type: ignore[arg-type]
    opened, runs = threading.Event(), []
    async with app.router.lifespan_context(app):
        (served,) = app.state.service.catalog.served

        def slow(batch: np.ndarray, alone: bool) -> np.ndarray:
            runs.append(len(batch))
            opened.wait(5)
            return served.run(batch, alone)

        served.pipeline._stages = served.pipeline._stages._replace(run=slow)
        first = asyncio.create_task(call(app, asyncio.Event()))
        while not runs:
            await asyncio.sleep(0.01)
        left = asyncio.Event()
        second = asyncio.create_task(call(app, left))
        await asyncio.sleep(0.05)
        left.set()
        assert await second == 499
        opened.set()
        assert await first == 200
        await asyncio.sleep(0.05)
    assert runs == [1]


async def call(app: object, left: asyncio.Event) -> int:
    """Send an image as a server does, and leave when told; return the status."""
    image, statuses = encoded(plain("red")), []
    messages = [{"type": "http.request", "body": image, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "raw_path": b"/classify",
        "query_string": b"",
        "headers": [(b"content-type", b"image/png"), (b"host", b"relume")],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("relume", 80),
        "root_path": "",
    }
    assert callable(app)
    await app(scope, receive, send)
    return int(statuses[0])
