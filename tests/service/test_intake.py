"""Images come in by form, as they are, or in JSON; several at once, and only so many."""

import base64
import errno
from typing import Any

import pytest
from starlette.datastructures import UploadFile

from service.intake import FORM_BYTES, MAX_PARTS, parsed
from tests.service.conftest import Serve, encoded, plain
from tests.service.test_app import problem

pytestmark = pytest.mark.anyio
RED, LIME = encoded(plain("red")), encoded(plain("lime"))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({"files": {"img": RED}}, id="form"),
        pytest.param({"content": RED, "headers": {"Content-Type": "image/png"}}, id="png"),
        pytest.param(
            {"content": RED, "headers": {"Content-Type": "application/octet-stream"}}, id="bytes"
        ),
        pytest.param({"json": {"image": b64(RED)}}, id="base64"),
        pytest.param({"json": {"image": f"data:image/png;base64,{b64(RED)}"}}, id="data URL"),
        pytest.param({"json": {"image": base64.encodebytes(RED).decode()}}, id="base64 in lines"),
        pytest.param(
            {"json": {"image": base64.encodebytes(RED).decode().replace("\n", "\r\n \t")}},
            id="base64 as in mail",
        ),
        pytest.param({"json": {"images": [b64(RED)]}}, id="list of one"),
    ],
)
async def test_one_image_is_answered_however_it_is_sent(serve: Serve, sent: Any) -> None:
    """The same classes, flat."""
    async with serve() as client:
        answer = await client.post("/classify", **sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["label"] == "red"


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
async def test_several_images_are_answered_by_a_list(serve: Serve, path: str) -> None:
    """In their order, each with its name; a broken one has a problem in its place."""
    files = [("img", ("r.png", RED)), ("img", ("x.png", b"no image")), ("img", ("g.png", LIME))]
    async with serve() as client:
        answer = await client.post(path, files=files, params={"top": 2})
    assert answer.status_code == 200
    content = answer.json()
    assert (content["model"], content["precision"]) == ("tiny", "float32")
    red, broken, lime = content["results"]
    assert [one["name"] for one in content["results"]] == ["r.png", "x.png", "g.png"]
    assert red["seen"]["predictions"][0]["label"] == "red"
    assert lime["seen"]["predictions"][0]["label"] == "green"
    assert len(lime["seen"]["predictions"]) == 2
    assert broken["problem"]["type"] == "/problems/invalid-image"
    assert "seen" not in broken


async def test_a_batch_of_one_is_a_list(serve: Serve) -> None:
    """Whoever asks for a batch gets one form of answer, however many there are."""
    async with serve() as client:
        answer = await client.post("/classify/batch", files={"img": RED})
    assert [one["seen"]["predictions"][0]["label"] for one in answer.json()["results"]] == ["red"]


@pytest.mark.parametrize(("top", "count"), [("1", 1), ("3", 3), ("100", 7)])
async def test_as_many_classes_as_were_asked_for(serve: Serve, top: str, count: int) -> None:
    """Up to all that there are."""
    async with serve() as client:
        answer = await client.post("/classify", files={"img": RED}, params={"top": top})
    assert len(answer.json()["predictions"]) == count


@pytest.mark.parametrize(
    ("sent", "kind", "detail"),
    [
        pytest.param(
            {"params": {"top": "0"}}, "invalid-request", "query top: Input should", id="0"
        ),
        pytest.param({"params": {"top": "101"}}, "invalid-request", "query top: Input", id="101"),
        pytest.param({"content": b"{", "headers": {}}, "malformed-request", "no JSON", id="JSON"),
        pytest.param({"json": []}, "invalid-request", "expected a JSON object", id="list"),
        pytest.param({"json": {}}, "invalid-request", "expected one of `image`, `im", id="nothing"),
        pytest.param(
            {"json": {"image": "", "url": "x"}}, "invalid-request", "expected one of", id="both"
        ),
        pytest.param(
            {"json": {"image": 5}}, "invalid-request", "image: expected text", id="number"
        ),
        pytest.param(
            {"json": {"image": "§"}}, "invalid-request", "an image is no base64", id="base64"
        ),
        pytest.param(
            {"json": {"image": "AA\n=A"}}, "invalid-request", "an image is no base64", id="padding"
        ),
        pytest.param({"json": {"images": []}}, "invalid-request", "expected a list", id="empty"),
        pytest.param(
            {"json": {"images": ["", "", ""]}}, "too-many-bytes", "more than 2", id="three"
        ),
        pytest.param(
            {"files": [("img", RED)] * 3}, "too-many-bytes", "found more than 2 images", id="forms"
        ),
        pytest.param(
            {"files": [("img", RED)] * 9}, "too-many-bytes", "found more than 2 images", id="many"
        ),
        pytest.param(
            {"content": b'{"image":[' + b"[]," * MAX_PARTS + b"0]}", "headers": {}},
            "invalid-request",
            "found more than 200,000 parts",
            id="lists",
        ),
        pytest.param(
            {"content": b'{"image":[' + b"1," * MAX_PARTS + b"0]}", "headers": {}},
            "invalid-request",
            "found more than 200,000 parts",
            id="numbers",
        ),
        pytest.param(
            {"json": {"url": "http://a.example/"}}, "url-refused", "fetches nothing", id="url"
        ),
    ],
)
async def test_what_cannot_be_taken_is_a_problem(
    serve: Serve, sent: dict[str, Any], kind: str, detail: str
) -> None:
    """Each with its type and one sentence."""
    if "headers" in sent:
        sent = {**sent, "headers": {"Content-Type": "application/json"}}
    if "params" in sent:
        sent = {**sent, "files": {"img": RED}}
    async with serve(max_images=2) as client:
        answer = await client.post("/classify", **sent)
    assert problem(answer) == kind
    assert detail in answer.json()["detail"]


def test_a_tensor_may_have_many_numbers() -> None:
    """They are parsed fast, unlike lists of nothing."""
    assert len(parsed(b'{"data":[' + b"1," * 2 * MAX_PARTS + b"1]}")["data"]) == 2 * MAX_PARTS + 1


async def test_a_full_disk_is_no_fault_of_the_client(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large parts of a form are put into a file for a moment."""

    async def write(self: UploadFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadFile, "write", write)
    async with serve() as client:
        assert problem(await client.post("/classify", files={"img": RED})) == "internal-error"


async def test_images_together_must_be_small_enough(serve: Serve) -> None:
    """The limit is of the request, whichever way the bytes come."""
    async with serve(max_upload_bytes=len(RED)) as client:
        both = await client.post("/classify", files=[("img", RED), ("img", LIME)])
        assert problem(both) == "too-many-bytes"
        large = b64(RED + b"\0" * FORM_BYTES)
        encoded = await client.post("/classify", json={"image": large})
        assert problem(encoded) == "too-many-bytes"
        assert (await client.post("/classify", json={"image": b64(RED)})).status_code == 200


async def test_the_answer_says_where_the_time_went(serve: Serve) -> None:
    """`Server-Timing` is what a browser shows; the answer has the crop and the image's size."""
    async with serve() as client:
        answer = await client.post("/classify", files={"img": encoded(plain("red", (40, 20)))})
    timing = answer.headers["Server-Timing"]
    assert [one.partition(";dur=")[0] for one in timing.split(", ")] == [
        "decode",
        "preprocess",
        "queue",
        "inference",
    ]
    content = answer.json()
    assert content["size"] == [40, 20]
    assert content["crop"] == {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0}


async def test_a_full_service_lets_in_no_part_of_a_batch(serve: Serve) -> None:
    """More images than may wait now are refused together."""
    async with serve(queue=3, max_batch=1) as client:
        (served,) = client._transport.app.state.service.catalog.served  # type: ignore[attr-defined]
        with served.pipeline.reserve(2):
            answer = await client.post("/classify/batch", files=[("img", RED)] * 3)
            assert problem(answer) == "overloaded"
            assert answer.headers["Retry-After"] == "1"
        answer = await client.post("/classify/batch", files=[("img", RED)] * 3)
    assert answer.status_code == 200


async def test_a_batch_that_never_fits_is_too_large(serve: Serve) -> None:
    """Whoever is told to come back comes back."""
    async with serve(queue=1, max_batch=1) as client:
        answer = await client.post("/classify/batch", files=[("img", RED)] * 3)
        assert problem(answer) == "too-many-bytes"
        assert answer.json()["detail"].startswith("found 3 images, expected at most 2")
        answer = await client.post("/classify/batch", files=[("img", RED)] * 2)
    assert answer.status_code == 200
