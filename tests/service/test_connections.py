"""Connections: what is no body has a limit, and nobody who was answered stays for ever."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.connections import MAX_HEADER_BYTES, SPARE, Connection, Limits
from service.guards import PROBES

pytestmark = pytest.mark.anyio
HEADER_S = 0.3
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK"


@dataclass
class Talk:
    """One connection to the server, and what the server noted."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    headers: list[bytes] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def told(self) -> bytes:
        """Return what comes until nothing has for a moment, or the end."""
        told = b""
        while True:
            try:
                part = await asyncio.wait_for(self.reader.read(65536), 0.1)
            except TimeoutError:
                return told
            told += part
            if not part:
                return told

    async def seconds_to_the_end(self, *parts: bytes) -> float:
        """Send a part each tenth of a second; return after how long the connection is closed."""
        start, waiting = asyncio.get_running_loop().time(), [*parts]
        while asyncio.get_running_loop().time() - start < 10 * HEADER_S:
            if waiting:
                self.writer.write(waiting.pop(0))
            try:
                if await asyncio.wait_for(self.reader.read(65536), HEADER_S / 3) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
        return asyncio.get_running_loop().time() - start


Connect = Callable[..., AbstractAsyncContextManager[Talk]]


@pytest.fixture
def connect() -> Connect:
    """Return what serves one connection; the application answers at once, or the whole body."""

    @asynccontextmanager
    async def connected(*, whole: bool = False, connections: int = 1) -> AsyncIterator[Talk]:
        talk: Talk

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            while whole and (await receive())["more_body"]:
                pass
            talk.headers += [name for name, _ in scope["headers"]]
            await PlainTextResponse("fine")(scope, receive, send)

        refused: list[str] = []
        limits = Limits(HEADER_S, connections, refused.append)
        config = uvicorn.Config(app, lifespan="off", log_config=None)  # type: ignore[arg-type]
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(limits, config, state, {}), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            talk = Talk(reader, writer, refused=refused)
            yield talk
            writer.close()
            await asyncio.sleep(0)

    return connected


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n", id="empty lines"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"G", id="half a request"),
        pytest.param(CHUNKED, b"1\r\na\r\n", id="the rest of a body"),
    ],
)
async def test_who_was_answered_does_not_stay(connect: Connect, first: bytes, then: bytes) -> None:
    """The clock of the headers runs on whatever comes, and is not set back by it."""
    async with connect() as talk:
        talk.writer.write(first)
        assert (await talk.told()).startswith(ANSWER)
        assert await talk.seconds_to_the_end(*[then] * 20) < 2 * HEADER_S


async def test_who_asks_again_is_answered_again(connect: Connect) -> None:
    """Also after the rest of a body that nobody wanted, and as often as he likes."""
    async with connect() as talk:
        for _ in range(5):
            talk.writer.write(CHUNKED)
            assert (await talk.told()).startswith(ANSWER)
            talk.writer.write(b"1\r\na\r\n0\r\n\r\n")
            assert await talk.told() == b""


async def test_a_body_of_small_chunks_is_no_header(connect: Connect) -> None:
    """Nor is the rest of a large one whose answer is sent."""
    for whole in (True, False):
        async with connect(whole=whole) as talk:
            talk.writer.write(CHUNKED + b"1\r\na\r\n" * MAX_HEADER_BYTES + b"0\r\n\r\n")
            assert (await talk.told()).startswith(ANSWER)
            assert talk.refused == []


async def test_trailers_are_dropped(connect: Connect) -> None:
    """Nobody asked for them."""
    async with connect(whole=True) as talk:
        talk.writer.write(CHUNKED + b"1\r\na\r\n0\r\nx-late: b\r\n\r\n")
        assert (await talk.told()).startswith(ANSWER)
        assert set(talk.headers) == {b"host", b"transfer-encoding"}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param((b"GET / HTTP/1.1\r\nX: ", b"a" * 4096), id="header"),
        pytest.param((CHUNKED + b"0\r\n", b"a: b\r\n" * 1000), id="trailers"),
        pytest.param((CHUNKED + b"0\r\nx: ", b"a" * 4096), id="one trailer"),
        pytest.param((CHUNKED + b"1;", b"a" * 4096), id="what a chunk says"),
        pytest.param((b"", b"\r\n" * 2048), id="empty lines"),
    ],
)
async def test_what_is_no_body_has_a_limit(connect: Connect, sent: tuple[bytes, bytes]) -> None:
    """Whoever sends more is told in the form of every refusal, and let go of."""
    first, more = sent
    async with connect(whole=True) as talk:
        talk.writer.write(first)
        for _ in range((MAX_HEADER_BYTES - len(first)) // len(more) + 1):
            talk.writer.write(more)
            await asyncio.sleep(0)
        told = await talk.told()
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["detail"] == "The headers are too long."
    assert talk.refused == ["malformed-request"]


async def test_what_is_no_http_is_refused_in_the_form_of_every_refusal(connect: Connect) -> None:
    """With a type that stays."""
    async with connect() as talk:
        talk.writer.write(b"\0\1\2\r\n\r\n")
        body = json.loads((await talk.told()).partition(b"\r\n\r\n")[2])
    assert body["type"] == "/problems/malformed-request"
    assert body["error"] == body["detail"] == "Invalid HTTP request received."


async def test_a_connection_too_many_is_counted(connect: Connect) -> None:
    """It is told when to come back."""
    async with connect(connections=0) as talk:
        talk.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        told = await talk.told()
    assert told.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 1\r\n" in told
    assert talk.refused == ["overloaded"]
    assert b"\r\nconnection: close\r\n" in told


@pytest.mark.parametrize("path", PROBES)
async def test_a_probe_is_answered_where_nobody_else_is(connect: Connect, path: str) -> None:
    """A service that is full is well, and whoever watches it must hear so, time and again."""
    async with connect(connections=0) as talk:
        for _ in range(3):
            talk.writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert (await talk.told()).startswith(ANSWER)
        assert talk.refused == []


async def test_places_of_probes_are_not_kept_by_waiting(connect: Connect) -> None:
    """Who asks nothing is let go of like anybody else."""
    async with connect(connections=0) as talk:
        assert await talk.seconds_to_the_end() < 2 * HEADER_S


async def test_probes_have_so_many_connections_and_no_more(connect: Connect) -> None:
    """Beyond them it is refused before anything is read."""
    async with connect(connections=-SPARE) as talk:
        told = await talk.told()
    assert told.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 1\r\n" in told
    assert talk.refused == ["overloaded"]
