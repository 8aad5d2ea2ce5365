"""`ladm sql`: read-only SQL over one run's documents, windows, scores, ranking, allocation, quarantine and stages.

The views cover exactly the files that the run's record names. A query can read them and nothing else: only SELECT
statements are run that call what reads (`sql_guard.py`), DuckDB may open files below the store alone, and its
configuration is locked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import orjson
import pyarrow as pa
from rich.console import Console as RichConsole
from rich.table import Table

from ladm.flows.ask.shown import asked_run
from ladm.flows.ask.timeout import TIMEOUT_SECONDS, interrupted_after
from ladm.flows.dag.stages import TABLE
from ladm.flows.runs.record import shards_of
from ladm.tasks.addresses import addresses_of, view_of_documents
from ladm.tasks.errors import QueryError
from ladm.tasks.manifest import Shard
from ladm.tasks.printable import cell_text
from ladm.tasks.schema import DOCUMENTS, SCORES
from ladm.tasks.scorers.registry import all_columns
from ladm.tasks.storage import duck
from ladm.tasks.storage.sql_guard import check_reads_only
from ladm.tasks.storage.store import Store

JOBS = pa.schema(
    [
        ("stage", pa.string()),
        ("shard", pa.string()),
        ("source", pa.string()),
        ("cached", pa.bool_()),
        ("key", pa.string()),
        ("records_in", pa.int64()),
        ("kept", pa.int64()),
        ("dropped", pa.int64()),
        ("dropped_reasons", pa.string()),  # JSON: reason → records
        ("quarantined", pa.int64()),
        ("windows", pa.int64()),
        ("tokens", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
RUNS = {
    "run_id": "varchar",
    "status": "varchar",
    "until": "varchar",
    "started": "timestamptz",
    "finished": "timestamptz",
    "seconds": "double",
    "windows_scored": "bigint",
    "model": "json",
    "config": "json",
    "failures": "json",
}


def run_query(
    store_uri: str,
    query: str,
    run_id: str | None = None,
    timeout: float = TIMEOUT_SECONDS,
    tell: Callable[[str], None] | None = None,
) -> pa.Table:
    """Answer one query over a run's views.

    Args:
        store_uri: The store.
        query: A SELECT statement.
        run_id: The run; the newest completed one when not given.
        timeout: Seconds that the query may take.
        tell: Told which run it is, where none is named and it is not the newest, or not whole.

    Raises:
        RecordError: No such store or run.
        QueryError: A statement that is no SELECT or does more than read, one that takes too long, or whatever DuckDB
            finds wrong, in one line.
    """
    store = Store(store_uri)
    told: list[str] = []  # said when there is an answer: what is refused is refused in one line
    with run_views(store, asked_run(store, run_id, told.append)) as connection:
        found = answer(connection, query, timeout=timeout)
    for line in told:
        if tell:
            tell(line)
    return found


@contextlib.contextmanager
def run_views(store: Store, record: dict[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that has a run's views and can open no file outside the store."""
    with duck.connect(store) as connection:
        _make_views(connection, store, record)
        root = store.url("") or "/"
        directories = ", ".join(duck.quote(path) for path in (root, duck.literally(root)))
        connection.execute(f"set allowed_directories = [{directories}]")
        connection.execute("set enable_external_access = false")
        connection.execute("set python_enable_replacements = false")
        connection.execute("set lock_configuration = true")
        yield connection


def answer(
    connection: duckdb.DuckDBPyConnection, query: str, most: int | None = None, timeout: float = TIMEOUT_SECONDS
) -> pa.Table:
    """What one SELECT statement gives: all rows, or the first `most`, and then no more are computed than needed.

    Raises:
        QueryError: A statement that is no SELECT or does more than read, one that takes longer than `timeout` seconds,
            or whatever DuckDB finds wrong, in one line.
    """
    try:
        statement = _checked(connection, query)
        with interrupted_after(connection, timeout):
            result = connection.execute(statement)
            if most is None:
                return result.to_arrow_table()
            reader = result.to_arrow_reader(2048)
            batches: list[pa.RecordBatch] = []
            while sum(batch.num_rows for batch in batches) < most and (batch := next(reader, None)) is not None:
                batches.append(batch)
            return pa.Table.from_batches(batches, schema=reader.schema).slice(0, most)
    except (duckdb.Error, pa.ArrowException) as error:
        raise QueryError(" ".join(str(error).split())) from None


@contextlib.contextmanager
def streamed(store: Store, record: dict[str, Any], query: str, rows: int = 2048) -> Iterator[pa.RecordBatchReader]:
    """What one SELECT statement over a run's views gives, in batches that are computed as they are read.

    Raises:
        QueryError: As `answer`, here or while it is read.
    """
    try:
        with run_views(store, record) as connection:
            yield connection.execute(_checked(connection, query)).to_arrow_reader(rows)
    except (duckdb.Error, pa.ArrowException) as error:
        raise QueryError(" ".join(str(error).split())) from None


