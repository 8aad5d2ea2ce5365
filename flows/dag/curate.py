"""The flow of a run: every shard goes through the stages on its own; ranking is the only barrier that all runs have.

So the model works on one shard while the next is being tokenized. A shard that fails for good does not stop the
others: the run finishes what it can, ranks nothing, ends Failed and names it, and the next run does only that one.
Tasks are submitted from the flow alone, a bounded number at a time (`scheduler.py`), and only manifests travel between
them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from prefect import Task, flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from ladm.flows.config import RunConfig
from ladm.flows.console import Console
from ladm.flows.dag import prepared
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.preflight import preflight
from ladm.flows.dag.remedies import remedy_of
from ladm.flows.dag.scheduler import Dag
from ladm.flows.dag.stages import NAMES, STAGES
from ladm.flows.orchestration import cancelling, naming
from ladm.flows.orchestration.artifacts import ArtifactConsole, tell_report, tell_results
from ladm.flows.orchestration.runners import runner_of
from ladm.flows.runs import marks, publish, read
from ladm.flows.runs.outcomes import Failure
from ladm.flows.runs.record import RunRecord
from ladm.flows.runs.shortfalls import find_shortfalls
from ladm.tasks import progress, stopping
from ladm.tasks.addresses import write_addresses
from ladm.tasks.manifest import Shard
from ladm.tasks.stage import StoreRecords, stage_task
from ladm.tasks.stages import gate
from ladm.tasks.storage.file_systems import io_errors, reason_of
from ladm.tasks.storage.store import Store

Until = Annotated[str, Field(json_schema_extra={"enum": list(NAMES)})]
"""A stage of a run, as a list to choose from in the form of Prefect's UI; `preflight` refuses what is none."""


class RunFailedError(RuntimeError):
    """The run ended Failed; `record` says which shards and why, and the message names them."""

    def __init__(self, record: RunRecord) -> None:
        named = "; ".join(f"{failure.stage} {failure.label}: {failure.error}" for failure in record.failures[:5])
        more = f"; and {len(record.failures) - 5} more" if len(record.failures) > 5 else ""
        super().__init__(f"run {record.run_id} failed: {named}{more}")
        self.record = record


@flow(
    name="curate",
    flow_run_name=naming.flow_run_name,
    description="Curate long documents: ingest, filter, tokenize, score by attention, rank and export",
    task_runner=ThreadPoolTaskRunner(max_workers=256),  # type: ignore[arg-type]  # `Dag.drain` bounds what is submitted
    persist_result=False,
    validate_parameters=True,
)
def curate(config: RunConfig, until: Until = NAMES[-1]) -> dict[str, Any]:
    """Run the DAG once and return the run record.

    Args:
        config: The run's configuration; Prefect's UI shows it as a form.
        until: The last stage to do.

    Raises:
        UserError: The configuration cannot run.
        RunFailedError: A shard failed for good, or there was nothing to rank.
    """
    ready = prepared.take_plan(config, until)
    plan, console = ready or _prepared_here(config, until)
    with cancelling.cancelled_by_server():
        record = do(plan, console)
    account = record.as_json()
    if ready is None:
        console.close()
        tell_results(record, account)
        if record.status == "completed" and until == "export":
            tell_report(record)
    if record.status == "failed":
        raise RunFailedError(record)
    return account


def _prepared_here(config: RunConfig, until: str) -> tuple[Plan, Console]:
    """The plan of a deployed run, and what tells Prefect of it."""
    console = ArtifactConsole()
    return preflight(config, until, console.say), console


def do(plan: Plan, console: Console) -> RunRecord:
    """Do all stages of a plan, and publish what a completed run made.

    Whatever stops the run leaves its record: `run.json` says how far it came, and by what it was stopped.
    """
    plan, store = with_gate_file(plan), Store(plan.config.store)
    record = RunRecord(plan, run_id=naming.run_id_of_this_flow(), previous=read.latest_record(store))
    run, token = stopping.Stopping(), progress.listener.set(console.advance)
    for note in plan.notes:
        record.notices.append(note)
        console.say(note)
    try:
        with stopping.stoppable(run), cancelling.interruptible():
            _do_stages(store, record, console)
            _publish(record, console)
    except BaseException as error:
        if cancelling.is_cancellation(error):
            record.cancelled = True
            cancelling.end_soon(run, error)
        if read.latest_run_id(store) != record.run_id:  # else it was just done
            reason = f"{type(error).__name__}: {reason_of(error) or 'no message'}"
            record.failures.append(Failure("run", "all shards", reason, remedy=remedy_of(error)))
            _publish(record, console)
        if isinstance(error, cancelling.Stop):
            cancelling.tell_cancelled(f"stopped by {error}; run {record.run_id} of {plan.config.store}")
            console.leave(error.number)
        raise
    finally:
        progress.listener.reset(token)
    return record


def _do_stages(store: Store, record: RunRecord, console: Console) -> None:
    """All stages of a run's plan, checked and accounted for."""
    files = [listed.file for listed in record.plan.files]
    addresses = write_addresses(store, files, f"runs/{record.run_id}/addresses.parquet")
    plan = record.plan = dataclasses.replace(record.plan, addresses=addresses)
    with marks.in_use(plan.config.store, record.run_id, console.say), runner_of(plan) as runner:
        dag = Dag(plan, console, runner, stage_tasks(plan), record)
        dag.do_shards()
        dag.do_results()
        dag.mend()
    record.check_accounts()
    if not record.failures:
        record.shortfalls = find_shortfalls(record, store)


def with_gate_file(plan: Plan) -> Plan:
    """The plan, with its calibration's gate in the store, where the jobs that read it find it."""
    if plan.gate is None:
        return plan
    content = orjson.dumps(plan.gate.model_dump(mode="json"))
    digest = hashlib.sha256(content).hexdigest()
    store = Store(plan.config.store)
    path = store.shard_path(gate.STAGE.name, digest, "json")
    if store.size(path) != len(content):
        store.write_bytes(path, content)
    return dataclasses.replace(plan, gate_file=Shard(key=digest, path=path, bytes=len(content), rows=0, sha256=digest))


def _publish(record: RunRecord, console: Console) -> None:
    """Publish what there is. A full disk, say, fails the run; the store's records are the truth, so little is lost."""
    record.finished = datetime.now(UTC)
    try:
        Store(record.plan.config.store).remove_all([file.path for file in record.plan.addresses])  # for its jobs alone
        record.plan = dataclasses.replace(record.plan, addresses=[])
        publish.publish(record)
    except io_errors() as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        failure = Failure("publish", "results", reason, remedy=remedy_of(error))
        record.failures.append(failure)
        console.failed(failure.stage, failure.label, failure.error)


def stage_tasks(plan: Plan) -> dict[str, Task[..., Any]]:
    """Every stage as a Prefect task whose results are kept in the run's store."""
    records = StoreRecords(uri=plan.config.store)
    # Prefect wants result storage saved on its server; it holds the store's address and nothing else.
    name = f"store-{hashlib.sha256(plan.config.store.encode()).hexdigest()[:16]}"
    records.save(name, overwrite=True)
    execution = plan.config.execution
    return {
        name: stage_task(stage, records, execution.retries, execution.retry_seconds) for name, stage in STAGES.items()
    }
