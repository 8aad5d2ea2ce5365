"""A stage as a plain function of a job, testable without Prefect: `compute(job, store, key) -> Outcome`.

`run_job` does what every stage needs around its computation: the content key, the quarantine file, and the check
that no record was lost. `stage.py` makes the same thing a Prefect task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from ladm.tasks.manifest import Counts, Manifest, Shard, SourceFile, stage_key
from ladm.tasks.schema import QUARANTINE
from ladm.tasks.settings import Settings
from ladm.tasks.storage.store import Store, table_of


class QuarantineEntry(Settings):
    """One record, or one whole file, that could not be used."""

    source: str
    line: int | None
    reason: str
    excerpt: str = ""
    records: int = 1
    doc_id: str | None = None


class Job(Settings):
    """All that one task needs: which stage, on which inputs, with which configuration."""

    stage: str
    label: str
    store: str
    config: dict[str, Any]
    """What the stage computes with; part of the key."""
    inputs: list[Shard] = Field(default_factory=list)
    source: SourceFile | None = None
    identity: list[Any] = Field(default_factory=list)
    """Further inputs that are no shards (a model's digest); part of the key."""
    environment: dict[str, Any] = Field(default_factory=dict)
    """Where and how it runs (model folder, device, batch size); not part of the key."""


@dataclass
class Outcome:
    """What a stage's plain function returns."""

    counts: Counts
    shards: list[Shard] = field(default_factory=list)
    files: list[Shard] = field(default_factory=list)
    quarantine: list[QuarantineEntry] = field(default_factory=list)
    measures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage of the DAG.

    Attributes:
        name: Its name in the DAG, the store, SQL and the CLI.
        version: Raised whenever the same input would give another output; part of the key.
        compute: The plain function. It gets the job, the store and the job's key.
    """

    name: str
    version: str
    compute: Callable[[Job, Store, str], Outcome]

    def key(self, job: Job) -> str:
        """The content key of a job of this stage."""
        inputs: list[Any] = [shard.key for shard in job.inputs]
        if job.source:
            inputs.append(job.source.model_dump())
        return stage_key(self.name, self.version, job.config, [*inputs, *job.identity])


def run_job(stage: Stage, job: Job) -> Manifest:
    """Do one job, write its quarantine, check its account, and return the manifest; no Prefect needed.

    Raises:
        DamagedFileError: An input is not what was written; nothing was done, and it was deleted.
    """
    started = time.monotonic()
    store, key = Store(job.store), stage.key(job)
    store.check(job.inputs)
    outcome = stage.compute(job, store, key)
    outcome.counts.check(f"{stage.name} {job.label}")
    listed = sum(entry.records for entry in outcome.quarantine)
    assert listed == outcome.counts.quarantined, f"{stage.name}: {listed} quarantined records listed, {outcome.counts}"
    return Manifest(
        stage=stage.name,
        key=key,
        label=job.label,
        shards=outcome.shards,
        files=outcome.files,
        quarantine=_write_quarantine(store, stage.name, key, outcome.quarantine),
        counts=outcome.counts,
        measures=outcome.measures,
        seconds=round(time.monotonic() - started, 3),
    )


def _write_quarantine(store: Store, stage: str, key: str, entries: Sequence[QuarantineEntry]) -> Shard | None:
    if not entries:
        return None
    rows = [{"stage": stage, **entry.model_dump()} for entry in entries]
    columns = {name: [row[name] for row in rows] for name in QUARANTINE.names}
    return store.write_shard("quarantine", key, table_of(columns, QUARANTINE))
