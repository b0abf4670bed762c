"""An operator's settings: strings in the file, read as its parameters are declared.

Source: dmlc-core include/dmlc/parameter.h; apache/mxnet include/mxnet/tuple.h.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from models.errors import FormatError

MAX_DIGITS = 1000  # of all numbers of a setting; Python reads no more than 4,300 of one
LARGEST = (1 << 31) - 1  # MXNet keeps them in an int
# What float32 holds in full precision, between its bounds and next to 0. MXNet refuses the rest,
# or makes it infinite.
FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127
# What users and schedulers attach to nodes; no number depends on it. Underscores before and after
# mark them in newer files. Source: src/c_api/c_api_symbolic.cc, `kHiddenKeys`.
_HIDDEN = re.compile(
    r"__\w+__|(\w+_)?(ctx_group|lr_mult|wd_mult|force_mirroring|mirror_stage|profiler_scope)"
)
_SIZES = re.compile(r"[(\[]?\s*(-?\d+L?(\s*,\s*-?\d+L?)*\s*,?)?\s*[)\]]?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Settings:
    """The attributes of one operator, each asked for once by its rule."""

    def __init__(self, path: Path, at: str, given: Mapping[str, str]) -> None:
        self._path = path
        self._at = at
        self._given = given
        self._left = {key for key in given if not _HIDDEN.fullmatch(key)}

    def text(self, key: str, default: str | None = None) -> str:
        """Return a word, such as a kind of activation."""
        value = self._value(key)
        if value is None and default is None:
            raise self.error(key, "nothing", "a value: it has no default")
        return value if value is not None else str(default)

    def one_of(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """Return a word that is one of those allowed."""
        value = "None" if self._given.get(key) == "None" else self.text(key, default)
        if value not in allowed:
            raise self.error(key, value, f"one of {', '.join(allowed)}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        return self._whole(key, value)

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number that float32 holds."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        if value is None or len(value) > MAX_DIGITS or not _NUMBER.fullmatch(value):
            raise self.error(key, value or "nothing", "a number")
        number = float(value)
        if number and not FLOAT32[0] <= abs(number) <= FLOAT32[1]:
            raise self.error(key, value, "a number that float32 holds")
        return number

    def flag(self, key: str, *, default: bool) -> bool:
        """Return whether something is on."""
        value = self._value(key)
        if value is None:
            return default
        if value.lower() not in _FLAGS:
            raise self.error(key, value, "True or False")
        return _FLAGS[value.lower()]

    def sizes(
        self,
        key: str,
        count: int | None = None,
        default: tuple[int, ...] = (),
        *,
        least: int = -LARGEST,
    ) -> tuple[int, ...]:
        """Return whole numbers from `least` on, `count` of them; the default where there are none.

        A default of other than `count` numbers says that there have to be some.
        """
        value = self._value(key) or "()"
        if len(value) > MAX_DIGITS or not _SIZES.fullmatch(value):
            raise self.error(key, value, "whole numbers such as (3, 3)")
        found = tuple(int(one) for one in re.findall(r"-?\d+", value)) or default
        if count is not None and len(found) != count:
            raise self.error(key, value, f"{count} numbers")
        if any(abs(one) > LARGEST for one in found):
            raise self.error(key, value, f"numbers up to {LARGEST:,}")
        if found and min(found) < least:
            raise self.error(key, value, f"numbers from {least} on")
        return found

    def optional(self, key: str) -> tuple[int | None, ...]:
        """Return whole numbers of which some may be None."""
        value = self._value(key) or "()"
        parts = [part.strip() for part in value.strip("()[] ").split(",")]
        return tuple(
            None if part == "None" else self._whole(key, part.removesuffix("L"))
            for part in parts
            if part
        )

    def has(self, key: str) -> bool:
        """Tell whether a setting has a value."""
        return self._given.get(key, "None") != "None"

    def neutral(self, *keys: str) -> None:
        """Say that settings change no number: memory, speed, gradients."""
        self._left.difference_update(keys)

    def check_all_read(self) -> None:
        """Raise FormatError for settings that the rule does not know, as MXNet does."""
        if self._left:
            keys = sorted(self._left)
            raise self.error(keys[0], self._given[keys[0]], "no such setting for this operator")

    def error(self, key: str, found: str, expected: str) -> FormatError:
        """Return the error that says what is wrong with one setting."""
        return FormatError(self._path, self._at, found=f"{key} = {found[:60]}", expected=expected)

    def _value(self, key: str) -> str | None:
        self._left.discard(key)
        value = self._given.get(key)
        return None if value is None or value == "None" else value.strip()

    def _whole(self, key: str, value: str | None) -> int:
        if value is None or len(value) > MAX_DIGITS or not _WHOLE.fullmatch(value):
            raise self.error(key, value or "nothing", "a whole number")
        if abs(int(value)) > LARGEST:
            raise self.error(key, value, f"numbers up to {LARGEST:,}")
        return int(value)
