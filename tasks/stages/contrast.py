"""The contrast set of a corpus as a stage: from the windows that tokenization cut to a shard a document.

How windows are made is `contrast_set.py`. A set to calibrate by draws on the bundled sample as well
(`sample_windows.py`): what real text is like must not be learnt from a corpus alone, which may be half junk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ladm.tasks.evaluation.contrast_set import (
    CALIBRATE,
    MOST_DOCUMENTS,
    SHUFFLED,
    Coder,
    ContrastConfig,
    ContrastWindow,
    contrast_set,
    half_of,
    hashed,
    is_list,
)
from ladm.tasks.evaluation.passages import SourceWindow
from ladm.tasks.evaluation.sample_windows import sample_windows
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.scorers.loaded_model import text_reader
from ladm.tasks.storage.store import Store, table_of
from ladm.tasks.tokenizing.tokenizer import tokenizer_of

CONTRAST = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("base", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("half", pa.string(), nullable=False),
        pa.field("input_ids", pa.large_list(pa.int32()), nullable=False),
        pa.field("documents", pa.list_(pa.string()), nullable=False),
        pa.field("cuts", pa.list_(pa.int32()), nullable=False),
        pa.field("parts", pa.list_(pa.int32()), nullable=False),
    ]
)
"""contrast/: one row a window of the contrast set, a shard for each document."""

DOCUMENTS_A_SHARD = 4
"""Of a set to calibrate by. In other sets a document is a shard, so that a larger set measures only what it adds."""
NOT_DRAWN = "not drawn for the contrast set"


def contrast(job: Job, store: Store, key: str) -> Outcome:
    """Make the contrast set of all token shards: a shard for each document chosen, its whole window first.

    Only document ids are read of all windows; token ids only of those that are drawn on. Junk is made by the model's
    tokenizer: its digest is the job's identity.
    """
    config = ContrastConfig.model_validate(job.config)
    coder = _coder(job)
    drawn = _drawn(store, job, config)
    windows = []
    for shard in job.all("windows"):
        for batch in store.shard_batches(shard, rows=64):
            for row in batch.select(["window_id", "doc_id", "domain", "input_ids"]).to_pylist():
                if row["window_id"] in drawn:
                    windows.append(SourceWindow(row["doc_id"], row["domain"], np.array(row["input_ids"], np.int32)))
    made = contrast_set(_texts(config, windows), config, None if config.sample_windows else coder)
    if config.sample_windows and config.window_length and coder:
        left = config.sample_windows + max(0, (config.windows or 0) - len(made))  # what the corpus is short of
        own = sample_windows(job.environment["sample"], config.window_length, coder)
        made += contrast_set(_texts(config, own), config.model_copy(update={"windows": left}), coder)
        made = _to_calibrate_by(made)
    shards = []
    for of_one in made:
        rows = {
            name: [getattr(window, "ids" if name == "input_ids" else name) for window in of_one]
            for name in CONTRAST.names
        }
        shards.append(store.write_shard("contrast", _content_key(of_one), table_of(rows, CONTRAST)))
    received = sum(shard.rows for shard in job.all("windows"))
    dropped = {NOT_DRAWN: received - len(windows)} if received > len(windows) else {}
    return Outcome(
        counts=Counts(received=received, kept=len(windows), dropped=dropped),
        shards=shards,
        measures={"windows": sum(map(len, made))},
    )


def _texts(config: ContrastConfig, windows: Sequence[SourceWindow]) -> Sequence[SourceWindow]:
    """The windows to make the set of: lists have no part in a set that is made to calibrate by alone."""
    return [one for one in windows if config.half != CALIBRATE or not is_list(config, one.domain)]


def _to_calibrate_by(made: Sequence[list[ContrastWindow]]) -> list[list[ContrastWindow]]:
    """The windows that a calibration is fitted on, several documents a shard: nobody asks for more of them later."""
    groups = [made[start : start + DOCUMENTS_A_SHARD] for start in range(0, len(made), DOCUMENTS_A_SHARD)]
    return [[window for of_one in group for window in of_one if window.kind != SHUFFLED] for group in groups]


def _coder(job: Job) -> Coder | None:
    """The model's tokenizer."""
    digest = job.identity[0]
    reference = job.environment["model"]
    decode = text_reader(reference, digest)
    if decode is None:
        return None
    return Coder.of(tokenizer_of(reference, digest), decode)


def _content_key(of_one: Sequence[ContrastWindow]) -> str:
    """The key of a shard: of its content alone, so that a larger set measures only what it adds to a smaller one."""
    digest = hashlib.sha256(b"contrast 3")
    for window in of_one:
        digest.update(f"\0{window.window_id}\0{window.domain}\0{window.half}\0{window.cuts}{window.parts}\0".encode())
        digest.update(window.ids.astype("<i4").tobytes())
    return digest.hexdigest()


def _drawn(store: Store, job: Job, config: ContrastConfig) -> set[str]:
    """The windows to draw on: the first of each document, of the `MOST_DOCUMENTS` first by hash in a domain's half."""
    excluded = set(config.exclude)
    pools: dict[tuple[str, str], list[tuple[int, str]]] = {}
    seen: set[str] = set()
    for shard in job.all("windows"):
        for batch in store.shard_batches(shard, rows=4096, columns=["window_id", "doc_id", "domain", "window_index"]):
            for row in batch.to_pylist():
                doc_id = row["doc_id"]
                if row["window_index"] or doc_id in excluded or doc_id in seen:
                    continue
                seen.add(doc_id)
                pool = pools.setdefault((row["domain"], half_of(config, doc_id)), [])
                pool.append((hashed(config.seed, "order", doc_id), row["window_id"]))
                if len(pool) > 2 * MOST_DOCUMENTS:
                    pool.sort()
                    del pool[MOST_DOCUMENTS:]
    return {window_id for pool in pools.values() for _, window_id in sorted(pool)[:MOST_DOCUMENTS]}


STAGE = Stage(name="contrast", version="4", compute=contrast, roles=("windows",))
