"""The dataset card: a README beside the export that says what was selected, from what, by which score, how.

It is a stage's output like the data itself, made from the ranking, what was left out before it, and the
configuration. Its words are in `card_text.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

import duckdb
from pydantic import Field

from ladm.tasks.exporters.card_text import CardFacts, card_text
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.schema import DOCUMENTS, DROPPED, FILTERED, NOT_RANKED, RANKING
from ladm.tasks.settings import Settings
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store


class CardConfig(Settings):
    """The `card:` section: what the head of the dataset card says that no metadata does."""

    license: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """The Hub's id of the data's licence, such as `cc-by-4.0`. Default: those that the documents' metadata states."""
    language: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] = Field(default=[])
    """ISO codes of the data's languages, such as `[en, de]`. Default: those that the documents' metadata states."""
    tags: list[str] = Field(default=[])
    """Tags beside `ladm`, `long-context` and `pretraining`."""


def card(job: Job, store: Store, key: str) -> Outcome:
    """Write the card of one ranking.

    Inputs: the ranking, its allocation, what was dropped before scoring, by filters, or held back from the ranking if
    that was looked for, and the document shards that `export` reads. The configuration is the run's own.
    """
    ranking, allocation = job.one("ranking"), job.one("allocation")
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "ranking", store, [ranking], RANKING)
        duck.view_of_shards(connection, "documents", store, job.all("documents"), DOCUMENTS)
        duck.view_of_shards(connection, "dropped", store, job.all("dropped"), DROPPED)
        duck.view_of_shards(connection, "not_ranked", store, job.all("not_ranked"), NOT_RANKED)
        filtered = [*job.all("filtered"), *job.all("filtered_short")]
        duck.view_of_shards(connection, "filtered", store, filtered, FILTERED)
        facts = CardFacts(
            domains=_rows(connection, "card"),
            targets=store.read_shard(allocation).to_pylist(),
            licences=_rows(connection, "licences"),
            lengths=_rows(connection, "card_lengths"),
            sources=_rows(connection, "card_sources"),
            dropped=_rows(connection, "card_dropped"),
            not_ranked=_rows(connection, "card_not_ranked"),
            filtered=_rows(connection, "card_filtered"),
            languages=_rows(connection, "card_languages"),
            splits=[place for place in _rows(connection, "card_splits")[0].values() if place is not None],
            ranking_key=ranking.key,
        )
    written = store.write_file("export", key, "md", card_text(job.config, facts).encode())
    return Outcome(
        counts=Counts(received=ranking.rows, kept=ranking.rows),
        files=[written],
    )


def _rows(connection: duckdb.DuckDBPyConnection, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.execute(duck.statement(name)).to_arrow_table().to_pylist()
    return rows


STAGE = Stage(
    name="card",
    version="6",
    compute=card,
    roles=("ranking", "allocation", "dropped", "not_ranked", "documents", "filtered", "filtered_short"),
)
