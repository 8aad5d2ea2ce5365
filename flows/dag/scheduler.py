"""One run of the DAG: which jobs are due, which are under way, and what they made. It follows the table of stages.

Every ingested shard begins a *lineage*: the shards that each row of the table makes of it. A job is offered when its
inputs are there, and once only; one that is done again, since its files were damaged, puts its files in the place of
the earlier ones and offers nothing more. A row that takes the shards of the whole run waits until nothing is under way.

What the store has already (`inventory.py`) is taken over as it is. Only what is left becomes a task, and where nothing
is left, nothing that does tasks is started.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ladm.flows.console import Console
from ladm.flows.dag.crew import Crew, error_of, failure
from ladm.flows.dag.earlier import EarlierResults
from ladm.flows.dag.early import READ, Early
from ladm.flows.dag.inputs import Taker
from ladm.flows.dag.inventory import Inventory
from ladm.flows.dag.lineage import Lineage, Request, lineages_of
from ladm.flows.dag.notices import ScoredAgain
from ladm.flows.dag.parting import Parting
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.repair import Repairs
from ladm.flows.dag.requests import Requester
from ladm.flows.dag.rows import Row
from ladm.flows.dag.stages import BY_NAME, TABLE, rows_of
from ladm.flows.dag.telling import tell_done, why_nothing_is_ranked
from ladm.flows.dag.under_way import UnderWay
from ladm.flows.dag.waiting import Waiting, share_of_array
from ladm.flows.runs.outcomes import Done, Failure
from ladm.flows.runs.record import RunRecord
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.stages.calibrate import told_line
from ladm.tasks.storage.store import DamagedFileError, Store
from ladm.tasks.tokenizing.tokenizer import one_core_a_tokenizer

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture


class Dag:
    """One run of the DAG: what the store has, what is ready, what is running, what is done."""

    def __init__(
        self, plan: Plan, console: Console, start: Callable[[], Crew], record: RunRecord, inventory: Inventory
    ) -> None:
        """Begin a run. `start` starts those who do the jobs, and is called before each job is handed over."""
        self.plan, self.console, self.start, self.record = plan, console, start, record
        self.inventory = inventory
        self.store = Store(plan.config.store)
        self.rows = {row.name: row for row in rows_of(plan)}
        self.inputs = Taker(plan, record)
        self.requests = Requester(plan, self.rows, self.inputs, inventory, EarlierResults(record, inventory))
        self.early = Early(plan.config.store, self.requests, inventory, self.announce)
        self.parting = Parting(self.requests, inventory)
        self.ready = {row.name: Waiting(share_of_array()) for row in TABLE}
        self.there: deque[tuple[Request, Manifest]] = deque()
        """Jobs that the store has done, and what they gave; to be taken over."""
        self.under_way = UnderWay(start)
        self.repairs = Repairs(self.store)
        self.lineages: list[Lineage] = []
        self.open_jobs: Counter[str] = Counter()
        """Row of source files or of the whole run → its jobs that are not done."""
        self.scored_again = ScoredAgain(record)

    def do_shards(self) -> None:
        """Every source file through the stages before ranking, as far as the plan goes."""
        with one_core_a_tokenizer():
            self.begin_sources()
            self.drain()
            for row in self.rows.values():
                if row.scope == "run" and not row.is_result and self.is_left(row) and not self.record.failures:
                    self.begin_whole_run(row)
                    self.drain()

    def begin_sources(self) -> None:
        """Offer a job for each source file, and before, where the store has it, what is made once."""
        for row in self.rows.values():
            requests = self.requests.of_run(row) if row.made_once else []
            if requests and all(self.requests.is_sound(request.job) for request in requests):
                self.record.made_before.add(row.name)
                self.offer_all(row, requests)
        for row in self.rows.values():
            if row.scope == "source file":
                self.offer_all(row, self.parting.of_files(row))

    def is_left(self, row: Row) -> bool:
        """Whether a row over the whole run is to be begun: there is work for it, and what it makes is not there yet."""
        return not self.record.was_made_before(row) and any(map(self.record.shards, row.receives))

    def do_results(self) -> None:
        """What is made of all shards, one row after the other; nothing if a shard failed or too much was lost."""
        if self.record.failures or not self.may_rank():
            return
        for row in self.rows.values():
            if row.is_result and not self.record.failures:
                self.begin_whole_run(row)
                if not any(other.along_with == row.stage.name for other in self.rows.values()):
                    self.drain()
        self.drain()

    def may_rank(self) -> bool:
        """Whether what is left may be ranked, or counts as what was asked for; else the run has failed."""
        failed = why_nothing_is_ranked(self.record, self.rows.values())
        if failed:
            self.fail(failed)
        return failed is None

    def mend(self) -> None:
        """Check what is about to be published or read by no job, and make again what is damaged."""
        while not self.record.failures:
            try:
                self.store.check(self.record.products())
                return
            except DamagedFileError as error:
                if not self.make_again(error):
                    self.record.failures.append(Failure("store", "all shards", str(error), remedy="mend"))
            self.drain()

    def make_again(self, error: DamagedFileError, waiting: Request | None = None) -> bool:
        """Offer the jobs that made the damaged files once more; False if that cannot help."""
        if waiting and (again := self.repairs.made_meanwhile(error.paths, waiting)) is not None:
            self.offer(again, look=False)
            return True
        makers = self.repairs.order(error.paths, waiting)
        if makers is None:
            return False
        if makers:
            self.note(f"{error}; it is made again")
            self.record.made_again += error.paths
        for request in makers:
            self.inventory.forget(request.key)
            self.offer(request, look=False)
        return True

    def note(self, notice: str) -> None:
        """Say something about the run, and keep it in its record."""
        self.record.notices.append(notice)
        self.console.say(notice)

    def begin_whole_run(self, row: Row) -> None:
        """Offer a row's jobs over all shards."""
        self.offer_all(row, self.requests.of_run(row))

    def offer_all(self, row: Row, requests: list[Request]) -> None:
        """Offer jobs that are of no lineage."""
        self.open_jobs[row.name] += len(requests)
        for request in requests:
            self.offer(request)

    def advance(self, lineages: Iterable[Lineage]) -> None:
        """Offer what is due for some lineages."""
        for lineage in lineages:
            for request in self.requests.due(lineage):
                row = self.rows[request.row]
                self.announce(request)
                if row.holds_model:
                    (windows,) = self.inputs.primary(row, lineage)
                    self.console.expect_windows(row.stage.name, windows.rows)
                self.offer(request)

    def announce(self, request: Request) -> None:
        """Say it, if a job of a lineage is going to do again what an earlier run did for hours."""
        if request.lineage and self.rows[request.row].holds_model:
            is_there = partial(self.requests.in_store, request.job)
            if notice := self.scored_again.notice(request.lineage, is_there):
                self.note(notice)

    def offer(self, request: Request, *, look: bool = True) -> None:
        """Put a job in the queue of its row, or among those that the store has, unless it is not to `look` there."""
        self.console.expect(request.job.stage)
        found = self.inventory.find(request.key) if look else None
        if found:
            self.there.append((request, found))
        elif not (look and self.early.takes(request)):
            self.console.expect_bytes(request.job)
            self.ready[request.row].add(request)

    def drain(self) -> None:
        """Take over what is there, submit what is ready, later rows first, and take in what is finished, to the end."""
        while True:
            self.take_over()
            for row in reversed(TABLE):
                while self.ready[row.name] and self.under_way.has_room(row):
                    request = self.ready[row.name].next()
                    self.early.watch(request)
                    self.under_way.submit(request)
            self.early.look()
            self.early.submit(self.under_way)
            if not self.under_way:
                return
            if finished := self.under_way.next(self.early.seconds):
                self.take_in(*finished)

    def take_over(self) -> None:
        """Note what the store has already, and all that follows from it."""
        while self.there:
            request, manifest = self.there.popleft()
            self.keep(request, manifest, cached=manifest.key not in self.requests.made_now)

    def take_in(self, future: PrefectFuture[Any], request: Request) -> None:
        """Note what a finished job did, and offer what is due now."""
        state, job = future.state, request.job
        if request.early:
            if (asked_for := self.early.take_in(future, request)) is None:
                return
            request, job = asked_for, asked_for.job
            if not state.is_completed():
                self.ready[request.row].add(request)
                return
        if not state.is_completed():
            error = error_of(future)
            if not (isinstance(error, DamagedFileError) and self.make_again(error, request)):
                self.fail(failure(request, error))
                if request.row == READ.name:
                    self.early.end(request.source)
            return
        manifest = Manifest.from_dict(future.result())
        self.inventory.add(manifest)
        for key in self.requests.done_with(job):
            self.inventory.look_again(key)
        self.keep(request, manifest, cached=state.name == "Cached" and manifest.key not in self.requests.made_now)

    def keep(self, request: Request, manifest: Manifest, *, cached: bool) -> None:
        """Note what a job gave, in this run or, `cached`, in an earlier one, and offer what is due now."""
        settled = self.parting.settle(request, Done(request.source, manifest, cached=cached))
        if request.row == READ.name:
            if settled.done or settled.void:
                self.early.end(request.source)
            else:
                self.early.go_on(request, manifest)
        for one in settled.done:
            self.count(*one)
        self.open_jobs[request.row] -= settled.void
        if settled.due:
            self.offer_all(self.rows[settled.due[0].row], settled.due)

    def count(self, request: Request, done: Done) -> None:
        """Count a job that is done, and offer what is due now."""
        manifest, again = done.manifest, self.repairs.is_under_way(done.manifest.key)
        self.record.note(done, again)
        self.tell(request, done)
        for waiting in self.repairs.finished(manifest, request):
            self.offer(waiting, look=False)
        if request.row in self.rows:
            self.follow(self.rows[request.row], request, manifest, again=again)

    def tell(self, request: Request, done: Done) -> None:
        """Tell the console of a finished job."""
        tell_done(self.console, self.store, self.inputs, request, done)
        came_at_once = done.cached or done.manifest.key in self.requests.made_now
        if BY_NAME[request.row].holds_model and (came_at_once or not self.start().runner.same_process):
            self.console.advance(request.job.stage, int(done.manifest.measures.get("windows", 0)))

    def fail(self, failure: Failure) -> None:
        """Note a failure, and tell of it."""
        self.record.failures.append(failure)
        self.console.failed(failure.stage, failure.label, failure.error)

    def follow(self, row: Row, request: Request, manifest: Manifest, *, again: bool) -> None:
        """Put the shards of a finished job where others find them, and offer what is due now, unless it was before."""
        self.inputs.note(row, request.job, manifest)
        lineage = request.lineage
        if again:
            if lineage and row.name in lineage.made:
                new = {shard.path: shard for shard in manifest.shards}
                lineage.made[row.name] = [new.get(shard.path, shard) for shard in lineage.made[row.name]]
        elif lineage:
            if lineage.take(row.name, manifest.shards):
                self.advance([lineage])
        else:
            if row.begins_lineages:
                self.begin_lineages(row, request, manifest.shards)
            if row.settles:
                self.settle(row.settles(self.plan, manifest))
            self.open_jobs[row.name] -= 1
            if not self.open_jobs[row.name] and not (row.begins_lineages and self.parting.open):
                self.inputs.complete.add(row.name)
                self.advance(self.lineages)
                self.early.look_again()

    def settle(self, plan: Plan) -> None:
        """Go on with the plan as it is now: nothing that depends on the change was asked for before."""
        self.plan = self.requests.plan = self.record.plan = plan
        if plan.calibration:
            self.console.say(told_line(plan.calibration))

    def begin_lineages(self, row: Row, request: Request, shards: list[Shard]) -> None:
        """A lineage for each shard of a source file."""
        for lineage in lineages_of(row.name, request, shards):
            self.lineages.append(lineage)
            self.advance([lineage])
