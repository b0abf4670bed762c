"""Why a request is refused, in one form: a problem document with a type that stays.

Source: RFC 9457. `type` is a reference relative to the service, which says there what to do.
"""

from typing import Any, NamedTuple

from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from models.errors import ImageError, ImageTooLarge, LegacyModelError
from service.pipeline import Overloaded

MEDIA_TYPE = "application/problem+json"
PROBLEM = "relume.problem"  # of a scope: the kind of what was answered
RETRY_AFTER_S = 1  # a full queue is a few batches: most models have answered those by then


class Kind(NamedTuple):
    """A reason to refuse: its status, its title, and what the client can do."""

    status: int
    title: str
    advice: str


KINDS = {
    "malformed-request": Kind(
        400, "The body cannot be read", "`curl -F img=@photo.jpg` makes a right one."
    ),
    "unauthorized": Kind(
        401, "A token is needed", "Send `Authorization: Bearer TOKEN` with a token of the service."
    ),
    "not-found": Kind(404, "There is nothing here", "`/docs` lists what there is."),
    "model-not-found": Kind(404, "No such model", "`/models` lists what is served."),
    "method-not-allowed": Kind(405, "Not with this method", "`Allow` lists those that may be."),
    "slow-request": Kind(408, "The request came too slowly", "Send it again, faster or smaller."),
    "too-many-bytes": Kind(413, "The request is too large", "Send a smaller image, or fewer."),
    "too-many-pixels": Kind(413, "The image is too large", "Send a smaller image."),
    "unsupported-media-type": Kind(
        415,
        "Not a form, an image or JSON",
        "Send multipart/form-data with the field `img`, a body of type image/*, or JSON.",
    ),
    "invalid-request": Kind(422, "The request is incomplete or contradictory", "Read `detail`."),
    "invalid-image": Kind(
        422, "The bytes are no image", "Send a whole JPEG, PNG, WebP, GIF, BMP or TIFF file."
    ),
    "model-required": Kind(
        422, "Several models are served", "Add `?model=NAME`; `/models` lists the names."
    ),
    "url-refused": Kind(
        422, "Nothing is fetched from there", "Send the image itself, or use an allowed host."
    ),
    "url-failed": Kind(422, "The URL gave no image", "Open it yourself, or send the image itself."),
    "internal-error": Kind(
        500, "The service failed", "Report it, with the `X-Request-ID` of the answer."
    ),
    "overloaded": Kind(503, "Too many images are inside", "Wait for the seconds in `Retry-After`."),
    "not-ready": Kind(503, "No model is ready", "Wait for the seconds in `Retry-After`."),
    "timeout": Kind(503, "The answer took too long", "Wait for the seconds in `Retry-After`."),
}


class Refusal(LegacyModelError):
    """A request is refused, for a reason of the table."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


_KIND_OF: dict[type[Exception], str] = {
    ImageError: "invalid-image",
    ImageTooLarge: "too-many-pixels",
    Overloaded: "overloaded",
}
REFUSED: tuple[type[Exception], ...] = (Refusal, *_KIND_OF)


def kind_of(error: BaseException) -> str:
    """Return the reason that an exception is."""
    if isinstance(error, Refusal):
        return error.kind
    known = (_KIND_OF[one] for one in type(error).__mro__ if one in _KIND_OF)
    return next(known, "internal-error")


def document(error: BaseException) -> dict[str, Any]:
    """Return the problem document of an exception; a bug of ours shows nothing of itself."""
    name = kind_of(error)
    status, title, _ = KINDS[name]
    detail = str(error) if name != "internal-error" else "the service failed on this: see its log"
    return {"type": f"/problems/{name}", "title": title, "status": status, "detail": detail}


class ProblemResponse(JSONResponse):
    """An answer whose kind stands in the scope under `PROBLEM` when it is sent."""

    kind = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        scope[PROBLEM] = self.kind
        await super().__call__(scope, receive, send)


def response(error: BaseException, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that is refused."""
    content = document(error)
    status = content["status"]
    more = dict(headers or {})
    if status == 503:
        more["Retry-After"] = str(RETRY_AFTER_S)
    if status in (408, 413):
        more["Connection"] = "close"  # the rest of the body is not waited for
    if status == 401:
        more["WWW-Authenticate"] = "Bearer"
    # The Open Inference Protocol wants a member `error`.
    answer = ProblemResponse({**content, "error": content["detail"]}, status, more, MEDIA_TYPE)
    answer.kind = kind_of(error)
    return answer