def _checked(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.Statement:
    """The one SELECT statement of a query."""
    query = _as_utf8(query)
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryError("only one SELECT statement is answered: ladm sql reads and never writes")
    check_reads_only(connection, query)
    return statements[0]


def _as_utf8(query: str) -> str:
    """A query in which a locale of ASCII has left the bytes of its other characters."""
    try:
        return query.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise QueryError("the query holds what is no UTF-8; write it in UTF-8") from None


def _make_views(connection: duckdb.DuckDBPyConnection, store: Store, record: dict[str, Any]) -> None:
    for row in TABLE:
        for view in row.views:
            shards = shards_of(record, row.stage.name, files=view.files, ending=view.ending)
            if view.schema is DOCUMENTS:
                view_of_documents(connection, view.name, store, shards, addresses_of(record["sources"]))
            elif view.added:
                _view_with_columns_added(connection, view.name, store, shards, view.schema, view.added)
            else:
                duck.view_of_shards(connection, view.name, store, shards, view.schema)
    _make_scores_view(connection, store, record)
    quarantine = duck.parquet_rows(store, f"runs/{record['run_id']}/quarantine.parquet")
    connection.execute(f"create temp view run_quarantine as select * from {quarantine}")
    duck.make_table(connection, "run_jobs", _jobs_table(record))
    # As text, since read_json bounds the size of an object; those of older versions grew with the number of files.
    columns = ", ".join(
        f"(content {'->' if kind == 'json' else '->>'} '$.{name}')::{kind} as {name}" for name, kind in RUNS.items()
    )
    records = f"select {columns} from read_text({duck.location(store, 'runs/*/run.json')})"
    connection.execute(f"create temp view all_runs as {records} order by run_id")
    connection.execute(duck.statement("views").replace("create view", "create temp view"))


def _make_scores_view(connection: duckdb.DuckDBPyConnection, store: Store, record: dict[str, Any]) -> None:
    """The view `run_scores`: a window's scores, and what the scorers beside `ladm` measured of it.

    A store of ladm 0.1 may have these among the scores.
    """
    columns = all_columns()
    measured = [*shards_of(record, "measure"), *shards_of(record, "gate")]
    duck.view_of_measures(connection, "run_measures", store, measured, columns)
    there = {row[0] for row in connection.execute("describe score_shards").fetchall()}
    values = [
        f'coalesce(m."{one.name}", s."{one.name}") as "{one.name}"' if one.name in there else f'm."{one.name}"'
        for one in columns
    ]
    own = ", ".join(f's."{name}"' for name in SCORES.names)
    connection.execute(
        f"create temp view run_scores as select {own}, {', '.join(values)}"
        " from score_shards as s left join run_measures as m using (window_id)"
    )


def _view_with_columns_added(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    store: Store,
    shards: list[Shard],
    schema: pa.Schema,
    added: dict[str, str],
) -> None:
    """A view over shards that an earlier version may have written without some columns; what then stands in them."""
    duck.view_of_shards(connection, f"{name}_as_written", store, shards, schema)
    duck.make_table(connection, f"{name}_columns", schema.empty_table())
    values = ", ".join(f"coalesce({column}, {value}) as {column}" for column, value in added.items())
    connection.execute(
        f"create temp view {name} as select * replace ({values})"
        f" from (from {name}_columns union all by name from {name}_as_written)"
    )


def _jobs_table(record: dict[str, Any]) -> pa.Table:
    rows = [
        {
            **{name: job.get(name) for name in JOBS.names},
            "records_in": job["in"],
            "dropped": sum(job["dropped"].values()),
            "dropped_reasons": orjson.dumps(job["dropped"]).decode(),
        }
        for job in record["shards"]
    ]
    return pa.Table.from_pylist(rows, schema=JOBS)


# -- presentation --------------------------------------------------------------------------------------------


def as_json(table: pa.Table) -> str:
    """The rows as a JSON list of objects."""
    return json.dumps(table.to_pylist(), default=str, ensure_ascii=False, indent=1)


def as_csv(table: pa.Table) -> str:
    """The rows as CSV with a header; nested values are JSON."""
    import pandas as pd  # noqa: PLC0415  (half a second that the other formats need not wait)

    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    for field in table.schema:
        if pa.types.is_nested(field.type):
            cells = table[field.name].to_pylist()
            frame[field.name] = [None if cell is None else json.dumps(cell, default=str) for cell in cells]
    return str(frame.to_csv(index=False))


def print_table(table: pa.Table) -> None:
    """The rows as a table on stdout. Control characters from the data are shown, not obeyed."""
    out = RichConsole()
    shown = Table()
    for field in table.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        shown.add_column(cell_text(field.name), justify="right" if numeric else "left", overflow="fold")
    for row in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        shown.add_row(*(_escaped(cell) for cell in row))
    if not out.is_terminal:  # piped: never fold a row to fit a screen that is not there
        out = RichConsole(width=max(80, shown.__rich_measure__(out, out.options.update(max_width=100_000)).maximum))
    out.print(shown)


def _escaped(cell: object) -> str:
    from rich.markup import escape  # noqa: PLC0415

    return escape(cell_text(cell))
