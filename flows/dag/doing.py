"""Doing a plan, from its first job to its record. Who does the jobs is the caller's matter; Prefect is not known here.

What the store has already is looked up, not done (`inventory.py`). So a plan of which nothing is left needs nobody.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime

from ladm.flows.console import Console, HeldConsole
from ladm.flows.dag.calibrating import with_files
from ladm.flows.dag.crew import Crew
from ladm.flows.dag.inventory import Inventory
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.remedies import remedy_of
from ladm.flows.dag.scheduler import Dag
from ladm.flows.dag.stages import FOLDERS
from ladm.flows.runs import marks, publish, read
from ladm.flows.runs.outcomes import Failure
from ladm.flows.runs.record import RunRecord
from ladm.flows.runs.shortfalls import find_shortfalls
from ladm.tasks.addresses import write_addresses
from ladm.tasks.storage.file_systems import io_errors, reason_and_place
from ladm.tasks.storage.store import Store


class RunFailedError(RuntimeError):
    """The run ended Failed; `record` says which shards and why, and the message names them."""

    def __init__(self, record: RunRecord) -> None:
        named = "; ".join(f"{failure.stage} {failure.label}: {failure.error}" for failure in record.failures[:5])
        more = f"; and {len(record.failures) - 5} more" if len(record.failures) > 5 else ""
        super().__init__(f"run {record.run_id} failed: {named}{more}")
        self.record = record


class WorkIsLeftError(Exception):
    """A job is to be done, and nobody to do it."""


def do_without_work(plan: Plan, console: Console) -> RunRecord | None:
    """Do a plan of which the store has every job already, and publish it; if work is left, do nothing and give None."""
    plan, store, held = with_files(plan), Store(plan.config.store), HeldConsole()
    record = RunRecord(plan, previous=read.latest_record(store))
    for note in plan.notes:
        record.notices.append(note)
        held.say(note)
    try:
        do_stages(store, record, held, nobody)
    except WorkIsLeftError:
        store.remove_all([file.path for file in record.plan.addresses])
        store.remove_empty_folders(f"runs/{record.run_id}")
        return None
    publish_what_there_is(record, held)
    held.tell(console)
    return record


def nobody() -> Crew:
    """Who does the jobs of a plan of which nothing may be left.

    Raises:
        WorkIsLeftError: Always: somebody was asked for.
    """
    raise WorkIsLeftError


def inventory_of(plan: Plan) -> Inventory:
    """What the store of a plan has of jobs that are done."""
    return Inventory(Store(plan.config.store), (*FOLDERS, "quarantine"))


def do_stages(store: Store, record: RunRecord, console: Console, start: Callable[[], Crew]) -> None:
    """Do all stages of a run's plan, check them and account for them.

    Args:
        store: The plan's.
        record: Gets what is done.
        console: Told of everything.
        start: Starts those who do the jobs; called when there is one to be done.
    """
    files = [listed.file for listed in record.plan.files]
    addresses = write_addresses(store, files, f"runs/{record.run_id}/addresses.parquet")
    plan = record.plan = dataclasses.replace(record.plan, addresses=addresses)
    with marks.in_use(plan.config.store, record.run_id, console.say):
        inventory = inventory_of(plan)
        dag = Dag(plan, console, start, record, inventory)
        dag.do_shards()
        dag.do_results()
        if start is nobody and store.damaged(record.products()):  # found and told by who can mend it
            raise WorkIsLeftError
        dag.mend()
        with contextlib.suppress(*io_errors()):  # without it the next run takes longer, and nothing else
            inventory.write_index()
    record.check_accounts()
    if not record.failures:
        record.shortfalls = find_shortfalls(record, store)


def publish_what_there_is(record: RunRecord, console: Console) -> None:
    """Publish what there is. A full disk, say, fails the run; the store's records are the truth, so little is lost."""
    record.finished = datetime.now(UTC)
    try:
        Store(record.plan.config.store).remove_all([file.path for file in record.plan.addresses])  # for its jobs alone
        record.plan = dataclasses.replace(record.plan, addresses=[])
        publish.publish(record)
    except io_errors() as error:
        reason = f"{type(error).__name__}: {reason_and_place(error)}"
        failure = Failure("publish", "results", reason, remedy=remedy_of(error))
        record.failures.append(failure)
        console.failed(failure.stage, failure.label, failure.error)
