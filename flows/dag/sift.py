"""The jobs before scoring that leave duplicates and benchmark passages out of it; `curate.py` says when they are due.

All documents must be tokenized before it is known which of them to score. So with them scoring waits for the last
tokenization, and a run in which a shard failed before that scores nothing: a document that is missing could be the
one for which others are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from ladm.flows.dag.plan import Plan
from ladm.flows.runs.record import Done, RunRecord
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.reading.sources import ListedFile
from ladm.tasks.shingles import minhash_version
from ladm.tasks.stages.dedup import dedup_key_config


def benchmark_jobs(plan: Plan) -> list[tuple[ListedFile, Job]]:
    """Read each benchmark file."""
    decontaminate = plan.config.decontaminate
    assert decontaminate is not None
    return [
        (
            listed,
            Job(
                stage="benchmarks",
                label=listed.file.uri.rsplit("/", 1)[-1],
                store=plan.config.store,
                config={
                    **decontaminate.model_dump(include={"ngram", "shortest"}),
                    **listed.config.model_dump(include={"text", "format", "max_record_bytes"}),
                },
                source=listed.file,
            ),
        )
        for listed in plan.benchmarks
    ]


def signatures_job(plan: Plan, label: str, shards: Sequence[Shard], benchmarks: Sequence[Shard]) -> Job:
    """The signatures of one shard of documents; the threshold of similarity makes no difference to them.

    `shards` is the shard of documents and, to have only its short ones, the shard of these (`short.py`) and that of the
    long enough ones, whose signatures are made without.
    """
    near = plan.config.deduplicate and plan.config.deduplicate.near
    return Job(
        stage="signatures",
        label=label,
        store=plan.config.store,
        config={"near": near.model_dump(exclude={"threshold"}) if near else None},
        inputs=[*shards, *benchmarks],
        identity=[minhash_version()] if near else [],
    )


def short_job(plan: Plan, label: str, shards: Sequence[Shard]) -> Job:
    """Count the tokens of an ingested shard's short documents; the other shard, if any, is of its windows."""
    model = plan.model
    assert model is not None
    return Job(
        stage="short",
        label=label,
        store=plan.config.store,
        config={"window_length": plan.config.window.length},
        inputs=list(shards),
        identity=[model.tokenizer_digest],
        environment={"model": plan.config.scorer.model},
    )


def dedup_job(plan: Plan, record: RunRecord) -> Job:
    """Decide which documents are not scored; sorted, so that the key does not depend on the order of the sources."""
    inputs = [*record.shards("signatures"), *record.shards("tokenize"), *record.shards("short")]
    return Job(
        stage="dedup",
        label="all shards",
        store=plan.config.store,
        config=dedup_key_config(plan.config.deduplicate),
        inputs=sorted(inputs, key=lambda shard: shard.key),
    )


def shards_to_score(record: RunRecord) -> list[tuple[Done, Shard, list[Shard]]]:
    """Each shard of windows, the job that made it, and the list of its documents not to score if there are any."""
    compared = sorted([*record.shards("tokenize"), *record.shards("short")], key=lambda shard: shard.key)
    (decided,) = record.of("dedup")
    drops = {shard.key: lists for shard, lists in zip(compared, decided.manifest.shards, strict=True)}
    return [
        (done, shard, [drops[shard.key]] if drops[shard.key].rows else [])
        for done in record.of("tokenize")
        for shard in done.manifest.shards
    ]
