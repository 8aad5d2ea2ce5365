"""Windows of a shard in batches that the model takes at once, and what it makes of them, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.storage.read_ahead import one_ahead
from ladm.tasks.storage.store import Store

if TYPE_CHECKING:
    from ladm.tasks.scorers.model_turns import Turns

Found = TypeVar("Found")


def in_passes(
    store: Store,
    job: Job,
    calculator: Any,
    turns: Turns,
    config: LadmConfig,
    work: Callable[[npt.NDArray[np.int64]], Sequence[Found]],
    known: Collection[str] = (),
) -> Iterator[tuple[pa.RecordBatch, list[Found]]]:
    """Put every window of a job's shard through the model, and give each batch with what was found of its windows.

    Args:
        store: Where the shard is.
        job: Its roles are `windows` and `drops`, the lists of documents not to score.
        calculator: The loaded model.
        turns: Whose turn it is with the model.
        config: How many windows go at once.
        work: ids_BL of windows of one length → what was found of each.
        known: Ids of windows that are left out.
    """
    from ladm.tasks.scorers.calculator import windows_at_once  # noqa: PLC0415  (torch)

    rows_a_pass = windows_at_once(calculator, config, window_length(store, job.one("windows")))
    rows_a_batch = windows_a_batch(rows_a_pass, turns.at_once)
    # Where no other pass can go beside it, `work` cuts a batch itself, and smaller if memory runs out.
    rows_a_turn = rows_a_pass if turns.at_once > 1 else rows_a_batch
    for batch, ids_BL in one_ahead(batches_to_score(store, job, rows_a_batch, known)):
        turns_BL = [ids_BL[start : start + rows_a_turn] for start in range(0, len(ids_BL), rows_a_turn)]
        yield batch, [one for scored in turns.each(work, turns_BL) for one in scored]


def window_length(store: Store, shard: Shard) -> int:
    """Tokens of the shard's windows, which are all of one length."""
    first = next(store.shard_batches(shard, rows=1, columns=["n_tokens"]))
    return int(first["n_tokens"][0].as_py())


def windows_a_batch(at_once: int, passes: int = 1) -> int:
    """Windows to read at a time: what so many passes of the model take at once, in whole ones, but at least four."""
    return at_once * max(passes, math.ceil(4 / at_once))


def batches_to_score(
    store: Store, job: Job, rows: int, known: Collection[str] = ()
) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.int64]]]:
    """A job's windows in batches of at most `rows`, each with its ids_BL, without those not to be scored, or `known`.

    A batch holds `rows` windows, but for the last, however many are left out: a batch half full costs the device as
    much as a full one.
    """
    left_out = {
        "doc_id": pa.array(store.doc_ids(job.all("drops")), type=pa.string()),
        "window_id": pa.array(known, type=pa.string()),
    }
    waiting: list[pa.RecordBatch] = []
    for batch in store.shard_batches(job.one("windows"), rows):
        for column, values in left_out.items():
            if len(values):
                batch = batch.filter(pc.invert(pc.is_in(batch[column], values)))  # noqa: PLW2901
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= rows:
            gathered = pa.concat_batches(waiting)
            yield _with_ids(gathered.slice(0, rows))
            waiting = [gathered.slice(rows)]
    if any(one.num_rows for one in waiting):
        yield _with_ids(pa.concat_batches(waiting))


def _with_ids(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, npt.NDArray[np.int64]]:
    return batch, np.stack(batch["input_ids"].to_numpy(zero_copy_only=False)).astype(np.int64)
