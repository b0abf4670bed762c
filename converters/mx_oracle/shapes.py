"""Definitions of shapes, parts and reductions (src/operator/tensor/matrix_op-inl.h and others)."""

import math

import numpy as np

from converters.mx_oracle.interpreter import Array, Node, defines


@defines("Flatten", "flatten")
def flatten(node: Node) -> Array:
    """All but the first dimension as one."""
    return node.x.reshape(len(node.x), -1)


@defines("Reshape", "reshape")
def reshape(node: Node) -> Array:
    """By codes: 0 this size, -1 the rest, -2 all further, -3 two as one, -4 one as two."""
    x, codes = node.x, node.numbers("shape")
    if not codes:
        target = node.numbers("target_shape")
        first = [len(x)] if node.on("keep_highest", default=False) else []
        return x.reshape(first + [one or -1 for one in target[len(first) :]])
    if not node.on("reverse", default=False):
        return x.reshape(_decoded(node, codes, list(x.shape)))
    return x.reshape(_decoded(node, codes[::-1], list(x.shape[::-1]))[::-1])


def _decoded(node: Node, codes: list[int], sizes: list[int]) -> list[int]:
    made: list[int] = []
    at = place = 0
    while at < len(codes):
        code = codes[at]
        if code == -1 and at != len(made):
            raise node.refused("what is left is filled in elsewhere")
        at += 1
        if code == -2:
            made += sizes[place:]
            place = len(sizes)
        elif code == -3:
            made.append(sizes[place] * sizes[place + 1])
            place += 2
        elif code == -4:
            first, second = codes[at : at + 2]
            made.append(sizes[place] // second if first == -1 else first)
            made.append(sizes[place] // first if second == -1 else second)
            at, place = at + 2, place + 1
        else:
            made.append(sizes[place] if code == 0 else code)
            place += 1
    return made


@defines("transpose")
def transpose(node: Node) -> Array:
    """Dimensions in another order, without one in reverse."""
    return node.x.transpose(node.numbers("axes") or None)


@defines("SwapAxis", "swapaxes")
def swap_axis(node: Node) -> Array:
    """Two dimensions change places."""
    return node.x.swapaxes(node.integer("dim1"), node.integer("dim2"))


@defines("expand_dims")
def expand_dims(node: Node) -> Array:
    """One more dimension."""
    return np.expand_dims(node.x, node.integer("axis"))


@defines("squeeze")
def squeeze(node: Node) -> Array:
    """Dimensions of size 1 less, but for a last one."""
    return np.atleast_1d(node.x.squeeze(tuple(node.numbers("axis")) or None))


@defines("Concat", "concat")
def concat(node: Node) -> Array:
    """One after the other."""
    return np.concatenate(node.inputs, node.integer("dim", 1))


@defines("slice_axis")
def slice_axis(node: Node) -> Array:
    """A part of one dimension."""
    (begin,), (end,) = node.parts("begin"), node.parts("end")
    index = [slice(None)] * node.x.ndim
    index[node.integer("axis")] = slice(begin, end)
    return node.x[tuple(index)]


@defines("slice", "crop")
def slice_(node: Node) -> Array:
    """A part of the first dimensions."""
    if set(node.parts("step")) - {None, 1}:
        raise node.refused("steps")
    return node.x[tuple(map(slice, node.parts("begin"), node.parts("end")))]


@defines("SliceChannel", "split")
def slice_channel(node: Node) -> list[Array]:
    """Equal parts, without their dimension if it is 1 and shall go."""
    axis = node.integer("axis", 1)
    parts = np.split(node.x, node.integer("num_outputs"), axis)
    if node.on("squeeze_axis", default=False):
        return [part.squeeze(axis) for part in parts]
    return parts


@defines("Crop")
def crop(node: Node) -> Array:
    """A part of an image, from a place or from the middle."""
    height, width = node.inputs[1].shape[2:] if len(node.inputs) > 1 else node.numbers("h_w")
    top, left = node.numbers("offset", [0, 0])
    if node.on("center_crop", default=False):
        top, left = (node.x.shape[2] - height) // 2, (node.x.shape[3] - width) // 2
    return node.x[:, :, top : top + height, left : left + width]


@defines("Pad", "pad")
def pad(node: Node) -> Array:
    """A border: one number, the edge, or what lies behind it."""
    widths = node.numbers("pad_width")
    borders = list(zip(widths[::2], widths[1::2], strict=True))
    if node.text("mode") == "constant":
        return np.pad(node.x, borders, constant_values=node.number("constant_value"))
    return np.pad(node.x, borders, "edge" if node.text("mode") == "edge" else "reflect")


@defines("sum", "sum_axis", "mean", "max", "max_axis", "min", "min_axis")
def reduction(node: Node) -> Array:
    """Sum, mean, largest or smallest over some dimensions, or over all others; there is always one.

    A mean is the sum by how many numbers went into it.
    """
    every = set(range(node.x.ndim))
    axes = {axis % node.x.ndim for axis in node.numbers("axis")}
    over = tuple(every - axes if node.on("exclude", default=False) else axes or every)
    kind = node.op.removesuffix("_axis")
    fold = {"max": np.max, "min": np.min}.get(kind, np.sum)
    found = np.asarray(fold(node.x, axis=over, keepdims=node.on("keepdims", default=False)))
    found = found.reshape(1) if not found.ndim else found
    return found / math.prod(node.x.shape[axis] for axis in over) if kind == "mean" else found
