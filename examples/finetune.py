"""Convert the example checkpoint, fine-tune it on ten classes, and serve what came out.

    python examples/finetune.py

You see the conversion; the network's answers for a picture of each new class, from the thousand
classes that it knows; the training, with the validation error after each epoch; and the answers of
the fine-tuned network, over HTTP both times. Then every held-out picture is asked and counted: 81
of 120 were right (68%) after two epochs of 24 pictures of each class, 30 updates in all. That shows
the way and no more: a network to be used wants more of both (`--images 200 --epochs 5`).

The ten classes are Fashion-MNIST's, where Debian's package `dataset-fashion-mnist` or a download
has it, else scikit-learn's digits. They are laid out as folders of PNG, as your own pictures would
be, so that the three commands, which are printed, are those for your data.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

sys.path[0] = str(Path(__file__).resolve().parents[1])

from examples.demo import (  # noqa: E402  needs the line above
    CHECKPOINT,
    ROOT,
    DemoError,
    classify,
    free_port,
    serving,
    wait_until_ready,
)
from models.data.small_images import Split, fashion_mnist  # noqa: E402
from models.terminal import at_least, escaped, reports_errors  # noqa: E402

SPLITS: tuple[Split, Split] = ("train", "val")
SEED = 0

# What the recipe to start from, made for small images and a network from scratch, has otherwise.
# Its input convention is replaced as a whole: `enet-224` is the one of 224 pixels whose
# augmentation, a random crop and mirroring, leaves a garment recognisable. BatchNorm, in training,
# undoes that its pixels have another mean and scale than those the network knew; with the network's
# own momentum of 0.01, the running statistics would take hundreds of updates to follow.
SETTINGS = (
    *("--architecture", "efficientnet_lite0", "--classes", "10"),
    *("--augmentation", "enet-224", "--aug-levels", "", "--evaluation", "enet-224"),
    *("--batch-size", "16", "--lr", "0.01", "--bn-momentum", "1:0.3"),
    *("--schedule", "rows until=1 factors=1,0.1"),
    *("--amp", "none", "--log-every", "10"),
)


class Picture(NamedTuple):
    """A held-out picture and the class it is of."""

    path: Path
    name: str


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the example."""
    given = _parser().parse_args(argv)
    out: Path = given.out.resolve()
    said = lay_out(out / "data", {"train": given.images, "val": max(given.images // 2, 1)})
    print(said)
    relume("convert", CHECKPOINT, "-o", out, "--name", "before", "--force")
    pictures = held_out(out / "data")
    first = [next(one for one in pictures if one.name == name) for name in classes(pictures)]
    before = answers(out / "before.onnx", first)
    start = ("--init", CHECKPOINT, "--data", out / "data", "-o", out / "run", "--force")
    relume("train", *start, "--epochs", given.epochs, *SETTINGS)
    model = out / "run" / "best.onnx"
    after = answers(model, pictures)
    print(table(first, before, [after[pictures.index(one)] for one in first]))
    right = sum(answer == one.name for answer, one in zip(after, pictures, strict=True))
    print(
        f"\n{right} of {len(pictures)} held-out pictures right ({right / len(pictures):.0%}); "
        "guessing gives 10%\n"
        f"  relume serve {model}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Convert, fine-tune on ten classes, and serve.")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        default=ROOT / "artifacts" / "finetune",
        help="folder of everything that is written (default: artifacts/finetune)",
    )
    parser.add_argument(
        "--images",
        type=at_least(1),
        default=24,
        metavar="N",
        help="to train on, of each class; half as many are held out (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=at_least(1), default=2, metavar="N", help="default: %(default)s"
    )
    return parser


def lay_out(folder: Path, images: dict[Split, int]) -> str:
    """Write so many pictures of each class as `SPLIT/CLASS/NUMBER.png`; say of what data set."""
    said = ""
    for split in SPLITS:
        samples, said = fashion_mnist(split)
        draw = np.random.default_rng(SEED)
        for label, name in enumerate(samples.classes):
            target = folder / split / name.replace("/", " or ")
            target.mkdir(parents=True, exist_ok=True)
            for old in target.glob("*.png"):  # of an earlier run with more of them
                old.unlink()
            there = np.flatnonzero(samples.labels == label)
            for index in draw.permutation(there)[: images[split]].tolist():
                Image.fromarray(np.asarray(samples.read(index))).save(target / f"{index}.png")
    return said


def held_out(data: Path) -> list[Picture]:
    """Return the pictures to validate with, in the order of their classes."""
    return [Picture(path, path.parent.name) for path in sorted(data.glob("val/*/*.png"))]


def classes(pictures: Sequence[Picture]) -> list[str]:
    """Return the names of their classes, each once, in order."""
    return list(dict.fromkeys(one.name for one in pictures))


def relume(*arguments: object) -> None:
    """Show a command and run it.

    Raises:
        DemoError: It failed; it has said why.
    """
    texts = [str(one) for one in arguments]
    shown = [repr(one) if not one or " " in one else one for one in texts]
    print(f"\n$ relume {escaped(' '.join(shown))}", flush=True)
    done = subprocess.run([sys.executable, "-m", "relume", *texts], cwd=ROOT, check=False)
    if done.returncode:
        raise DemoError(f"relume {texts[0]} ended with status {done.returncode}")


def answers(model: Path, pictures: Sequence[Picture]) -> list[str]:
    """Serve a model, and return what it says of each picture."""
    port = free_port(0)
    with serving(model, port) as server:
        wait_until_ready(server, port)
        return [classify(one.path, port).classes[0][0] for one in pictures]


def table(pictures: Sequence[Picture], before: Sequence[str], after: Sequence[str]) -> str:
    """Return a line for each picture: what it is, and both answers."""
    rows = [("a picture of", "before", "after")]
    names = (one.name for one in pictures)
    rows += zip(names, (_short(one) for one in before), after, strict=True)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n" + "\n".join(f"  {line.rstrip()}" for line in lines)


def _short(label: str) -> str:
    """Return the first of a class's names, of which ImageNet has several."""
    return label.partition(",")[0]


if __name__ == "__main__":
    sys.exit(main())
