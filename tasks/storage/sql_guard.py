"""What SQL of a user's may call: only what reads, told by DuckDB's own parser.

A SELECT can have side effects: DuckDB has table functions that write files, change settings, or follow a pointer. So
what is not known to do nothing but read is refused, whatever a later DuckDB adds. That a query opens files below the
store alone is DuckDB's part (`flows/ask/query.py`).
"""

from __future__ import annotations

import difflib
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
            raise QueryError(f"{name!r} is not a view; read_parquet('…') and read_json('…') read files of the store")


# -- one expression ------------------------------------------------------------------------------------------------

MOST_CHARACTERS = 10_000
MOST_LEVELS = 100
TOO_DEEP = f"it is nested more than {MOST_LEVELS} levels deep; write it in fewer"
NOT_ONE = "it is not one expression; give one, without `;`, `from` or a name of its own"
CLASSES = frozenset(
    [
        *("COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "FUNCTION", "WINDOW", "CASE", "CAST"),
        *("BETWEEN", "COLLATE"),
    ]
)
"""What an expression may be made of, in the words of DuckDB's parser."""
REFUSED_CLASSES = {
    "SUBQUERY": "a subquery",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "LAMBDA": "a lambda or `->` (`->>` and json_extract are)",
    "DEFAULT": "`default`",
    "POSITIONAL_REFERENCE": "a column's place",
}
MACROS = frozenset(
    [
        *("date_add", "days_in_month", "fdiv", "fmod", "json", "md5_number_lower", "md5_number_upper", "nullif"),
        *("round_even", "roundbankers", "split_part", "map_contains_entry", "map_contains_value", "array_to_string"),
        *("array_append", "array_pop_back", "array_pop_front", "array_prepend", "array_push_back", "array_push_front"),
        *("array_reverse", "list_any_value", "list_append", "list_avg", "list_bool_and", "list_bool_or", "list_count"),
        *("list_entropy", "list_first", "list_last", "list_max", "list_median", "list_min", "list_mode"),
        *("list_prepend", "list_product", "list_reverse", "list_stddev_pop", "list_stddev_samp", "list_sum"),
        *("list_var_pop", "list_var_samp"),
    ]
)
"""DuckDB does not say of a macro what it depends on: so only these."""
NOT_IN_AN_EXPRESSION = frozenset(
    [
        # by their name DuckDB calls them a matter of their arguments alone, which they are not
        *("age", "current_localtime", "current_localtimestamp", "current_setting", "getvariable", "version"),
        # SQL as text, and functions by their names as text
        *("json_serialize_sql", "json_serialize_plan", "json_deserialize_sql", "aggregate", "array_aggr"),
        *("array_aggregate", "list_aggr", "list_aggregate", "combine", "finalize"),
        # another DuckDB, or the same on another day, may give something else
        *("hash", "vector_type", "reservoir_quantile", "approx_count_distinct", "approx_quantile", "approx_top_k"),
        # a few characters are enough to ask for more than there is memory
        *("range", "generate_series", "repeat", "lpad", "rpad", "printf", "format", "bar", "bitstring"),
        *("list_resize", "array_resize"),
    ]
)


def checked_expression(connection: duckdb.DuckDBPyConnection, text: str) -> frozenset[str]:
    """Refuse what is not one expression that looks at the columns of one table and at nothing else.

    It may have window functions. What it gives follows from the table alone: it has no subquery, and calls no function
    that looks at the clock, at files or at settings, that draws at random, or that has an effect.

    Returns:
        The columns that it reads, in small letters.

    Raises:
        QueryError: One line that says what is not allowed.
    """
    return frozenset(path[0].lower() for path in columns_of_expression(connection, text))


def columns_of_expression(
    connection: duckdb.DuckDBPyConnection, text: str, *, windows: bool = True
) -> frozenset[tuple[str, ...]]:
    """The same, and it gives the columns as they are written, part by part: `meta.url` is `("meta", "url")`.

    Without `windows`, window functions are refused too.
    """
    if len(text) > MOST_CHARACTERS:
        raise QueryError(f"it has {len(text):,} characters; {MOST_CHARACTERS:,} are allowed")
    nodes = list(nodes_of(_one_expression(connection, text)))
    for node in nodes:
        if (kind := node.get("class", "CONSTANT")) not in CLASSES:
            what = REFUSED_CLASSES.get(kind, str(kind).lower())
            raise QueryError(f"{what} is not allowed; give one expression over the columns of one table")
    _check_calls(connection, nodes)
    if not windows and any(node.get("class") == "WINDOW" for node in nodes):
        raise QueryError("a window function is not allowed: each record is looked at by itself")
    return frozenset(tuple(map(str, node["column_names"])) for node in nodes if node.get("class") == "COLUMN_REF")


def texts_compared_with(connection: duckdb.DuckDBPyConnection, text: str, column: str) -> frozenset[str]:
    """The texts that one expression says a column to be equal to, by `=` or `in`."""
    found = set()
    for node in nodes_of(_one_expression(connection, text)):
        if node.get("type") == "COMPARE_EQUAL":
            sides = [node["left"], node["right"]]
        elif node.get("type") == "COMPARE_IN":
            sides = node["children"]
        else:
            continue
        if any(str(side.get("column_names", [""])[0]).lower() == column for side in sides):
            values = [side["value"] for side in sides if side.get("class") == "CONSTANT"]
            found |= {str(value["value"]) for value in values if value["type"]["id"] == "VARCHAR" and "value" in value}
    return frozenset(found)


def _one_expression(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    """The parsed expression: the same by itself and in brackets on lines of their own, as it is run."""
    if not text.strip():
        raise QueryError("it is empty; give one expression")
    alone = _selected(connection, text)
    if alone is None:
        raise QueryError(NOT_ONE)
    if _levels(alone) > MOST_LEVELS:
        raise QueryError(TOO_DEEP)
    try:
        same = alone == _selected(connection, f"(\n{text}\n)")
    except QueryError:
        same = False
    if not same:
        raise QueryError(NOT_ONE)
    return alone


def _selected(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any] | None:
    """The only thing that `select <text>` selects, from nothing, and nothing else; None if there is more to it."""
    parsed = parsed_sql(connection, f"select {text}")
    if parsed is None:
        raise QueryError("it cannot be checked: it is nested too deeply, or has a number that is none")
    if "depth limit" in str(parsed.get("error_message")):
        raise QueryError(TOO_DEEP)
    if parsed["error"]:
        message = " ".join(str(parsed["error_message"]).split())
        raise QueryError(f"it cannot be read ({message[:120]}); give one SQL expression")
    (statement, *others) = parsed["statements"]
    node = dict(statement["node"])
    selected = node.pop("select_list", [])
    bare = node.pop("type") == "SELECT_NODE" and (node.pop("from_table") or {}).get("type") == "EMPTY"
    bare = bare and node.pop("aggregate_handling") == "STANDARD_HANDLING" and not node.pop("cte_map")["map"]
    if others or not bare or any(node.values()) or len(selected) != 1 or selected[0].get("alias"):
        return None
    expression: dict[str, Any] = selected[0]
    for part in nodes_of(expression):
        part.pop("query_location", None)
    return expression


def _levels(tree: dict[str, Any]) -> int:
    """How many expressions lie within each other, at most."""
    deepest, waiting = 0, [(tree, 0)]
    while waiting:
        one, level = waiting.pop()
        if isinstance(one, dict):
            level += "class" in one
            deepest = max(deepest, level)
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        waiting.extend((part, level) for part in inner)
    return deepest


def _check_calls(connection: duckdb.DuckDBPyConnection, nodes: list[dict[str, Any]]) -> None:
    """Refuse functions that look at more than their arguments, and aggregates that are no window's."""
    rows = connection.execute(
        "select lower(function_name), list(distinct function_type), coalesce(bool_and(stability = 'CONSISTENT'), false)"
        " from duckdb_functions() group by all"
    ).fetchall()
    known = {str(name): (set(kinds), bool(consistent)) for name, kinds, consistent in rows}
    for node in nodes:
        if node.get("class") not in ("FUNCTION", "WINDOW"):
            continue
        name = str(node["function_name"]).lower()
        kinds, consistent = known.get(name, (set(), False))
        if name == "->>" and _is_swallowed(node["children"][0]):
            raise QueryError("`->>` takes all that stands before it; write (meta ->> 'key') = …, with the brackets")
        if not kinds:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            raise QueryError(f"there is no function {name!r}" + (f"; did you mean {close[0]}?" if close else ""))
        if not kinds & {"scalar", "aggregate", "macro"}:
            raise QueryError(f"the function {name!r} is not allowed: it gives a table, not a value")
        allowed = name in MACROS if "macro" in kinds else consistent
        if not allowed or name in NOT_IN_AN_EXPRESSION or name.startswith("__internal"):
            raise QueryError(f"the function {name!r} is not allowed: its result must follow from the columns alone")
        if node["class"] == "FUNCTION" and "aggregate" in kinds:
            name = name.removesuffix("_star")
            raise QueryError(
                f"{name} is over many rows; say which, e.g. {name}(…) over (partition by domain order by score)"
            )


def _is_swallowed(node: dict[str, Any]) -> bool:
    """Whether what `->>` looks into is no JSON, since `a and meta ->> 'key'` means `(a and meta) ->> 'key'`."""
    operator = node["class"] == "FUNCTION" and node["is_operator"] and node["function_name"] != "->>"
    negated = str(node["type"]) in ("OPERATOR_NOT", "COMPARE_IN", "COMPARE_NOT_IN")
    return operator or negated or node["class"] in ("CONJUNCTION", "COMPARISON", "BETWEEN")
