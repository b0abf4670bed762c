"""Definitions of normalisation (src/operator/nn/batch_norm.cc, lrn-inl.h and their siblings)."""

import numpy as np

from converters.mx_oracle.interpreter import Array, Node, defines


@defines("BatchNorm", "BatchNorm_v1", "CuDNNBatchNorm", "_contrib_SyncBatchNorm")
def batch_norm(node: Node) -> Array:
    """`(x - mean) / sqrt(var + eps) * gamma + beta`, gamma 1 where it is fixed, as by default."""
    x, gamma, beta, mean, variance = node.inputs
    if node.on("fix_gamma", default=True):
        gamma = np.ones_like(gamma)
    shape = [1] * x.ndim
    shape[node.integer("axis", 1)] = -1
    scale = gamma / np.sqrt(variance + node.number("eps", 1e-3))
    return (x - mean.reshape(shape)) * scale.reshape(shape) + beta.reshape(shape)


def _standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    mean = x.mean(axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axes, keepdims=True)
    found: Array = (x - mean) / np.sqrt(variance + eps)
    return found


@defines("InstanceNorm")
def instance_norm(node: Node) -> Array:
    """Each map of each sample by itself."""
    x, gamma, beta = node.inputs
    shape = (-1, *[1] * (x.ndim - 2))
    found = _standard(x, tuple(range(2, x.ndim)), node.number("eps", 1e-3))
    return found * gamma.reshape(shape) + beta.reshape(shape)


@defines("GroupNorm")
def group_norm(node: Node) -> Array:
    """Each group of maps of each sample by itself, then a scale for each group."""
    x, gamma, beta = node.inputs
    grouped = x.reshape(len(x), node.integer("num_groups", 1), -1)
    found = _standard(grouped, (2,), node.number("eps", 1e-5))
    return (found * gamma.reshape(-1, 1) + beta.reshape(-1, 1)).reshape(x.shape)


@defines("LayerNorm")
def layer_norm(node: Node) -> Array:
    """Along one dimension."""
    x, gamma, beta = node.inputs
    axis = node.integer("axis", -1)
    shape = [1] * x.ndim
    shape[axis] = -1
    found = _standard(x, (axis,), node.number("eps", 1e-5))
    return found * gamma.reshape(shape) + beta.reshape(shape)


@defines("LRN")
def local_response_norm(node: Node) -> Array:
    """`x * (knorm + alpha / n * sum of n neighbours' squares) ^ -beta`, n maps around each."""
    size, maps = node.integer("nsize"), node.x.shape[1]
    if size % 2 == 0:
        raise node.refused("a window without a centre")
    squares = node.x**2
    near = [squares[:, max(0, one - size // 2) : one + size // 2 + 1].sum(1) for one in range(maps)]
    alpha = node.number("alpha", 1e-4) / size
    norm = node.number("knorm", 2) + alpha * np.stack(near, 1)
    found: Array = node.x * norm ** -node.number("beta", 0.75)
    return found


@defines("L2Normalization")
def l2_normalization(node: Node) -> Array:
    """By the root of the sum of squares and eps: of a sample, across its maps, or of each map."""
    x = node.x
    every = tuple(range(x.ndim))
    axes = {"instance": every[1:], "channel": (1,), "spatial": every[2:]}
    over = axes[node.text("mode", "instance")]
    found: Array = x / np.sqrt((x**2).sum(over, keepdims=True) + node.number("eps", 1e-10))
    return found
