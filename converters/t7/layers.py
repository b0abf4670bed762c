"""One rule for each Torch7 class: its fields -> torch.nn's words.

Every quirk of Torch7 lives here and is cited: `nn/X.lua` is torch/nn, `THNN/X.c` its C kernels,
`cudnn/X.lua` is soumith/cudnn.torch. Torch7 names width first, torch.nn height first. Everything is
evaluation mode, whatever `train` the file was saved with.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.lowering import Value
from converters.t7.network import Handle, Module, Run, Tree, layer
from models.graph import Array, Shape

# ---- containers ----------------------------------------------------------------------------------


@layer("nn.Sequential")
def sequential(run: Run, module: Module, x: Tree) -> Tree:
    """One module after the other."""
    for child in module.children():
        x = run.forward(child, x)
    return x


@layer("nn.ConcatTable")
def concat_table(run: Run, module: Module, x: Tree) -> Tree:
    """Every module on the same input, which they may change in place for those that come after."""
    return tuple(run.forward(child, x) for child in module.children())


@layer("nn.Concat")
def concat(run: Run, module: Module, x: Tree) -> Tree:
    """Outputs of all modules joined along `dimension`, which counts from 1 and includes the batch.

    They are copied once all have run (`nn/Concat.lua`), so what a later one writes in place shows.
    """
    parts = [run.tensor(module, run.forward(child, x)) for child in module.children()]
    return _joined(run, module, f"{module.name}.join", parts, module.integer("dimension") - 1)


@layer("nn.DepthConcat")
def depth_concat(run: Run, module: Module, x: Tree) -> Tree:
    """Outputs of all modules joined along `dimension`, smaller ones centred in zeros.

    An odd margin goes behind: the start is `floor((size - own) / 2) + 1` (`nn/DepthConcat.lua`).
    """
    dim = module.integer("dimension") - 1
    parts = [run.tensor(module, run.forward(child, x)) for child in module.children()]
    if len({len(part.shape) for part in parts}) != 1:
        raise module.unsupported("its parts differ in rank")
    size = [max(lengths) for lengths in zip(*(part.shape for part in parts), strict=True)]
    framed = []
    for part in parts:
        margins = [0 if i == dim else size[i] - length for i, length in enumerate(part.shape)]
        padding = [
            side for margin in reversed(margins) for side in (margin // 2, margin - margin // 2)
        ]
        value = run.read(part)
        if any(margins):
            value = run.net.add(f"{module.name}.frame", "Pad", value, padding=padding, value=0.0)
        framed.append(run.fresh(value))
    return _joined(run, module, f"{module.name}.join", framed, dim)


# ---- tables --------------------------------------------------------------------------------------


@layer("nn.CAddTable")
def cadd_table(run: Run, module: Module, x: Tree) -> Tree:
    """Sum of a table, left to right.

    With `inplace` the sum is written into the first operand (`nn/CAddTable.lua`: `output:set`), so
    an operand that is the same tensor as the first adds the sum so far, and others see it too.
    """
    first, *others = run.table(module, x)
    if not module.flag("inplace"):
        first = run.fresh(run.read(first))
    for other in others:
        if other.shape != first.shape:
            raise module.unsupported(f"adds tensors of shapes {first.shape} and {other.shape}")
        total = run.net.add(module.name, "Add", run.read(first), run.read(other))
        first = run.write(first, total)
    return first


@layer("nn.JoinTable")
def join_table(run: Run, module: Module, x: Tree) -> Tree:
    """Tensors one after the other; `dimension` counts from 1, or from the end if negative.

    With `nInputDims` the dimension is meant without the batch: it moves by one when the first
    tensor has one dimension more (`nn/JoinTable.lua`, `_getPositiveDimension`).
    """
    parts = run.table(module, x)
    rank = len(parts[0].shape)
    dim = module.integer("dimension")
    if dim < 0:
        dim += rank + 1
    elif module.has("nInputDims") and rank == module.integer("nInputDims") + 1:
        dim += 1
    return _joined(run, module, module.name, parts, dim - 1)


def _joined(run: Run, module: Module, at: str, parts: Sequence[Handle], dim: int) -> Handle:
    if not parts:
        raise module.unsupported("joins nothing: it holds no modules")
    if not 0 <= dim < len(parts[0].shape):
        raise module.error("dimension", dim + 1, f"1 to {len(parts[0].shape)}: its input's rank")
    return run.fresh(run.net.add(at, "Concat", *(run.read(part) for part in parts), dim=dim))


@layer("nn.Identity")
def identity(run: Run, module: Module, x: Tree) -> Tree:
    """The very tensor that came in, or the table."""
    return x


# ---- shapes --------------------------------------------------------------------------------------


@layer("nn.View")
def view(run: Run, module: Module, x: Tree) -> Tree:
    """The same memory in another shape, with the batch dimension kept where there is one.

    `numInputDims` says how many dimensions one sample has; what is before them is the batch.
    Without it, elements left over make the batch, and a batch of one disappears (`nn/View.lua`,
    `batchsize`).
    """
    given = run.tensor(module, x)
    size = module.sizes("size")
    rank = len(given.shape)
    sample = min(module.integer("numInputDims"), rank) if module.has("numInputDims") else rank
    held, wanted = math.prod(given.shape[rank - sample :]), math.prod(n for n in size if n >= 0)
    if wanted == 0 or held % wanted:
        raise module.error("size", size, f"a shape for {held:,} elements")
    batch = 1 if -1 in size else held // wanted
    batch *= math.prod(given.shape[: rank - sample])
    if batch == 1 and (not module.has("numInputDims") or rank <= module.integer("numInputDims")):
        return _reshaped(run, module, given, size)
    return _reshaped(run, module, given, (batch, *size))


@layer("nn.Reshape")
def reshape(run: Run, module: Module, x: Tree) -> Tree:
    """The same memory in another shape.

    `batchMode` unset means: a batch unless the elements match without one; an input whose first
    dimension is 1 is a batch in any case (`nn/Reshape.lua`).
    """
    given = run.tensor(module, x)
    size = module.sizes("size")
    if module.has("batchMode"):
        batched = module.flag("batchMode")
    else:
        batched = math.prod(given.shape) != math.prod(size) or given.shape[0] == 1
    return _reshaped(run, module, given, (given.shape[0], *size) if batched else size)


def _reshaped(run: Run, module: Module, given: Handle, shape: Shape) -> Handle:
    """View `given` in `shape`; where the first dimension stays, it may be of any size."""
    value = run.read(given)
    if len(shape) == 2 and len(given.shape) > 1 and shape[0] == given.shape[0]:
        flat = run.net.add(module.name, "Flatten", value, start_dim=1, end_dim=-1)
        if shape[1] in (-1, flat.shape[1]):
            return run.view(given, flat)
    if shape and given.shape and shape[0] == given.shape[0] and -1 not in shape:
        shape = (-1, *shape[1:])
    return run.view(given, run.net.add(module.name, "Reshape", value, shape=list(shape)))


@layer("nn.Padding")
def padding(run: Run, module: Module, x: Tree) -> Tree:
    """`|pad|` times `value` along `dim` before `index`, which counts from the end if `pad` > 0.

    `nInputDim` is the rank without a batch: any other rank moves `dim` by one (`nn/Padding.lua`).
    """
    given = run.tensor(module, x)
    rank, dim, pad = len(given.shape), module.integer("dim"), module.integer("pad")
    if module.has("nInputDim") and rank != module.integer("nInputDim"):
        dim += 1
    if not 1 <= dim <= rank:
        raise module.error("dim", dim, f"1 to {rank}: its input's rank")
    length, index = given.shape[dim - 1], module.integer("index", 1)
    before = length - index + 1 if pad > 0 else index - 1
    if not 0 <= before <= length:
        raise module.error("index", index, f"1 to {length + 1}")
    value, fill, after = run.read(given), module.number("value", 0), 2 * (rank - dim)

    def padded(part: Value, front: int, back: int) -> Value:
        return run.net.add(
            module.name, "Pad", part, padding=[0] * after + [front, back], value=fill
        )

    if before in (0, length):
        return run.fresh(padded(value, abs(pad) if not before else 0, abs(pad) if before else 0))
    head = run.net.add(f"{module.name}_head", "Narrow", value, dim=dim - 1, start=0, length=before)
    tail = run.net.add(
        f"{module.name}_tail", "Narrow", value, dim=dim - 1, start=before, length=length - before
    )
    return run.fresh(
        run.net.add(module.name, "Concat", padded(head, 0, abs(pad)), tail, dim=dim - 1)
    )


@layer("nn.SpatialZeroPadding")
def spatial_zero_padding(run: Run, module: Module, x: Tree) -> Tree:
    """Zeros around each plane; negative numbers crop (`nn/SpatialZeroPadding.lua`)."""
    sides = [module.integer(side) for side in ("pad_l", "pad_r", "pad_t", "pad_b")]
    value = run.read(run.tensor(module, x))
    return run.fresh(run.net.add(module.name, "Pad", value, padding=sides, value=0.0))


# ---- weights -------------------------------------------------------------------------------------


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
    return run.fresh(value)


@layer("nn.SpatialConvolution", "cudnn.SpatialConvolution", "nn.SpatialDilatedConvolution")
def spatial_convolution(run: Run, module: Module, x: Tree) -> Tree:
    """Convolution.

    Old files have one `padding` for both sides, or no padding fields at all, and a weight of two
    dimensions (`nn/SpatialConvolution.lua`, `backCompatibility`). Only cudnn has `groups`; those
    who wanted no bias set it to nil (`noBias`).
    """
    planes = module.integer("nOutputPlane"), module.integer("nInputPlane")
    kernel_size, groups = _pair(module, "k"), module.integer("groups", 1)
    old = module.integer("padding", 0)
    weight, bias = module.tensor("weight"), module.optional("bias")
    shape = (planes[0], planes[1] // max(groups, 1), *kernel_size)
    if weight.ndim == 2 and weight.size == math.prod(shape):
        weight = weight.reshape(shape)
    return _spatial(
        run,
        module,
        x,
        "Conv2d",
        tensors=_present(weight=weight, bias=bias),
        in_channels=planes[1],
        out_channels=planes[0],
        kernel_size=kernel_size,
        stride=_pair(module, "d"),
        padding=(module.integer("padH", old), module.integer("padW", old)),
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
    kernel_size = _pair(module, "k")
    weight, bias = module.tensor("weight"), module.optional("bias")
    if weight.size == multiplier * planes * math.prod(kernel_size):
        by_plane = weight.reshape(multiplier, planes, 1, *kernel_size).swapaxes(0, 1)
        weight = by_plane.reshape(planes * multiplier, 1, *kernel_size)
    if bias is not None and bias.size == multiplier * planes:
        bias = bias.reshape(multiplier, planes).T.reshape(-1)
    return _spatial(
        run,
        module,
        x,
        "Conv2d",
        tensors=_present(weight=weight, bias=bias),
        in_channels=planes,
        out_channels=planes * multiplier,
        kernel_size=kernel_size,
        stride=_pair(module, "d"),
        padding=(module.integer("padH", 0), module.integer("padW", 0)),
        groups=planes,
        bias=bias is not None,
    )


@layer("nn.SpatialFullConvolution")
def spatial_full_convolution(run: Run, module: Module, x: Tree) -> Tree:
    """Transposed convolution; a table `{x, like}` asks for the height and width of `like`.

    `adj` is the output padding, absent in old files (`nn/SpatialFullConvolution.lua`).
    """
    kernel_size, stride = _pair(module, "k"), _pair(module, "d")
    padding = module.integer("padH", 0), module.integer("padW", 0)
    adjust = module.integer("adjH", 0), module.integer("adjW", 0)
    if not isinstance(x, Handle):
        x, like = run.table(module, x)
        adjust = (
            (like.shape[-2] + 2 * padding[0] - kernel_size[0]) % stride[0],
            (like.shape[-1] + 2 * padding[1] - kernel_size[1]) % stride[1],
        )
    bias = module.optional("bias")
    return _spatial(
        run,
        module,
        x,
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
    return run.fresh(value)


@layer("nn.PReLU")
def prelu(run: Run, module: Module, x: Tree) -> Tree:
    """A learned slope below 0: one for all (`nOutputPlane` 0), or one for each plane."""
    weight = module.tensor("weight")
    value = run.read(run.tensor(module, x))
    count = module.integer("nOutputPlane", 0) or 1
    tensors = {"weight": weight.reshape(-1)}
    return run.fresh(
        run.net.add(module.name, "PReLU", value, tensors=tensors, num_parameters=count)
    )


def _present(**tensors: Array | None) -> dict[str, Array]:
    return {name: array for name, array in tensors.items() if array is not None}


def _pair(module: Module, stem: str) -> tuple[int, int]:
    """Return `(kH, kW)` or `(dH, dW)`; strides are 1 unless said otherwise."""
    default = 1 if stem == "d" else None
    return module.integer(f"{stem}H", default), module.integer(f"{stem}W", default)


def _spatial(
    run: Run,
    module: Module,
    x: Tree,
    op: str,
    tensors: dict[str, Array] | None = None,
    **attrs: Any,
) -> Handle:
    """Apply a layer of images, which takes one image (rank 3) as well as a batch (rank 4)."""
    given = run.tensor(module, x)
    value = run.read(given)
    if len(given.shape) not in (3, 4):
        raise module.unsupported(f"takes images, its input has {len(given.shape)} dimensions")
    single = len(given.shape) == 3
    if single:
        value = run.net.add(f"{module.name}_batch", "Reshape", value, shape=[1, *given.shape])
    attrs = {"dilation": (1, 1), "groups": 1, **attrs} if "Conv" in op else attrs
    value = run.net.add(module.name, op, value, tensors=tensors, **attrs)
    if single:
        value = run.net.add(f"{module.name}_single", "Reshape", value, shape=list(value.shape[1:]))
    return run.fresh(value)


# ---- pooling and normalisation across maps -------------------------------------------------------


@layer("nn.SpatialMaxPooling", "cudnn.SpatialMaxPooling")
def spatial_max_pooling(run: Run, module: Module, x: Tree) -> Tree:
    """Max pooling; nn and cudnn both take the kernel size where no stride was given."""
    given = run.tensor(module, x)
    run.pooled[id(module.source)] = module, run.read(given)
    return _pooled(run, module, given, "MaxPool2d", **_max_window(module))


def _max_window(module: Module) -> dict[str, Any]:
    kernel_size = _pair(module, "k")
    return {
        "kernel_size": kernel_size,
        "stride": (module.integer("dH", kernel_size[0]), module.integer("dW", kernel_size[1])),
        "padding": (module.integer("padH", 0), module.integer("padW", 0)),
        "dilation": (1, 1),
        "ceil_mode": module.flag("ceil_mode"),
    }


@layer("nn.SpatialMaxUnpooling")
def spatial_max_unpooling(run: Run, module: Module, x: Tree) -> Tree:
    """Values put back where another module of the network, in the field `pooling`, found them."""
    pooling = run.pooled.get(id(module.source.fields.get("pooling")))
    if pooling is None:
        raise module.unsupported("the pooling that it undoes did not run before it")
    pool, fed = pooling
    if len(fed.shape) != 4:
        raise module.unsupported("unpools an image without a batch dimension")
    indices = run.net.add(f"{module.name}_indices", "MaxPoolIndices", fed, **_max_window(pool))
    value = run.read(run.tensor(module, x))
    return run.fresh(
        run.net.add(module.name, "MaxUnpool", value, indices, output_size=fed.shape[-2:])
    )


@layer("nn.SpatialAveragePooling")
def spatial_average_pooling(run: Run, module: Module, x: Tree) -> Tree:
    """Average pooling.

    A file from before March 2015 has no `divide`, and nn then gives the sum. One without
    `ceil_mode` has no padding, whatever its fields say (`nn/SpatialAveragePooling.lua`,
    `backwardCompatible`).
    """
    old = not module.has("ceil_mode")
    kernel_size = _pair(module, "k")
    mean = _pooled(
        run,
        module,
        run.tensor(module, x),
        "AvgPool2d",
        kernel_size=kernel_size,
        stride=_pair(module, "d"),
        padding=(0, 0) if old else (module.integer("padH", 0), module.integer("padW", 0)),
        ceil_mode=module.flag("ceil_mode"),
        count_include_pad=old or module.flag("count_include_pad"),
    )
    if module.flag("divide"):
        return mean
    return run.fresh(
        run.net.add(f"{module.name}_sum", "Scale", run.read(mean), factor=math.prod(kernel_size))
    )


@layer("cudnn.SpatialAveragePooling")
def cudnn_spatial_average_pooling(run: Run, module: Module, x: Tree) -> Tree:
    """Average pooling by cuDNN: it always divides, and always counts the padding.

    `count_include_pad ~= nil and count_include_pad or true` is true for false as well
    (`cudnn/SpatialAveragePooling.lua`). Where a window sticks out of the padded image, which only
    `ceil_mode` makes possible, cuDNN's divisor is not documented: refused.
    """
    kernel_size = _pair(module, "k")
    stride = module.integer("dH", kernel_size[0]), module.integer("dW", kernel_size[1])
    padding = module.integer("padH", 0), module.integer("padW", 0)
    given = run.tensor(module, x)
    if module.flag("ceil_mode") and any(
        (length + 2 * pad - kernel) % step
        for length, pad, kernel, step in zip(
            given.shape[-2:], padding, kernel_size, stride, strict=True
        )
    ):
        raise module.unsupported("ceil_mode with windows that stick out of the image")
    return _pooled(
        run,
        module,
        given,
        "AvgPool2d",
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=False,
        count_include_pad=True,
    )


def _pooled(run: Run, module: Module, given: Handle, op: str, **window: Any) -> Handle:
    """Pool, with as many windows as Torch7 makes.

    With `ceil_mode` a window may begin behind the image. Where there is padding, nn drops it
    (`THNN/SpatialDilatedMaxPooling.c`), as torch.nn does; ONNX does not, but then rounding down
    says the same. Otherwise the window stays (`cudnn/Pooling.lua`), computed from nothing: refused.
    """
    drops = module.source.class_name.startswith("nn.") and any(window["padding"])
    if window["ceil_mode"]:
        dropped, ragged = False, False
        for length, kernel, step, pad in zip(
            given.shape[-2:],
            window["kernel_size"],
            window["stride"],
            window["padding"],
            strict=True,
        ):
            rest = (length + 2 * pad - kernel) % max(step, 1)
            outside = rest and length + 2 * pad - kernel - rest + step >= length + pad
            if outside and not drops:
                raise module.unsupported(
                    "ceil_mode with a window that lies wholly outside the image"
                )
            dropped, ragged = dropped or bool(outside), ragged or bool(rest and not outside)
        if dropped and not ragged:
            window["ceil_mode"] = False
    return _spatial(run, module, given, op, **window)


@layer("nn.SpatialCrossMapLRN")
def spatial_cross_map_lrn(run: Run, module: Module, x: Tree) -> Tree:
    """Local response normalisation; `alpha` is divided by the window's size, as torch.nn does."""
    size = module.integer("size")
    if size % 2 == 0:
        raise module.unsupported(f"a window of {size} maps has no centre: nn fails on it, too")
    return _spatial(
        run,
        module,
        x,
        "LocalResponseNorm",
        size=size,
        alpha=module.number("alpha", 1e-4),
        beta=module.number("beta", 0.75),
        k=module.number("k", 1),
    )


