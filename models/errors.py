"""Every error a user can meet, one class for each reaction.

LegacyModelError            entry points print "error: <message> (relume explain PAGE)", return 1
├─ FormatError              bytes break their format: file, byte, found, expected
├─ UnsupportedLayer         layers that have no rule, or a setting that a rule cannot express
├─ WeightMismatch           tensors that are missing, unexpected or misshapen
├─ MisfitError              an operator refuses its arguments or inputs
├─ SpecError                no, or a contradictory, input convention; wrong number of labels
├─ ParityError              outputs differ by more than the derived bound
├─ ArtifactError            an artifact that is not ours, damaged, too new, or in the way
├─ ExportError              layers that ONNX cannot express; the .pt holds them all the same
├─ ImageError               an image that cannot be decoded
│  └─ ImageTooLarge         an image of more pixels than allowed
├─ DataError                a data set that cannot be used as it is: classes, labels, archives
├─ DeviceError              a device or runtime that was asked for and is not there
├─ RecipeError              a recipe, or a flag that changes one, that cannot be trained
├─ ResumeError              a snapshot that is not of this run, or cannot be read
├─ LogError                 a training log that holds no curve
├─ SettingError             a CLASSIFY_ setting of an impossible value (service/settings.py)
├─ Overloaded               the service's queue is full (service/pipeline.py)
└─ Refusal                  a request is refused, by a problem of its own (service/problems.py)
"""

import re
from collections.abc import Sequence
from pathlib import Path

SHOWN = 8  # names in a message


class LegacyModelError(Exception):
    """Base of all errors whose message is meant for the user.

    Each has a page with causes and cures, docs/errors/NAME.md, which `relume explain` prints. It
    takes the name of the class too, so that a traceback names the page already.
    """

    def __reduce__(self) -> tuple[object, ...]:
        """Let it cross to another process by its message, not by what the message was made of."""
        return _made_again, (type(self), str(self))

    @classmethod
    def page(cls) -> str:
        """Return the name of the page about this class: `format-error` for FormatError."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


def _made_again(kind: type[LegacyModelError], message: str) -> LegacyModelError:
    return kind.__new__(kind, message)


class FormatError(LegacyModelError):
    """The bytes of a file break its format."""

    def __init__(self, path: str | Path, at: int | str, *, found: str, expected: str) -> None:
        """Name the place (`at`: byte offset, or a layer path), what was there and what belongs."""
        place = f"byte {at:,}" if isinstance(at, int) else at
        super().__init__(f"{path}: {place}: found {found}, expected {expected}")


class UnsupportedLayer(LegacyModelError):
    """Layers that cannot be translated exactly, all of them at once."""

    def __init__(self, source: str | Path, layers: Sequence[tuple[str, str]]) -> None:
        """Collect `(path in the network, class or reason)` pairs of a file."""
        self.layers = tuple(layers)
        paths: dict[str, list[str]] = {}
        for path, what in layers:
            paths.setdefault(what, []).append(path or "the network itself")
        listed = "; ".join(f"{some(places)}: {what}" for what, places in paths.items())
        count = f"{len(layers)} layer{'s' if len(layers) != 1 else ''}"
        advice = (
            ". A rule for a layer is one function, see CONTRIBUTING.md; --only safetensors "
            "--verify none writes the tensors alone"
        )
        no_rule = any(" " not in what for what in paths)
        super().__init__(
            f"{source}: {count} cannot be converted exactly: {listed}{advice if no_rule else ''}"
        )


def some(names: Sequence[str], between: str = ", ") -> str:
    """Return the first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more


class WeightMismatch(LegacyModelError):
    """Tensors of a file and of a network do not fit each other, listed all at once."""

    def __init__(
        self,
        where: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Sequence[str] = (),
    ) -> None:
        """Collect the names; `misshapen` entries also say both shapes."""
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshapen = tuple(misshapen)
        lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
        parts = [f"{kind}: {some(names)}" for kind, names in lists.items() if names]
        super().__init__(f"{where}: tensors do not match: {'; '.join(parts)}")


class MisfitError(LegacyModelError):
    """An operator does not take the arguments or inputs it was given; callers say which layer."""


class SpecError(LegacyModelError):
    """It is not known how images enter the network, or the answers contradict each other."""


class ParityError(LegacyModelError):
    """An output differs from the original's by more than rounding explains."""


class ArtifactError(LegacyModelError):
    """An artifact is not ours, is damaged or too new, or a file is in the way."""


class ExportError(LegacyModelError):
    """ONNX cannot express a network exactly; its layers that stand against it are named."""


class ImageError(LegacyModelError):
    """An image cannot be decoded."""


class ImageTooLarge(ImageError):
    """An image has more pixels, or more bytes, than allowed."""


class DataError(LegacyModelError):
    """A data set cannot be used as it is: its classes, its labels or the archive it came in."""


class DeviceError(LegacyModelError):
    """A device or runtime was asked for and is not there."""


class RecipeError(LegacyModelError):
    """A recipe, or a flag that changes one, does not fit itself, the network, or the data."""


class ResumeError(LegacyModelError):
    """A run cannot go on from a snapshot: it is damaged, or of another run."""


class LogError(LegacyModelError):
    """A file is no training log that is known, or has no curve in it."""
