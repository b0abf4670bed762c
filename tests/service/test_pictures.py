"""Real weights, real pictures, over HTTP: the original framework's answers."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from converters.pipeline import Options, convert
from converters.sources import find
from converters.t7 import T7Source
from service.app import create_app
from service.settings import Settings
from tests.oracles import ROOT, golden

pytestmark = pytest.mark.anyio

PROBABILITY_ATOL = 5e-6  # Torch7's float32 differs from MXNet's by 2.5e-6 on these; twice that


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the example checkpoint as an artifact."""
    folder = tmp_path_factory.mktemp("artifacts")
    convert(ROOT / "examples" / "efficientnet_lite0.t7", T7Source, Options(out=folder))
    return folder / "efficientnet_lite0.onnx"


@pytest.fixture(scope="module")
def from_mxnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same network's MXNet checkpoint as an artifact."""
    folder = tmp_path_factory.mktemp("artifacts")
    found = find(golden("pretrained/efficientnet_lite0-0000.params"))
    convert(found.model, found.opener, Options(out=folder, kinds=frozenset({"onnx"})))
    return folder / "efficientnet_lite0.onnx"


async def test_top_5_of_the_pictures_equals_torch7s(model: Path) -> None:
    """All 20 pictures get Torch7's five classes in Torch7's order, with its probabilities.

    The probabilities are those of the same half-precision file, from the logits Torch7 computed.
    """
    pictures = json.loads(golden("pretrained/images_20.json").read_text())
    half = np.load(golden("pretrained/efficientnet_lite0_half.npz"))
    logits = dict(zip(half["names"].tolist(), half["torch7_logits"], strict=True))
    app = create_app(Settings(model=model, device="cpu"))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relume")
    async with app.router.lifespan_context(app), client:
        for picture in pictures:
            name = picture["name"]
            image = golden(f"pretrained/images/{name}").read_bytes()
            answer = await client.post(
                "/classify", params={"exif": "ignore"}, files={"img": (name, image)}
            )
            found = answer.json()["predictions"]
            exact = np.exp(logits[name].astype(float) - logits[name].max())
            exact /= exact.sum()
            assert [one["index"] for one in found] == picture["torch7_top5"], name
            given = [one["probability"] for one in found]
            assert given == pytest.approx(exact[picture["torch7_top5"]], abs=PROBABILITY_ATOL)


async def test_top_5_of_the_pictures_equals_mxnets(from_mxnet: Path) -> None:
    """All 20 pictures get MXNet's five classes in MXNet's order, with its probabilities."""
    pictures = json.loads(golden("pretrained/images_20.json").read_text())
    app = create_app(Settings(model=from_mxnet, device="cpu"))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relume")
    async with app.router.lifespan_context(app), client:
        for picture in pictures:
            image = golden(f"pretrained/images/{picture['name']}").read_bytes()
            answer = await client.post(
                "/classify", params={"exif": "ignore"}, files={"img": (picture["name"], image)}
            )
            found = answer.json()["predictions"]
            assert [one["index"] for one in found] == picture["mxnet_top5"], picture["name"]
            given = [one["probability"] for one in found]
            assert given == pytest.approx(picture["mxnet_prob"], abs=PROBABILITY_ATOL)


async def test_the_tench_is_a_tench(model: Path) -> None:
    """The used-by line: one picture in, the tench first."""
    image = golden("pretrained/images/n01440764_tench.JPEG").read_bytes()
    app = create_app(Settings(model=model, device="cpu"))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relume")
    async with app.router.lifespan_context(app), client:
        answer = await client.post("/classify", files={"img": ("tench.jpg", image)})
    first = answer.json()["predictions"][0]
    assert (first["wnid"], first["label"]) == ("n01440764", "tench, Tinca tinca")
