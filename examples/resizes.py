"""Show what the resize alone changes: the pictures and the table of docs/preprocessing.md.

    python examples/resizes.py IMAGE --model efficientnet_lite0.onnx -o docs/resizes.png

Every resize makes the network's crop of the same photograph, everything else being the network's
own. The picture has a column for each: the crop, a part of it enlarged, and how far it is from the
network's own resize, eight times as strong around grey. The table goes to stdout.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path[0] = str(Path(__file__).resolve().parents[1])

from models.decoding import Pixels, decode  # noqa: E402  needs the line above
from models.image_network import ImageNetwork  # noqa: E402
from models.postprocess import top_k  # noqa: E402
from models.preprocess import preprocess  # noqa: E402
from models.session import Session  # noqa: E402
from models.spec import InputSpec, Resample  # noqa: E402

RESAMPLES: tuple[Resample, ...] = get_args(Resample)
SHOWN: tuple[Resample, ...] = (
    "torch7-bicubic",
    "torch7-bilinear",
    "opencv-bilinear",
    "pillow-bicubic",
)
ENLARGED = 4  # times, so that a pixel can be seen
STRONGER = 8  # times: most differences are a few of 255 levels
GAP, TITLE = 8, 28  # pixels between and above the pictures


def main() -> int:
    """Write the picture and print the table."""
    parser = argparse.ArgumentParser(description="Show what the resize alone changes.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="an .onnx of relume")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the .png to write")
    given = parser.parse_args()
    network = ImageNetwork.of_session(Session(given.model))
    pixels = decode(given.image.read_bytes())
    shown = {name: crop(pixels, replace(network.input, resample=name)) for name in RESAMPLES}
    picture({name: shown[name] for name in SHOWN}, shown[network.input.resample]).save(given.out)
    print(table(pixels, network))
    return 0


def crop(pixels: Pixels, spec: InputSpec) -> Pixels:
    """Return what the network sees, as bytes."""
    plain = replace(spec, scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), order="RGB")
    levels = preprocess(pixels, plain).round().clip(0, 255)  # Torch7's overshoot is not shown
    return levels.astype(np.uint8).transpose(1, 2, 0)


def picture(crops: dict[str, Pixels], own: Pixels) -> Image.Image:
    """Return a column for each crop: itself, its middle enlarged, its difference from `own`."""
    height, width, _ = own.shape
    sheet = Image.new(
        "RGB", (len(crops) * (width + GAP) - GAP, TITLE + 3 * (height + GAP) - GAP), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, (name, seen) in enumerate(crops.items()):
        left = column * (width + GAP)
        draw.text((left, 4), name, "black", font)
        difference = (seen.astype(int) - own) * STRONGER + 128
        parts = (seen, _middle(seen), difference.clip(0, 255).astype(np.uint8))
        for row, part in enumerate(parts):
            sheet.paste(Image.fromarray(part), (left, TITLE + row * (height + GAP)))
    return sheet


def _middle(seen: Pixels) -> Pixels:
    height, width, _ = seen.shape
    rows, columns = height // ENLARGED, width // ENLARGED
    top, left = (height - rows) // 2, (width - columns) // 2
    part = seen[top : top + rows, left : left + columns]
    return part.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def table(pixels: Pixels, network: ImageNetwork) -> str:
    """Return the five best classes that each resize leads to, as Markdown."""
    batch = np.stack(
        [preprocess(pixels, replace(network.input, resample=name)) for name in RESAMPLES]
    )
    lines = ["| resize | 1 | 2 | 3 | 4 | 5 |", "|---|---|---|---|---|---|"]
    for name, row in zip(RESAMPLES, network.probabilities(batch), strict=True):
        best = top_k(row, network.spec.labels, 5)
        cells = [f"{one.label.partition(',')[0]} {one.probability:.1%}" for one in best]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
