"""Images are fetched from allowed, public hosts only, and never more than was allowed."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service import fetching
from service.fetching import fetch, public_address
from service.problems import Refusal

HOSTS = ("pictures.example",)


@pytest.mark.parametrize(
    ("url", "hosts", "detail"),
    [
        ("http://pictures.example/a", (), "this service fetches nothing"),
        ("http://other.example/a", HOSTS, "'other.example' is not an allowed host"),
        ("http://pictures.example.evil/a", HOSTS, "is not an allowed host"),
        ("ftp://pictures.example/a", HOSTS, "expected http:// or https://"),
        ("file:///etc/passwd", HOSTS, "expected http:// or https://"),
        ("http://pictures.example:22/a", HOSTS, "without user or port"),
        ("http://u:p@pictures.example/a", HOSTS, "without user or port"),
        ("http://pictures.example@other.example/a", HOSTS, "without user or port"),
        ("http://[::1/a", HOSTS, "not a URL"),
        ("http://pictures.example:x/", HOSTS, "not a URL"),
    ],
)
def test_what_is_not_allowed_is_refused(url: str, hosts: tuple[str, ...], detail: str) -> None:
    """Before any name is resolved."""
    with pytest.raises(Refusal, match=detail) as caught:
        fetch(url, hosts, 1000)
    assert caught.value.kind == "url-refused"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "::ffff:224.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
    ],
)
def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Also where only one of its addresses does."""
    resolves_to(monkeypatch, "93.184.215.14", address)
    with pytest.raises(Refusal, match="leads to an address that is not public"):
        public_address("pictures.example", 80)


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name have these addresses."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, 1, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("address", ["64:ff9b::5db8:d70e", "::ffff:93.184.215.14"])
def test_a_gateway_may_lead_to_a_public_address(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """As it does for every name where a network has IPv6 alone."""
    resolves_to(monkeypatch, address)
    assert public_address("pictures.example", 80) == (address, 80)


def test_a_public_name_is_connected_to_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it cannot lead elsewhere a moment later."""
    resolves_to(monkeypatch, "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    assert public_address("pictures.example", 443) == ("93.184.215.14", 443)


class Host(BaseHTTPRequestHandler):
    """Answers by what is asked for."""

    def do_GET(self) -> None:
        """Give bytes, a redirect, or nothing in time."""
        if self.path == "/slow-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(100):
                self.wfile.write(b"a: b\r\n")
                threading.Event().wait(0.05)
        self.send_response(302 if self.path == "/moved" else 404 if self.path == "/gone" else 200)
        self.send_header("Location", "http://127.0.0.1/secret")
        self.end_headers()
        assert self.headers["Host"] == "pictures.example"
        if self.path.startswith("/a"):
            self.wfile.write(b"0123456789")
        if self.path == "/drips":
            for _ in range(100):
                self.wfile.write(b"x")
                threading.Event().wait(0.05)
        if self.path == "/slow":
            threading.Event().wait(5)

    def handle(self) -> None:
        """Answer as long as somebody listens."""
        with suppress(OSError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the allowed host be a server here, as if it were public."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setattr(fetching, "public_address", lambda *_: server.server_address)
        yield
        server.shutdown()


@pytest.mark.usefixtures("host")
def test_what_is_allowed_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its query, up to the limit, in time, and without following anybody elsewhere."""
    assert fetch("http://Pictures.Example/a?x=1", HOSTS, 10) == b"0123456789"
    for path, kind, detail in (
        ("a", "too-many-bytes", "larger than 9 bytes"),
        ("moved", "url-failed", "answered 302, expected 200"),
        ("gone", "url-failed", "answered 404, expected 200"),
    ):
        with pytest.raises(Refusal, match=detail) as caught:
            fetch(f"http://pictures.example/{path}", HOSTS, 9)
        assert caught.value.kind == kind
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.2)
    for path in ("slow", "drips", "slow-headers"):
        start = time.monotonic()
        with pytest.raises(Refusal, match="took more than"):
            fetch(f"http://pictures.example/{path}", HOSTS, 1000)
        assert time.monotonic() - start < 4  # they would take five


def test_a_name_that_is_not_there_is_a_problem_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's words say why."""

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(Refusal, match="Name or service not known") as caught:
        fetch("http://pictures.example/a", HOSTS, 10)
    assert caught.value.kind == "url-failed"
