"""Records of Parquet and Arrow files, read in small batches, with all their columns, as JSON lines have all fields.

The schema is judged once, before any row: a text column that is no string refuses the file, since no row of it could
be used. Damage below the schema (a page, a record batch) refuses the file too, with its place, because what came
before it would be counted twice once the file is mended. One row that cannot be used is a bad record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from ladm.tasks.printable import printable
from ladm.tasks.reading.decoders import BLOCK_BYTES, WatchedFile
from ladm.tasks.reading.records import (
    BadRecord,
    Record,
    SourceConfig,
    UnreadableFile,
    record_of,
)
from ladm.tasks.reading.rows import UnreadableValue, rows_of, told_apart
from ladm.tasks.reading.streams import compression_of

TOO_DEEP = ("too deeply nested", "Max recursion depth")
"""What Arrow says of columns beyond some 64 to 100 levels."""
BATCH_ROWS = 64  # a document of 128K tokens is about half a megabyte
COLUMNS_CHARACTERS = 200  # of a refused file's columns, in the reason

# How an Arrow stream ends (the IPC format, "Streaming Format"). A writer may also just stop, but then a truncated
# file looks like a whole one, so a file without the mark is refused.
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}

_T = TypeVar("_T")


def read_parquet(file: BinaryIO, config: SourceConfig, groups: range | None = None) -> Iterator[Record | BadRecord]:
    """Read the records of a Parquet file, one row group after the other.

    Page checksums are verified where the file has them. Memory is bounded by the largest page and by `BATCH_ROWS`
    rows, not by the row group.

    Args:
        file: Open for binary reading, seekable.
        config: Says which columns are the text and the domain.
        groups: The row groups to read; all of them, when not given.

    Yields:
        Every row as a record or a bad record, in order.

    Raises:
        UnreadableFile: Not Parquet, truncated, damaged, or its text column is missing or no string.
        OSError: The storage failed.
    """
    head = _head(file, "Parquet")
    if not head.startswith((b"PAR1", b"PARE")):
        raise UnreadableFile("not a Parquet file: it does not begin with PAR1")
    watched = WatchedFile(file)
    source = _decoded(
        watched,
        "truncated or damaged Parquet file",
        lambda: pq.ParquetFile(
            pa.PythonFile(watched, mode="r"),
            page_checksum_verification=True,
            pre_buffer=False,  # it would hold a whole row group
            buffer_size=BLOCK_BYTES,
        ),
    )
    text = _decoded(watched, "damaged Parquet schema", lambda: _text_column(source.schema_arrow, config))
    groups = range(source.num_row_groups) if groups is None else groups
    row = sum(source.metadata.row_group(group).num_rows for group in range(groups.start))
    for group in groups:
        what = f"damaged Parquet file: row group {group + 1} of {source.num_row_groups}"
        rows = source.metadata.row_group(group).num_rows
        batches = source.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
        begin = row
        while (batch := _decoded(watched, what, partial(next, batches, None), row)) is not None:
            yield from _records(batch, config, row, text)
            row += batch.num_rows
        if row - begin != rows:
            raise UnreadableFile(f"{what} has {row - begin} rows, not the {rows} that it claims", row)


def read_arrow(file: BinaryIO, config: SourceConfig) -> Iterator[Record | BadRecord]:
    """Read the records of an Arrow IPC file (also called Feather) or stream.

    Every record batch is checked in full before it is used, so a batch with invalid UTF-8 refuses the file. Memory is
    bounded by the largest record batch, as the file's writer chose it.

    Args:
        file: Open for binary reading, seekable.
        config: Says which columns are the text and the domain.

    Yields:
        Every row as a record or a bad record, in order.

    Raises:
        UnreadableFile: Not Arrow, truncated, damaged, or its text column is missing or no string.
        OSError: The storage failed.
    """
    head = _head(file, "Arrow")
    watched = WatchedFile(file)
    is_file = head.startswith(b"ARROW1")
    opened = pa.ipc.open_file if is_file else pa.ipc.open_stream
    what = "truncated or damaged Arrow file" if is_file else "not an Arrow file or stream, or one cut in its schema"
    source = _decoded(watched, what, lambda: opened(pa.PythonFile(watched, mode="r")))
    text = _decoded(watched, "damaged Arrow schema", lambda: _text_column(source.schema, config))
    batches = _arrow_batches(source, text)
    row = 0
    for number in count(1):
        batch = _decoded(watched, f"damaged Arrow file: record batch {number}", partial(next, batches, None), row)
        if batch is None:
            break
        for begin in range(0, batch.num_rows, BATCH_ROWS):
            yield from _records(batch.slice(begin, BATCH_ROWS), config, row + begin, text)
        row += batch.num_rows
    if not is_file:
        stopped = watched.tell()
        watched.seek(-len(END_OF_STREAM), 2)
        if watched.read() != END_OF_STREAM or watched.tell() != stopped:
            raise UnreadableFile("truncated or damaged Arrow stream: its end-of-stream mark is not at its end", row + 1)


def schema_of(file: BinaryIO, kind: str) -> pa.Schema:
    """The columns of a Parquet or Arrow file.

    Args:
        file: Open for binary reading, seekable.
        kind: `parquet` or `arrow`.

    Raises:
        UnreadableFile: It is no such file, or its end or beginning is damaged.
    """
    head = _head(file, kind.capitalize())
    opened = pa.ipc.open_file if head.startswith(b"ARROW1") else pa.ipc.open_stream

    def read() -> pa.Schema:
        return pq.read_schema(file) if kind == "parquet" else opened(file).schema

    return _decoded(WatchedFile(file), f"damaged {kind} file", read)


def _arrow_batches(source: Any, text: int) -> Iterator[pa.RecordBatch]:
    """Give a file's or a stream's record batches, each one checked.

    The reader trusts the offsets inside, and would follow them anywhere. What beside the text is no UTF-8 does no harm.
    """
    is_file = isinstance(source, pa.ipc.RecordBatchFileReader)
    batches = map(source.get_batch, range(source.num_record_batches)) if is_file else source
    for batch in batches:
        batch.validate()
        for place, column in enumerate(batch.columns):
            as_bytes = _BYTES.get(column.type) if place != text else None
            (column.view(as_bytes) if as_bytes else column).validate(full=True)
        yield batch


def _head(file: BinaryIO, what: str) -> bytes:
    """Read the first bytes and go back; refuse an empty file and a compressed one."""
    head = file.read(16)
    file.seek(0)
    if not head:
        raise UnreadableFile(f"empty: not a valid {what} file")
    if codec := compression_of(head):
        raise UnreadableFile(f"{what} inside {codec}: decompress it ({what} compresses its own columns)")
    return head


def _decoded(watched: WatchedFile, what: str, read: Callable[[], _T], row: int | None = None) -> _T:
    """Call Arrow, and tell the file's damage from an error of the storage."""
    try:
        return read()
    except (OSError, ValueError, pa.ArrowException) as error:
        watched.raise_own_error()
        if any(words in str(error) for words in TOO_DEEP):
            what = "whole, but with columns nested too deeply for Arrow to read; write them flat"
        raise UnreadableFile(f"{what}: {error}", None if row is None else row + 1) from error


