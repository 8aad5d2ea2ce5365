"""What every source format gives: a record, or a bad record with the reason it cannot be used.

A source entry of the configuration says where the text and the domain of a record are; `record_of` applies it to
the fields of one record, whether they came from a JSON line or from a row of Parquet. A bad *record* is an object
that travels on to the quarantine; a bad *file* is the exception `UnreadableFile`, since what was read before the
damage must not be used either: tomorrow's repaired file would count it twice.
"""

from __future__ import annotations

import base64
import datetime
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import Field, field_validator

from ladm.tasks.printable import printable
from ladm.tasks.reading.record_sql import check_expression, fields_read
from ladm.tasks.redact import checked_uri
from ladm.tasks.settings import Settings

UNKNOWN_DOMAIN = "unknown"
"""The domain of a record whose domain field is absent, null, empty, or not a single value."""

REASON_CHARACTERS = 500

KINDS: dict[type, str] = {
    type(None): "null",
    str: "a string",
    bool: "a boolean",  # which is an int, too
    int: "a number",
    float: "a number",
    dict: "an object",
    list: "an array",
}
"""What JSON calls the types of its values."""


class ConstDomain(Settings):
    """One domain for every record of a source."""

    const: str = Field(min_length=1)
    """The domain's name."""


class SqlDomain(Settings):
    """A domain that an SQL expression gives of each record."""

    sql: str = Field(min_length=1)
    """The expression, over the record's fields: `split_part(meta.url, '/', 3)`."""

    @field_validator("sql")
    @classmethod
    def _can_be_asked(cls, sql: str) -> str:
        check_expression(sql, is_condition=False)
        return sql


AN_EXPRESSION = re.compile(r"[()']|\|\||->")
"""What a dotted path does not have."""


class SourceConfig(Settings):
    """One entry of `sources:`: where the records are, and which of their fields are the text and the domain."""

    uri: str = Field(min_length=1)
    """A file, a folder, a glob, or a URL such as `s3://bucket/prefix/*.jsonl.zst`."""
    only: list[str] | None = Field(default=None, min_length=1, exclude_if=lambda only: only is None)
    """Of the files that `uri` names only those with such a name are read: `["*.py", "*.pyi"]`. All, when not given."""
    skip: list[str] | None = Field(default=None, min_length=1, exclude_if=lambda skip: skip is None)
    """Files and folders below `uri` that are left out, by their names or, with a slash, their paths:
    `[node_modules, "*.min.js", web/build]`. None, when not given."""
    text: str = Field(default="text", min_length=1)
    """The field that holds the text; a dotted path such as `body.text` leads into nested fields. If a field's own name
    is `body.text`, that field is taken."""
    domain: str | ConstDomain | SqlDomain = "meta.pile_set_name"
    """The field that holds the domain's name, as a dotted path; `{const: books}` for one domain; or an SQL expression
    over the record's fields, `split_part(meta.url, '/', 3)`. Records without a domain go to `unknown`."""
    keep: str | None = Field(default=None, min_length=1, exclude_if=lambda keep: keep is None)
    """An SQL condition over the record's fields: `language = 'en' and length(text) > 1000`. Records for which it is
    false or null are dropped, and counted. All are kept when not given."""
    format: Literal["auto", "jsonl", "parquet", "arrow", "txt", "text"] = "auto"
    """How the files are read. `auto`: by the file name, without its compression suffix. `text` (or `txt`): each file,
    of whatever name, is one document. Compression is told by the file's first bytes."""
    max_record_bytes: int = Field(default=134_217_728, ge=1)
    """A longer line (jsonl) or text (other formats) is quarantined. Raise it only with memory to spare: a document
    takes about twelve times its size while it is processed, 12 GB for 1 GB of text."""

    @field_validator("format")
    @classmethod
    def _text_is_txt(cls, name: str) -> str:
        return "txt" if name == "text" else name

    @field_validator("domain", mode="before")
    @classmethod
    def _domain_by_sql(cls, domain: object) -> object:
        """Let a string that cannot be a path stand for an expression."""
        return SqlDomain(sql=domain) if isinstance(domain, str) and AN_EXPRESSION.search(domain) else domain

    @field_validator("keep")
    @classmethod
    def _keep_can_be_asked(cls, keep: str | None) -> str | None:
        if keep is not None:
            check_expression(keep, is_condition=True)
        return keep

    @property
    def domain_sql(self) -> str | None:
        """The expression that gives the domain; None where it is a field or a constant."""
        return self.domain.sql if isinstance(self.domain, SqlDomain) else None

    @property
    def fields_of_expressions(self) -> dict[str, str]:
        """The fields that its expressions read, each with the setting that does."""
        given = {"domain": self.domain_sql, "keep": self.keep}
        return {field: name for name, sql in given.items() if sql for field in fields_read(sql)}

    @field_validator("uri")
    @classmethod
    def _no_secret_in_the_uri(cls, uri: str) -> str:
        return checked_uri(uri)


@dataclass(frozen=True, slots=True)
class Record:
    """One document as its source has it. An empty or blank text is a record too: the length stage drops it."""

    line: int
    """1-based line (jsonl) or row (Parquet, Arrow); 1 for a text file."""
    offset: int
    """Byte of the line in the decompressed stream (a byte order mark is no part of line 1), or 0-based row."""
    text: str
    domain: str
    meta: str | None
    """JSON of all the other fields read; None where there are none."""


