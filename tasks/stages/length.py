"""The length filter: drops, before any tokenizer runs, the documents that cannot fill one window.

It never drops a document that could: a byte-level token is at least one byte, so a text of fewer bytes than the
window has tokens is too short for certain. An estimate by characters a token drops more, and is opt-in because
it can be wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.schema import DOCUMENTS
from ladm.tasks.settings import Settings
from ladm.tasks.storage.store import Store

TOO_FEW_BYTES = "fewer bytes than the window has tokens"
TOO_FEW_CHARS = "fewer characters than length.chars_per_token asks for"


class LengthConfig(Settings):
    """The `length:` section."""

    chars_per_token: float | None = Field(default=None, gt=0)
    """Also drop documents with fewer characters than `window.length` times this number: an estimate that saves
    tokenizing them. Default: drop only what cannot fill a window."""


def length_key_config(config: LengthConfig, window_length: int) -> dict[str, Any]:
    """What the length filter computes with."""
    return {**config.model_dump(), "window_length": window_length}


def long_enough(
    bytes_N: np.ndarray[Any, Any],
    chars_N: np.ndarray[Any, Any],
    window_length: int,
    chars_per_token: float | None,
) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
    """Which of N documents stay, and how many go for which reason.

    Args:
        bytes_N: UTF-8 bytes of each text.
        chars_N: Characters of each text; looked at only with `chars_per_token`.
        window_length: Tokens of a window.
        chars_per_token: The opt-in estimate, or None.

    Returns:
        A boolean mask of the documents kept, and the dropped ones counted by reason.
    """
    enough_bytes_N = bytes_N >= window_length
    enough_chars_N = np.ones_like(enough_bytes_N)
    if chars_per_token is not None:
        enough_chars_N = chars_N >= window_length * chars_per_token
    dropped = {
        TOO_FEW_BYTES: int((~enough_bytes_N).sum()),
        TOO_FEW_CHARS: int((enough_bytes_N & ~enough_chars_N).sum()),
    }
    return enough_bytes_N & enough_chars_N, {reason: number for reason, number in dropped.items() if number}


def length(job: Job, store: Store, key: str) -> Outcome:
    """Copy the long enough documents of one shard; no shard is written if there are none."""
    shard = job.one("documents")
    window_length, chars_per_token = job.config["window_length"], job.config["chars_per_token"]
    kept_bytes = 0
    dropped: dict[str, int] = {}
    with store.shard_writer("length", key, DOCUMENTS) as writer:
        for batch in store.shard_batches(shard, rows=1024):
            bytes_N = batch["bytes"].to_numpy()
            chars_N = pc.utf8_length(batch["text"]).to_numpy(zero_copy_only=False)
            keep_N, reasons = long_enough(bytes_N, chars_N, window_length, chars_per_token)
            for reason, number in reasons.items():
                dropped[reason] = dropped.get(reason, 0) + number
            kept_bytes += int(bytes_N[keep_N].sum())
            writer.write(pa.Table.from_batches([batch.filter(pa.array(keep_N))]))
    kept = writer.shard()
    return Outcome(
        counts=Counts(received=shard.rows, kept=kept.rows, dropped=dropped),
        shards=store.kept(kept),
        measures={"bytes": kept_bytes},
    )


STAGE = Stage(name="length", version="1", compute=length, roles=("documents",))
