"""Take the README's picture of the page: `python examples/page.py -o docs/page.png`.

It converts the example network where that has not been done, serves it, gives two example pictures
to the page in a Chromium, and writes what is seen once both are answered. Needs playwright, and a
Chromium that is on the path or that `RELUME_CHROMIUM` names.
"""

import argparse
import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

sys.path[0] = str(Path(__file__).resolve().parents[1])

from examples import demo  # noqa: E402  needs the line above
from models.terminal import reports_errors  # noqa: E402

PICTURES = ("cat.jpg", "coffee.jpg")
WIDTH, HEIGHT = 1180, 760
SHARPNESS = 1.5  # pixels of the picture for one of the page
COLOURS = 256  # enough for two photographs and text, and a third of the bytes


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Take a picture of the page.")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the .png to write")
    parser.add_argument("--artifacts", type=Path, default=demo.ROOT / "artifacts")
    given = parser.parse_args(argv)
    port = demo.free_port(0)
    model = demo.convert(demo.CHECKPOINT, given.artifacts.resolve())
    with demo.serving(model, port) as server:
        demo.wait_until_ready(server, port)
        taken = picture(f"http://{demo.HOST}:{port}")
    with Image.open(io.BytesIO(taken)) as image:
        image.convert("RGB").quantize(COLOURS).save(given.out, optimize=True)
    return 0


def picture(address: str) -> bytes:
    """Return the page with both pictures answered, as a PNG."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("RELUME_CHROMIUM") or shutil.which("chromium")
    files = [demo.CHECKPOINT.parent / name for name in PICTURES]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=SHARPNESS,
            color_scheme="light",
        )
        page.goto(address)
        page.set_input_files("#file", files)
        page.get_by_text(f"{len(files)} done.").wait_for()
        taken: bytes = page.screenshot()
        browser.close()
    return taken


if __name__ == "__main__":
    sys.exit(main())
