"""Definitions of operators with weights (src/operator/nn/convolution-inl.h and its siblings)."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from converters.mx_oracle.interpreter import Array, Node, defines


@defines("Convolution", "Convolution_v1")
def convolution(node: Node) -> Array:
    """`out[o, p] = sum over c, k of w[o, c, k] * x[c, p * stride + k * dilate - pad] + b[o]`."""
    x, w = node.inputs[:2]
    rank = x.ndim - 2
    if node.text("layout", "None") not in ("None", "NCW", "NCHW"):
        raise node.refused("channels last")
    stride, dilate = (node.numbers(key, [1] * rank) for key in ("stride", "dilate"))
    pad = node.numbers("pad", [0] * rank)
    if w.shape[0] != node.integer("num_filter") or list(w.shape[2:]) != node.numbers("kernel"):
        raise node.refused(f"a weight of {w.shape}")
    x = np.pad(x, [(0, 0), (0, 0), *((one, one) for one in pad)])
    out = _convolved(x, w, stride, dilate, node.integer("num_group", 1))
    return out if node.on("no_bias", default=False) else out + _by_channel(node.inputs[2], rank)


def _convolved(
    x: Array, w: Array, stride: Sequence[int], dilate: Sequence[int], groups: int
) -> Array:
    rank = len(stride)
    spans = [(size - 1) * step + 1 for size, step in zip(w.shape[2:], dilate, strict=True)]
    seen = sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    every = slice(None)
    steps = [every, every, *(slice(None, None, one) for one in (*stride, *dilate))]
    seen = seen[tuple(steps)]
    axes = [1, *range(2 + rank, 2 + 2 * rank)]
    made = []
    for part, weight in zip(np.split(seen, groups, 1), np.split(w, groups, 0), strict=True):
        made.append(np.tensordot(part, weight, (axes, list(range(1, 2 + rank)))))
    return np.moveaxis(np.concatenate(made, -1), -1, 1)


@defines("Deconvolution")
def deconvolution(node: Node) -> Array:
    """The transpose of convolution: every number spread over the window that would read it.

    With `target_shape`, what is cut off all around follows from it: the first half rounded up.
    """
    x, w = node.inputs[:2]
    if x.ndim != 4:
        raise node.refused("no images")
    stride, dilate = (node.numbers(key, [1, 1]) for key in ("stride", "dilate"))
    pad, adjust = (node.numbers(key, [0, 0]) for key in ("pad", "adj"))
    out = _spread(x, w, stride, dilate, node.integer("num_group", 1))
    whole = out.shape[2:]
    target = node.numbers("target_shape", [0, 0])
    if any(target):
        pad = [-(-(full - wanted) // 2) for full, wanted in zip(whole, target, strict=True)]
        adjust = [(full - wanted) % 2 for full, wanted in zip(whole, target, strict=True)]
    room = [(0, 0), (0, 0), *((0, one) for one in adjust)]
    out = np.pad(out, room)
    ends = [out.shape[2 + i] - pad[i] for i in range(2)]
    out = out[:, :, pad[0] : ends[0], pad[1] : ends[1]]
    return out if node.on("no_bias", default=True) else out + _by_channel(node.inputs[2], 2)


def _spread(x: Array, w: Array, stride: Sequence[int], dilate: Sequence[int], groups: int) -> Array:
    """Return every number times the kernel at its place, before anything is cut off."""
    whole = [
        stride[i] * (x.shape[2 + i] - 1) + dilate[i] * (w.shape[2 + i] - 1) + 1 for i in range(2)
    ]
    out = np.zeros((len(x), groups * w.shape[1], *whole))
    parts = np.split(out, groups, 1)  # views
    for part, given, weight in zip(
        parts, np.split(x, groups, 1), np.split(w, groups, 0), strict=True
    ):
        for row, column in product(*map(range, w.shape[2:])):
            top, left = row * dilate[0], column * dilate[1]
            part[
                :,
                :,
                top : top + stride[0] * (x.shape[2] - 1) + 1 : stride[0],
                left : left + stride[1] * (x.shape[3] - 1) + 1 : stride[1],
            ] += np.einsum("nchw,co->nohw", given, weight[:, :, row, column])
    return out


@defines("FullyConnected")
def fully_connected(node: Node) -> Array:
    """`x W' + b`; with `flatten`, which is the default, of all but the first dimension."""
    x, w = node.inputs[:2]
    if node.on("flatten", default=True):
        x = x.reshape(len(x), -1)
    out = x @ w.T
    return out if node.on("no_bias", default=False) else out + node.inputs[2].ravel()


@defines("UpSampling")
def upsampling(node: Node) -> Array:
    """Each pixel `scale` by `scale` times; or spread by a kernel, one for each channel."""
    scale = node.integer("scale")
    if node.text("sample_type") == "nearest":
        if len(node.inputs) > 1:
            raise node.refused("several inputs")
        return node.x.repeat(scale, 2).repeat(scale, 3)
    x, w = node.inputs
    pad = math.ceil((scale - 1) / 2)
    out = _spread(x, w, [scale] * 2, [1, 1], x.shape[1])
    return out[:, :, pad : out.shape[2] - pad, pad : out.shape[3] - pad]


def _by_channel(bias: Array, rank: int) -> Array:
    return bias.reshape(-1, *[1] * rank)
