"""Duplicates and benchmark passages: which documents are not scored, so that no GPU time goes into them.

The one comparison of all documents with all, over their signatures and without their texts, before scoring. What it
decides travels to the scoring of each shard as that shard's own list of documents, under the hash of the list: where
nothing changed, nothing is scored again, however much was added elsewhere.

Who stays: of documents that are alike, the first by source file and line. It is decided in that order, and a near
duplicate is dropped only for a document that stays itself; so every drop's twin is in the corpus, and a chain of ever
less similar documents does not fall as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import Field, field_validator

from ladm.tasks.errors import AccountError
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Manifest, Shard, content_key
from ladm.tasks.schema import DROP_LIST, DROPPED, SIGNATURES
from ladm.tasks.settings import Settings
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store, table_of

NEAR_DUPLICATE = "near duplicate"
NEIGHBOURS = 64
"""Documents of one bucket that a document is compared with at most, besides the first."""
FEWEST_FOUND = 0.95
"""Share of the pairs right at the threshold that fall into a common bucket; of more similar pairs nearly all do.

Among a million documents each percent more would cost a multiple of comparisons in vain.
"""
FETCHED_ROWS = 65_536
NEAR_REPEATS = pa.schema([("place", pa.int64()), ("twin_place", pa.int64()), ("similarity", pa.float64())])


class NearConfig(Settings):
    """What counts as a near duplicate (`deduplicate.near`)."""

    threshold: float = Field(default=0.55, gt=0, le=1)
    """Documents at least this similar are near duplicates: the Jaccard similarity of their runs of `words` words,
    repetitions counted. With runs of two words, a copy with 10 % of its words changed has 0.68, with 20 % 0.47."""
    words: int = Field(default=2, ge=1, le=100)
    """Words in a run. Longer runs make changed copies less similar."""
    permutations: int = Field(default=128, ge=16, le=1024)
    """Size of a MinHash signature. More gives a better estimate of the similarity, and takes longer."""
    seed: int = Field(default=0, ge=0)
    """Seed of the signatures."""


class DeduplicateConfig(Settings):
    """Duplicates are dropped before scoring; the first of them, by source file and line, stays."""

    exact: bool = True
    """Drop documents with the same text as an earlier one; case, white space and compatibility characters (such as full
    width letters) do not count."""
    near: NearConfig | None = NearConfig()
    """Drop near duplicates. `true` for the defaults, `false` for none."""

    @field_validator("near", mode="before")
    @classmethod
    def _near_from_bool(cls, near: object) -> object:
        return ({} if near else None) if isinstance(near, bool) else near


def dedup_key_config(config: DeduplicateConfig | None) -> dict[str, Any]:
    """What the comparison computes with; without a `deduplicate:` section only benchmark passages are dropped."""
    return (config or DeduplicateConfig(exact=False, near=None)).model_dump()


def bands_of(threshold: float, permutations: int) -> tuple[int, int]:
    """How a signature is cut: the number of bands, and the numbers in a band.

    The longest bands, so the fewest pairs to compare in vain, with which pairs of exactly the threshold's similarity
    still agree in at least one band with a probability of `FEWEST_FOUND`.
    """
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= FEWEST_FOUND:
            return bands, rows
    return permutations, 1


def dedup(job: Job, store: Store, key: str) -> Outcome:
    """Decide which documents are not scored.

    Inputs are the signature shards, the shards of windows, and those of short documents if they are to be replayed.
    The manifest's shards are the lists of documents not to score (or replay), one a shard of windows or of short
    documents and in the same order, mostly empty; its one file tells of each document why. Counts are of windows.
    """
    near = NearConfig.model_validate(job.config["near"]) if job.config["near"] else None
    signatures, compared = job.all("signatures"), _compared(job)
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "signatures", store, signatures, SIGNATURES)
        documents = _window_documents(connection, store, compared, job.all("windows"))
        duck.set_variables(connection, {"exact": job.config["exact"]})
        connection.execute(duck.statement("repeats"))
        placed = connection.execute("select count(*), sum(windows)::bigint from placed").fetchone()
        if placed != documents:
            raise AccountError(f"{documents} documents and windows, of which {placed} have a signature")
        if near:
            _find_near(connection, near)
        connection.execute(duck.statement("dropped"))
        why = _write_dropped(connection, store, key)
        lists = _write_lists(connection, store, len(compared))
        reasons = connection.execute("select reason, sum(windows)::bigint from dropped group by reason").fetchall()
    received = sum(shard.rows for shard in job.all("windows"))
    dropped = {str(reason): int(number) for reason, number in reasons if number}
    return Outcome(
        counts=Counts(received=received, kept=received - sum(dropped.values()), dropped=dropped),
        shards=lists,
        files=[why],
        measures={"documents": documents[0], "dropped_documents": why.rows},
    )


def _compared(job: Job) -> list[Shard]:
    """The shards whose documents are compared, of windows and of short documents, ordered by key."""
    return sorted([*job.all("windows"), *job.all("short")], key=lambda shard: shard.key)


def drop_lists(job: Job, manifest: Manifest) -> dict[str, Shard]:
    """Of a job that is done: the key of a shard that was compared → the list of its documents not to score."""
    return {shard.key: dropped for shard, dropped in zip(_compared(job), manifest.shards, strict=True)}


def _window_documents(
    connection: duckdb.DuckDBPyConnection, store: Store, compared: Sequence[Shard], windows: Sequence[Shard]
) -> tuple[int, int]:
    """Make the table `window_documents`: which documents gave how many windows, by shard. Returns both totals."""
    connection.execute("create or replace temp table window_documents (shard bigint, doc_id varchar, windows bigint)")
    of_windows = {shard.key for shard in windows}
    for number, shard in enumerate(compared):
        rows = duck.parquet_rows(store, shard.path)
        count = "count(*)" if shard.key in of_windows else "0"
        connection.execute(f"insert into window_documents select {number}, doc_id, {count} from {rows} group by doc_id")
    totals = connection.execute("select count(*), sum(windows)::bigint from window_documents").fetchone()
    assert totals is not None
    return totals[0], totals[1]


def _find_near(connection: duckdb.DuckDBPyConnection, near: NearConfig) -> None:
    """Add the near duplicates to the table `repeats`."""
    bands, rows = bands_of(near.threshold, near.permutations)
    variables = {"band_rows": rows, "neighbours": NEIGHBOURS}
    duck.set_variables(connection, variables | near.model_dump(include={"permutations", "threshold"}))
    connection.execute(duck.statement("near_documents"))
    for band in range(bands):
        duck.set_variables(connection, {"band": band})
        connection.execute(duck.statement("near_band"))
    connection.execute(duck.statement("near_pairs"))
    pairs = connection.execute("select * from near_pairs order by place, similarity desc, twin_place")
    found = list(kept_twins(_rows(pairs)))
    columns = {name: [pair[place] for pair in found] for place, name in enumerate(NEAR_REPEATS.names)}
    duck.make_table(connection, "near_repeats", table_of(columns, NEAR_REPEATS))
    connection.execute(f"insert into repeats by name select *, '{NEAR_DUPLICATE}' as reason from near_repeats")


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[int, int, float]]:
    while rows := result.fetchmany(FETCHED_ROWS):
        yield from rows


def kept_twins(pairs: Iterator[tuple[int, int, float]]) -> Iterator[tuple[int, int, float]]:
    """Of similar pairs, those by which a document falls: its twin stays.

    Args:
        pairs: Places of a document and of an earlier one that is similar to it, and how similar; by document, and
            within that the preferred twin first.
    """
    dropped: set[int] = set()
    for place, twin, similarity in pairs:
        if place not in dropped and twin not in dropped:
            dropped.add(place)
            yield place, twin, similarity


def _write_dropped(connection: duckdb.DuckDBPyConnection, store: Store, key: str) -> Shard:
    columns = ", ".join(DROPPED.names)
    rows = connection.execute(f"select {columns} from dropped order by source, line, doc_id")
    with store.shard_writer("dedup", key, DROPPED) as writer:
        for batch in rows.to_arrow_reader(FETCHED_ROWS):
            writer.write(pa.Table.from_batches([batch]))
    return writer.shard()


def _write_lists(connection: duckdb.DuckDBPyConnection, store: Store, shards: int) -> list[Shard]:
    """Each shard's list of documents not to score, under the hash of the list."""
    rows = connection.execute("select shard, list(doc_id order by doc_id) from dropped group by shard order by shard")
    listed = dict(rows.fetchall())
    lists = []
    for number in range(shards):
        doc_ids = listed.get(number, [])
        key = content_key("documents not to score", doc_ids)
        lists.append(store.write_shard("dedup", key, table_of({"doc_id": doc_ids}, DROP_LIST)))
    return lists


STAGE = Stage(name="dedup", version="2", compute=dedup, roles=(("signatures", "windows", "short"),))
