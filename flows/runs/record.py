"""The run record, `runs/<run_id>/run.json`: what was done, cached, lost to quarantine, and whether it all adds up.

Counts, lineage and timings are taken from the manifests in the store, never from Prefect's database.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ladm.flows.dag import asked
from ladm.flows.dag.jobs import config_sha256, versions
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.rows import Row
from ladm.flows.dag.stages import PRODUCTS, UNTOLD, rows_of, rows_of_stage
from ladm.flows.runs.changes import FileMade, difference, files_of, lost_more_than
from ladm.flows.runs.outcomes import Done, Failure, Shortfall
from ladm.flows.runs.packed import PackedFiles, counted_stage
from ladm.flows.runs.stored_rows import jobs_of
from ladm.tasks.errors import AccountError
from ladm.tasks.manifest import Counts, Shard, add_counts
from ladm.tasks.printable import printable
from ladm.tasks.scorers.known_windows import REUSED
from ladm.tasks.stages.calibrate import told
from ladm.tasks.storage.store import Store

NOTICES_KEPT = 20
"""So many notices are in the record."""
NOTICE_CHARACTERS = 1000


def new_run_id() -> str:
    """A run's id: its start in UTC, with the 4096th of the second, so that ids sort by time, and a random end."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}-{now.microsecond * 4096 // 1_000_000:03x}{secrets.randbits(20):05x}"


