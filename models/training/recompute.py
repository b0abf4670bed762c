"""Activations that are computed again for the backward pass instead of being kept.

A network is a row of units (residual blocks, stems). Some stretches of the row keep only what
enters them; backward computes such a stretch once more. Which stretches: those with which the
largest sum of what is kept, and of what one stretch holds while it is recomputed, is smallest, or
as few as a budget allows. All of it is counted on tensors without memory before the run.

torch.utils.checkpoint alone would let BatchNorm take in every batch twice. Here the second time
works on copies of its statistics, so that weights and statistics are those of a run without this,
to the bit.

Source: dmlc/mxnet-memonger memonger.py, whose plan is a threshold on the bytes that are kept;
Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.errors import RecipeError
from models.graph import Shape

GIB = 1 << 30
HALVINGS = 40  # of the range in which the smallest peak is looked for: to a part in 10^12


class Unit(NamedTuple):
    """A module that takes one tensor and gives one, and what it costs to keep.

    Attributes:
        chain: The network's own child that it is, or is part of.
        path: Its name.
        given: Bytes of its input.
        saved: Bytes that backward needs of it, its input among them.
    """

    chain: str
    path: str
    given: int
    saved: int


class Plan(NamedTuple):
    """Which units are computed again together, and what that is estimated to take.

    Attributes:
        segments: Neighbours, by their indices: from the first, up to the second.
        peak: Bytes of activations at most.
        whole: The same with everything kept.
    """

    segments: tuple[tuple[int, int], ...]
    peak: int
    whole: int


def find_units(make: Callable[[], nn.Module], shape: Shape) -> list[Unit]:
    """Return a network's units in the order in which they run, measured without memory.

    Raises:
        RecipeError: It has none.
    """
    with torch.device("meta"):
        network, images = make().train(), torch.empty(shape)
    paths = {module: (chain, path) for chain, path, module in _candidates(network)}
    meter = _Meter()
    for module in paths:
        module.register_forward_pre_hook(meter.enter)
        module.register_forward_hook(meter.leave)
    with torch.autograd.graph.saved_tensors_hooks(meter.save, lambda tensor: tensor):
        network(images)
    units = [Unit(*paths[module], *sizes) for module, sizes in meter.sizes.items()]
    if not units:
        raise RecipeError("--memonger: the network has no blocks that could be computed again")
    return units


def _candidates(network: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    for chain, child in network.named_children():
        if next(child.children(), None) is not None:
            for path, module in _flattened(chain, child):
                yield chain, path, module


def _flattened(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the blocks of a row of blocks, rows within it opened; a row of layers is one block."""
    children = list(module.named_children())
    row = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    if row and all(next(child.children(), None) is not None for _, child in children):
        for name, child in children:
            yield from _flattened(f"{path}.{name}", child)
    else:
        yield path, module


class _Meter:
    """Counts what each unit saves; the same memory saved again counts once."""

    def __init__(self) -> None:
        self.sizes: dict[nn.Module, tuple[int, int]] = {}
        self._inside: nn.Module | None = None
        self._seen: set[int] = set()
        self._kept: list[Tensor] = []  # an address is unique while its tensor lives

    def enter(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._inside = module
        self.sizes[module] = (given[0].untyped_storage().nbytes(), 0)

    def leave(self, *_: Any) -> None:
        self._inside = None

    def save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if self._inside is not None and not isinstance(tensor, nn.Parameter):
            if storage._cdata not in self._seen:
                given, saved = self.sizes[self._inside]
                self.sizes[self._inside] = (given, saved + storage.nbytes())
            self._seen.add(storage._cdata)
            self._kept.append(tensor)
        return tensor


def plan(units: Sequence[Unit], budget: float = 0) -> Plan:
    """Return which units to compute again: as few as a budget of bytes allows, or the least memory.

    Raises:
        RecipeError: The budget cannot be kept to; the message says what can.
    """
    whole = sum(unit.saved for unit in units)
    if budget >= whole:
        return Plan((), whole, whole)
    low, high = 0.0, float(whole)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _segments(units, middle) else (middle, high)
    if budget and budget < high:
        raise RecipeError(
            f"--memonger {budget / GIB:.2f}: {high / GIB:.2f} GiB of activations are the least"
        )
    for count in range(len(units) + 1):
        rest = sum(unit.saved for unit in units[count:])
        found = _segments(units[:count], (budget or high) - rest, (budget or high))
        if found is not None:
            return Plan(found, int(budget or high), whole)
    raise AssertionError("the search found a limit that can be kept to")


def _segments(
    units: Sequence[Unit], limit: float, peak: float | None = None
) -> tuple[tuple[int, int], ...] | None:
    """Return the stretches that keep least, where none needs more than `peak`; None if too much.

    `limit` is for what is kept when forward is over. The least for the first units is the least
    for fewer, and the input of one more stretch.
    """
    peak = limit if peak is None else peak
    least: list[float] = [0.0]
    begins = [0]
    for end in range(1, len(units) + 1):
        best, begin, inside = float("inf"), -1, 0
        for first in range(end - 1, -1, -1):
            unit = units[first]
            if unit.chain != units[end - 1].chain or inside > peak:
                break
            inside += unit.saved
            kept = least[first] + unit.given
            if kept < best and least[first] + max(inside, unit.given) <= peak:
                best, begin = kept, first
        least.append(best)
        begins.append(begin)
    if least[-1] > limit:
        return None
    found, end = [], len(units)
    while end:
        found.append((begins[end], end))
        end = begins[end]
    return tuple(reversed(found))


def recompute(network: nn.Module, units: Sequence[Unit], chosen: Plan) -> None:
    """Let a network compute again, in training, what a plan says; names and state stay."""
    segments = dict(chosen.segments)
    chains: dict[str, list[_Stretch]] = {}
    index = 0
    while index < len(units):
        end = segments.get(index, index + 1)
        modules = [network.get_submodule(unit.path) for unit in units[index:end]]
        stretch = _Stretch(modules, again=index in segments, alone=units[index].path)
        chains.setdefault(units[index].chain, []).append(stretch)
        index = end
    for chain, stretches in chains.items():
        row = network.get_submodule(chain)
        if len(stretches) == 1 and stretches[0].alone == chain:
            own = type(row).forward.__get__(row)
            row.forward = partial(_forward, [stretches[0]._replace(steps=[own])])
        else:
            row.forward = partial(_forward, [one._replace(steps=one.modules) for one in stretches])


class _Stretch(NamedTuple):
    modules: list[nn.Module]
    again: bool
    alone: str
    steps: Sequence[Callable[[Tensor], Tensor]] = ()

    def run(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def _forward(stretches: Sequence[_Stretch], x: Tensor) -> Tensor:
    for stretch in stretches:
        if stretch.again and torch.is_grad_enabled() and stretch.modules[0].training:
            contexts = partial(_contexts, stretch.modules)
            x = checkpoint(stretch.run, x, use_reentrant=False, context_fn=contexts)
        else:
            x = stretch.run(x)
    return x


def _contexts(
    modules: Sequence[nn.Module],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_aside(modules)


@contextmanager
def _statistics_aside(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let BatchNorm work on copies of its statistics."""
    layers = [
        layer for one in modules for layer in one.modules() if isinstance(layer, nn.BatchNorm2d)
    ]
    buffers = [dict(layer._buffers) for layer in layers]
    for layer, own in zip(layers, buffers, strict=True):
        layer._buffers.update({k: None if v is None else v.clone() for k, v in own.items()})
    try:
        yield
    finally:
        for layer, own in zip(layers, buffers, strict=True):
            layer._buffers.update(own)
