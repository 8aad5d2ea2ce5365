"""Ranking: all score shards of a run become one ranking, within each domain, and the budget is selected from it.

DuckDB does the work, out of core: `sql/rank.sql` ranks, `pool.sql` leaves the score bands out, the allocation's own
file puts the rest in the order of selection, `take.sql` takes from it, and `allocation.sql` tells what is short. It
ranks exactly the shards it is given: a file that vanished from the sources is gone from the next ranking, and
nothing is globbed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

import duckdb
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from ladm.tasks.errors import AccountError, ConfigError
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard
from ladm.tasks.schema import ALLOCATION, DOCUMENTS, DROP_LIST, RANKING, SCORES, SHORT
from ladm.tasks.scorers.registry import RankBy, all_columns
from ladm.tasks.settings import Settings
from ladm.tasks.storage import duck
from ladm.tasks.storage.read_ahead import one_ahead
from ladm.tasks.storage.store import Store, table_of

ROWS_AT_ONCE = 65_536
OWN_SCORES = ("ladm", "order")
"""The scores that the stage `score` gives; others are measured beside it."""
QUOTAS = pa.schema(
    [
        ("quota", pa.int64()),  # its place in the configuration, from 0
        ("domain", pa.string()),
        ("bucket_min", pa.int64()),
        ("bucket_max", pa.int64()),
        ("tokens", pa.int64()),
    ]
)


class Quota(Settings):
    """One entry of `select.quotas`: so many tokens of one domain, of documents of one length."""

    domain: str
    bucket: tuple[int | None, int | None] | None = None
    """Documents of at least the first and fewer than the second number of tokens; null leaves an end open."""
    tokens: int = Field(gt=0)
    """Tokens to select at most, counted on whole documents."""

    @field_validator("bucket")
    @classmethod
    def _bucket_holds_something(cls, bucket: tuple[int | None, int | None] | None) -> object:
        shortest, end = bucket or (None, None)
        if (shortest or 0) < 0 or (end is not None and end <= (shortest or 0)):
            raise ValueError(f"[{shortest}, {end}] holds no length; give [at least, fewer than], e.g. [4096, 32768]")
        return bucket

    def overlaps(self, other: Quota) -> bool:
        """Whether a document could belong to both quotas."""
        (a_min, a_max), (b_min, b_max) = (quota.bucket or (None, None) for quota in (self, other))
        apart = (a_max is not None and a_max <= (b_min or 0)) or (b_max is not None and b_max <= (a_min or 0))
        return self.domain == other.domain and not apart


class ReplayConfig(Settings):
    """Short documents beside the long ones (`select.replay`)."""

    share: float = Field(gt=0, lt=1)
    """Share of the budget that goes to documents that fill no window, in the proportions of the selected domains."""
    seed: int = Field(default=0, ge=0)
    """Another seed takes others."""


class SelectConfig(Settings):
    """The `select:` section."""

    budget_tokens: int | None = Field(default=None, gt=0)
    """Tokens to select at most, counted on whole documents; everything that was ranked when not given."""
    allocation: Literal["proportional", "published", "uniform", "quotas"] = "proportional"
    """`proportional`: the same top share of every domain (LADM, section 3.3); `published`: as the released filter
    does it, in whole percents of each domain's documents, up to the percent that passes the budget; `uniform`: the
    same tokens of every domain; `quotas`: as listed in `quotas`."""
    quotas: list[Quota] = Field(default=[])
    """For `allocation: quotas`: `{domain, bucket: [at least, fewer than], tokens}`, without overlaps."""
    rank_by: RankBy = "ladm"
    """The score that documents are ranked by; any but `ladm` must be among those that the run computes."""
    document_score: Literal["max", "mean", "first"] = "max"
    """A document's score from its windows'."""
    drop_top: float = Field(default=0.0, ge=0, lt=1)
    """Share of each domain's documents left out from the top of its ranking, before selection."""
    drop_bottom: float = Field(default=0.0, ge=0, lt=1)
    """Share of each domain's documents left out from the bottom of its ranking, before selection."""
    min_tokens_per_domain: int | None = Field(default=None, gt=0)
    """For `proportional`: every domain's best documents up to the one that reaches this come first."""
    max_source_share: float | None = Field(default=None, gt=0, le=1)
    """No source file gets more than this share of the budget."""
    max_copies: int = Field(default=1, ge=1, le=1000)
    """Times that a document may be selected: a target that is short for want of documents takes them again, best
    first, up to so many times."""

    replay: ReplayConfig | None = None
    """Short documents to be replayed; none when not given."""

    @field_validator("quotas")
    @classmethod
    def _no_document_in_two_quotas(cls, quotas: list[Quota]) -> list[Quota]:
        for (first, one), (second, other) in itertools.combinations(enumerate(quotas), 2):
            if one.overlaps(other):
                raise ValueError(
                    f"quotas {first} and {second} both ask for documents of {one.domain!r} of the same length; "
                    "give them buckets that do not overlap"
                )
        return quotas

    @model_validator(mode="after")
    def _keys_fit_together(self) -> SelectConfig:
        if self.drop_top + self.drop_bottom >= 1:
            raise ValueError("drop_top and drop_bottom leave nothing to select; their sum must be below 1")
        if (self.allocation == "quotas") != bool(self.quotas):
            raise ValueError("allocation: quotas and the list of quotas need each other; give both or neither")
        if self.min_tokens_per_domain is not None and self.allocation != "proportional":
            raise ValueError(f"min_tokens_per_domain is for allocation: proportional, not {self.allocation}")
        if self.max_source_share is not None and self.allocation == "published":
            raise ValueError("max_source_share does not go with allocation: published; choose another allocation")
        if self.max_source_share is not None and self.goal_tokens is None:
            raise ValueError("max_source_share is a share of budget_tokens; give budget_tokens too")
        if self.max_copies > 1 and (self.allocation == "published" or self.goal_tokens is None):
            raise ValueError("max_copies above 1 needs a budget_tokens or quotas, and an allocation but published")
        asked = sum(quota.tokens for quota in self.quotas)
        if self.budget_tokens is not None and asked > self.budget_tokens:
            raise ValueError(
                f"the quotas ask for {asked} tokens, more than budget_tokens ({self.budget_tokens}); lower them, or "
                "raise or leave out budget_tokens"
            )
        if self.replay and self.long_tokens is None:
            raise ValueError("replay.share is a share of budget_tokens; give budget_tokens too")
        if self.replay and asked > (self.long_tokens or 0):
            raise ValueError(
                f"the quotas ask for {asked} tokens, more than replay leaves of budget_tokens ({self.long_tokens}); "
                "lower them or replay.share, or raise budget_tokens"
            )
        return self

    @property
    def replay_tokens(self) -> int:
        """Tokens of the budget that are for short documents."""
        share = self.replay.share if self.replay else 0
        return int(Decimal(str(share)) * (self.budget_tokens or 0))  # exact: 0.29 of 100 is 29

    @property
    def long_tokens(self) -> int | None:
        """Tokens of the budget that are for ranked documents."""
        return None if self.budget_tokens is None else self.budget_tokens - self.replay_tokens

    @property
    def goal_tokens(self) -> int | None:
        """Tokens of ranked documents that the selection should hold: the sum of the quotas, or else the budget's."""
        return sum(quota.tokens for quota in self.quotas) or self.long_tokens

    @property
    def source_tokens(self) -> int | None:
        """Tokens that may come from one source file."""
        if self.max_source_share is None or self.goal_tokens is None:
            return None
        return int(Decimal(str(self.max_source_share)) * self.goal_tokens)


