"""What happens can be seen: figures, lines of a log, the request's id."""

import asyncio
import json
import logging
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Receive, Scope, Send

from service.observation import REQUEST_ID, JsonLines, Metrics, Observed, log_to_stderr
from tests.service.conftest import Serve, encoded, holds, plain
from tests.service.test_catalog import write

pytestmark = pytest.mark.anyio
RED = {"img": encoded(plain("red"))}


def figures(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample of a page of Prometheus."""
    families = text_string_to_metric_families(page)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_prometheus_reads_what_happened(serve: Serve) -> None:
    """Requests by route and status, stages, batches, refusals, and what is served."""
    async with serve() as client:
        for _ in range(3):
            await client.post("/classify", files=RED)
        await client.post("/classify", files={"img": b"no image"})
        await client.get("/models/tiny")
        await client.get("/models/other")
        page = await client.get("/metrics")
    assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = figures(page.text)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("relume_requests_total", route="/classify", status="200") == 3
    assert value("relume_requests_total", route="/classify", status="422") == 1
    assert value("relume_requests_total", route="/models/{name}", status="404") == 1
    assert value("relume_rejections_total", type="invalid-image") == 1
    assert value("relume_rejections_total", type="model-not-found") == 1
    for stage in ("decode", "preprocess", "queue", "inference"):
        assert value("relume_stage_seconds_count", model="tiny", stage=stage) == 3
    assert value("relume_batch_rows_sum", model="tiny") == 3
    assert value("relume_engine_seconds_count", model="tiny") == 3
    assert value("relume_waiting_images", model="tiny") == 0
    info = [labels for name, labels in found if name == "relume_model_info"]
    assert [dict(labels)["precision"] for labels in info] == ["float32"]


async def test_versions_of_a_name_wait_together(serve: Serve, tmp_path: Path) -> None:
    """Their images are added up; a model that goes takes its own with it, and is not served."""
    (tmp_path / "new").mkdir()
    path = write(tmp_path / "new" / "tiny.onnx", "tiny", scale=8.0)
    write(tmp_path / "new" / "old.onnx", "tiny")
    async with serve(model=None, models=path.parent, reload_s=0.02) as client:
        state = client._transport.app.state.service  # type: ignore[attr-defined]
        one, other = state.catalog.served
        with one.pipeline.reserve(2), other.pipeline.reserve(3):
            page = (await client.get("/metrics")).text
            assert 'relume_waiting_images{model="tiny"} 5.0' in page
            assert sorted(of_models(page)) == [1, 1]
            path.unlink()
            assert await asyncio.to_thread(holds, lambda: len(state.catalog.served) == 1)
        for _ in range(500):
            page = (await client.get("/metrics")).text
            if of_models(page).count(0) == 1:
                break
            await asyncio.sleep(0.02)
    assert 'relume_waiting_images{model="tiny"} 0.0' in page
    assert sorted(of_models(page)) == [0, 1]


def of_models(page: str) -> list[float]:
    """Return the figures of `relume_model_info`."""
    return [value for (name, _), value in figures(page).items() if name == "relume_model_info"]


async def test_every_refusal_is_counted_once(serve: Serve) -> None:
    """Whoever refuses: what stands before the routes, the framework, a route, or an image's own."""
    two = [("img", RED["img"]), ("img", b"no image")]
    async with serve(tokens=("secret",), max_upload_bytes=1000, max_images=2) as client:
        await client.get("/models")
        client.headers["Authorization"] = "Bearer secret"
        await client.get("/nowhere")
        await client.delete("/models")
        await client.post("/classify", content=b"x" * 100_000)
        await client.post("/classify", files=two)
        await client.post("/classify/batch", files=two[1:])
        await client.post("/classify", files=two[1:])
        await client.post("/classify", files=two[:1], params={"top": "0"})
        page = await client.get("/metrics")
    found = figures(page.text)
    counted = {
        dict(labels)["type"]: value
        for (name, labels), value in found.items()
        if name == "relume_rejections_total"
    }
    assert counted == {
        "unauthorized": 1,
        "not-found": 1,
        "method-not-allowed": 1,
        "too-many-bytes": 1,
        "invalid-image": 3,
        "invalid-request": 1,
    }


async def test_who_is_inside_when_the_time_to_drain_is_over_is_told() -> None:
    """By a problem, and without a traceback of the server's."""
    sent: list[Message] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    app = Observed(waits, Metrics(), lambda path: path)
    going = asyncio.create_task(app(scope, receive, send))
    await asyncio.sleep(0)
    going.cancel()
    await going
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["type"] == "/problems/not-ready"


async def test_an_answer_that_is_cut_off_stays_cut_off() -> None:
    """What has begun cannot become another answer."""

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    async def send(message: Message) -> None:
        assert message["type"] == "http.response.start"

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    going = asyncio.create_task(Observed(waits, Metrics(), str)(scope, receive, send))
    await asyncio.sleep(0)
    going.cancel()
    (done,), _ = await asyncio.wait([going])
    assert done.cancelled()


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2:3", True), ("", False), ("a b\nc", False), ("x" * 200, False)]
)
async def test_a_request_has_an_id(serve: Serve, given: str, kept: bool) -> None:
    """The client's own, where it could not break a log, or a new one."""
    async with serve() as client:
        headers = {b"X-Request-ID": given.encode()} if given else {}
        answer = await client.get("/healthz", headers=headers)
    assert (answer.headers["X-Request-ID"] == given) is kept
    assert len(answer.headers["X-Request-ID"]) in (len(given), 32)


async def test_every_request_is_a_line_for_programs(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """With what it was, what became of it and how long it took."""
    with caplog.at_level(logging.DEBUG, logger="relume"):
        async with serve() as client:
            await client.post("/classify", files=RED, headers={"X-Request-ID": "mine"})
    record = next(one for one in caplog.records if one.getMessage() == "request")
    token = REQUEST_ID.set("mine")
    line = json.loads(JsonLines().format(record))
    REQUEST_ID.reset(token)
    assert (line["level"], line["method"], line["path"]) == ("debug", "POST", "/classify")
    assert (line["status"], line["request_id"]) == (200, "mine")
    assert line["duration_ms"] > 0
    assert line["time"].endswith("Z")


def test_a_bug_is_one_line_with_its_traceback() -> None:
    """Programs that read logs by the line get the whole of it."""
    try:
        raise ArithmeticError("broken")
    except ArithmeticError:
        record = logging.LogRecord("relume", 40, "f", 1, "failed on %s", ("/x",), sys.exc_info())
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "ArithmeticError: broken" in json.loads(text)["traceback"]


def test_people_are_told_of_models_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Text has no line for each request, JSON has."""
    logger = logging.getLogger("relume")
    before = (logger.handlers[:], logger.level, logger.propagate)
    try:
        log_to_stderr("text")
        logger.debug("request")
        logger.info("serving a@b")
        logger.error("failed on %s", "/a\nserving x\x1b[2J")
        log_to_stderr("json")
        logger.debug("request")
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
    first, escaped, second = capsys.readouterr().err.splitlines()
    assert first == "serving a@b"
    assert escaped == r"failed on /a\nserving x\x1b[2J"
    assert json.loads(second)["message"] == "request"
