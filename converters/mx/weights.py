"""Rules of operators with weights: convolutions, products, upsampling by a kernel."""

import math

from converters.lowering import Value
from converters.mx.network import Operator, Outputs, Run, operator

# What only the choice of an algorithm and its memory depends on.
_SPEED = ("workspace", "cudnn_tune", "cudnn_off")


@operator("Convolution", "Convolution_v1", inputs=("data", "weight", "bias"), varying=True)
def convolution(run: Run, op: Operator) -> Outputs:
    """Convolution of rows or images (src/operator/nn/convolution-inl.h), in the first of images."""
    biased = _expect_bias(op, unless_said=True)
    given, settings = op.value(), op.settings
    op.check_rank(given, "images", 4 if op.op == "Convolution_v1" else 3)
    count = len(given.shape) - 2
    kernel = settings.sizes("kernel", count, least=1)
    settings.neutral(*_SPEED)
    _check_layout(op, count)
    return run.net.add(
        op.name,
        f"Conv{count}d",
        given,
        tensors=op.tensors(weight="weight", **_bias(biased)),
        in_channels=given.shape[1],
        out_channels=settings.integer("num_filter"),
        kernel_size=kernel,
        stride=settings.sizes("stride", count, (1,) * count, least=1),
        padding=settings.sizes("pad", count, (0,) * count, least=0),
        dilation=settings.sizes("dilate", count, (1,) * count, least=1),
        groups=settings.integer("num_group", 1),
        bias=biased,
    )


@operator("Deconvolution", inputs=("data", "weight", "bias"), varying=True)
def deconvolution(run: Run, op: Operator) -> Outputs:
    """Transposed convolution, without a bias unless the file says otherwise.

    Source: src/operator/nn/deconvolution-inl.h.
    """
    biased = _expect_bias(op, unless_said=False)
    given, settings = op.value(), op.settings
    settings.neutral(*_SPEED)
    op.check_rank(given, "images", 4, 4)
    kernel = settings.sizes("kernel", 2, least=1)
    _check_layout(op, 2)
    stride, dilate = (settings.sizes(key, 2, (1, 1), least=1) for key in ("stride", "dilate"))
    if any(min(pair) > 1 for pair in zip(stride, dilate, strict=True)):
        raise op.unsupported("stride with dilate: MXNet's own code and MKL-DNN spread differently")
    padding, adjust = _deconvolution_padding(op, given, kernel, stride, dilate)
    return run.net.add(
        op.name,
        "ConvTranspose2d",
        given,
        tensors=op.tensors(weight="weight", **_bias(biased)),
        in_channels=given.shape[1],
        out_channels=settings.integer("num_filter"),
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        output_padding=adjust,
        dilation=dilate,
        groups=settings.integer("num_group", 1),
        bias=biased,
    )


Pair = tuple[int, ...]


def _deconvolution_padding(
    op: Operator, given: Value, kernel: Pair, stride: Pair, dilate: Pair
) -> tuple[Pair, Pair]:
    """Return `pad` and `adj`, or those that give `target_shape` (`InferPad`)."""
    padding, adjust, target = (
        op.settings.sizes(key, 2, (0, 0), least=0) for key in ("pad", "adj", "target_shape")
    )
    if not any(target):
        _check_adjustment(op, "adj", adjust, stride)
        return padding, adjust
    over = tuple(
        step * (size - 1) + 1 + (window - 1) * dilation - wanted
        for step, size, window, dilation, wanted in zip(
            stride, given.shape[2:], kernel, dilate, target, strict=True
        )
    )
    if min(over) < 0 or min(target) < 1:
        expected = "1 or more, and no more than without padding"
        raise op.settings.error("target_shape", str(target), expected)
    adjust = tuple(one % 2 for one in over)
    _check_adjustment(op, "target_shape", adjust, stride)
    return tuple((one + 1) // 2 for one in over), adjust


def _check_adjustment(op: Operator, key: str, adjust: Pair, stride: Pair) -> None:
    if any(extra >= step for extra, step in zip(adjust, stride, strict=True)):
        expected = f"rows and columns to add, {adjust}, below the strides {stride}"
        raise op.settings.error(key, op.settings.text(key), expected)


@operator("FullyConnected", inputs=("data", "weight", "bias"), varying=True)
def fully_connected(run: Run, op: Operator) -> Outputs:
    """A matrix product over all but the first dimension, or with `flatten` off over the last.

    Source: src/operator/nn/fully_connected-inl.h.
    """
    biased = _expect_bias(op, unless_said=True)
    given, settings = op.value(), op.settings
    op.check_rank(given, "samples", 2)
    if settings.flag("flatten", default=True) and len(given.shape) > 2:
        given = run.net.add(f"{op.name}_flatten", "Flatten", given, start_dim=1, end_dim=-1)
    tensors = op.tensors(weight="weight", **_bias(biased))
    if "bias" in tensors:
        tensors["bias"] = tensors["bias"].reshape(-1)  # rows x 1 in some files
    return run.net.add(
        op.name,
        "Linear",
        given,
        tensors=tensors,
        in_features=given.shape[-1],
        out_features=settings.integer("num_hidden"),
        bias=biased,
    )


@operator("UpSampling", inputs=("data", "weight"), varying=True)
def upsampling(run: Run, op: Operator) -> Outputs:
    """Images enlarged: each pixel repeated, or a deconvolution by a kernel of the file.

    Source: src/operator/nn/upsampling-inl.h (`GetDeconvolutionParam`).
    """
    op.expect_as_many()
    given, settings = op.value(), op.settings
    op.check_rank(given, "images", 4, 4)
    scale = settings.integer("scale")
    if scale < 1:
        raise settings.error("scale", str(scale), "1 or more")
    settings.neutral("workspace", "multi_input_mode")
    filters = settings.integer("num_filter", 0)
    if settings.one_of("sample_type", ("nearest", "bilinear")) == "nearest":
        if len(op.inputs) != 1:
            raise op.unsupported(f"joins {len(op.inputs)} inputs")
        return run.net.add(op.name, "UpsamplingNearest2d", given, scale_factor=scale)
    op.expect("data", "weight")
    return run.net.add(
        op.name,
        "ConvTranspose2d",
        given,
        tensors=op.tensors(weight="weight"),
        in_channels=given.shape[1],
        out_channels=filters,
        kernel_size=2 * scale - scale % 2,
        stride=scale,
        padding=math.ceil((scale - 1) / 2),
        output_padding=0,
        groups=filters,
        bias=False,
    )


def _expect_bias(op: Operator, *, unless_said: bool) -> bool:
    """Say which inputs there are, and tell whether a bias is one."""
    biased = not op.settings.flag("no_bias", default=not unless_said)
    op.expect("data", "weight", *(["bias"] if biased else []))
    return biased


def _bias(biased: bool) -> dict[str, str]:
    return {"bias": "bias"} if biased else {}


def _check_layout(op: Operator, count: int) -> None:
    usual = {1: "NCW", 2: "NCHW"}.get(count)
    if usual is None:
        raise op.unsupported(f"a kernel of {count} dimensions")
    layout = op.settings.text("layout", usual)
    if layout != usual:
        raise op.unsupported(f"layout {layout}: only {usual} is converted")
