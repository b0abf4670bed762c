"""The two Parquet tables of a part: what was found in its images, and which are broken.

A part may be done by two processes at a time, as when a scheduler starts a task again that still
runs, and they may find different images broken. So the one that is first to put the predictions in
place decides: they say which images are broken, too, and whoever comes makes the other table of it.
"""

import json
from collections.abc import Sequence
from typing import Any

from models.errors import DataError
from relume.bulk.folder import Folder
from relume.bulk.packages import optional
from relume.classifier import Result

PREDICTIONS, BROKEN = "predictions", "broken"
_SAID = b"relume.broken"  # in the predictions' metadata: the rows of the other table, as JSON

Pairs = Sequence[tuple[str, str]]


def finished(folder: Folder, parts: int) -> set[int]:
    """Return the numbers of the parts of which both tables are there."""
    there = folder.names(PREDICTIONS) & folder.names(BROKEN)
    return {number for number in range(parts) if file_name(number, parts) in there}


def file_name(number: int, parts: int) -> str:
    """Return the name of a part's files, which sorts as the part does."""
    width = max(5, len(str(parts)))
    return f"part-{number:0{width}}-of-{parts:0{width}}.parquet"


def write(folder: Folder, name: str, results: Sequence[Result], model_sha256: str) -> None:
    """Write a part's tables; those of who was faster stay, and are completed.

    Raises:
        DataError: The file of predictions that is there is damaged.
    """
    arrow = optional("pyarrow", "parquet")
    bad = [(_text(one.name), _text(one.error)) for one in results if one.error is not None]
    predictions = arrow.table(_predictions(arrow, results, model_sha256))
    predictions = predictions.replace_schema_metadata({_SAID: json.dumps(bad).encode()})
    if folder.create(f"{PREDICTIONS}/{name}", _content(predictions)):
        folder.write(f"{BROKEN}/{name}", _broken(bad))
    else:
        settled(folder, name)


def settled(folder: Folder, name: str) -> bool:
    """Whether a part's predictions are there; the other table is then, too.

    Raises:
        DataError: The file of predictions is damaged.
    """
    content = folder.read(f"{PREDICTIONS}/{name}")
    if content is None:
        return False
    if not folder.exists(f"{BROKEN}/{name}"):
        folder.write(f"{BROKEN}/{name}", _broken(_said(name, content)))
    return True


def _said(name: str, content: bytes) -> Pairs:
    """Return the broken images that a file of predictions names."""
    arrow = optional("pyarrow", "parquet")
    try:
        schema = optional("pyarrow.parquet", "parquet").read_schema(arrow.BufferReader(content))
        pairs: Pairs = json.loads(schema.metadata[_SAID])
    except (arrow.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{PREDICTIONS}/{name}: damaged; remove it, and run it again") from error
    return pairs


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
    return {"id": ids, **columns, "model_sha256": sha256}


def _broken(pairs: Pairs) -> bytes:
    arrow = optional("pyarrow", "parquet")
    ids, errors = ([pair[place] for pair in pairs] for place in (0, 1))
    kind = arrow.string()
    return _content(arrow.table({"id": arrow.array(ids, kind), "error": arrow.array(errors, kind)}))


def _content(table: Any) -> bytes:
    buffer = optional("pyarrow", "parquet").BufferOutputStream()
    optional("pyarrow.parquet", "parquet").write_table(table, buffer)
    return bytes(buffer.getvalue())


def _text(name: str) -> str:
    """Return a name as Unicode; bytes of a file's name that are none are shown as numbers."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
