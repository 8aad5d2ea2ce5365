"""One source file in, its records out: JSON lines, Parquet, Arrow, or one text file a document.

Nothing is lost without a word. Every non-blank line, and every row, comes out as a `Record` or as a `BadRecord` with
its place and the reason; a file that cannot be read to its end, or is not what its name says, raises
`UnreadableFile`, and the caller then drops what it had of it. JSON is read strictly (`orjson`): NaN, lone surrogates,
invalid UTF-8 and nesting beyond 1,024 levels are refused where they stand rather than far away, in a tokenizer or a
Parquet writer. Of a key that is there twice the last value counts; a whole number beyond 64 bits is kept as text.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from ladm.tasks.printable import printable
from ladm.tasks.reading.arrow_files import read_arrow, read_parquet
from ladm.tasks.reading.expressions import DroppedRecord, asked
from ladm.tasks.reading.parts import ALL, Wanted, lines_behind, lines_of_part
from ladm.tasks.reading.records import (
    UNKNOWN_DOMAIN,
    BadRecord,
    ConstDomain,
    LastRead,
    Record,
    SourceConfig,
    UnreadableFile,
    record_of,
    too_long,
)
from ladm.tasks.reading.streams import CLAIMS, Line, blocks_of, lines_of, text_blocks

__all__ = [
    "UNKNOWN_DOMAIN",
    "BadRecord",
    "ConstDomain",
    "Record",
    "SourceConfig",
    "UnreadableFile",
    "detect_format",
    "read_records",
    "refuse_one_value",
]

FORMATS = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "parquet": "parquet",
    "pq": "parquet",
    "arrow": "arrow",
    "arrows": "arrow",
    "ipc": "arrow",
    "feather": "arrow",
    "txt": "txt",
    "text": "txt",
}
"""The format that a name's extension stands for, in any case."""

# A first line that is one bracket, or a list of objects, whole or cut off: one JSON value for the file.
_ARRAY = re.compile(rb"\s*\[\s*(?:\{|$)")
_OBJECT = re.compile(rb"\s*\{\s*$")

_NO_NUMBER = re.compile(r"NaN|Infinity")
# A number of 19 digits or more, as `orjson` writes what it has rounded; it may as well stand in a string.
_ROUNDED = re.compile(r"\de\+?(?:1[89]|[2-9]\d|[1-3]\d\d)")

_JSON_KINDS = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}


def detect_format(name: str, config: SourceConfig) -> str:
    """Say how a file is to be read.

    Args:
        name: The file's path or URL; only its last part counts.
        config: Its `format`, unless it is `auto`, decides.

    Returns:
        `jsonl`, `parquet`, `arrow` or `txt`.

    Raises:
        UnreadableFile: The extension, less a suffix that claims compression, stands for no format.
    """
    if config.format != "auto":
        return config.format
    base = name.rsplit("/", 1)[-1].lower()
    suffix = next((suffix for suffix in CLAIMS if base.endswith(suffix)), "")
    extension = base.removesuffix(suffix).rpartition(".")[2] if "." in base.removesuffix(suffix) else ""
    if extension not in FORMATS:
        known = ", ".join(f".{known}" for known in FORMATS)
        raise UnreadableFile(
            f"no format known for the extension {'.' + extension if extension else '(none)'}: read are {known}, each "
            f"also with {', '.join(CLAIMS)}; sources[].format names one whatever the extension (text for .md, .py)"
        )
    return FORMATS[extension]


def read_records(
    file: BinaryIO, name: str, config: SourceConfig, wanted: Wanted = ALL
) -> Iterator[Record | BadRecord | DroppedRecord]:
    """Read a source file's records, in order, with memory bounded by `config.max_record_bytes` and not by the file.

    Args:
        file: Open for binary reading, at its beginning, seekable. It is not closed.
        name: Its path or URL, for its format.
        config: The source's entry in the configuration.
        wanted: Which of its records are read. What is said of damage holds for what is read of it.

    Yields:
        A record, a bad record or one that `keep` drops, for every non-blank line of JSON lines, for every row, or for
        the text file.

    Raises:
        UnreadableFile: The file cannot be read to its end, or is not what its name says.
        OSError: The storage failed; unchanged, so that the caller can retry.
    """
    records = _records(file, name, config, wanted)
    yield from asked(records, config) if config.domain_sql or config.keep else records


