"""Layers that bring their input to a scale: batch statistics, neighbours, sums of exponentials.

Source: the Lua file of the class in torch/nn, lib/THNN/generic/{BatchNormalization,SoftMax,
LogSoftMax}.c; BatchNormalization.lua, SpatialSoftMax.lua and SpatialCrossMapLRN.lua in
soumith/cudnn.torch.
"""

import numpy as np

from converters.t7_oracle.interpreter import Layer, on_tensor
from converters.t7_oracle.tensor import Array, Tensor, Value

_RANKS = {
    "nn.BatchNormalization": 2,
    "nn.SpatialBatchNormalization": 4,
    "cudnn.BatchNormalization": 2,
    "cudnn.SpatialBatchNormalization": 4,
}


@on_tensor(*_RANKS)
def batch_normalization(layer: Layer, x: Tensor) -> Value:
    """Every plane by its running mean and variance, then scaled and shifted.

    Version 1 kept `running_std`, which is 1 / sqrt(variance + eps). In evaluation mode nn takes one
    example without a batch dimension and gives it one (`makeBatch` changes the input as well).
    """
    rank = _RANKS[layer.name]
    layer.ranked(x, rank, *([rank - 1] if layer.name.startswith("nn.") else []))
    x = layer.contiguous(x)
    if x.rank < rank:
        x.set(x.insert(0, 1, 1))
    mean = layer.weight("running_mean")
    if layer.maybe("running_std") is not None and not layer.has("running_var"):
        scale = layer.weight("running_std")
    else:
        scale = 1 / np.sqrt(layer.weight("running_var") + layer.number("eps"))
    vectors = [mean, scale, layer.maybe("weight"), layer.maybe("bias")]
    if any(one is not None and one.size != x.shape[1] for one in vectors):
        raise layer.refused(f"normalises {mean.size} planes, its input has {x.shape[1]}")
    sizes = [1, -1] + [1] * (rank - 2)
    values = (x.array - mean.reshape(sizes)) * scale.reshape(sizes)
    if vectors[2] is not None:
        values = values * vectors[2].reshape(sizes)
    if vectors[3] is not None:
        values = values + vectors[3].reshape(sizes)
    return layer.give(values)


@on_tensor(
    "nn.SpatialCrossMapLRN", "cudnn.SpatialCrossMapLRN", "inn.SpatialCrossResponseNormalization"
)
def cross_map_lrn(layer: Layer, x: Tensor) -> Value:
    """Divided by a power of the squares around it, across planes (SpatialCrossMapLRN.lua).

    cudnn's object has `K` for `k` if it is old.
    """
    size, cudnn = layer.whole("size", least=1), layer.name.startswith("cudnn.")
    if size % 2 == 0:
        raise layer.refused(f"a window of {size} planes has no centre")
    squares = np.moveaxis(layer.ranked(x, 3, 4).array ** 2, -3, 0)
    half = size // 2
    sums = np.zeros_like(squares)
    for plane in range(len(squares)):
        sums[plane] = squares[max(plane - half, 0) : plane + half + 1].sum(0)
    k = layer.number("K" if cudnn and layer.has("K") else "k")
    scale = np.moveaxis(sums, 0, -3) * (layer.number("alpha") / size) + k
    return layer.give(x.array * scale ** -layer.number("beta"))


@on_tensor("nn.Normalize")
def normalize(layer: Layer, x: Tensor) -> Value:
    """Every row divided by its p-norm (Normalize.lua)."""
    rows = np.atleast_2d(layer.ranked(x, 1, 2).array)
    p, eps = layer.number("p"), layer.number("eps")
    if p == np.inf:
        norm = np.abs(rows).max(1) + eps
    else:
        powers = np.abs(rows) ** p if p % 2 else rows**p
        norm = (powers.sum(1) + eps) ** (1 / p)
    return layer.output.set(layer.buffer("_output").write(rows / norm[:, None]).view(x.shape))


