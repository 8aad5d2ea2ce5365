"""Ingestion: source files become document shards of bounded size, and every record is accounted for.

A job reads one file, a part of a large one (`reading/parts.py`), or a group of small ones (`groups.py`). A bad record
goes to quarantine with its file, line and reason, and the good ones around it are kept. A file that cannot be read to
its end is quarantined whole: none of its documents is used, so that tomorrow's repaired file is not counted twice. The
others of its group are used.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal

import pyarrow as pa
from pydantic import Field

from ladm.tasks import stopping
from ladm.tasks.job import Job, Outcome, QuarantineEntry, Stage
from ladm.tasks.manifest import Counts, PackedFile, Part, Shard, SourceFile, add_counts, content_key
from ladm.tasks.reading.expressions import DroppedRecord
from ladm.tasks.reading.parts import Places
from ladm.tasks.reading.readers import Record, SourceConfig, UnreadableFile, detect_format, read_records
from ladm.tasks.reading.records import UNKNOWN_DOMAIN
from ladm.tasks.reading.sources import check_unchanged
from ladm.tasks.schema import DOCUMENTS
from ladm.tasks.settings import Settings
from ladm.tasks.storage.file_systems import opened
from ladm.tasks.storage.store import Store, table_of

PACKED_BYTES = 4 * 2**20
PLACES = "places"
"""In a job's environment: the folder of the notes of where parts of its file begin."""
WITHOUT_DOMAIN = "without_domain"
"""The measure that counts documents which name no domain; it is there where there are such."""


class IngestConfig(Settings):
    """The `ingest:` section."""

    shard_bytes: int = 64 * 2**20
    """Bytes of text in a shard, about. A stage needs a few times as much memory."""
    identity: Literal["stat", "content"] = "stat"
    """How a changed source file is noticed. `stat`: its size or its modification time (on S3 its ETag) is another.
    `content`: the hash of its content is another; every file is then read in every run."""
    pack_bytes: int = Field(default=2**20, ge=0)
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


def document_id(name: str, line: int, text_sha256: str) -> str:
    """The id of a document: its place in the sources and its content. Ids given by users are not unique.

    The place is the file's name below the root of its source, so a corpus that was moved keeps its ids.
    """
    return hashlib.sha256(f"{name}\0{line}\0{text_sha256}".encode()).hexdigest()[:32]


def ingest(job: Job, store: Store, key: str) -> Outcome:
    """Read source files into document shards of about `shard_bytes` of text each: one file, or a group.

    A shard's key is the hash of its documents, not of the files' identity. So a file that merely has a new date
    (copied, checked out, uploaded again) is read again, and nothing after that is done again; and of a large file that
    changed in one place, only the shards that changed are.
    """
    config = dict(job.config)
    shard_bytes = int(config.pop("shard_bytes"))
    if job.source:
        places = Places(store, str(job.environment[PLACES])) if PLACES in job.environment else None
        return _read(job.source, config, _PendingShard(store, shard_bytes), part=job.part, places=places)
    pending = _PendingShard(store, shard_bytes)
    counts: list[Counts] = []
    quarantine: list[QuarantineEntry] = []
    packed: list[PackedFile] = []
    measures: Counter[str] = Counter()
    for source in job.group:
        of_file = _PendingShard(store, shard_bytes)
        outcome = _read(source, config, of_file, flush=False)
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


def _read(
    source: SourceFile,
    config: Mapping[str, Any],
    pending: _PendingShard,
    *,
    flush: bool = True,
    part: Part | None = None,
    places: Places | None = None,
) -> Outcome:
    """Read one file's documents into `pending`, and those that are left there, too, into a shard if `flush`."""
    reading = SourceConfig(uri=source.uri, **config)
    quarantine: list[QuarantineEntry] = []
    dropped: Counter[str] = Counter()
    try:
        with open_source(source) as file:
            for record in read_records(file, source.uri, reading, part, places):
                stopping.check()
                if isinstance(record, Record):
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
    if flush:
        pending.flush()
    check_unchanged(source)
    without = pending.without_domain if isinstance(reading.domain, str) else 0
    return Outcome(
        counts=Counts(
            received=pending.documents + len(quarantine) + dropped.total(),
            kept=pending.documents,
            dropped=dict(dropped),
            quarantined=len(quarantine),
        ),
        shards=pending.shards,
        quarantine=quarantine,
        measures={
            "bytes": pending.bytes,
            "files": int(part is None or part.begin == 0),
            **({WITHOUT_DOMAIN: without} if without else {}),
        },
    )


