"""What a plan expects to be known of a file that changed: the texts that the previous run read from it already.

A run does not score a window again that it has scored of the same file (`dag/earlier.py`). So a plan compares the texts
of its sample with those of the previous run: what share of their windows is known stands for the whole file. Of no file
are more windows known than the previous run had of it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ladm.flows.forecast.survey import Survey
from ladm.flows.runs.stored_rows import jobs_of
from ladm.tasks.manifest import Shard
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.store import Store


class KnownTexts:
    """The texts that the previous run read, file by file; none where they would be scored in another way."""

    def __init__(self, store: Store, found: Survey) -> None:
        """Know what the survey knows of the previous run."""
        self._store = store
        self._previous: dict[str, Any] | None = None if found.scored_otherwise else found.record.previous

    def texts_of(self, uris: Collection[str]) -> set[str]:
        """The sha256 of each text that the previous run had from some files, as far as the store still has them."""
        found: set[str] = set()
        for job in jobs_of(self._previous, "ingest") if self._previous and uris else ():
            for shard in map(Shard.from_dict, job["shards"] if job["source"] in uris else ()):
                try:
                    for batch in self._store.shard_batches(shard, 65_536, ["sha256"]):
                        found.update(batch["sha256"].to_pylist())
                except io_errors(ValueError):  # the run will make it again
                    continue
        return found

    def windows_of(self, uris: Collection[str]) -> int:
        """How many windows the previous run cut from some files."""
        jobs = jobs_of(self._previous, "tokenize") if self._previous else ()
        return sum(int(job.get("windows") or 0) for job in jobs if job["source"] in uris)
