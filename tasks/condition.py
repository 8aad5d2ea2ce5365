"""`select.where`: an SQL condition over what is known of a document, and the documents that it keeps from the ranking.

It is asked over the documents that are about to be ranked, one row a document, so that a window function sees all of
them. Which columns it reads, and that it is harmless, is told by DuckDB's own parser (`storage/sql_guard.py`).
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable

import duckdb
import pyarrow as pa

from ladm.tasks.errors import ConfigError, QueryError
from ladm.tasks.schema import DOCUMENTS, SCORES
from ladm.tasks.scorers.registry import all_columns, scorer_of_column
from ladm.tasks.storage import duck
from ladm.tasks.storage.sql_guard import checked_expression, texts_compared_with

REASON = "select.where"
"""Why a document is not ranked for which the condition is false or null."""
OF_THE_RANKING = ("doc_id", "domain", "score", "windows", "doc_tokens", "doc_tokens_exact")
OF_THE_WINDOWS = ("cds", "dependency_score", "order_score")
"""Of a document the mean over its windows, as is what was measured."""
OF_THE_DOCUMENT = ("source", "line", "bytes", "meta")
BY_A_CALIBRATION = {"dependency_score": "dependency", "order_score": "order"}
"""Column → the profile of a calibration that gives it."""


def known_columns() -> list[str]:
    """The columns that a condition may read."""
    return [*OF_THE_RANKING, *OF_THE_WINDOWS, *OF_THE_DOCUMENT, *(column.name for column in all_columns())]


@functools.lru_cache(maxsize=64)
def columns_read(where: str | None) -> frozenset[str]:
    """The columns that a condition reads.

    Raises:
        QueryError: It is not one harmless expression over the known columns; the line says what is wrong.
    """
    if where is None:
        return frozenset()
    with _closed_duckdb() as connection:
        found = checked_expression(connection, where)
    known = {name.lower(): name for name in known_columns()}
    for name in sorted(found - known.keys()):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {known[close[0]]}? There are" if close else "there are"
        raise QueryError(f"there is no column {name!r}; {hint} {', '.join(known.values())}")
    return frozenset(known[name] for name in found)


def domains_named(where: str | None) -> frozenset[str]:
    """The domains that a condition asks for by name, with `=` or `in`."""
    if where is None:
        return frozenset()
    with _closed_duckdb() as connection:
        return texts_compared_with(connection, where, "domain")


@functools.lru_cache(maxsize=64)
def check_condition(where: str) -> None:
    """Refuse a condition that is not one harmless expression, or that is not true or false, by asking it of nothing.

    Raises:
        QueryError: One line that says what is wrong.
    """
    columns = columns_read(where)
    with _closed_duckdb() as connection:
        for name, schema in (("scores", SCORES), ("documents", DOCUMENTS)):
            duck.make_table(connection, name, schema.empty_table())
        measures = pa.schema([pa.field("window_id", pa.string()), *all_columns()])
        duck.make_table(connection, "measures", measures.empty_table())
        # One row of nulls, or a constant that cannot be converted would be told by the data alone.
        connection.execute(
            "create temp table documents_to_rank as select null::varchar as doc_id, null::varchar as domain,"
            " null::double as score, null::bigint as windows, null::bigint as doc_tokens,"
            " null::boolean as doc_tokens_exact"
        )
        try:
            _make_judged(connection, columns, one_window=False)
            answer = connection.execute(f"select {_bracketed(where)} as kept from judged").description
        except duckdb.Error as error:
            raise QueryError(f"DuckDB refuses it ({_first_line(error)}); see `select.where` in the docs") from None
    if (kind := str(answer[0][1]).upper()) not in ("BOOL", "BOOLEAN"):
        raise QueryError(f"it gives {kind}, not true or false; compare it with something, e.g. (…) > 0.5")


def measured_columns(where: str | None) -> dict[str, str]:
    """The columns that a condition reads of what scorers beside `ladm` measured: column → scorer."""
    scorers = scorer_of_column()
    return {column: scorers[column] for column in sorted(columns_read(where) & scorers.keys())}


def reads_documents(where: str | None) -> bool:
    """Whether a condition reads what only the documents' own shards hold."""
    return not columns_read(where).isdisjoint(OF_THE_DOCUMENT)


