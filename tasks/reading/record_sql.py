"""SQL expressions over one record: which fields they read, and that they are harmless and can be asked."""

from __future__ import annotations

import functools

import duckdb

from ladm.tasks.errors import QueryError
from ladm.tasks.printable import printable
from ladm.tasks.storage.sql_guard import columns_of_expression

TYPES = ("varchar", "bigint", "double", "boolean", "json")
"""What a field of a record may be."""
REASON_CHARACTERS = 200


@functools.lru_cache(maxsize=256)
def fields_read(sql: str) -> dict[str, bool]:
    """The fields that an expression reads, each with whether it is taken as JSON, since a field inside it is read.

    Raises:
        QueryError: It is not one harmless expression over a record; the line says what is wrong.
    """
    with closed_duckdb() as connection:
        paths = columns_of_expression(connection, sql, windows=False)
    fields: dict[str, bool] = {}
    for path in sorted(paths):
        fields[path[0]] = fields.get(path[0], False) or len(path) > 1
    lower = [name.lower() for name in fields]
    if len(set(lower)) < len(lower):
        twice = next(name for name in fields if lower.count(name.lower()) > 1)
        raise QueryError(f"the field {twice!r} is written in two ways; SQL takes them for one")
    return fields


@functools.lru_cache(maxsize=256)
def check_expression(sql: str, *, is_condition: bool) -> None:
    """Refuse what is not one harmless expression, or what cannot be asked whatever the fields hold.

    Raises:
        QueryError: One line that says what is wrong.
    """
    fields, told = fields_read(sql), ""
    with closed_duckdb() as connection:
        for kind in TYPES:
            kinds = {name: "json" if as_json else kind for name, as_json in fields.items()}
            columns = ", ".join(f"null::{one} as {quoted(name)}" for name, one in kinds.items()) or "1"
            try:
                (column, *_) = connection.execute(f"select (\n{sql}\n) from (select {columns})").description
            except duckdb.Error as error:
                told = told or first_line(error)
                continue
            if is_condition and str(column[1]).upper() not in ("BOOL", "BOOLEAN"):
                raise QueryError(f"it gives {column[1]}, not true or false; compare it with something")
            return
    raise QueryError(f"it cannot be asked ({told})")


def closed_duckdb() -> duckdb.DuckDBPyConnection:
    """A DuckDB that can open nothing."""
    connection = duckdb.connect()
    connection.execute("set memory_limit = '1GB'")
    connection.execute("set threads = 1")
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set enable_external_access = false")
    connection.execute("set python_enable_replacements = false")
    return connection


def quoted(name: str) -> str:
    """A column's name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def first_line(error: duckdb.Error) -> str:
    """What DuckDB says, in a line."""
    return printable(" ".join((str(error).strip().splitlines() or ["no message"])[0].split()), REASON_CHARACTERS)
