"""Who may come in, and what becomes of those who are slow, leave, or ask from elsewhere."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service import routes
from service.app import create_app
from service.guards import Admission
from service.problems import Refusal
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
        links = ("/docs", "/openapi.json", "/problems/unauthorized")
        health = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
        for path in ("/", *links, *health):
            assert (await client.get(path)).status_code == 200, path
        for path in ("/models", "/metrics", "/v2/models/tiny"):
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


async def test_who_sends_slowly_keeps_nobody_out(serve: Serve) -> None:
    """Only a whole body takes a place: ten times as many as there are may be on their way."""
    going = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield RED["img"][:10]
        await going.wait()
        yield RED["img"][10:]

    headers = {"Content-Type": "image/png"}
    async with serve(queue=1, max_batch=1) as client:
        slow = [
            asyncio.create_task(client.post("/classify", content=body(), headers=headers))
            for _ in range(30)
        ]
        await asyncio.sleep(0.1)
        assert (await client.post("/classify", files=RED)).status_code == 200
        going.set()
        statuses = {answer.status_code for answer in await asyncio.gather(*slow)}
    assert 200 in statuses <= {200, 503}


class Inner:
    """An application that reads what is sent and answers when it is told to."""

    def __init__(self) -> None:
        self.going, self.whole = asyncio.Event(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, wait, answer."""
        while (await receive()).get("more_body"):
            pass
        self.whole += 1
        await self.going.wait()
        await Response()(scope, receive, send)


async def asked(app: Admission, model: str, *parts: bytes, more: bool = False) -> int:
    """Send a body in parts, without its end where there is more; return the status."""
    statuses: list[int] = []
    bodies = [*parts]

    async def receive() -> Message:
        await asyncio.sleep(0 if bodies else 60)
        body = bodies.pop(0)
        return {"type": "http.request", "body": body, "more_body": more or bool(bodies)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": "/classify", "model": model}
    await app(scope, receive, send)
    return statuses[0]


async def test_a_busy_model_keeps_nobody_from_an_idle_one() -> None:
    """Each has its places; one request more is refused before its body is read."""
    inner = Inner()
    app = Admission(inner, 2, 100, lambda scope: str(scope["model"]))
    busy = [asyncio.create_task(asked(app, "busy", b"image")) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert await asked(app, "busy") == 503
    idle = asyncio.create_task(asked(app, "idle", b"image"))
    await asyncio.sleep(0.01)
    inner.going.set()
    assert await asyncio.gather(*busy, idle) == [200, 200, 200]
    assert await asked(app, "busy", b"image") == 200


async def test_the_place_may_go_while_a_body_comes() -> None:
    """Then the whole body is refused, and what it held is free again."""
    inner = Inner()
    app = Admission(inner, 1, 100, lambda scope: "")
    both = [asyncio.create_task(asked(app, "", b"im", b"age")) for _ in range(2)]
    (refused,), (first,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(Refusal, match="1 requests are being worked on"):
        await refused
    inner.going.set()
    assert await first == 200
    assert await asked(app, "", b"x" * 100) == 200


async def test_bodies_on_their_way_hold_only_so_many_bytes() -> None:
    """As many as the places may have when they are full, whoever sends them."""
    inner = Inner()
    app = Admission(inner, 2, 100, lambda scope: "")
    slow = asyncio.create_task(asked(app, "", b"x" * 150, more=True))
    await asyncio.sleep(0.01)
    with pytest.raises(Refusal, match="150 bytes are inside") as caught:
        await asked(app, "", b"x" * 60)
    assert caught.value.kind == "overloaded"
    slow.cancel()
    await asyncio.wait([slow])
    inner.going.set()
    assert await asked(app, "", b"x" * 200) == 200


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


async def test_a_host_that_takes_too_long_is_503(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fetches an image is not waited for longer than the network itself."""
    opened = threading.Event()
    monkeypatch.setattr(routes, "fetch", lambda *_: opened.wait(5))
    async with serve(request_s=0.05, url_hosts=("a.example",)) as client:
        answer = await client.post("/classify", json={"url": "http://a.example/"})
        opened.set()
    assert problem(answer) == "timeout"


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
