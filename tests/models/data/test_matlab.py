"""The reader of ImageNet's meta.mat is held against what scipy writes."""

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from models.data.matlab import structs
from models.errors import FormatError

scipy_io = pytest.importorskip("scipy.io")

KIND = [
    *(("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object)),
    *(("num_children", object), ("children", object), ("wordnet_height", object)),
    ("num_train_images", object),
]
SYNSETS = [
    (1, "n02119789", "kit fox, Vulpes macrotis", "small grey fox", 0, [], 0, 1300),
    (2, "n02100735", "English setter", "an English breed", 0, [], 0, 1300),
    (300, "n02085374", "", "", 0, [], 0, 738),
    (1001, "n00001740", "entity", "that which is", 3, [1, 2, 300], 19, 0),
]


def written(compress: bool = True, **more: Any) -> bytes:
    """Return a file like the devkit's: an array of structs, one column."""
    data = io.BytesIO()
    rows = [(*row[:4], row[4], np.array(row[5], np.uint16), row[6], row[7]) for row in SYNSETS]
    array = np.array(rows, dtype=KIND).reshape(-1, 1)
    scipy_io.savemat(data, {**more, "synsets": array}, do_compression=compress)
    return data.getvalue()


@pytest.mark.parametrize("compress", [True, False])
def test_text_and_numbers_are_read(compress: bool) -> None:
    """Numbers and names of all classes, in MATLAB's packed and unpacked form."""
    found = structs("meta.mat", written(compress, other=np.eye(3)), "synsets")
    assert [(one["ILSVRC2012_ID"], one["WNID"]) for one in found] == [
        (row[0], row[1]) for row in SYNSETS
    ]
    assert found[0]["words"] == "kit fox, Vulpes macrotis"
    assert found[3]["num_children"] == 3
    assert found[3]["children"] is None


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"MATLAB 7.3", "synsets", "byte 0: found .*, expected a little-endian MATLAB 5 file"),
        (written(), "other", "found no such variable, expected structs other"),
        (written()[:-40], "synsets", r"found damage \("),
    ],
)
def test_other_files_are_refused(data: bytes, name: str, message: str) -> None:
    """What is no such file, or lacks the array, is our error."""
    with pytest.raises(FormatError, match=message):
        structs("meta.mat", data, name)


def test_any_byte_changed_or_cut_gives_our_error_or_structs() -> None:
    """Nothing else is raised, and no size that a file states is believed unchecked."""
    good = written(compress=False)
    for at in range(len(good)):
        for bad in (good[:at], good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :]):
            with suppress(FormatError):
                structs("meta.mat", bad, "synsets")


def test_a_bomb_is_not_unpacked() -> None:
    """A variable that unpacks to more than the devkit's could is cut, and so refused."""
    inner = zlib.compress(bytes(8) + bytes(2**27), 9)
    data = b" " * 124 + b"\x00\x01IM" + struct.pack("<II", 15, len(inner)) + inner
    with pytest.raises(FormatError):
        structs("meta.mat", data, "synsets")
