"""Rules of pooling, unpooling, and normalisation across maps."""

import math
from typing import Any

import numpy as np

from converters.lowering import Value
from converters.t7.images import pair, spatial, spatial_value
from converters.t7.memory import Handle
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer


@layer(
    "nn.SpatialMaxPooling",
    "nn.SpatialDilatedMaxPooling",
    "cudnn.SpatialMaxPooling",
    "inn.SpatialMaxPooling",
)
def spatial_max_pooling(run: Run, module: Module, x: Tree) -> Tree:
    """Max pooling; nn and cudnn both take the kernel size where no stride was given.

    That of imagine-nn is nn's, always with `ceil_mode`.
    """
    given = run.image(module, x)
    run.pooled[id(module.source)] = module, run.read(given)
    return run.fresh(module, _pooled(run, module, given, "MaxPool2d", **_max_window(module)))


def _max_window(module: Module) -> dict[str, Any]:
    kernel_size = pair(module, "k")
    return {
        "kernel_size": kernel_size,
        "stride": pair(module, "d", kernel_size),
        "padding": (module.integer("padH", 0), module.integer("padW", 0)),
        "dilation": (module.integer("dilationH", 1), module.integer("dilationW", 1)),
        "ceil_mode": module.flag("ceil_mode")
        or module.source.class_name == "inn.SpatialMaxPooling",
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
        module, run.net.add(module.name, "MaxUnpool", value, indices, output_size=fed.shape[-2:])
    )


@layer("nn.SpatialAveragePooling")
def spatial_average_pooling(run: Run, module: Module, x: Tree) -> Tree:
    """Average pooling.

    A file from before March 2015 has no `divide`, and nn then gives the sum. One without
    `ceil_mode` has no padding, whatever its fields say (`nn/SpatialAveragePooling.lua`,
    `backwardCompatible`).
    """
    old = not module.has("ceil_mode")
    kernel_size = pair(module, "k")
    mean = _pooled(
        run,
        module,
        run.image(module, x),
        "AvgPool2d",
        kernel_size=kernel_size,
        stride=pair(module, "d"),
        padding=(0, 0) if old else (module.integer("padH", 0), module.integer("padW", 0)),
        ceil_mode=module.flag("ceil_mode"),
        count_include_pad=old or module.flag("count_include_pad"),
    )
    if not module.flag("divide"):
        mean = run.net.add(f"{module.name}_sum", "Scale", mean, factor=math.prod(kernel_size))
    return run.fresh(module, mean)


