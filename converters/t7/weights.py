"""Rules of layers with weights: products, convolutions, batch normalisation, PReLU."""

import math

import numpy as np

from converters.t7.images import pair, spatial
from converters.t7.network import Handle, Module, Run, Tree, layer
from models.graph import Array


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


@layer("nn.SpatialConvolution", "cudnn.SpatialConvolution", "nn.SpatialDilatedConvolution")
def spatial_convolution(run: Run, module: Module, x: Tree) -> Tree:
    """Convolution.

    Old nn files have one `padding` for both sides, which goes before `padW` and `padH`, or none of
    them, and a weight of two dimensions (`nn/SpatialConvolution.lua`, `backCompatibility`). Only
    cudnn has `groups`; those who wanted no bias set it to nil (`noBias`).
    """
    planes = module.integer("nOutputPlane"), module.integer("nInputPlane")
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
    multiplier, planes = module.integer("nOutputPlane"), module.integer("nInputPlane")
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
        padding=(module.integer("padH", 0), module.integer("padW", 0)),
        groups=planes,
        bias=bias is not None,
    )


@layer("nn.SpatialFullConvolution")
def spatial_full_convolution(run: Run, module: Module, x: Tree) -> Tree:
    """Transposed convolution; a table `{x, like}` asks for the height and width of `like`.

    `adj` is the output padding, absent in old files (`nn/SpatialFullConvolution.lua`).
    """
    kernel_size, stride = pair(module, "k"), pair(module, "d")
    padding = module.integer("padH", 0), module.integer("padW", 0)
    adjust = module.integer("adjH", 0), module.integer("adjW", 0)
    if not isinstance(x, Handle):
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


@layer("nn.SpatialBatchNormalization", "cudnn.SpatialBatchNormalization", "nn.BatchNormalization")
def batch_normalization(run: Run, module: Module, x: Tree) -> Tree:
    """Batch normalisation by the running statistics.

    A sample without a batch dimension gets one and keeps it (`nn/BatchNormalization.lua`,
    `makeBatch`).
    """
    given = run.tensor(module, x)
    rank, op = (4, "BatchNorm2d") if "Spatial" in module.source.class_name else (2, "BatchNorm1d")
    value = run.read(given)
    if len(given.shape) == rank - 1:
        value = run.net.add(f"{module.name}_batch", "Reshape", value, shape=[1, *given.shape])
    mean = module.tensor("running_mean")
    weight, bias = module.optional("weight"), module.optional("bias")
    affine = weight is not None or bias is not None
    if affine:
        weight = np.ones_like(mean) if weight is None else weight
        bias = np.zeros_like(mean) if bias is None else bias
    value = run.net.add(
        module.name,
        op,
        value,
        tensors=_present(
            weight=weight, bias=bias, running_mean=mean, running_var=module.tensor("running_var")
        ),
        num_features=mean.size,
        eps=module.number("eps", 1e-5),
        momentum=module.number("momentum", 0.1),
        affine=affine,
    )
    return run.fresh(module, value)


@layer("nn.PReLU")
def prelu(run: Run, module: Module, x: Tree) -> Tree:
    """A learned slope below 0: one for all (`nOutputPlane` 0), or one for each plane."""
    weight = module.tensor("weight")
    value = run.read(run.tensor(module, x))
    count = module.integer("nOutputPlane", 0) or 1
    tensors = {"weight": weight.reshape(-1)}
    return run.fresh(
        module, run.net.add(module.name, "PReLU", value, tensors=tensors, num_parameters=count)
    )


def _convolution_padding(module: Module) -> tuple[int, int]:
    if module.source.class_name == "nn.SpatialConvolution" and module.has("padding"):
        return module.integer("padding"), module.integer("padding")
    return module.integer("padH", 0), module.integer("padW", 0)


def _present(**tensors: Array | None) -> dict[str, Array]:
    return {name: array for name, array in tensors.items() if array is not None}
