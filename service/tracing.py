"""Traces for OpenTelemetry, where that was asked for: one span a request, one a stage."""

import time
from importlib import import_module
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import DeviceError
from service.observation import stages
from service.pipeline import Answer

NAME = "relume"


class Tracing:
    """Sends spans to an OTLP endpoint in the background; a caller's own trace goes on."""

    def __init__(self, endpoint: str) -> None:
        """Connect lazily.

        Raises:
            DeviceError: OpenTelemetry is not installed.
        """
        try:
            sdk, export, resources, otlp = (
                import_module(f"opentelemetry.{name}")
                for name in (
                    "sdk.trace",
                    "sdk.trace.export",
                    "sdk.resources",
                    "exporter.otlp.proto.http.trace_exporter",
                )
            )
            self._api: Any = import_module("opentelemetry.trace")
            self._propagate: Any = import_module("opentelemetry.propagate")
        except ImportError as error:
            raise DeviceError(
                f"CLASSIFY_TRACES is set and OpenTelemetry cannot be imported ({error}): "
                "pip install 'relume[tracing]'"
            ) from error
        resource = resources.Resource.create({"service.name": NAME})
        self._provider: Any = sdk.TracerProvider(resource=resource)
        exporter = otlp.OTLPSpanExporter(endpoint=endpoint)
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._tracer: Any = self._provider.get_tracer(NAME)

    def answered(self, answer: Answer) -> None:
        """Add the stages of an image to the request's span; they end now, one after the other."""
        at = time.time_ns()
        for stage, milliseconds in reversed(stages(answer).items()):
            start = at - int(milliseconds * 1e6)
            self._tracer.start_span(stage, start_time=start).end(end_time=at)
            at = start

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the application, each request of it in a span."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            context = self._propagate.extract(dict(Headers(scope=scope)))
            name, kind = f"{scope['method']} {scope['path']}", self._api.SpanKind.SERVER
            with self._tracer.start_as_current_span(name, context=context, kind=kind) as span:

                async def noted(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        span.set_attribute("http.response.status_code", message["status"])
                    await send(message)

                await app(scope, receive, noted)

        return traced

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
