"""The page, in a real browser: pictures in, bars out, offline, by keyboard, light and dark."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.routes import FOLDER
from tests.service.conftest import bright_top, encoded, plain
from tests.service.test_catalog import write
from tests.service.test_main import running

CHROMIUM = os.environ.get("RELUME_CHROMIUM") or shutil.which("chromium")
PAGES = ("page.html", "docs.html")
PHONE = {"width": 390, "height": 844}
ACTIVE = "document.activeElement.id || document.activeElement.tagName"
DESK = {"width": 1280, "height": 900}


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_need_nothing_from_outside(name: str) -> None:
    """Neither script nor style nor font comes from another host, or from another file."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert "https://" not in text
    assert "http://www.w3.org/2000/svg" in text or "http://" not in text
    assert "<script src" not in text
    assert 'rel="stylesheet"' not in text


@pytest.fixture
def browser() -> Iterator[Any]:
    """Return a headless Chromium, where there is one."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def service(tiny_model: Path) -> Iterator[str]:
    """Return the address of a running service."""
    with running("--model", str(tiny_model)) as (_, address, _):
        yield address


def pictures(folder: Path) -> list[str]:
    """Write a red, a bright-above and a broken picture, one of no browser, and a tall one."""
    contents = {
        "red.png": encoded(plain("red", (80, 40))),
        "sky.png": encoded(bright_top()),
        "broken.png": b"no image",
        "scan.tif": encoded(plain("blue", (80, 40)), "TIFF"),
        "tall.png": encoded(plain("green", (400, 1600))),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in contents]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_pictures_are_answered_on_the_page(
    browser: Any, service: str, tmp_path: Path, scheme: str, size: dict[str, int]
) -> None:
    """Several files at once: bars, timings, the crop, and one problem that harms no other."""
    page = browser.new_page(viewport=size, color_scheme=scheme)
    outside: list[str] = []
    errors: list[str] = []
    page.on("request", lambda one: outside.append(one.url) if service not in one.url else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(service)
    page.set_input_files("#file", pictures(tmp_path))
    page.get_by_text("4 done, 1 failed.").wait_for()
    names = page.locator("#results h2").all_inner_texts()
    assert names == [Path(one).name for one in pictures(tmp_path)]
    red = page.locator("#results > li", has_text="red.png")
    assert red.locator(".classes li").count() == 5
    assert red.locator(".classes li").first.inner_text().startswith("red")
    assert "float32" in red.locator(".timings").inner_text()
    assert red.locator(".crop").is_visible()
    scanned = page.locator("#results > li", has_text="scan.tif")  # which no Chromium shows
    assert scanned.locator(".classes li").first.inner_text().startswith("blue")
    assert scanned.locator("img").count() == scanned.locator(".problem").count() == 0
    tall = page.locator("#results > li", has_text="tall.png").locator("img")
    assert tall.evaluate("one => one.height / one.width") == pytest.approx(4, rel=0.02)
    broken = page.locator("#results > li", has_text="broken.png")
    assert "no image" in broken.locator(".problem").inner_text()
    assert "tiny@" in page.locator("#about").inner_text()
    assert f"{service}/classify" in page.locator("#curl").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert [url for url in outside if not url.startswith(("blob:", "data:"))] == []
    assert [error for error in errors if "422" not in error] == []
    if folder := os.environ.get("RELUME_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{scheme}-{size['width']}.png", full_page=True)


@pytest.mark.slow
def test_the_page_works_by_keyboard_and_screen_reader(
    browser: Any, service: str, tmp_path: Path
) -> None:
    """Everything is reached by Tab, has a name, and what happens is announced."""
    page = browser.new_page(viewport=DESK)
    # Choosers are caught from the first listener on, which takes Chromium a moment: one that is
    # first listened to when the key is pressed was missed in 23 of 400 tries.
    page.on("filechooser", lambda _: None)
    page.goto(service)
    page.locator("#curl", has_text="curl").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(pictures(tmp_path)[:1])
    page.get_by_text("1 done.").wait_for()
    assert page.locator("#status").get_attribute("aria-live") == "polite"
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(ACTIVE))
    assert reached[:4] == ["clear", "curl", "copy", "A"]
    tree = page.locator("body").aria_snapshot()
    for said in (
        "heading",
        'list "Results"',
        'list "Most probable classes"',
        "probably red",
        "Choose pictures",
        'region "Command"',
        "Copy",
    ):
        assert said in tree, tree


@pytest.mark.slow
def test_the_page_learns_of_a_model_that_was_replaced(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture that met the old one says so, the choice stays, and the next is answered."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a", "b"):
        write(folder / f"{name}.onnx", name)
    monkeypatch.setenv("CLASSIFY_RELOAD_S", "0.05")
    with running("--models", str(folder)) as (_, address, _):
        page = browser.new_page(viewport=DESK)
        page.goto(address)
        page.locator("#which").wait_for()
        old = page.locator("#model option").nth(1).get_attribute("value")
        page.select_option("#model", old)
        write(folder / "b.onnx", "b", scale=8.0)
        for _ in range(200):
            if page.request.get(f"{address}/models/{old}").status == 404:
                break
            page.wait_for_timeout(50)
        page.set_input_files("#file", pictures(tmp_path)[:1])
        page.get_by_text("1 failed.").wait_for()
        assert "No such model" in page.locator("#results .problem").inner_text()
        new = page.locator("#model").input_value()
        assert (new.split("@")[0], new == old) == ("b", False)
        page.set_input_files("#file", pictures(tmp_path)[:1])
        page.get_by_text("1 done, 1 failed.").wait_for()
        assert page.locator("#results .classes li").count() == 5


@pytest.mark.slow
def test_a_pasted_or_dropped_picture_is_answered(browser: Any, service: str) -> None:
    """As from a screenshot, or from another window."""
    page = browser.new_page(viewport=DESK)
    page.goto(service)
    page.locator("#curl", has_text="curl").wait_for()
    script = """async (kind) => {
        const canvas = new OffscreenCanvas(8, 8), brush = canvas.getContext("2d");
        brush.fillStyle = "blue"; brush.fillRect(0, 0, 8, 8);
        const data = new DataTransfer();
        const picture = await canvas.convertToBlob();
        data.items.add(new File([picture], `${kind}.png`, {type: "image/png"}));
        document.dispatchEvent(kind === "paste"
            ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
            : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    for count, kind in enumerate(("paste", "drop"), start=1):
        page.evaluate(script, kind)
        page.get_by_text(f"{count} done.").wait_for()
        card = page.locator("#results > li", has_text=f"{kind}.png")
        assert card.locator(".classes li").first.inner_text().startswith("blue")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_documentation_page_works_offline(
    browser: Any, service: str, scheme: str, size: dict[str, int]
) -> None:
    """Every path of the OpenAPI document is on it, and nothing comes from elsewhere."""
    page = browser.new_page(viewport=size, color_scheme=scheme)
    outside: list[str] = []
    page.on("request", lambda one: outside.append(one.url) if service not in one.url else None)
    page.goto(f"{service}/docs")
    page.wait_for_selector("#main:not([aria-busy])")
    text = page.locator("#main").inner_text()
    for path in ("POST /classify", "POST /classify/batch", "GET /models/{name}", "GET /metrics"):
        assert path in text
    assert [url for url in outside if not url.startswith("data:")] == []
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if folder := os.environ.get("RELUME_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/docs-{scheme}-{size['width']}.png")
