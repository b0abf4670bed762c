"""The arrays of a `.params` under their names in the file: a `.safetensors` without a network.

No symbol is needed, so no operator needs a rule. docs/converting.md says what is in the result.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from converters.bare import FORMAT, SCHEMA, Bare
from converters.mx import STATISTICS, params
from converters.packing import sha256
from models.errors import FormatError
from models.files import writing


def write_arrays(path: Path, name: Path, target: Path) -> Bare:
    """Write every array of the `.params` at `path` to `target`, dense and in its own type.

    Of bfloat16 numbers, which numpy lacks, the float32 is written that each is. Errors and the
    result call the source `name`, where `path` is its unpacked copy.

    Raises:
        FormatError: The file is no `.params`, is damaged, or holds no array.
    """
    stored = params.read(path, name).arrays
    arrays = {key: np.ascontiguousarray(one) for key, one in stored.items() if one is not None}
    if not arrays or "__metadata__" in arrays:
        found = "no arrays" if not arrays else "an array called __metadata__"
        raise FormatError(name, 0, found=found, expected="arrays that safetensors can name")
    digest = sha256(path)
    metadata = {
        "format": FORMAT,
        "schema": str(SCHEMA),
        "source": name.name.encode(errors="backslashreplace").decode(),
        "sha256": digest,
    }
    with writing() as files:
        save_file(arrays, files.new(target), {**metadata, "classes": "{}", "shared": "{}"})
    counted = {True: 0, False: 0}
    for key, one in arrays.items():
        counted[key.endswith(STATISTICS)] += one.size
    return Bare(tuple(arrays), {}, counted[False], counted[True], target.stat().st_size, digest)
