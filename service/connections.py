"""Connections whose headers must come soon, be short, and of which there are only so many.

Source: uvicorn uvicorn/protocols/http/httptools_impl.py; it times nothing before the first answer,
any data stops its timer after one, and it takes headers and trailers of any length.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.problems import MEDIA_TYPE, RETRY_AFTER_S, Refusal, document

MAX_HEADER_BYTES = 64 * 1024  # eight times what nginx and Apache take


def protocol(
    *, header_s: float, max_connections: int, refused: Callable[[str], None]
) -> type[HttpToolsProtocol]:
    """Return the protocol for uvicorn's `http`.

    Args:
        header_s: Seconds for the headers of a request, and for what comes after an answer.
        max_connections: How many may be open.
        refused: Is told the type of each problem that is answered here.
    """

    class Connection(HttpToolsProtocol):
        """One connection; see the module."""

        _clock: asyncio.TimerHandle | None = None
        _in_headers = True
        _other_bytes = 0  # since the last of a body: headers, trailers, what chunks say

        def connection_made(self, transport: Any) -> None:
            """Take it, or say at once that there are too many."""
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                detail = "too many connections are open: ask again in a moment"
                self._refuse(Refusal("overloaded", detail))
                return
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

        def _start(self) -> None:
            if self._clock is None and not self.transport.is_closing():
                self._clock = self.loop.call_later(header_s, self._too_slow)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

        def _refuse(self, refusal: Refusal) -> None:
            refused(refusal.kind)
            self.transport.write(_answer(refusal))
            self.transport.close()

    return Connection


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
