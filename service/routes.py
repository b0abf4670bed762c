"""The service's own routes: images in, classes out, and what is served."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse

from service.catalog import Catalog
from service.fetching import fetch
from service.intake import Limits, Upload, uploads
from service.observation import Metrics, stages
from service.pipeline import Answer, Pipeline
from service.problems import KINDS, Refusal, document, kind_of
from service.schemas import (
    Advice,
    BatchResponse,
    ClassifyResponse,
    Health,
    ModelDetails,
    ModelList,
    ModelSummary,
    Problem,
    Result,
    Seen,
)
from service.served import Served
from service.settings import Settings
from service.tracing import Tracing
from service.waiting import answered

LOG = logging.getLogger("relume")
BEST = 5  # the top 5 that papers of these networks report
MOST = 100
FOLDER = Path(__file__).parent
# Pages hold their own script and style, and may speak to this service only.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class State:
    """What the routes need, made by the lifespan."""

    settings: Settings
    catalog: Catalog
    metrics: Metrics
    fetchers: ThreadPoolExecutor
    tracing: Tracing | None = None

    def most_images(self, served: Served) -> int:
        """Return how many images one request may have: more than fit will never be let in."""
        return min(self.settings.max_images, self.settings.queue + served.max_batch)

    async def fetch(self, request: Request, url: str) -> bytes:
        """Return the image at a URL, if that is allowed."""
        hosts, limit = self.settings.url_hosts, self.settings.max_upload_bytes
        loop = asyncio.get_running_loop()

        async def fetched() -> bytes:
            return await loop.run_in_executor(self.fetchers, fetch, url, hosts, limit)

        return await answered(request, fetched(), self.settings.request_s)


# Dependencies are coroutines although they wait for nothing: FastAPI runs functions in threads,
# and two turns of a thread cost as much as the rest of a request's handling.
async def state_of(request: Request) -> State:
    """Return what the lifespan made.

    Raises:
        Refusal: It has not, or is no more.
    """
    state = request.app.state.service
    if state is None:
        raise Refusal("not-ready", "no model is ready yet: ask again in a moment")
    assert isinstance(state, State)
    return state


StateDep = Annotated[State, Depends(state_of)]
Exif = Annotated[
    Literal["honour", "ignore"],
    Query(description="Whether the camera's EXIF orientation is applied."),
]
Top = Annotated[int, Query(ge=1, le=MOST, description="How many classes.")]
ModelName = Annotated[
    str, Query(description="NAME or NAME@VERSION; not needed where one model is served.")
]


@dataclass(frozen=True)
class Wanted:
    """What a request asks for besides its images."""

    model: str
    top: int
    orientation: bool


async def wanted(exif: Exif = "honour", top: Top = BEST, model: ModelName = "") -> Wanted:
    """Return what the query says."""
    return Wanted(model, top, exif == "honour")


WantedDep = Annotated[Wanted, Depends(wanted)]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return these statuses for the OpenAPI document."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        titles = [kind.title for kind in KINDS.values() if kind.status == status]
        found[status] = {"description": "; ".join(titles) + ".", "content": content}
        if status == 503:
            found[status]["headers"] = {"Retry-After": header("Seconds to wait.", "integer")}
    return found


def header(description: str, kind: str = "string") -> dict[str, Any]:
    """Return a header of an answer for the OpenAPI document."""
    return {"description": description, "schema": {"type": kind}}


_TEXT = {"text/plain": {"schema": {"type": "string"}}}
BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte"}
_BLACK_GIF = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"  # of one pixel
IMAGES = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["img"],
                "properties": {"img": {"type": "array", "items": BINARY, "minItems": 1}},
            }
        },
        **{
            kind: {"schema": BINARY}
            for kind in (
                *(f"image/{name}" for name in ("jpeg", "png", "webp", "gif", "bmp", "tiff")),
                "application/octet-stream",
            )
        },
        "application/json": {
            "schema": {
                "oneOf": [
                    {
                        "type": "object",
                        "required": [key],
                        "properties": {key: schema},
                        "additionalProperties": False,
                    }
                    for key, schema in (
                        ("image", _BASE64),
                        ("images", {"type": "array", "items": _BASE64, "minItems": 1}),
                        ("url", {"type": "string", "format": "uri"}),
                    )
                ]
            },
            "example": {"image": _BLACK_GIF},
        },
    },
}
IMAGE_STATUSES = (400, 401, 404, 408, 413, 415, 422, 500, 503)
_TIMED = {"headers": {"Server-Timing": header("The milliseconds of each stage, of one image.")}}

router = APIRouter()
pages = APIRouter(include_in_schema=False)


@router.post(
    "/classify",
    response_model=ClassifyResponse | BatchResponse,
    responses={200: _TIMED, **refusals(*IMAGE_STATUSES)},
    openapi_extra={"requestBody": IMAGES},
    tags=["classify"],
)
async def classify(request: Request, state: StateDep, asked: WantedDep) -> Response:
    """Classify one image, or several.

    One image is answered by its classes, or by the problem. Several are answered by a list, as by
    `/classify/batch`.
    """
    images = await _images(request, state)
    if len(images) > 1:
        return await _batch(request, state, asked, images)
    served, (answer,) = await _answers(request, state, asked, images)
    if isinstance(answer, BaseException):
        raise answer
    seen = Seen.of(served, answer, asked.top)
    content = ClassifyResponse(
        model=served.name,
        version=served.version,
        precision=served.engine.precision,
        predictions=seen.predictions,
        timings_ms=seen.timings_ms,
        size=seen.size,
        crop=seen.crop,
    )
    header = ", ".join(f"{stage};dur={took:.2f}" for stage, took in stages(answer).items())
    return Response(
        content.model_dump_json(),
        media_type="application/json",
        headers={"Server-Timing": header},
    )


@router.post(
    "/classify/batch",
    response_model=BatchResponse,
    responses=refusals(*IMAGE_STATUSES),
    openapi_extra={"requestBody": IMAGES},
    tags=["classify"],
)
async def classify_batch(request: Request, state: StateDep, asked: WantedDep) -> Response:
    """Classify many images; one that is broken has a problem in its place and fails no other."""
    return await _batch(request, state, asked, await _images(request, state))


async def _images(request: Request, state: State) -> list[Upload]:
    settings = state.settings
    limits = Limits(settings.max_images, settings.max_upload_bytes)
    return await uploads(request, limits, partial(state.fetch, request))


async def _batch(
    request: Request, state: State, asked: Wanted, images: Sequence[Upload]
) -> Response:
    served, answers = await _answers(request, state, asked, images)
    for answer in answers:
        if isinstance(answer, BaseException):  # the request as a whole is answered all the same
            kind = kind_of(answer)
            state.metrics.refused(kind)
            if kind == "internal-error":
                LOG.error("failed on an image", exc_info=answer)
    results = [
        Result(name=image.name, problem=Problem(**document(answer)))
        if isinstance(answer, BaseException)
        else Result(name=image.name, seen=Seen.of(served, answer, asked.top))
        for image, answer in zip(images, answers, strict=True)
    ]
    content = BatchResponse(
        model=served.name,
        version=served.version,
        precision=served.engine.precision,
        results=results,
    )
    text = content.model_dump_json(exclude_unset=True)  # either `seen` or `problem`
    return Response(text, media_type="application/json")


async def _answers(
    request: Request, state: State, asked: Wanted, images: Sequence[Upload]
) -> tuple[Served, list[Answer | BaseException]]:
    """Return what became of each image; a model that is replaced meanwhile ends its work first."""
    served = state.catalog.find(asked.model)
    if len(images) > (most := state.most_images(served)):
        detail = f"found {len(images)} images, expected at most {most}: send several requests"
        raise Refusal("too-many-bytes", detail)
    with served.pipeline.reserve(len(images)) as pipeline:
        answers = await answered(
            request,
            _every(pipeline, images, orientation=asked.orientation),
            state.settings.request_s,
        )
    for answer in answers:
        if not isinstance(answer, BaseException):
            state.metrics.answered(served.name, stages(answer))
            if state.tracing is not None:
                state.tracing.answered(answer)
    return served, answers


async def _every(
    pipeline: Pipeline, images: Sequence[Upload], *, orientation: bool
) -> list[Answer | BaseException]:
    return await asyncio.gather(
        *(pipeline.image(image.data, orientation=orientation) for image in images),
        return_exceptions=True,
    )


@router.get("/models", responses=refusals(401, 503), tags=["models"])
async def models(state: StateDep) -> ModelList:
    """List what is served."""
    return ModelList(models=[ModelSummary.of(served) for served in state.catalog.served])


@router.get("/models/{name}", responses=refusals(401, 404, 503), tags=["models"])
async def model(name: str, state: StateDep) -> ModelDetails:
    """Say all that is known of a model: how images enter, its classes, what was measured."""
    return ModelDetails.of(state.catalog.find(name))


@router.get("/healthz", tags=["health"])
async def healthz() -> Health:
    """Say that the process lives."""
    return Health(status="alive")


@router.get("/readyz", responses=refusals(503), tags=["health"])
async def readyz(state: StateDep) -> Health:
    """Say that a model is loaded, checked and warmed up."""
    state.catalog.require()
    return Health(status="ready")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": _TEXT}, **refusals(401, 503)},
    tags=["health"],
)
async def metrics(state: StateDep) -> Response:
    """Give the figures that Prometheus reads."""
    return Response(state.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/problems/{name}", responses=refusals(404), tags=["health"])
async def problem(name: str) -> Advice:
    """Say what a type of problem means, and what to do."""
    if name not in KINDS:
        raise Refusal("not-found", f"no problem {name!r}: there are {', '.join(KINDS)}")
    status, title, advice = KINDS[name]
    return Advice(title=title, status=status, advice=advice)


@pages.get("/")
async def page() -> HTMLResponse:
    """Classify pictures by hand."""
    return HTMLResponse((FOLDER / "page.html").read_text(encoding="utf-8"), headers=PAGE_HEADERS)


@pages.get("/docs")
async def docs() -> HTMLResponse:
    """Describe the service to people, from what `/openapi.json` says."""
    return HTMLResponse((FOLDER / "docs.html").read_text(encoding="utf-8"), headers=PAGE_HEADERS)
