"""The jobs that a row of the table of stages asks for: of its files, of a lineage, or of the whole run."""

from __future__ import annotations

from collections.abc import Iterator

from ladm.flows.dag.earlier import EarlierResults
from ladm.flows.dag.inputs import Inputs, Taker
from ladm.flows.dag.inventory import Inventory
from ladm.flows.dag.jobs import Ask
from ladm.flows.dag.lineage import Lineage, Request
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.rows import Row
from ladm.flows.dag.stages import STAGES
from ladm.tasks.job import Job
from ladm.tasks.printable import printable
from ladm.tasks.storage.store import Store


class Requester:
    """Makes the jobs of rows, from the plan and from what is done so far."""

    def __init__(
        self, plan: Plan, rows: dict[str, Row], inputs: Taker, inventory: Inventory, earlier: EarlierResults
    ) -> None:
        self.plan, self.rows, self.inputs, self.inventory = plan, rows, inputs, inventory
        self._earlier = earlier
        self._asks: dict[str, list[Ask]] = {}
        """Row → what its jobs for a lineage are given, which is the same for all of them."""
        self.made_now: set[str] = set()
        """Keys of jobs that this run does before it asks for them: in the pass of another, or early."""

    def of_files(self, row: Row) -> list[Request]:
        """A job for each of a row's files, or groups of files."""
        found = []
        for files in row.files(self.plan):
            first = files[0].file
            label = printable(first.uri.rsplit("/", 1)[-1])
            if len(files) > 1:
                label = f"{label} and {len(files) - 1:,} more"
            job = self._job(row, row.asks(self.plan, files[0]), label, {})
            read = {"group": [one.file for one in files]} if len(files) > 1 else {"source": first}
            found.append(Request(row.name, first.uri, job.replaced(**read)))
        return found

    def of_run(self, row: Row) -> list[Request]:
        """A row's jobs over all shards."""
        inputs = self.inputs.for_run(row)
        return [Request(row.name, "", self._job(row, ask, ask.label, inputs)) for ask in row.asks(self.plan)]

    def due(self, lineage: Lineage) -> Iterator[Request]:
        """The jobs that are due for a lineage, each once; where a row has nothing to work on, it is done.

        Rows stand in the order of the data: one look at each is enough.
        """
        for row in self.rows.values():
            if row.scope == "shard" and row.name not in lineage.begun and self._is_due(row, lineage):
                lineage.begun.add(row.name)
                requests = self.of_lineage(row, lineage)
                if not requests:
                    lineage.made[row.name] = []
                    continue
                lineage.open_jobs[row.name] = len(requests)
                for request in map(self._with_what_shares_its_pass, requests):
                    yield self._earlier.added_to(request) if row.takes_over else request

    def _is_due(self, row: Row, lineage: Lineage) -> bool:
        """Whether a row's jobs for a lineage can begin."""
        if row.shares_pass_of in self.rows and row.shares_pass_of not in lineage.made:
            return False
        return self.inputs.are_there(row, lineage)

    def of_lineage(self, row: Row, lineage: Lineage) -> list[Request]:
        """A row's jobs for a lineage; none where there is no shard to work on."""
        if not self.inputs.primary(row, lineage):
            return []
        inputs = self.inputs.for_lineage(row, lineage)
        return [
            Request(
                row.name,
                lineage.source,
                self._job(row, ask, f"{lineage.label}{ask.label}" if ask.label else lineage.label, inputs),
                lineage,
            )
            for ask in self._asks_of(row)
        ]

    def _asks_of(self, row: Row) -> list[Ask]:
        if row.name not in self._asks:
            self._asks[row.name] = row.asks(self.plan)
        return self._asks[row.name]

    def _with_what_shares_its_pass(self, request: Request) -> Request:
        """The request together with the jobs that can be done in its pass, unless the store has its result already."""
        followers = [row for row in self.rows.values() if row.shares_pass_of == request.row]
        if not followers or request.lineage is None or self.in_store(request.job):
            return request
        jobs = [other.job for row in followers for other in self.of_lineage(row, request.lineage)]
        waiting = [job for job in jobs if not self.in_store(job)]
        if not waiting:
            return request
        self.made_now.update(STAGES[job.stage].key(job) for job in waiting)
        together = {"together": [job.as_dict() for job in waiting]}
        job = request.job.replaced(environment={**request.job.environment, **together})
        return Request(request.row, request.source, job, request.lineage)

    def in_store(self, job: Job) -> bool:
        """Whether the store has what a job gives."""
        return self.inventory.find(STAGES[job.stage].key(job)) is not None

    def done_with(self, job: Job) -> list[str]:
        """The keys of the jobs that a job does in its pass."""
        others = [Job.from_dict(other) for other in job.environment.get("together", [])]
        return [STAGES[other.stage].key(other) for other in others]

    def is_sound(self, job: Job) -> bool:
        """Whether the store has what a job gives, byte for byte; what is damaged is deleted, and forgotten."""
        key = STAGES[job.stage].key(job)
        manifest = self.inventory.find(key)
        if manifest is None:
            return False
        store = Store(self.plan.config.store)
        damaged = store.damaged(manifest.all_files())
        for path in damaged:
            store.remove(path)
        if damaged:
            self.inventory.forget(key)
        return not damaged

    def _job(self, row: Row, ask: Ask, label: str, inputs: Inputs) -> Job:
        return Job(
            stage=row.stage.name,
            label=label,
            store=self.plan.config.store,
            config=ask.config,
            inputs={**inputs, **ask.inputs} if ask.inputs else inputs,
            identity=ask.identity,
            environment=ask.environment,
        )
