"""Connections whose headers must come soon, be short, and of which there are only so many.

Source: uvicorn uvicorn/protocols/http/httptools_impl.py; it times nothing before the first answer,
any data stops its timer after one, and it takes headers and trailers of any length.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.guards import PROBES
from service.prefix import path_of
from service.problems import MEDIA_TYPE, RETRY_AFTER_S, Refusal, document, response

SPARE = 16  # connections for probes alone: a full service is not restarted for being full
MAX_HEADER_BYTES = 64 * 1024  # eight times what nginx and Apache take


@dataclass(frozen=True)
class Limits:
    """What a connection may do.

    Attributes:
        header_s: Seconds for the headers of a request, and for what comes after an answer.
        connections: How many may be open, besides those that only ask how the service is.
        refused: Is told the type of each problem that is answered here.
    """

    header_s: float
    connections: int
    refused: Callable[[str], None]


class Connection(HttpToolsProtocol):
    """One connection; see the module."""

    _clock: asyncio.TimerHandle | None = None
    _in_headers = True
    _other_bytes = 0  # since the last of a body: headers, trailers, what chunks say

    def __init__(self, limits: Limits, *args: Any, **kwargs: Any) -> None:
        """Begin one, as uvicorn does it."""
        super().__init__(*args, **kwargs)
        self._limits = limits

    def connection_made(self, transport: Any) -> None:
        """Take it, or say at once that there are too many."""
        super().connection_made(transport)
        over = len(self.connections) - self._limits.connections
        if over > SPARE:
            self._refuse(_too_many())
            return
        if over > 0:
            self.app = self._only_probes
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is no body, and let nobody who was answered send for ever."""
        if self.transport.is_closing():
            return
        self._other_bytes += len(data)
        super().data_received(data)
        if self._other_bytes > MAX_HEADER_BYTES:
            self.send_400_response("The headers are too long.")
        if (
            self.cycle is not None
            and self.cycle.response_complete
            and self.timeout_keep_alive_task is None
        ):
            self._start()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong in the form of every refusal."""
        if not self.transport.is_closing():
            self._refuse(Refusal("malformed-request", msg))

    def on_message_begin(self) -> None:
        """Start the clock of the next request on this connection."""
        super().on_message_begin()
        self._in_headers = True
        self._start()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer, for which nobody asked, is dropped."""
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the clock: the body has one of its own."""
        self._in_headers = False
        self._stop()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand it on: what it has is counted elsewhere."""
        self._other_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count the next request."""
        self._other_bytes = 0
        super().on_message_complete()

    async def _only_probes(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer whoever asks how the service is, and nobody else."""
        if path_of(scope) in PROBES:
            await self.config.loaded_app(scope, receive, send)
            return
        refusal = _too_many()
        self._limits.refused(refusal.kind)
        await response(refusal, {"Connection": "close"})(scope, receive, send)

    def _start(self) -> None:
        if self._clock is None and not self.transport.is_closing():
            self._clock = self.loop.call_later(self._limits.header_s, self._too_slow)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        self._limits.refused(refusal.kind)
        self.transport.write(_answer(refusal))
        self.transport.close()


def _too_many() -> Refusal:
    return Refusal("overloaded", "too many connections are open: ask again in a moment")


def _answer(refusal: Refusal) -> bytes:
    content = document(refusal)
    body = json.dumps({**content, "error": content["detail"]}).encode()
    retry = b"retry-after: %d\r\n" % RETRY_AFTER_S if content["status"] == 503 else b""
    return b"%scontent-type: %s\r\nconnection: close\r\n%scontent-length: %d\r\n\r\n%s" % (
        STATUS_LINE[content["status"]],
        MEDIA_TYPE.encode(),
        retry,
        len(body),
        body,
    )
