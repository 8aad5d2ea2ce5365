"""Ranking: all score shards of a run become one ranking, within each domain, and the budget is selected from it.

DuckDB does the work, out of core: `sql/not_ranked.sql` knows what is held back, `rank.sql` ranks the rest, `pool.sql`
leaves the score bands out, the allocation's own file puts the rest in the order of selection, `take.sql` takes from it,
and `allocation.sql` tells what is short. It ranks exactly the shards it is given: a file that vanished from the sources
is gone from the next ranking, and nothing is globbed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from ladm.tasks.addresses import read_addresses, view_of_documents
from ladm.tasks.condition import hold_back
from ladm.tasks.errors import AccountError, ConfigError
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard
from ladm.tasks.schema import ALLOCATION, DROP_LIST, NOT_RANKED, RANKING, SCORES, SHORT
from ladm.tasks.scorers.registry import all_columns
from ladm.tasks.selection import OWN_SCORES, Quota, SelectConfig
from ladm.tasks.storage import duck
from ladm.tasks.storage.read_ahead import one_ahead
from ladm.tasks.storage.store import Store, table_of

ROWS_AT_ONCE = 65_536
GATE_RULES = "gate_rules"
"""In a job's configuration, beside the `select:` section: what the gate's distance does to a document."""
QUOTAS = pa.schema(
    [
        ("quota", pa.int64()),  # its place in the configuration, from 0
        ("domain", pa.string()),
        ("bucket_min", pa.int64()),
        ("bucket_max", pa.int64()),
        ("tokens", pa.int64()),
    ]
)


def rank(job: Job, store: Store, key: str) -> Outcome:
    """Rank the documents of all score shards and mark the selected ones.

    The inputs are score shards; the distances from real text, by a calibration's gate; where another scorer ranks, or
    `where` reads it, what was measured; the document shards, and where the source files lie, if `max_source_share` is
    set or `where` reads what they hold; and for `replay` the shards of short documents, and the lists of what is
    dropped before scoring.
    The ranking is sorted by domain and rank. The manifest's files are the allocation (`sql/allocation.sql`) and, where
    documents may be held back from the ranking, these (`sql/not_ranked.sql`). Counts are of windows; measures tell
    documents and tokens.

    Raises:
        ConfigError: A document has no score of the kind that is ranked by, or `where` leaves none.
    """
    rules = job.config.get(GATE_RULES)
    config = SelectConfig.model_validate({name: one for name, one in job.config.items() if name != GATE_RULES})
    scores, measures = job.all("scores"), [*job.all("measures"), *job.all("gates")]
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "scores", store, scores, SCORES)
        duck.view_of_measures(connection, "measures", store, measures, all_columns())
        view_of_documents(connection, "documents", store, job.all("documents"), read_addresses(store, job))
        duck.view_of_shards(connection, "counted_short_documents", store, job.all("short"), SHORT)
        duck.view_of_shards(connection, "drop_lists", store, job.all("drops"), DROP_LIST)
        _select(connection, config, rules)
        ranking = _write_ranking(connection, store, key, config)
        files = [_write_file(connection, store, key, "allocation", ALLOCATION, "role, domain, bucket_min")]
        dropped: dict[str, int] = {}
        if config.holds_back or rules:
            held_back = "(from not_ranked join documents_scored using (doc_id, domain))"
            files.append(_write_file(connection, store, key, "not_ranked", NOT_RANKED, "domain, doc_id", held_back))
            dropped = _windows_by_reason(connection, held_back)
        windows, ranked, tokens = _totals(
            connection, "select sum(domain_windows), sum(domain_documents), sum(domain_tokens) from domains"
        )
        selected, selected_tokens, replayed, replayed_tokens = _totals(
            connection,
            "select sum(documents), sum(selected_tokens), sum(documents) filter (role = 'replay'),"
            " sum(selected_tokens) filter (role = 'replay') from allocation",
        )
        (domains,) = _totals(connection, "select count(*) from domains")
    if ranking.rows != ranked + replayed:
        raise AccountError(f"{ranked} documents are ranked and {replayed} replayed, {ranking.rows} are in the ranking")
    received = sum(shard.rows for shard in scores)
    if not_measured := received - windows - sum(dropped.values()):
        dropped[f"not measured by {config.rank_by}"] = not_measured
    return Outcome(
        counts=Counts(received=received, kept=windows, dropped=dropped),
        shards=[ranking],
        files=files,
        measures={
            "documents": ranked,
            "tokens": tokens,
            "domains": domains,
            "selected_documents": selected,
            "selected_tokens": selected_tokens,
            "short_tokens": max(0, (config.goal_tokens or 0) + config.replay_tokens - selected_tokens),
            **({"replayed_tokens": replayed_tokens} if config.replay else {}),
        },
    )


def _totals(connection: duckdb.DuckDBPyConnection, sums: str) -> list[int]:
    """The one row of some sums; a sum of nothing is 0."""
    row = connection.execute(sums).fetchone()
    assert row is not None
    return [int(value or 0) for value in row]


def _select(connection: duckdb.DuckDBPyConnection, config: SelectConfig, rules: dict[str, float] | None) -> None:
    """Make the tables `ranking` and `allocation` from the views `scores`, `measures` and `documents`."""
    duck.make_table(connection, "quotas", _quotas_table(config.quotas))
    variables: dict[str, Any] = {
        "aggregate": config.document_score,
        "rank_by": config.rank_by,
        "budget_tokens": config.long_tokens,
        "min_tokens_per_domain": config.min_tokens_per_domain,
        "drop_top": config.drop_top,
        "drop_bottom": config.drop_bottom,
        "source_tokens": config.source_tokens,
        "max_copies": config.max_copies,
    }
    duck.set_variables(connection, variables | {f"gate_{name}": one for name, one in (rules or {}).items()})
    if config.rank_by == "ladm" and rules:
        connection.execute(duck.statement("gated_scores"))
    elif config.rank_by in OWN_SCORES:
        connection.execute(duck.statement("window_scores"))
    else:
        column = f'select window_id, "{config.rank_by}" as value from measures'
        connection.execute(f"create or replace temp view measured as {column}")
        connection.execute(duck.statement("measured_scores"))
    last_window = connection.execute("select coalesce(max(window_index), 0) from scores").fetchone()
    documents_scored = "one_window" if last_window == (0,) else "many_windows"
    for name in (documents_scored, "not_ranked"):
        connection.execute(duck.statement(name))
    if rules:
        connection.execute(duck.statement("held_back"))
    if config.where is not None:
        hold_back(connection, config.where, one_window=documents_scored == "one_window")
    connection.execute(duck.statement("rank"))
    _refuse_documents_without_a_score(connection, config.rank_by)
    for name in ("pool", config.allocation):
        connection.execute(duck.statement(name))
    if config.max_source_share is None:
        connection.execute("create or replace temp view queue as select * from candidates")
    else:
        connection.execute(duck.statement("cap_sources"))
    for name in ("take", "select", "allocation"):
        connection.execute(duck.statement(name))
    if config.replay:
        duck.set_variables(connection, {"replay_tokens": config.replay_tokens, "replay_seed": config.replay.seed})
        connection.execute(
            "create or replace temp view short_documents as"
            " from counted_short_documents anti join drop_lists using (doc_id)"
        )
        connection.execute(duck.statement("replay"))


def _refuse_documents_without_a_score(connection: duckdb.DuckDBPyConnection, rank_by: str) -> None:
    """Nothing is ranked if a document would be by its id alone."""
    documents, scored = _totals(connection, "select count(*), count(score) from sorted")
    if scored < documents:
        first = connection.execute("select min(doc_id) from sorted where score is null").fetchone()
        raise ConfigError(
            f"select.rank_by: {documents - scored} of {documents} documents have no score {rank_by!r}, the first "
            f"{first[0] if first else ''}; rank by a score that the run computes"
        )


def _quotas_table(quotas: Sequence[Quota]) -> pa.Table:
    buckets = [quota.bucket or (None, None) for quota in quotas]
    columns: dict[str, list[Any]] = {
        "quota": list(range(len(quotas))),
        "domain": [quota.domain for quota in quotas],
        "bucket_min": [shortest for shortest, _ in buckets],
        "bucket_max": [end for _, end in buckets],
        "tokens": [quota.tokens for quota in quotas],
    }
    return table_of(columns, QUOTAS)


def _write_ranking(connection: duckdb.DuckDBPyConnection, store: Store, key: str, config: SelectConfig) -> Shard:
    order = "domain, rank" if config.replay else "place"  # the same, and less to sort
    rows = connection.execute(f"select {', '.join(RANKING.names)} from ranking order by {order}")
    with store.shard_writer("rank", key, RANKING) as writer:
        for batch in one_ahead(rows.to_arrow_reader(ROWS_AT_ONCE)):
            writer.write(pa.Table.from_batches([batch]))
    return writer.shard()


def _write_file(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    key: str,
    name: str,
    schema: pa.Schema,
    order: str,
    rows: str = "",
) -> Shard:
    """Write some rows, of the table of that name if not said otherwise, as the file `<key>.<name>.parquet`."""
    found = connection.execute(f"select {', '.join(schema.names)} from {rows or name} order by {order}")
    with store.parquet_writer(store.shard_path("rank", key, f"{name}.parquet"), key, schema) as writer:
        for batch in found.to_arrow_reader(ROWS_AT_ONCE):
            writer.write(pa.Table.from_batches([batch]))
    return writer.shard()


def _windows_by_reason(connection: duckdb.DuckDBPyConnection, held_back: str) -> dict[str, int]:
    """The windows of the documents that are not ranked, by reason."""
    rows = connection.execute(f"select reason, sum(windows)::bigint from {held_back} group by reason").fetchall()
    return {str(reason): int(windows) for reason, windows in rows}


STAGE = Stage(
    name="rank",
    version="5",
    compute=rank,
    roles=("scores", "measures", "gates", "documents", ("short", "drops"), "addresses"),
)
