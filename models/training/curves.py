"""Training curves: for the terminal in characters, for people as PNG or SVG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.errors import DeviceError
from models.files import writing

Points = tuple[tuple[float, float], ...]
WIDTH, HEIGHT = 64, 12
MARKS = "o+x*#%@&"


class Curve(NamedTuple):
    """A run's errors in percent by epoch, from 1."""

    name: str
    train: Points
    val: Points


def drawn(series: dict[str, Points], *, logarithmic: bool = False) -> str:
    """Return lines of characters that show series of points, each with its own mark.

    Points that are not finite are left out.
    """
    points = [point for given in series.values() for point in given if math.isfinite(point[1])]
    if logarithmic:
        points = [point for point in points if point[1] > 0]
    if not points:
        return "nothing to draw\n"
    scale = math.log10 if logarithmic else float
    low, high = (pick(scale(y) for _, y in points) for pick in (min, max))
    left, right = (pick(x for x, _ in points) for pick in (min, max))
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for mark, given in zip(MARKS, series.values(), strict=False):
        for x, y in given:
            if (x, y) in points:
                column = round((WIDTH - 1) * (x - left) / ((right - left) or 1))
                row = round((HEIGHT - 1) * (high - scale(y)) / ((high - low) or 1))
                grid[row][column] = mark
    ends = {0: 10**high if logarithmic else high, HEIGHT - 1: 10**low if logarithmic else low}
    lines = [
        f"{f'{ends[row]:.4g}' if row in ends else '':>9} |{''.join(cells).rstrip()}"
        for row, cells in enumerate(grid)
    ]
    axis = f"{left:<{WIDTH // 2}g}{right:>{WIDTH - WIDTH // 2}g}"
    keys = "   ".join(f"{mark} {name}" for mark, name in zip(MARKS, series, strict=False))
    return "\n".join(
        [*lines, f"{'':>9} +{'-' * WIDTH}", f"{'':>10} {axis}", f"{'':>10} {keys}", ""]
    )


def save_picture(path: Path, curves: Sequence[Curve], *, title: str = "") -> None:
    """Write a PNG, SVG or PDF: training dashed, validation whole, a colour for each run.

    Raises:
        DeviceError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise DeviceError(f"{path}: matplotlib draws it: pip install matplotlib") from error
    matplotlib.use("Agg")  # draws into files alone
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for index, curve in enumerate(curves):
        for points, style, kind in ((curve.train, "--", "train"), (curve.val, "-", "val")):
            if points:
                x, y = zip(*points, strict=True)
                label = f"{curve.name} {kind}"
                marker = "." if len(points) < 30 else None
                axes.plot(x, y, style, color=f"C{index % 10}", label=label, marker=marker)
    axes.set(xlabel="epoch", ylabel="top-1 error, %", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    with writing() as files:
        figure.savefig(files.new(path), format=path.suffix[1:], dpi=120)
