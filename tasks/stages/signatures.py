"""Signatures: what tells whether a document is a duplicate of another, or holds a passage of a benchmark.

Shard by shard, so that the corpus-wide comparison (`dedup.py`) reads a few hundred bytes a document and no text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard
from ladm.tasks.schema import SIGNATURES
from ladm.tasks.shingles import Hashes, WordHasher, minhashes, normal_form, shingles
from ladm.tasks.stages.benchmarks import passages_of
from ladm.tasks.storage.store import Store, table_of

BATCH_DOCUMENTS = 64
SIGNED_ALREADY = "has its signature as a long enough document"
CARRIED = ["doc_id", "domain", "source", "line"]


def signatures(job: Job, store: Store, key: str) -> Outcome:
    """The signatures of one document shard.

    Inputs: the shard; if only its short documents are meant, the shard of these (`short.py`) and that of the long
    enough ones among which some of them have their signatures already; and the shards of benchmark passages.
    """
    shard, short, long_enough = job.one("documents"), job.all("short"), job.all("long_enough")
    benchmarks = job.all("benchmarks")
    near = job.config["near"]
    passages = passages_of(store.uri, tuple(benchmarks)) if benchmarks else None
    hasher = WordHasher()
    contaminated = 0
    with store.shard_writer("signatures", key, SIGNATURES) as writer:
        for batch in _documents(store, shard, short, long_enough):
            rows: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in CARRIED}
            rows |= {name: [] for name in SIGNATURES.names if name not in CARRIED}
            sets: list[Hashes] = []
            for text in batch["text"]:
                normal = normal_form(text.as_py())
                rows["content"].append(hashlib.sha256(normal.encode()).hexdigest())
                words = hasher.words(normal) if near or passages else None
                found = passages.find(words) if passages and words is not None else None
                contaminated += found is not None
                rows["passage_source"].append(found and found.source)
                rows["passage_line"].append(found and found.line)
                rows["passage_share"].append(found and found.share)
                if near and words is not None:
                    sets.append(shingles(words, near["words"]))
            rows["minhash"] = [None] * batch.num_rows
            if near:
                rows["minhash"] = list(minhashes(sets, near["permutations"], near["seed"]))
            writer.write(table_of(rows, SIGNATURES))
    received = sum(one.rows for one in short or [shard])
    signed = received - writer.rows
    return Outcome(
        counts=Counts(received=received, kept=writer.rows, dropped={SIGNED_ALREADY: signed} if signed else {}),
        shards=[writer.shard()],
        measures={"contaminated": contaminated},
    )


def _documents(
    store: Store, shard: Shard, short: Sequence[Shard], long_enough: Sequence[Shard]
) -> Iterator[pa.RecordBatch]:
    """The shard's documents; if there is a shard of short ones, these alone, less the long enough ones."""
    signed = set(store.doc_ids(long_enough))
    wanted = pa.array([doc_id for doc_id in store.doc_ids(short) if doc_id not in signed], type=pa.string())
    for batch in store.shard_batches(shard, rows=BATCH_DOCUMENTS, columns=[*CARRIED, "text"]):
        yield batch.filter(pc.is_in(batch["doc_id"], wanted)) if short else batch


STAGE = Stage(
    name="signatures", version="1", compute=signatures, roles=("documents", "short", "long_enough", "benchmarks")
)
