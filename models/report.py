"""What verification measured; stored in the artifact and shown to whoever runs it."""

import json
from dataclasses import asdict, dataclass

from models.errors import ArtifactError


@dataclass(frozen=True)
class Measured:
    """One comparison with the float64 run of the same network.

    Attributes:
        inputs: Shapes of the inputs that were fed.
        noise: Largest difference of the module's own float32 runs.
        max_abs: Largest difference of the artifact in onnxruntime; None without an ONNX file.
        bound: What `max_abs` must not exceed: twice the noise, or some float32 steps of the output.
        top5_equal: Whether the five largest outputs are the same; None unless there are classes.
    """

    inputs: tuple[tuple[int, ...], ...]
    noise: float
    max_abs: float | None
    bound: float
    top5_equal: bool | None


@dataclass(frozen=True)
class Report:
    """All comparisons of a conversion, and the ONNX opset they hold for (None without ONNX)."""

    measured: tuple[Measured, ...]
    opset: int | None

    @property
    def noise(self) -> float:
        """Largest difference between the module's float32 and float64 runs."""
        return max(one.noise for one in self.measured)

    @property
    def max_abs(self) -> float:
        """Largest difference of what was written: the ONNX file's, or else the module's own."""
        return max(one.noise if one.max_abs is None else one.max_abs for one in self.measured)

    @property
    def top5_equal(self) -> bool | None:
        """Whether the five best classes agreed everywhere; None where there are no five classes."""
        known = [one.top5_equal for one in self.measured if one.top5_equal is not None]
        return all(known) if known else None

    def to_json(self) -> str:
        """Return the report as JSON text that `from_json` reads back to an equal value."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str = "report") -> "Report":
        """Read a report; `where` names its file in errors.

        Raises:
            ArtifactError: The text is no report.
        """
        try:
            fields = json.loads(text)
            if not fields["measured"]:
                raise ValueError("nothing was measured")
            measured = tuple(
                _checked(Measured(**{**one, "inputs": tuple(map(tuple, one["inputs"]))}))
                for one in fields["measured"]
            )
            return cls(measured, fields["opset"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{where}: damaged report: {error}") from error


def _checked(measured: Measured) -> Measured:
    """Return it if its values are of their types."""
    numbers = [measured.noise, measured.bound, 0 if measured.max_abs is None else measured.max_abs]
    if not all(type(one) in (int, float) for one in numbers):
        raise TypeError(f"found {numbers}, expected numbers")
    if measured.top5_equal not in (None, True, False):
        raise TypeError(f"found {measured.top5_equal!r}, expected true, false or null")
    return measured
