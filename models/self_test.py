"""Two pictures that anybody can make, and what a network gives for them.

The answers are the network's in float64, written into the artifact when it is made. Whatever runs
the artifact later, on whatever machine, is held against them before it answers anybody.
"""

import base64
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ArtifactError, ParityError
from models.spec import InputSpec

SCHEMA = 1
PICTURES = 2  # two, so that rows that are mixed up are noticed

# An engine of float32 sums in another order than torch, or by another algorithm (Winograd).
# onnxruntime and OpenVINO need 0.3 to 0.8 of the bound on the full-size networks of the tests; a
# GPU and other processors get ten times that.
FLOAT32_BOUNDS = 8
# A lower precision is judged by the share of the whole answer that is off: a bfloat16 keeps 8 bits,
# a float16 11, and the errors of many layers add up: 0.01 to 0.07 was measured for bf16. What it
# means for real pictures `relume verify --precision` and `relume quantize` measure; this only tells
# a working engine from a broken one.
SHARES = {"fp16": 0.05, "bf16": 0.25, "int8": 0.5}

Floats = NDArray[np.float32]


def pictures(spec: InputSpec) -> Floats:
    """Return the pictures as the network takes them: 2 x 3 x H x W.

    Rings of growing fineness, so that every frequency is there, from whole numbers alone: channel c
    of pixel (y, x) in picture p is `((y*y + x*x) * (3 + p) // 64 + (p + 1) * x + 85 * c) % 256`.
    They are scaled and normalised as the spec says, neither resized nor cropped.
    """
    height, width = spec.crop
    y, x = np.ogrid[:height, :width]
    mean, std = (np.array(value, np.float32)[:, None, None] for value in (spec.mean, spec.std))
    levels = (np.arange(256) * spec.scale).astype(np.float32)
    rings = [
        [((y * y + x * x) * (3 + one) // 64 + (one + 1) * x + 85 * channel) % 256]
        for one in range(PICTURES)
        for channel in range(3)
    ]
    pixels = np.array(rings).reshape(PICTURES, 3, height, width)
    found: Floats = (levels[pixels] - mean) / std
    return found


@dataclass(frozen=True)
class SelfTest:
    """What the network gives for the pictures.

    Attributes:
        outputs: 2 x K, computed in float64.
        bound: What a float32 program may differ by: twice the noise of torch's own.
    """

    outputs: Floats
    bound: float

    def to_json(self) -> str:
        """Return the test as JSON text that `from_json` reads back to an equal value."""
        outputs = base64.b64encode(self.outputs.astype("<f4").tobytes()).decode()
        return json.dumps({"schema": SCHEMA, "outputs": outputs, "bound": self.bound})

    @classmethod
    def from_json(cls, text: str, where: str = "self_test") -> "SelfTest":
        """Read a test; `where` names its file in errors.

        Raises:
            ArtifactError: The text is no self-test, or one of a newer schema.
        """
        try:
            fields = json.loads(text)
            schema = fields["schema"]
            numbers = np.frombuffer(base64.b64decode(fields["outputs"], validate=True), "<f4")
            outputs = numbers.reshape(PICTURES, -1).astype(np.float32)
            bound = float(fields["bound"])
            if not (outputs.size and np.isfinite(outputs).all() and 0 <= bound < np.inf):
                raise ValueError("numbers that no network gives")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{where}: damaged self-test: {error}") from error
        if schema != SCHEMA:
            raise ArtifactError(
                f"{where}: self-test schema {schema!r}, this relume reads {SCHEMA}: "
                "use the relume that wrote it"
            )
        return cls(outputs, bound)

    def check(self, outputs: np.ndarray, precision: str, what: str) -> float:
        """Return how far an engine's outputs are off, as a share of what it may be.

        Args:
            outputs: N x K, for the pictures in turn.
            precision: What the engine computes in; `float32` is held to rounding.
            what: The engine, for messages.

        Raises:
            ParityError: It is off by more than that.
        """
        expected = self.outputs[np.arange(len(outputs)) % PICTURES]
        if outputs.shape != expected.shape:
            raise ParityError(
                f"{what}: gives {outputs.shape} for the self-test, expected {expected.shape}"
            )
        off = float(np.abs(outputs - expected).max())
        allowed = FLOAT32_BOUNDS * self.bound
        if precision != "float32":
            centred = self.outputs - self.outputs.mean(axis=1, keepdims=True)
            allowed = SHARES[precision] * float(np.abs(centred).max())
        if not off <= allowed:  # also when it is not a number
            raise ParityError(
                f"{what}: differs from the artifact's self-test by {off:.3g}, expected at most "
                f"{allowed:.3g}: this engine computes something else; choose another"
            )
        return off / allowed if allowed else 0.0
