"""A path becomes a checkpoint: which format it is of, and what lies beside it."""

import gzip
import lzma
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from converters.mx import MXSource
from converters.packing import base_name
from converters.sources import MXNET, PYTORCH, TORCH7, find, find_mxnet
from models.errors import FormatError, SpecError
from tests.oracles import golden
from tests.t7_writer import Module, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a symbol and two epochs, of which one is packed."""
    for part in ("symbol.json", "0000.params"):
        shutil.copyfile(golden(f"mxnet/malformed/net-good-{part}"), tmp_path / f"net-{part}")
    packed = lzma.compress((tmp_path / "net-0000.params").read_bytes())
    (tmp_path / "net-0012.params.xz").write_bytes(packed)
    return tmp_path


def test_a_prefix_and_an_epoch(folder: Path) -> None:
    """MXNet's own way of naming, packed files too."""
    first, second = find(folder / "net", epoch=0), find(folder / "net", epoch=12)
    assert (first.format, first.model.name, first.epoch) == (MXNET, "net-0000.params", 0)
    assert (second.model.name, second.epoch) == ("net-0012.params.xz", 12)
    with pytest.raises(
        SpecError, match=r"net-0001\.params: no such file; there are net-0000\.para"
    ):
        find(folder / "net", epoch=1)
    with pytest.raises(SpecError, match=r"other-0001\.params: no such file; there are no \.params"):
        find(folder / "other", epoch=1)


def test_the_first_bytes_tell_the_format(folder: Path) -> None:
    """Whatever a file is called, and packed or not."""
    renamed = folder / "weights.bin"
    (folder / "net-0000.params").rename(renamed)
    assert find(renamed).format == MXNET
    assert find(folder / "net-0012.params.xz").format == MXNET
    assert find(write(folder / "x.params", Module("nn.Identity"))).format == TORCH7
    weights = {"weight": torch.zeros(2)}
    torch.save(weights, folder / "zip.t7")
    torch.save(weights, folder / "pickle.params", _use_new_zipfile_serialization=False)
    save_file(weights, folder / "tensors")
    for name in ("zip.t7", "pickle.params", "tensors"):
        assert find(folder / name).format == PYTORCH


def test_what_is_neither_a_file_nor_a_folder_is_named(tmp_path: Path) -> None:
    """A pipe cannot be read from twice, and would be waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path in (Path(os.devnull), tmp_path / "pipe"):
        with pytest.raises(SpecError, match=f"{path}: found a device or a pipe, expected a file"):
            find(path)


def test_a_forgotten_epoch_is_named(folder: Path) -> None:
    """And where it is too much, what a prefix is."""
    with pytest.raises(SpecError, match=r"net: no such file; net-0000\.params is there: add its e"):
        find(folder / "net")
    for given, kind in ((folder / "net-0000.params", "file"), (folder, "folder")):
        with pytest.raises(SpecError, match=f"{given}: a {kind}; with EPOCH, SOURCE is a prefix"):
            find(given, epoch=0)


def test_what_is_no_checkpoint_is_called_by_its_name(folder: Path) -> None:
    """Of no format, it is not blamed for lacking one's first bytes."""
    (folder / "x.params").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(
        FormatError, match="found a Git LFS pointer.*, expected a checkpoint: a Torch7 .t7, an MXN"
    ):
        find(folder / "x.params")


def test_many_epochs(folder: Path) -> None:
    """MXNet writes four digits at least."""
    (folder / "net-0000.params").rename(folder / "net-12345.params")
    found = find(folder / "net", epoch=12345)
    assert (found.model.name, found.epoch) == ("net-12345.params", 12345)
    located = find_mxnet(found.model)
    assert located is not None
    assert located.symbol == folder / "net-symbol.json"
    assert base_name(found.model) == "net"


