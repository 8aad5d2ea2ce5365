"""What travels between tasks: small JSON manifests that name the files a stage wrote and count its records.

A manifest is also Prefect's cached result, so it is the commit mark of a stage: it is written after the data
files that it names, and counts only while every one of them exists at the recorded size. The checksum is looked at
when a file is read (`Store.check`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from msgspec import field

from ladm.tasks.errors import AccountError
from ladm.tasks.frozen import Frozen

NONE: list[Any] = []
"""An empty list for all manifests that are held; nobody changes a manifest."""


class SourceFile(Frozen, frozen=True):
    """One source file and what tells it from every other version of itself."""

    uri: str
    size: int
    version: str
    """ETag on object stores, mtime in ns on disk, or `sha256:…` when `ingest.identity` is `content`."""
    problem: str | None = None
    """Why the listed file cannot be opened at all (a dangling link); it is then quarantined."""
    name: str = ""
    """What its documents know it by, wherever it lies (`reading/names.py`); the URI where there is none."""

    @property
    def known_as(self) -> str:
        """What its documents know it by."""
        return self.name or self.uri

    def identity(self) -> dict[str, Any]:
        """What tells this version of this file from every other; part of the key of what is made of it."""
        found = self.as_dict()
        if self.known_as == self.uri:
            del found["name"]
        return found


class Part(Frozen, frozen=True):
    """A piece of a large source file that one job reads: the records that begin in it."""

    begin: int
    """Its first byte, as stored; of Parquet, its first row group."""
    end: int
    """The byte, or row group, behind it."""
    bytes: int
    """As stored, about."""


class Shard(Frozen, frozen=True):
    """One Parquet file of the store: its key, its path below the store's root, its size and its checksum."""

    key: str
    path: str
    bytes: int
    rows: int
    sha256: str = ""
    """Of the file's bytes, in hex, taken while they were written. Empty in manifests of ladm 0.1 before checksums
    were kept: such a file counts by its size alone, as it did then."""


class PackedFile(Frozen, frozen=True):
    """What became of one of the small source files that a job read together."""

    uri: str
    name: str
    """What its documents know it by."""
    documents: int
    quarantined: int
    content: str
    """The hash of its documents: the same for the same documents."""


class Counts(Frozen, frozen=True):
    """Where a stage's records went; `received = kept + dropped + quarantined` always holds."""

    received: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason → records."""
    quarantined: int = 0

    def check(self, where: str) -> None:
        """Check that no record was lost or doubled.

        Raises:
            AccountError: One was; it is our bug, not the user's.
        """
        accounted = self.kept + sum(self.dropped.values()) + self.quarantined
        if self.received != accounted:
            raise AccountError(f"{where}: {self.received} records in, {accounted} accounted for: {self}")

    def as_record(self) -> dict[str, Any]:
        """The counts as they stand in `run.json`: `in`, `kept`, `dropped` by reason, `quarantined`."""
        return {
            "in": self.received,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "quarantined": self.quarantined,
        }


def add_counts(counts: Iterable[Counts]) -> Counts:
    """The sum of several counts, reason by reason."""
    received = kept = quarantined = 0
    dropped: dict[str, int] = {}
    for one in counts:
        received += one.received
        kept += one.kept
        quarantined += one.quarantined
        for reason, number in one.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + number
    return Counts(received=received, kept=kept, dropped=dropped, quarantined=quarantined)


class Manifest(Frozen, frozen=True):
    """What one task of one stage did: the files it wrote and the account of its records."""

    stage: str
    key: str
    label: str
    """The shard's name for people, e.g. `Books.jsonl.zst` or `Books.jsonl.zst#2`."""
    shards: list[Shard] = field(default_factory=list)
    files: list[Shard] = field(default_factory=list)
    """Files that are the end of the road (exports, cards), not input of another stage."""
    quarantine: Shard | None = None
    counts: Counts = field(default_factory=Counts)
    measures: dict[str, int] = field(default_factory=dict)
    """Further totals: bytes, tokens, windows."""
    packed: list[PackedFile] = field(default_factory=list)
    """The small source files that were read together; none where one file was read."""
    parts: list[Part] = field(default_factory=list)
    """The pieces in which a large source file is read; none where it is read as a whole."""
    seconds: float = 0.0
    """Wall time of the computation, when it was first done."""

    def as_dict(self) -> dict[str, Any]:
        """It in dictionaries, lists and values of JSON; without `packed` and `parts` where there are none."""
        found = super().as_dict()
        for name in ("packed", "parts"):
            if not found[name]:
                del found[name]
        return found

    def compact(self) -> Manifest:
        """The same manifest in less memory, for where many are held: what is equal in it is there once."""
        for file in self.all_files():
            if file.key == self.key:
                file.share(key=self.key)
        empty = [name for name in ("shards", "files", "packed", "parts") if not getattr(self, name)]
        self.share(stage=sys.intern(self.stage), **dict.fromkeys(empty, NONE))
        return self

    def lacks_checksums(self) -> bool:
        """Whether it vouches for files of an export without a checksum, as those once did that went on or were mended.

        What an earlier stage wrote before checksums were kept counts by its size: it costs more to make again.
        """
        return self.stage == "export" and not all(file.sha256 for file in self.files)

    def all_files(self) -> list[Shard]:
        """Every file in the store that this manifest vouches for."""
        return [*self.shards, *self.files, *([self.quarantine] if self.quarantine else [])]


def check_vouched(where: str, files: Iterable[Shard]) -> None:
    """Refuse, for a new manifest, a file whose checksum is not known.

    Raises:
        AccountError: Names the first such file.
    """
    if nameless := next((file.path for file in files if not file.sha256), None):
        raise AccountError(f"{where}: {nameless} was written, and its checksum is not known")


def record_path(key: str) -> str:
    """Where the record of a key, the manifest of a job that is done, lives in the store."""
    return f"records/{key[:2]}/{key}.json"


def content_key(*parts: Any) -> str:
    """Sha256, in hex, of the parts as canonical JSON: the same parts give the same key on every machine."""
    canonical = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(canonical).hexdigest()


def notes_folder(key: str) -> str:
    """Where the notes of a job lie that is not done, or that others go by; for `ladm gc` they are its record's."""
    return record_path(key).removesuffix(".json")


def stage_key(stage: str, version: str, config: Mapping[str, Any], inputs: Iterable[Any]) -> str:
    """The identity of a stage's work: its name, version, configuration and the keys of its inputs."""
    return content_key(stage, version, dict(config), list(inputs))
