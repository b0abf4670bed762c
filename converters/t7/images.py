"""What layers of images have in common: one image or a batch, height before width."""

from typing import Any

from converters.lowering import Value
from converters.t7.memory import Handle
from converters.t7.module import Module
from converters.t7.network import Run
from models.graph import Array


def pair(module: Module, stem: str, default: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return `(kH, kW)`, or the stride `(dH, dW)`, which is 1 unless said otherwise."""
    if stem == "d" and default is None:
        default = (1, 1)
    height, width = default or (None, None)
    sizes = module.integer(f"{stem}H", height), module.integer(f"{stem}W", width)
    if min(sizes) < 1:
        raise module.error(f"{stem}H, {stem}W", sizes, "1 or more")
    return sizes


def spatial(
    run: Run,
    module: Module,
    given: Handle,
    op: str,
    tensors: dict[str, Array] | None = None,
    **attrs: Any,
) -> Handle:
    """Apply a layer of images."""
    return run.fresh(module, spatial_value(run, module, given, op, tensors, **attrs))


def spatial_value(
    run: Run,
    module: Module,
    given: Handle,
    op: str,
    tensors: dict[str, Array] | None = None,
    **attrs: Any,
) -> Value:
    """Apply an op of batches to one image (rank 3) or to a batch (rank 4)."""
    value = run.read(given)
    single = len(given.shape) == 3
    if single:
        value = run.net.add(f"{module.name}_batch", "Reshape", value, shape=[1, *given.shape])
    attrs = {"dilation": (1, 1), "groups": 1, **attrs} if "Conv" in op else attrs
    value = run.net.add(module.name, op, value, tensors=tensors, **attrs)
    if single:
        shape = list(value.shape[1:])
        value = run.net.add(f"{module.name}_single", "Reshape", value, shape=shape)
    return value
