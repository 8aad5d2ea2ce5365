"""The dataset card: a README beside the export that says what was selected, from what, by which score, how.

It is a stage's output like the data itself, made from the ranking, what was left out before it, and the
configuration. Its words are in `card_text.py`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import duckdb

from ladm.tasks.exporters.card_text import CardFacts, card_text
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard
from ladm.tasks.schema import DOCUMENTS, DROPPED, FILTERED, NOT_RANKED, RANKING
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store


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
            ranking_key=ranking.key,
        )
    path = store.shard_path("export", key, "md")
    content = card_text(job.config, facts).encode()
    store.write_bytes(path, content)
    return Outcome(
        counts=Counts(received=ranking.rows, kept=ranking.rows),
        files=[Shard(key=key, path=path, bytes=len(content), rows=0, sha256=hashlib.sha256(content).hexdigest())],
    )


def _rows(connection: duckdb.DuckDBPyConnection, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.execute(duck.statement(name)).to_arrow_table().to_pylist()
    return rows


STAGE = Stage(
    name="card",
    version="5",
    compute=card,
    roles=("ranking", "allocation", "dropped", "not_ranked", "documents", "filtered", "filtered_short"),
)
