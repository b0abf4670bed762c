"""Packed checkpoints are read as if they were not."""

import gzip
import hashlib
import lzma
from pathlib import Path

import pytest

from converters.packing import base_name, sha256, unpacked
from models.errors import FormatError

CONTENT = bytes(range(256)) * 5000


@pytest.mark.parametrize("pack", [bytes, lzma.compress, gzip.compress], ids=["plain", "xz", "gz"])
def test_the_files_own_bytes_come_out(tmp_path: Path, pack: object) -> None:
    """Packing is told by content, not by name; the temporary copy is gone afterwards."""
    path = tmp_path / "network.t7"
    path.write_bytes(pack(CONTENT))  # type: ignore[operator]
    with unpacked(path) as plain:
        assert plain.read_bytes() == CONTENT
    assert path.exists()
    assert plain == path or not plain.exists()


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress], ids=["xz", "gz"])
@pytest.mark.parametrize("cut", [7, 60, -9])
def test_damaged_packing_is_named(tmp_path: Path, pack: object, cut: int) -> None:
    """A packed file that was cut short is our error, with how far unpacking came."""
    path = tmp_path / "network.t7.xz"
    path.write_bytes(pack(CONTENT)[:cut])  # type: ignore[operator]
    with (
        pytest.raises(FormatError, match=r"network\.t7\.xz: unpacked byte .*damaged data"),
        unpacked(path),
    ):
        pass


def test_a_packed_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that unpacks without end does not fill the disk."""
    monkeypatch.setattr("converters.packing.MAX_UNPACKED", 1 << 20)
    path = tmp_path / "bomb.t7.xz"
    path.write_bytes(lzma.compress(bytes(1 << 24)))
    with (
        pytest.raises(FormatError, match="more than 1,048,576 bytes once unpacked"),
        unpacked(path),
    ):
        pass


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    """The digest is the one every other tool prints."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert sha256(path) == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("irv2.t7", "irv2"),
        ("irv2.t7.xz", "irv2"),
        ("irv2.t7.gz", "irv2"),
        ("model_best.pth.tar", "model_best"),
        ("resnet-50-0000.params", "resnet-50"),
        ("resnet-50-0000.params.xz", "resnet-50"),
        ("v1.2.t7", "v1.2"),
        ("plain", "plain"),
        (".t7", ".t7"),
    ],
)
def test_artifacts_are_named_after_their_source(name: str, expected: str) -> None:
    """The endings of the trade are dropped, the rest of the name stays."""
    assert base_name(Path("folder") / name) == expected
