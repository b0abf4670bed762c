"""An operator's settings: strings in the file, read as its parameters are declared.

Source: dmlc-core include/dmlc/parameter.h; apache/mxnet include/mxnet/tuple.h.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from models.errors import FormatError

LARGEST = (1 << 31) - 1  # MXNet keeps them in an int
# What users and schedulers attach to nodes; no number depends on it. Underscores before and after
# mark them in newer files. Source: src/c_api/c_api_symbolic.cc, `kHiddenKeys`.
_HIDDEN = re.compile(
    r"__\w+__|(\w+_)?(ctx_group|lr_mult|wd_mult|force_mirroring|mirror_stage|profiler_scope)"
)
_SIZES = re.compile(r"[(\[]?\s*(-?\d+L?(\s*,\s*-?\d+L?)*\s*,?)?\s*[)\]]?")
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
        value = self.text(key, default)
        if value not in allowed:
            raise self.error(key, value, f"one of {', '.join(allowed)}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        (number,) = self._whole(key, value, count=1)
        return number

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self._value(key)
        if value is None and default is not None:
            return default
        try:
            number = float(value or "")
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.error(key, value or "nothing", "a number")
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
        self, key: str, count: int | None = None, default: tuple[int, ...] = ()
    ) -> tuple[int, ...]:
        """Return whole numbers, `count` of them; the default where there are none."""
        found = self._whole(key, self._value(key) or "()")
        if not found:
            return default
        if count is not None and len(found) != count:
            raise self.error(key, str(found), f"{count} numbers")
        return found

    def optional(self, key: str) -> tuple[int | None, ...]:
        """Return whole numbers of which some may be None."""
        value = self._value(key) or "()"
        parts = [part.strip() for part in value.strip("()[] ").split(",")]
        return tuple(
            None if part == "None" else self._whole(key, part, count=1)[0] for part in parts if part
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

    def _whole(self, key: str, value: str | None, count: int | None = None) -> tuple[int, ...]:
        if value is None or len(value) > 1000 or not _SIZES.fullmatch(value):
            wanted = "a whole number" if count == 1 else "whole numbers such as (3, 3)"
            raise self.error(key, value or "nothing", wanted)
        found = tuple(int(one) for one in re.findall(r"-?\d+", value))
        if count is not None and len(found) != count:
            raise self.error(key, value, f"{count} number")
        if any(abs(one) > LARGEST for one in found):
            raise self.error(key, value, f"numbers up to {LARGEST:,}")
        return found
