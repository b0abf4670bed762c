"""Rules of pooling (src/operator/nn/pooling.cc, pooling-inl.h, pool.h)."""

import math
from typing import Any, NamedTuple

from converters.lowering import Value
from converters.mx.network import Operator, Outputs, Run, operator

Pair = tuple[int, ...]
FIRST_OF_TODAY = 905  # MXNet 0.9.5 renamed what was called Pooling until then Pooling_v1
FIRST_UNPADDED = 10200  # MXNet 1.2 is the first that ignores `pad` where it ignores `kernel`


class Window(NamedTuple):
    """What is pooled together: sizes of height and width."""

    kernel_size: Pair
    stride: Pair
    padding: Pair


@operator("Pooling")
def pooling(run: Run, op: Operator) -> Outputs:
    """Pooling of images; the largest number of each window unless the file says otherwise.

    With `global_pool`, the window is the whole map, whatever `kernel`, `stride` and `pad` say. The
    number of windows is rounded down (`valid`) or up (`full`). In files from before MXNet 0.9.5 it
    is `Pooling_v1`, but cuDNN had no zeros around the image: with `pad`, the largest number is
    converted where numbers are 0 or more, as behind a ReLU.
    """
    given, settings = op.value(), op.settings
    if op.version < FIRST_OF_TODAY:
        return _first_pooling(run, op, zeros=False)
    op.check_rank(given, "images", 4, 4)
    layout = settings.text("layout", "NCHW")
    if layout != "NCHW":
        raise op.unsupported(f"layout {layout}: only NCHW is converted")
    settings.neutral("cudnn_off")
    kind = settings.one_of("pool_type", ("max", "avg", "sum", "lp"), "max")
    counted = settings.flag("count_include_pad", default=True)
    power = settings.integer("p_value", 0)
    rule = settings.one_of("pooling_convention", ("valid", "full", "same"), "valid")
    window, whole = _window(op, given)
    if rule == "same" and not whole:
        raise op.unsupported("pooling_convention same, which MXNet has for rows only")
    ragged = rule == "full" and not whole and _sticks_out(op, given, window)
    if kind == "max":
        return _largest(run, op, given, window, ragged=ragged)
    if kind == "avg":
        sizes: dict[str, Any] = {**window._asdict(), "ceil_mode": ragged}
        return run.net.add(op.name, "AvgPool2d", given, **sizes, count_include_pad=counted)
    if ragged:
        raise op.unsupported(f"pool_type {kind} with windows that stick out of the image")
    return _summed(run, op, given, window, 1 if kind == "sum" else power)


@operator("Pooling_v1")
def pooling_v1(run: Run, op: Operator) -> Outputs:
    """Pooling with zeros around the image, which count as numbers (src/operator/pooling_v1-inl.h).

    A mean is by the size of the window, also of one that sticks out of the zeros.
    """
    return _first_pooling(run, op, zeros=True)


def _first_pooling(run: Run, op: Operator, *, zeros: bool) -> Value:
    given, settings = op.value(), op.settings
    op.check_rank(given, "images", 4, 4)
    kind = settings.one_of("pool_type", ("max", "avg", "sum"), "max")
    full = settings.one_of("pooling_convention", ("valid", "full"), "valid") == "full"
    window, whole = _window(op, given)
    if kind == "max":
        if zeros:
            given, window = _bordered(run, op, given, window, window.padding)
        elif any(window.padding) and not _never_negative(run, op):
            raise op.unsupported("pad: MXNet took zeros on a CPU, and no numbers on a GPU")
        ragged = full and not whole and _sticks_out(op, given, window)
        return _largest(run, op, given, window, ragged=ragged)
    if full and not whole:
        beyond = _beyond(given, window)
        if any(beyond):
            ends = tuple(sum(one) for one in zip(window.padding, beyond, strict=True))
            given, window = _bordered(run, op, given, window, ends)
    sizes = window._asdict()
    if kind == "sum":
        return _summed(run, op, given, window, 1)
    return run.net.add(
        op.name, "AvgPool2d", given, **sizes, ceil_mode=False, count_include_pad=True
    )


def _bordered(
    run: Run, op: Operator, given: Value, window: Window, ends: Pair
) -> tuple[Value, Window]:
    """Return the image with its padding as zeros, behind it as many as `ends`."""
    top, left = window.padding
    if any((top, left, *ends)):
        border = (left, ends[1], top, ends[0])
        given = run.net.add(f"{op.name}_pad", "Pad", given, padding=border, value=0)
    return given, window._replace(padding=(0, 0))


