"""The table of stages: all that is to be known of a stage, in one line of it.

The DAG, the plan, the jobs, the console, the runners, the run record, `ladm gc`, the report and the views of `ladm sql`
read this table. A new stage is its module in `tasks/stages/`, what its jobs are given in `jobs.py`, and its line here.

A *row* is a way to make jobs of a stage; one stage, `signatures`, has two. Rows stand in the order of the data, so that
what a row takes stands above it.
"""

from __future__ import annotations

from ladm.flows.config import RunConfig
from ladm.flows.dag import asked, calibrating, jobs
from ladm.flows.dag.measuring import measuring
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.rows import Row, Take, View
from ladm.tasks.job import Stage
from ladm.tasks.schema import ALLOCATION, DOCUMENTS, DROPPED, FILTERED, NOT_RANKED, RANKING, SCORES, WINDOWS
from ladm.tasks.stages import (
    benchmarks,
    card,
    cut,
    dedup,
    export,
    gate,
    ingest,
    length,
    publish,
    rank,
    score,
    short,
    signatures,
    tokenize,
)
from ladm.tasks.stages import filter as filtering

TEXTS = (
    Take("documents", "length", "all", rather="filter", when=lambda config: not asked.replays(config)),
    Take("documents", "ingest", "all", when=asked.replays),
)
"""The documents of a selection. What is replayed is too short for the length filter; ingestion holds everything."""

TABLE: tuple[Row, ...] = (
    Row(
        cut.STAGE,
        "source file",
        asks=jobs.ask_cut,
        files=jobs.large_files,
        units=("files", "files"),
        asked=lambda config: config.ingest.part_bytes > 0,
        folder="ingest",
        shown="",
        along_with="ingest",
    ),
    Row(
        ingest.STAGE,
        "source file",
        asks=jobs.ask_ingest,
        files=jobs.files_to_read,
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
        filtering.STAGE,
        "shard",
        (Take("documents", "length", "each"),),
        jobs.ask_filter,
        asked=asked.filters,
        asked_by="filters",
        receives=("length",),
        views=(View("filter_dropped", FILTERED, files=True),),
    ),
    Row(
        tokenize.STAGE,
        "shard",
        (Take("documents", "length", "each", rather="filter"),),
        jobs.ask_tokenize,
        units=("documents", "windows"),
        receives=("filter", "length"),
        passes_rows=True,
        needs="tokenizer",
        views=(View("tokenize_shards", WINDOWS),),
    ),
    Row(
        short.STAGE,
        "shard",
        (
            Take("documents", "ingest", "each"),
            Take("windows", "tokenize", "own"),
            Take("long_enough", "length", "own", when=asked.filters),
            Take("kept", "filter", "own"),
        ),
        jobs.ask_short,
        asked=asked.replays,
        asked_by="select.replay",
        receives=("ingest",),
        needs="tokenizer",
        views=(View("short_dropped", FILTERED, files=True),),
    ),
    Row(
        benchmarks.STAGE,
        "source file",
        asks=jobs.ask_benchmarks,
        files=lambda plan: [[listed] for listed in plan.benchmarks],
        units=("passages", "passages"),
        asked=lambda config: config.decontaminate is not None,
        asked_by="decontaminate",
        shown="",
    ),
    Row(
        signatures.STAGE,
        "shard",
        (Take("documents", "length", "each", rather="filter"), Take("benchmarks", "benchmarks", "all")),
        jobs.ask_signatures,
        asked=asked.sifts,
        asked_by="deduplicate or decontaminate",
        receives=("filter", "length"),
    ),
    Row(
        signatures.STAGE,
        "shard",
        (
            Take("short", "short", "each"),
            Take("documents", "ingest", "own"),
            Take("long_enough", "length", "own", rather="filter"),
            Take("benchmarks", "benchmarks", "all"),
        ),
        jobs.ask_short_signatures,
        asked=lambda config: asked.sifts(config) and asked.replays(config),
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
        asked=asked.sifts,
        asked_by="deduplicate or decontaminate",
        receives=("tokenize",),
        shown="jobs",
        views=(View("run_dropped", DROPPED, files=True),),
        published=(("files", "", "dropped.parquet"),),
        parts=dedup.drop_lists,
    ),
    *calibrating.ROWS,
    Row(
        score.STAGE,
        "shard",
        (Take("windows", "tokenize", "each"), Take("drops", "dedup", "own"), calibrating.WAIT),
        jobs.ask_score,
        units=("windows", "windows"),
        receives=("dedup", "tokenize"),
        needs="weights",
        holds_model=True,
        takes_over=True,
        shown="windows",
        views=(View("score_shards", SCORES),),
    ),
    measuring("columns of the text", jobs.ask_text, by_model=False),
    measuring("columns of the attention", jobs.ask_attention, asked.is_calibrated, "scorer.layers: calibrated"),
    Row(
        gate.STAGE,
        "shard",
        (
            Take("attention", "columns of the attention", "each"),
            Take("text", "columns of the text", "own"),
            Take("scores", "score", "own"),
        ),
        jobs.ask_gate,
        units=("windows", "windows"),
        asked=asked.is_calibrated,
        asked_by="scorer.layers: calibrated",
        along_with="score",
    ),
    measuring("measures", jobs.ask_measures, asked.measures, "scorer.beside", by_model=False),
    measuring("measures by the model", jobs.ask_model_measures, asked.measures, "scorer.beside"),
    Row(
        rank.STAGE,
        "run",
        (
            Take("scores", "score", "all"),
            Take("gates", "gate", "all"),
            Take("measures", "columns of the text", "all", when=asked.ranks_by_measures),
            Take("documents", "length", "all", rather="filter", when=asked.ranks_by_documents),
            Take("short", "short", "all"),
            Take("drops", "dedup", "all", when=asked.replays),
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
            *TEXTS,
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
            Take("filtered", "filter", "all", files=True),
            Take("filtered_short", "short", "all", files=True),
            *TEXTS,
        ),
        jobs.ask_card,
        is_result=True,
        folder="export",
        shown="",
        along_with="export",
    ),
    Row(
        publish.STAGE,
        "run",
        (Take("exports", "export", "all", files=True), Take("card", "card", "all", files=True)),
        jobs.ask_publish,
        units=("files", "files"),
        asked=lambda config: config.publish is not None,
        asked_by="publish",
        is_result=True,
        shown="",
        along_with="export",
    ),
)

BY_NAME = {row.name: row for row in TABLE}
STAGES: dict[str, Stage] = {row.stage.name: row.stage for row in TABLE}
"""Name → stage."""
NAMES = tuple(dict.fromkeys(row.stage.name for row in TABLE if not row.along_with))
"""The stages of a run, in order: what `--until` takes."""
FOLDERS = tuple(dict.fromkeys(row.stored_in for row in TABLE))
"""The folders of the store that stages write to."""
STORE_FOLDERS = ("runs", "records", *FOLDERS, "quarantine")
"""All folders of a store, in the order in which `ladm gc` deletes from them."""
PRODUCTS = tuple(dict.fromkeys(row.stage.name for row in TABLE if row.is_result or row.is_product))
"""Stages whose files are read or published when no job is left."""
UNTOLD = (cut.STAGE.name, card.STAGE.name)
"""Stages of which the record of a run names the jobs, and makes no account."""
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
    return tuple(dict.fromkeys(row.stage.name for row in rows if row.stage.name not in UNTOLD))
