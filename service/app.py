"""The web layer: routes, and the only place where errors become HTTP statuses."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import ImageError, ImageTooLarge
from service.batcher import Batcher, Overloaded
from service.classifier import Classifier, Prepared
from service.schemas import ClassifyResponse, Health, Problem, Timings
from service.settings import Settings

STATUSES: dict[type[Exception], int] = {ImageError: 422, ImageTooLarge: 413, Overloaded: 503}
RETRY_AFTER_S = 1  # a full queue is a few batches: most models have answered those by then
FORM_BYTES = 64 * 1024  # what a form may add to the image: boundaries, headers, a long file name
BEST = 5  # the top 5 that papers of these networks report

router = APIRouter()


class Served:
    """What the routes need, made by the lifespan.

    Attributes:
        classifier: The loaded model.
        batcher: The way to it.
        ready: The model has answered its warm-up batch.
    """

    def __init__(self, classifier: Classifier, batcher: Batcher, max_upload_bytes: int) -> None:
        self.classifier = classifier
        self.batcher = batcher
        self.max_upload_bytes = max_upload_bytes
        # More decoders than cores would not be faster, and each holds a whole image in memory.
        self._decoders = CapacityLimiter(os.cpu_count() or 1)

    async def prepare(self, image: bytes, *, orientation: bool) -> Prepared:
        """Decode and preprocess off the event loop, which has connections to attend to."""
        return await to_thread.run_sync(
            lambda: self.classifier.prepare(image, orientation=orientation), limiter=self._decoders
        )


def create_app(settings: Settings) -> FastAPI:
    """Return the service; its lifespan loads the model, so that is where a wrong one is noticed."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        classifier = await to_thread.run_sync(Classifier, settings)
        batcher = Batcher(classifier.predict, max_batch=classifier.max_batch, queue=settings.queue)
        async with batcher:
            await batcher.submit(classifier.blank())
            app.state.served = Served(classifier, batcher, settings.max_upload_bytes)
            yield
            app.state.served = None

    app = FastAPI(title="relume", summary="Image classification", lifespan=lifespan)
    app.state.served = None
    app.include_router(router)
    app.add_middleware(UploadLimit, max_bytes=settings.max_upload_bytes + FORM_BYTES)
    places = settings.queue + settings.max_batch + (os.cpu_count() or 1)  # waiting, run, decoded
    app.add_middleware(Admission, places=places)
    for kind in STATUSES:
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return app


def _served(request: Request) -> Served:
    served = request.app.state.served
    if served is None:
        raise Overloaded("the model is not ready yet: ask again in a moment")
    assert isinstance(served, Served)
    return served


ServedDep = Annotated[Served, Depends(_served)]


@router.post(
    "/classify",
    responses={
        status: {"model": Problem, "description": description}
        for status, description in {
            400: "The body is not a form that can be read.",
            413: "The upload has too many bytes, or the image too many pixels.",
            422: "The field is missing, or it is no image that can be decoded.",
            503: "Too many images are waiting; `Retry-After` says when to come back.",
        }.items()
    },
)
async def classify(
    img: UploadFile,
    served: ServedDep,
    exif: Annotated[
        Literal["honour", "ignore"],
        Query(description="Whether the camera's EXIF orientation is applied."),
    ] = "honour",
) -> ClassifyResponse:
    """Classify one image (multipart field `img`: JPEG, PNG, WebP ...)."""
    limit = served.max_upload_bytes
    image = await img.read(limit + 1)  # one more than allowed, so that too large is noticed
    if len(image) > limit:
        raise ImageTooLarge(_too_large(limit))
    prepared = await served.prepare(image, orientation=exif == "honour")
    answer = await served.batcher.submit(prepared.row)
    timings = Timings(
        decode=round(prepared.decode_ms, 2),
        preprocess=round(prepared.preprocess_ms, 2),
        queue=round(answer.queue_ms, 2),
        inference=round(answer.inference_ms, 2),
    )
    best = served.classifier.best(answer.probabilities, BEST)
    return ClassifyResponse.of(served.classifier.spec.name, best, timings)


@router.get("/healthz")
async def healthz() -> Health:
    """Say that the process lives."""
    return Health(status="alive")


@router.get("/readyz", responses={503: {"model": Problem, "description": "Not ready yet."}})
async def readyz(served: ServedDep) -> Health:
    """Say that the model has answered a warm-up batch."""
    return Health(status="ready")


class Admission:
    """Lets in as many images at once as may be decoded, wait and run; the rest get 503 at once.

    It decides before a body is read, so that the memory that uploads take has a limit.
    """

    def __init__(self, app: ASGIApp, places: int) -> None:
        self._app = app
        self._places = places
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand an image on if there is a place for it, and anything else in any case."""
        if scope["type"] != "http" or scope["path"] != "/classify":
            await self._app(scope, receive, send)
            return
        if self._inside >= self._places:
            detail = f"{self._inside} images are being worked on: ask again in a moment"
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            await JSONResponse({"detail": detail}, 503, headers)(scope, receive, send)
            return
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1


class UploadLimit:
    """Refuses a body that is too large before it is all here, also one that hides its length."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and count what comes in."""
        length = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if length.isdecimal() and int(length) > self._max_bytes:
            response = JSONResponse({"detail": self._detail()}, status_code=413)
            await response(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, self._detail())
            return message

        await self._app(scope, counted, send)

    def _detail(self) -> str:
        return _too_large(self._max_bytes - FORM_BYTES)


def _too_large(limit: int) -> str:
    return f"the upload is larger than {limit:,} bytes: send a smaller image"


async def _refused(request: Request, error: Exception) -> JSONResponse:
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return JSONResponse({"detail": str(error)}, status, headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where, name = first["loc"][0], first["loc"][-1]
    if name == "img":
        detail = "img: expected an image file in this multipart form field: curl -F img=@photo.jpg"
    else:
        detail = f"{where} {name}: {first['msg']}"
    return JSONResponse({"detail": detail}, status_code=422)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """Answer for a bug; the traceback goes to the log."""
    return JSONResponse({"detail": "the service failed on this image: see its log"}, 500)
