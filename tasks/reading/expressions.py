"""`domain` and `keep` of a source as SQL: expressions over one record, evaluated by a DuckDB that can open nothing.

A record's fields are the columns. Strings, numbers and booleans are themselves, objects and lists are JSON, of which
`meta.url` gives a field as text. Records are evaluated many at a time, those with the same types of fields together, so
that what a record gives depends on nothing but itself. One on which an expression fails is a bad record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from ladm.tasks.printable import printable
from ladm.tasks.reading.record_sql import closed_duckdb, fields_read, first_line, quoted
from ladm.tasks.reading.records import UNKNOWN_DOMAIN, BadRecord, Record, SourceConfig

AT_ONCE = 256
"""Records evaluated together, at most."""
AT_ONCE_BYTES = 4 * 2**20
"""Characters of their texts and other fields, about."""
NOT_KEPT, KEEP_IS_NULL = "sources[].keep is false", "sources[].keep is null"
"""Why a record is dropped."""
NO_NUMBERS = (None, "NaN", "Infinity", "-Infinity")
"""What stands in `meta` for numbers that are not there, or that JSON has no form for."""
_ARROW: dict[str, pa.DataType] = {
    "varchar": pa.string(),
    "json": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}


@dataclass(frozen=True, slots=True)
class DroppedRecord:
    """A record that `keep` drops."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Failed:
    """What DuckDB says of a record on which an expression fails."""

    reason: str


def asked(records: Iterator[Any], config: SourceConfig) -> Iterator[Any]:
    """Records, each with the domain that the source's expression gives, and without those that `keep` drops.

    Yields:
        In the order of the records: a record, a bad record, or a `DroppedRecord`.
    """
    expressions = {name: sql for name, sql in (("domain", config.domain_sql), ("keep", config.keep)) if sql}
    with closed_duckdb() as connection:
        for batch in _batches(records):
            whole = [record for record in batch if isinstance(record, Record)]
            found = {name: iter(_values(connection, sql, whole, config)) for name, sql in expressions.items()}
            for record in batch:
                if isinstance(record, Record):
                    yield _judged(record, {name: next(values) for name, values in found.items()})
                else:
                    yield record


def _judged(record: Record, found: dict[str, Any]) -> Any:
    for name, value in found.items():
        if isinstance(value, _Failed):
            reason = printable(f"sources[].{name} fails: {value.reason}", 500)
            return BadRecord(record.line, record.offset, reason, printable(record.meta or record.text))
    if "keep" in found and found["keep"] is not True:
        return DroppedRecord(record.line, NOT_KEPT if found["keep"] is False else KEEP_IS_NULL)
    return replace(record, domain=found["domain"] or UNKNOWN_DOMAIN) if "domain" in found else record


def _batches(records: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(getattr(record, "text", "")) + len(getattr(record, "meta", "") or "")
        if len(batch) >= AT_ONCE or size >= AT_ONCE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _values(
    connection: duckdb.DuckDBPyConnection, sql: str, records: Sequence[Record], config: SourceConfig
) -> list[Any]:
    """What an expression gives of each record: text for a domain, true, false or null for `keep`."""
    fields = fields_read(sql)
    rows = [_row(record, fields, config) for record in records]
    numbers = sorted(range(len(rows)), key=lambda number: [kind for kind, _ in rows[number]])
    found: list[Any] = [None] * len(rows)
    to = "boolean" if sql == config.keep else "varchar"
    for kinds, same in itertools.groupby(numbers, key=lambda number: [kind for kind, _ in rows[number]]):
        group = sorted(same)
        answers = _ask(connection, sql, to, list(fields), kinds, [[value for _, value in rows[one]] for one in group])
        for number, answer in zip(group, answers, strict=True):
            found[number] = answer
    return found


def _ask(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    to: str,
    names: Sequence[str],
    kinds: Sequence[str],
    rows: Sequence[Sequence[Any]],
) -> list[Any]:
    """Evaluate an expression over rows of the same types; of those on which it fails, why."""
    columns = [pa.array([row[place] for row in rows], _ARROW[kind]) for place, kind in enumerate(kinds)]
    table = pa.table([*columns, pa.array(range(len(rows)))], [*(f"c{place}" for place in range(len(kinds))), "n"])
    connection.register("given", table)
    taken = [f"c{place}::{kind} as {quoted(name)}" for place, (name, kind) in enumerate(zip(names, kinds, strict=True))]
    hidden = '"\x01row"'  # no field that anybody reads
    query = (
        f"select (\n{sql}\n)::{to} from (select {', '.join([*taken, f'n as {hidden}'])} from given) order by {hidden}"
    )
    try:
        return [answer for (answer,) in connection.execute(query).fetchall()]
    except (duckdb.DataError, duckdb.ProgrammingError) as error:  # and not what memory lacks
        as_numbers = [
            "double" if kind == "varchar" and all(row[place] in NO_NUMBERS for row in rows) else kind
            for place, kind in enumerate(kinds)
        ]
        if as_numbers == list(kinds) and len(rows) == 1:
            return [_Failed(first_line(error))]
    finally:
        connection.unregister("given")
    if as_numbers != list(kinds):  # nulls, and what JSON holds as text only, may stand where others have numbers
        is_number = [kind == "double" for kind in as_numbers]
        values = [
            [float(one) if number and one is not None else one for one, number in zip(row, is_number, strict=True)]
            for row in rows
        ]
        return _ask(connection, sql, to, names, as_numbers, values)
    return [answer for row in rows for answer in _ask(connection, sql, to, names, kinds, [row])]


def _row(record: Record, fields: dict[str, bool], config: SourceConfig) -> list[tuple[str, Any]]:
    """The type and the value of each field that is read."""
    values: dict[str, Any] = orjson.loads(record.meta) if record.meta else {}
    *way, last = [config.text] if config.text in fields else config.text.split(".")
    place = values
    for key in way:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            break
    else:
        place[last] = record.text
    return [_typed(values.get(name), as_json) for name, as_json in fields.items()]


def _typed(value: Any, as_json: bool) -> tuple[str, Any]:
    if value is None:
        return ("json" if as_json else "varchar"), None
    if as_json or isinstance(value, dict | list):
        return "json", orjson.dumps(value).decode()
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return "bigint", value
    return ("double", value) if isinstance(value, float) else ("varchar", str(value))
