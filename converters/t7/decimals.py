"""A line of decimal numbers becomes an array, to the last bit what C's scanf would read.

Torch7 reads text into floats with `%g` and into doubles with `%lg`: the nearest float, or double,
to what is written. Here a block of numbers is read at once: `-1.25e-3` becomes the whole number
-125 and the power -5, and where both are exact, one multiplication or division rounds once, as
scanf does. What that cannot prove goes number by number through Python's float and Decimal.

Source: torch/torch7 lib/TH/THDiskFile.c; W. D. Clinger, How to read floating point numbers
accurately, 1990 (when one operation is enough).
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.t7.objects import T7File

BLOCK = 1 << 18  # bytes; what a block needs meanwhile fits a processor's cache
MAX_WORD = 1 << 12  # characters; Torch7 writes 24 at most

_DECIMAL = re.compile(rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[iI][nN][fF]|[nN][aA][nN])")
_INTEGER = re.compile(rb"[+-]?\d+")
_SPACE, _PLUS, _MINUS, _DOT, _ZERO, _E = b" +-.0e"

SAFE_DIGITS = 18  # always fit 63 bits
MAX_DIGITS = 24  # three times eight
UNSAFE = 1 << 62  # stands for a whole number of more than 18 digits
_WHOLE_POWERS = 10 ** np.arange(SAFE_DIGITS + 1)
_JOINS = [
    tuple(map(np.uint64, (0x0F0F0F0F0F0F0F0F, 10 << 8 | 1, 8))),
    tuple(map(np.uint64, (0x00FF00FF00FF00FF, 100 << 16 | 1, 16))),
    tuple(map(np.uint64, (0x0000FFFF0000FFFF, 10_000 << 32 | 1, 32))),
]

# Powers of ten that a double, or x86's longdouble of 64 bits, holds exactly: 5**22 < 2**53 and
# 5**27 < 2**64. Where longdouble has less, doubles of more than 15 digits go number by number.
_POWERS = np.multiply.accumulate(np.array([1] + [10] * 22, np.float64))
_WIDE_POWERS = np.multiply.accumulate(np.array([1] + [10] * 27, np.longdouble))
_HAS_WIDE = np.finfo(np.longdouble).nmant >= 63

Array = npt.NDArray[Any]


def parse(file: T7File, span: tuple[int, int], count: int, dtype: np.dtype[Any]) -> Array:
    """Return the `count` numbers that bytes `span` of the file spell, as `dtype`.

    Raises:
        FormatError: They are more or fewer, or there is a word that is no number of that type.
    """
    numbers = np.empty(count, dtype)
    at, end = span
    done = 0
    if end - at > BLOCK:
        # glibc gives freed memory back, and a block's arrays would be mapped anew for each block,
        # which costs more than reading them. Once so much came and went, it keeps as much.
        np.empty(16 * BLOCK, np.uint8)
    while at < end and done <= count:
        stop = _block_end(file, at, end)
        block = file.data[at:stop]
        found = _at_once(block, dtype)
        if found is None:
            found = _one_by_one(file, at, block, dtype)
        numbers[done : done + len(found)] = found[: count - done]
        done += len(found)
        at = stop + 1
    if done != count:
        raise file.error(
            span[0], f"{'more' if done > count else f'{done:,}'} numbers", f"{count:,} on this line"
        )
    return numbers


def _block_end(file: T7File, at: int, end: int) -> int:
    """Return where a block ends: before a space, or at the end of the line."""
    if end - at <= BLOCK:
        return end
    stop = file.data.rfind(b" ", at, at + BLOCK)
    if stop < 0:
        raise file.error(at, f"a word of more than {BLOCK:,} characters", "a number")
    return stop


def _one_by_one(file: T7File, at: int, block: bytes, dtype: np.dtype[Any]) -> Array:
    form = _DECIMAL if dtype.kind == "f" else _INTEGER
    words = block.split()
    for word in words:
        if len(word) > MAX_WORD or not form.fullmatch(word):
            raise file.error(at + block.find(word), f"{word[:40]!r}", "a number")
    if dtype.kind == "f":
        doubles = np.fromiter(map(float, words), np.float64, len(words))
        return _rounded(doubles, dtype, words.__getitem__)
    limits = np.iinfo(dtype)
    for word in words:
        if not limits.min <= int(word) <= limits.max:
            raise file.error(
                at + block.find(word), f"{word[:40]!r}", f"a number of {limits.bits} bits"
            )
    return np.array(list(map(int, words)), dtype)


def _at_once(block: bytes, dtype: np.dtype[Any]) -> Array | None:
    """Return a block's numbers, or None where one is not spelled as printf spells finite ones."""
    allowed = b"0123456789+-.e " if dtype.kind == "f" else b"0123456789- "
    if not block or block.translate(None, allowed):
        return None
    words = _Words(block)
    if dtype.kind != "f":
        return words.integers(dtype)
    doubles = words.doubles(wide=dtype.itemsize == 8)
    return None if doubles is None else _rounded(doubles, dtype, words.word)


