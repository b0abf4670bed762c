"""From a request to the images that are in it, whichever way they were sent."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service.problems import Refusal

FIELD = "img"
FORM_BYTES = 64 * 1024  # what a form may add to the images: boundaries, headers, long file names
FIELDS = 16  # of a form besides the images; they are ignored, as browsers send some

# Nothing else runs while JSON is parsed, and small lists and texts take longest: seconds for 20 MB.
# These are four times the rows of 32 images of 512 x 512, by colour, as nested lists.
MAX_PARTS = 200_000

_NESTS = (b"[", b"{", b'"')
_PARTS = (*_NESTS, b",")
_SPACES = b" \t\r\n"
WAYS = ("image", "images", "url")  # of sending an image in JSON

Fetch = Callable[[str], Awaitable[bytes]]


class Upload(NamedTuple):
    """An encoded image, and what the client calls it."""

    name: str
    data: bytes


class Limits(NamedTuple):
    """What one request may hold."""

    images: int
    bytes: int


async def uploads(request: Request, limits: Limits, fetch: Fetch) -> list[Upload]:
    """Return the images of a request.

    Raises:
        Refusal: There are none or too many, they are too large, or in no form that is read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = await _of_form(request, limits)
    elif kind == "application/json":
        found = await _of_json(request, limits, fetch)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        found = [Upload("", await request.body())]
    else:
        raise Refusal(
            "unsupported-media-type",
            f"found {kind or 'no Content-Type'}, expected multipart/form-data with the field "
            f"{FIELD}, image/* or application/json",
        )
    if sum(len(one.data) for one in found) > limits.bytes:
        raise Refusal("too-many-bytes", too_large(limits.bytes))
    return found


def too_large(limit: int) -> str:
    """Return what to tell somebody whose upload has more bytes than that."""
    return f"the upload is larger than {limit:,} bytes: send a smaller image"


async def _of_form(request: Request, limits: Limits) -> list[Upload]:
    try:
        async with request.form(max_files=limits.images, max_fields=FIELDS) as form:
            images = [one for one in form.getlist(FIELD) if isinstance(one, UploadFile)]
            found = [Upload(one.filename or "", await one.read()) for one in images]
    except (HTTPException, FormParserError) as error:  # newer Starlette makes one of the other
        detail = str(getattr(error, "detail", error))
        if detail.startswith("Too many files"):
            raise _too_many(limits) from error
        raise Refusal("malformed-request", detail.partition("\n")[0]) from error
    if not found:
        raise Refusal(
            "invalid-request",
            f"{FIELD}: expected an image file in this multipart form field: "
            f"curl -F {FIELD}=@photo.jpg",
        )
    return found


async def _of_json(request: Request, limits: Limits, fetch: Fetch) -> list[Upload]:
    body = parsed(await request.body(), numbers=False)
    ways = list(body)
    if len(ways) != 1 or ways[0] not in WAYS:
        raise Refusal(
            "invalid-request", "expected one of `image`, `images` (base64) or `url` in the JSON"
        )
    if ways == ["url"]:
        url = _text(body["url"], "url")
        return [Upload(url, await fetch(url))]
    given = [body["image"]] if ways == ["image"] else body["images"]
    if not isinstance(given, list) or not given:
        raise Refusal("invalid-request", "images: expected a list of base64 texts")
    if len(given) > limits.images:
        raise _too_many(limits)
    return [Upload("", _decoded(_text(one, ways[0]))) for one in given]


def parsed(body: bytes, *, numbers: bool = True) -> dict[str, Any]:
    """Return the JSON object that a body is.

    Args:
        body: All of it.
        numbers: Whether it may hold any number of numbers.

    Raises:
        Refusal: It is none, or would keep the service from all others for long.
    """
    if sum(map(body.count, _NESTS if numbers else _PARTS)) > MAX_PARTS:
        raise Refusal("invalid-request", f"found more than {MAX_PARTS:,} parts in the JSON")
    try:
        content = from_json(body)
    except ValueError as error:
        raise Refusal("malformed-request", f"the body is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise Refusal("invalid-request", "expected a JSON object")
    return content


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise Refusal("invalid-request", f"{key}: expected text")
    return value


def _decoded(text: str) -> bytes:
    """Return the bytes of base64, also of a `data:` URL or in lines, as RFC 2045 has it."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text.encode("ascii").translate(None, _SPACES), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("invalid-request", f"an image is no base64: {error}") from error


def _too_many(limits: Limits) -> Refusal:
    return Refusal(
        "too-many-bytes", f"found more than {limits.images} images: send several requests"
    )
