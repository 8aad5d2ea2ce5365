"""What of a run is done already, and what is left: the walk of a run over what the store has, with nothing submitted.

What follows from a job that is left cannot be known. Its rows are counted by what such jobs give: one shard a group of
files, or so many as the file has bytes for, and one job a shard of each row that follows.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ladm.flows.console import Console
from ladm.flows.dag.calibrating import calibration_files
from ladm.flows.dag.doing import inventory_of, nobody
from ladm.flows.dag.lineage import Lineage, Request
from ladm.flows.dag.notices import OF_SCORES
from ladm.flows.dag.parting import CUT
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.scheduler import Dag
from ladm.flows.runs.outcomes import Done
from ladm.flows.runs.read import latest_record
from ladm.flows.runs.record import RunRecord
from ladm.flows.runs.settings import setting_changes, settings_of
from ladm.flows.runs.stored_rows import jobs_of
from ladm.tasks.addresses import addresses_key, addresses_of
from ladm.tasks.manifest import Shard, SourceFile
from ladm.tasks.stages.contrast import DOCUMENTS_A_SHARD
from ladm.tasks.storage.store import Store

NO_RESULT = ("store", "execution.", "max_quarantined", "max_removed")
"""Settings that no result depends on, by how their names begin."""


@dataclass
class Survey:
    """What is there and what is left of a run."""

    record: RunRecord
    """What is there."""
    todo: Counter[str] = field(default_factory=Counter)
    """Stage → jobs to be done."""
    unread: list[Sequence[SourceFile]] = field(default_factory=list)
    """The source files to be read, by job."""
    uncut: list[Shard] = field(default_factory=list)
    """Shards of documents that are read, and not cut into windows."""
    unscored: list[Shard] = field(default_factory=list)
    """Shards of windows that are to be scored."""
    known: int = 0
    """Windows of the files to be read whose scores are taken over: those of files that are read for others' sake."""
    held: list[Done] = field(default_factory=list)
    """Parts of large files that are read, while others are not."""
    changed: list[list[str]] = field(default_factory=list)
    """[setting, before, now], of those that differ from the previous completed run's."""

    @property
    def scored_otherwise(self) -> bool:
        """Whether the previous completed run scored in another way than this one will."""
        return any(name.startswith(OF_SCORES) for name, _, _ in self.changed)

    @property
    def cached(self) -> Counter[str]:
        """Stage → jobs whose result is there."""
        return Counter(done.manifest.stage for done in [*self.record.done, *self.held])


def survey(plan: Plan) -> Survey:
    """Look what the store of a plan has of it."""
    store = Store(plan.config.store)
    table = addresses_of(listed.file.as_dict() for listed in plan.files)
    addresses = [Shard(key=addresses_key(table), path="", bytes=0, rows=table.num_rows)] if table.num_rows else []
    files = {name: file for name, (_, file) in calibration_files(store, plan.calibration).items()}
    plan = dataclasses.replace(plan, addresses=addresses, calibrated_by=files)
    found = Survey(RunRecord(plan, previous=latest_record(store)))
    if found.record.previous:
        changes = setting_changes(settings_of(found.record.previous), settings_of(found.record.settings()))
        found.changed = [one for one in changes if not one[0].startswith(NO_RESULT)]
    dag = Dag(plan, Console.silent(), nobody, found.record, inventory_of(plan))
    dag.begin_sources()
    dag.take_over()
    for row in dag.rows.values():
        if row.scope != "run" or found.record.was_made_before(row):
            continue
        if any(dag.ready.values()):
            found.todo[row.stage.name] += len(row.asks(plan))
        elif row.is_result or any(map(found.record.shards, row.receives)):
            dag.begin_whole_run(row)
            dag.take_over()
    _count(found, dag)
    return found


