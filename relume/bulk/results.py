"""The two Parquet tables of a part: what was found in its images, and which are broken."""

from collections.abc import Sequence
from typing import Any

from relume.bulk.folder import Folder
from relume.bulk.packages import optional
from relume.classifier import Result

PREDICTIONS, BROKEN = "predictions", "broken"


def finished(folder: Folder, parts: int) -> set[int]:
    """Return the numbers of the parts whose predictions are there, which is what ends a part."""
    there = folder.names(PREDICTIONS)
    return {number for number in range(parts) if file_name(number, parts) in there}


def file_name(number: int, parts: int) -> str:
    """Return the name of a part's files, which sorts as the part does."""
    width = max(5, len(str(parts)))
    return f"part-{number:0{width}}-of-{parts:0{width}}.parquet"


def write(folder: Folder, name: str, results: Sequence[Result], model_sha256: str) -> None:
    """Write a part's tables, first that of the broken images: the other one ends the part."""
    arrow = optional("pyarrow", "parquet")
    for table, of in ((BROKEN, _broken), (PREDICTIONS, _predictions)):
        content = _content(arrow.table(**of(arrow, results, model_sha256)))
        folder.write(f"{table}/{name}", content)


def _predictions(arrow: Any, results: Sequence[Result], model_sha256: str) -> dict[str, Any]:
    good = [one for one in results if one.error is None]
    best = [one.predictions for one in good]
    lists = {
        "index": arrow.int32(),
        "wnid": arrow.string(),
        "label": arrow.string(),
        "probability": arrow.float32(),
    }
    columns = {
        name: arrow.array([[getattr(each, name) for each in one] for one in best], arrow.list_(of))
        for name, of in lists.items()
    }
    ids = arrow.array([_text(one.name) for one in good], arrow.string())
    sha256 = arrow.array([model_sha256] * len(good), arrow.string())
    return {"data": {"id": ids, **columns, "model_sha256": sha256}}


def _broken(arrow: Any, results: Sequence[Result], _: str) -> dict[str, Any]:
    bad = [(_text(one.name), _text(one.error)) for one in results if one.error is not None]
    ids, errors = ([pair[place] for pair in bad] for place in (0, 1))
    kind = arrow.string()
    return {"data": {"id": arrow.array(ids, kind), "error": arrow.array(errors, kind)}}


def _content(table: Any) -> bytes:
    buffer = optional("pyarrow", "parquet").BufferOutputStream()
    optional("pyarrow.parquet", "parquet").write_table(table, buffer)
    return bytes(buffer.getvalue())


def _text(name: str) -> str:
    """Return a name as Unicode; bytes of a file's name that are none are shown as numbers."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
