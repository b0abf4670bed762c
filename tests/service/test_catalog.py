"""Models come and go with their files, and nobody who is being answered notices."""

import asyncio
import gc
import json
import logging
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from models.errors import ArtifactError
from service import served as served_module
from service.catalog import Catalog
from service.pipeline import Observer
from service.problems import Refusal
from service.served import Served
from service.settings import Settings
from tests.service.conftest import Serve, encoded, plain
from tests.tiny_onnx import INPUT, LABELS, Tiny, spec

pytestmark = pytest.mark.anyio
SOON_S = 0.02


def write(path: Path, name: str = "tiny", scale: float = 4.0) -> Path:
    """Put a tiny artifact of a name in place at once, as `relume` does."""
    temporary = path.with_suffix(".part")
    Tiny(spec=replace(spec(), name=name), scale=scale).write(temporary)
    os.replace(temporary, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder of models."""
    path = tmp_path / "models"
    path.mkdir()
    return path


def settings(folder: Path, **given: object) -> Settings:
    """Return settings that look at the folder all the time."""
    return replace(Settings(models=folder, device="cpu", threads=1, reload_s=SOON_S), **given)  # type: ignore[arg-type]


async def until(condition: object, client: httpx.AsyncClient) -> list[dict[str, str]]:
    """Wait until the listed models are as wanted; return them."""
    assert callable(condition)
    for _ in range(500):
        listed: list[dict[str, str]] = (await client.get("/models")).json()["models"]
        if condition(listed):
            return listed
        await asyncio.sleep(SOON_S)
    raise AssertionError(f"nothing changed: {listed}")


def names(listed: list[dict[str, str]]) -> list[str]:
    return [one["model"] for one in listed]


async def test_every_artifact_of_the_folder_is_served(serve: Serve, folder: Path) -> None:
    """Each by its name; without one the service asks which, unless a default is set."""
    write(folder / "a.onnx", "a")
    write(folder / "b.onnx", "b")
    image = {"img": encoded(plain("red"))}
    async with serve(model=None, models=folder) as client:
        assert names((await client.get("/models")).json()["models"]) == ["a", "b"]
        for name in ("a", "b"):
            answer = await client.post("/classify", params={"model": name}, files=image)
            assert answer.json()["model"] == name
        asked = await client.post("/classify", files=image)
        assert asked.json()["type"] == "/problems/model-required"
        assert asked.json()["detail"] == "?model=NAME is needed: there are a, b"
        gone = await client.post("/classify", params={"model": "c"}, files=image)
        assert gone.status_code == 404
        assert gone.json()["detail"] == "no model 'c': there are a, b"
    async with serve(model=None, models=folder, default_model="b") as client:
        assert (await client.post("/classify", files=image)).json()["model"] == "b"


async def test_a_default_that_is_not_there_stops_the_start(serve: Serve, folder: Path) -> None:
    """It is named, with what there is."""
    write(folder / "a.onnx", "a")
    with pytest.raises(ArtifactError, match="CLASSIFY_DEFAULT_MODEL: found 'b', expected one of a"):
        async with serve(model=None, models=folder, default_model="b"):
            pass


async def test_a_new_file_is_taken_up_and_a_removed_one_let_go(serve: Serve, folder: Path) -> None:
    """Without a restart, and without a moment in which nothing is served."""
    first = write(folder / "a.onnx", "a")
    async with serve(model=None, models=folder, reload_s=SOON_S) as client:
        write(folder / "b.onnx", "b")
        await until(lambda listed: names(listed) == ["a", "b"], client)
        first.unlink()
        await until(lambda listed: names(listed) == ["b"], client)
        (folder / "b.onnx").unlink()
        await until(lambda listed: listed == [], client)
        assert (await client.get("/readyz")).status_code == 503
        write(folder / "c.onnx", "c")
        await until(lambda listed: names(listed) == ["c"], client)
        assert (await client.get("/readyz")).status_code == 200


async def test_a_replaced_file_is_another_version(serve: Serve, folder: Path) -> None:
    """`name@version` reaches that version only, so nobody is answered by another unawares."""
    path = write(folder / "a.onnx", "a")
    image = {"img": encoded(plain("red"))}
    async with serve(model=None, models=folder, reload_s=SOON_S) as client:
        (old,) = (await client.get("/models")).json()["models"]
        write(path, "a", scale=8.0)
        (new,) = await until(lambda listed: listed[0]["version"] != old["version"], client)
        asked = {"model": f"a@{new['version']}"}
        answer = (await client.post("/classify", params=asked, files=image)).json()
        assert answer["version"] == new["version"]
        asked = {"model": f"a@{old['version']}"}
        assert (await client.post("/classify", params=asked, files=image)).status_code == 404


async def test_two_versions_of_a_name_are_served_side_by_side(serve: Serve, folder: Path) -> None:
    """The name alone is the newer file."""
    old, new = write(folder / "old.onnx", "a"), write(folder / "new.onnx", "a", scale=8.0)
    os.utime(old, (1, 1))
    async with serve(model=None, models=folder) as client:
        listed = (await client.get("/models")).json()["models"]
        assert names(listed) == ["a", "a"]
        image = {"img": encoded(plain("red"))}
        found = {}
        for asked in ("a", *(f"a@{one['version']}" for one in listed)):
            answer = await client.post("/classify", params={"model": asked}, files=image)
            found[asked] = answer.json()["predictions"][0]["probability"]
        assert found["a"] == found[f"a@{listed[0]['version']}"]
        assert found["a"] > found[f"a@{listed[1]['version']}"]
    assert new.exists()


async def test_a_bad_file_is_refused_and_the_old_one_goes_on(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, however often it is looked at; a good file after it is taken up."""
    path = write(folder / "a.onnx", "a")
    with caplog.at_level(logging.INFO, logger="relume"):
        async with serve(model=None, models=folder, reload_s=SOON_S) as client:
            (old,) = (await client.get("/models")).json()["models"]
            path.write_bytes(b"no model")
            for _ in range(100):
                await asyncio.sleep(SOON_S)
                if "not served" in caplog.text:
                    break
            await asyncio.sleep(5 * SOON_S)
            assert (await client.get("/models")).json()["models"] == [old]
            assert caplog.text.count("not served: ") == 1
            write(path, "a", scale=8.0)
            await until(lambda listed: listed[0]["version"] != old["version"], client)


async def test_one_bad_file_at_the_start_keeps_no_other_from_being_served(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named; with nothing else the start fails."""
    (folder / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="bad.onnx: not an ONNX model"):
        async with serve(model=None, models=folder):
            pass
    write(folder / "good.onnx", "good")
    async with serve(model=None, models=folder) as client:
        assert names((await client.get("/models")).json()["models"]) == ["good"]
    assert "not served: " in caplog.text


def too_deep(path: Path) -> None:
    """Write an artifact whose texts are nested deeper than Python counts."""
    model = Tiny().model()
    model.metadata_props.add(key="precision", value="[" * 200_000)
    path.write_bytes(model.SerializeToString())


def too_large(path: Path) -> None:
    """Write an artifact of images for which there is no memory."""
    given = replace(spec(), input=replace(INPUT, crop=(2_000_000, 2_000_000)))
    Tiny(spec=given).write(path)


@pytest.mark.parametrize("broken", [too_deep, too_large])
async def test_no_file_ends_the_watch(
    serve: Serve,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    broken: Callable[[Path], None],
) -> None:
    """Whatever keeps it from being loaded is said once, and what comes after it is taken up."""
    write(folder / "a.onnx", "a")
    async with serve(model=None, models=folder, reload_s=SOON_S) as client:
        broken(folder / "b.onnx")
        for _ in range(500):
            await asyncio.sleep(SOON_S)
            if "not served" in caplog.text:
                break
        write(folder / "c.onnx", "c")
        await until(lambda listed: names(listed) == ["a", "c"], client)
    assert caplog.text.count("not served: ") == 1
    assert "Traceback" not in caplog.text
    (folder / "a.onnx").unlink()
    (folder / "c.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"b\.onnx"):
        async with serve(model=None, models=folder):
            pass


async def test_a_fault_of_ours_does_not_end_the_watch(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged whole, once, and the next look is made all the same."""
    write(folder / "a.onnx", "a")
    async with serve(model=None, models=folder, reload_s=SOON_S) as client:
        with monkeypatch.context() as patch:
            patch.setattr("service.catalog._loaded", lambda *given: 1 / 0)
            write(folder / "b.onnx", "b")
            for _ in range(500):
                await asyncio.sleep(SOON_S)
                if "failed on looking for models" in caplog.text:
                    break
        write(folder / "c.onnx", "c")
        await until(lambda listed: names(listed) == ["a", "c"], client)
    assert caplog.text.count("ZeroDivisionError") == 1


@pytest.mark.parametrize("file", ["net.t7", "net-0000.params", "net.pt"])
async def test_a_checkpoint_is_named_with_the_command_that_converts_it(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    """Once, and not where its .onnx lies beside it."""
    write(folder / "a.onnx", "a")
    (folder / "a.t7").touch()
    with caplog.at_level(logging.WARNING, logger="relume"):
        async with serve(model=None, models=folder, reload_s=SOON_S):
            (folder / file).touch()
            for _ in range(100):
                await asyncio.sleep(SOON_S)
                if file in caplog.text:
                    break
            await asyncio.sleep(5 * SOON_S)
    assert caplog.text.count("the service runs .onnx: `relume ") == 1
    assert "a.t7" not in caplog.text


async def test_a_swap_fails_no_request(serve: Serve, folder: Path) -> None:
    """A model is replaced again and again under load: every answer is one version's."""
    path = write(folder / "a.onnx", "a")
    image, stop, versions = {"img": encoded(plain("red"))}, asyncio.Event(), set()
    async with serve(model=None, models=folder, reload_s=SOON_S) as client:

        async def ask() -> None:
            while not stop.is_set():
                answer = await client.post("/classify", files=image)
                assert answer.status_code == 200, answer.text
                versions.add(answer.json()["version"])

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for scale in (5.0, 6.0, 7.0):
            (before,) = (await client.get("/models")).json()["models"]
            write(path, "a", scale=scale)
            await until(lambda listed, old=before: listed[0]["version"] != old["version"], client)
            await asyncio.sleep(SOON_S)
        stop.set()
        await asyncio.gather(*asking)
    assert len(versions) >= 3


async def test_a_model_that_was_replaced_takes_no_memory(folder: Path) -> None:
    """It is gone with its last answer, and not with the next garbage collection."""
    path = write(folder / "a.onnx", "a")
    image = encoded(plain("red"))
    gc.disable()
    try:
        with ThreadPoolExecutor(1) as decoders:
            async with Catalog(settings(folder), decoders, lambda served: Observer()) as catalog:
                old = weakref.ref(catalog.find())
                with catalog.find().pipeline.reserve(1) as pipeline:
                    await pipeline.image(image, orientation=True)
                write(path, "a", scale=8.0)
                for _ in range(500):
                    if old() is None:
                        break
                    await asyncio.sleep(SOON_S)
                assert old() is None
                assert catalog.find().spec.name == "a"
    finally:
        gc.enable()


async def test_what_cannot_be_looked_at_is_said_once(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A link to nothing, beside others or as the only file."""
    write(folder / "a.onnx", "a")
    (folder / "gone.onnx").symlink_to(folder / "nowhere")
    async with serve(model=None, models=folder, reload_s=SOON_S) as client:
        await asyncio.sleep(10 * SOON_S)
        assert names((await client.get("/models")).json()["models"]) == ["a"]
        assert caplog.text.count("not served: ") == 1
    caplog.clear()
    async with serve(model=folder / "a.onnx", reload_s=SOON_S) as client:
        (folder / "a.onnx").unlink()
        await asyncio.sleep(10 * SOON_S)
        assert names((await client.get("/models")).json()["models"]) == ["a"]
        assert caplog.text.count("not served: ") == 1


async def test_a_folder_that_is_away_takes_nothing_with_it(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is loaded goes on, and what has changed is taken up once it is back."""
    write(folder / "a.onnx", "a")
    async with serve(model=None, models=folder, reload_s=SOON_S) as client:
        away = folder.rename(folder.with_name("away"))
        await asyncio.sleep(10 * SOON_S)
        assert names((await client.get("/models")).json()["models"]) == ["a"]
        write(away / "b.onnx", "b")
        away.rename(folder)
        await until(lambda listed: names(listed) == ["a", "b"], client)
    assert "not served" not in caplog.text


async def test_a_file_that_changes_while_it_is_read_is_read_again(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a version never names another file than the one that answers."""
    path = write(folder / "a.onnx", "a")
    digest = served_module._sha256

    def late(given: Path) -> str:
        monkeypatch.undo()
        write(path, "b", scale=8.0)  # which answers as the one that is loaded
        return digest(given)

    async with serve(model=None, models=folder, reload_s=SOON_S) as client:
        (old,) = (await client.get("/models")).json()["models"]
        monkeypatch.setattr(served_module, "_sha256", late)
        write(path, "a", scale=8.0)
        (new,) = await until(lambda listed: listed[0]["version"] != old["version"], client)
        assert (new["model"], new["sha256"]) == ("b", digest(path))
    assert caplog.text.count("a.onnx: was changed while it was read: rename") == 1


async def test_a_version_is_the_whole_of_it(serve: Serve) -> None:
    """Or the digest; a part of either could be two files'."""
    async with serve() as client:
        (one,) = (await client.get("/models")).json()["models"]
        version, sha256 = one["version"], one["sha256"]
        for asked, status in ((version, 200), (sha256, 200), (version[:1], 404), ("", 404)):
            assert (await client.get(f"/models/tiny@{asked}")).status_code == status


@pytest.mark.parametrize("name", ["a@b", "a/b", ""])
def test_a_name_that_no_request_could_give_is_refused(tmp_path: Path, name: str) -> None:
    """With the flag that gives another."""
    path = write(tmp_path / "tiny.onnx", name)
    with pytest.raises(ArtifactError, match=r"tiny\.onnx: found the name '.*without @ and /: con"):
        Served(path, Settings(device="cpu", threads=1))


async def test_the_details_of_a_model(serve: Serve) -> None:
    """Spec, labels, precision, digest and origin, as the file has them."""
    async with serve() as client:
        details = (await client.get("/models/tiny")).json()
    assert [tuple(one) for one in details["labels"]] == [tuple(label) for label in LABELS]
    assert details["input"]["crop"] == [8, 8]
    assert details["precision"] == "float32"
    assert details["version"] == details["sha256"][:12]
    assert details["origin"]["file"] == "tiny.t7"
    assert details["checked"].startswith("onnxruntime, for want of a self-test")
    assert (details["parity"], details["agreement"]) == (None, None)


def test_a_measurement_of_lower_precision_must_be_whole(tmp_path: Path) -> None:
    """A file that does not say how often it agrees with float32 is not served."""
    for text, message in (
        ({}, "damaged precision: 'top1'"),
        ({"top1": "x", "top5": 1, "images": 2}, "expected numbers"),
        ({"top1": 1.0, "top5": 1.0, "images": 2.5}, "expected numbers"),
    ):
        model = Tiny().model()
        model.metadata_props.add(key="precision", value=json.dumps({"name": "fp16", **text}))
        path = tmp_path / "tiny.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ArtifactError, match=rf"tiny\.onnx: .*{message}"):
            Served(path, Settings(device="cpu", threads=1))


async def test_nothing_is_found_before_anything_is_loaded(folder: Path) -> None:
    """A catalog that has not been opened says so."""
    with ThreadPoolExecutor(1) as decoders:
        catalog = Catalog(settings(folder), decoders, lambda served: Observer())
        with pytest.raises(Refusal, match="no model is ready"):
            catalog.find()
