"""A look at the first records of each entry of `sources`, before any work: are the fields there that it names?

A misspelt `text` would quarantine every record, and a misspelt `domain` would put them all into `unknown`, hours later
and one by one. So an entry is refused if none of the first records of its first files has such a field. Where some
have it, or nothing can be told (no record, a damaged file, storage that fails), ingestion will say what is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson
import pyarrow as pa

from ladm.tasks.errors import SourceError
from ladm.tasks.manifest import SourceFile
from ladm.tasks.printable import printable
from ladm.tasks.reading.arrow_files import schema_of
from ladm.tasks.reading.readers import SourceConfig, UnreadableFile, detect_format, refuse_one_value
from ladm.tasks.reading.records import find, kind_of
from ladm.tasks.reading.sources import ListedFile
from ladm.tasks.reading.streams import blocks_of, lines_of, text_blocks
from ladm.tasks.storage.file_systems import io_errors, opened

FILES = 5
"""Files of an entry that tell anything, of which the first records are looked at."""
TRIED = 20
"""Files of an entry that are opened at most, where some tell nothing."""
RECORDS = 200
"""Records of a file that are looked at."""
HEAD_BYTES = 4 * 2**20
"""Bytes of a file, decompressed, that are read for them."""
ENTRIES_AT_ONCE = 8
DEEPEST = 3
FIELDS_CHARACTERS = 300
SCALARS = ("a string", "a number", "a boolean", "null")
"""What may name a domain; null, too: another record may have it."""


@dataclass
class FirstRecords:
    """What the first records of an entry's files hold."""

    files: int = 0
    """Files that told something."""
    records: int = 0
    """Records looked at; 0 where only the columns of tables were."""
    texts: int = 0
    """Files that are one document each, and have no fields."""
    fields: dict[str, set[str]] = field(default_factory=dict)
    """Dotted name → the kinds of its values."""
    longest: dict[str, int] = field(default_factory=dict)
    """Dotted name → characters of the longest string seen."""
    found: dict[str, set[str]] = field(default_factory=dict)
    """Field that the entry names → the kinds of its values."""


def check_first_records(listed: Sequence[ListedFile], sources: Sequence[SourceConfig]) -> None:
    """Refuse an entry whose `text` or `domain` is in none of the first records of its files.

    Args:
        listed: All files, with their entries.
        sources: The entries, in the order of the configuration.

    Raises:
        SourceError: One line that names the field, the fields that are there, and the nearest one.
    """
    of: dict[int, list[SourceFile]] = {}
    for one in listed:
        of.setdefault(id(one.config), []).append(one.file)
    with ThreadPoolExecutor(ENTRIES_AT_ONCE) as pool:
        looks = pool.map(lambda source: look_at(of.get(id(source), []), source), sources)
        for number, (source, first) in enumerate(zip(sources, looks, strict=True)):
            _check_text(first, source, f"sources[{number}].text")
            _check_domain(first, source, f"sources[{number}].domain")
            _check_expressions(first, source, f"sources[{number}]")


def look_at(files: Sequence[SourceFile], source: SourceConfig) -> FirstRecords:
    """What the first records hold of some of an entry's files, the first, the last and others between them."""
    first = FirstRecords()
    for file in islice(_spread(files), TRIED):
        if file.problem or not file.size:
            continue
        try:
            kind = detect_format(file.uri, source)
            if kind == "txt":
                first.texts += 1
            else:
                _note(first, source, _schema(file, kind) if kind != "jsonl" else islice(_lines(file), RECORDS))
        except io_errors(UnreadableFile, ValueError):
            continue
        if first.files + first.texts >= FILES:
            break
    return first