@layer("cudnn.SpatialAveragePooling")
def cudnn_spatial_average_pooling(run: Run, module: Module, x: Tree) -> Tree:
    """Average pooling by cuDNN: it always divides, and always counts the padding.

    `count_include_pad ~= nil and count_include_pad or true` is true for false as well, and a file
    without `ceil_mode` has no padding (`cudnn/SpatialAveragePooling.lua`). Where a window sticks
    out of the padded image, which `ceil_mode` makes possible, cuDNN's divisor is not documented:
    refused.
    """
    if module.has("divide") and not module.flag("divide"):
        raise module.unsupported("divide is false, which cudnn refuses as well")
    kernel_size = pair(module, "k")
    stride = pair(module, "d", kernel_size)
    old = not module.has("ceil_mode")
    padding = (0, 0) if old else (module.integer("padH", 0), module.integer("padW", 0))
    given = run.image(module, x)
    if module.flag("ceil_mode") and any(
        (length + 2 * pad - kernel) % step
        for length, pad, kernel, step in zip(
            given.shape[-2:], padding, kernel_size, stride, strict=True
        )
    ):
        raise module.unsupported("ceil_mode with windows that stick out of the image")
    mean = _pooled(
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
    return run.fresh(module, mean)


def _pooled(run: Run, module: Module, given: Handle, op: str, **window: Any) -> Value:
    """Pool, with as many windows as Torch7 makes.

    With `ceil_mode` a window may begin behind the image. Where there is padding, nn drops it
    (`THNN/SpatialDilatedMaxPooling.c`), as torch.nn does; ONNX does not, but then rounding down
    says the same. Otherwise the window stays (`cudnn/Pooling.lua`), computed from nothing: refused.
    """
    drops = not module.source.class_name.startswith("cudnn.") and any(window["padding"])
    if window["ceil_mode"]:
        dropped, ragged = False, False
        for length, kernel, step, pad in zip(
            given.shape[-2:],
            window["kernel_size"],
            window["stride"],
            window["padding"],
            strict=True,
        ):
            rest = (length + 2 * pad - kernel) % step
            outside = rest and length + 2 * pad - kernel - rest + step >= length + pad
            if outside and not drops:
                raise module.unsupported(
                    "ceil_mode with a window that lies wholly outside the image"
                )
            dropped, ragged = dropped or bool(outside), ragged or bool(rest and not outside)
        if dropped and not ragged:
            window["ceil_mode"] = False
    return spatial_value(run, module, given, op, **window)


MAX_WINDOWS = 1 << 12  # in a row: more than images of the time have pixels


@layer("nn.SpatialAdaptiveAveragePooling", "nn.SpatialAdaptiveMaxPooling")
def spatial_adaptive_pooling(run: Run, module: Module, x: Tree) -> Tree:
    """Pooling to `H` x `W`, by windows that Torch7 computes in float32.

    Where that rounds to other windows than whole numbers give, torch.nn has no word for them
    (`THNN/SpatialAdaptiveMaxPooling.c`, `THNN/SpatialAdaptiveAveragePooling.c`).
    """
    given = run.image(module, x)
    size = module.integer("H"), module.integer("W")
    if not (min(size) >= 1 and max(size) <= MAX_WINDOWS):
        raise module.error("H, W", size, f"1 to {MAX_WINDOWS:,}")
    averages = "Average" in module.source.class_name
    for length, count in zip(given.shape[-2:], size, strict=True):
        exact = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        if _windows(length, count, averages=averages) != exact:
            raise module.unsupported(f"{count} windows over {length} pixels round differently")
    op = "AdaptiveAvgPool2d" if averages else "AdaptiveMaxPool2d"
    return spatial(run, module, given, op, output_size=size)


def _windows(length: int, count: int, *, averages: bool) -> list[tuple[int, int]]:
    """Return start and end of each window, rounded as the C code does."""
    one = np.float32
    if averages:
        ends = [one(i * length) / one(count) for i in range(count + 1)]
    else:
        ends = [one(i) / one(count) * one(length) for i in range(count + 1)]
    return [(math.floor(ends[i]), math.ceil(ends[i + 1])) for i in range(count)]


@layer("nn.SpatialSubSampling")
def spatial_sub_sampling(run: Run, module: Module, x: Tree) -> Tree:
    """Sums of windows, times a weight for each plane, plus a bias (`nn/SpatialSubSampling.lua`)."""
    kernel_size = pair(module, "k")
    value = spatial_value(
        run,
        module,
        run.image(module, x),
        "AvgPool2d",
        kernel_size=kernel_size,
        stride=pair(module, "d"),
        padding=(0, 0),
        ceil_mode=False,
        count_include_pad=True,
    )
    value = run.net.add(f"{module.name}_sum", "Scale", value, factor=math.prod(kernel_size))
    for op, field in (("LearnedScale", "weight"), ("LearnedShift", "bias")):
        array = module.tensor(field).reshape(-1, 1, 1)
        at = f"{module.name}_{field}"
        value = run.net.add(at, op, value, tensors={field: array}, shape=array.shape)
    return run.fresh(module, value)


@layer("nn.SpatialCrossMapLRN", "cudnn.SpatialCrossMapLRN", "inn.SpatialCrossResponseNormalization")
def spatial_cross_map_lrn(run: Run, module: Module, x: Tree) -> Tree:
    """Local response normalisation; `alpha` is divided by the window's size, as torch.nn does.

    cudnn's `k` was called `K` once (`cudnn/SpatialCrossMapLRN.lua`).
    """
    size = module.integer("size", 5)
    if size % 2 == 0:
        raise module.unsupported(f"a window of {size} maps has no centre: nn fails on it, too")
    return spatial(
        run,
        module,
        run.image(module, x),
        "LocalResponseNorm",
        size=size,
        alpha=module.number("alpha", 1e-4),
        beta=module.number("beta", 0.75),
        k=module.number("K" if module.has("K") else "k", 1),
    )
