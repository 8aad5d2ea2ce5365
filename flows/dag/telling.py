"""What a run tells as it goes on: of a finished job, and of why nothing is ranked."""

from __future__ import annotations

from collections.abc import Iterable

from ladm.flows.console import Console
from ladm.flows.dag.inputs import Taker
from ladm.flows.dag.lineage import Request
from ladm.flows.dag.rows import Row
from ladm.flows.dag.stages import BY_NAME
from ladm.flows.runs.outcomes import Done, Failure
from ladm.flows.runs.record import RunRecord
from ladm.tasks.storage.store import Store


def tell_done(console: Console, store: Store, inputs: Taker, request: Request, done: Done) -> None:
    """Tell the console of a finished job, and of windows that it did not have to put through the model."""
    stage, windows = request.job.stage, int(done.manifest.measures.get("windows", 0))
    row = BY_NAME[request.row]
    if row.holds_model and request.lineage:
        (shard,) = inputs.primary(row, request.lineage)
        if shard.rows != windows:  # some of its windows were not to be scored
            console.expect_windows(stage, windows - shard.rows)
    console.finished(done)
    console.say_once(stage, why_nothing_is_left(store, done))


def why_nothing_is_ranked(record: RunRecord, rows: Iterable[Row]) -> Failure | None:
    """What fails a run before ranking: too much was lost, or there is nothing to rank."""
    if too_many := record.too_many_quarantined() or record.too_much_removed():
        return too_many
    last = [row for row in rows if not (row.is_result or row.along_with or row.made_once)][-1]
    if record.shards(last.stage.name):
        return None
    reason = "no document was left; see the quarantine and the reasons for dropping in the run record"
    return Failure(record.plan.stages[-1], "all shards", reason, remedy="drops")


def why_nothing_is_left(store: Store, done: Done) -> str:
    """Of a shard of which nothing was kept, since the rest was quarantined just now: for what. Nothing of another."""
    manifest, counts = done.manifest, done.manifest.counts
    if manifest.quarantine is None or counts.kept or manifest.stage == "ingest" or done.cached:
        return ""
    reasons = store.read_shard(manifest.quarantine)["reason"].to_pylist()
    return (
        f"{manifest.stage}: nothing is left of {manifest.label}: {counts.quarantined:,} of {counts.received:,} records "
        f"are quarantined, the first for: {reasons[0]}"
    )
