"""Rules of pooling (src/operator/nn/pooling.cc, pooling-inl.h, pool.h)."""

import math
from typing import Any, NamedTuple

from converters.lowering import Value
from converters.mx.network import Operator, Outputs, Run, operator

KINDS = ("max", "avg", "sum", "lp")
Pair = tuple[int, ...]


class Window(NamedTuple):
    """What is pooled together: sizes of height and width."""

    kernel_size: Pair
    stride: Pair
    padding: Pair


@operator("Pooling", "Pooling_v1")
def pooling(run: Run, op: Operator) -> Outputs:
    """Pooling of images; the largest number of each window unless the file says otherwise.

    With `global_pool`, the window is the whole map, whatever `kernel`, `stride` and `pad` say. The
    number of windows is rounded down (`valid`) or up (`full`).
    """
    given, settings = op.value(), op.settings
    if len(given.shape) != 4:
        raise op.unsupported(f"takes images, its input has {len(given.shape)} dimensions")
    layout = settings.text("layout", "NCHW")
    if layout != "NCHW":
        raise op.unsupported(f"layout {layout}: only NCHW is converted")
    settings.neutral("cudnn_off")
    kind = settings.one_of("pool_type", KINDS, "max")
    counted = settings.flag("count_include_pad", default=True)
    power = settings.integer("p_value", 0)
    rule = settings.one_of("pooling_convention", ("valid", "full", "same"), "valid")
    window, whole = _window(op, given)
    if rule == "same" and not whole:
        raise op.unsupported("pooling_convention same, which MXNet has for rows only")
    ragged = rule == "full" and not whole and _sticks_out(op, given, window)
    if kind in ("max", "avg"):
        words: dict[str, tuple[str, dict[str, Any]]] = {
            "max": ("MaxPool2d", {"dilation": (1, 1)}),
            "avg": ("AvgPool2d", {"count_include_pad": counted}),
        }
        word, more = words[kind]
        attrs: dict[str, Any] = {**window._asdict(), **more, "ceil_mode": ragged}
        return run.net.add(op.name, word, given, **attrs)
    if ragged:
        raise op.unsupported(f"pool_type {kind} with windows that stick out of the image")
    return _summed(run, op, window, 1 if kind == "sum" else power)


def _window(op: Operator, given: Value) -> tuple[Window, bool]:
    """Return the window, and whether it is the whole map."""
    whole = op.settings.flag("global_pool", default=False)
    kernel = op.settings.sizes("kernel", None if whole else 2)
    stride, padding = op.settings.sizes("stride"), op.settings.sizes("pad")
    if whole:
        return Window(given.shape[2:], (1, 1), (0, 0)), True
    if len(kernel) != 2 or min(kernel) < 1:
        raise op.settings.error("kernel", str(kernel), "2 sizes of 1 or more")
    stride, padding = _pair(op, "stride", stride, 1), _pair(op, "pad", padding, 0)
    return Window(kernel, stride, padding), False


def _summed(run: Run, op: Operator, window: Window, power: int) -> Value:
    """Return sums of windows, or for a power of 2 the roots of the sums of squares."""
    if power not in (1, 2):
        raise op.unsupported(f"p_value {power}: only 1 and 2 have an exact form")
    given = op.value()
    if power == 2:
        given = run.net.add(f"{op.name}_square", "Mul", given, given)
    sizes: dict[str, Any] = {**window._asdict(), "ceil_mode": False, "count_include_pad": True}
    mean = run.net.add(f"{op.name}_mean", "AvgPool2d", given, **sizes)
    name = op.name if power == 1 else f"{op.name}_sum"
    total = run.net.add(name, "Scale", mean, factor=math.prod(window.kernel_size))
    return total if power == 1 else run.net.add(op.name, "Power", total, exponent=0.5)


def _sticks_out(op: Operator, given: Value, sizes: Window) -> bool:
    """Tell whether a last window is cut off by the edge of the padded image.

    One that begins behind the image has nothing in it: MXNet gives the smallest float or 0, where
    torch.nn drops it. Refused.
    """
    ragged = False
    for length, window, step, pad in zip(given.shape[2:], *sizes, strict=True):
        rest = (length + 2 * pad - window) % step
        count = -(-(length + 2 * pad - window) // step)
        if rest and count * step - pad >= length:
            raise op.unsupported("pooling_convention full with a window wholly outside the image")
        ragged = ragged or rest > 0
    return ragged


def _pair(op: Operator, key: str, found: Pair, default: int) -> Pair:
    pair = found or (default, default)
    if len(pair) != 2 or min(pair) < default:
        raise op.settings.error(key, str(found), f"2 sizes of {default} or more")
    return pair


@operator("_contrib_AdaptiveAvgPooling2D")
def adaptive_avg_pooling(run: Run, op: Operator) -> Outputs:
    """The mean of as many windows as asked for (src/operator/contrib/adaptive_avg_pooling-inl.h).

    One number stands for both sides, none for 1. Where windows begin and end is computed in
    float32, which is exact as long as side times windows stays below 2^24.
    """
    given = op.value()
    if len(given.shape) != 4:
        raise op.unsupported(f"takes images, its input has {len(given.shape)} dimensions")
    size = op.settings.sizes("output_size", default=(1,))
    if len(size) > 2 or min(size) < 1:
        raise op.settings.error("output_size", str(size), "1 or 2 sizes of 1 or more")
    return run.net.add(op.name, "AdaptiveAvgPool2d", given, output_size=(size * 2)[:2])
