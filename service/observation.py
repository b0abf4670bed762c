"""What can be seen of the service from outside: metrics, logs, and the time of each stage."""

import asyncio
import json
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.terminal import escaped
from service.pipeline import Answer, Observer
from service.prefix import path_of
from service.problems import PROBLEM, Refusal, response
from service.served import Served

LOG = logging.getLogger("relume")
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # nothing that could break a line of a log
_FIELDS = ("method", "path", "status", "duration_ms", "client")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64)
STAGES = ("decode", "preprocess", "queue", "inference")


class Metrics:
    """The service's figures, for Prometheus."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "relume_requests", "Answered requests.", ("route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "relume_request_seconds",
            "From a request's headers to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "relume_stage_seconds",
            "Time of one image in each stage.",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.engine = Histogram(
            "relume_engine_seconds",
            "Time of one batch.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.rows = Histogram(
            "relume_batch_rows",
            "Images in one batch.",
            ("model",),
            buckets=_ROWS,
            registry=registry,
        )
        self.waiting = Gauge(
            "relume_waiting_images",
            "Images that are inside and not being run.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.rejections = Counter(
            "relume_rejections", "Refused requests and images.", ("type",), registry=registry
        )
        self.info = Gauge(
            "relume_model_info",
            "What is served: 1 for each, 0 once it is not.",
            ("model", "version", "precision", "engine", "device"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def page(self) -> bytes:
        """Return all figures as Prometheus reads them, of all processes that serve."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        several = CollectorRegistry()
        multiprocess.MultiProcessCollector(several)  # type: ignore[no-untyped-call]
        return generate_latest(several)

    def refused(self, kind: str) -> None:
        """Count a request or an image that is refused."""
        self.rejections.labels(kind).inc()

    def answered(self, model: str, took: Mapping[str, float]) -> None:
        """Count where the time of one image went: the milliseconds of each stage."""
        for stage, milliseconds in took.items():
            self.stages.labels(model, stage).observe(milliseconds / 1000)


def stages(answer: Answer) -> dict[str, float]:
    """Return the milliseconds that an image spent in each stage."""
    prepared = answer.prepared
    took = (prepared.decode_ms, prepared.preprocess_ms, answer.queue_ms, answer.inference_ms)
    return dict(zip(STAGES, took, strict=True))


class Batches(Observer):
    """Counts what is served, and what waits for it and is run.

    It adds to the figures and takes from them: a name may be served in several versions, and a
    process among several is not asked for its figures when somebody reads them.
    """

    def __init__(self, metrics: Metrics, served: Served) -> None:
        model, engine = served.name, served.engine
        self._seconds = metrics.engine.labels(model)
        self._rows = metrics.rows.labels(model)
        self._waiting = metrics.waiting.labels(model)
        self._told = 0  # of those that wait
        self._info = metrics.info.labels(
            model, served.version, engine.precision, engine.name, engine.device
        )
        self._info.inc()

    def batch_ran(self, rows: int, seconds: float) -> None:
        """Count a batch."""
        self._rows.observe(rows)
        self._seconds.observe(seconds)

    def waits(self, images: int) -> None:
        """Count those that came, or take away those that went."""
        self._waiting.inc(images - self._told)
        self._told = images

    def ended(self) -> None:
        """It is no longer served."""
        self._info.dec()


class Observed:
    """Gives every request an id, times it, counts it, and logs it; bugs are logged whole."""

    def __init__(self, app: ASGIApp, metrics: Metrics, route: Callable[[str], str]) -> None:
        self._app = app
        self._metrics = metrics
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, and note what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        REQUEST_ID.set(request_id)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if PROBLEM in scope:
                    self._metrics.refused(scope[PROBLEM])
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:  # the time to drain is over
            if status != 0:
                raise
            ending = Refusal("not-ready", "the service is ending: ask again in a moment")
            await response(ending)(scope, receive, noted)
        except Exception as error:
            LOG.exception("failed on %s", scope["path"])
            if status == 0:
                await response(error)(scope, receive, noted)
        finally:
            self._note(scope, status, time.perf_counter() - start)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        route = self._route(path_of(scope))
        self._metrics.requests.labels(route, str(status or "gone")).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        client = scope["client"][0] if scope.get("client") else None
        LOG.debug(
            "request",
            extra={
                "method": scope["method"],
                "path": path,
                "status": status or None,
                "duration_ms": round(seconds * 1000, 2),
                "client": client,
            },
        )


class Lines(logging.Formatter):
    """The message alone, on one line whatever a file, a model or a path is called."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return the line; a traceback follows it."""
        return escaped(super().formatMessage(record))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, the request's id and what belongs to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get() or None,
            **{name: getattr(record, name, None) for name in _FIELDS},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value is not None})


def log_to_stderr(form: str) -> None:
    """Send the log to stderr; programs are told of every request, people of models only."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = form == "json"
    handler.setFormatter(JsonLines() if as_json else Lines())
    for name, level in (("relume", logging.DEBUG if as_json else logging.INFO), ("uvicorn", 40)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