class LastRead(NamedTuple):
    """The place of a record behind which reading goes on; as in `Record`."""

    line: int
    offset: int


@dataclass(frozen=True, slots=True)
class BadRecord:
    """One record that cannot be used. `line` and `offset` are as in `Record`."""

    line: int
    offset: int
    reason: str
    """One line."""
    excerpt: str
    """The beginning of the record, at most 200 printable characters."""


class UnreadableFile(Exception):  # noqa: N818  # it says what the file is; the caller quarantines it and goes on
    """A file that cannot be read to its end, or is not what its name says.

    Attributes:
        reason: One printable line, without the file's name.
        line: The 1-based line or row where reading stopped, where that is known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.reason = printable(reason, REASON_CHARACTERS)
        self.line = line
        super().__init__(self.reason)


def record_of(
    fields: dict[str, Any], config: SourceConfig, line: int, offset: int, raw: bytes = b""
) -> Record | BadRecord:
    """Pick a record's text and domain out of its fields.

    Args:
        fields: The record's fields; the text is taken out of them.
        config: Says where the text and the domain are.
        line: 1-based line or row.
        offset: Byte or 0-based row.
        raw: The record as stored, for the excerpt of a bad one; without it the other fields stand in.

    Returns:
        The record, or a bad one where the text is absent, null, no string or too long, or the other fields cannot
        be written as JSON.
    """
    domain = _domain(fields, config, of_row=not raw)
    place = find(fields, config.text)
    text: Any = None
    if place is not None:
        parent, key = place
        text = parent.pop(key)
    try:
        meta = _json(fields, of_row=not raw) if fields else None
    except orjson.JSONEncodeError as error:  # nested deeper than orjson writes (254 levels)
        return BadRecord(line, offset, f"fields that cannot be kept as JSON: {error}", printable(raw))
    if not isinstance(text, str):
        wrong = (
            f"no field {config.text!r}" if place is None else f"field {config.text!r} is {kind_of(text)}, not a string"
        )
        reason = printable(wrong, REASON_CHARACTERS)
        return BadRecord(line, offset, reason, printable(raw or meta or ""))
    if longer_than(text, config.max_record_bytes):
        return BadRecord(line, offset, too_long(config), printable(text))
    return Record(line, offset, text, domain, meta)


def longer_than(text: str, limit: int) -> bool:
    """Tell whether a text's UTF-8 form has more than `limit` bytes, without making it where lengths settle it."""
    return len(text) * 4 > limit and len(text.encode()) > limit


def too_long(config: SourceConfig) -> str:
    """Say why a record was not held in memory."""
    return f"longer than max_record_bytes ({config.max_record_bytes:,}); raise it for this source to read it"


def find(fields: dict[str, Any], path: str) -> tuple[dict[str, Any], str] | None:
    """Find the dict and the key that a dotted path leads to; None where it leads nowhere."""
    if path in fields:
        return fields, path
    *way, last = path.split(".")
    node: Any = fields
    for key in way:
        node = node.get(key) if isinstance(node, dict) else None
    return (node, last) if isinstance(node, dict) and last in node else None


def _domain(fields: dict[str, Any], config: SourceConfig, of_row: bool) -> str:
    """Name a record's domain: strings as they are, other single values as text, the rest `UNKNOWN_DOMAIN`."""
    if not isinstance(config.domain, str):  # an expression is asked later (`expressions.py`)
        return config.domain.const if isinstance(config.domain, ConstDomain) else UNKNOWN_DOMAIN
    place = find(fields, config.domain)
    value = place[0][place[1]] if place else None
    match value:
        case None | bytes() | dict() | list() | tuple():
            return UNKNOWN_DOMAIN
        case str():
            is_none = not value or (of_row and value == "NaN")  # a number of Parquet that is none (`rows.py`)
            return UNKNOWN_DOMAIN if is_none else value
        case float() if not math.isfinite(value):
            return UNKNOWN_DOMAIN
        case bool() | int() | float():
            return orjson.dumps(value).decode()
    return str(value)  # what only Parquet and Arrow have: dates, decimals


def kind_of(value: object) -> str:
    """Name a value's type as JSON calls it."""
    return next((name for kind, name in KINDS.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def _json(fields: dict[str, Any], of_row: bool) -> str:
    """Write fields as JSON; those of a row (Parquet, Arrow) may hold what JSON has no form for."""
    try:
        return orjson.dumps(fields, default=_plain).decode()
    except orjson.JSONEncodeError:
        if not of_row:
            raise
    return orjson.dumps(_plain_inside(fields)).decode()  # keys of maps that are no text, say


def _plain_inside(value: Any) -> Any:
    """A value with text for every key, and for every value, that JSON has no form for."""
    match value:
        case dict():
            return {key if isinstance(key, str) else _key(key): _plain_inside(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain_inside(one) for one in value]
        case None | str() | bool() | int() | float():
            return value
    return _plain(value)


def _key(key: object) -> str:
    return orjson.dumps(key, default=_plain).decode().strip('"')


def _plain(value: object) -> Any:
    """Write what JSON has no type for: bytes in base64, all else (decimals, durations, dates) as text."""
    match value:
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case datetime.date() | datetime.time():
            return value.isoformat()
    return str(value)