# ---- element by element --------------------------------------------------------------------------


def _pointwise(run: Run, module: Module, x: Tree, op: str, **attrs: Any) -> Handle:
    """Apply a function to each element; `inplace` changes the input itself, for all who hold it."""
    given = run.tensor(module, x)
    value = run.net.add(module.name, op, run.read(given), **attrs)
    return run.write(given, value) if module.flag("inplace") else run.fresh(value)


@layer("nn.ReLU", "nn.Threshold")
def threshold(run: Run, module: Module, x: Tree) -> Tree:
    """`x` above `threshold`, else `val`; ReLU is that with 0 and 0 (`nn/ReLU.lua`)."""
    limit = module.number("threshold", 0 if module.source.class_name == "nn.ReLU" else 1e-6)
    value = module.number("val", 0)
    if limit == value == 0:
        return _pointwise(run, module, x, "ReLU")
    return _pointwise(run, module, x, "Threshold", threshold=limit, value=value)


@layer("cudnn.ReLU")
def cudnn_relu(run: Run, module: Module, x: Tree) -> Tree:
    """The positive part."""
    return _pointwise(run, module, x, "ReLU")


@layer("nn.ReLU6")
def relu6(run: Run, module: Module, x: Tree) -> Tree:
    """Clamped to 0 and 6."""
    return _pointwise(run, module, x, "ReLU6")


