"""How far a file was read: a note of each shard that is full, so that a read that was killed goes on from the last.

A note is written after its shard. It holds what was read so far, as counts, and what was quarantined since the note
before. Notes are those of one job's key, so of one version of the file and of the settings; they are deleted when the
job's record is written. A shard that is no longer what was written ends what counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import msgspec

from ladm.tasks.frozen import Frozen
from ladm.tasks.job import QuarantineEntry
from ladm.tasks.manifest import Shard, notes_folder
from ladm.tasks.reading.document_shards import DocumentShards
from ladm.tasks.reading.records import LastRead
from ladm.tasks.storage.store import Store

OF_STAGE = "ingest"


class _Note(Frozen, frozen=True):
    """What was read when a shard was full."""

    shard: Shard
    line: int
    offset: int
    """Of the last record that was read; as in `Record`."""
    documents: int
    bytes: int
    without_domain: int
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    quarantine: list[QuarantineEntry] = msgspec.field(default_factory=list)
    """Since the note before."""


@dataclass
class Progress:
    """What was read of a file, but for its documents."""

    last: LastRead | None = None
    """The last record; None where nothing was read."""
    dropped: Counter[str] = field(default_factory=Counter)
    quarantine: list[QuarantineEntry] = field(default_factory=list)


class FinishedShards:
    """The shards of one job that are full."""

    def __init__(self, store: Store, key: str) -> None:
        """Keep a note of each beside the record of the job, whose key it is."""
        self._store, self._key = store, key
        self._notes = 0
        self._quarantined = 0

    def take_up(self, pending: DocumentShards) -> Progress:
        """What an earlier try of the job has done already; its shards and counts are put into `pending`."""
        progress = Progress()
        for note in self._there():
            pending.shards.append(note.shard)
            pending.documents, pending.bytes = note.documents, note.bytes
            pending.without_domain = note.without_domain
            progress.last = LastRead(note.line, note.offset)
            progress.dropped = Counter(note.dropped)
            progress.quarantine += note.quarantine
            self._notes += 1
        self._quarantined = len(progress.quarantine)
        return progress

    def note(self, shard: Shard, pending: DocumentShards, progress: Progress) -> None:
        """Note that a shard is full."""
        assert progress.last is not None
        note = _Note(
            shard=shard,
            line=progress.last.line,
            offset=progress.last.offset,
            documents=pending.documents,
            bytes=pending.bytes,
            without_domain=pending.without_domain,
            dropped=dict(progress.dropped),
            quarantine=progress.quarantine[self._quarantined :],
        )
        self._store.write_bytes(self._path(self._notes), note.as_json())
        self._notes += 1
        self._quarantined = len(progress.quarantine)

    def noted_from(self, number: int) -> Iterator[Shard]:
        """The shards that are noted, from one on; whether they still are what was written is not looked at."""
        return (note.shard for note in self._noted(number))

    def forget(self, full: int | None = None) -> None:
        """Delete the notes: the job is done.

        Args:
            full: How many shards there are notes of, or one more; None: those that were written or taken up here.
        """
        for number in range(self._notes if full is None else full):
            self._store.remove(self._path(number))
        self._store.remove_empty_folders(notes_folder(self._key))

    def _there(self) -> Iterator[_Note]:
        for note in self._noted():
            if self._store.damaged([note.shard]):
                return
            yield note

    def _noted(self, first: int = 0) -> Iterator[_Note]:
        for number in count(first):
            try:
                note = _Note.from_json(self._store.read_bytes(self._path(number)))
            except (FileNotFoundError, ValueError):
                return
            yield note

    def _path(self, number: int) -> str:
        return f"{notes_folder(self._key)}/shard-{number:05d}.json"
