"""Torch7's memory: random networks of views and in-place layers give what they are to."""

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from models.errors import FormatError, UnsupportedLayer
from models.graph import Array, Shape
from tests.t7_writer import Module, Sizes
from tests.torch7 import RELATIVE, definition, outputs

# What flows between modules, as far as drawing the next one needs it: a shape, or a table.
Flow: TypeAlias = "Shape | list[Flow]"
EXAMPLES = int(os.environ.get("RELUME_MEMORY_EXAMPLES", "500"))
MAX_MODULES = 24


class Network:
    """A network while it is drawn: modules made so far, which may be used again."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.made: list[tuple[Module, Flow, Flow]] = []
        self.anywhere: list[Module] = []  # that take a tensor of any shape and leave its shape

    def module(self, given: Flow, depth: int) -> tuple[Module, Flow]:
        """Return a module that takes `given`, and what it gives."""
        again = [(module, gives) for module, taken, gives in self.made if taken == given]
        if isinstance(given, tuple):
            again += [(module, given) for module in self.anywhere]
        if again and self.draw(st.integers(0, 2)) == 0:
            return self.draw(st.sampled_from(again))
        made = self.draw(st.sampled_from(self._kinds(given, depth)))(self, given, depth)
        if made is None:
            return Module("nn.Identity"), given
        if made[0].class_name in _ANYWHERE:
            self.anywhere.append(made[0])
        self.made.append((made[0], given, made[1]))
        return made

    def _kinds(self, given: Flow, depth: int) -> "list[Callable[[Network, Flow, int], Made]]":
        kinds = [*(_ON_TABLE if isinstance(given, list) else _ON_TENSOR)]
        if not depth or len(self.made) >= MAX_MODULES:
            return kinds
        kinds += [sequential, sequential, concat_table, concat_table]
        if isinstance(given, list):
            return kinds + [parallel_table, map_table]
        return kinds + [branch, copied, again] * 4


Made: TypeAlias = "tuple[Module, Flow] | None"


def sequential(net: Network, given: Flow, depth: int) -> Made:
    modules, gives = [], given
    for _ in range(net.draw(st.integers(1, 4))):
        module, gives = net.module(gives, depth - 1)
        modules.append(module)
    return Module("nn.Sequential", modules=modules), gives


def branch(net: Network, given: Flow, depth: int) -> Made:
    """Look at a part or in another way, perhaps in two steps, and change what is seen."""
    modules, gives = [], given
    for _ in range(net.draw(st.integers(0, 2))):
        if made := net.draw(st.sampled_from(_VIEWS))(net, gives, 0):
            modules.append(made[0])
            gives = made[1]
    changed = net.draw(st.sampled_from(_IN_PLACE))
    return Module("nn.Sequential", modules=[*modules, changed]), gives


def copied(net: Network, given: Flow, depth: int) -> Made:
    """Look at what a layer gave that others have as well: its next call changes that."""
    modules, gives = [net.draw(st.sampled_from(_COPYING))], given
    if made := net.draw(st.sampled_from(_VIEWS))(net, gives, 0):
        modules.append(made[0])
        gives = made[1]
    return Module("nn.Sequential", modules=modules), gives


def again(net: Network, given: Flow, depth: int) -> Made:
    """Run what ran before on other numbers."""
    known = [(module, gives) for module, taken, gives in net.made if taken == given]
    if not known:
        return None
    module, gives = net.draw(st.sampled_from(known[:-4:-1]))
    other = Module("nn.MulConstant", constant_scalar=-3)
    return Module("nn.Sequential", modules=[other, module]), gives


def concat_table(net: Network, given: Flow, depth: int) -> Made:
    made = [net.module(given, depth - 1) for _ in range(net.draw(st.integers(1, 3)))]
    return Module("nn.ConcatTable", modules=[one for one, _ in made]), [flow for _, flow in made]


def parallel_table(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, list)
    made = [net.module(one, depth - 1) for one in given]
    return Module("nn.ParallelTable", modules=[one for one, _ in made]), [flow for _, flow in made]


def map_table(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, list)
    if any(one != given[0] for one in given):
        return None
    module, gives = net.module(given[0], depth - 1)
    return Module("nn.MapTable", modules=[module], module=module), [gives] * len(given)


def parallel(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, tuple)
    if len(given) < 2 or given[0] > 3:
        return None
    made = [net.module(given[1:], depth - 1) for _ in range(given[0])]
    shapes = [flow for _, flow in made]
    if any(isinstance(shape, list) or shape != shapes[0] for shape in shapes):
        return None
    joined = (shapes[0][0] * len(shapes), *shapes[0][1:])
    modules = [one for one, _ in made]
    return Module("nn.Parallel", modules=modules, inputDimension=1, outputDimension=1), joined


# One object each, so that networks share them as well.
_IN_PLACE = (
    Module("nn.ReLU", inplace=True, threshold=0, val=0),
    Module("nn.Threshold", inplace=True, threshold=0.25, val=-1),
    Module("nn.MulConstant", inplace=True, constant_scalar=2),
    Module("nn.MulConstant", inplace=True, constant_scalar=-1),
    Module("nn.AddConstant", inplace=True, constant_scalar=0.5),
    Module("nn.Dropout", inplace=True, p=0.5),
)
_COPYING = (
    Module("nn.MulConstant", constant_scalar=3),
    Module("nn.Contiguous"),
    Module("nn.Copy"),
)


def pointwise(net: Network, given: Flow, depth: int) -> Made:
    """Return a layer of its own, in place or not."""
    kind = net.draw(st.sampled_from(_IN_PLACE))
    return Module(kind.class_name, **{**kind.fields, "inplace": net.draw(st.booleans())}), given


def in_place(net: Network, given: Flow, depth: int) -> Made:
    """Return a layer that others may have had as well."""
    return net.draw(st.sampled_from(_IN_PLACE)), given


def entry(net: Network, given: Flow, depth: int) -> Made:
    """Return a view of one entry of a dimension, which may have gaps."""
    assert isinstance(given, tuple)
    if len(given) < 2:
        return None
    dim = net.draw(st.integers(0, len(given) - 1))
    index = net.draw(st.integers(0, given[dim] - 1))
    split = Module("nn.SplitTable", dimension=dim + 1)
    modules = [split, Module("nn.SelectTable", index=index + 1)]
    return Module("nn.Sequential", modules=modules), (*given[:dim], *given[dim + 1 :])


def reshaped(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, tuple)
    count = int(np.prod(given))
    fronts = [size for size in range(1, count + 1) if count % size == 0]
    front = net.draw(st.sampled_from(fronts))
    rest = count // front
    shape = net.draw(st.sampled_from([(count,), (front, rest), (front, 1, rest)]))
    if net.draw(st.booleans()):
        return Module("nn.Reshape", size=Sizes(*shape), batchMode=False), shape
    if shape[0] == 1:  # a batch of one, which View drops
        return None
    return Module("nn.View", size=Sizes(*shape)), shape


def singleton(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, tuple)
    if len(given) < 4 and net.draw(st.booleans()):
        pos = net.draw(st.integers(0, len(given)))
        wider = (*given[:pos], 1, *given[pos:])
        return Module("nn.Unsqueeze", pos=pos + 1, numInputDims=len(given)), wider
    if net.draw(st.booleans()):
        dim = net.draw(st.integers(0, len(given) - 1))
        alone = given[dim] != 1 or len(given) == 1
        narrower = given if alone else (*given[:dim], *given[dim + 1 :])
        return Module("nn.Squeeze", dim=dim + 1), narrower
    return Module("nn.Squeeze"), tuple(size for size in given if size != 1) or (1,)


def transpose(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, tuple)
    if len(given) < 2:
        return None
    first, second = (net.draw(st.integers(0, len(given) - 1)) for _ in range(2))
    sizes = list(given)
    sizes[first], sizes[second] = sizes[second], sizes[first]
    return Module("nn.Transpose", permutations=[[first + 1, second + 1]]), tuple(sizes)


def part(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, tuple)
    dim = net.draw(st.integers(0, len(given) - 1))
    index = net.draw(st.integers(0, given[dim] - 1))
    if len(given) > 1 and net.draw(st.booleans()):
        shape = (*given[:dim], *given[dim + 1 :])
        return Module("nn.Select", dimension=dim + 1, index=index + 1), shape
    length = net.draw(st.integers(1, given[dim] - index))
    shape = (*given[:dim], length, *given[dim + 1 :])
    return Module("nn.Narrow", dimension=dim + 1, index=index + 1, length=length), shape


def replicate(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, tuple)
    if len(given) > 3:
        return None
    dim, count = net.draw(st.integers(0, len(given))), net.draw(st.integers(1, 2))
    shape = (*given[:dim], count, *given[dim:])
    return Module("nn.Replicate", nfeatures=count, dim=dim + 1), shape


def split_table(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, tuple)
    if len(given) < 2:
        return None
    dim = net.draw(st.integers(0, len(given) - 1))
    if given[dim] > 4:
        return None
    shape = (*given[:dim], *given[dim + 1 :])
    return Module("nn.SplitTable", dimension=dim + 1), [shape] * given[dim]


def plain(name: str) -> Callable[[Network, Flow, int], Made]:
    return lambda net, given, depth: (Module(name), given)


def normalised(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, tuple)
    if len(given) > 2:
        return None
    statistics = {"running_mean": np.zeros(given[-1]), "running_var": np.full(given[-1], 4.0)}
    # a single sample becomes a batch, for all who hold it: what follows may not fit them then
    gives = given if len(given) == 2 else (1, *given)
    return Module("nn.BatchNormalization", eps=0, **statistics), gives


def added(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, list)
    if any(one != given[0] or isinstance(one, list) for one in given):
        return None
    inplace = net.draw(st.booleans())
    name = net.draw(st.sampled_from(["nn.CAddTable", "nn.CAddTable", "nn.CMaxTable"]))
    return Module(name, inplace=inplace), given[0]


def join_table(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, list)
    first = given[0]
    if any(isinstance(one, list) or one[1:] != first[1:] for one in given):
        return None
    return Module("nn.JoinTable", dimension=1), (sum(one[0] for one in given), *first[1:])


def select_table(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, list)
    index = net.draw(st.integers(0, len(given) - 1))
    return Module("nn.SelectTable", index=index + 1), given[index]


def narrow_table(net: Network, given: Flow, depth: int) -> Made:
    assert isinstance(given, list)
    start = net.draw(st.integers(0, len(given) - 1))
    length = net.draw(st.integers(1, len(given) - start))
    made = Module("nn.NarrowTable", offset=start + 1, length=length)
    return made, given[start : start + length]


def flatten_table(net: Network, given: Flow, depth: int) -> Made:
    def flat(flow: Flow) -> list[Flow]:
        return [leaf for one in flow for leaf in flat(one)] if isinstance(flow, list) else [flow]

    return Module("nn.FlattenTable"), flat(given)


_ANYWHERE = ("nn.ReLU", "nn.MulConstant", "nn.Tanh", "nn.Contiguous", "nn.Copy")
_VIEWS = (reshaped, entry, singleton, replicate, plain("nn.GradientReversal"))
_ON_TENSOR = (
    *(pointwise, in_place, in_place, in_place, *_VIEWS, transpose, part, split_table, normalised),
    *(plain(name) for name in ("nn.Identity", "nn.Contiguous", "nn.Contiguous", "nn.Copy")),
)
_ON_TABLE = (added, added, join_table, select_table, narrow_table, flatten_table)


@st.composite
def networks(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[Module, Array]:
    """Return a network and an input for it."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple))
    net = Network(draw)
    modules: list[Module] = []
    flow: Flow = shape
    for _ in range(draw(st.integers(1, 3))):
        made = [net.module(flow, 2) for _ in range(draw(st.integers(1, 4)))]
        # beside what was there before, so that it shows when it is changed
        kept = [*made, (Module("nn.Identity"), flow)]
        modules.append(Module("nn.ConcatTable", modules=[one for one, _ in kept]))
        flow = [gives for _, gives in kept]
        if draw(st.booleans()):
            module, flow = net.module(flow, 2)
            modules.append(module)
    # different numbers of both signs: what is in another place shows
    numbers = np.arange(1, np.prod(shape) + 1) / 4 * (-1.0) ** np.arange(np.prod(shape))
    return Module("nn.Sequential", modules=modules), numbers.reshape(shape)


def results(run: Callable[[Any, Any], list[Array]], module: Module, x: Array) -> Any:
    try:
        return run(module, [x])
    except (UnsupportedLayer, FormatError) as error:
        return error


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 1000,
    suppress_health_check=list(HealthCheck),
)
@given(networks())
def test_shared_memory_is_followed(drawn: tuple[Module, Array]) -> None:
    """A converted network is refused, or gives what Torch7's tensors hold at the end."""
    module, x = drawn
    theirs = results(definition, module, x)
    ours = results(outputs, module, x)
    if isinstance(theirs, Exception):
        event("Torch7 refuses")
        return
    if isinstance(ours, Exception):
        event(f"refused: {str(ours).split(': ')[-1][:60]}")
        return
    event("compared")
    assert [one.shape for one in ours] == [one.shape for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=RELATIVE * np.abs(other).max())
