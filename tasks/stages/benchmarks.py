"""Benchmark passages that no training document may hold: read from the files that the user names, kept as n-grams.

A document holds a passage if any n consecutive words of it (`shingles.py` says what a word is) are also in the
passage. A passage of fewer words is looked for as a whole; one of very few is not looked for, since it would be found
everywhere, and is counted as dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from ladm.tasks.errors import SourceError
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard, SourceFile
from ladm.tasks.places import expanded
from ladm.tasks.printable import printable
from ladm.tasks.reading.expressions import DroppedRecord
from ladm.tasks.reading.readers import Record, SourceConfig, UnreadableFile, read_records
from ladm.tasks.schema import BENCHMARKS
from ladm.tasks.settings import Settings
from ladm.tasks.shingles import Hashes, WordHasher, ngrams, normal_form
from ladm.tasks.stages.ingest import open_source
from ladm.tasks.storage.store import Store

TOO_FEW_WORDS = "fewer words than decontaminate.shortest"


def source_entries(given: object) -> list[object]:
    """What a URI, or a list of URIs and entries, stands for: entries, the variables of their URIs filled in.

    Raises:
        ValueError: A variable is not set; the message names the entry.
    """
    entries = given if isinstance(given, list) else [given]
    found: list[object] = []
    for number, one in enumerate(entries):
        entry = {"uri": one} if isinstance(one, str) else one
        if isinstance(entry, dict) and isinstance(entry.get("uri"), str):
            try:
                entry = {**entry, "uri": expanded(entry["uri"])}
            except ValueError as error:
                raise ValueError(f"entry {number}: {error}") from None
        found.append(entry)
    return found


class DecontaminateConfig(Settings):
    """Documents that contain a passage of these files are dropped before scoring."""

    against: list[SourceConfig] = Field(min_length=1)
    """The benchmark files, given as `sources` are. Each record's text, or each whole .txt file, is a passage."""
    ngram: int = Field(default=13, ge=1)
    """Drop a document that shares this many consecutive words with a passage. More words find fewer documents."""
    shortest: int = Field(default=8, ge=1)
    """Ignore passages with fewer words. Passages between this and `ngram` words are searched for whole."""

    @field_validator("against", mode="before")
    @classmethod
    def _against_from_uris(cls, against: object) -> object:
        """Let a URI, and a list of URIs, stand for entries with only a `uri`."""
        return source_entries(against)

    @model_validator(mode="after")
    def _shortest_is_short(self) -> DecontaminateConfig:
        if self.shortest > self.ngram:
            raise ValueError(f"shortest ({self.shortest}) is more than ngram ({self.ngram}); lower it, or raise ngram")
        return self


def check_benchmark(file: SourceFile, config: SourceConfig, field: str) -> None:
    """Refuse a benchmark file whose first record gives no passage, before any work.

    Raises:
        SourceError: With the field of the configuration, the file and the reason.
    """
    for _ in _passages(file, config, field):
        return


def _passages(file: SourceFile, config: SourceConfig, field: str) -> Iterator[Record]:
    """Every passage of a file. One that cannot be read is an error: it would go unnoticed into the training data."""
    try:
        with open_source(file) as opened:
            for record in read_records(opened, file.uri, config):
                if isinstance(record, DroppedRecord):
                    continue
                if not isinstance(record, Record):
                    raise SourceError(
                        f"{field}: {printable(file.uri, 500)}, record {record.line}: {record.reason}; set its "
                        "`text` to the field that holds the passage, or take the record out"
                    )
                yield record
    except UnreadableFile as damage:
        raise SourceError(f"{field}: {printable(file.uri, 500)}: {damage.reason}") from None