@dataclass
class RunRecord:
    """What a run has done so far."""

    plan: Plan
    run_id: str = field(default_factory=new_run_id)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None
    cancelled: bool = False
    """Whether somebody stopped it."""
    done: list[Done] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    made_again: list[str] = field(default_factory=list)
    """Files of the store that were found damaged or missing when they were to be read."""
    files: list[str] = field(default_factory=list)
    """Paths below the store's root that the run published for its user."""
    made_before: set[str] = field(default_factory=set)
    """Rows of the table of stages whose result is made once, and was made by an earlier run."""
    notices: list[str] = field(default_factory=list)
    """What the run said of itself as it went on: layers left out, what is scored again, files made again."""
    devices: list[str] = field(default_factory=list)
    """Where this run put windows through the model."""
    shortfalls: list[Shortfall] = field(default_factory=list)
    """What the run did not get, though nothing failed."""
    previous: dict[str, Any] | None = None
    """The record of the store's previous completed run, if there is one, to tell what changed."""
    account: dict[str, Any] | None = None
    """`as_json` as it was published, which nothing changes any more."""

    def __post_init__(self) -> None:
        self._packed = PackedFiles(Store(self.plan.config.store), self.previous)

    @property
    def status(self) -> str:
        """`running`, `cancelled`, `failed` or `completed`."""
        if self.finished is None:
            return "running"
        if self.cancelled:
            return "cancelled"
        return "failed" if self.failures else "completed"

    def note(self, done: Done, again: bool) -> None:
        """Add a finished job, or put it in the place of its earlier self if it had to be done `again`."""
        if again:
            for number, earlier in enumerate(self.done):
                if earlier.manifest.key == done.manifest.key:
                    self.done[number] = done
                    return
        self.done.append(done)

    def was_made_before(self, row: Row) -> bool:
        """Whether a row's work, or all that it serves, was done once and for all by an earlier run."""
        return bool(self.made_before & {row.name, row.serves})

    def products(self) -> list[Shard]:
        """The files that are read or published when no job is left: rankings, exports, measurements, quarantines."""
        last = [done for stage in PRODUCTS for done in self.of(stage)]
        return [*(file for done in last for file in done.manifest.all_files()), *quarantines_of(self.done)]

    def of(self, stage: str) -> list[Done]:
        """The finished jobs of a stage, in an order that does not depend on timing."""
        jobs = [done for done in self.done if done.manifest.stage == stage]
        return sorted(jobs, key=lambda done: (done.source, done.manifest.label, done.manifest.key))

    def shards(self, stage: str) -> list[Shard]:
        """Every shard that a stage's finished jobs wrote."""
        return [shard for done in self.of(stage) for shard in done.manifest.shards]

    def windows_scored(self) -> int:
        """Windows that this run itself put through the model."""
        measures = [done.manifest.measures for done in self.of("score") if not done.cached]
        return sum(one["windows"] - one.get(REUSED, 0) for one in measures)

    def quarantined_files(self) -> int:
        """Source files that were quarantined whole."""
        return sum(done.manifest.measures.get("files_quarantined", 0) for done in self.of("ingest"))

    def too_many_quarantined(self) -> Failure | None:
        """What fails the run where more was quarantined than `max_quarantined` allows."""
        limit = self.plan.config.max_quarantined
        if limit is None:
            return None
        shares = [("ingest", "source files", self.quarantined_files(), len(self.plan.files))]
        for stage in self.plan.stages:
            counts = self._counts(stage)
            shares.append((stage, "records", counts.quarantined, counts.received))
        for stage, what, quarantined, received in shares:
            if quarantined > limit * received:
                reason = (
                    f"{quarantined:,} of {received:,} {what} are quarantined, more than max_quarantined ({limit:g}) "
                    f'allows; see `ladm sql "from quarantine" --run {self.run_id}`'
                )
                return Failure(stage, "all shards", reason, remedy="quarantine")
        return None

    def too_much_removed(self) -> Failure | None:
        """What fails the run where more of the last completed run's sources is gone than `max_removed` allows."""
        limit = self.plan.config.max_removed
        if limit is None or self.previous is None:
            return None
        reason = lost_more_than(limit, self.as_json()["refresh"])
        return Failure("ingest", "all shards", reason, remedy="sources") if reason else None

    def stage_summary(self, stage: str) -> dict[str, Any]:
        """How many jobs of a stage were run, cached and failed, and the account of its records."""
        jobs = self.of(stage)
        manifests = [done.manifest for done in jobs]
        measures: dict[str, int] = {}
        for manifest in manifests:
            for name, number in manifest.measures.items():
                measures[name] = measures.get(name, 0) + number
        return {
            "run": sum(1 for done in jobs if not done.cached),
            "cached": sum(1 for done in jobs if done.cached),
            "failed": sum(1 for failure in self.failures if failure.stage == stage),
            **self._counts(stage).as_record(),
            **measures,
            "seconds": round(sum(done.manifest.seconds for done in jobs if not done.cached), 3),
        }

    def _counts(self, stage: str) -> Counts:
        """The account of a stage. Every export job reads the whole ranking, so one of them is the account of all."""
        counts = [done.manifest.counts for done in self.of(stage)]
        if counts and rows_of_stage(stage)[0].is_result:
            if any(one != counts[0] for one in counts):
                raise AccountError(f"the jobs of {stage} do not agree: {counts}")
            return counts[0]
        return add_counts(counts)

    def check_accounts(self) -> None:
        """Check that what one stage kept is what the next one got, over the whole run.

        Only where nothing failed: a failed shard's records have no next stage in this run.

        Raises:
            AccountError: A record was lost or doubled.
        """
        for done in self.done:
            done.manifest.counts.check(f"{done.manifest.stage} {done.manifest.label}")
        if self.failures:
            return
        rows = rows_of(self.plan)
        there = {row.stage.name for row in rows}
        for stage in self.plan.stages:
            if any(map(self.was_made_before, rows_of_stage(stage))):
                continue  # by an earlier run, of what that one had
            passed_on = [self._passed_on_to(row, there) for row in rows if row.stage.name == stage and row.receives]
            received = self._counts(stage).received
            if passed_on and received != sum(passed_on):
                before = ", ".join(row.receives[0] for row in rows if row.stage.name == stage)
                raise AccountError(f"{before} passed on {sum(passed_on)} records, {stage} got {received}")

    def _passed_on_to(self, row: Row, there: Collection[str]) -> int:
        """The records that a row's jobs should have got, of the stage before it that the run has."""
        before = next(stage for stage in row.receives if stage in there)
        (first, *_) = rows_of_stage(before)
        records = sum(shard.rows for shard in self.shards(before)) if first.passes_rows else self._counts(before).kept
        asks = len(row.asks(self.plan))
        return records * (asks if row.scope == "shard" else min(asks, 1))  # of a run's jobs each gets all, if any

    def _sources(self) -> list[dict[str, Any]]:
        """The source files, and of those that were read together with others, what came of each."""
        groups = [done for done in self.of("ingest") if done.manifest.packed]
        stage = counted_stage(self.plan.stages)
        windows: dict[str, list[Shard]] = {done.source: [] for done in groups}
        for done in self.of(stage) if groups else ():
            if done.source in windows:
                windows[done.source] += done.manifest.shards
        packed: dict[str, dict[str, Any]] = {}
        for done in groups:
            packed |= self._packed.of_group(done.manifest, windows[done.source])
        return [listed.file.as_dict() | packed.get(listed.file.uri, {}) for listed in self.plan.files]

    def settings(self) -> dict[str, Any]:
        """What decides the run's results, as it stands in its record."""
        plan, model = self.plan, self.plan.model
        return {
            "model": None
            if model is None
            else {
                "reference": model.reference,
                "digest": model.digest,
                "tokenizer_digest": model.tokenizer_digest,
                "layers_left_out": plan.layers_left_out,
            },
            "config": plan.config.model_dump(mode="json"),
            "versions": versions(),
            "stage_versions": {row.stage.name: row.stage.version for row in rows_of(plan)},
        }

    def as_json(self) -> dict[str, Any]:
        """The record as it stands in `run.json` and on `ladm run --json`."""
        plan = self.plan
        settings = self.settings()
        finished = self.finished or datetime.now(UTC)
        record = {
            "run_id": self.run_id,
            "status": self.status,
            "until": plan.until,
            "started": self.started.isoformat(timespec="milliseconds"),
            "finished": None if self.finished is None else self.finished.isoformat(timespec="milliseconds"),
            "seconds": round((finished - self.started).total_seconds(), 3),
            "store": plan.config.store,
            "windows_scored": self.windows_scored(),
            "devices": self.devices,
            "quarantined": {
                "records": sum(self._counts(stage).quarantined for stage in plan.stages),
                "files": self.quarantined_files(),
            },
            "stages": {stage: self.stage_summary(stage) for stage in plan.stages},
            "failures": [
                {"stage": f.stage, "shard": f.label, "source": f.source, "error": f.error} for f in self.failures
            ],
            "remedies": list(dict.fromkeys(f.remedy for f in self.failures)),
            "notices": [printable(one, NOTICE_CHARACTERS) for one in self.notices[:NOTICES_KEPT]],
            "shortfalls": [dataclasses.asdict(one) for one in self.shortfalls],
            "made_again": self.made_again,
            "calibration": told(plan.calibration) if plan.calibration and asked.calibrates(plan.config) else None,
            "files": self.files,
            **settings,
            "config_sha256": config_sha256(settings["config"]),
            "sources": self._sources(),
            "shards": [done.as_record() for stage in (*plan.stages, *UNTOLD) for done in self.of(stage)],
        }
        record["refresh"] = difference(self.previous, record, self._before) if self.previous else None
        return record

    @cached_property
    def _before(self) -> dict[str, FileMade] | None:
        """What the previous run made of each of its files."""
        return files_of(self.previous) if self.previous else None


def shards_of(record: dict[str, Any], stage: str, *, files: bool = False, ending: str = "") -> list[Shard]:
    """The shards of a stage, or its files, out of a `run.json` that was read back: those whose paths end so."""
    what = "files" if files else "shards"
    found = [Shard.from_dict(s) for job in jobs_of(record, stage) for s in job[what]]
    return [shard for shard in found if shard.path.endswith(ending)]


def quarantines_of(jobs: Iterable[Done]) -> list[Shard]:
    """The quarantine files of finished jobs."""
    return [done.manifest.quarantine for done in jobs if done.manifest.quarantine]