# Of old symbols: what no number below 0 comes from, if none enters.
_KEEPS_SIGN = {"Pooling", "Concat", "ElementWiseSum", "_Plus", "Flatten", "Dropout", "BlockGrad"}


def _never_negative(run: Run, op: Operator) -> bool:
    """Tell whether what enters comes from activations that give 0 or more."""
    waiting, seen = [op.inputs[0].node], set[int]()
    while waiting:
        index = waiting.pop()
        node = run.symbol.nodes[index]
        if index in seen:
            continue
        seen.add(index)
        if node.op in _KEEPS_SIGN:
            waiting += [entry.node for entry in node.inputs]
        elif node.attributes.get("act_type") not in ("relu", "sigmoid", "softrelu"):
            return False
    return True


def _window(op: Operator, given: Value) -> tuple[Window, bool]:
    """Return the window, and whether it is the whole map."""
    settings = op.settings
    if settings.flag("global_pool", default=False):
        settings.neutral("kernel", "stride")
        if op.version < FIRST_UNPADDED and any(settings.sizes("pad")):
            raise op.unsupported("global_pool with pad, which shifted the window before MXNet 1.2")
        settings.neutral("pad")
        return Window(given.shape[2:], (1, 1), (0, 0)), True
    kernel = settings.sizes("kernel", 2, least=1)
    stride = settings.sizes("stride", 2, (1, 1), least=1)
    padding = settings.sizes("pad", 2, (0, 0), least=0)
    room = tuple(size + 2 * pad for size, pad in zip(given.shape[2:], padding, strict=True))
    if any(size > most for size, most in zip(kernel, room, strict=True)):
        raise settings.error("kernel", str(kernel), f"no more than the padded image, {room}")
    return Window(kernel, stride, padding), False


def _largest(run: Run, op: Operator, given: Value, window: Window, *, ragged: bool) -> Value:
    sizes: dict[str, Any] = {**window._asdict(), "ceil_mode": ragged}
    return run.net.add(op.name, "MaxPool2d", given, **sizes, dilation=(1, 1))


def _summed(run: Run, op: Operator, given: Value, window: Window, power: int) -> Value:
    """Return sums of windows, or for a power of 2 the roots of the sums of squares."""
    if power not in (1, 2):
        raise op.unsupported(f"p_value {power}: only 1 and 2 have an exact form")
    if power == 2:
        given = run.net.add(f"{op.name}_square", "Mul", given, given)
    sizes: dict[str, Any] = {**window._asdict(), "ceil_mode": False, "count_include_pad": True}
    mean = run.net.add(f"{op.name}_mean", "AvgPool2d", given, **sizes)
    name = op.name if power == 1 else f"{op.name}_sum"
    total = run.net.add(name, "Scale", mean, factor=math.prod(window.kernel_size))
    return total if power == 1 else run.net.add(op.name, "Power", total, exponent=0.5)


def _beyond(given: Value, sizes: Window) -> Pair:
    """Return how far the last windows stick out of the padded image, when rounded up."""
    return tuple(
        -(length + 2 * pad - window) % step
        for length, window, step, pad in zip(given.shape[2:], *sizes, strict=True)
    )


def _sticks_out(op: Operator, given: Value, sizes: Window) -> bool:
    """Tell whether a last window is cut off by the edge of the padded image.

    One that begins behind the image has nothing in it: MXNet gives the smallest float or 0, where
    torch.nn drops it. Refused.
    """
    beyond = _beyond(given, sizes)
    for out, length, window, pad in zip(
        beyond, given.shape[2:], sizes.kernel_size, sizes.padding, strict=True
    ):
        if out and length + pad + out - window >= length:
            raise op.unsupported("pooling_convention full with a window wholly outside the image")
    return any(beyond)


@operator("_contrib_AdaptiveAvgPooling2D")
def adaptive_avg_pooling(run: Run, op: Operator) -> Outputs:
    """The mean of as many windows as asked for (src/operator/contrib/adaptive_avg_pooling-inl.h).

    One number stands for both sides, none for 1. Where windows begin and end is computed in
    float32, which is exact as long as side times windows stays below 2^24.
    """
    given = op.value()
    op.check_rank(given, "images", 4, 4)
    size = op.settings.sizes("output_size", default=(1,), least=1)
    if len(size) > 2:
        raise op.settings.error("output_size", str(size), "1 or 2 numbers")
    return run.net.add(op.name, "AdaptiveAvgPool2d", given, output_size=(size * 2)[:2])
