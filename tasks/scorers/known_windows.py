"""What earlier jobs found of windows that a shard has again: these need not go through the model once more.

One document of a shard changes, and the others are what they were. Their windows are known by their token ids, whatever
document they are of: on these, and on settings that are in a job's key, hangs all that is found of a window. Whose
results may be taken is found out where keys are known (`flows/dag/earlier.py`). What cannot be read is not known.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from ladm.tasks.frozen import Frozen
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.scorers.window_batches import batches_to_score
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.store import Store

EARLIER = "earlier"
"""In a job's environment: what earlier jobs had and made, a list of `Earlier`."""
REUSED = "windows_reused"
"""Of a job's windows, those that were known. They are among its `windows`."""
OF_THE_PASS = {"together", EARLIER}
"""What a job's environment has that is no setting of the scorer."""
ROWS = 256


class Earlier(Frozen, frozen=True):
    """A shard of windows that was worked on before, and what came of it."""

    windows: Shard
    made: dict[str, Shard]
    """Key of a job that is to be done → what the job of the same settings made of those windows."""


class KnownWindows:
    """The windows of a job's shard of which all is known that is to be found, and what it is."""

    def __init__(self, store: Store, job: Job, keys: Sequence[str]) -> None:
        """Look for them.

        Args:
            store: Where the shards are.
            job: Its roles are `windows` and `drops`, the lists of documents not to score.
            keys: Of the jobs that are done in one pass; a window is known if it is known to all of them.
        """
        earlier = [Earlier.from_dict(one) for one in job.environment.get(EARLIER, [])]
        self.ids: frozenset[str] = frozenset()
        """Ids of the known windows."""
        self.left = True
        """Whether there are others."""
        self._places: dict[str, int] = {}
        """Id of each window → its place in the shard."""
        self._tables: dict[str, pa.Table] = {}
        """Key → the rows of the known windows."""
        sound = [one for one in earlier if not store.damaged([one.windows, *one.made.values()])]
        if sound:
            with contextlib.suppress(*io_errors()):  # of a file that was deleted just now, say
                self._look(store, job, keys, sound)

    def __len__(self) -> int:
        return len(self.ids)

    def measures(self) -> dict[str, int]:
        """The windows that were known, as a job's manifest tells it: nothing where there were none."""
        return {REUSED: len(self.ids)} if self.ids else {}

    def completed(self, key: str, new: pa.Table) -> pa.Table:
        """The rows that a job found, and those of the known windows, in the order of the shard."""
        if not self.ids:
            return new
        table = pa.concat_tables([new, self._tables[key].cast(new.schema)])
        places = [self._places[one] for one in table["window_id"].to_pylist()]
        return table.take(np.argsort(places, kind="stable")).combine_chunks()

    def _look(self, store: Store, job: Job, keys: Sequence[str], earlier: Sequence[Earlier]) -> None:
        tables, rows = _found(store, keys, earlier)
        known: list[pa.RecordBatch] = []
        of_known: list[tuple[int, ...]] = []
        for batch, contents in _with_contents(store, job):
            self._places.update((one, len(self._places)) for one in batch["window_id"].to_pylist())
            here = [rows.get(one) for one in contents]
            known.append(batch.filter(pa.array([one is not None for one in here], pa.bool_())))
            of_known += [one for one in here if one is not None]
        self.left = len(of_known) < len(self._places)
        if of_known:
            windows = pa.Table.from_batches(known)
            self.ids = frozenset(windows["window_id"].to_pylist())
            for number, key in enumerate(keys):
                self._tables[key] = _renamed(tables[number].take([one[number] for one in of_known]), windows)


def _found(
    store: Store, keys: Sequence[str], earlier: Sequence[Earlier]
) -> tuple[list[pa.Table], dict[bytes, tuple[int, ...]]]:
    """All that earlier jobs found, a table for each key; and of each window's content its rows in these tables."""
    tables: list[list[pa.Table]] = [[] for _ in keys]
    rows: dict[bytes, tuple[int, ...]] = {}
    for one in earlier:
        places: list[dict[str, int]] = []
        for key, before in zip(keys, tables, strict=True):
            table, first = store.read_shard(one.made[key]), sum(map(len, before))
            places.append({window_id: row for row, window_id in enumerate(table["window_id"].to_pylist(), first)})
            before.append(table)
        windows = Job(stage="", label="", store="", config={}, inputs={"windows": [one.windows]})
        for batch, contents in _with_contents(store, windows):
            for window_id, content in zip(batch["window_id"].to_pylist(), contents, strict=True):
                if all(window_id in of_key for of_key in places):
                    rows.setdefault(content, tuple(of_key[window_id] for of_key in places))
    return [pa.concat_tables(of_key) for of_key in tables], rows


def _with_contents(store: Store, job: Job) -> Iterator[tuple[pa.RecordBatch, list[bytes]]]:
    """A job's windows, and what each is known by."""
    for batch, ids_BL in batches_to_score(store, job, ROWS):
        contents = [hashlib.blake2b(ids_L.tobytes(), digest_size=32).digest() for ids_L in ids_BL]
        yield batch.drop_columns(["input_ids"]), contents


def _renamed(found: pa.Table, windows: pa.Table) -> pa.Table:
    """Rows that were found of other windows of the same content, with what these windows tell of themselves."""
    for number, field in enumerate(found.schema):
        if field.name in windows.column_names:
            found = found.set_column(number, field, windows[field.name])
    return found