def benchmarks(job: Job, store: Store, key: str) -> Outcome:
    """Keep the n-grams of one benchmark file, each with the first passage that has it; counts are of passages.

    Memory: 16 bytes a word of the file.
    """
    assert job.source is not None
    ngram, shortest = job.config["ngram"], job.config["shortest"]
    reading = {name: job.config[name] for name in ("text", "format", "max_record_bytes")}
    source = SourceConfig(uri=job.source.uri, **reading)
    hasher = WordHasher()
    lines: list[int] = []
    kept: dict[int, list[tuple[int, Hashes]]] = {}
    received = 0
    for record in _passages(job.source, source, "decontaminate.against"):
        received += 1
        words = hasher.words(normal_form(record.text))
        if len(words) >= shortest:
            length = min(len(words), ngram)
            kept.setdefault(length, []).append((len(lines), ngrams(words, length)))
            lines.append(record.line)
    with store.shard_writer("benchmarks", key, BENCHMARKS) as writer:
        for length, passages in sorted(kept.items()):
            writer.write(_table(length, passages, lines, job.source.uri))
    few = received - len(lines)
    return Outcome(
        counts=Counts(received=received, kept=len(lines), dropped={TOO_FEW_WORDS: few} if few else {}),
        shards=store.kept(writer.shard()),
        measures={"ngrams": writer.rows},
    )


def _table(length: int, passages: Sequence[tuple[int, Hashes]], lines: Sequence[int], uri: str) -> pa.Table:
    grams, first = np.unique(np.concatenate([runs for _, runs in passages]), return_index=True)
    owners = np.repeat([number for number, _ in passages], [len(runs) for _, runs in passages])[first]
    columns = [
        pa.array(grams),
        pa.array(np.full(len(grams), length, dtype=np.int32)),
        pa.array([uri] * len(grams), type=pa.string()),
        pa.array(np.asarray(lines, dtype=np.int64)[owners]),
    ]
    return pa.Table.from_arrays(columns, schema=BENCHMARKS)


@dataclass(frozen=True)
class Found:
    """The passage that a document holds most of.

    Attributes:
        source: URI of the benchmark file.
        line: Its line or row there, from 1.
        share: Share of the passage's distinct n-grams that are in the document, less those that an earlier passage
            has too.
    """

    source: str
    line: int
    share: float


class Passages:
    """The n-grams of all benchmark files, ready to be looked for."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        table = pa.concat_tables([*tables, BENCHMARKS.empty_table()]).combine_chunks()
        files = table["source"].combine_chunks().dictionary_encode()
        places = np.stack([files.indices.to_numpy(zero_copy_only=False), table["line"].to_numpy()], axis=1)
        passages, owners = np.unique(places, axis=0, return_inverse=True)
        self._places = [(files.dictionary[file].as_py(), line) for file, line in passages.tolist()]
        grams, lengths = table["gram"].to_numpy(), table["words"].to_numpy()
        self._by_length: dict[int, tuple[Hashes, npt.NDArray[np.intp]]] = {}
        self._sizes = np.zeros(len(passages), dtype=np.int64)
        for length in np.unique(lengths).tolist():
            of_length = lengths == length
            distinct, first = np.unique(grams[of_length], return_index=True)
            self._by_length[length] = distinct, owners[of_length][first]
            np.add.at(self._sizes, self._by_length[length][1], 1)

    def find(self, words: Hashes) -> Found | None:
        """The passage of which a document with these words holds the largest share; None if it holds none."""
        held = np.zeros(len(self._sizes), dtype=np.int64)
        for length, (grams, owners) in self._by_length.items():
            runs = ngrams(words, length)
            places = np.searchsorted(grams, runs)
            places[places == len(grams)] = 0
            there = np.unique(places[grams[places] == runs])
            np.add.at(held, owners[there], 1)
        if not held.any():
            return None
        shares = held / np.maximum(1, self._sizes)
        best = int(np.argmax(shares))
        return Found(*self._places[best], share=float(shares[best]))


@lru_cache(maxsize=1)
def passages_of(store_uri: str, shards: tuple[Shard, ...]) -> Passages:
    """The passages of all shards of this stage, read once a process."""
    store = Store(store_uri)
    return Passages([store.read_shard(shard) for shard in shards])


STAGE = Stage(name="benchmarks", version="1", compute=benchmarks)