def check_columns_are_made(where: str | None, beside: Collection[str], profiles: Collection[str] | None) -> None:
    """Refuse a condition that reads what the run does not make.

    Args:
        where: The condition.
        beside: The scorers that are asked for beside `ladm`.
        profiles: What the calibration gives; none where there is no calibration, None where that is not known yet.

    Raises:
        ConfigError: It reads a column of a scorer that is not asked for, or that the calibration does not give.
    """
    for column, scorer in measured_columns(where).items():
        if scorer in ("text", *beside):  # every run has the columns of the text
            continue
        if scorer in ("attention", "gate"):
            if profiles is not None and "gate" not in profiles:
                raise ConfigError(
                    f"select.where: the column {column} comes with a calibration that has a gate; set "
                    "scorer.layers=calibrated, or leave the column out"
                )
            continue
        raise ConfigError(
            f"select.where: the column {column} is not measured in this run; add {scorer} to scorer.beside"
        )
    for column in sorted(columns_read(where) & BY_A_CALIBRATION.keys()):
        if profiles is not None and BY_A_CALIBRATION[column] not in profiles:
            raise ConfigError(
                f"select.where: the column {column} comes with a calibration that has it; set "
                "scorer.layers=calibrated, or leave the column out"
            )


def hold_back(connection: duckdb.DuckDBPyConnection, where: str, *, one_window: bool) -> None:
    """Add the documents for which the condition is false or null to the table `not_ranked`.

    It reads `documents_to_rank`, `scores`, `measures` and `documents`, as far as the condition does.

    Raises:
        ConfigError: It cannot be told for some document, e.g. where a text is no number; or no document is left.
    """
    threads = connection.execute("select current_setting('threads')").fetchone()
    assert threads is not None
    connection.execute("set TimeZone = 'UTC'")
    _make_judged(connection, columns_read(where), one_window=one_window)
    try:
        # By one thread, over rows in an order: or sums and ties within a window could differ from run to run.
        connection.execute("set threads = 1")
        connection.execute(
            f"insert into not_ranked select doc_id, domain, '{REASON}', null from"
            f" (select doc_id, domain, {_bracketed(where)} as kept from judged) where kept is not true"
        )
    except (duckdb.DataError, duckdb.ProgrammingError) as error:  # and not what memory or a disk lacks
        raise ConfigError(
            f"select.where: it cannot be told of every document ({_first_line(error)}); where the data may not fit, "
            "write try_cast(… as …) or try(…)"
        ) from None
    finally:
        connection.execute(f"set threads = {threads[0]}")
    left = connection.execute("select (select count(*) from judged), count(*) from documents_to_rank").fetchone()
    assert left is not None
    connection.execute("drop table judged")
    if left[0] and not left[1]:
        raise ConfigError(
            f"select.where: it is true for none of {left[0]:,} documents, so that nothing is left to rank; loosen it, "
            'or look at the values with `ladm sql "from scores"`'
        )


def _make_judged(connection: duckdb.DuckDBPyConnection, columns: Iterable[str], *, one_window: bool) -> None:
    """Make the table `judged`: the documents that are to be ranked, in the order of their ids, with some columns."""
    wanted = sorted({*columns, "doc_id", "domain"})
    kinds = {column.name: column.type for column in [*SCORES, *all_columns()]}
    joins, values, means = [], [], []
    for name in wanted:
        if name in OF_THE_RANKING:
            values.append(f"d.{name}")
        elif name in OF_THE_DOCUMENT:
            values.append("t.meta::json as meta" if name == "meta" else f"t.{name}")
        else:
            means.append(f'{_of_all_windows(name, kinds[name], one_window)} as "{name}"')
            values.append(f'w."{name}"')
    if means:
        measured = any(name in {column.name for column in all_columns()} for name in wanted)
        own = f"(select window_id, doc_id, window_index, {', '.join(OF_THE_WINDOWS)} from scores)"
        windows = f"{own} left join measures using (window_id)" if measured else own
        joins.append(
            f"left join (select doc_id, {', '.join(means)} from {windows} group by doc_id) as w using (doc_id)"
        )
    if any(name in OF_THE_DOCUMENT for name in wanted):
        joins.append("left join documents as t using (doc_id)")
    connection.execute(
        f"create or replace temp table judged as select {', '.join(values)}"
        f" from documents_to_rank as d {' '.join(joins)} order by d.doc_id"
    )


def _of_all_windows(name: str, kind: pa.DataType, one_window: bool) -> str:
    """A document's value from its windows': their mean; of what is no number, that of the first window."""
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if one_window:
        return f'any_value("{name}")::double' if number else f'any_value("{name}")'
    return f'avg("{name}" order by window_index)' if number else f'arg_min("{name}", window_index)'


def _closed_duckdb() -> duckdb.DuckDBPyConnection:
    """A DuckDB that can open nothing."""
    connection = duckdb.connect()
    connection.execute("set memory_limit = '500MB'")
    connection.execute("set enable_external_access = false")
    return connection


def _bracketed(where: str) -> str:
    """As `sql_guard` has looked at it: what ends in a comment must not swallow the bracket."""
    return f"(\n{where}\n)"


def _first_line(error: duckdb.Error) -> str:
    text = " ".join((str(error).strip().splitlines() or ["no message"])[0].split())
    return text if len(text) <= 200 else f"{text[:199]}…"
