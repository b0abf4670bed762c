"""The web layer: what stands before the routes, and where errors become answers."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from models.cores import usable_cores
from models.engines import BATCH_CUDA
from service import inference_protocol
from service.catalog import Catalog
from service.fetching import FETCHERS
from service.guards import Admission, BodyLimit, Tokens, largest_body
from service.observation import Batches, Metrics, Observed
from service.prefix import Prefix, path_of
from service.problems import REFUSED, Refusal, response
from service.routes import State, pages, refusals, router
from service.schemas import Problem
from service.settings import Settings
from service.tracing import Tracing
from service.waiting import ClientGone


def create_app(settings: Settings) -> FastAPI:
    """Return the service; its lifespan loads the models, so a wrong one is noticed there."""
    metrics = Metrics()
    tracing = Tracing(settings.traces) if settings.traces else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # More decoders than cores would not be faster, and each holds a whole image in memory.
        decoders = ThreadPoolExecutor(_cores(settings), thread_name_prefix="decode")
        fetchers = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")
        catalog = Catalog(settings, decoders, lambda served: Batches(metrics, served))
        try:
            async with catalog:
                app.state.service = State(settings, catalog, metrics, fetchers, tracing)
                try:
                    yield
                finally:  # a signal arrives here as an exception
                    app.state.service = None
        finally:
            for threads in (decoders, fetchers):  # nobody waits for what they do
                threads.shutdown(wait=False, cancel_futures=True)
            if tracing is not None:
                await to_thread.run_sync(tracing.close)

    app = FastAPI(
        title="relume",
        summary="Image classification by networks of 2014 to 2018",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page takes its scripts from the internet
        redoc_url=None,
        redirect_slashes=False,  # it would send the client to whatever Host he named
    )
    app.state.service, app.state.metrics = None, metrics
    for each in (router, inference_protocol.router, pages):
        app.include_router(each)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    _guard(app, settings, metrics)
    if tracing is not None:
        app.add_middleware(lambda inner: tracing.around(inner))
    _answer_errors(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    for kind in REFUSED:
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for left in (ClientGone, ClientDisconnect):  # after its body, and within it
        app.add_exception_handler(left, _gone)


def _cores(settings: Settings) -> int:
    return settings.threads or usable_cores()


def _version() -> str:
    try:
        return version("relume")
    except PackageNotFoundError:  # run from a clone
        return "0"


def _guard(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Put what stands before the routes; the last is the outermost."""
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes, seconds=settings.body_s)
    most, cores = settings.max_batch or BATCH_CUDA, _cores(settings)
    app.add_middleware(
        Admission,
        places=settings.queue + most + cores,  # waiting, run, decoded
        body_bytes=largest_body(settings.max_upload_bytes, is_json=True),
        model=lambda scope: _model(app, scope),
    )
    if settings.tokens:
        app.add_middleware(Tokens, tokens=settings.tokens)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["Retry-After", "Server-Timing", "X-Request-ID"],
        )
    app.add_middleware(Prefix)
    routers = (router, inference_protocol.router, pages)
    known = {getattr(route, "path", "") for each in routers for route in each.routes}
    app.add_middleware(
        Observed, metrics=metrics, route=lambda path: path if path in known else _shape(path)
    )


def _model(app: FastAPI, scope: Scope) -> str:
    """Return whose places a request takes; all that no model will answer share some."""
    state, path = app.state.service, path_of(scope)
    if path.startswith("/v2/models/"):
        asked = path.removeprefix("/v2/models/").partition("/")[0]
    else:
        asked = QueryParams(scope["query_string"]).get("model", "")
    try:
        return state.catalog.find(asked).name if state is not None else ""
    except Refusal:
        return ""


def _shape(path: str) -> str:
    """Return a path without the names in it, of which there may be any number."""
    for start in ("/v2/models/", "/models/", "/problems/"):
        if path.startswith(start):
            end = "/infer" if path.endswith("/infer") else ""
            return f"{start}{{name}}{end}"
    return "other"


_BY_NUMBER = {str(status): content for status, content in refusals(422).items()}


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for methods in document["paths"].values():
            for operation in methods.values():
                if "422" in operation["responses"]:  # FastAPI's own form is never answered
                    operation["responses"].update(_BY_NUMBER)
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{}, {"token": []}]
        app.openapi_schema = document
    return app.openapi_schema


async def _refused(request: Request, error: Exception) -> Response:
    return response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where, name = first["loc"][0], first["loc"][-1]
    return await _refused(request, Refusal("invalid-request", f"{where} {name}: {first['msg']}"))


async def _http(request: Request, error: Exception) -> Response:
    """Answer what the framework itself refuses."""
    assert isinstance(error, HTTPException)
    kinds = {404: "not-found", 405: "method-not-allowed"}
    refusal = Refusal(kinds.get(error.status_code, "malformed-request"), str(error.detail))
    return response(refusal, dict(error.headers or {}))


async def _gone(request: Request, error: Exception) -> Response:
    """Answer nobody; 499 is what nginx calls it, in the log."""
    return Response(status_code=499)