@layer("nn.LeakyReLU")
def leaky_relu(run: Run, module: Module, x: Tree) -> Tree:
    """`negval` times `x` below 0."""
    return _pointwise(run, module, x, "LeakyReLU", negative_slope=module.number("negval", 0.01))


@layer("nn.ELU")
def elu(run: Run, module: Module, x: Tree) -> Tree:
    """`alpha * (exp(x) - 1)` below 0."""
    return _pointwise(run, module, x, "ELU", alpha=module.number("alpha", 1))


@layer("nn.MulConstant")
def mul_constant(run: Run, module: Module, x: Tree) -> Tree:
    """Times a constant."""
    return _pointwise(run, module, x, "Scale", factor=module.number("constant_scalar"))


@layer("nn.Dropout")
def dropout(run: Run, module: Module, x: Tree) -> Tree:
    """Nothing, in evaluation mode; the first version multiplied by `1 - p` there.

    The second version, of July 2014, is told by the field `v2` (`nn/Dropout.lua`).
    """
    p = _drop_rate(module)
    if module.flag("v2"):
        return _pointwise(run, module, x, "Dropout", p=p)
    return _pointwise(
        run, module, _pointwise(run, module, x, "Dropout", p=p), "Scale", factor=1 - p
    )


@layer("nn.SpatialDropout")
def spatial_dropout(run: Run, module: Module, x: Tree) -> Tree:
    """Times `1 - p`, in evaluation mode: it drops whole planes in training without rescaling."""
    p = _drop_rate(module)
    dropped = _pointwise(run, module, x, "Dropout2d", p=p)
    return _pointwise(run, module, dropped, "Scale", factor=1 - p)