def _count(found: Survey, dag: Dag) -> None:
    """Count what is left."""
    waiting: dict[int, set[str]] = {}
    begins = next(row for row in dag.rows.values() if row.begins_lineages)
    for name, requests in dag.ready.items():
        for request in requests:
            if dag.rows[name].scope != "run" or not found.todo[request.job.stage]:
                found.todo[request.job.stage] += 1
            if name in (begins.name, CUT.name):
                found.unread.append(_files(request))
            if request.lineage:
                waiting.setdefault(id(request.lineage), set()).add(name)
    # a file that is not cut yet has as many parts as it has bytes for
    found.todo[begins.stage.name] += sum(
        max(1, round(_files(request)[0].size / dag.plan.config.ingest.part_bytes)) for request in dag.ready[CUT.name]
    )
    found.known = _known_windows(found)
    kept = {shard["key"] for job in _previous(found, "ingest") for shard in job["shards"]}
    _count_held(found, dag, kept)
    for lineage in dag.lineages:
        if begins.name not in lineage.made:  # of the windows to calibrate by
            continue
        stopped = waiting.get(id(lineage), set())
        if not stopped and not any(name not in lineage.begun for name in _shard_rows(dag)):
            continue
        _count_lineage(found, dag, lineage, stopped, kept)
    shard_bytes = dag.plan.config.ingest.shard_bytes
    shards = sum(max(1, round(sum(file.size for file in files) / shard_bytes)) for files in found.unread)
    for name in _shard_rows(dag):
        if shards:
            found.todo[dag.rows[name].stage.name] += shards * len(dag.rows[name].asks(dag.plan))
    for row in dag.rows.values():
        if row.scope == "shard" and row.serves and not found.record.was_made_before(row):
            found.todo[row.stage.name] += -(-dag.plan.config.calibrate.windows // DOCUMENTS_A_SHARD)


def _known_windows(found: Survey) -> int:
    """The windows of files that did not change, and are read again with one of their group that did."""
    previous = found.record.previous
    if not previous or not found.unread or found.scored_otherwise:
        return 0
    groups = {(one.uri, one.size, one.version) for files in found.unread if len(files) > 1 for one in files}
    same = (one for one in previous["sources"] if one.get("group")) if groups else ()
    return sum(one["windows"] for one in same if (one["uri"], one["size"], one["version"]) in groups)


def _count_held(found: Survey, dag: Dag, kept: set[str]) -> None:
    """Count what is left of the parts that are read of files of which others are not."""
    found.held = dag.parting.held
    for shard in (shard for done in found.held for shard in done.manifest.shards if shard.key not in kept):
        if "tokenize" in dag.rows:
            found.uncut.append(shard)
        for name in _shard_rows(dag):
            found.todo[dag.rows[name].stage.name] += len(dag.rows[name].asks(dag.plan))


def _count_lineage(found: Survey, dag: Dag, lineage: Lineage, stopped: set[str], kept: set[str]) -> None:
    """Count what is left of one lineage."""
    # One that waits for the whole run alone is most likely the same as in the run before.
    same = not stopped and not found.scored_otherwise and lineage.made["ingest"][0].key in kept
    for name in _shard_rows(dag):
        if name not in lineage.begun and not same:
            found.todo[dag.rows[name].stage.name] += len(dag.rows[name].asks(dag.plan))
    if "tokenize" not in dag.rows or same:
        return
    windows = lineage.made.get("tokenize")
    if windows is None:
        made = [lineage.made[name] for name in ("filter", "length", "ingest") if name in lineage.made]
        found.uncut += made[0]
    elif "score" in dag.rows and "score" not in lineage.made:
        found.unscored += windows


def _shard_rows(dag: Dag) -> list[str]:
    """The rows that every ingested shard goes through."""
    return [row.name for row in dag.rows.values() if row.scope == "shard" and not row.serves]


def _files(request: Request) -> Sequence[SourceFile]:
    job = request.job
    if job.source and job.part:
        return [job.source.replaced(size=job.part.bytes)]
    return [job.source] if job.source else job.group


def _previous(found: Survey, stage: str) -> Iterable[dict[str, Any]]:
    return jobs_of(found.record.previous, stage) if found.record.previous else []