def _names_within(kind: pa.DataType) -> list[str]:
    """The names of a type's fields, however deep; raises `UnicodeDecodeError` where one is damaged."""
    fields = [kind.field(place) for place in range(kind.num_fields)]
    return [name for field in fields for name in (field.name, *_names_within(field.type))]


def _text_column(schema: pa.Schema, config: SourceConfig) -> int:
    """Find the column that holds the text; refuse a file that has none, or two of the text's or the domain's name."""
    names = schema.names
    for column in schema:
        _names_within(column.type)
    paths = [config.text, *([config.domain] if isinstance(config.domain, str) else [])]
    roots = [path if path in names else path.split(".")[0] for path in paths]
    kind = _type_at(schema, config.text)
    if kind is None or not _is_text(kind):
        found = printable(", ".join(f"{field.name}: {field.type}" for field in schema), COLUMNS_CHARACTERS)
        text = printable(config.text)
        wrong = f"no column {text}" if kind is None else f"column {text} is {printable(str(kind), 60)}, not a string"
        raise UnreadableFile(f"{wrong}; sources[].text picks one of the columns found: {found or 'none'}")
    for name in roots:
        if names.count(name) > 1:
            raise UnreadableFile(f"two columns are named {printable(name)}")
    place: int = names.index(roots[0])
    return place


def _type_at(schema: pa.Schema, path: str) -> pa.DataType | None:
    """Find the type that a dotted path leads to; a column whose own name is the path wins. None: nothing there."""
    fields = list(schema)
    for keys in ([path], path.split(".")):
        here: list[Any] = fields
        kind: pa.DataType | None = None
        for key in keys:
            kind = next((field.type for field in here if field.name == key), None)
            here = list(kind) if kind is not None and pa.types.is_struct(kind) else []
        if kind is not None:
            return kind
    return None


def _is_text(kind: pa.DataType) -> bool:
    """Tell whether a column's type is one of Arrow's strings, dictionary-encoded or not."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _records(batch: pa.RecordBatch, config: SourceConfig, first: int, text: int) -> Iterator[Record | BadRecord]:
    """Turn a batch's rows into records."""
    names = told_apart(batch.schema.names)
    for row, fields in enumerate(rows_of(batch, names, text), first):
        if isinstance(fields, UnreadableValue):
            yield BadRecord(row + 1, row, printable(str(fields)), "")
        else:
            yield record_of(fields, config, row + 1, row)