class _Words:
    """A block of digits, signs, dots and e's, as words with a space between them.

    A word is what printf writes: perhaps a minus, digits, perhaps a dot and digits, perhaps an e, a
    sign and digits. That is all there can be once signs, dots and e's are where they belong.
    """

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.text = np.frombuffer(block, np.uint8)
        padded = bytes(MAX_DIGITS) + block
        self.eights = np.ndarray((len(block) + MAX_DIGITS - 7,), "<u8", padded, strides=(1,))
        self.ends = np.append(self._places(_SPACE), len(block))
        self.starts = np.concatenate(([0], self.ends[:-1] + 1))
        self.negative = self.text[np.minimum(self.starts, len(block) - 1)] == _MINUS

    def word(self, index: int) -> bytes:
        """Return a word as it is written."""
        return self.block[self.starts[index] : self.ends[index]]

    def integers(self, dtype: np.dtype[Any]) -> Array | None:
        """Return whole numbers, or None where some word is none of that type."""
        counts = self.ends - self.starts - self.negative
        if counts.min() < 1 or counts.max() > SAFE_DIGITS or not self._signs_are(0):
            return None
        found = self._digits(self.ends, counts)
        np.negative(found, out=found, where=self.negative)
        limits = np.iinfo(dtype)
        fit = limits.min <= found.min() and found.max() <= limits.max
        return found.astype(dtype) if fit else None

    def doubles(self, *, wide: bool) -> npt.NDArray[np.float64] | None:
        """Return the nearest doubles; `wide` if many words may have more than 15 digits."""
        found = self._exponents()
        if found is None:
            return None
        powers, stops = found
        dots = self._dots(stops)
        if dots is None:
            return None
        before, after = dots - self.starts - self.negative, np.maximum(stops - dots - 1, 0)
        if before.min() < 1 or (dots > stops).any():
            return None
        wholes = self._digits(dots, before)
        if after.any():
            wholes *= _WHOLE_POWERS[np.minimum(after, SAFE_DIGITS)]
            wholes += self._digits(stops, after)
        powers -= after
        wholes[before + after > SAFE_DIGITS] = UNSAFE
        doubles = _scaled(wholes, powers, self.word, wide=wide)
        doubles *= np.where(self.negative, -1.0, 1.0)  # the sign of a zero too
        return doubles

    def _exponents(self) -> tuple[Array, Array] | None:
        """Return each word's power of ten, and where the digits before it stop."""
        powers = np.zeros(len(self.ends), np.int64)
        if b"e" not in self.block:
            return (powers, self.ends) if self._signs_are(0) else None
        places = self._places(_E)
        owners = np.searchsorted(self.ends, places)
        ends, signs = self.ends[owners], self.text[np.minimum(places + 1, len(self.text) - 1)]
        counts = ends - places - 2
        below = signs == _MINUS
        if counts.min() < 1 or counts.max() > 4 or (below | (signs == _PLUS)).sum() < len(signs):
            return None
        if not self._signs_are(len(signs)) or (owners[1:] == owners[:-1]).any():
            return None
        powers[owners] = np.where(below, -1, 1) * self._digits(ends, counts)
        stops = self.ends.copy()
        stops[owners] = places
        return powers, stops

    def _dots(self, stops: Array) -> Array | None:
        """Return where each word's dot is, or would be; None where a word has two."""
        dots = self._places(_DOT)
        if len(dots) == len(stops):
            return dots  # each in its own word: who uses them will see
        owners = np.searchsorted(stops, dots)
        if len(owners) and (owners[-1] == len(stops) or (owners[1:] == owners[:-1]).any()):
            return None
        places = stops.copy()
        places[owners] = dots
        return places

    def _digits(self, stops: Array, counts: Array) -> Array:
        """Return the whole numbers that `counts` digits before `stops` spell.

        Eight characters are eight bytes of an integer: three multiplications put digits together
        to pairs, pairs to fours, fours to the number. More than 18 digits come out wrong.
        """
        if (counts == 1).all():
            alone: Array = self.text[stops - 1].astype(np.int64) - _ZERO
            return alone
        total: npt.NDArray[np.uint64] = np.zeros(len(stops), np.uint64)
        for place in range(0, min(int(counts.max()), SAFE_DIGITS), 8):
            eight = self.eights[stops + (MAX_DIGITS - 8 - place)]
            others = (64 - 8 * (counts - place).clip(0, 8)).astype(np.uint64)
            eight = eight >> others << others  # what stands before the digits
            for mask, join, shift in _JOINS:
                eight = (eight & mask) * join >> shift
            total += eight * np.uint64(10**place)
        return total.view(np.int64)

    def _places(self, character: int) -> Array:
        return np.flatnonzero(self.text == character)

    def _signs_are(self, exponents: int) -> bool:
        """Return whether there are no signs but the leading minuses and those of exponents."""
        found = sum(np.count_nonzero(self.text == sign) for sign in (_MINUS, _PLUS))
        return bool(found == np.count_nonzero(self.negative) + exponents)


