"""Connections whose headers must come soon, be short, and of which there are only so many.

Source: uvicorn uvicorn/protocols/http/httptools_impl.py; it times nothing before the first answer.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problems import KINDS, RETRY_AFTER_S

MAX_HEADER_BYTES = 64 * 1024  # eight times what nginx and Apache take

_BUSY = json.dumps(
    {
        "type": "/problems/overloaded",
        "title": KINDS["overloaded"].title,
        "status": 503,
        "detail": "too many connections are open: ask again in a moment",
    }
).encode()
_BUSY_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n"
    b"connection: close\r\nretry-after: %d\r\ncontent-length: %d\r\n\r\n%s"
    % (RETRY_AFTER_S, len(_BUSY), _BUSY)
)


def protocol(*, header_s: float, max_connections: int) -> type[HttpToolsProtocol]:
    """Return the protocol for uvicorn's `http`."""

    class Connection(HttpToolsProtocol):
        """One connection; see the module."""

        _clock: asyncio.TimerHandle | None = None
        _in_headers = True
        _header_bytes = 0

        def connection_made(self, transport: Any) -> None:
            """Take it, or say at once that there are too many."""
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.write(_BUSY_RESPONSE)
                transport.close()
                return
            self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            """Stop the clock."""
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Count what comes in as long as it is headers."""
            if self.transport.is_closing():
                return
            if self._in_headers:
                self._header_bytes += len(data)
            super().data_received(data)
            if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
                self.send_400_response("The headers are too long.")

        def on_message_begin(self) -> None:
            """Start the clock of the next request on this connection."""
            super().on_message_begin()
            if not self._in_headers:
                self._header_bytes = 0
                self._start()

        def on_headers_complete(self) -> None:
            """Stop the clock: the body has one of its own."""
            self._stop()
            super().on_headers_complete()

        def _start(self) -> None:
            self._in_headers = True
            self._clock = self.loop.call_later(header_s, self._too_slow)

        def _stop(self) -> None:
            self._in_headers = False
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return Connection
