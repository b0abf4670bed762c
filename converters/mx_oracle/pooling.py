"""Definitions of pooling, window by window (src/operator/nn/pool.h, pooling_v1-inl.h)."""

import math

import numpy as np

from converters.mx_oracle.interpreter import Array, Node, defines


@defines("Pooling", "Pooling_v1")
def pooling(node: Node) -> Array:
    """The largest, the mean, the sum, or the root of the sum of squares, of each window.

    Until 0.9.5 borders were zeros like any number, and a mean was by the whole window.
    """
    x = node.x
    if x.ndim != 4:
        raise node.refused("no images")
    first = node.op == "Pooling_v1" or node.version < 905
    height, width = x.shape[2:]
    kernel, stride = node.numbers("kernel", [0, 0]), node.numbers("stride", [1, 1])
    pad = node.numbers("pad", [0, 0])
    rounding = math.ceil if node.text("pooling_convention", "valid") == "full" else math.floor
    if node.on("global_pool", default=False):
        kernel, stride, pad = [height, width], [1, 1], [0, 0]
    rows, columns = (
        1 + rounding((size + 2 * edge - window) / step)
        for size, edge, window, step in zip((height, width), pad, kernel, stride, strict=True)
    )
    if first:
        x = np.pad(x, [(0, 0), (0, 0), *((one, one) for one in pad)])
        (height, width), pad = x.shape[2:], [0, 0]
    out = np.zeros((*x.shape[:2], rows, columns))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride[0] - pad[0], column * stride[1] - pad[1]
            # the divisor counts padding in front and behind, but nothing beyond it
            area = (min(top + kernel[0], height + pad[0]) - top) * (
                min(left + kernel[1], width + pad[1]) - left
            )
            area = math.prod(kernel) if first else area
            part = x[:, :, max(top, 0) : top + kernel[0], max(left, 0) : left + kernel[1]]
            out[:, :, row, column] = _folded(node, part, area)
    return out


def _folded(node: Node, part: Array, area: int) -> Array:
    kind = node.text("pool_type", "max")
    if not part.size and (node.op == "Pooling" or kind == "max"):
        raise node.refused("a window with nothing in it")
    found: Array
    if kind == "max":
        found = part.max((2, 3))
    elif kind == "avg":
        counted = node.on("count_include_pad", default=True)
        found = part.sum((2, 3)) / (area if counted else part[0, 0].size)
    else:
        power = 1 if kind == "sum" else node.integer("p_value")
        if power > 2:
            raise node.refused("roots of sums that may be below 0")
        found = (part**power).sum((2, 3)) ** (1 / power)
    return found


@defines("_contrib_AdaptiveAvgPooling2D")
def adaptive_avg_pooling(node: Node) -> Array:
    """The means of windows from `floor(i * n / count)` to `ceil((i + 1) * n / count)`."""
    size = node.numbers("output_size", [1])
    rows, columns = size if len(size) == 2 else size * 2
    height, width = node.x.shape[2:]
    out = np.zeros((*node.x.shape[:2], rows, columns))
    for row in range(rows):
        for column in range(columns):
            part = node.x[
                :,
                :,
                row * height // rows : -(-(row + 1) * height // rows),
                column * width // columns : -(-(column + 1) * width // columns),
            ]
            out[:, :, row, column] = part.mean((2, 3))
    return out
