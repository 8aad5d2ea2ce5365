"""What comes of one ingested shard, and the jobs that are asked for on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ladm.flows.dag.stages import STAGES
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard


@dataclass(eq=False, slots=True)
class Lineage:
    """What each row of the table of stages makes of one ingested shard."""

    source: str
    """URI of the source file, or of the first of a group."""
    label: str
    """The ingested shard's name for people."""
    made: dict[str, list[Shard]] = field(default_factory=dict)
    """Row → its shards; none where the row had nothing to do. A row that is not done is not in it."""
    begun: set[str] = field(default_factory=set)
    """Rows whose jobs have been offered."""
    partly: dict[str, list[Shard]] = field(default_factory=dict)
    """Row → the shards of its jobs that are done, while others are not."""
    open_jobs: dict[str, int] = field(default_factory=dict)
    """Row → its jobs that are not done; a row that has none is not in it."""
    early: bool = False
    """Whether its source file is not read yet (`early.py`): nothing of it counts."""

    def take(self, row: str, shards: list[Shard]) -> bool:
        """Note the shards of a finished job of a row, and say whether it was the row's last one."""
        if row in self.partly:
            shards = [*self.partly[row], *shards]
        self.open_jobs[row] -= 1
        if self.open_jobs[row]:
            self.partly[row] = shards
            return False
        self.made[row] = shards
        # New ones: a dictionary keeps its room, and there may be a hundred thousand lineages.
        self.open_jobs = {name: number for name, number in self.open_jobs.items() if number}
        self.partly = {name: before for name, before in self.partly.items() if name != row}
        return True


@dataclass(frozen=True, slots=True)
class Request:
    """A job that is asked for: of which row of the table, and for which lineage."""

    row: str
    source: str
    """URI of the source file that the job goes back to, the first of a group's; empty for a job over all shards."""
    job: Job
    lineage: Lineage | None = None

    @property
    def key(self) -> str:
        """The key of its job."""
        return STAGES[self.job.stage].key(self.job)

    @property
    def early(self) -> bool:
        """Whether it is asked for before its source file is read: nothing of it counts."""
        return self.lineage is not None and self.lineage.early


def lineages_of(row: str, request: Request, shards: Sequence[Shard]) -> list[Lineage]:
    """A lineage for each shard that a job of a row made of source files."""
    label = request.job.label
    labels = [f"{label}#{number}" for number in range(len(shards))] if len(shards) > 1 else [label]
    return [Lineage(request.source, label, made={row: [shard]}) for label, shard in zip(labels, shards, strict=False)]
