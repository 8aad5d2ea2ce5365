"""The DAG: every shard goes through ingest → length → tokenize → score on its own; ranking is the only barrier.

So the model works on one shard while the next is being tokenized. A shard that fails for good does not stop the
others: the run finishes what it can, ranks nothing, ends Failed and names it, and the next run does only that one.
Tasks are submitted from the flow alone, a bounded number at a time, and only manifests travel between them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from prefect import Task, flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from ladm.flows.config import RunConfig
from ladm.flows.console import Console
from ladm.flows.dag import prepared as handover
from ladm.flows.dag.jobs import export_jobs, ingest_job, rank_job, shard_job
from ladm.flows.dag.plan import Plan, preflight
from ladm.flows.dag.repair import Repairs
from ladm.flows.dag.sift import benchmark_jobs, dedup_job, shards_to_score, short_job, signatures_job
from ladm.flows.orchestration.artifacts import ArtifactConsole, tell_report, tell_results
from ladm.flows.orchestration.runners import MODEL_STAGES, Runner, failure_of, runner_of
from ladm.flows.runs import publish
from ladm.flows.runs.record import Done, Failure, RunRecord
from ladm.tasks import progress
from ladm.tasks.job import Job, Stage
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.redact import without_secrets
from ladm.tasks.stage import StoreRecords, stage_task
from ladm.tasks.stages import (
    benchmarks,
    card,
    contrast,
    dedup,
    export,
    ingest,
    length,
    rank,
    scan,
    score,
    short,
    signatures,
    tokenize,
)
from ladm.tasks.storage.file_systems import io_errors, reason_of
from ladm.tasks.storage.store import DamagedFileError, Store

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (
        *(benchmarks, ingest, length, short, signatures, tokenize, dedup, score, rank, export, card),
        *(contrast, scan),  # for `evaluate`
    )
}
PER_SHARD = ("ingest", "length", "tokenize", "score")


class RunFailedError(RuntimeError):
    """The run ended Failed; `record` says which shards and why, and the message names them."""

    def __init__(self, record: RunRecord) -> None:
        named = "; ".join(f"{failure.stage} {failure.label}: {failure.error}" for failure in record.failures[:5])
        more = f"; and {len(record.failures) - 5} more" if len(record.failures) > 5 else ""
        super().__init__(f"run {record.run_id} failed: {named}{more}")
        self.record = record


@flow(
    name="curate",
    description="Curate long documents: ingest, filter, tokenize, score by attention, rank and export",
    task_runner=ThreadPoolTaskRunner(max_workers=256),  # type: ignore[arg-type]  # `Dag.limits` is the real bound
    persist_result=False,
    validate_parameters=True,
)
def curate(config: RunConfig, until: str = "export") -> dict[str, Any]:
    """Run the DAG once and return the run record.

    Args:
        config: The run's configuration; Prefect's UI shows it as a form.
        until: The last stage to do.

    Raises:
        UserError: The configuration cannot run.
        RunFailedError: A shard failed for good, or there was nothing to rank.
    """
    ready = handover.prepared.get()
    plan, console = ready or (preflight(config, until), ArtifactConsole())
    with runner_of(plan) as runner:
        record = Dag(plan, console, runner).run()
    account = record.as_json()
    if ready is None:
        console.close()
        tell_results(record, account["refresh"])
        if record.status == "completed" and until == "export":
            tell_report(record)
    if record.status == "failed":
        raise RunFailedError(record)
    return account


class Dag:
    """One run of the DAG: what is ready, what is running, what is done."""

    def __init__(self, plan: Plan, console: Console, runner: Runner) -> None:
        self.plan = plan
        self.console = console
        self.runner = runner
        self.record = RunRecord(plan, previous=publish.latest_record(Store(plan.config.store)))
        self.tasks = _prefect_tasks(plan)
        self.limits = {stage: runner.models if stage in MODEL_STAGES else runner.workers for stage in STAGES}
        self.ready: dict[str, deque[tuple[str, Job]]] = {stage: deque() for stage in STAGES}
        self.running: Counter[str] = Counter()
        self.repairs = Repairs()
        self.ingested: dict[str, Shard] = {}
        """Key of a shard of long enough documents → the ingested shard that it comes from."""
        self.long_enough: dict[str, list[Shard]] = {}
        """And back."""
        self.finished: SimpleQueue[tuple[PrefectFuture[Any], str, Job]] = SimpleQueue()

    def run(self) -> RunRecord:
        """Do all stages of the plan, write the run record, and publish what a completed run made."""
        token = progress.listener.set(self.console.advance)
        try:
            with tokenize.one_core_a_tokenizer():
                self.do_shards()
            self.after_shards()
            self.mend()
        finally:
            progress.listener.reset(token)
        self.record.finished = datetime.now(UTC)
        self.record.check_accounts()
        try:
            publish.publish(self.record)
        except io_errors() as error:  # a full disk, say; the store's records are the truth, so little is lost
            self.record.failures.append(Failure("publish", "results", f"{type(error).__name__}: {reason_of(error)}"))
            self.console.failed("publish", "results", self.record.failures[-1].error)
        return self.record

    def do_shards(self) -> None:
        """Every source file through the stages that work shard by shard, as far as the plan goes."""
        if "benchmarks" in self.plan.stages:
            for listed, job in benchmark_jobs(self.plan):
                self.offer(listed.file.uri, job)
            self.drain()
            if self.record.failures:
                return
        for listed in self.plan.files:
            self.offer(listed.file.uri, ingest_job(self.plan, listed))
        self.drain()
        if "dedup" in self.plan.stages and self.record.shards("tokenize") and not self.record.failures:
            self.sift()

    def sift(self) -> None:
        """The barrier that duplicates and benchmark passages need, and the scoring of what is left."""
        self.offer("", dedup_job(self.plan, self.record))
        self.drain()
        if "score" in self.plan.stages and not self.record.failures:
            for done, shard, drop_lists in shards_to_score(self.record):
                job = shard_job(self.plan, "score", done.manifest.label, shard)
                self.offer(done.source, job.model_copy(update={"inputs": [shard, *drop_lists]}))
            self.drain()

    def after_shards(self) -> None:
        """The barrier: rank and export if every shard is there, else leave it to the next run."""
        if self.record.failures:
            return
        if too_many := self.record.too_many_quarantined():
            self.record.failures.append(too_many)
            self.console.failed(too_many.stage, too_many.label, too_many.error)
            return
        last = self.plan.stages[-1]
        made = self.record.shards(last if last not in ("rank", "export") else "score")
        if not made:
            reason = "no document was left; see the quarantine and the reasons for dropping in the run record"
            self.record.failures.append(Failure(last, "all shards", reason))
            return
        if "rank" in self.plan.stages:
            self.offer("", rank_job(self.plan, self.record))
            self.drain()
        if "export" in self.plan.stages and not self.record.failures:
            for job in export_jobs(self.plan, self.record):
                self.offer("", job)
            self.drain()

    def mend(self) -> None:
        """Check what is about to be published or read by no job, and make again what is damaged."""
        while not self.record.failures:
            files = self.record.products()
            try:
                Store(self.plan.config.store).check(files)
                return
            except DamagedFileError as error:
                if not self.make_again(error):
                    self.record.failures.append(Failure("store", "all shards", str(error)))
            self.drain()

    def make_again(self, error: DamagedFileError, waiting: tuple[str, Job] | None = None) -> bool:
        """Offer the jobs that made the damaged files once more; False if that cannot help."""
        if waiting:
            store = Store(self.plan.config.store)
            if (again := self.repairs.made_meanwhile(error.paths, waiting, store)) is not None:
                self.offer(*again)
                return True
        makers = self.repairs.order(error.paths, waiting)
        if makers is None:
            return False
        if makers:
            self.console.say(f"{error}; it is made again")
            self.record.made_again += error.paths
        for source, job in makers:
            self.offer(source, job)
        return True

    # -- submitting and finishing ------------------------------------------------------------------------------

    def offer(self, source: str, job: Job) -> None:
        """Put a job in the queue of its stage."""
        self.ready[job.stage].append((source, job))
        self.console.expect(job.stage)

    def drain(self) -> None:
        """Submit what is ready, later stages first, and take in what is finished, until nothing is left."""
        while True:
            for stage in reversed(STAGES):
                while self.ready[stage] and self.running[stage] < self.limits[stage]:
                    self.submit(*self.ready[stage].popleft())
            if not self.running.total():
                return
            future, source, job = self.finished.get()
            self.running[job.stage] -= 1
            self.take_in(future, source, job)

    def submit(self, source: str, job: Job) -> None:
        """Hand a job to Prefect."""
        self.running[job.stage] += 1
        future = self.runner.submit(self.tasks[job.stage], job)
        future.add_done_callback(lambda done: self.finished.put((done, source, job)))

    def take_in(self, future: PrefectFuture[Any], source: str, job: Job) -> None:
        """Note what a finished job did, and offer the next stage of the shards it made."""
        future.wait()  # or `state` would ask the server, which may not know yet
        state = future.state
        if not state.is_completed():
            error = failure_of(future)
            if isinstance(error, DamagedFileError) and self.make_again(error, (source, job)):
                return
            text = str(without_secrets(str(error))).strip().splitlines()
            reason = f"{type(error).__name__}: {text[0] if text else 'no message'}"
            self.record.failures.append(Failure(job.stage, job.label, reason, source))
            self.console.failed(job.stage, job.label, reason)
            return
        manifest = Manifest.model_validate(future.result())
        done = Done(source, manifest, cached=state.name == "Cached")
        again = self.repairs.is_under_way(manifest.key)
        self.record.note(done, again)
        self.console.finished(done)
        if job.stage in MODEL_STAGES and not done.cached and not self.runner.same_process:
            self.console.advance(job.stage, int(manifest.measures.get("windows", 0)))
        if job.stage == "tokenize" and "score" in self.plan.stages:
            self.console.expect_windows("score", int(manifest.measures.get("windows", 0)))
        for waiting in self.repairs.finished(manifest, (source, job)):
            self.offer(*waiting)
        if job.stage in PER_SHARD[:-1] and not again:
            following = PER_SHARD[PER_SHARD.index(job.stage) + 1]
            waits = following == "score" and "dedup" in self.plan.stages
            for number, shard in enumerate(manifest.shards):
                label = f"{job.label}#{number}" if len(manifest.shards) > 1 else job.label
                if following in self.plan.stages and not waits:
                    self.offer(source, shard_job(self.plan, following, label, shard))
                if job.stage == "length" and "signatures" in self.plan.stages:
                    self.offer_signatures(source, label, [shard])
        if "short" in self.plan.stages:
            self.offer_short(source, job, manifest)

    def offer_signatures(self, source: str, label: str, shards: list[Shard]) -> None:
        """Offer the signatures of some documents."""
        self.offer(source, signatures_job(self.plan, label, shards, self.record.shards("benchmarks")))

    def offer_short(self, source: str, job: Job, manifest: Manifest) -> None:
        """Offer the short documents of an ingested shard as soon as its windows are there, then their signatures."""
        if job.stage == "length":
            (ingested,) = job.inputs
            self.ingested |= {shard.key: ingested for shard in manifest.shards}
            self.long_enough[ingested.key] = manifest.shards
            if not manifest.shards:
                self.offer(source, short_job(self.plan, job.label, [ingested]))
        if job.stage == "tokenize":
            (long_enough,) = job.inputs
            self.offer(source, short_job(self.plan, job.label, [self.ingested[long_enough.key], *manifest.shards]))
        if job.stage == "short" and manifest.shards and "signatures" in self.plan.stages:
            ingested = job.inputs[0]
            shards = [ingested, *manifest.shards, *self.long_enough[ingested.key]]
            self.offer_signatures(source, f"{job.label}, short", shards)


def _prefect_tasks(plan: Plan) -> dict[str, Task[..., Any]]:
    """Every stage as a Prefect task whose results are kept in the run's store."""
    records = StoreRecords(uri=plan.config.store)
    # Prefect wants result storage saved on its server; it holds the store's address and nothing else.
    name = f"store-{hashlib.sha256(plan.config.store.encode()).hexdigest()[:16]}"
    records.save(name, overwrite=True)
    execution = plan.config.execution
    return {
        name: stage_task(stage, records, execution.retries, execution.retry_seconds) for name, stage in STAGES.items()
    }
