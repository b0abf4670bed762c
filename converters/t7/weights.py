"""Rules of layers with weights: products, convolutions, batch normalisation, PReLU."""

import math

import numpy as np

from converters.t7.images import pair, spatial
from converters.t7.memory import Handle
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer
from converters.t7.shapes import gapless, singletons
from models.graph import MAX_ELEMENTS, Array, Shape


@layer("nn.Linear")
def linear(run: Run, module: Module, x: Tree) -> Tree:
    """A matrix product, for one vector or a batch of them (`nn/Linear.lua`)."""
    given = run.tensor(module, x)
    if len(given.shape) > 2:
        raise module.unsupported(
            f"takes a vector or a matrix, its input has {len(given.shape)} dimensions"
        )
    weight, bias = module.tensor("weight"), module.optional("bias")
    if weight.ndim != 2:
        raise module.error("weight", weight.shape, "two dimensions")
    value = run.net.add(
        module.name,
        "Linear",
        run.read(given),
        tensors=_present(weight=weight, bias=bias),
        in_features=weight.shape[1],
        out_features=weight.shape[0],
        bias=bias is not None,
    )
    return run.fresh(module, value)


@layer(
    "nn.SpatialConvolution",
    "nn.SpatialConvolutionMM",
    "nn.SpatialDilatedConvolution",
    "cudnn.SpatialConvolution",
)
def spatial_convolution(run: Run, module: Module, x: Tree) -> Tree:
    """Convolution.

    Old nn files have one `padding` for both sides, which goes before `padW` and `padH`, or none of
    them, and a weight of two dimensions (`nn/SpatialConvolution.lua`, `backCompatibility`). Only
    cudnn has `groups`; those who wanted no bias set it to nil (`noBias`). The MM form has such a
    weight to the last (`nn/SpatialConvolutionMM.lua`).
    """
    planes = module.count("nOutputPlane"), module.count("nInputPlane")
    kernel_size, groups = pair(module, "k"), module.integer("groups", 1)
    weight, bias = module.tensor("weight"), module.optional("bias")
    shape = (planes[0], planes[1] // max(groups, 1), *kernel_size)
    if weight.ndim == 2 and weight.size == math.prod(shape):
        weight = weight.reshape(shape)
    return spatial(
        run,
        module,
        run.image(module, x),
        "Conv2d",
        tensors=_present(weight=weight, bias=bias),
        in_channels=planes[1],
        out_channels=planes[0],
        kernel_size=kernel_size,
        stride=pair(module, "d"),
        padding=_convolution_padding(module),
        dilation=(module.integer("dilationH", 1), module.integer("dilationW", 1)),
        groups=groups,
        bias=bias is not None,
    )


@layer("nn.SpatialDepthWiseConvolution")
def spatial_depthwise_convolution(run: Run, module: Module, x: Tree) -> Tree:
    """Every input plane with `nOutputPlane` filters of its own.

    The weight has the filters first and the planes second, the output the planes first
    (`THNN/SpatialDepthWiseConvolution.c`).
    """
    multiplier, planes = module.count("nOutputPlane"), module.count("nInputPlane")
    kernel_size = pair(module, "k")
    weight, bias = module.tensor("weight"), module.optional("bias")
    if weight.size == multiplier * planes * math.prod(kernel_size):
        by_plane = weight.reshape(multiplier, planes, 1, *kernel_size).swapaxes(0, 1)
        weight = by_plane.reshape(planes * multiplier, 1, *kernel_size)
    if bias is not None and bias.size == multiplier * planes:
        bias = bias.reshape(multiplier, planes).T.reshape(-1)
    return spatial(
        run,
        module,
        run.image(module, x),
        "Conv2d",
        tensors=_present(weight=weight, bias=bias),
        in_channels=planes,
        out_channels=planes * multiplier,
        kernel_size=kernel_size,
        stride=pair(module, "d"),
        padding=_convolution_padding(module),
        groups=planes,
        bias=bias is not None,
    )


@layer("nn.SpatialFullConvolution", "cudnn.SpatialFullConvolution")
def spatial_full_convolution(run: Run, module: Module, x: Tree) -> Tree:
    """Transposed convolution; a table `{x, like}` asks for the height and width of `like`.

    `adj` is the output padding, absent in old files (`nn/SpatialFullConvolution.lua`).
    """
    kernel_size, stride = pair(module, "k"), pair(module, "d")
    padding = module.integer("padH", 0), module.integer("padW", 0)
    adjust = module.integer("adjH", 0), module.integer("adjW", 0)
    if not isinstance(x, Handle) and module.source.class_name.startswith("nn."):
        if len(x) != 2:
            raise module.unsupported(
                f"takes a tensor or a table of 2, its input is one of {len(x)}"
            )
        x, like = (run.image(module, item) for item in x)
        adjust = (
            (like.shape[-2] + 2 * padding[0] - kernel_size[0]) % stride[0],
            (like.shape[-1] + 2 * padding[1] - kernel_size[1]) % stride[1],
        )
    bias = module.optional("bias")
    return spatial(
        run,
        module,
        run.image(module, x),
        "ConvTranspose2d",
        tensors=_present(weight=module.tensor("weight"), bias=bias),
        in_channels=module.integer("nInputPlane"),
        out_channels=module.integer("nOutputPlane"),
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        output_padding=adjust,
        bias=bias is not None,
    )


@layer(
    "nn.BatchNormalization",
    "nn.SpatialBatchNormalization",
    "cudnn.BatchNormalization",
    "cudnn.SpatialBatchNormalization",
)
def batch_normalization(run: Run, module: Module, x: Tree) -> Tree:
    """Batch normalisation by the running statistics.

    A sample without a batch dimension gets one and keeps it, and so does the very tensor that came
    in, for all who hold it (`nn/BatchNormalization.lua`, `makeBatch`). Files of 2015 have the
    inverse standard deviation in `running_std`, told by the field: `read` of the last version turns
    it into a variance.
    """
    given = run.tensor(module, x)
    rank, op = (4, "BatchNorm2d") if "Spatial" in module.source.class_name else (2, "BatchNorm1d")
    if len(given.shape) == rank - 1:
        given = gapless(run, module, given)
        view = singletons(run, given, given.unsqueezed(0), f"{module.name}_batch")
        given.set(view)
    value = run.read(given)
    mean, eps = module.tensor("running_mean"), module.number("eps", 1e-5)
    if module.has("running_std"):
        with np.errstate(divide="ignore"):  # verification finds what is not finite
            variance = module.tensor("running_std").astype(np.float64) ** -2.0 - eps
    else:
        variance = module.tensor("running_var")
    weight, bias = module.optional("weight"), module.optional("bias")
    affine = weight is not None or bias is not None
    if affine:
        weight = np.ones_like(mean) if weight is None else weight
        bias = np.zeros_like(mean) if bias is None else bias
    value = run.net.add(
        module.name,
        op,
        value,
        tensors=_present(weight=weight, bias=bias, running_mean=mean, running_var=variance),
        num_features=mean.size,
        eps=eps,
        momentum=module.number("momentum", 0.1),
        affine=affine,
    )
    return run.fresh(module, value)


@layer("nn.PReLU")
def prelu(run: Run, module: Module, x: Tree) -> Tree:
    """A learned slope below 0: one for all (`nOutputPlane` 0), or one for each plane.

    Planes are the second dimension, of a vector the only one (`THNN/PReLU.c`).
    """
    given, count = run.tensor(module, x), module.integer("nOutputPlane", 0) or 1
    value, attrs = run.read(given), {"num_parameters": count}
    tensors = {"weight": module.tensor("weight").reshape(-1)}
    alone = len(given.shape) == 1 and count > 1
    if alone:
        value = run.net.add(f"{module.name}_batch", "Reshape", value, shape=[1, -1])
    value = run.net.add(module.name, "PReLU", value, tensors=tensors, **attrs)
    if alone:
        value = run.net.add(f"{module.name}_single", "Reshape", value, shape=[-1])
    return run.fresh(module, value)


@layer("nn.Mul", "nn.CMul")
def learned_scale(run: Run, module: Module, x: Tree) -> Tree:
    """Times a learned number, or learned numbers that fit a sample or broadcast (`nn/CMul.lua`)."""
    given = run.tensor(module, x)
    weight = _spread(module, "weight", given.shape)
    value = run.net.add(
        module.name,
        "LearnedScale",
        run.read(given),
        tensors={"weight": weight},
        shape=weight.shape,
    )
    return run.fresh(module, value)


@layer("nn.Add", "nn.CAdd")
def learned_shift(run: Run, module: Module, x: Tree) -> Tree:
    """Plus a learned number, or learned numbers that fit a sample or broadcast (`nn/CAdd.lua`)."""
    given = run.tensor(module, x)
    bias = _spread(module, "bias", given.shape)
    value = run.net.add(
        module.name, "LearnedShift", run.read(given), tensors={"bias": bias}, shape=bias.shape
    )
    return run.fresh(module, value)


@layer("inn.ConstAffine")
def const_affine(run: Run, module: Module, x: Tree) -> Tree:
    """Times a number and plus another, for each plane (`inn/ConstAffine.lua`)."""
    given = run.tensor(module, x)
    rank = len(given.shape)
    if rank not in (2, 4):
        raise module.unsupported(f"takes 2 or 4 dimensions, its input has {rank}")
    scale, shift = (module.tensor(name).reshape(-1, *[1] * (rank - 2)) for name in ("a", "b"))
    value = run.net.add(
        f"{module.name}_scale",
        "LearnedScale",
        run.read(given),
        tensors={"weight": scale},
        shape=scale.shape,
    )
    value = run.net.add(
        module.name, "LearnedShift", value, tensors={"bias": shift}, shape=shift.shape
    )
    return run.write(module, given, value) if module.flag("inplace") else run.fresh(module, value)


def _spread(module: Module, field: str, shape: Shape) -> Array:
    """Return a tensor in a shape that broadcasts over `shape` as Torch7 does by element count."""
    array = module.tensor(field)
    fits = array.ndim == len(shape) and all(
        own in (1, size) for own, size in zip(array.shape, shape, strict=True)
    )
    if array.size == 1 or fits:
        return array
    if array.size == math.prod(shape[1:]):
        return array.reshape(shape[1:])
    if array.size == math.prod(shape):
        return array.reshape(shape)
    raise module.error(field, array.shape, f"numbers for {shape}, or for one sample of it")


@layer("nn.WeightNorm")
def weight_norm(run: Run, module: Module, x: Tree) -> Tree:
    """The module inside with the weight `g * v / |v|`, one norm for each output.

    The file has no weight, and one that it has is computed anew before use. 1e-4 is added under the
    root (`nn/WeightNorm.lua`, `updateWeight`: `10e-5`).
    """
    child = module.only_child()
    direction, length = _directions(module)
    rows = length * direction / np.sqrt((direction**2).sum(axis=1, keepdims=True) + 1e-4)
    shape = list(
        module.sizes("weightSize") if module.has("weightSize") else child.tensor("weight").shape
    )
    outputs = module.integer("outputDim", 1) - 1
    if not 0 <= outputs < len(shape) or min(shape) < 1 or rows.size != math.prod(shape):
        raise module.error("outputDim, weightSize", (outputs + 1, shape), f"{rows.size} numbers")
    front = (shape.pop(outputs), *shape)
    weight = np.moveaxis(rows.reshape(front), 0, outputs)
    for field in ("weight", "bias"):
        module.claim(field)
    child.claim("weight")
    output = run.forward(child.with_tensors(weight=weight.astype(np.float32)), x)
    return run.view(module, run.tensor(module, output))


@layer("nn.LinearWeightNorm")
def linear_weight_norm(run: Run, module: Module, x: Tree) -> Tree:
    """A Linear with the weight `g * v / |v|`, `|v|` at least `eps` (`nn/LinearWeightNorm.lua`)."""
    direction, length = _directions(module)
    norm = np.sqrt((direction**2).sum(axis=1, keepdims=True)).clip(module.number("eps", 1e-16))
    weight = length * direction / norm
    module.claim("weight")
    return linear(run, module.with_tensors(weight=weight.astype(np.float32)), x)


def _directions(module: Module) -> tuple[Array, Array]:
    """Return `v`, a row for each output, and `g` as a column."""
    direction, length = module.tensor("v"), module.tensor("g")
    if direction.ndim != 2 or length.size != len(direction):
        shapes = (direction.shape, length.shape)
        raise module.error("v, g", shapes, "a matrix, and a number for each of its rows")
    return direction.astype(np.float64), length.astype(np.float64).reshape(-1, 1)


@layer("nn.SpatialConvolutionMap")
def spatial_convolution_map(run: Run, module: Module, x: Tree) -> Tree:
    """Convolution by a list of connections, `connTable`: from input plane, to output plane.

    Written as a full convolution with zeros where there is none (`THNN/SpatialConvolutionMap.c`).
    """
    planes = module.count("nOutputPlane"), module.count("nInputPlane")
    weight, bias = module.tensor("weight"), module.tensor("bias")
    table = module.tensor("connTable")
    if weight.ndim != 3 or table.shape != (len(weight), 2):
        raise module.error("connTable", table.shape, f"a pair for each of {weight.shape}")
    if not ((table >= 1) & (table <= [planes[1], planes[0]])).all():  # of NaN neither is true
        raise module.error("connTable", table.tolist(), f"planes 1 to {planes[1]}, {planes[0]}")
    connections, shape = table.astype(np.int64), (*planes, *weight.shape[1:])
    if math.prod(shape) > MAX_ELEMENTS:
        raise module.error("nOutputPlane, nInputPlane", planes, f"{MAX_ELEMENTS:,} weights at most")
    full = np.zeros(shape, np.float64)
    np.add.at(full, (connections[:, 1] - 1, connections[:, 0] - 1), weight)
    return spatial(
        run,
        module,
        run.image(module, x),
        "Conv2d",
        tensors={"weight": full.astype(np.float32), "bias": bias},
        in_channels=planes[1],
        out_channels=planes[0],
        kernel_size=weight.shape[1:],
        stride=pair(module, "d"),
        padding=(0, 0),
        bias=True,
    )


_ONE_PADDING = (
    "nn.SpatialConvolution",
    "nn.SpatialConvolutionMM",
    "nn.SpatialDepthWiseConvolution",
)


def _convolution_padding(module: Module) -> tuple[int, int]:
    if module.source.class_name in _ONE_PADDING and module.has("padding"):
        return module.integer("padding"), module.integer("padding")
    return module.integer("padH", 0), module.integer("padW", 0)


def _present(**tensors: Array | None) -> dict[str, Array]:
    return {name: array for name, array in tensors.items() if array is not None}
