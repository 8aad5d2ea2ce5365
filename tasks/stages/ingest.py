"""Ingestion: source files become document shards of bounded size, and every record is accounted for.

A job reads one file, a part of a large one (`reading/parts.py`), or a group of small ones (`groups.py`). A bad record
goes to quarantine with its file, line and reason, and the good ones around it are kept. A file that cannot be read to
its end is quarantined whole: none of its documents is used, so that tomorrow's repaired file is not counted twice. The
others of its group are used.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, BinaryIO, Literal, cast

from pydantic import Field

from ladm.tasks import stopping
from ladm.tasks.job import Job, Outcome, QuarantineEntry, Stage
from ladm.tasks.manifest import Counts, PackedFile, SourceFile, add_counts, content_key
from ladm.tasks.reading.document_shards import VERSION, DocumentShards
from ladm.tasks.reading.expressions import DroppedRecord
from ladm.tasks.reading.finished_shards import FinishedShards, Progress
from ladm.tasks.reading.parts import ALL, Places, Wanted
from ladm.tasks.reading.readers import Record, SourceConfig, UnreadableFile, detect_format, read_records
from ladm.tasks.reading.records import LastRead
from ladm.tasks.reading.reported import ReportedFile
from ladm.tasks.reading.sources import check_unchanged, gone_is_changed
from ladm.tasks.settings import Settings
from ladm.tasks.storage.file_systems import opened
from ladm.tasks.storage.store import Store

PLACES = "places"
"""In a job's environment: the folder of the notes of where parts of its file begin."""
SMALL_SHARE = 64
"""A file with less than one part in so many of a shard's bytes is not looked for among those half read."""
WITHOUT_DOMAIN = "without_domain"
"""The measure that counts documents which name no domain; it is there where there are such."""


class IngestConfig(Settings):
    """The `ingest:` section."""

    shard_bytes: int = 64 * 2**20
    """Bytes of text in a shard, about. A stage needs a few times as much memory."""
    identity: Literal["stat", "content"] = "stat"
    """How a changed source file is noticed. `stat`: its size or its modification time (on S3 its ETag) is another.
    `content`: the hash of its content is another; every file is then read in every run."""
    pack_bytes: int = Field(default=2**22, ge=0)
    """Bytes, as stored, of small source files that one job reads together, about. Files of a quarter of this or more
    are read alone, as are those of an entry of `sources` with fewer than 32 smaller ones. 0: each file alone."""
    part_bytes: int = Field(default=2**25, ge=0)
    """Bytes, as stored, of the parts in which a large file is read, several at once, about: JSON lines that are
    compressed in many frames (bgzip's gzip, too) or not at all, and Parquet by row groups. A part of a file that is not
    compressed has `shard_bytes` at least. Only files of twice as much are cut, and none under `identity: content`. The
    documents are the same in any case. 0: no file is cut."""


def ingest_key_config(source: SourceConfig, config: IngestConfig) -> dict[str, Any]:
    """What ingestion computes with: how records are read, not where the file lies (its identity says that)."""
    return {**source.model_dump(exclude={"uri", "only"}), "shard_bytes": config.shard_bytes}


def ingest_identity(uri: str, source: SourceConfig) -> list[str]:
    """What more a file's key holds: Parquet and Arrow were once read without most of their columns."""
    try:
        return ["all columns"] if detect_format(uri, source) in ("parquet", "arrow") else []
    except UnreadableFile:
        return []


def ingest(job: Job, store: Store, key: str) -> Outcome:
    """Read source files into document shards of about `shard_bytes` of text each: one file, or a group.

    A shard's key is the hash of its documents, not of the files' identity. So a file that merely has a new date
    (copied, checked out, uploaded again) is read again, and nothing after that is done again; and of a large file that
    changed in one place, only the shards that changed are.
    """
    config = dict(job.config)
    shard_bytes = int(config.pop("shard_bytes"))
    if job.source:
        reading = SourceConfig(uri=job.source.uri, **config)
        return _read_alone(job, job.source, reading, DocumentShards(store, shard_bytes), FinishedShards(store, key))
    reading = SourceConfig(uri=job.group[0].uri, **config)
    pending = DocumentShards(store, shard_bytes)
    counts: list[Counts] = []
    quarantine: list[QuarantineEntry] = []
    packed: list[PackedFile] = []
    measures: Counter[str] = Counter()
    for source in job.group:
        of_file = DocumentShards(store, shard_bytes)
        outcome = _read(source, reading.model_copy(update={"uri": source.uri}), of_file, Progress())
        whole = not outcome.measures.get("files_quarantined")
        content = of_file.content() if whole else content_key("unreadable", outcome.quarantine[0].reason)
        if whole:
            pending.absorb(of_file)
        counts.append(outcome.counts)
        quarantine += outcome.quarantine
        measures.update(outcome.measures)
        packed.append(
            PackedFile(
                uri=source.uri,
                name=source.known_as,
                documents=outcome.counts.kept,
                quarantined=outcome.counts.quarantined,
                content=content,
            )
        )
    pending.flush()
    return Outcome(
        counts=add_counts(counts),
        shards=pending.shards,
        quarantine=quarantine,
        measures=dict(measures),
        packed=packed,
    )