def _soft_max(values: Array, axes: tuple[int, ...], *, log: bool) -> Array:
    shifted: Array = values - values.max(axes, keepdims=True)
    powers: Array = np.exp(shifted)
    sums: Array = powers.sum(axes, keepdims=True)
    return shifted - np.log(sums) if log else powers / sums


def _over_planes(layer: Layer, x: Tensor) -> tuple[int, ...]:
    """Return the axis of a vector, of rows, of an image's planes, or of a batch of images'."""
    return (0,) if layer.ranked(x, 1, 2, 3, 4).rank % 2 else (1,)


@on_tensor("nn.SoftMax", "nn.SpatialSoftMax", "nn.SoftMin")
def soft_max(layer: Layer, x: Tensor) -> Value:
    """Exponentials that sum to 1; SoftMin turns the sign first (SoftMax.c, SoftMin.lua)."""
    values = -x.array if layer.name == "nn.SoftMin" else x.array
    return layer.give(_soft_max(values, _over_planes(layer, x), log=False))


@on_tensor("nn.LogSoftMax", "nn.SpatialLogSoftMax")
def log_soft_max(layer: Layer, x: Tensor) -> Value:
    """The logarithms of the above (LogSoftMax.c)."""
    return layer.give(_soft_max(x.array, _over_planes(layer, x), log=True))


@on_tensor("cudnn.SoftMax", "cudnn.LogSoftMax", "cudnn.SpatialSoftMax", "cudnn.SpatialLogSoftMax")
def cudnn_soft_max(layer: Layer, x: Tensor) -> Value:
    """Over the planes at every pixel, or over planes and pixels at once, by `mode`.

    SoftMax and LogSoftMax have the latter mode whatever is stored; the logarithm is an `algorithm`.
    """
    axes = _over_planes(layer, x)
    mode, algorithm = layer.get("mode"), layer.get("algorithm")
    instance = layer.name in ("cudnn.SoftMax", "cudnn.LogSoftMax")
    if (instance or mode == "CUDNN_SOFTMAX_MODE_INSTANCE") and x.rank > 2:
        axes = (-3, -2, -1)
    log = layer.name == "cudnn.LogSoftMax" or algorithm == "CUDNN_SOFTMAX_LOG"
    return layer.give(_soft_max(x.array, axes, log=log))


@on_tensor("nn.SpatialSubtractiveNormalization")
def subtractive_normalization(layer: Layer, x: Tensor) -> Value:
    """Minus the weighted mean around each pixel (SpatialSubtractiveNormalization.lua)."""
    coefficients = _coefficients(layer, x)
    sums = layer.tensor(layer.inner("meanestimator", x)).elements(x.shape)
    return layer.give(x.array - sums / coefficients)


@on_tensor("nn.SpatialDivisiveNormalization")
def divisive_normalization(layer: Layer, x: Tensor) -> Value:
    """Divided by the weighted deviation around each pixel (SpatialDivisiveNormalization.lua)."""
    deviations = layer.tensor(layer.inner("stdestimator", x)).elements(x.shape)
    adjusted = Tensor.of(deviations / _coefficients(layer, x))
    return layer.give(x.array / layer.tensor(layer.inner("thresholder", adjusted)).array)


def _coefficients(layer: Layer, x: Tensor) -> Array:
    """Return how much of the kernel lies inside the image, pixel by pixel.

    The estimator repeats its one plane along a new dimension: numbers agree, shapes do not.
    """
    ones = Tensor.of(np.ones(layer.ranked(x, 3, 4).shape[-3:]))
    return layer.tensor(layer.inner("meanestimator", ones)).elements(ones.shape).copy()


@on_tensor("nn.SpatialContrastiveNormalization")
def contrastive_normalization(layer: Layer, x: Tensor) -> Value:
    """The two above, one after the other (SpatialContrastiveNormalization.lua)."""
    return layer.inner("normalizer", x)
