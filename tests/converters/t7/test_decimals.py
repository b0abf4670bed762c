"""Text becomes numbers exactly as C reads it: the C library itself is the oracle."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.t7 import decimals
from converters.t7.objects import TEXT, T7File
from models.errors import FormatError

LIBC = ctypes.CDLL(None)
LIBC.strtof.restype = ctypes.c_float
LIBC.strtod.restype = ctypes.c_double


def parse(text: bytes, kind: str, count: int | None = None) -> np.ndarray[Any, Any]:
    file = T7File(Path("made.t7"), text, TEXT)
    count = len(text.split()) if count is None else count
    return decimals.parse(file, (0, len(text)), count, np.dtype(kind))


def as_c_reads(text: bytes, kind: str) -> np.ndarray[Any, Any]:
    """Return what scanf's %lg, or %g and then the conversion to half, makes of each word."""
    words = text.split()
    if kind == "f8":
        return np.array([LIBC.strtod(word, None) for word in words], "f8")
    with np.errstate(over="ignore"):
        return np.array([LIBC.strtof(word, None) for word in words], "f4").astype(kind)


def assert_same_bits(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


MIDDLE = 1 + 2.0**-24  # between the floats 1 and 1 + 2**-23

WORDS = [
    b"0 -0 0.0 -0.000 1 -1 42 5. .5 -.5 007 +3",
    b"0.1 0.0841470994 -279.415497 3.40282347e+38 1.17549435e-38 1.40129846e-45 -1.5e-05",
    b"1e5 1E5 1e05 2.5e+3 1e-300 1e300 -1e999 1e-999 1e22 1e23 1e27 1e28 123456789e22",
    b"inf -inf nan 1 2",
    b"5.4030230586813973e-41 -4.1614683654714242e-21 9.6017028665036598e+59 0.1 123456.78901234567",
    b"9007199254740993 9007199254740992 4611686018427387904",
    b"9223372036854775807 -9223372036854775808 18446744073709551616",
    b"1.7976931348623157e308 1.7976931348623159e308 2.2250738585072014e-308 5e-324 2e-324",
    b"65504 65519.99 65520 5.9604644775390625e-08 2.98023223876953125e-08 2.9802322387695313e-08",
    b"1" + b"0" * 400 + b" 0." + b"0" * 400 + b"1 1" + b"0" * 400 + b"e-400",
    b"%.30g %.30g1 %.30g" % (MIDDLE, MIDDLE, np.nextafter(MIDDLE, 0)),
    b"1.000000059604644775390625 1.0000000596046447753906250000000000000000000000000000000000001",
    b"1.0000000596046447753906249999999999999999 -1.0000000596046447753906250000000000000001",
    b"3.40282356779733661637539395458142568447e38 3.4028235677973366163753939545814256844e38",
    b"7.006492321624085354618e-46 7.0064923216240853546186479164495e-46 7.1e-46",
]


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("text", WORDS, ids=lambda text: text[:30].decode())
def test_every_spelling_reads_as_c_reads_it(text: bytes, kind: str) -> None:
    """Zeros keep their sign, and what lies between two numbers rounds once, to the nearest."""
    assert_same_bits(parse(text, kind), as_c_reads(text, kind))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_floats_come_back(numbers: list[float]) -> None:
    """What Torch7 writes of a float with %.9g is that float again."""
    text = " ".join(f"{number:.9g}" for number in numbers).encode()
    assert_same_bits(parse(text, "f4"), np.array(numbers, "f4"))


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_doubles_come_back(numbers: list[float]) -> None:
    """What Torch7 writes of a double with %.17g is that double again."""
    text = " ".join(f"{number:.17g}" for number in numbers).encode()
    assert_same_bits(parse(text, "f8"), np.array(numbers))


DECIMAL = st.from_regex(r"\A[+-]?([0-9]{1,25}(\.[0-9]{0,25})?|\.[0-9]{1,25})(e[+-]?[0-9]{1,2})?\Z")


@given(st.lists(DECIMAL, min_size=1), st.sampled_from(["f2", "f4", "f8"]))
def test_any_decimal_reads_as_c_reads_it(words: list[str], kind: str) -> None:
    """Whatever the digits and the power, the nearest number is found."""
    text = " ".join(words).encode()
    assert_same_bits(parse(text, kind), as_c_reads(text, kind))


@given(st.integers(0, 2**31 - 2**23 - 2), st.integers(-2, 2), st.integers(1, 40))
def test_next_to_the_middle_of_two_floats(bits: int, step: int, digits: int) -> None:
    """A word a hair from where rounding changes is not rounded twice."""
    low = np.array(bits, "u4").view("f4")
    middle = (float(low) + float(np.nextafter(low, np.float32(np.inf)))) / 2
    word = f"{np.nextafter(middle, np.inf * step) if step else middle:.{digits + 15}g}".encode()
    text = word if b"e" in word or b"." not in word else word + b"0" * 20 + b"1"
    assert_same_bits(parse(text, "f4"), as_c_reads(text, "f4"))


@given(st.text("0123456789+-.e ", min_size=1), st.sampled_from(["f4", "f8", "i8"]))
def test_a_block_at_once_is_the_words_one_by_one(text: str, kind: str) -> None:
    """What the fast way accepts is what the careful way accepts, with the same numbers."""
    block, dtype = text.encode(), np.dtype(kind)
    at_once = decimals._at_once(block, dtype)
    if at_once is not None:
        file = T7File(Path("made.t7"), block, TEXT)
        assert_same_bits(at_once, decimals._one_by_one(file, 0, block, dtype))


@pytest.mark.parametrize("kind", ["i2", "i4", "i8"])
def test_whole_numbers_to_their_limits(kind: str) -> None:
    """Integers are exact up to the last that their type has."""
    limits = np.iinfo(kind)
    numbers = [limits.min, limits.max, limits.min + 1, limits.max - 1, 0, -1, 7]
    found = parse(" ".join(map(str, numbers)).encode(), kind)
    assert (found.tolist(), found.dtype) == (numbers, np.dtype(kind))


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a block ends changes no number, with unusual words in between or not."""
    words = [f"{number:.9g}" for number in np.random.default_rng(0).standard_normal(500)]
    words[100:103] = "nan", "0", "-inf"
    text = " ".join(words).encode()
    for block in (20, 64, 1000, 1 << 18):
        monkeypatch.setattr(decimals, "BLOCK", block)
        assert_same_bits(parse(text, "f4"), as_c_reads(text, "f4"))


@pytest.mark.parametrize(
    ("text", "kind", "count", "message"),
    [
        (b"1 two 3", "f4", 3, "byte 2: found b'two' .read as text., expected a number"),
        (b"1 0x10 3", "f4", 3, "byte 2: found b'0x10'"),
        (b"1 1_0 3", "f8", 3, "found b'1_0'"),
        (b"1 1.2.3", "f4", 2, "found b'1.2.3'"),
        (b"1 1-2", "f4", 2, "found b'1-2'"),
        (b"1 - 2", "f4", 3, "found b'-'"),
        (b"1 . 2", "f4", 3, r"found b'\.'"),
        (b"1 1e 2", "f4", 3, "found b'1e'"),
        (b"1 e5 2", "f4", 3, "found b'e5'"),
        (b"1 1e5e5", "f4", 2, "found b'1e5e5'"),
        (b"1 1e.5", "f4", 2, "found b'1e.5'"),
        (b"1 .-5", "f4", 2, "found b'.-5'"),
        (b"1 2.5", "i4", 2, r"found b'2\.5'"),
        (b"1 32768", "i2", 2, "found b'32768' .*, expected a number of 16 bits"),
        (b"1 9223372036854775808", "i8", 2, "expected a number of 64 bits"),
        (b"1 " + b"9" * 5000, "i8", 2, "byte 2: found b'9999"),
        (b"1 " + b"9" * (1 << 19), "f4", 2, "a word of more than 262,144 characters"),
        (b"1 2 3", "f4", 4, "byte 0: found 3 numbers .*, expected 4 on this line"),
        (b"1 2 3", "f4", 2, "byte 0: found more numbers .*, expected 2 on this line"),
        (b"   ", "f4", 2, "found 0 numbers"),
    ],
)
def test_what_is_no_number_is_named(text: bytes, kind: str, count: int, message: str) -> None:
    """A word that is no number of its type, too few words and too many are errors with a place."""
    with pytest.raises(FormatError, match=message):
        parse(text, kind, count)
