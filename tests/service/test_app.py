"""What the service answers, over HTTP in this process."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from models.errors import ArtifactError, LegacyModelError, SpecError
from service.app import create_app
from service.inference_protocol import LENGTH, Inferred, Metadata
from service.intake import FORM_BYTES
from service.problems import KINDS
from service.schemas import BatchResponse, ClassifyResponse, ModelList, Problem
from service.served import Served
from service.settings import Settings
from tests.service.conftest import Serve, bright_top, encoded, plain
from tests.tiny_onnx import INPUT, LABELS, Tiny, spec

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
ROTATED_180 = Image.Exif()
ROTATED_180[0x0112] = 3  # EXIF orientation: the first row of the file is the picture's bottom


async def post(client: httpx.AsyncClient, image: bytes, **query: str) -> httpx.Response:
    """Send one image."""
    return await client.post("/classify", files={"img": ("a.png", image)}, params=query)


def problem(response: httpx.Response) -> str:
    """Return which problem an answer is, after a look at its form."""
    assert response.headers["Content-Type"] == "application/problem+json"
    content = response.json()
    assert set(content) == {"type", "title", "status", "detail", "error"}
    name = str(content["type"]).removeprefix("/problems/")
    assert (content["status"], content["title"]) == KINDS[name][:2]
    assert response.status_code == content["status"]
    assert content["error"] == content["detail"]
    return name


async def top(client: httpx.AsyncClient, image: bytes, **query: str) -> str:
    """Return the name of the best class."""
    response = await post(client, image, **query)
    assert response.status_code == 200, response.text
    return str(response.json()["predictions"][0]["label"])


async def test_the_answer_names_the_best_five(serve: Serve) -> None:
    """Model, five classes from the most probable on, and where the time went."""
    async with serve() as client:
        response = await post(client, encoded(plain("red")))
    assert response.status_code == 200
    answer = response.json()
    assert answer["model"] == "tiny"
    predictions = answer["predictions"]
    first = predictions[0]
    assert (first["index"], first["wnid"], first["label"]) == (0, "n00000001", "red")
    assert [each["index"] for each in predictions] == [0, 3, 4, 5, 6]
    assert predictions[1]["wnid"] is None
    scores = np.array([4, -4, -4, 0, 0, 0, 0])  # red is 1, green and blue are -1, times the scale
    softmax = np.exp(scores) / np.exp(scores).sum()
    assert [each["probability"] for each in predictions] == pytest.approx(
        softmax[[0, 3, 4, 5, 6]], abs=1e-5
    )
    assert set(answer["timings_ms"]) == {"decode", "preprocess", "queue", "inference"}
    assert all(took >= 0 for took in answer["timings_ms"].values())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "GIF", "BMP"])
async def test_the_common_formats_are_read(serve: Serve, kind: str) -> None:
    """The format is told from the bytes, whatever the file is called."""
    async with serve() as client:
        assert await top(client, encoded(plain("lime"), kind)) == "green"


async def test_exif_orientation_is_honoured_unless_told_otherwise(serve: Serve) -> None:
    """A photo taken upside down is turned, as viewers do; `exif=ignore` is as it was in 2016."""
    image = encoded(bright_top(), "JPEG", exif=ROTATED_180)
    async with serve() as client:
        assert await top(client, image) == "bottom"
        assert await top(client, image, exif="honour") == "bottom"
        assert await top(client, image, exif="ignore") == "top"


async def test_requests_at_the_same_time_get_their_own_answers(serve: Serve) -> None:
    """Images that share a batch do not share answers, and a bad one among them harms nobody."""
    colours = {"red": "red", "lime": "green", "blue": "blue"}
    images = [encoded(plain(colour)) for colour in colours] * 4
    images.insert(5, b"no image")
    async with serve(max_batch=4) as client:
        responses = await asyncio.gather(*(post(client, image) for image in images))
    refused = responses.pop(5)
    assert refused.status_code == 422
    best = [response.json()["predictions"][0]["label"] for response in responses]
    assert best == list(colours.values()) * 4


async def test_a_fixed_batch_size_of_one_is_served_one_by_one(serve: Serve, tmp_path: Path) -> None:
    """A file that takes one image at a time is not given more."""
    model = Tiny(batch=1).write(tmp_path / "fixed.onnx")
    async with serve(model=model, max_batch=8) as client:
        answers = [top(client, encoded(plain(colour))) for colour in ("red", "blue")]
        assert await asyncio.gather(*answers) == ["red", "blue"]


@pytest.mark.parametrize(
    ("image", "status", "detail"),
    [
        pytest.param(b"no image", 422, "found 8 bytes that begin with b'no image'", id="foreign"),
        pytest.param(b"", 422, "found no bytes", id="empty"),
        pytest.param(encoded(plain("red"))[:-30], 422, "truncated or damaged", id="cut off"),
        pytest.param(encoded(plain("red", (101, 100))), 413, "101 x 100 pixels", id="pixels"),
    ],
)
async def test_a_bad_image_is_answered_with_one_sentence(
    serve: Serve, image: bytes, status: int, detail: str
) -> None:
    """What is no image is 422, what is too large is 413, and the sentence says why."""
    async with serve(max_pixels=10_000) as client:
        response = await post(client, image)
    assert response.status_code == status
    problem(response)
    assert detail in response.json()["detail"]
    assert "\n" not in response.json()["detail"]


async def test_a_file_over_the_limit_is_413(serve: Serve) -> None:
    """One byte more than allowed is refused; the limit itself is not."""
    image = encoded(plain("red"))
    async with serve(max_upload_bytes=len(image)) as client:
        assert await top(client, image) == "red"
        response = await post(client, image + b"\0")
    assert response.status_code == 413
    assert problem(response) == "too-many-bytes"
    expected = f"the upload is larger than {len(image):,} bytes: send a smaller image"
    assert response.json()["detail"] == expected


async def test_a_large_upload_is_refused_before_it_is_read(serve: Serve) -> None:
    """Content-Length alone is enough to refuse: the body is not asked for."""

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with serve(max_upload_bytes=1000) as client:
        headers = {"Content-Length": str(1000 + FORM_BYTES + 1)}
        response = await client.post("/classify", content=body(), headers=headers)
    assert response.status_code == 413
    assert "larger than 1,000 bytes" in response.json()["detail"]


async def test_an_upload_that_hides_its_length_is_cut_off(serve: Serve) -> None:
    """A chunked body is counted while it comes in, and no more is read than the limit."""
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="img"; filename="a"\r\n\r\n'
        while True:
            sent += 10_000
            yield b"\0" * 10_000

    async with serve(max_upload_bytes=1000) as client:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await client.post("/classify", content=body(), headers=headers)
    assert response.status_code == 413
    assert "larger than 1,000 bytes" in response.json()["detail"]
    assert sent <= 1000 + FORM_BYTES + 10_000


@pytest.mark.parametrize(
    ("arguments", "status", "detail"),
    [
        pytest.param({}, 415, "found no Content-Type, expected multipart", id="no body"),
        pytest.param(
            {"content": b"x", "headers": {"Content-Type": "text/plain"}},
            415,
            "found text/plain, expected multipart/form-data with the field img, image/* or",
            id="text",
        ),
        pytest.param({"files": {"image": b"x"}}, 422, "img: expected an image file", id="field"),
        pytest.param(
            {"data": {"img": "text"}}, 415, "found application/x-www-form", id="no form of files"
        ),
        pytest.param(
            {"files": {"img": b"x"}, "params": {"exif": "no"}},
            422,
            "query exif: Input should be 'honour' or 'ignore'",
            id="exif",
        ),
        pytest.param(
            {"files": {"img": b"x"}, "params": {"exif": ""}},
            422,
            "query exif: Input should be 'honour' or 'ignore'",
            id="exif of nothing",
        ),
        pytest.param(
            {"files": {"img": b"x"}, "params": {"top": 0}},
            422,
            "query top: Input should be greater than or equal to 1",
            id="no class",
        ),
        pytest.param(
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "Missing boundary in multipart.",
            id="broken form",
        ),
    ],
)
async def test_a_wrong_request_is_answered_with_one_sentence(
    serve: Serve, arguments: dict[str, object], status: int, detail: str
) -> None:
    """A missing field or a wrong parameter is named; the body of every refusal has one form."""
    async with serve() as client:
        response = await client.request("POST", "/classify", **arguments)  # type: ignore[arg-type]
    assert response.status_code == status
    problem(response)
    assert response.json()["detail"].startswith(detail)


async def test_a_full_queue_is_503_with_retry_after(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When as many wait as may, the next is told when to come back; those inside are answered."""
    opened, running = threading.Event(), threading.Event()
    opened.set()  # for the warm-up
    run = Served.run

    def gated(served: Served, batch: np.ndarray, alone: bool) -> np.ndarray:
        running.set()
        assert opened.wait(timeout=10)
        return run(served, batch, alone)

    monkeypatch.setattr(Served, "run", gated)
    image = encoded(plain("red"))
    async with serve(queue=1, max_batch=1) as client:
        opened.clear()
        running.clear()
        first = asyncio.create_task(post(client, image))
        await asyncio.to_thread(running.wait, 10)
        more = [asyncio.create_task(post(client, image)) for _ in range(3)]
        (refused,), inside = await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
        opened.set()
        answered = await asyncio.gather(first, *inside)
    assert refused.result().status_code == 503
    assert refused.result().headers["Retry-After"] == "1"
    assert problem(refused.result()) == "overloaded"
    expected = "3 requests are being worked on: ask again in a moment"  # wait, run, decoded
    assert refused.result().json()["detail"] == expected
    assert [response.status_code for response in answered] == [200, 200, 200]


