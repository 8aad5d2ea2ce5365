"""The inputs of jobs: which shards each row of the table of stages takes, for one lineage or for the whole run."""

from __future__ import annotations

from dataclasses import replace

from ladm.flows.dag.lineage import Lineage
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.rows import Row, Take
from ladm.flows.dag.stages import BY_NAME, rows_of
from ladm.flows.runs.record import RunRecord
from ladm.tasks.job import Job
from ladm.tasks.manifest import Manifest, Shard

Inputs = dict[str, list[Shard]]
"""Role → shards."""


class Taker:
    """Finds the inputs of jobs, in what the lineages and the run record hold."""

    def __init__(self, plan: Plan, record: RunRecord) -> None:
        self.record = record
        self.takes = {row.name: _takes_of(row, plan) for row in rows_of(plan)}
        self.complete: set[str] = set()
        """Rows of source files or of the whole run whose jobs are all done."""
        self._parts: dict[str, dict[str, Shard]] = {}
        """Row of the whole run → the key of a shard that it took → what of its own shards belongs to that one."""
        self._whole: dict[tuple[str, bool, str], list[Shard]] = {}

    def note(self, row: Row, job: Job, manifest: Manifest) -> None:
        """A job of a row is done, perhaps once more: what was gathered of the row no longer counts."""
        self._whole = {key: found for key, found in self._whole.items() if key[0] != row.name}
        if row.parts:
            self._parts[row.name] = row.parts(job, manifest)

    def are_there(self, row: Row, lineage: Lineage) -> bool:
        """Whether all inputs of a row's jobs for a lineage are there."""
        return all(
            take.of in (self.complete if take.how == "all" or _is_whole(take) else lineage.made)
            for take in self.takes[row.name]
        )

    def primary(self, row: Row, lineage: Lineage) -> list[Shard]:
        """The shards that a row's jobs for a lineage are about."""
        return next(lineage.made[take.of] for take in self.takes[row.name] if take.how == "each")

    def for_lineage(self, row: Row, lineage: Lineage) -> Inputs:
        """The inputs of a row's jobs for a lineage."""
        return {take.role: self._of_lineage(take, row, lineage) for take in self.takes[row.name] if take.role}

    def for_run(self, row: Row) -> Inputs:
        """The inputs of a row's jobs over the whole run."""
        return {take.role: self._of_run(take) for take in self.takes[row.name] if take.role}

    def _of_lineage(self, take: Take, row: Row, lineage: Lineage) -> list[Shard]:
        """The shards that a take means for a lineage; what is empty of a whole run's row is left out."""
        if take.how == "all":
            return self._of_run(take)
        if not _is_whole(take):
            return lineage.made[take.of]
        parts = self._parts[take.of]
        return [parts[shard.key] for shard in self.primary(row, lineage) if parts[shard.key].rows]

    def _of_run(self, take: Take) -> list[Shard]:
        """All shards of a row's stage, ordered by key, or its files."""
        key = take.of, take.files, take.ending
        if key not in self._whole:
            row = BY_NAME[take.of]
            if take.files:
                files = [file for done in self.record.of(row.stage.name) for file in done.manifest.files]
                found = [file for file in files if file.path.endswith(take.ending)]
            else:
                found = sorted(self.record.shards(row.stage.name), key=lambda shard: shard.key)
            if row.parts:  # the same for many, mostly empty
                found = list({shard.key: shard for shard in found if shard.rows or take.files}.values())
            self._whole[key] = found
        return self._whole[key]


def _takes_of(row: Row, plan: Plan) -> list[Take]:
    """The inputs that a run has for a row."""
    there = {other.name for other in rows_of(plan)}
    takes = (replace(take, of=take.rather) if take.rather in there else take for take in row.takes)
    return [take for take in takes if take.of in there and take.when(plan.config)]


def _is_whole(take: Take) -> bool:
    """Whether a take is of a row over the whole run, and not of one shard of it that goes its own way."""
    return take.how != "each" and BY_NAME[take.of].scope == "run"