def _spread(files: Sequence[SourceFile]) -> Iterator[SourceFile]:
    """All files, in an order whose beginning is spread over them."""
    step = max(1, (len(files) - 1) // (FILES - 1))
    places = dict.fromkeys([*range(0, len(files), step), *range(len(files))])
    return (files[place] for place in places)


def _lines(file: SourceFile) -> Iterator[dict[str, Any]]:
    """The objects of a file's first lines."""
    with opened(file.uri) as stream:
        start, blocks = text_blocks(blocks_of(stream, file.uri))
        head = bytearray()
        for block in blocks:
            head += block
            if len(head) >= HEAD_BYTES or head.count(b"\n") >= RECORDS:
                break
    lines = (line for line in lines_of([bytes(head)], HEAD_BYTES, start) if line.content.strip())
    for number, line in enumerate(lines):
        if not number:
            refuse_one_value(line)
        try:
            fields = orjson.loads(line.content)
        except orjson.JSONDecodeError:
            continue
        if isinstance(fields, dict):
            yield fields


def _schema(file: SourceFile, kind: str) -> pa.Schema:
    with opened(file.uri) as stream:
        return schema_of(stream, kind)


def _note(first: FirstRecords, source: SourceConfig, told: pa.Schema | Iterable[dict[str, Any]]) -> None:
    """Add what a file tells."""
    paths = [source.text, *([source.domain] if isinstance(source.domain, str) else [])]
    if isinstance(told, pa.Schema):
        records, number = [_as_record(told)], 0
    else:
        records = list(told)
        number = len(records)
    if not records:
        return
    first.files += 1
    first.records += number
    for record in records:
        for path in paths:
            if place := find(record, path):
                first.found.setdefault(path, set()).add(_kind(place[0][place[1]]))
        _note_fields(first, record, "", 1)


def _as_record(schema: pa.Schema | pa.StructType) -> dict[str, Any]:
    """A record that has a value of its kind in each column."""
    return {one.name: _example(one.type) for one in schema}


def _example(kind: pa.DataType) -> Any:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_struct(kind):
        return _as_record(kind)
    if pa.types.is_map(kind):
        return _AnyKey()
    if pa.types.is_nested(kind):
        return []
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return ""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return b""
    return None if pa.types.is_null(kind) else 0


class _AnyKey(dict[str, Any]):
    """A map, of which only its rows tell the keys."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> Any:
        return self

    def get(self, key: str, default: Any = None) -> Any:
        return self


def _kind(value: Any) -> str:
    return "null" if isinstance(value, _AnyKey) else kind_of(value)


def _note_fields(first: FirstRecords, record: dict[str, Any], prefix: str, depth: int) -> None:
    for name, value in record.items():
        path = f"{prefix}{name}"
        first.fields.setdefault(path, set()).add(kind_of(value))
        if isinstance(value, str):
            first.longest[path] = max(first.longest.get(path, 0), len(value))
        if isinstance(value, dict) and depth < DEEPEST:
            _note_fields(first, value, f"{path}.", depth + 1)


# -- refusing ------------------------------------------------------------------------------------------------------


def _check_text(first: FirstRecords, source: SourceConfig, place: str) -> None:
    if not first.files or first.texts:
        return
    kinds = first.found.get(source.text, set())
    if kinds & {"a string", "null"}:
        return
    strings = [name for name, found in first.fields.items() if "a string" in found]
    near = _nearest(source.text, strings) or max(strings, key=lambda name: first.longest.get(name, 0), default=None)
    raise SourceError(f"{place}: {_wrong(first, source.text, kinds, 'a string')}{_there(first, near)}")


def _check_domain(first: FirstRecords, source: SourceConfig, place: str) -> None:
    default = SourceConfig.model_fields["domain"].default
    if not isinstance(source.domain, str) or source.domain == default or not first.files + first.texts:
        return  # nobody named the default
    constant = f"for one domain for all records write domain: {{const: {printable(source.domain, 60)}}}"
    if not first.files:
        raise SourceError(f"{place}: text files have no field {printable(source.domain, 60)!r}; {constant}")
    kinds = first.found.get(source.domain, set())
    if first.texts or kinds & set(SCALARS):
        return
    names = [name for name, found in first.fields.items() if found & set(SCALARS)]
    wrong = _wrong(first, source.domain, kinds, "one value")
    raise SourceError(f"{place}: {wrong}{_there(first, _nearest(source.domain, names))}; {constant}")


def _check_expressions(first: FirstRecords, source: SourceConfig, place: str) -> None:
    """Refuse an SQL expression that reads a field that no record has: it would be null everywhere."""
    there = {*first.fields, *(["text"] if first.texts else [])}
    if not first.files + first.texts:
        return
    for name, setting in source.fields_of_expressions.items():
        if name not in there:
            near = _nearest(name, list(first.fields))
            raise SourceError(f"{place}.{setting}: {_wrong(first, name, set(), 'a field')}{_there(first, near)}")


def _wrong(first: FirstRecords, path: str, kinds: set[str], wanted: str) -> str:
    of = f"the first {first.records:,} records" if first.records > 1 else "the first record"
    of = of if first.records else "the columns"
    if kinds:
        return f"{printable(path, 60)!r} is {' or '.join(sorted(kinds))} in {of}, not {wanted}"
    return f"{printable(path, 60)!r} is in none of {of}"


def _there(first: FirstRecords, near: str | None) -> str:
    hint = f"; did you mean {printable(near, 60)!r}? There are" if near else "; there are"
    return f"{hint}: {printable(', '.join(first.fields), FIELDS_CHARACTERS) or 'none'}"


def _nearest(path: str, names: Sequence[str]) -> str | None:
    """The name most like a path, or like its last part."""
    lower = {name.lower(): name for name in reversed(names)}
    ends = {name.lower().rsplit(".", 1)[-1]: name for name in reversed(names)}
    for wanted, among in ((path.lower(), lower), (path.lower().rsplit(".", 1)[-1], ends)):
        if close := difflib.get_close_matches(wanted, among, n=1, cutoff=0.6):
            return among[close[0]]
    return None
