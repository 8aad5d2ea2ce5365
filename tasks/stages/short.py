"""Short documents: those that fill no window, with their tokens counted, so that some of them can be replayed.

A model trained on long documents alone unlearns short ones; a share of the selection may therefore be short documents
(`select.replay`). Their texts stay where ingestion wrote them; here only the number of tokens of each is kept.

Where the run has filters, a document that they dropped is no short one, though it has no window; and documents that
were too short for the stage `filter` go through them here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ladm.tasks.filters.loading import filters_of_job
from ladm.tasks.filters.sieve import COLUMNS, Sieve
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.schema import SHORT
from ladm.tasks.storage.store import Store
from ladm.tasks.tokenizing.tokenizer import tokenizer_of
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents

FILLS_A_WINDOW = "fills a window"
FILTERED_ALREADY = "left out by the filters"
NO_TOKEN = "no token"
LONG_AFTER_ALL = "as long as a window, though length.chars_per_token dropped it"
BATCH_DOCUMENTS = 256
NEEDED = ["doc_id", "domain", "text"]
COUNTING = WindowConfig(length=2**31, count="exact")
"""No document fills such a window, so that all of its tokens are counted and no window is cut."""


def short(job: Job, store: Store, key: str) -> Outcome:
    """Count the tokens of one ingested shard's short documents.

    Inputs: the shard of documents, and the shard of the windows that were cut from it, if there were any; a document
    without a window there is short. If the run has filters, also the shard of the documents that were long enough for
    them, and that of those which they kept.
    """
    shard = job.one("documents")
    tokenizer_digest, *versions = job.identity
    filters = filters_of_job(job.config.get("filters", []), versions)
    sieve = Sieve(filters)
    filling, sifted, kept = (set(store.doc_ids(job.all(role))) for role in ("windows", "long_enough", "kept"))
    filling_ids, sifted_ids, left_out_ids = map(_id_array, (filling, sifted, sifted - kept))
    tokenizer = tokenizer_of(job.environment["model"], tokenizer_digest)
    dropped = Counter[str]()
    tokens = 0
    with store.shard_writer("short", key, SHORT) as writer:
        for batch in store.shard_batches(shard, rows=BATCH_DOCUMENTS, columns=COLUMNS if filters else NEEDED):
            unfilling = _without(batch, filling_ids)
            left = _without(unfilling, left_out_ids)
            dropped[FILLS_A_WINDOW] += batch.num_rows - unfilling.num_rows
            dropped[FILTERED_ALREADY] += unfilling.num_rows - left.num_rows
            if filters:
                left = _without(left, _fallen(_without(left, sifted_ids), sieve))
            counted = cut_documents(left["text"].to_pylist(), tokenizer, COUNTING)
            tokens_N = np.array([document.doc_tokens for document in counted], dtype=np.int64)
            short_N = (tokens_N > 0) & (tokens_N < job.config["window_length"])
            dropped[NO_TOKEN] += int((tokens_N == 0).sum())
            dropped[LONG_AFTER_ALL] += int((tokens_N >= job.config["window_length"]).sum())
            tokens += int(tokens_N[short_N].sum())
            rows = pa.table([left["doc_id"], left["domain"], pa.array(tokens_N)], schema=SHORT)
            writer.write(rows.filter(pa.array(short_N)))
    written = writer.shard()
    return Outcome(
        counts=Counts(
            received=shard.rows,
            kept=written.rows,
            dropped=dict(dropped + Counter(sieve.dropped)),
            quarantined=len(sieve.quarantine),
        ),
        shards=store.kept(written),
        files=sieve.write_list(store, "short", key),
        quarantine=sieve.quarantine,
        measures={"tokens": tokens},
    )


def _id_array(doc_ids: Collection[str]) -> pa.Array:
    return pa.array(doc_ids, type=pa.string())


def _without(batch: pa.RecordBatch, doc_ids: pa.Array) -> pa.RecordBatch:
    return batch.filter(pc.invert(pc.is_in(batch["doc_id"], doc_ids)))


def _fallen(batch: pa.RecordBatch, sieve: Sieve) -> pa.Array:
    """The documents of a batch that do not come through the filters."""
    return batch["doc_id"].filter(pc.invert(sieve.keep(batch)))


STAGE = Stage(name="short", version="1", compute=short, roles=("documents", "windows", "long_enough", "kept"))