def _drop_rate(module: Module) -> float:
    if module.flag("stochastic_inference"):
        raise module.unsupported("draws random numbers in evaluation mode (stochastic_inference)")
    return module.number("p", 0.5)


# ---- probabilities -------------------------------------------------------------------------------


@layer("nn.SoftMax")
def soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Softmax over the classes of a sample or of a batch, told apart by rank."""
    return _normalised(run, module, x, "Softmax")


@layer("nn.LogSoftMax", "nn.SpatialLogSoftMax")
def log_soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Log of softmax over the classes of a sample or of a batch, told apart by rank."""
    return _normalised(run, module, x, "LogSoftmax")


@layer("cudnn.LogSoftMax")
def cudnn_log_soft_max(run: Run, module: Module, x: Tree) -> Tree:
    """Log of softmax over everything that is no batch.

    cuDNN's INSTANCE mode takes a whole image as one distribution (`cudnn/LogSoftMax.lua`), which is
    the same as over the classes where there is one pixel.
    """
    given = run.tensor(module, x)
    if len(given.shape) > 2 and math.prod(given.shape[-2:]) > 1:
        raise module.unsupported("normalises over all pixels of an image at once")
    return _normalised(run, module, x, "LogSoftmax")


def _normalised(run: Run, module: Module, x: Tree, op: str) -> Handle:
    """Normalise over the first dimension of rank 1 or 3, the second of 2 or 4 (THNN/SoftMax.c)."""
    given = run.tensor(module, x)
    rank = len(given.shape)
    if rank > 4:
        raise module.unsupported(f"takes 1 to 4 dimensions, its input has {rank}")
    return run.fresh(run.net.add(module.name, op, run.read(given), dim=1 if rank in (2, 4) else 0))