def may_fill_a_shard(source: SourceFile, shard_bytes: int) -> bool:
    """Whether a file may have more text than a shard takes; then it is noted how far it is read."""
    return source.size * SMALL_SHARE >= shard_bytes


def _read_alone(
    job: Job, source: SourceFile, reading: SourceConfig, pending: DocumentShards, finished: FinishedShards
) -> Outcome:
    """Read one file, or a part of it; where an earlier try of the job was killed, from its last full shard on."""
    places = Places(pending.store, str(job.environment[PLACES])) if PLACES in job.environment else None
    progress = Progress()
    if may_fill_a_shard(source, pending.shard_bytes):
        progress = finished.take_up(pending)
        pending.tell = lambda shard: finished.note(shard, pending, progress)
    outcome = _read(source, reading, pending, progress, Wanted(job.part, places, progress.last))
    if outcome.measures.get("files_quarantined"):
        finished.forget()
        return outcome
    pending.flush()
    return replace(outcome, shards=pending.shards)


def _read(
    source: SourceFile,
    reading: SourceConfig,
    pending: DocumentShards,
    progress: Progress,
    wanted: Wanted = ALL,
) -> Outcome:
    """Read some or all of one file's documents into `pending`."""
    quarantine, dropped = progress.quarantine, progress.dropped
    total = wanted.part.bytes if wanted.part else source.size
    try:
        with open_source(source) as opened_file, ReportedFile(opened_file, STAGE.name, total) as file:
            for record in read_records(cast(BinaryIO, file), source.uri, reading, wanted):
                stopping.check()
                if isinstance(record, Record):
                    progress.last = LastRead(record.line, record.offset)
                    pending.add(source, record)
                elif isinstance(record, DroppedRecord):
                    dropped[record.reason] += 1
                else:
                    quarantine.append(
                        QuarantineEntry(
                            source=source.uri,
                            line=record.line,
                            reason=record.reason,
                            excerpt=record.excerpt,
                        )
                    )
    except UnreadableFile as damage:
        if not source.problem:
            check_unchanged(source)  # half-way through being replaced, it is not worth a quarantine
        seen = pending.documents + len(quarantine) + dropped.total()
        # Shards already written stay: an earlier, whole version of the file may have the same ones.
        return _unreadable(source, damage, seen)
    check_unchanged(source)
    without = pending.without_domain if isinstance(reading.domain, str) else 0
    return Outcome(
        counts=Counts(
            received=pending.documents + len(quarantine) + dropped.total(),
            kept=pending.documents,
            dropped=dict(dropped),
            quarantined=len(quarantine),
        ),
        quarantine=quarantine,
        measures={
            "bytes": pending.bytes,
            "files": int(wanted.part is None or wanted.part.begin == 0),
            **({WITHOUT_DOMAIN: without} if without else {}),
        },
    )


def open_source(source: SourceFile) -> BinaryIO:
    """Open a listed file for reading; `UnreadableFile` if the listing already found that it cannot be."""
    if source.problem:
        raise UnreadableFile(source.problem)
    with gone_is_changed(source):
        return opened(source.uri)


def _unreadable(source: SourceFile, damage: UnreadableFile, seen: int) -> Outcome:
    # The records read before the damage count as quarantined, and the rest of the file as one more.
    used = f"; the {seen} records before the damage are not used" if seen else ""
    entry = QuarantineEntry(source=source.uri, line=None, reason=f"{damage.reason}{used}", records=seen + 1)
    return Outcome(
        counts=Counts(received=seen + 1, quarantined=seen + 1),
        quarantine=[entry],
        measures={"files": 1, "files_quarantined": 1},
    )


STAGE = Stage(name="ingest", version=VERSION, compute=ingest)
