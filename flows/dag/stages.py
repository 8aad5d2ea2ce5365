"""The table of stages: all that is to be known of a stage, in one line of it.

The DAG, the plan, the jobs, the console, the runners, the run record, `ladm gc`, the report and the views of `ladm sql`
read this table. A new stage is its module in `tasks/stages/`, what its jobs are given in `jobs.py`, and its line here.

A *row* is a way to make jobs of a stage; one stage, `signatures`, has two. Rows stand in the order of the data, so that
what a row takes stands above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ladm.flows.config import RunConfig
from ladm.flows.dag import jobs
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.rows import Row, Take, View
from ladm.tasks.job import Stage
from ladm.tasks.schema import ALLOCATION, DOCUMENTS, DROPPED, NOT_RANKED, RANKING, SCORES, WINDOWS
from ladm.tasks.scorers.ladm import CALIBRATED
from ladm.tasks.stages import (
    benchmarks,
    card,
    contrast,
    dedup,
    export,
    gate,
    ingest,
    length,
    measure,
    rank,
    scan,
    score,
    short,
    signatures,
    tokenize,
)


def _replays(config: RunConfig) -> bool:
    return config.select.replay is not None


def _sifts(config: RunConfig) -> bool:
    return bool(config.deduplicate or config.decontaminate)


def _measures(config: RunConfig) -> bool:
    return bool(config.scorer.beside.names)


def _is_calibrated(config: RunConfig) -> bool:
    return config.scorer.layers == CALIBRATED


def _ranks_by_measures(config: RunConfig) -> bool:
    return config.select.reads_measures


def _ranks_by_documents(config: RunConfig) -> bool:
    return config.select.reads_documents


def _measuring(
    named: str,
    asks: Callable[..., Any],
    asked: Callable[[RunConfig], bool] = lambda config: True,
    asked_by: str = "",
    *,
    by_model: bool = True,
) -> Row:
    """A row that measures columns of windows; what the model is needed for shares the pass of the score."""
    return Row(
        measure.STAGE,
        "shard",
        (Take("windows", "tokenize", "each"), Take("drops", "dedup", "own")),
        asks,
        units=("windows", "windows"),
        asked=asked,
        asked_by=asked_by,
        receives=("dedup", "tokenize"),
        needs="weights" if by_model else "tokenizer",
        holds_model=by_model,
        named=named,
        along_with="score",
        shares_pass_of="score" if by_model else "",
        shown="windows" if by_model else "shards",
    )


TABLE: tuple[Row, ...] = (
    Row(
        ingest.STAGE,
        "source file",
        asks=jobs.ask_ingest,
        files=lambda plan: plan.files,
        units=("records", "documents"),
        views=(View("ingest_shards", DOCUMENTS),),
        begins_lineages=True,
    ),
    Row(
        length.STAGE,
        "shard",
        (Take("documents", "ingest", "each"),),
        jobs.ask_length,
        receives=("ingest",),
    ),
    Row(
        tokenize.STAGE,
        "shard",
        (Take("documents", "length", "each"),),
        jobs.ask_tokenize,
        units=("documents", "windows"),
        receives=("length",),
        passes_rows=True,
        needs="tokenizer",
        views=(View("tokenize_shards", WINDOWS),),
    ),
    Row(
        short.STAGE,
        "shard",
        (Take("documents", "ingest", "each"), Take("windows", "tokenize", "own")),
        jobs.ask_short,
        asked=_replays,
        asked_by="select.replay",
        receives=("ingest",),
        needs="tokenizer",
    ),
    Row(
        benchmarks.STAGE,
        "source file",
        asks=jobs.ask_benchmarks,
        files=lambda plan: plan.benchmarks,
        units=("passages", "passages"),
        asked=lambda config: config.decontaminate is not None,
        asked_by="decontaminate",
        shown="",
    ),
    Row(
        signatures.STAGE,
        "shard",
        (Take("documents", "length", "each"), Take("benchmarks", "benchmarks", "all")),
        jobs.ask_signatures,
        asked=_sifts,
        asked_by="deduplicate or decontaminate",
        receives=("length",),
    ),
    Row(
        signatures.STAGE,
        "shard",
        (
            Take("short", "short", "each"),
            Take("documents", "ingest", "own"),
            Take("long_enough", "length", "own"),
            Take("benchmarks", "benchmarks", "all"),
        ),
        jobs.ask_short_signatures,
        asked=lambda config: _sifts(config) and _replays(config),
        asked_by="select.replay",
        receives=("short",),
        named="signatures of short documents",
    ),
    Row(
        dedup.STAGE,
        "run",
        (
            Take("signatures", "signatures", "all"),
            Take("windows", "tokenize", "all"),
            Take("short", "short", "all"),
        ),
        jobs.ask_dedup,
        units=("windows", "windows"),
        asked=_sifts,
        asked_by="deduplicate or decontaminate",
        receives=("tokenize",),
        shown="jobs",
        views=(View("run_dropped", DROPPED, files=True),),
        published=(("files", "", "dropped.parquet"),),
        parts=dedup.drop_lists,
    ),
    Row(
        score.STAGE,
        "shard",
        (Take("windows", "tokenize", "each"), Take("drops", "dedup", "own")),
        jobs.ask_score,
        units=("windows", "windows"),
        receives=("dedup", "tokenize"),
        needs="weights",
        holds_model=True,
        shown="windows",
        views=(View("score_shards", SCORES),),
    ),
    _measuring("columns of the text", jobs.ask_text, by_model=False),
    _measuring("columns of the attention", jobs.ask_attention, _is_calibrated, "scorer.layers: calibrated"),
    Row(
        gate.STAGE,
        "shard",
        (Take("attention", "columns of the attention", "each"), Take("text", "columns of the text", "own")),
        jobs.ask_gate,
        units=("windows", "windows"),
        asked=_is_calibrated,
        asked_by="scorer.layers: calibrated",
        along_with="score",
    ),
    _measuring("measures", jobs.ask_measures, _measures, "scorer.beside", by_model=False),
    _measuring("measures by the model", jobs.ask_model_measures, _measures, "scorer.beside"),
    Row(
        rank.STAGE,
        "run",
        (
            Take("scores", "score", "all"),
            Take("gates", "gate", "all"),
            Take("measures", "columns of the text", "all", when=_ranks_by_measures),
            Take("documents", "length", "all", when=_ranks_by_documents),
            Take("short", "short", "all"),
            Take("drops", "dedup", "all", when=_replays),
        ),
        jobs.ask_rank,
        units=("windows", "documents"),
        receives=("score",),
        passes_rows=True,
        is_result=True,
        shown="jobs",
        views=(
            View("run_ranking", RANKING, added={"copies": "selected::bigint", "role": "'long'"}),
            View("run_allocation", ALLOCATION, files=True, ending="allocation.parquet", added={"role": "'long'"}),
            View("run_not_ranked", NOT_RANKED, files=True, ending="not_ranked.parquet"),
        ),
        published=(
            ("shards", "", "ranking.parquet"),
            ("files", "allocation.parquet", "allocation.parquet"),
            ("files", "not_ranked.parquet", "not_ranked.parquet"),
        ),
    ),
    Row(
        export.STAGE,
        "run",
        (
            Take("ranking", "rank", "all"),
            # What is replayed is too short for the length filter; ingestion holds everything.
            Take("documents", "length", "all", when=lambda config: not _replays(config)),
            Take("documents", "ingest", "all", when=_replays),
        ),
        jobs.ask_exports,
        receives=("rank",),
        is_result=True,
        shown="jobs",
    ),
    Row(
        card.STAGE,
        "run",
        (
            Take("ranking", "rank", "all"),
            Take("allocation", "rank", "all", files=True, ending="allocation.parquet"),
            Take("not_ranked", "rank", "all", files=True, ending="not_ranked.parquet"),
            Take("dropped", "dedup", "all", files=True),
            Take("documents", "length", "all", when=lambda config: not _replays(config)),
            Take("documents", "ingest", "all", when=_replays),
        ),
        jobs.ask_card,
        is_result=True,
        folder="export",
        shown="",
        along_with="export",
    ),
    Row(contrast.STAGE, "evaluation", units=("windows", "windows"), shown=""),
    Row(
        scan.STAGE,
        "evaluation",
        is_product=True,
        units=("windows", "windows"),
        holds_model=True,
        shown="windows",
    ),
)

BY_NAME = {row.name: row for row in TABLE}
STAGES: dict[str, Stage] = {row.stage.name: row.stage for row in TABLE}
"""Name → stage."""
NAMES = tuple(dict.fromkeys(row.stage.name for row in TABLE if not row.along_with and row.scope != "evaluation"))
"""The stages of a run, in order: what `--until` takes."""
FOLDERS = tuple(dict.fromkeys(row.stored_in for row in TABLE))
"""The folders of the store that stages write to."""
PRODUCTS = tuple(dict.fromkeys(row.stage.name for row in TABLE if row.is_result or row.is_product))
"""Stages whose files are read or published when no job is left."""
MODEL_STAGES = frozenset(row.stage.name for row in TABLE if row.holds_model)


def rows_of_stage(stage: str) -> list[Row]:
    """The rows of a stage."""
    return [row for row in TABLE if row.stage.name == stage]


def planned_rows(config: RunConfig, until: str) -> list[Row]:
    """The rows that a run has, in order: those that its configuration asks for, up to its last stage."""
    reached = NAMES[: NAMES.index(until) + 1]
    return [row for row in TABLE if (row.along_with or row.stage.name) in reached and row.asked(config)]


def rows_of(plan: Plan) -> list[Row]:
    """The rows that a run has, in order."""
    return planned_rows(plan.config, plan.until)


def told_stages(config: RunConfig, until: str) -> tuple[str, ...]:
    """The stages of a run that its record tells of."""
    rows = planned_rows(config, until)
    return tuple(dict.fromkeys(row.stage.name for row in rows if row.stage is not card.STAGE))


def takes_of(row: Row, plan: Plan) -> list[Take]:
    """The inputs that a run has for a row."""
    there = {other.name for other in rows_of(plan)}
    return [take for take in row.takes if take.of in there and take.when(plan.config)]