def test_flags_of_another_format(folder: Path) -> None:
    """A flag that would count for nothing is refused."""
    path = write(folder / "x.t7", Module("nn.Identity"))
    for source in (path, folder / "net-0000.params"):
        with pytest.raises(SpecError, match=f"--raw goes with a PyTorch .*, which {source} is not"):
            find(source, raw=True)
    with pytest.raises(SpecError, match="--architecture goes with MXNet arrays or a PyTorch ch"):
        find(path, architecture="resnet_v2_18")
    with pytest.raises(SpecError, match=r"lends a graph to arrays without one: .*net-symbol.json"):
        find(folder / "net-0000.params", architecture="resnet_v2_18")


def test_the_symbol_beside_it(folder: Path) -> None:
    """`PREFIX-symbol.json`, or the one that the user names."""
    (folder / "plain.params").write_bytes((folder / "net-0000.params").read_bytes())
    (folder / "plain-symbol.json").write_text("{}")
    other = folder / "other.json"
    other.write_text("{}")
    for path, symbol, expected in (
        (folder / "net-0012.params.xz", None, "net-symbol.json"),
        (folder / "plain.params", None, "plain-symbol.json"),
        (folder / "plain.params", other, "other.json"),
    ):
        located = find_mxnet(path, symbol=symbol)
        assert located is not None
        assert located.symbol == folder / expected
    (folder / "net-symbol.json").unlink()
    located = find_mxnet(folder / "net", epoch=0)
    assert located is not None
    assert located.symbol is None
    with pytest.raises(SpecError, match="gone.json: no such file"):
        find(folder / "net", epoch=0, symbol=folder / "gone.json")


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_symbol_packed_like_its_arrays(
    ending: str, pack: Callable[[bytes], bytes], folder: Path
) -> None:
    """Whoever packs a checkpoint packs both files: the graph is found and read all the same."""
    plain, params = folder / "net-symbol.json", folder / "net-0000.params"
    wanted = MXSource(params, symbol_path=plain).graph()[1]
    packed = folder / f"net-symbol.json{ending}"
    packed.write_bytes(pack(plain.read_bytes()))
    plain.unlink()
    located = find_mxnet(params)
    assert located is not None
    assert located.symbol == packed
    assert MXSource(params, symbol_path=packed).graph() == (packed, wanted)
    packed.write_bytes(pack(b"{}" * 4)[:-4])
    with pytest.raises(FormatError, match=f"net-symbol.json{ending}: .*found damaged data"):
        MXSource(params, symbol_path=packed)


def test_a_folder_of_one_checkpoint(folder: Path) -> None:
    """One file of arrays can only be it; of two, one has to be named."""
    with pytest.raises(
        SpecError, match=re.escape("a folder with net-0000.params, net-0012.params")
    ):
        find(folder)
    (folder / "net-0012.params.xz").unlink()
    assert find(folder).model == folder / "net-0000.params"
    (folder / "net-0000.params").unlink()
    with pytest.raises(SpecError, match=r"a folder with no \.params; expected one checkpoint"):
        find(folder)
    (folder / "net-symbol.json").unlink()
    write(folder / "model_1.t7", Module("nn.Identity"))
    assert find(folder).format == TORCH7


def test_a_symbol_is_half_a_checkpoint(folder: Path) -> None:
    """And a symbol is no part of a .t7."""
    with pytest.raises(SpecError, match="a symbol is half a checkpoint: name the .params beside"):
        find(folder / "net-symbol.json")
    path = write(folder / "x.t7", Module("nn.Identity"))
    with pytest.raises(
        SpecError, match=r"--symbol goes with an MXNet \.params file, which .*x\.t7"
    ):
        find(path, symbol=folder / "net-symbol.json")


def test_a_damaged_packed_file(folder: Path) -> None:
    """What cannot be unpacked has no first bytes."""
    packed = (folder / "net-0012.params.xz").read_bytes()
    (folder / "cut.params.xz").write_bytes(packed[:20])
    with pytest.raises(FormatError, match="cut.params.xz: unpacked byte 0: found damaged data"):
        find(folder / "cut.params.xz")
