"""`ladm evaluate`: how well each way to score tells whole documents from broken ones, on the user's corpus and model.

The corpus goes through the DAG up to tokenization, a contrast set is made of its windows, and the model measures each
of them once; both are stages like any other, cached in the store, so that a killed evaluation goes on where it stopped
and another look at the same windows costs no model. The rest is arithmetic: the table, the calibration, the plots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from ladm.flows.dag import prepared
from ladm.flows.dag.crew import Crew
from ladm.flows.dag.curate import stage_tasks
from ladm.flows.dag.doing import inventory_of
from ladm.flows.dag.lineage import Request
from ladm.flows.dag.scheduler import Dag
from ladm.flows.evaluation.answer import Evaluation, answered, model_of
from ladm.flows.evaluation.request import Question
from ladm.flows.orchestration.runners import runner_of
from ladm.flows.runs import marks
from ladm.flows.runs.record import RunRecord
from ladm.tasks import progress
from ladm.tasks.errors import ConfigError, UserError
from ladm.tasks.evaluation.contrast_set import CALIBRATE, FEWEST_DOCUMENTS, TEST, WHOLE
from ladm.tasks.evaluation.fit import layers_allowed, paired_layers
from ladm.tasks.evaluation.scores import Setting
from ladm.tasks.evaluation.topics import topic_layer
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.scorers.loaded_model import resolved_scorer
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.stages.scan import STAGE as SCAN
from ladm.tasks.stages.scan import Measurement, ScanConfig, read_measurements
from ladm.tasks.storage.store import Store

BESIDE_SHARE = 0.25
"""Share of the testing documents that the scorers beside `ladm` score: they cost passes of their own."""
FEWEST_BESIDE = 2
MOST_ROUNDED = 3
"""Whole windows measured once more in bfloat16."""


@flow(
    name="evaluate",
    description="Measure how well each scorer tells whole documents from broken ones, and calibrate",
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]
    persist_result=False,
)
def evaluate() -> Evaluation:
    """Answer the question that was put.

    Raises:
        UserError: the corpus holds too little to make a contrast of, or a shard failed.
    """
    question = prepared.take_question()
    plan, record = question.plan, RunRecord(question.plan)
    with marks.in_use(plan.config.store, record.run_id, question.console.say), runner_of(plan) as runner:
        crew = Crew(runner, stage_tasks(plan))
        inventory = inventory_of(plan)
        dag = Dag(plan, question.console, lambda: crew, record, inventory)
        answer = _evaluated(question, dag)
        inventory.write_index()
        return answer


def _evaluated(question: Question, dag: Dag) -> Evaluation:
    token = progress.listener.set(question.console.advance)
    try:
        dag.do_shards()
        _refuse_failures(dag)
        shards = _contrast(dag, question)
        setting, native = _setting(question), question.device != "cpu"
        complete = _scan_config(setting, setting.layers, paper=True)
        complete_beside = _scan_config(setting, setting.layers, paper=True, beside=question.beside)
        partial = _scan_config(setting, layers_allowed(setting))
        rounded = _scan_config(setting, setting.layers, (WHOLE,), dtype="bfloat16" if native else "bfloat16-rounded")
        halves = _halves(question, shards)
        testing = halves[TEST]
        some = len(testing) if question.thorough else max(FEWEST_BESIDE, int(len(testing) * BESIDE_SHARE))
        measured = _scan(dag, question, testing[:some], complete_beside)
        measured += _scan(dag, question, testing[some:], complete)
        measured += _scan(dag, question, halves[CALIBRATE], partial)
        in_bfloat16 = _scan(dag, question, testing[:MOST_ROUNDED], rounded)
    finally:
        progress.listener.reset(token)
    return answered(question, setting, measured, in_bfloat16, native=native)


def _halves(question: Question, shards: Sequence[Shard]) -> dict[str, list[Shard]]:
    """The contrast set's shards, one a document, by the half that the document belongs to.

    The testing half is measured whole; of the calibrating half, the layers that a calibration uses will do.
    """
    store = Store(question.plan.config.store)
    halves: dict[str, list[Shard]] = {CALIBRATE: [], TEST: []}
    for shard in shards:
        first = next(store.shard_batches(shard, rows=1, columns=["half"]))
        halves[first["half"][0].as_py()].append(shard)
    return halves


def _setting(question: Question) -> Setting:
    config, length = resolved_scorer(question.plan.config.scorer), question.plan.config.window.length
    setting = Setting(config, length, question.layers, question.n_layers)
    given = question.calibration
    profiled = given.profiled if given else paired_layers(setting)
    known = given or question.shipped
    of_topics = known.weights.states_of if known else topic_layer(profiled)
    return dataclasses.replace(setting, profile_layers=profiled, topic_layer=of_topics)


def _scan_config(
    setting: Setting,
    layers: Sequence[int],
    kinds: Sequence[str] = (),
    dtype: Literal["float32", "bfloat16", "bfloat16-rounded"] = "float32",
    *,
    paper: bool = False,
    beside: BesideConfig | None = None,
) -> ScanConfig:
    config = setting.config
    return ScanConfig(
        span=config.span,
        d_afs=config.d_afs,
        d_cds=config.d_cds,
        dtype=dtype,
        kinds=tuple(kinds),
        layers=tuple(layers),
        profile_layers=setting.profile_layers,
        topic_layer=setting.topic_layer,
        paper=paper,
        beside=beside or BesideConfig(),
    )


def _contrast(dag: Dag, question: Question) -> list[Shard]:
    """The contrast set, in its own order."""
    windows = sorted(dag.record.shards("tokenize"), key=lambda shard: shard.key)
    job = Job(
        stage="contrast",
        label="contrast set",
        store=question.plan.config.store,
        config=question.contrast.model_dump(mode="json"),
        inputs={"windows": windows},
        identity=[model_of(question).tokenizer_digest],
        environment={"model": resolved_scorer(question.plan.config.scorer).model},
    )
    dag.offer(Request("contrast", "", job))
    dag.drain()
    _refuse_failures(dag)
    shards = [shard for done in dag.record.of("contrast") for shard in done.manifest.shards]
    if not shards:
        raise ConfigError(
            f"sources: no domain has {FEWEST_DOCUMENTS} documents that fill a window in each half, so "
            "no calibration was written; give more documents, "
            f"or lower window.length ({question.plan.config.window.length})"
        )
    return shards


def _scan(dag: Dag, question: Question, shards: Sequence[Shard], asked: ScanConfig) -> list[Measurement]:
    """Measure windows of some shards of the contrast set; what the store has is not measured again."""
    config, model = question.plan.config, model_of(question)
    scorer = resolved_scorer(config.scorer)
    before = len(dag.record.done)
    windows = len(shards) * len(asked.kinds) if asked.kinds else sum(shard.rows for shard in shards)
    question.console.expect_windows("scan", windows)
    keys = []
    for shard in shards:
        job = Job(
            stage="scan",
            label=f"{shard.key[:8]} {asked.dtype}",
            store=config.store,
            config=asked.model_dump(mode="json", exclude_none=True),
            inputs={"windows": [shard]},
            identity=[model.digest, model.tokenizer_digest],
            environment={"model": scorer.model, "device": scorer.device},
        )
        keys.append(SCAN.key(job))
        dag.offer(Request("scan", "", job))
    dag.drain()
    dag.mend()
    _refuse_failures(dag)
    jobs = [done.manifest for done in dag.record.done[before:] if done.manifest.stage == "scan"]
    written = {manifest.key: manifest.shards for manifest in jobs}
    ordered = [one for key in keys for one in written[key]]
    return read_measurements(Store(config.store), ordered, asked, question.layers)


def _refuse_failures(dag: Dag) -> None:
    if dag.record.failures:
        first = dag.record.failures[0]
        raise UserError(f"{first.stage} {first.label}: {first.error}; the same command goes on where this one stopped")
