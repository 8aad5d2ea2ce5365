"""`ladm evaluate`: how well each way to score tells whole documents from broken ones, on the user's corpus and model.

The corpus goes through the DAG up to tokenization, a contrast set is made of its windows, and the model measures each
of them once; both are stages like any other, cached in the store, so that a killed evaluation goes on where it stopped
and another look at the same windows costs no model. The rest is arithmetic: the table, the calibration, the plots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from ladm.flows.dag import prepared
from ladm.flows.dag.curate import stage_tasks
from ladm.flows.dag.jobs import versions
from ladm.flows.dag.lineage import Request
from ladm.flows.dag.scheduler import Dag
from ladm.flows.evaluation.request import Question
from ladm.flows.orchestration.runners import runner_of
from ladm.flows.runs import marks
from ladm.flows.runs.record import RunRecord
from ladm.tasks import progress
from ladm.tasks.errors import ConfigError, UserError
from ladm.tasks.evaluation.fit import (
    CALIBRATING_KINDS,
    choose_layers,
    fit_dependency,
    fit_order,
    layers_allowed,
    profiled_layers,
)
from ladm.tasks.evaluation.table import Setting, all_scores, forward_passes, is_one_layer, stability, table
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.scorers.calibration import Calibration, profile_layers
from ladm.tasks.scorers.loaded_model import resolved_scorer
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.stages.contrast import CALIBRATE, KINDS, TEST, WHOLE
from ladm.tasks.stages.scan import STAGE as SCAN
from ladm.tasks.stages.scan import Measurement, ScanConfig, read_measurements
from ladm.tasks.storage.store import Store

BESIDE_SHARE = 0.25
"""Share of the testing documents that the scorers beside `ladm` score: they cost passes of their own."""
FEWEST_BESIDE = 2
MOST_ROUNDED = 3
"""Whole windows measured once more in bfloat16."""


@dataclass
class Evaluation:
    """What an evaluation found."""

    rows: list[dict[str, Any]]
    """The table of the testing half (of all windows, where an existing calibration is measured)."""
    stability: list[dict[str, Any]]
    costs: list[dict[str, Any]]
    """Of each choice, its forward passes, and seconds a window: that share of a whole pass as measured here with all
    that was asked of it. Not the same on every machine, and not part of the table."""
    calibration: Calibration | None
    """The one made, or the one that was measured."""
    made: bool
    """Whether the calibration was made here."""
    calibrating_rows: list[dict[str, Any]] = field(default_factory=list)
    """The same table of the half that the calibration was made from."""


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
    with runner_of(question.plan) as runner:
        record = RunRecord(question.plan)
        dag = Dag(question.plan, question.console, runner, stage_tasks(question.plan), record)
        with marks.in_use(question.plan.config.store, record.run_id, question.console.say):
            return _evaluated(question, dag)


def _evaluated(question: Question, dag: Dag) -> Evaluation:
    token = progress.listener.set(question.console.advance)
    try:
        dag.do_shards()
        _refuse_failures(dag)
        shards = _contrast(dag, question)
        setting, native = _setting(question), question.device != "cpu"
        complete = _scan_config(setting, KINDS, setting.layers, paper=True)
        complete_beside = _scan_config(setting, KINDS, setting.layers, paper=True, beside=question.beside)
        partial = _scan_config(setting, CALIBRATING_KINDS, layers_allowed(setting))
        rounded = _scan_config(setting, (WHOLE,), setting.layers, dtype="bfloat16" if native else "bfloat16-rounded")
        halves = _halves(question, shards)
        testing = halves[TEST]
        some = len(testing) if question.thorough else max(FEWEST_BESIDE, int(len(testing) * BESIDE_SHARE))
        measured = _scan(dag, question, testing[:some], complete_beside)
        measured += _scan(dag, question, testing[some:], complete)
        measured += _scan(dag, question, halves[CALIBRATE], partial)
        in_bfloat16 = _scan(dag, question, testing[:MOST_ROUNDED], rounded)
    finally:
        progress.listener.reset(token)
    return _answer(question, setting, measured, in_bfloat16, native)


def _halves(question: Question, shards: Sequence[Shard]) -> dict[str, list[Shard]]:
    """The contrast set's shards, one a document, by the half that the document belongs to.

    The testing half is measured whole; of the calibrating half, the layers and kinds that a calibration uses will do.
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
    profiled = profile_layers(given.weights) if given else profiled_layers(setting)
    return dataclasses.replace(setting, profile_layers=profiled)


