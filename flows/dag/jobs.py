"""The jobs of a run, from its plan and what it has done so far: what each stage is given, and what its key counts.

`sift.py` has those that leave duplicates and benchmark passages out; `curate.py` says when a job is due.
"""

from __future__ import annotations

from typing import Any

from ladm.flows.dag.plan import Plan
from ladm.flows.runs.record import RunRecord, config_sha256, versions
from ladm.tasks.exporters.tokens import TokenExport
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.reading.sources import ListedFile
from ladm.tasks.stages.ingest import ingest_key_config
from ladm.tasks.stages.length import length_key_config
from ladm.tasks.stages.score import resolved_scorer, score_key_config


def ingest_job(plan: Plan, listed: ListedFile) -> Job:
    """Ingest one source file."""
    return Job(
        stage="ingest",
        label=listed.file.uri.rsplit("/", 1)[-1],
        store=plan.config.store,
        config=ingest_key_config(listed.config, plan.config.ingest),
        source=listed.file,
    )


def shard_job(plan: Plan, stage: str, label: str, shard: Shard) -> Job:
    """One of the per-shard stages after ingestion."""
    config, model = plan.config, plan.model
    job = Job(stage=stage, label=label, store=config.store, config={}, inputs=[shard])
    if stage == "length":
        return job.model_copy(update={"config": length_key_config(config.length, config.window.length)})
    assert model is not None
    if stage == "tokenize":
        return job.model_copy(
            update={
                "config": config.window.model_dump(),
                "identity": [model.tokenizer_digest],
                "environment": {"model": config.scorer.model},
            }
        )
    scorer = resolved_scorer(plan.scorer)
    calibration = plan.calibration
    environment = {
        "model": scorer.model,
        "device": scorer.device,
        "batch_tokens": scorer.batch_tokens,
        # The key keeps the layers as they were asked for; what `all` means follows from the rest of the key.
        "layers": plan.layers,
    }
    return job.model_copy(
        update={
            "config": score_key_config(scorer, calibration.weights if calibration else None),
            # The tokenizer counts where a scorer reads the text that the tokens stand for.
            "identity": [model.digest, *([model.tokenizer_digest] if scorer.beside.text else [])],
            "environment": environment,
        }
    )


def rank_job(plan: Plan, record: RunRecord) -> Job:
    """Rank all score shards; sorted, so that the key does not depend on the order of the sources.

    A limit on what one source may hold needs the documents too, which alone name their sources.
    """
    select = plan.config.select
    shards = sorted(record.shards("score"), key=lambda shard: shard.key)
    if select.max_source_share is not None:
        shards += sorted(record.shards("length"), key=lambda shard: shard.key)
    if select.replay:
        drop_lists = {shard.key: shard for shard in record.shards("dedup") if shard.rows}
        shards += sorted([*record.shards("short"), *drop_lists.values()], key=lambda shard: shard.key)
    config = select.model_dump()
    return Job(stage="rank", label="all shards", store=plan.config.store, config=config, inputs=shards)


def export_jobs(plan: Plan, record: RunRecord) -> list[Job]:
    """One export a format, and the card, which also tells of the allocation and of what was not scored."""
    config, model = plan.config, plan.model
    assert model is not None
    # What is replayed is too short for the later of these stages, and the earlier holds everything.
    texts = record.shards("ingest" if config.select.replay else "length")
    documents = sorted(texts, key=lambda shard: shard.key)
    ranking = record.shards("rank")
    allocation = [file for done in record.of("rank") for file in done.manifest.files]
    about: dict[str, Any] = {
        "run": config.model_dump(mode="json"),
        "model": {"reference": model.reference, "digest": model.digest},
        "versions": versions(),
    }
    about["config_sha256"] = config_sha256(about["run"])
    exports = [
        Job(
            stage="export",
            label=one.format,
            store=config.store,
            config=one.model_dump(),
            inputs=[*ranking, *documents],
            identity=[model.tokenizer_digest] if isinstance(one, TokenExport) else [],
            environment={"model": config.scorer.model},
        )
        for one in plan.exports
    ]
    dropped = [file for done in record.of("dedup") for file in done.manifest.files]
    inputs = [*ranking, *allocation, *dropped, *documents]
    return [*exports, Job(stage="card", label="dataset card", store=config.store, config=about, inputs=inputs)]