def _records(file: BinaryIO, name: str, config: SourceConfig, wanted: Wanted) -> Iterator[Record | BadRecord]:
    """Read them, before any expression is asked of them."""
    part, after = wanted.part, wanted.after
    match detect_format(name, config):
        case "parquet":
            rows = read_parquet(file, config, range(part.begin, part.end) if part else None)
            yield from _rows_behind(rows, after)
        case "arrow":
            yield from _rows_behind(read_arrow(file, config), after)
        case "txt":
            yield _read_text(file, name, config)
        case _:
            yield from _read_lines(file, name, config, wanted)


def _rows_behind(rows: Iterator[Record | BadRecord], after: LastRead | None) -> Iterator[Record | BadRecord]:
    """The rows behind one; all, where none is given."""
    return itertools.dropwhile(lambda row: row.line <= after.line, rows) if after else rows


def _read_text(file: BinaryIO, name: str, config: SourceConfig) -> Record | BadRecord:
    """Read a file that is one document as a whole."""
    _, blocks = text_blocks(blocks_of(file, name))
    parts: list[bytes] = []
    size = 0
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size > config.max_record_bytes:
            return BadRecord(1, 0, too_long(config), printable(b"".join(parts[:2])))
    raw = b"".join(parts)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return BadRecord(1, 0, f"not UTF-8: byte {raw[error.start]:#04x} at byte {error.start}", printable(raw))
    domain = config.domain.const if isinstance(config.domain, ConstDomain) else UNKNOWN_DOMAIN
    return Record(1, 0, text, domain, None)


def _read_lines(file: BinaryIO, name: str, config: SourceConfig, wanted: Wanted) -> Iterator[Record | BadRecord]:
    """Read JSON lines."""
    limit, first = config.max_record_bytes, wanted.after is None
    if wanted.part:
        assert wanted.places is not None
        first, lines = lines_of_part(file, wanted.part, wanted.places, limit, wanted.after)
    elif wanted.after:
        lines = lines_behind(file, wanted.after, limit)
    else:
        start, blocks = text_blocks(blocks_of(file, name))
        lines = lines_of(blocks, limit, start)
    yield from _of_lines(lines, config, first)


def _of_lines(lines: Iterator[Line], config: SourceConfig, first: bool) -> Iterator[Record | BadRecord]:
    """Read the records of lines, the `first` of the file among them or not."""
    for line in lines:
        if line.whole and not line.content.strip():
            continue
        if first:
            refuse_one_value(line)
        first = False
        yield _parse(line, config)


def refuse_one_value(line: Line) -> None:
    """Refuse a file whose first line shows that it is one JSON value, not one a line."""
    if _ARRAY.match(line.content):
        raise UnreadableFile("a JSON array, not one object a line: convert it with `jq -c '.[]'`", line.number)
    if _OBJECT.match(line.content):
        raise UnreadableFile("JSON spread over several lines, not one object a line: use `jq -c .`", line.number)


def _parse(line: Line, config: SourceConfig) -> Record | BadRecord:
    """Read one line."""
    raw = line.content
    if not line.whole:
        return BadRecord(line.number, line.offset, too_long(config), printable(raw))
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return BadRecord(line.number, line.offset, _json_reason(raw, error), printable(raw))
    if not isinstance(fields, dict):
        kind = _JSON_KINDS.get(type(fields), "null")
        return BadRecord(line.number, line.offset, f"not a JSON object but {kind}", printable(raw))
    record = record_of(fields, config, line.number, line.offset, raw)
    if isinstance(record, Record) and record.meta and _ROUNDED.search(record.meta):
        return record_of(json.loads(raw, parse_int=_whole), config, line.number, line.offset, raw)
    return record


def _whole(digits: str) -> int | str:
    """Read a whole number; one that 64 bits do not hold stays the text that it is."""
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else digits


def _json_reason(raw: bytes, error: orjson.JSONDecodeError) -> str:
    """Tell bytes that are no UTF-8 from UTF-8 that is no JSON."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return f"not UTF-8: byte {raw[wrong.start]:#04x} at byte {wrong.start} of the line"
    if found := _NO_NUMBER.match(error.doc, error.pos):  # as Python writes it
        return f"not JSON: {found[0]} at character {found.start() + 1} of the line is no JSON; write null"
    return printable(f"not JSON: {error.msg} at character {error.pos + 1} of the line")
