"""A file of another kind is called by its name."""

import pytest

from converters.signatures import KNOWN, LENGTH, described


@pytest.mark.parametrize("magic", KNOWN)
def test_each_is_told_by_its_first_bytes(magic: bytes) -> None:
    """Whatever follows them, and never more of it than is read."""
    assert described(magic + bytes(LENGTH)) == KNOWN[magic]
    assert len(magic) <= LENGTH


def test_what_nobody_knows_is_shown() -> None:
    """Its first bytes, or that there are none."""
    assert described(b"") == "an empty file"
    assert described(b"\x08\x07\x12\x07pytorch") == "an ONNX file, which a conversion writes"
    assert described(b"not a checkpoint\n") == "text"
    assert described(b"abcdefgh\x00") == "bytes 61 62 63 64 65 66 67 68"
