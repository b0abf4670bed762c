"""The proof that comes with every conversion.

The reference is the module itself in float64, where rounding is a billion times smaller. How far
its own float32 runs are from that is this network's noise: what any correct float32 program may
differ by. One run may be lucky, so the noise is the largest of several: every batch, each by
torch's two own code paths (oneDNN and without). The artifact may differ by twice as much, because
it rounds in yet another order. Where the noise happens to be tiny (a single layer) a few float32
steps of the output's scale are allowed. A network of few outputs draws its noise few times even
so, and where BatchNorm scales up, folding it into convolutions, as the exporter does, is noisier
than either: one that seems to exceed its noise is measured again on more inputs, and a third way
with the module folded, and must hold on all of them.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import onnx
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from models.build import build
from models.checkpoint import Checkpoint
from models.errors import ParityError
from models.export import OPSET
from models.graph import Array, Graph, Shape
from models.report import Measured, Report
from models.self_test import SelfTest, pictures
from models.session import Session

NOISE_FACTOR = 2  # two float32 programs, each off by the noise, in opposite directions
SCALE_STEPS = 4  # float32 steps of the largest output: one for each of a short chain's roundings
EPSILON = float(np.finfo(np.float32).eps)
TOP = 5
DRAWS = 8  # sets of inputs; the largest error of so many scatters by well under twice


def verify(module: fx.GraphModule, graph: Graph, proto: onnx.ModelProto | None) -> Report:
    """Compare the module, and its ONNX form if given, with the module's float64 run.

    Inputs are seeded normal noise, in the units that the network takes, or its magnitudes where
    those alone give finite numbers (a logarithm, a root). A dynamic graph is fed batches of 1 and
    3, another one its own shapes.

    Raises:
        ParityError: A tensor or an output is not finite, or differs by more than its bound.
    """
    _check_tensors(module)
    exact = copy.deepcopy(module).double()
    session = Session(proto.SerializeToString()) if proto is not None else None
    sizes = (1, 3) if graph.dynamic else (None,)

    def drawn(seed: int, *others: nn.Module) -> list[_Run]:
        programs = _Programs(exact, (module, *others), session)
        return [_run(programs, _shapes(graph, size), seed) for size in sizes]

    found = _measured(drawn(0))
    if not all(map(_holds, found)):
        folded = fuse(module)
        found = _measured([one for seed in range(DRAWS) for one in drawn(seed, folded)])
    for one in found:
        if not _holds(one):
            raise ParityError(
                f"{_fed(one.inputs)}: onnxruntime differs from float64 by {one.max_abs:.3g}, "
                f"expected at most {one.bound:.3g}: the module's own float32 run differs by "
                f"{one.noise:.3g}"
            )
    return Report(tuple(found), None if proto is None else OPSET)


def self_test(checkpoint: Checkpoint) -> SelfTest | None:
    """Return what the network gives for the self-test's pictures; None if none can serve it.

    Raises:
        ParityError: What it gives is not finite.
    """
    spec, graph = checkpoint.spec.input, checkpoint.network.graph
    if spec is None or not (graph.dynamic or graph.inputs[0].shape[0] == 1):
        return None
    module = build(checkpoint.network)
    programs = _Programs(copy.deepcopy(module).double(), (module,), None)
    runs = []
    for row in pictures(spec):  # one at a time, for a network may take no more
        inputs = [row[None]]
        runs.append(_compare(programs, inputs, run(programs.exact, inputs, torch.float64)))
    outputs = np.concatenate([one.exact[0] for one in runs])
    noise = max(one.noise[0] for one in runs)
    bound = max(NOISE_FACTOR * noise, SCALE_STEPS * EPSILON * float(np.abs(outputs).max(initial=0)))
    return SelfTest(outputs.astype(np.float32), bound)


def _check_tensors(module: fx.GraphModule) -> None:
    broken = [name for name, one in module.state_dict().items() if not one.isfinite().all()]
    if broken:
        raise ParityError(f"{', '.join(broken)}: not finite, in the file itself")


class _Programs(NamedTuple):
    """What is run: the module in float64, in float32 and maybe folded, and its ONNX form."""

    exact: fx.GraphModule
    float32: tuple[nn.Module, ...]
    session: Session | None


class _Run(NamedTuple):
    """Outputs for the same inputs in float64, in float32 and from onnxruntime; float32's noise."""

    shapes: tuple[Shape, ...]
    exact: list[Array]
    ours: list[Array]
    onnx: list[Array] | None
    noise: list[float]  # one for each output


