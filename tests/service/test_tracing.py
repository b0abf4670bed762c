"""Traces where they were asked for: a span for the request, one for each stage."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from models.errors import DeviceError
from service.app import create_app
from service.settings import Settings
from service.tracing import Tracing
from tests.service.conftest import Serve, encoded, plain

pytestmark = pytest.mark.anyio


@pytest.mark.filterwarnings("ignore")  # of OpenTelemetry, about itself
async def test_a_request_is_traced_to_its_stages(serve: Serve) -> None:
    """The caller's trace goes on; everything has arrived when the service has ended."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                raise AssertionError("packed")
            received.append(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        trace = "0123456789abcdef0123456789abcdef"
        async with serve(traces=f"http://127.0.0.1:{collector.server_port}/v1/traces") as client:
            headers = {"traceparent": f"00-{trace}-0123456789abcdef-01"}
            files = {"img": encoded(plain("red"))}
            answer = await client.post("/classify", files=files, headers=headers)
            assert answer.status_code == 200
        collector.shutdown()
    spans = b"".join(received)
    assert bytes.fromhex(trace) in spans
    for name in (b"POST /classify", b"decode", b"preprocess", b"queue", b"inference", b"relume"):
        assert name in spans


async def test_a_signal_sends_what_is_left(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives as an exception where the service waits for its end."""
    closed: list[Tracing] = []
    monkeypatch.setattr(Tracing, "__init__", lambda *_: None)
    monkeypatch.setattr(Tracing, "around", lambda _, app: app)
    monkeypatch.setattr(Tracing, "close", lambda tracing: closed.append(tracing))
    app = create_app(Settings(model=tiny_model, device="cpu", threads=1, traces="http://a"))
    with pytest.raises(KeyboardInterrupt):
        async with app.router.lifespan_context(app):
            raise KeyboardInterrupt
    assert len(closed) == 1
    assert app.state.service is None


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional, and asking for it without having it stops the start."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(DeviceError, match=r"CLASSIFY_TRACES is set .*relume\[tracing\]"):
        Tracing("http://collector:4318")
