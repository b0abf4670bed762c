"""Small files to start fuzzing from: every kind of record, in every layout."""

from collections.abc import Iterator

import numpy as np

from converters.t7.objects import NATIVE, TEXT, Layout
from tests.oracles import golden
from tests.t7_writer import Module, Raw, Shared, Sizes, View, t7

LAYOUTS = (NATIVE, Layout("<", 4), Layout(">", 8), Layout(">", 4), TEXT)
MAX_SEED = 1 << 12

_FLOATS = Shared(np.linspace(-1, 1, 12, dtype="f4"))
_SHARED = {"x": 1.5}
VALUES = [
    None,
    [True, -0.0, float("nan"), "text", b"\xff", {}, {True: 1.0, 2.5: "x"}],
    [_SHARED, _SHARED],
    [
        View(_FLOATS, (2, 3), (3, 1)),
        View(_FLOATS, (3, 4), (1, 3)),
        View(_FLOATS, (2, 2), (0, 1), 7),
    ],
    [np.arange(3).astype(kind) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1")],
    [View(None, (), ()), Sizes(), Sizes(-1, 4)],
    Module("nn.Sequential", train=False, modules=[Module("nn.Linear", weight=np.ones((2, 2)))]),
    Raw("torch.Generator", bytes(2544)),
]


def seeds() -> Iterator[bytes]:
    """Yield what our writer makes in each layout, and the small files that Torch7 wrote."""
    for layout in LAYOUTS:
        for value in VALUES:
            yield t7(value, layout)
    for folder in ("serialization", "malformed"):
        for path in sorted(golden(f"torch7/{folder}").glob("*.t7")):
            if path.stat().st_size <= MAX_SEED:
                yield path.read_bytes()


def mxnet_seeds() -> Iterator[bytes]:
    """Yield the small `.params` files and symbols that MXNet wrote, damaged ones too."""
    for folder in ("ndarray", "malformed"):
        for pattern in ("*.params", "*-symbol.json"):
            for path in sorted(golden(f"mxnet/{folder}").glob(pattern)):
                if path.stat().st_size <= 2 * MAX_SEED:
                    yield path.read_bytes()
