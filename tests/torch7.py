"""A Torch7 file converted, beside what Torch7 gave and what its definitions give."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.t7 import T7Source, reader
from converters.t7_oracle import run as defined
from models.build import build
from models.errors import FormatError, UnsupportedLayer
from models.graph import Array, Graph, Input, Network, Shape, numbered
from models.ops import infer
from models.verify import run
from tests.t7_writer import Module, write

# Both compute in float64; weights that a rule makes anew are rounded to float32 once (2^-24), and
# the C code of some layers computes places in float32.
RELATIVE = 1e-6


def nn(name: str, **fields: Any) -> Module:
    """Return a module of torch/nn."""
    return Module(f"nn.{name}", **fields)


def box(name: str, *modules: Any, **fields: Any) -> Module:
    """Return a container of torch/nn."""
    return Module(f"nn.{name}", modules=list(modules), **fields)


def numbers(*shape: int) -> Array:
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def each(cases: Mapping[str, tuple[Any, ...]]) -> pytest.MarkDecorator:
    """Parametrize a test by a table: name, then `module` and the shapes of its inputs."""
    rows = [pytest.param(row[0], row[1:], id=name) for name, row in cases.items()]
    return pytest.mark.parametrize(("module", "shapes"), rows)


def arrays(found: Mapping[str, Array], stem: str) -> list[Array]:
    """Return `input`, or `input_1`, `input_2_1`, ... of a fixture in order."""
    names = [name.split("_") for name in found if "float64" not in name]
    places = sorted([int(part) for part in parts[1:]] for parts in names if parts[0] == stem)
    return [found["_".join([stem, *map(str, place)])] for place in places]


def read_arrays(path: Path) -> dict[str, Array]:
    """Return all arrays of an `.npz`, which is closed again."""
    with np.load(path) as found:
        return dict(found)


def lowered(module: Any, shapes: Sequence[Shape]) -> Network:
    """Return the network of a module that is written for it."""
    with tempfile.TemporaryDirectory() as folder:
        return T7Source(write(Path(folder) / "made.t7", module)).lower(tuple(shapes), infer).network


def outputs(module: Any, inputs: Sequence[Array]) -> list[Array]:
    """Return what the converted module gives in float64."""
    network = lowered(module, [one.shape for one in inputs])
    return run(build(network).double(), inputs, torch.float64)


def definition(module: Any, inputs: Sequence[Array]) -> list[Array]:
    """Return what the definitions of its layers give."""
    with tempfile.TemporaryDirectory() as folder:
        root = reader.read(write(Path(folder) / "made.t7", module))
        return list(defined(root, inputs, "made.t7")[-1].outputs)


def check(module: Module, shapes: Sequence[Shape]) -> list[Array]:
    """Hold a module, as a whole file and inside another, against its definition; return that."""
    inputs = [numbers(*shape) for shape in shapes]
    theirs = definition(module, inputs)
    for whole in (module, Module("nn.Sequential", modules=[module])):
        ours = outputs(whole, inputs)
        assert [one.shape for one in ours] == [one.shape for one in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert np.isfinite(other).all()
            np.testing.assert_allclose(one, other, rtol=0, atol=RELATIVE * np.abs(other).max())
    return theirs


def check_refused(module: Any, shapes: Sequence[Shape], message: str) -> None:
    """Expect a module to be refused at these input shapes, with that message."""
    with pytest.raises((UnsupportedLayer, FormatError), match=message):
        lowered(module, shapes)


def side_by_side(networks: Sequence[Network]) -> Network:
    """Return one network of several, each with inputs and outputs of its own, in order."""
    inputs: list[Input] = []
    nodes, outputs, tensors, ties = [], [], {}, []
    total = sum(len(network.graph.inputs) for network in networks)
    for index, (graph, owned) in enumerate(networks):
        names = {}
        for given in graph.inputs:
            names[given.name] = numbered("input", total)[len(inputs)]
            inputs.append(Input(names[given.name], given.shape))
        for node in graph.nodes:
            names[node.name] = f"network{index}.{node.name}"
            sources = tuple(names[source] for source in node.inputs)
            nodes.append(node._replace(name=names[node.name], inputs=sources))
        outputs += [names[output] for output in graph.outputs]
        tensors.update({f"network{index}.{name}": array for name, array in owned.items()})
        ties += [(f"network{index}.{one}", f"network{index}.{other}") for one, other in graph.ties]
    graph = Graph(tuple(inputs), tuple(nodes), tuple(outputs), ties=tuple(ties))
    return Network(graph, tensors)
