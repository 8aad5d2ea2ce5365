"""DuckDB over a store: a connection that reads the store's Parquet files and runs the statements in `sql/`.

It works out of core: what does not fit into `memory_limit` goes to a temporary folder that is removed afterwards.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from ladm.tasks import stopping
from ladm.tasks.cores import cores
from ladm.tasks.errors import AccountError
from ladm.tasks.manifest import Shard
from ladm.tasks.storage.store import Store

MEMORY_LIMIT = "1000MB"  # of DuckDB; with it, ranking 10 million documents takes some 1.6 GiB as a process


@contextlib.contextmanager
def connect(store: Store, memory_limit: str = MEMORY_LIMIT) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB that can read the store's files and spills to disk beyond `memory_limit`."""
    with tempfile.TemporaryDirectory(prefix="ladm-duckdb-") as spill, duckdb.connect() as connection:
        connection.execute(f"set memory_limit = '{memory_limit}'")
        connection.execute(f"set threads = {cores()}")
        connection.execute(f"set temp_directory = '{spill}'")
        connection.execute("set preserve_insertion_order = false")
        connection.execute("set enable_progress_bar = false")  # it would be drawn on stdout, in a JSON answer too
        if not store.local:
            connection.register_filesystem(store.fs)
        with stopping.telling(connection.interrupt):
            yield connection


def view_of_shards(
    connection: duckdb.DuckDBPyConnection, name: str, store: Store, shards: Sequence[Shard], schema: pa.Schema
) -> None:
    """Make `name` a view over the rows of the shards; over no row, with the right columns, if there are none."""
    if shards:
        rows = parquet_rows(store, *(shard.path for shard in shards))
        connection.execute(f"create or replace temp view {name} as select * from {rows}")
    else:
        make_table(connection, f"empty_{name}", schema.empty_table())
        connection.execute(f"create or replace temp view {name} as select * from empty_{name}")


def view_of_measures(
    connection: duckdb.DuckDBPyConnection, name: str, store: Store, shards: Sequence[Shard], columns: Sequence[pa.Field]
) -> None:
    """Make `name` a view with one row a window: its id, and the columns that several scorers measured of it.

    Each shard holds the columns of one scorer; those that none of them holds are null.
    """
    make_table(connection, f"{name}_columns", pa.schema([pa.field("window_id", pa.string()), *columns]).empty_table())
    if not shards:
        connection.execute(f"create or replace temp view {name} as from {name}_columns")
        return
    paths = ", ".join(location(store, shard.path) for shard in shards)
    rows = f"read_parquet([{paths}], hive_partitioning = false, union_by_name = true)"
    values = ", ".join(f'any_value("{column.name}") as "{column.name}"' for column in columns)
    connection.execute(
        f"create or replace temp view {name} as select window_id, {values}"
        f" from (from {name}_columns union all by name select * exclude (doc_id) from {rows}) group by window_id"
    )


def make_table(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Make a temporary table of DuckDB's own: a join may push filters into a scan that Arrow's tables do not take."""
    connection.register("rows_to_keep", rows)
    connection.execute(f"create or replace temp table {name} as from rows_to_keep")
    connection.unregister("rows_to_keep")


def view_of_located_shards(
    connection: duckdb.DuckDBPyConnection, name: str, store: Store, shards: Sequence[Shard]
) -> None:
    """Make `name` a view over the rows of one shard or more, with `file_index` and `file_row_number`, both from 0."""
    rows = parquet_rows(store, *(shard.path for shard in shards))
    connection.execute(f"create or replace temp view {name} as select *, file_index, file_row_number from {rows}")


def parquet_rows(store: Store, *paths: str) -> str:
    """What stands after `from` to read some Parquet files of the store.

    Their columns alone: by itself, DuckDB would make one more of a folder that is called like `date=2026-01-01`.
    """
    return f"read_parquet([{', '.join(location(store, path) for path in paths)}], hive_partitioning = false)"


def location(store: Store, path: str) -> str:
    """The literal by which DuckDB opens a path below the store's root; `*` and `?` in it match names."""
    return quote(literally(store.url("")) + path)


def literally(path: str) -> str:
    """The pattern that matches a path and nothing else: DuckDB takes every path for a pattern."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


def statement(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return files("ladm.sql").joinpath(f"{name}.sql").read_text(encoding="utf-8")


def set_variables(connection: duckdb.DuckDBPyConnection, variables: Mapping[str, Any]) -> None:
    """Set what the statements read with `getvariable`."""
    for name, value in variables.items():
        if not name.isidentifier():
            raise AccountError(f"{name!r} is no name of a variable")
        connection.execute(f"set variable {name} = $value", {"value": value})


def quote(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
