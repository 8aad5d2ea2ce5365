"""What a query of `ladm sql` may call, and for how long: only what reads, told by DuckDB's own parser.

A SELECT can have side effects: DuckDB has table functions that write files, change settings, or follow a pointer. So
what is not known to do nothing but read is refused, whatever a later DuckDB adds. That files are opened below the
store alone is DuckDB's part (`query.py`).
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from ladm.tasks.errors import ConfigError, QueryError

TIMEOUT_SECONDS = 600.0
"""How long one query may take when not said otherwise."""
MOST_SECONDS = 1e7
TABLE_FUNCTIONS = frozenset(
    [
        *("unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree"),
        # files of the store; not read_csv, which can make tables of what it rejects
        *("glob", "read_text", "read_blob", "read_parquet", "parquet_scan", "parquet_schema", "parquet_metadata"),
        *("parquet_file_metadata", "parquet_kv_metadata", "read_json", "read_json_auto", "read_json_objects"),
        *("read_ndjson", "read_ndjson_auto", "read_ndjson_objects"),
        # what there is to ask about
        *("duckdb_tables", "duckdb_views", "duckdb_columns", "duckdb_types", "duckdb_functions", "duckdb_keywords"),
        *("duckdb_settings", "pragma_table_info", "pragma_show", "icu_calendar_names", "pg_timezone_names"),
    ]
)
"""Table functions that only read; a query may call no other."""
VOLATILE_FUNCTIONS = frozenset(
    [
        *("random", "uuid", "uuidv4", "uuidv7", "gen_random_uuid", "error", "stats", "sleep_ms"),
        *("current_query", "current_query_id", "current_connection_id", "current_transaction_id"),
    ]
)
"""Of the functions that DuckDB does not call a matter of their arguments alone, those that change nothing."""
PLANS_A_QUERY = "json_serialize_plan"
"""Takes another query as text, and binds it."""
_A_FILE = re.compile(r"[./\\:*?\[]")


def check_reads_only(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse a SELECT statement that calls what is not known to do nothing but read.

    Raises:
        QueryError: One line that names what is not allowed.
    """
    row = connection.execute("select json_serialize_sql($query)", {"query": query}).fetchone()
    assert row is not None
    try:
        parsed = orjson.loads(row[0])
    except orjson.JSONDecodeError:
        raise QueryError("the query is nested too deeply to be checked; write it in fewer steps") from None
    if parsed["error"]:
        raise QueryError(f"the query cannot be checked ({parsed['error_message']}); ladm sql reads and never writes")
    nodes = list(_nodes(parsed["statements"]))
    for node in nodes:
        if node.get("type") == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", "")).lower()
            if name not in TABLE_FUNCTIONS:
                raise QueryError(f"the table function {name!r} is not allowed: ladm sql reads and never writes")
    _check_functions(connection, {str(node["function_name"]).lower() for node in nodes if "function_name" in node})
    _check_tables(nodes)


def _nodes(parsed: Any) -> Iterator[dict[str, Any]]:
    """Every object of a parsed statement, at any depth."""
    waiting = [parsed]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _check_functions(connection: duckdb.DuckDBPyConnection, names: set[str]) -> None:
    found = connection.execute(
        "select distinct lower(function_name) from duckdb_functions() where stability = 'VOLATILE'"
    ).fetchall()
    volatile = {name for (name,) in found} - VOLATILE_FUNCTIONS
    if wrong := sorted(names & (volatile | {PLANS_A_QUERY})):
        raise QueryError(f"the function {wrong[0]!r} is not allowed: ladm sql reads and never writes")


def _check_tables(nodes: list[dict[str, Any]]) -> None:
    """Refuse a file's name in the place of a view's: what would read it is for DuckDB to choose."""
    named_here = {
        str(entry["key"]).lower() for node in nodes if "cte_map" in node for entry in node["cte_map"]["map"]
    }  # fmt: skip
    for node in nodes:
        name = str(node.get("table_name", ""))
        if node.get("type") == "BASE_TABLE" and _A_FILE.search(name) and name.lower() not in named_here:
            raise QueryError(f"{name!r} is no view; read_parquet('…') and read_json('…') read files of the store")


def checked_timeout(seconds: float) -> float:
    """The seconds of `--timeout`.

    Raises:
        ConfigError: They are none.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigError(f"--timeout: {seconds:g} is no number of seconds; give one above 0, up to {MOST_SECONDS:.0f}")
    return seconds


@contextlib.contextmanager
def interrupted_after(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """End what the connection does within the block after so many seconds.

    Raises:
        QueryError: It was ended; the line names the option.
    """
    done = threading.Event()
    late = time.monotonic() + seconds

    def watch() -> None:
        done.wait(seconds)
        while not done.wait(0.1):  # again and again: what comes before a query begins is forgotten
            connection.interrupt()

    watcher = threading.Thread(target=watch, name="ladm-sql-timeout", daemon=True)
    watcher.start()
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow has words of its own for what it reads
        if time.monotonic() < late or "interrupt" not in str(error).lower():
            raise
        raise QueryError(f"the query was ended after {seconds:g} s; --timeout gives it more") from None
    finally:
        done.set()
        watcher.join()