async def test_images_are_decoded_on_the_threads_that_were_set(serve: Serve) -> None:
    """A worker has its share of the cores, and each decoder holds a whole image."""
    pictures = [encoded(plain("red", (1500, 1500))) for _ in range(12)]
    async with serve(threads=1) as client:
        await asyncio.gather(*(post(client, image) for image in pictures))
        names = {one.name for one in threading.enumerate() if one.name.startswith("decode")}
    assert len(names) == 1


async def test_a_path_that_is_nearly_right_leads_nowhere(serve: Serve) -> None:
    """A redirect would go to the host that the client named."""
    async with serve() as client:
        answer = await client.post("/classify/", headers={"Host": "evil.example"})
    assert problem(answer) == "not-found"


async def test_ready_means_that_a_batch_was_answered(tiny_model: Path) -> None:
    """Before the warm-up and after the end, the process is alive but not ready."""
    app = create_app(Settings(model=tiny_model, device="cpu"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://relume") as client:

        async def states() -> tuple[int, int]:
            alive, ready = await client.get("/healthz"), await client.get("/readyz")
            assert alive.json() == {"status": "alive"}
            return alive.status_code, ready.status_code

        assert await states() == (200, 503)
        async with app.router.lifespan_context(app):
            assert await states() == (200, 200)
        assert await states() == (200, 503)
        refused = await post(client, encoded(plain("red")))
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert "no model is ready yet" in refused.json()["detail"]


async def test_a_failure_of_the_model_is_500_and_the_service_lives_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image on which the network fails costs only its own request."""
    run = Served.run

    def fails_on_green(served: Served, batch: np.ndarray, alone: bool) -> np.ndarray:
        if batch[0, 1].min() > 0:
            raise ArtifactError("broken")
        return run(served, batch, alone)

    monkeypatch.setattr(Served, "run", fails_on_green)
    async with serve() as client:
        response = await post(client, encoded(plain("lime")))
        assert response.status_code == 500
        assert problem(response) == "internal-error"
        assert response.json()["detail"] == "the service failed on this: see its log"
        assert await top(client, encoded(plain("red"))) == "red"


@pytest.mark.parametrize(
    ("tiny", "kind", "message"),
    [
        pytest.param(
            Tiny(spec=spec(None)),
            SpecError,
            "takes no image, so it classifies none",
            id="no input",
        ),
        pytest.param(Tiny(spec=None), ArtifactError, "carries no model_spec", id="no spec"),
        pytest.param(
            Tiny(batch=4), ArtifactError, "found a batch size of 4, expected 1 or any", id="batch 4"
        ),
        pytest.param(
            Tiny(second_input=True),
            ArtifactError,
            "found the inputs image, other, expected one: the image",
            id="two inputs",
        ),
        pytest.param(
            Tiny(outputs=6),
            ArtifactError,
            rf"found an output of shape \(1, 6\), expected \(1, {len(LABELS)}\): one number for",
            id="labels",
        ),
        pytest.param(
            Tiny(scale=np.nan), ArtifactError, "found NaN or infinity among its outputs", id="NaN"
        ),
        pytest.param(
            Tiny(spec=spec(replace(INPUT, crop=(4, 4)))),
            ArtifactError,
            "cannot run: Got invalid dimensions for input: image",
            id="size",
        ),
        pytest.param(
            Tiny(spec=spec(replace(INPUT, crop=(9, 9)))),
            SpecError,
            "crop 9x9 does not fit",
            id="crop",
        ),
    ],
)
async def test_a_model_that_cannot_be_served_is_noticed_at_the_start(
    serve: Serve, tmp_path: Path, tiny: Tiny, kind: type[LegacyModelError], message: str
) -> None:
    """The warm-up takes the whole way from image to answer: the first user finds nothing new."""
    with pytest.raises(kind, match=message):
        async with serve(model=tiny.write(tmp_path / "odd.onnx")):
            pass


async def test_the_documentation_page_describes_every_status(serve: Serve) -> None:
    """`/docs` works, and the schema behind it knows what `/classify` may answer."""
    async with serve() as client:
        assert (await client.get("/docs")).status_code == 200
        schema = (await client.get("/openapi.json")).json()
    answers = schema["paths"]["/classify"]["post"]["responses"]
    assert {int(status) for status in answers} - {200} == {
        kind.status for name, kind in KINDS.items() if name != "method-not-allowed"
    }


async def test_the_schema_says_what_is_sent_and_answered(serve: Serve) -> None:
    """Every form and header of requests and answers; its examples are of the schema."""
    async with serve() as client:
        document = (await client.get("/openapi.json")).json()
        for kind in ("image/tiff", "application/octet-stream"):
            headers = {"Content-Type": kind}
            answer = await client.post("/classify", content=encoded(plain("red")), headers=headers)
            assert answer.status_code == 200
            assert kind in document["paths"]["/classify"]["post"]["requestBody"]["content"]
    answers = document["paths"]["/classify"]["post"]["responses"]
    assert "Server-Timing" in answers["200"]["headers"]
    assert "Retry-After" in answers["503"]["headers"]
    infer = document["paths"]["/v2/models/{name}/infer"]["post"]
    assert LENGTH in [one["name"] for one in infer["parameters"]]
    assert set(infer["responses"]["200"]["content"]) == {
        "application/json",
        "application/octet-stream",
    }
    assert LENGTH in infer["responses"]["200"]["headers"]
    models = (BatchResponse, ClassifyResponse, Inferred, Metadata, ModelList, Problem)
    for one in models:
        example = document["components"]["schemas"][one.__name__]["example"]
        assert one.model_validate(example).model_dump(mode="json", exclude_unset=True) == example


def test_the_service_needs_no_torch() -> None:
    """Its image has none, so nothing that it imports may ask for it."""
    code = "import sys, service.server; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert result.stdout == "False\n"


async def test_images_beyond_the_places_are_refused_before_they_are_read(serve: Serve) -> None:
    """Only so many uploads are in memory: the rest get 503 at once, with when to come back."""
    image = encoded(plain("red"))
    async with serve(queue=1, max_batch=1) as client:
        answers = await asyncio.gather(*(post(client, image) for _ in range(80)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert len(refused) >= 80 - 2 * (2 + (os.cpu_count() or 1))
    assert all(answer.headers["Retry-After"] for answer in refused)
