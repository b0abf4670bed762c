"""What stands before the routes: tokens, places, and limits of what comes in."""

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.intake import FORM_BYTES, too_large
from service.prefix import path_of
from service.problems import Refusal, response

PROBES = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
# What the page links to tells nothing that is secret, and a link cannot carry a token.
OPEN_PATHS = ("/", "/docs", "/openapi.json", *PROBES)
BASE64 = 4 / 3  # how much longer an image is as base64
_LATER = "ask again in a moment"


def largest_body(max_bytes: int, *, is_json: bool) -> int:
    """Return the bytes of the largest body whose images have so many."""
    return int(max_bytes * (BASE64 if is_json else 1)) + FORM_BYTES


def takes_images(scope: Scope) -> bool:
    """Tell whether a request is for the network."""
    path = path_of(scope)
    return scope["method"] == "POST" and (
        path in ("/classify", "/classify/batch")
        or (path.startswith("/v2/models/") and path.endswith("/infer"))
    )


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith("/problems/")


class Tokens:
    """Lets in who sends one of the tokens; orchestrators and the page need none.

    Tokens are compared by their digests and in constant time, so that time tells nothing of them.
    """

    def __init__(self, app: ASGIApp, tokens: tuple[str, ...]) -> None:
        self._app = app
        self._digests = [sha256(token.encode()).digest() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on if it may pass."""
        if scope["type"] == "http" and not _is_open(path_of(scope)) and not self._known(scope):
            refusal = Refusal("unauthorized", "expected the header Authorization: Bearer TOKEN")
            await response(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        given = sha256(token.strip().encode()).digest()
        matches = [hmac.compare_digest(given, one) for one in self._digests]
        return scheme.lower() == "bearer" and any(matches)


class Admission:
    """Lets in as many images at once as may be decoded, wait and run; the rest get 503.

    A model has `places`, and a request takes one once its body is whole: who sends slowly keeps
    nobody out. Where they are all taken, a request is refused before its body is read. All bodies
    together, whole or on their way, hold no more bytes than `places` of the largest.
    """

    def __init__(
        self, app: ASGIApp, places: int, body_bytes: int, model: Callable[[Scope], str]
    ) -> None:
        self._app = app
        self._places = places
        self._most_bytes = places * body_bytes
        self._model = model
        self._inside: Counter[str] = Counter()
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand an image on if there is a place for it, and anything else in any case."""
        if scope["type"] != "http" or not takes_images(scope):
            await self._app(scope, receive, send)
            return
        model, held, inside = self._model(scope), 0, False

        async def admitted() -> Message:
            nonlocal held, inside
            message = await receive()
            size = len(message.get("body", b""))
            if self._bytes + size > self._most_bytes:
                raise Refusal("overloaded", f"{self._bytes:,} bytes are inside: {_LATER}")
            self._bytes += size
            held += size
            if message["type"] == "http.request" and not message.get("more_body") and not inside:
                self._look(model)
                self._inside[model] += 1
                inside = True
            return message

        try:
            self._look(model)
        except Refusal as refusal:
            await response(refusal)(scope, receive, send)
            return
        try:
            await self._app(scope, admitted, send)
        finally:
            self._bytes -= held
            if inside:
                self._inside[model] -= 1

    def _look(self, model: str) -> None:
        """Refuse where every place is taken."""
        if (inside := self._inside[model]) >= self._places:
            raise Refusal("overloaded", f"{inside} requests are being worked on: {_LATER}")


class BodyLimit:
    """Refuses a body that is too large before it is all here, or that comes too slowly.

    One that hides its length is counted as it comes in.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and count what comes in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit(headers)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            refusal = Refusal("too-many-bytes", too_large(self._max_bytes))
            await response(refusal)(scope, receive, send)
            return
        await self._app(scope, self._counted(receive, limit), send)

    def _limit(self, headers: Headers) -> int:
        is_json = headers.get("content-type", "").startswith("application/json")
        return largest_body(self._max_bytes, is_json=is_json)

    def _counted(self, receive: Receive, limit: int) -> Receive:
        received, end, whole = 0, time.monotonic() + self._seconds, False

        async def counted() -> Message:
            nonlocal received, whole
            if whole:  # nothing comes any more but the news that the client has gone
                return await receive()
            try:
                async with asyncio.timeout(max(end - time.monotonic(), 0)):
                    message = await receive()
            except TimeoutError:
                raise Refusal(
                    "slow-request", f"the body did not come within {self._seconds:g} seconds"
                ) from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > limit:
                raise Refusal("too-many-bytes", too_large(self._max_bytes))
            return message

        return counted
