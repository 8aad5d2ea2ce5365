"""Tokenization: a document shard becomes a shard of windows of exactly `window.length` tokens.

Only as much of a document is tokenized as its windows need (`windows.py`); this module streams the shard, loads
the tokenizer once a process and keeps the account.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

import pyarrow as pa

from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.schema import WINDOWS
from ladm.tasks.storage.store import Store
from ladm.tasks.tokenizing.windows import CutDocument, WindowConfig, cut_documents

TOO_FEW_TOKENS = "fewer tokens than one window"
BATCH_DOCUMENTS = 64


@contextlib.contextmanager
def one_core_a_tokenizer() -> Iterator[None]:
    """While open, a tokenizer stays in its caller's thread: for when there is a shard for every core.

    With threads of its own beside those it takes a quarter more time.
    """
    name = "TOKENIZERS_PARALLELISM"  # the library looks at it whenever a batch is encoded
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@lru_cache(maxsize=2)
def tokenizer_of(reference: str, digest: str) -> Any:
    """The tokenizer of the model `reference`, loaded once a process; `digest` is what it was when the run began."""
    from ladm.tasks.models.resolve import load_tokenizer, resolve_model  # noqa: PLC0415  (not needed when all is cached)

    resolved = resolve_model(reference)
    assert resolved.tokenizer_digest == digest, f"the tokenizer of {reference} changed during the run"
    return load_tokenizer(resolved)


def window_table(doc_ids: list[str], domains: list[str], cut: list[CutDocument]) -> pa.Table:
    """The windows of some documents as rows of the tokenize schema, in the documents' order."""
    pairs = [
        (doc_id, domain, document, window)
        for doc_id, domain, document in zip(doc_ids, domains, cut, strict=True)
        for window in document.windows
    ]
    lengths = [len(window.input_ids) for *_, window in pairs]
    offsets = pa.array([0, *_running_sums(lengths)], type=pa.int64())
    ids = pa.array(chain.from_iterable(window.input_ids.tolist() for *_, window in pairs), type=pa.int32())
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


def _running_sums(lengths: list[int]) -> list[int]:
    sums, total = [], 0
    for length in lengths:
        total += length
        sums.append(total)
    return sums


def tokenize(job: Job, store: Store, key: str) -> Outcome:
    """Cut the windows of one document shard; no shard is written if no document fills one."""
    (shard,) = job.inputs
    config = WindowConfig.model_validate(job.config)
    tokenizer = tokenizer_of(job.environment["model"], job.identity[0])
    kept = tokens = 0
    with store.shard_writer("tokenize", key, WINDOWS) as writer:
        for batch in store.shard_batches(shard, rows=BATCH_DOCUMENTS):
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


STAGE = Stage(name="tokenize", version="1", compute=tokenize)
