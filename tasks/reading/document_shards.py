"""Documents gathered into shards of bounded size, as ingestion writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from ladm.tasks.manifest import Shard, SourceFile, content_key
from ladm.tasks.reading.records import UNKNOWN_DOMAIN, Record
from ladm.tasks.schema import DOCUMENTS
from ladm.tasks.storage.store import Store, table_of

VERSION = "1"
"""Of the stage, which counts for the keys of the shards, too."""
PACKED_BYTES = 4 * 2**20


def document_id(name: str, line: int, text_sha256: str) -> str:
    """The id of a document: its place in the sources and its content. Ids given by users are not unique.

    The place is the file's name below the root of its source, so a corpus that was moved keeps its ids.
    """
    return hashlib.sha256(f"{name}\0{line}\0{text_sha256}".encode()).hexdigest()[:32]


class DocumentShards:
    """Documents gathered until they make a shard: a few as Python's objects, the others as Arrow's, which are half."""

    def __init__(self, store: Store, shard_bytes: int) -> None:
        """Write shards of about so many bytes of text."""
        self.store = store
        self.shard_bytes = shard_bytes
        self.shards: list[Shard] = []
        self.documents = 0
        self.bytes = 0
        self.without_domain = 0
        self.tell: Callable[[Shard], None] = lambda shard: None
        """Told of each shard that is full."""
        self._gathered = 0
        self._packed_at = 0
        """Of the bytes gathered, those in `_tables`."""
        self._tables: list[pa.Table] = []
        self._rows: dict[str, list[Any]] = {name: [] for name in DOCUMENTS.names}

    def add(self, source: SourceFile, record: Record) -> None:
        """Add a document."""
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
            self.tell(self.shards[-1])
        elif self._gathered - self._packed_at >= PACKED_BYTES:
            self._pack()

    def absorb(self, other: DocumentShards) -> None:
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
        rows = [self._rows[name] for name in DOCUMENTS.names if name != "text"]
        return content_key([shard.key for shard in self.shards], [*map(_fields, self._tables), rows])

    def flush(self) -> None:
        """Write what is gathered as a shard, if there is anything."""
        self._pack()
        table = pa.concat_tables(self._tables) if self._tables else DOCUMENTS.empty_table()
        self._tables, self._gathered, self._packed_at = [], 0, 0
        if not table.num_rows:
            return
        key = content_key("documents", VERSION, _fields(table))
        self.shards.append(self.store.write_shard("ingest", key, table))

    def _pack(self) -> None:
        if self._rows["doc_id"]:
            self._tables.append(table_of(self._rows, DOCUMENTS))
        self._rows = {name: [] for name in DOCUMENTS.names}
        self._packed_at = self._gathered


def _fields(table: pa.Table) -> list[list[Any]]:
    """All that documents are but their texts, for which their sha256 stands."""
    return [table[name].to_pylist() for name in DOCUMENTS.names if name != "text"]
