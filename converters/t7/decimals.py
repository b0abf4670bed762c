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
import warnings
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
_E_TO_SPACE = bytes.maketrans(b"e", b" ")
_SPACE, _PLUS, _MINUS, _DOT, _E = b" +-.e"
_NONE = np.empty(0, np.int64)

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
    """Return a block's numbers, or None where they are not spelled as Torch7 spells finite ones."""
    if block.translate(None, b"0123456789- +.e" if dtype.kind == "f" else b"0123456789- "):
        return None
    text = np.frombuffer(block, np.uint8)
    marks = np.flatnonzero((text == _SPACE) | (text == _DOT))
    is_dot = text[marks] == _DOT
    ends = np.append(marks[~is_dot], len(text))
    starts = np.concatenate(([0], ends[:-1] + 1))
    exponents = np.flatnonzero(text == _E) if b"e" in block else _NONE
    if (ends <= starts).any() or not _signs_lead(text, starts, exponents + 1):
        return None
    wholes = _wholes(block, len(ends) + len(exponents))
    if wholes is None:
        return None
    if dtype.kind != "f":
        return _narrowed(wholes, dtype)
    powers = np.zeros(len(ends), np.int64)
    stops = ends
    if len(exponents):
        word = np.searchsorted(ends, exponents)
        if (np.diff(word) == 0).any():
            return None
        place = word + np.arange(1, len(word) + 1)  # an exponent follows its word's whole number
        powers[word] = wholes[place].clip(-9999, 9999)
        wholes = np.delete(wholes, place)
        stops = ends.copy()
        stops[word] = exponents
    dots = np.flatnonzero(is_dot)
    owners = dots - np.arange(len(dots))  # a dot's word: how many spaces are before it
    if not _subtract_decimals(powers, (marks[dots], owners), starts, stops):
        return None

    def word_at(index: int) -> bytes:
        return block[starts[index] : ends[index]]

    doubles = _scaled(wholes, powers, word_at, wide=dtype.itemsize == 8)
    zeros = np.flatnonzero(wholes == 0)
    doubles[zeros[text[starts[zeros]] == _MINUS]] = -0.0
    return _rounded(doubles, dtype, word_at)


def _signs_lead(text: Array, *places: Array) -> bool:
    """Return whether every sign stands at one of the places: before a word or its exponent."""
    if len(places[1]) and places[1][-1] == len(text):
        return False
    lead = np.concatenate([text[place] for place in places])
    signs = np.count_nonzero(text == _MINUS) + np.count_nonzero(text == _PLUS)
    return bool(signs == np.count_nonzero((lead == _MINUS) | (lead == _PLUS)))


def _wholes(block: bytes, count: int) -> Array | None:
    """Return the whole numbers of words without their dots, an exponent being a word of its own.

    With signs only where a word begins, a word is one number or none: `count` proves each is one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            wholes = np.fromstring(block.translate(_E_TO_SPACE, b"."), np.int64, sep=" ")
        except (DeprecationWarning, ValueError):  # a sign without a digit
            return None
    return wholes if len(wholes) == count else None


def _narrowed(wholes: Array, dtype: np.dtype[Any]) -> Array | None:
    limits = np.iinfo(dtype)
    low, high = wholes.min(), wholes.max()
    if dtype.itemsize == 8:  # what does not fit was read as the limit
        return None if low == limits.min or high == limits.max else wholes
    return wholes.astype(dtype) if limits.min <= low and high <= limits.max else None


def _subtract_decimals(
    powers: Array, dots: tuple[Array, Array], starts: Array, stops: Array
) -> bool:
    """Lower each word's power by its digits after the dot; False if a dot is not its only one."""
    place, owner = dots
    word: Array | slice = owner
    if len(owner) == len(stops):
        word = slice(None)  # a dot in every word, as is usual, if each lies in its own
    elif (owner[1:] == owner[:-1]).any():
        return False
    if (place < starts[word]).any() or (place >= stops[word]).any():
        return False
    powers[word] -= stops[word] - place - 1
    return True


def _scaled(
    wholes: Array, powers: Array, word_at: Callable[[int], bytes], *, wide: bool
) -> npt.NDArray[np.float64]:
    """Return the doubles nearest to the words, which are wholes times ten to the powers."""
    wide = wide and _HAS_WIDE
    table, limit = (_WIDE_POWERS, 1 << 62) if wide else (_POWERS, 1 << 53)
    largest = len(table) - 1
    scaled = wholes / table[np.minimum(np.abs(powers), largest)]
    if (powers > 0).any():
        up = np.flatnonzero(powers > 0)
        scaled[up] = wholes[up] * table[np.minimum(powers[up], largest)]
    unsure = (np.abs(powers) > largest) | (wholes >= limit) | (wholes <= -limit)
    doubles = scaled.astype(np.float64, copy=False)
    if wide:
        # Rounded twice, and wrongly if the first time made it the middle between two doubles:
        # half a step away, or a quarter of the step above where the steps change.
        off, step = np.abs(scaled - doubles), np.spacing(np.abs(doubles))
        unsure |= (off != 0) & ((off * 2 == step) | (off * 4 == step))
    for index in np.flatnonzero(unsure).tolist():
        doubles[index] = float(word_at(index))
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
                floats[index] = _nearest_float(word_at(index), doubles[index], floats[index])
        return floats.astype(dtype, copy=False)  # Torch7 too reads halves as floats


def _nearest_float(word: bytes, double: np.float64, near: np.float32) -> np.float32:
    """Return the float nearest to a word that is next to the middle between two."""
    exact, middle = Decimal(word.decode()), Decimal(float(double))
    if exact == middle:
        return near
    other = np.nextafter(near, np.float32(math.copysign(math.inf, double - near)))
    return max(near, other) if exact > middle else min(near, other)