def rank(job: Job, store: Store, key: str) -> Outcome:
    """Rank the documents of all score shards and mark the selected ones.

    The inputs are score shards; where another scorer ranks, what was measured; if `max_source_share` is set, the
    document shards that name the sources; and for `replay` the shards of short documents, and the lists of what is
    dropped before scoring.
    The ranking is sorted by domain and rank; the manifest's one file is the allocation (`sql/allocation.sql`).
    Counts are of windows; measures tell documents and tokens.

    Raises:
        ConfigError: A document has no score of the kind that is ranked by.
    """
    config = SelectConfig.model_validate(job.config)
    scores, measures, documents, short, drop_lists = (
        job.all(role) for role in ("scores", "measures", "documents", "short", "drops")
    )
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "scores", store, scores, SCORES)
        duck.view_of_measures(connection, "measures", store, measures, all_columns())
        duck.view_of_shards(connection, "documents", store, documents, DOCUMENTS)
        duck.view_of_shards(connection, "counted_short_documents", store, short, SHORT)
        duck.view_of_shards(connection, "drop_lists", store, drop_lists, DROP_LIST)
        _select(connection, config)
        order = "domain, rank" if config.replay else "place"  # the same, and less to sort
        rows = connection.execute(f"select {', '.join(RANKING.names)} from ranking order by {order}")
        with store.shard_writer("rank", key, RANKING) as writer:
            for batch in one_ahead(rows.to_arrow_reader(ROWS_AT_ONCE)):
                writer.write(pa.Table.from_batches([batch]))
        allocation = connection.execute(
            f"select {', '.join(ALLOCATION.names)} from allocation order by role, domain, bucket_min"
        ).to_arrow_table()
        windows, ranked, tokens = _totals(
            connection, "select sum(domain_windows), sum(domain_documents), sum(domain_tokens) from domains"
        )
        selected, selected_tokens, replayed, replayed_tokens = _totals(
            connection,
            "select sum(documents), sum(selected_tokens), sum(documents) filter (role = 'replay'),"
            " sum(selected_tokens) filter (role = 'replay') from allocation",
        )
        (domains,) = _totals(connection, "select count(*) from domains")
    if writer.rows != ranked + replayed:
        raise AccountError(f"{ranked} documents are ranked and {replayed} replayed, {writer.rows} are in the ranking")
    received = sum(shard.rows for shard in scores)
    not_measured = {f"not measured by {config.rank_by}": received - windows} if received > windows else {}
    return Outcome(
        counts=Counts(received=received, kept=windows, dropped=not_measured),
        shards=[writer.shard()],
        files=[_write_allocation(store, key, allocation)],
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


def _select(connection: duckdb.DuckDBPyConnection, config: SelectConfig) -> None:
    """Make the tables `ranking` and `allocation` from the views `scores` and `documents`."""
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
    duck.set_variables(connection, variables)
    if config.rank_by in OWN_SCORES:
        connection.execute(duck.statement("window_scores"))
    else:
        column = f'select window_id, "{config.rank_by}" as value from measures'
        connection.execute(f"create or replace temp view measured as {column}")
        connection.execute(duck.statement("measured_scores"))
    last_window = connection.execute("select coalesce(max(window_index), 0) from scores").fetchone()
    documents_scored = "one_window" if last_window == (0,) else "many_windows"
    for name in (documents_scored, "rank"):
        connection.execute(duck.statement(name))
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


def _write_allocation(store: Store, key: str, allocation: pa.Table) -> Shard:
    with store.parquet_writer(store.shard_path("rank", key, "allocation.parquet"), key, ALLOCATION) as writer:
        writer.write(allocation)
    return writer.shard()


STAGE = Stage(name="rank", version="5", compute=rank, roles=("scores", "measures", "documents", ("short", "drops")))
