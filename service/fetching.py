"""Images from the web, from allowed hosts only and never from a private network."""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from service.intake import too_large
from service.problems import Refusal

TIMEOUT_S = 10  # for the whole image: a slow host must not hold a place for long
CHUNK = 64 * 1024


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
        mapped = getattr(ip, "ipv4_mapped", None)
        if not (mapped or ip).is_global or ip.is_multicast:
            raise Refusal("url-refused", f"{host!r} leads to an address that is not public")
    return str(found[0][4][0]), port


def _get(scheme: str, host: str, target: str, max_bytes: int) -> bytes:
    end = time.monotonic() + TIMEOUT_S
    secure = scheme == "https"
    address = public_address(host, 443 if secure else 80)
    stream = socket.create_connection(address, TIMEOUT_S)
    try:
        if secure:
            stream = ssl.create_default_context().wrap_socket(stream, server_hostname=host)
        connection = http.client.HTTPConnection(host)
        connection.sock = stream
        connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "relume"})
        with connection.getresponse() as answer:
            if answer.status != 200:
                raise Refusal("url-failed", f"{host} answered {answer.status}, expected 200")
            return _read(answer, stream, end, max_bytes)
    finally:
        stream.close()


def _read(
    answer: http.client.HTTPResponse, stream: socket.socket, end: float, max_bytes: int
) -> bytes:
    data = bytearray()
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"took more than {TIMEOUT_S} seconds")
        stream.settimeout(left)
        part = answer.read1(CHUNK)
        if not part:
            return bytes(data)
        data += part
        if len(data) > max_bytes:
            raise Refusal("too-many-bytes", too_large(max_bytes))
