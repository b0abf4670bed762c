"""Runs of `relume classify -o` in tests: sources of every kind, and what the tables hold."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.data.records import RecordWriter, packed
from relume.classify import main

SEED = 8
BROKEN = b"\x89PNG\r\n\x1a\n and no more"


def images(count: int) -> dict[str, bytes]:
    """Return files of even colours by their names; the fourth is damaged."""
    colours = np.random.default_rng(SEED).integers(0, 256, (count, 3)).tolist()
    files = {}
    for number, colour in enumerate(colours):
        file = io.BytesIO()
        Image.new("RGB", (12, 9), tuple(colour)).save(file, "PNG")
        files[f"{number:03}.png"] = BROKEN if number == 3 else file.getvalue()
    return files


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files into a new folder."""
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def write_rec(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files as records, with an index."""
    with RecordWriter(path, path.with_suffix(".idx")) as writer:
        for number, content in enumerate(files.values()):
            writer.write(number, packed([0.0], number, content))
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files as members, each with a text beside it, as WebDataset has them."""
    mode = "w:gz" if path.suffix == ".tgz" else "w"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            for member, data in ((name, content), (f"{name[:-4]}.txt", b"a caption")):
                header = tarfile.TarInfo(member)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return path


def write_table(path: Path, columns: Mapping[str, Sequence[Any]], group: int = 4) -> Path:
    """Write a Parquet file in row groups of that many rows."""
    pq.write_table(pa.table(dict(columns)), path, row_group_size=group)
    return path


def run(*arguments: object) -> int:
    """Run `relume classify`."""
    return main([str(one) for one in arguments])


def plain(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    """Return what `relume classify` prints without a folder, an object an image."""
    capsys.readouterr()
    run(*arguments, "--format", "jsonl")
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def found(out: Path | str) -> list[dict[str, Any]]:
    """Return what the tables hold, in their order, as `--format jsonl` says it; broken ones last.

    The files are read by their names: any other in the folder would be a fault.
    """
    lines = []
    for row in rows(out, "predictions"):
        names = ("index", "wnid", "label", "probability")
        best = [
            dict(zip(names, one, strict=True)) for one in zip(*map(row.get, names), strict=True)
        ]
        lines.append({"file": row["id"], "predictions": best})
    return lines + [{"file": row["id"], "error": row["error"]} for row in rows(out, "broken")]


def rows(out: Path | str, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table, one part after the other."""
    files = sorted((Path(out) / table).iterdir())
    assert [file.suffix for file in files] == [".parquet"] * len(files)
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def by_name(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return results by the images' names, each of which is there once."""
    named = {line["file"].rpartition("/")[2]: line for line in lines}
    assert len(named) == len(lines)
    return named
