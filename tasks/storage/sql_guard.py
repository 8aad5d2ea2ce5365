"""What SQL of a user's may call: only what reads, told by DuckDB's own parser.

A SELECT can have side effects: DuckDB has table functions that write files, change settings, or follow a pointer. So
what is not known to do nothing but read is refused, whatever a later DuckDB adds. That a query opens files below the
store alone is DuckDB's part (`flows/ask/query.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import duckdb
import orjson

from ladm.tasks.errors import QueryError

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


def parsed_sql(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any] | None:
    """What DuckDB's parser makes of SELECT statements, or its `error_message`; None if they are nested too deeply."""
    row = connection.execute("select json_serialize_sql($text)", {"text": text}).fetchone()
    assert row is not None
    try:
        parsed: dict[str, Any] = orjson.loads(row[0])
    except orjson.JSONDecodeError:
        return None
    return parsed


def check_reads_only(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse a SELECT statement that calls what is not known to do nothing but read.

    Raises:
        QueryError: One line that names what is not allowed.
    """
    parsed = parsed_sql(connection, query)
    if parsed is None:
        raise QueryError("the query is nested too deeply to be checked; write it in fewer steps")
    if parsed["error"]:
        raise QueryError(f"the query cannot be checked ({parsed['error_message']}); ladm sql reads and never writes")
    nodes = list(nodes_of(parsed["statements"]))
    for node in nodes:
        if node.get("type") == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", "")).lower()
            if name not in TABLE_FUNCTIONS:
                raise QueryError(f"the table function {name!r} is not allowed: ladm sql reads and never writes")
    _check_functions(connection, {str(node["function_name"]).lower() for node in nodes if "function_name" in node})
    _check_tables(nodes)


def nodes_of(parsed: Any) -> Iterator[dict[str, Any]]:
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
