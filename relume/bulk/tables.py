"""Images within Parquet files: their bytes in a column, or their paths or URLs."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from models.errors import DataError, FormatError, ImageError
from relume.bulk.packages import optional
from relume.bulk.parts import failing
from relume.bulk.places import image_bytes, is_url, opened, size
from relume.images import Image

ENDINGS = (".parquet", ".pq")
ROWS = 16  # that are read at a time: a few photographs
STORES = ("http", "https", "s3", "gs", "gcs", "abfs", "abfss", "az")  # that any table may name


class Columns(NamedTuple):
    """Which columns count: of the images, and of their names; None is found, or not there."""

    images: str | None
    ids: str | None


@dataclass(frozen=True)
class Rows:
    """Rows of a Parquet file.

    Attributes:
        name: The file.
        size: Its bytes.
        begin: The first row, from 0.
        end: The row behind the last.
        column: Of the images.
        kind: `bytes`, `uri`, or `struct` for one whose field `bytes` has them.
        ids: The column of the images' names, None for `name#row`.
    """

    name: str
    size: int
    begin: int
    end: int
    column: str
    kind: str
    ids: str | None

    @property
    def remote(self) -> bool:
        """Whether the rows only say where the images are."""
        return self.kind == "uri"

    def images(self) -> Iterator[Image]:
        """Yield the images; a null fails, as bad text does, and the rows behind damage."""
        row = self.begin
        with opened(self.name) as file:
            try:
                for value, name in self._values(_parquet(self.name, file)):
                    yield self._image(row, value, name)
                    row += 1
            except _damaged() as error:
                why = f"damaged from row {row:,} on ({' '.join(str(error).split())})"
                for left in range(row, self.end):
                    yield failing(f"{self.name}#{left}", ImageError(why))

    def _values(self, file: Any) -> Iterator[tuple[Any, Any]]:
        """Yield what the columns of images and of names have in each row."""
        groups: list[int] = []
        before = ends = 0
        for group in range(file.num_row_groups):
            begins, ends = ends, ends + file.metadata.row_group(group).num_rows
            if begins < self.end and ends > self.begin:
                before = before if groups else self.begin - begins
                groups.append(group)
        wanted = {self.column if self.kind != "struct" else f"{self.column}.bytes"}
        columns = sorted(wanted | ({self.ids} if self.ids else set()))
        left = self.end - self.begin
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=columns):
            batch, before = batch.slice(before), max(before - len(batch), 0)
            batch = batch.slice(0, left)
            names = batch.column(self.ids) if self.ids else [None] * len(batch)
            yield from zip(batch.column(self.column), names, strict=True)
            left -= len(batch)

    def _image(self, row: int, value: Any, called: Any) -> Image:
        name = f"{self.name}#{row}"
        try:
            if self.ids:
                name = str(_python(called, self.ids))
            value = _python(value, self.column)
            if self.kind == "uri":
                return Image(name, partial(image_bytes, place_of(value, self.name)))
            value = value if self.kind == "bytes" else value["bytes"]
            if value is None:
                raise ImageError(f"found null in the column {self.column}")
        except ImageError as error:
            return failing(name, error)
        return Image(name, partial(bytes, value))


def place_of(value: str, table: str) -> str:
    """Return the path or URL that a row of a table means, of those that it may name.

    Whoever wrote the table is not whoever runs it: drivers of fsspec can do more than read.

    Raises:
        ImageError: It is elsewhere.
    """
    own = table.partition("://")[0] if is_url(table) else "file"
    if is_url(value):
        protocol, _, path = value.partition("://")
        if protocol not in (*STORES, own):
            raise ImageError(f"found {protocol}://, expected a path or {'://, '.join(STORES)}://")
        if not path.strip("/"):
            raise ImageError(f"found {value}, which names no file")
        place = value
    elif value.startswith("/") and own not in ("file", "local"):
        raise ImageError("found a path of this machine in a table that is elsewhere")
    else:
        place = posixpath.join(posixpath.dirname(table), value)
    if is_url(place) and "::" in place:
        raise ImageError("found '::', expected the URL of one store")
    return place


def _python(value: Any, column: str) -> Any:
    """Return what a cell holds."""
    try:
        found = value.as_py()
    except UnicodeDecodeError as error:
        raise ImageError(f"found text that is not UTF-8 in the column {column}") from error
    if found is None:
        raise ImageError(f"found null in the column {column}")
    return found


def parts_of(name: str, count: int, columns: Columns) -> Iterator[Rows]:
    """Yield the rows of a Parquet file, about so many at a time.

    Bytes are taken by whole row groups, because nothing less can be read; paths exactly.

    Raises:
        FormatError: It is no Parquet file, or damaged.
        DataError: It is not clear which column has the images, or it has none.
    """
    length = size(name)
    with opened(name) as opening:
        try:
            file = _parquet(name, opening)
            schema = file.schema_arrow
            groups = [file.metadata.row_group(one).num_rows for one in range(file.num_row_groups)]
        except _damaged() as error:
            found = f"a damaged file ({' '.join(str(error).split())})"
            raise FormatError(name, "its end", found=found, expected="Parquet's footer") from error
        column, kind = _column(name, schema, columns)
    rows, begin, end = sum(groups), 0, 0
    for step in groups if kind != "uri" else [count] * -(-rows // count):
        end = min(end + step, rows)
        if end - begin >= count or end == rows:
            if end > begin:
                yield Rows(name, length, begin, end, column, kind, columns.ids)
            begin = end


def _column(name: str, schema: Any, columns: Columns) -> tuple[str, str]:
    """Return the column of the images, and of which kind it is."""
    kinds = {field.name: _kind(field.type) for field in schema}
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if len(kinds) < len(schema):
        raise DataError(
            f"{name}: found columns of the same name, expected different ones: {listed}"
        )
    if columns.ids is not None and kinds.get(columns.ids) not in ("uri", "number"):
        raise DataError(
            f"{name}: no column {columns.ids} of text or of whole numbers for --id-column; "
            f"it has {listed}"
        )
    if columns.images is not None:
        if kinds.get(columns.images) in (None, "number"):
            raise DataError(
                f"{name}: no column {columns.images} of bytes or of text for --column; "
                f"it has {listed}"
            )
        return columns.images, str(kinds[columns.images])
    for wanted in (("bytes", "struct"), ("uri",)):
        fit = [one for one in kinds if kinds[one] in wanted]
        if len(fit) > 1 and columns.ids in fit:
            fit.remove(columns.ids)
        if len(fit) == 1:
            return fit[0], str(kinds[fit[0]])
        if fit:
            break
    raise DataError(f"{name}: --column must say which one has the images; it has {listed}")


def _kind(kind: Any) -> str | None:
    types = optional("pyarrow.types", "parquet")
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_string(kind) or types.is_large_string(kind):
        return "uri"
    if types.is_integer(kind):
        return "number"
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:  # as Hugging Face stores them
        return "struct" if _kind(kind.field("bytes").type) == "bytes" else None
    return None


def _parquet(name: str, file: Any) -> Any:
    source = name if not is_url(name) else file
    return optional("pyarrow.parquet", "parquet").ParquetFile(source)


def _damaged() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises for damage; for some of it what Python has."""
    return (optional("pyarrow", "parquet").ArrowException, OSError, ValueError, KeyError)
