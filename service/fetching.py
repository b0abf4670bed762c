"""Images from the web, from allowed hosts only and never from a private network."""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from service.intake import too_large
from service.problems import Refusal

TIMEOUT_S = 10  # for the whole image: a slow host must not hold a place for long
CHUNK = 64 * 1024
FETCHERS = 16  # at the same time: they wait and compute nothing
_TOO_LONG = f"took more than {TIMEOUT_S} seconds"
# The last 32 bits are an address of IPv4: mapped and compatible (RFC 4291), and NAT64 (RFC 6052).
_HOLDS_IPV4 = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch(url: str, hosts: Sequence[str], max_bytes: int) -> bytes:
    """Return what a URL gives.

    The name is resolved once, every address must be public, and that address is connected to, so
    that a name which changes its mind leads nowhere else. Redirects are not followed.

    Args:
        url: http or https; the host must be one of `hosts`, at the scheme's own port.
        hosts: The allow-list; empty allows nothing.
        max_bytes: More than this is refused.

    Raises:
        Refusal: It is not allowed, or gives no image.
    """
    if not hosts:
        raise Refusal("url-refused", "this service fetches nothing: send the image itself")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Refusal("url-refused", f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or port is not None or parts.username is not None:
        raise Refusal("url-refused", "expected http:// or https://, without user or port")
    if host.lower() not in {one.lower() for one in hosts}:
        raise Refusal("url-refused", f"{host!r} is not an allowed host")
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        return _get(parts.scheme, host, target, max_bytes)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Refusal("url-failed", f"{host}: {error or type(error).__name__}") from error


def public_address(host: str, port: int) -> tuple[str, int]:
    """Return an address of a host, all of whose addresses are public.

    Raises:
        Refusal: One is not.
        OSError: The name has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if not all(one.is_global and not one.is_multicast for one in _meant(ip)):
            raise Refusal("url-refused", f"{host!r} leads to an address that is not public")
    return str(found[0][4][0]), port


def _meant(ip: Address) -> list[Address]:
    """Return the address, or those of IPv4 to which gateways and systems take it."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.sixtofour is not None:
        return [ip, ip.sixtofour]
    if any(ip in network for network in _HOLDS_IPV4):
        return [ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)]
    return [ip]


def _get(scheme: str, host: str, target: str, max_bytes: int) -> bytes:
    end = time.monotonic() + TIMEOUT_S
    secure = scheme == "https"
    address = public_address(host, 443 if secure else 80)
    if (left := end - time.monotonic()) <= 0:
        raise TimeoutError(_TOO_LONG)
    stream = socket.create_connection(address, left)
    # Each byte sets a socket's own timeout back. A copy of the socket is shut, because TLS makes
    # another of this one.
    with stream.dup() as shut, _at(end, shut):
        try:
            if secure:
                stream = ssl.create_default_context().wrap_socket(stream, server_hostname=host)
            connection = http.client.HTTPConnection(host)
            connection.sock = stream
            headers = {"Accept": "image/*", "User-Agent": "relume"}
            connection.request("GET", target, headers=headers)
            with connection.getresponse() as answer:
                if answer.status != 200:
                    raise Refusal("url-failed", f"{host} answered {answer.status}, expected 200")
                data = _read(answer, max_bytes)
        except (OSError, http.client.HTTPException):
            if time.monotonic() >= end:
                raise TimeoutError(_TOO_LONG) from None
            raise
        finally:
            stream.close()
    if time.monotonic() >= end:  # an answer without a length ends where it is cut off
        raise TimeoutError(_TOO_LONG)
    return data


@contextmanager
def _at(end: float, stream: socket.socket) -> Iterator[None]:
    """Shut a connection when the time is over, whatever is waited for then."""

    def shut() -> None:
        with suppress(OSError):  # it is no longer connected
            stream.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(end - time.monotonic(), 0), shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _read(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    data = bytearray()
    while part := answer.read1(CHUNK):
        data += part
        if len(data) > max_bytes:
            raise Refusal("too-many-bytes", too_large(max_bytes))
    return bytes(data)