def _shapes(graph: Graph, batch: int | None) -> list[Shape]:
    return [given.shape if batch is None else (batch, *given.shape[1:]) for given in graph.inputs]


def run(
    module: torch.nn.Module, inputs: Sequence[Array], dtype: torch.dtype = torch.float32
) -> list[Array]:
    """Return the outputs of a module as arrays of that type; the inputs are not changed."""
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(array).to(dtype) for array in inputs))
    return [one.numpy() for one in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _run(programs: _Programs, shapes: list[Shape], seed: int) -> _Run:
    generator = np.random.default_rng(seed)
    inputs = [generator.standard_normal(shape, np.float32) for shape in shapes]
    reference = run(programs.exact, inputs, torch.float64)
    if not _are_finite(reference):
        inputs = [np.abs(one) for one in inputs]
        reference = run(programs.exact, inputs, torch.float64)
    return _compare(programs, inputs, reference)


def _compare(programs: _Programs, inputs: list[Array], reference: list[Array]) -> _Run:
    module, *others = programs.float32
    shapes = tuple(one.shape for one in inputs)
    ours = run(module, inputs)
    with _without_onednn():
        ways = [ours, run(module, inputs)]
    ways += [run(other, inputs) for other in others]
    noise = [max(each) for each in zip(*(_apart(way, reference) for way in ways), strict=True)]
    session = programs.session
    onnx_outputs = session.run(*inputs) if session is not None else None
    found = _Run(shapes, reference, ours, onnx_outputs, noise)
    if not _are_finite([*found.exact, *found.ours, *(found.onnx or ())]):
        raise ParityError(
            f"{_fed(found.shapes)}: outputs are not finite: numbers too large or too small for the "
            "network"
        )
    return found


def _are_finite(outputs: Sequence[Array]) -> bool:
    return all(bool(np.isfinite(one).all()) for one in outputs)


@contextmanager
def _without_onednn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the flags warn about Intel GPUs where there are none
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _fed(shapes: Sequence[Shape]) -> str:
    return "input " + " and ".join("x".join(map(str, shape)) for shape in shapes)


def _measured(runs: Sequence[_Run]) -> list[Measured]:
    """Hold every output against its own noise; what is reported is the one that comes closest."""
    noise = [max(several) for several in zip(*(one.noise for one in runs), strict=True)]
    found = []
    for one in runs:
        apart = _apart(one.ours if one.onnx is None else one.onnx, one.exact)
        bounds = [
            max(NOISE_FACTOR * own, SCALE_STEPS * EPSILON * float(np.abs(output).max(initial=0)))
            for own, output in zip(noise, one.exact, strict=True)
        ]
        worst = max(range(len(apart)), key=lambda index: apart[index] / (bounds[index] or 1.0))
        found.append(
            Measured(
                one.shapes,
                one.noise[worst],
                None if one.onnx is None else apart[worst],
                bounds[worst],
                _top5_equal(one.exact, one.ours if one.onnx is None else one.onnx),
            )
        )
    return found


def _holds(one: Measured) -> bool:
    return one.max_abs is None or one.max_abs <= one.bound


def _apart(ours: Sequence[Array], reference: Sequence[Array]) -> list[float]:
    """Return the largest difference of each output."""
    found = []
    for one, other in zip(ours, reference, strict=True):
        if one.shape != other.shape:
            raise ParityError(f"an output has shape {one.shape}, expected {other.shape}")
        with np.errstate(invalid="ignore"):  # infinity minus infinity: not finite, found by `_run`
            found.append(float(np.abs(one - other).max(initial=0)))
    return found


def _top5_equal(reference: Sequence[Array], ours: Sequence[Array]) -> bool | None:
    """Tell whether both rank the same five first; equal in float32 counts as equal.

    False within the bound is no error: classes that close may change places in any float32 program.
    """
    if len(reference) != 1 or reference[0].ndim != 2 or reference[0].shape[1] < TOP:
        return None
    exact = reference[0]
    best = np.sort(exact, axis=1)[:, ::-1][:, :TOP]
    ranked = np.argsort(-ours[0], axis=1, kind="stable")[:, :TOP]
    same = EPSILON * np.abs(exact).max(initial=0)
    return bool((np.abs(np.take_along_axis(exact, ranked, axis=1) - best) <= same).all())
