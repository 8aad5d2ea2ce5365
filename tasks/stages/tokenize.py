"""Tokenization: a document shard becomes a shard of windows of exactly `window.length` tokens.

Only as much of a document is tokenized as its windows need (`windows.py`); this module streams the shard, loads
the tokenizer once a process and keeps the account.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard
from ladm.tasks.schema import WINDOWS
from ladm.tasks.storage.store import Store
from ladm.tasks.tokenizing.tokenizer import tokenizer_of
from ladm.tasks.tokenizing.windows import CutDocument, WindowConfig, cut_documents

TOO_FEW_TOKENS = "fewer tokens than one window"
BATCH_DOCUMENTS = 64
BATCH_BYTES = 2**20
"""Small documents are taken together until they have so many bytes: words that are alike are then looked up once."""


def window_table(doc_ids: list[str], domains: list[str], cut: list[CutDocument]) -> pa.Table:
    """The windows of some documents as rows of the tokenize schema, in the documents' order."""
    pairs = [
        (doc_id, domain, document, window)
        for doc_id, domain, document in zip(doc_ids, domains, cut, strict=True)
        for window in document.windows
    ]
    lengths = [len(window.input_ids) for *_, window in pairs]
    offsets = pa.array(np.cumsum([0, *lengths]), type=pa.int64())
    ids = pa.array(np.concatenate([np.empty(0, np.int32), *(window.input_ids for *_, window in pairs)]))
    columns = [
        pa.array([f"{doc_id}:{window.index}" for doc_id, _, _, window in pairs], type=pa.string()),
        pa.array([doc_id for doc_id, *_ in pairs], type=pa.string()),
        pa.array([domain for _, domain, _, _ in pairs], type=pa.string()),
        pa.array([window.index for *_, window in pairs], type=pa.int32()),
        pa.LargeListArray.from_arrays(offsets, ids),
        pa.array(lengths, type=pa.int32()),
        pa.array([window.char_start for *_, window in pairs], type=pa.int64()),
        pa.array([window.char_end for *_, window in pairs], type=pa.int64()),
        pa.array([document.doc_tokens for _, _, document, _ in pairs], type=pa.int64()),
        pa.array([document.doc_tokens_exact for _, _, document, _ in pairs], type=pa.bool_()),
    ]
    return pa.Table.from_arrays(columns, schema=WINDOWS)


def _batches(store: Store, shard: Shard) -> Iterator[pa.Table]:
    """The documents of a shard, so many at once as are long, or more that are short."""
    gathered: list[pa.RecordBatch] = []
    size = 0
    for batch in store.shard_batches(shard, rows=BATCH_DOCUMENTS, columns=["doc_id", "domain", "text"]):
        gathered.append(batch)
        size += batch.nbytes
        if size >= BATCH_BYTES:
            yield pa.Table.from_batches(gathered)
            gathered, size = [], 0
    if gathered:
        yield pa.Table.from_batches(gathered)


def tokenize(job: Job, store: Store, key: str) -> Outcome:
    """Cut the windows of one document shard; no shard is written if no document fills one."""
    shard = job.one("documents")
    config = WindowConfig.model_validate(job.config)
    tokenizer = tokenizer_of(job.environment["model"], job.identity[0])
    kept = tokens = 0
    with store.shard_writer("tokenize", key, WINDOWS) as writer:
        for batch in _batches(store, shard):
            cut = cut_documents(batch["text"].to_pylist(), tokenizer, config)
            kept += sum(1 for document in cut if document.windows)
            tokens += sum(len(window.input_ids) for document in cut for window in document.windows)
            writer.write(window_table(batch["doc_id"].to_pylist(), batch["domain"].to_pylist(), cut))
    windows = writer.shard()
    short = shard.rows - kept
    return Outcome(
        counts=Counts(received=shard.rows, kept=kept, dropped={TOO_FEW_TOKENS: short} if short else {}),
        shards=store.kept(windows),
        measures={"windows": windows.rows, "tokens": tokens},
    )


STAGE = Stage(name="tokenize", version="1", compute=tokenize, roles=("documents",))
