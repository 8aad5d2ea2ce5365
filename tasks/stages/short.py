"""Short documents: those that fill no window, with their tokens counted, so that some of them can be replayed.

A model trained on long documents alone unlearns short ones; a share of the selection may therefore be short documents
(`select.replay`). Their texts stay where ingestion wrote them; here only the number of tokens of each is kept.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.schema import SHORT
from ladm.tasks.storage.store import Store
from ladm.tasks.tokenizing.tokenizer import tokenizer_of
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents

FILLS_A_WINDOW = "fills a window"
NO_TOKEN = "no token"
LONG_AFTER_ALL = "as long as a window, though length.chars_per_token dropped it"
BATCH_DOCUMENTS = 256
COUNTING = WindowConfig(length=2**31, count="exact")
"""No document fills such a window, so that all of its tokens are counted and no window is cut."""


def short(job: Job, store: Store, key: str) -> Outcome:
    """Count the tokens of one ingested shard's short documents.

    Inputs: the shard of documents, and the shard of the windows that were cut from it, if there were any; a document
    without a window there is short.
    """
    shard = job.one("documents")
    filling = pa.array(set(store.doc_ids(job.all("windows"))), type=pa.string())
    tokenizer = tokenizer_of(job.environment["model"], job.identity[0])
    dropped = {FILLS_A_WINDOW: 0, NO_TOKEN: 0, LONG_AFTER_ALL: 0}
    tokens = 0
    with store.shard_writer("short", key, SHORT) as writer:
        for batch in store.shard_batches(shard, rows=BATCH_DOCUMENTS, columns=["doc_id", "domain", "text"]):
            left = batch.filter(pc.invert(pc.is_in(batch["doc_id"], filling)))
            counted = cut_documents(left["text"].to_pylist(), tokenizer, COUNTING)
            tokens_N = np.array([document.doc_tokens for document in counted], dtype=np.int64)
            short_N = (tokens_N > 0) & (tokens_N < job.config["window_length"])
            dropped[FILLS_A_WINDOW] += batch.num_rows - left.num_rows
            dropped[NO_TOKEN] += int((tokens_N == 0).sum())
            dropped[LONG_AFTER_ALL] += int((tokens_N >= job.config["window_length"]).sum())
            tokens += int(tokens_N[short_N].sum())
            rows = pa.table([left["doc_id"], left["domain"], pa.array(tokens_N)], schema=SHORT)
            writer.write(rows.filter(pa.array(short_N)))
    written = writer.shard()
    return Outcome(
        counts=Counts(received=shard.rows, kept=written.rows, dropped={r: n for r, n in dropped.items() if n}),
        shards=store.kept(written),
        measures={"tokens": tokens},
    )


STAGE = Stage(name="short", version="1", compute=short, roles=("documents", "windows"))
