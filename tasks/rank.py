"""Ranking: all score shards of a run become one ranking, within each domain, and the budget is selected from it.

DuckDB does the work (`sql/rank.sql`, `sql/select.sql`), out of core. It ranks exactly the shards it is given: a
file that vanished from the sources is gone from the next ranking, and nothing is globbed.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import Field

from tasks import duck
from tasks.job import Job, Outcome, Stage
from tasks.manifest import Counts
from tasks.schema import RANKING, SCORES
from tasks.settings import Settings
from tasks.store import Store


class SelectConfig(Settings):
    """The `select:` section."""

    budget_tokens: int | None = Field(default=None, gt=0)
    """Tokens to select at most, counted on whole documents; everything that was ranked when not given."""
    allocation: Literal["proportional"] = "proportional"
    """The same top share of every domain (LADM, section 3.3)."""
    document_score: Literal["max", "mean", "first"] = "max"
    """A document's score from its windows'."""


def rank(job: Job, store: Store, key: str) -> Outcome:
    """Rank the documents of all score shards and mark the selected ones.

    The output is sorted by domain and rank. Counts are of windows; measures tell documents and tokens.
    """
    config = SelectConfig.model_validate(job.config)
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "scores", store, job.inputs, SCORES)
        duck.set_variables(connection, {"aggregate": config.document_score, "budget_tokens": config.budget_tokens})
        connection.execute(duck.statement("rank"))
        connection.execute(duck.statement("select"))
        sorted_rows = connection.execute(
            f"select {', '.join(RANKING.names)} from ranking order by domain, rank"
        ).to_arrow_reader(65_536)
        with store.shard_writer("rank", key, RANKING) as writer:
            for batch in sorted_rows:
                writer.write(pa.Table.from_batches([batch]))
        totals = connection.execute(
            "select coalesce(sum(windows), 0)::bigint, count(*), count(*) filter (selected),"
            " coalesce(sum(doc_tokens), 0)::bigint, coalesce(sum(doc_tokens) filter (selected), 0)::bigint,"
            " count(distinct domain) from ranking"
        ).fetchone()
    assert totals is not None
    windows, documents, selected, tokens, selected_tokens, domains = totals
    return Outcome(
        counts=Counts(received=sum(shard.rows for shard in job.inputs), kept=windows),
        shards=[writer.shard()],
        measures={
            "documents": documents,
            "tokens": tokens,
            "domains": domains,
            "selected_documents": selected,
            "selected_tokens": selected_tokens,
        },
    )


STAGE = Stage(name="rank", version="1", compute=rank)