def _scan_config(
    setting: Setting,
    kinds: Sequence[str],
    layers: Sequence[int],
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
    )
    dag.offer(Request("contrast", "", job))
    dag.drain()
    _refuse_failures(dag)
    shards = [shard for done in dag.record.of("contrast") for shard in done.manifest.shards]
    if not shards:
        raise ConfigError(
            "sources: no domain has 3 documents that fill a window in each half; give more documents, "
            f"or lower window.length ({question.plan.config.window.length})"
        )
    return shards


def _scan(dag: Dag, question: Question, shards: Sequence[Shard], asked: ScanConfig) -> list[Measurement]:
    """Measure windows of some shards of the contrast set; what the store has is not measured again."""
    config, model = question.plan.config, question.plan.model
    assert model is not None
    scorer = resolved_scorer(config.scorer)
    before = len(dag.record.done)
    question.console.expect_windows("scan", len(shards) * len(asked.kinds))
    keys = []
    for shard in shards:
        job = Job(
            stage="scan",
            label=f"{shard.key[:8]} {asked.dtype}",
            store=config.store,
            config=asked.model_dump(mode="json", exclude_none=True),
            inputs={"windows": [shard]},
            identity=[model.digest, *([model.tokenizer_digest] if asked.beside.reads_text else [])],
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


def _answer(
    question: Question, setting: Setting, measured: list[Measurement], in_bfloat16: list[Measurement], native: bool
) -> Evaluation:
    """The table, and the calibration where one is to be made."""
    calibration = question.calibration or _calibration(question, setting, measured)
    scores = all_scores(setting, measured, calibration)
    rows = table(setting, measured, scores, question.contrast, TEST)
    calibrating = [] if question.calibration else table(setting, measured, scores, question.contrast, CALIBRATE)
    if calibration and not question.calibration:
        told = [row for row in rows if row["formula"] in ("calibrated", "calibrated-layers", "order")]
        calibration = calibration.model_copy(update={"expected": tuple(told)})
    complete = [one.seconds for one in measured if one.half == TEST]
    whole_pass = sum(complete) / len(complete) if complete else float("nan")
    costs: list[dict[str, Any]] = [
        {
            "scorer": choice.scorer,
            "formula": choice.formula,
            "layers": choice.layers,
            "forward_passes": round(forward_passes(setting, choice), 3),
            "seconds": round(forward_passes(setting, choice) * whole_pass, 2),
        }
        for choice in scores
        if not is_one_layer(choice.formula, choice.layers)
    ]
    by_base = {one.base: one for one in in_bfloat16}
    stable = stability(setting, measured, by_base, calibration, native=native)
    return Evaluation(rows, stable, costs, calibration, question.calibration is None, calibrating)


def _calibration(question: Question, setting: Setting, measured: Sequence[Measurement]) -> Calibration | None:
    """The calibration that the calibrating half supports; None where it is empty."""
    half = [one for one in measured if one.half == CALIBRATE]
    if not half:
        return None
    chosen = choose_layers(setting, half)
    model = question.plan.model
    assert model is not None
    return Calibration(
        model=model.reference,
        model_digest=model.digest,
        window_length=setting.length,
        span=setting.config.span,
        d_afs=setting.config.d_afs,
        d_cds=setting.config.d_cds,
        layers=chosen.layers,
        ablation=chosen.ablation,
        dependency=fit_dependency(setting, half, chosen.auc),
        order=fit_order(setting, half),
        documents=tuple(sorted({document for one in half for document in one.documents})),
        seed=question.contrast.seed,
        versions=versions(),
    )


def _refuse_failures(dag: Dag) -> None:
    if dag.record.failures:
        first = dag.record.failures[0]
        raise UserError(f"{first.stage} {first.label}: {first.error}; the same command goes on where this one stopped")