def _scaled(
    wholes: Array, powers: Array, word_at: Callable[[int], bytes], *, wide: bool
) -> npt.NDArray[np.float64]:
    """Return the doubles nearest to wholes times ten to the powers: the words, less their minus."""
    wide = wide and _HAS_WIDE
    table, limit = (_WIDE_POWERS, 1 << 62) if wide else (_POWERS, 1 << 53)
    largest = len(table) - 1
    scaled = wholes / table[np.minimum(np.abs(powers), largest)]
    if (powers > 0).any():
        up = np.flatnonzero(powers > 0)
        scaled[up] = wholes[up] * table[np.minimum(powers[up], largest)]
    unsure = (np.abs(powers) > largest) | (wholes >= limit)
    doubles = scaled.astype(np.float64, copy=False)
    if wide:
        # Rounded twice, and wrongly if the first time made it the middle between two doubles:
        # half a step away, or a quarter of the step above where the steps change.
        off, step = np.abs(scaled - doubles), np.spacing(doubles)
        unsure |= (off != 0) & ((off * 2 == step) | (off * 4 == step))
    for index in np.flatnonzero(unsure).tolist():
        doubles[index] = abs(float(word_at(index)))
    return doubles


def _rounded(
    doubles: npt.NDArray[np.float64], dtype: np.dtype[Any], word_at: Callable[[int], bytes]
) -> Array:
    """Return what the words are in `dtype`, of which `doubles` are the nearest doubles."""
    if dtype.itemsize == 8:
        return doubles
    with np.errstate(over="ignore"):  # to infinity, as scanf does
        floats = doubles.astype(np.float32)
        # Rounded twice, and perhaps wrongly if the double is the middle between two floats.
        middle = (doubles.view(np.uint64) & np.uint64(0x0FFFFFFF)) == 0
        for index in np.flatnonzero(middle & (floats != doubles)).tolist():
            if math.isfinite(doubles[index]):
                floats[index] = _nearest_float(word_at(index), float(doubles[index]), floats[index])
        return floats.astype(dtype, copy=False)  # Torch7 too reads halves as floats


def _nearest_float(word: bytes, double: float, near: np.float32) -> np.float32:
    """Return the float nearest to a word, which may be a hair from the middle between two."""
    other = np.nextafter(near, np.float32(math.copysign(math.inf, double - float(near))))
    ends = [math.copysign(2.0**128, one) if np.isinf(one) else float(one) for one in (near, other)]
    if double - ends[0] != ends[1] - double:
        return near
    exact, middle = Decimal(word.decode()), Decimal(double)
    if exact == middle:
        return near
    return max(near, other) if exact > middle else min(near, other)
