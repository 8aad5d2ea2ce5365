"""A stage as a plain function of a job, testable without Prefect: `compute(job, store, key) -> Outcome`.

`run_job` does what every stage needs around its computation: the content key, the quarantine file, and the check
that no record was lost. `stage.py` makes the same thing a Prefect task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ladm.tasks import stopping
from ladm.tasks.errors import AccountError
from ladm.tasks.frozen import Frozen
from ladm.tasks.manifest import Counts, Manifest, PackedFile, Part, Shard, SourceFile, check_vouched, stage_key
from ladm.tasks.schema import QUARANTINE
from ladm.tasks.storage.store import Store, table_of


class QuarantineEntry(Frozen, frozen=True):
    """One record, or one whole file, that could not be used."""

    source: str
    line: int | None
    reason: str
    excerpt: str = ""
    records: int = 1
    doc_id: str | None = None


class Job(Frozen, frozen=True):
    """All that one task needs: which stage, on which inputs, with which configuration."""

    stage: str
    label: str
    store: str
    config: dict[str, Any]
    """What the stage computes with; part of the key."""
    inputs: dict[str, list[Shard]] = msgspec.field(default_factory=dict)
    """Role → the shards that play it. The stage says which roles it has (`Stage.roles`)."""
    source: SourceFile | None = None
    """The source file that it reads."""
    part: Part | None = None
    """The part of the source file that it reads, where it does not read all of it."""
    group: list[SourceFile] = msgspec.field(default_factory=list)
    """The small source files that it reads, in the place of one."""
    identity: list[Any] = msgspec.field(default_factory=list)
    """Further inputs that are no shards (a model's digest); part of the key."""
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    """Where and how it runs (model folder, device, batch size); not part of the key."""

    def all(self, role: str) -> list[Shard]:
        """The shards of a role; none where the run has none for it."""
        return self.inputs.get(role, [])

    def one(self, role: str) -> Shard:
        """The one shard of a role.

        Raises:
            ValueError: It has none, or several: our own bug.
        """
        (shard,) = self.all(role)
        return shard

    def shards(self) -> list[Shard]:
        """The shards of all roles."""
        return [shard for shards in self.inputs.values() for shard in shards]


@dataclass
class Outcome:
    """What a stage's plain function returns."""

    counts: Counts
    shards: list[Shard] = field(default_factory=list)
    files: list[Shard] = field(default_factory=list)
    quarantine: list[QuarantineEntry] = field(default_factory=list)
    measures: dict[str, int] = field(default_factory=dict)
    packed: list[PackedFile] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    together: list[tuple[Stage, Job, Outcome]] = field(default_factory=list)
    """Other jobs that were done in the same pass, each with what it gave."""


@dataclass(frozen=True)
class Stage:
    """What a stage computes. What it is in the DAG stands in the table of stages (`flows/dag/stages.py`).

    Attributes:
        name: Its name in the DAG, the store, SQL and the CLI.
        version: Raised whenever the same input would give another output; part of the key.
        compute: The plain function. It gets the job, the store and the job's key.
        roles: The roles of its inputs, in the order in which they count for the key. Of roles in a tuple the shards
            are put in the order of their keys together.
        unkeyed: Further roles, which do not count for the key: what the stage once made of them holds for later inputs
            as well.
    """

    name: str
    version: str
    compute: Callable[[Job, Store, str], Outcome]
    roles: tuple[str | tuple[str, ...], ...] = ()
    unkeyed: tuple[str, ...] = ()

    def key(self, job: Job) -> str:
        """The content key of a job of this stage.

        Raises:
            ValueError: An input plays a role that the stage does not have: our own bug.
        """
        inputs: list[Any] = []
        known = set(self.unkeyed)
        for group in self.roles:
            roles = (group,) if isinstance(group, str) else group
            keys = [shard.key for role in roles for shard in job.all(role)]
            inputs += keys if isinstance(group, str) else sorted(keys)
            known.update(roles)
        if unknown := job.inputs.keys() - known:
            raise ValueError(f"{self.name}: no such role of an input: {', '.join(sorted(unknown))}")
        if job.source:
            inputs.append(job.source.identity())
        if job.part:
            inputs.append(job.part.as_dict())
        if job.group:
            inputs.append([file.identity() for file in job.group])
        return stage_key(self.name, self.version, job.config, [*inputs, *job.identity])


def run_job(stage: Stage, job: Job) -> Manifest:
    """Do one job and return its manifest; see `run_jobs`."""
    return run_jobs(stage, job)[0]


def run_jobs(stage: Stage, job: Job) -> list[Manifest]:
    """Do one job, write its quarantine, check its account, and return the manifest; no Prefect needed.

    Returns:
        The job's manifest, and those of the jobs that were done in the same pass.

    Raises:
        DamagedFileError: An input is not what was written; nothing was done.
        AccountError: A record was lost or doubled.
    """
    stopping.check()
    started = time.monotonic()
    store, key = Store(job.store), stage.key(job)
    store.check(job.shards())
    outcome = stage.compute(job, store, key)
    done = [(stage, job, outcome), *outcome.together]
    seconds = round(time.monotonic() - started, 3)
    # The pass is counted once, with the job that made it.
    return [_manifest(store, *one, 0.0 if number else seconds) for number, one in enumerate(done)]


def _manifest(store: Store, stage: Stage, job: Job, outcome: Outcome, seconds: float) -> Manifest:
    key = stage.key(job)
    outcome.counts.check(f"{stage.name} {job.label}")
    check_vouched(f"{stage.name} {job.label}", [*outcome.shards, *outcome.files])
    listed = sum(entry.records for entry in outcome.quarantine)
    if listed != outcome.counts.quarantined:
        raise AccountError(f"{stage.name}: {listed} quarantined records listed, {outcome.counts}")
    return Manifest(
        stage=stage.name,
        key=key,
        label=job.label,
        shards=outcome.shards,
        files=outcome.files,
        quarantine=_write_quarantine(store, stage.name, key, outcome.quarantine),
        counts=outcome.counts,
        measures=outcome.measures,
        packed=outcome.packed,
        parts=outcome.parts,
        seconds=seconds,
    )


def _write_quarantine(store: Store, stage: str, key: str, entries: Sequence[QuarantineEntry]) -> Shard | None:
    if not entries:
        return None
    rows = [{"stage": stage, **entry.as_dict()} for entry in entries]
    columns = {name: [row[name] for row in rows] for name in QUARANTINE.names}
    return store.write_shard("quarantine", key, table_of(columns, QUARANTINE))
