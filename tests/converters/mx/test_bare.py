"""Arrays without a network: what the file holds, under the file's names."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from converters.mx.bare import write_arrays
from converters.mx.params import read
from models.errors import FormatError
from tests.mx_writer import params
from tests.oracles import golden


@pytest.mark.parametrize(
    "name", ["mx0.9-dtypes", "mx1.9-checkpoint", "mx1.9-csr", "mx0.9-none", "mx1.9-bfloat16"]
)
def test_every_array_is_there(tmp_path: Path, name: str) -> None:
    """In its own type, dense; a placeholder is none."""
    source = golden(f"mxnet/ndarray/{name}.params")
    target = tmp_path / "out.safetensors"
    bare = write_arrays(source, source, target)
    written = load_file(target)
    expected = {key: one for key, one in read(source).arrays.items() if one is not None}
    assert bare.names == tuple(expected)
    assert written.keys() == expected.keys()
    for key, one in expected.items():
        np.testing.assert_array_equal(written[key], one, strict=True)
    assert bare.parameters + bare.statistics == sum(one.size for one in expected.values())
    assert bare.bytes == target.stat().st_size
    with safe_open(target, framework="np") as file:
        assert file.metadata()["source"] == source.name
        assert file.metadata()["sha256"] == bare.sha256


def test_what_cannot_be_written(tmp_path: Path) -> None:
    """A list of nothing, and the one name that safetensors keeps for itself."""
    target = tmp_path / "out.safetensors"
    for arrays, message in (
        ({}, "found no arrays, expected arrays that safetensors can name"),
        ({"__metadata__": np.ones(1, "f4")}, "found an array called __metadata__"),
    ):
        source = tmp_path / "x.params"
        source.write_bytes(params(arrays))
        with pytest.raises(FormatError, match=message):
            write_arrays(source, source, target)
    assert not target.exists()