def open_source(source: SourceFile) -> BinaryIO:
    """Open a listed file for reading; `UnreadableFile` if the listing already found that it cannot be."""
    if source.problem:
        raise UnreadableFile(source.problem)
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


class _PendingShard:
    """Documents gathered until they make a shard: a few as Python's objects, the others as Arrow's, which are half."""

    def __init__(self, store: Store, shard_bytes: int) -> None:
        self.store = store
        self.shard_bytes = shard_bytes
        self.shards: list[Shard] = []
        self.documents = 0
        self.bytes = 0
        self.without_domain = 0
        self._gathered = 0
        self._packed_at = 0
        """Of the bytes gathered, those in `_tables`."""
        self._tables: list[pa.Table] = []
        self._rows: dict[str, list[Any]] = {name: [] for name in DOCUMENTS.names}

    def add(self, source: SourceFile, record: Record) -> None:
        encoded = record.text.encode()
        sha256 = hashlib.sha256(encoded).hexdigest()
        row = {
            "doc_id": document_id(source.known_as, record.line, sha256),
            "domain": record.domain,
            "text": record.text,
            "source": source.known_as,
            "line": record.line,
            "offset": record.offset,
            "sha256": sha256,
            "bytes": len(encoded),
            "meta": record.meta,
        }
        for name, column in self._rows.items():
            column.append(row[name])
        self.documents += 1
        self.without_domain += record.domain == UNKNOWN_DOMAIN
        self.bytes += len(encoded)
        self._gathered += len(encoded)
        if self._gathered >= self.shard_bytes:
            self.flush()
        elif self._gathered - self._packed_at >= PACKED_BYTES:
            self._pack()

    def absorb(self, other: _PendingShard) -> None:
        """Take over what another one has gathered. What is already in shards stays apart from this one's documents."""
        if other.shards:
            self.flush()
            other.flush()
            self.shards += other.shards
        else:
            if other._tables:
                self._pack()
                self._tables += other._tables
            for name, column in self._rows.items():
                column.extend(other._rows[name])
            self._gathered += other._gathered
            self._packed_at += other._packed_at
        self.documents += other.documents
        self.bytes += other.bytes
        if self._gathered >= self.shard_bytes:
            self.flush()
        elif self._gathered - self._packed_at >= PACKED_BYTES:
            self._pack()

    def content(self) -> str:
        """The hash of all documents that were added."""
        gathered = [*self._tables, table_of(self._rows, DOCUMENTS)]
        return content_key([shard.key for shard in self.shards], [_fields(table) for table in gathered])

    def flush(self) -> None:
        self._pack()
        table = pa.concat_tables(self._tables) if self._tables else DOCUMENTS.empty_table()
        self._tables, self._gathered, self._packed_at = [], 0, 0
        if not table.num_rows:
            return
        key = content_key("documents", STAGE.version, _fields(table))
        self.shards.append(self.store.write_shard("ingest", key, table))

    def _pack(self) -> None:
        if self._rows["doc_id"]:
            self._tables.append(table_of(self._rows, DOCUMENTS))
        self._rows = {name: [] for name in DOCUMENTS.names}
        self._packed_at = self._gathered


def _fields(table: pa.Table) -> list[list[Any]]:
    """All that documents are but their texts, for which their sha256 stands."""
    return [table[name].to_pylist() for name in DOCUMENTS.names if name != "text"]


STAGE = Stage(name="ingest", version="1", compute=ingest)
