"""What the previous run found of windows that a run has again: whose results a job may take over, window by window.

A job's key says what it was computed with. So what may be taken over is found by the key itself: that of the very same
job, but for its windows, which are those that the previous run cut from the same file or group of files. Only where the
store has all that is to be found in one pass is anything taken over.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

from ladm.flows.dag.inventory import Inventory
from ladm.flows.dag.lineage import Lineage, Request
from ladm.flows.dag.stages import STAGES
from ladm.flows.runs.record import RunRecord
from ladm.flows.runs.stored_rows import jobs_of
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.scorers.known_windows import EARLIER, Earlier

MOST_SHARDS = 4
"""Of a file that has no shard of the same name any more, so many shards are looked at."""


class EarlierResults:
    """Finds what the previous run made of other versions of the same files."""

    def __init__(self, record: RunRecord, inventory: Inventory) -> None:
        self._previous: dict[str, Any] = record.previous or {}
        self._inventory = inventory

    def added_to(self, request: Request) -> Request:
        """The request of a job that works on windows, told what earlier jobs of its kind found."""
        lineage = request.lineage
        if not self._previous or lineage is None or self._inventory.find(_key(request.job)):
            return request
        jobs = [request.job, *(Job.from_dict(one) for one in request.job.environment.get("together", []))]
        found = [self._found(jobs, windows) for windows in self._windows_of(lineage)]
        if not (told := [one.as_dict() for one in found if one]):
            return request
        job = request.job.replaced(environment={**request.job.environment, EARLIER: told})
        return Request(request.row, request.source, job, lineage)

    def _windows_of(self, lineage: Lineage) -> list[Shard]:
        """The windows that the previous run cut from the lineage's file, of the shard of the same name if there is."""
        of_file = self._cut.get(lineage.source, [])
        same = [key for label, key in of_file if label == lineage.label]
        manifests = map(self._inventory.find, same or [key for _, key in of_file[:MOST_SHARDS]])
        return [shard for manifest in manifests if manifest for shard in manifest.shards]

    def _found(self, jobs: list[Job], windows: Shard) -> Earlier | None:
        """What came of windows, if the store has it of all jobs."""
        made: dict[str, Shard] = {}
        for job in jobs:
            shards = self._made(job, windows)
            if len(shards) != 1:
                return None
            made[_key(job)] = shards[0]
        return Earlier(windows=windows, made=made)

    def _made(self, job: Job, windows: Shard) -> list[Shard]:
        """What a job of the same settings made of windows, whichever of their documents it was to leave out."""
        left_out: list[list[Shard]] = [job.all("drops"), [], *self._drops] if "drops" in job.inputs else [[]]
        for drops in left_out:
            inputs = {**job.inputs, "windows": [windows], "drops": drops}
            if manifest := self._inventory.find(_key(job.replaced(inputs=inputs))):
                return manifest.shards
        return []

    @cached_property
    def _cut(self) -> dict[str, list[tuple[str, str]]]:
        """Source → the shards that the previous run cut into windows, by their names, and the keys of these jobs."""
        found = defaultdict(list)
        for job in jobs_of(self._previous, "tokenize"):
            found[job["source"]].append((job["shard"], job["key"]))
        return dict(found)

    @cached_property
    def _drops(self) -> list[list[Shard]]:
        """The previous run's lists of documents not to score."""
        lists = [Shard.from_dict(one) for job in jobs_of(self._previous, "dedup") for one in job["shards"]]
        return [[one] for one in {one.key: one for one in lists if one.rows}.values()]


def _key(job: Job) -> str:
    return STAGES[job.stage].key(job)
