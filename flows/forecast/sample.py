"""What is in source files that are not read yet: told by a sample of them, which goes through the stages themselves.

Of small files some are read, evenly spread over the listing; of large ones a few, where a file is the likelier to be
among them the larger it is. Of one that holds much text the beginning is read. What they give a stored byte stands for
all the others of their kind.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from ladm.flows.config import RunConfig
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.stages import told_stages
from ladm.flows.forecast.by_hand import done_by_hand
from ladm.flows.forecast.known_texts import KnownTexts
from ladm.flows.runs.record import RunRecord
from ladm.tasks.manifest import Shard, SourceFile
from ladm.tasks.reading.expressions import DroppedRecord
from ladm.tasks.reading.readers import (
    BadRecord,
    Record,
    SourceConfig,
    UnreadableFile,
    detect_format,
    read_records,
)
from ladm.tasks.reading.sources import ListedFile, list_sources
from ladm.tasks.reading.streams import blocks_of
from ladm.tasks.reading.wrapped import WrappedFile
from ladm.tasks.stages.ingest import open_source
from ladm.tasks.storage.store import Store

LARGE_BYTES = 2**20
SMALL_FILES = 200
LARGE_FILES = 8
SIP_BYTES = 2**12
TEXT_BYTES = 2**20
"""Of a file so much text is read, about."""
MOST_DOCUMENTS = 400
"""Of shards that are read already, so many documents are looked at."""

Amounts = Counter[str]
"""`documents` (read), `bytes` (of their text), `long_documents` (that fill a window), `windows`, `tokens`, and `known`
(windows whose scores are taken over from the previous run)."""


@dataclass
class Sampled:
    """What a sample gave."""

    amounts: Amounts = field(default_factory=Counter)
    """What is expected of all that it stands for."""
    texts: int = 0
    """Bytes of text that went through the stages."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage → what the sample took."""
    written: dict[str, int] = field(default_factory=dict)
    """Stage → bytes that the sample's shards took."""


def sample_of_files(plan: Plan, unread: Sequence[Sequence[SourceFile]], known: KnownTexts | None = None) -> Sampled:
    """What the source files hold that are to be read; `known` tells of texts that the previous run read."""
    alone = {files[0].uri for files in unread if len(files) == 1}  # what is known of groups, the survey counts
    entries = {listed.file.uri: listed.config for listed in plan.files}
    kinds: dict[tuple[str, bool], list[ListedFile]] = {}
    for file in itertools.chain.from_iterable(unread):
        if not file.problem:
            listed = ListedFile(file, entries[file.uri])
            kinds.setdefault((listed.config.uri, file.size >= LARGE_BYTES), []).append(listed)
    found = Sampled()
    for (_, large), files in kinds.items():
        chosen = _spread(files, LARGE_FILES, by_size=True) if large else _spread(files, SMALL_FILES)
        with tempfile.TemporaryDirectory(prefix="ladm-plan-") as folder:
            stored = 0.0
            for number, listed in enumerate(chosen):
                records = Path(folder) / f"{number}.jsonl"
                stored += _copied(listed, records, TEXT_BYTES)
            total = sum(one.file.size for one in files)
            texts = known.texts_of(alone & {one.file.uri for one in chosen}) if known else set()
            here = _add(found, plan, folder, total / stored if stored else 0.0, texts)
        if known and here["known"]:
            found.amounts["known"] += min(here["known"], known.windows_of(alone & {one.file.uri for one in files}))
    return found


def sample_of_shards(plan: Plan, shards: Sequence[Shard]) -> Sampled:
    """What comes of documents that are read already, and not yet cut into windows."""
    found, store = Sampled(), Store(plan.config.store)
    rows = sum(shard.rows for shard in shards)
    if not rows:
        return found
    with tempfile.TemporaryDirectory(prefix="ladm-plan-") as folder:
        taken = 0
        chosen = [shards[number * len(shards) // min(16, len(shards))] for number in range(min(16, len(shards)))]
        with (Path(folder) / "0.jsonl").open("wb") as file:
            for shard in chosen:
                for batch in store.shard_batches(shard, max(1, MOST_DOCUMENTS // len(chosen)), ["text", "domain"]):
                    for row in batch.to_pylist():
                        file.write(orjson.dumps(row) + b"\n")
                    taken += batch.num_rows
                    break
        _add(found, plan, folder, rows / taken)
    found.amounts["documents"] = rows
    return found


def _spread(files: Sequence[ListedFile], most: int, *, by_size: bool = False) -> list[ListedFile]:
    """Some of the files, evenly spread over their number or, `by_size`, over their bytes."""
    if len(files) <= most:
        return list(files)
    if not by_size:
        return [files[(2 * number + 1) * len(files) // (2 * most)] for number in range(most)]
    ends = list(itertools.accumulate(one.file.size for one in files))
    marks = ((2 * number + 1) * ends[-1] // (2 * most) for number in range(most))
    return [next(one for one, end in zip(files, ends, strict=True) if end > mark) for mark in marks]


def _copied(listed: ListedFile, to: Path, most: int) -> float:
    """Copy a file's records, up to so many bytes of text; the stored bytes that they took. None of a damaged file."""
    size, read = 0, 0.0
    with to.open("wb") as out:
        try:
            with open_source(listed.file) as file:
                for record in read_records(file, listed.file.uri, listed.config):
                    if size >= most and not isinstance(record, DroppedRecord):
                        read = _stored_before(file, listed, record)
                        break
                    if isinstance(record, Record):
                        size += len(record.text.encode())
                        meta = orjson.Fragment(record.meta) if record.meta else None
                        out.write(orjson.dumps({"text": record.text, "domain": record.domain, "meta": meta}) + b"\n")
                else:
                    read = listed.file.size
        except UnreadableFile:
            out.truncate(0)
            return listed.file.size
    return read


def _stored_before(file: BinaryIO, listed: ListedFile, record: Record | BadRecord) -> float:
    """Stored bytes of the records before one."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    kind = detect_format(listed.file.uri, listed.config)
    if kind == "parquet":
        all_rows: int = pq.ParquetFile(file).metadata.num_rows
        return listed.file.size * (record.line - 1) / max(record.line, all_rows)
    if kind != "jsonl":
        return min(listed.file.size, file.tell())
    file.seek(0)
    sipped = _Sipped(file)
    given = taken = 0
    for block in blocks_of(cast(BinaryIO, sipped), listed.file.uri):
        if given + len(block) >= record.offset:
            return taken + (sipped.tell() - taken) * (record.offset - given) / len(block)
        given, taken = given + len(block), sipped.tell()
    return listed.file.size


class _Sipped(WrappedFile):
    """A file that is read in small bits, so that it shows how much of it a decoder needed for what it gave."""

    def read(self, size: int = -1) -> bytes:
        return super().read(SIP_BYTES if size < 0 else min(size, SIP_BYTES))


def _add(found: Sampled, plan: Plan, folder: str, times: float, texts: Collection[str] = ()) -> Amounts:
    """Put the records of a folder through the stages, and count what they give so many times.

    Returns:
        What was counted, with the windows of texts that are among those given; these are not added.
    """
    if not times or not any(path.stat().st_size for path in Path(folder).iterdir()):
        return Counter()
    until = "tokenize" if "tokenize" in plan.stages else plan.stages[-1]
    little = smaller(plan, folder, until)
    record = done_by_hand(little)
    ingested, cut = record.of("ingest"), record.of("tokenize")
    here = Counter(
        documents=sum(done.manifest.counts.kept for done in ingested),
        bytes=sum(done.manifest.measures.get("bytes", 0) for done in ingested),
        long_documents=sum(done.manifest.counts.kept for done in cut),
        windows=sum(done.manifest.measures["windows"] for done in cut),
        tokens=sum(done.manifest.measures["tokens"] for done in cut),
    )
    found.texts += here["bytes"]
    here = Counter({name: round(times * number) for name, number in here.items()})
    found.amounts.update(here)
    if texts:
        here["known"] = round(times * _windows_of(texts, record, Store(little.config.store)))
    for done in record.done:
        stage = done.manifest.stage
        found.seconds[stage] = found.seconds.get(stage, 0.0) + done.manifest.seconds
        size = sum(file.bytes for file in done.manifest.all_files())
        found.written[stage] = found.written.get(stage, 0) + size
    return here


def _windows_of(texts: Collection[str], record: RunRecord, store: Store) -> int:
    """How many windows were cut from texts of which the sha256 is given."""
    known: set[str] = set()
    for shard in record.shards("ingest"):
        for batch in store.shard_batches(shard, 65_536, ["doc_id", "sha256"]):
            known.update(row["doc_id"] for row in batch.to_pylist() if row["sha256"] in texts)
    return sum(doc_id in known for doc_id in store.doc_ids(record.shards("tokenize")))


def smaller(plan: Plan, folder: str, until: str) -> Plan:
    """The same plan for the records of a folder, in a store of its own, up to a stage."""
    source = SourceConfig(uri=f"{folder}/*.jsonl", text="text", domain="domain", max_record_bytes=2**40)
    changes = {"sources": [source], "store": f"{folder}/store", "deduplicate": None, "decontaminate": None}
    config: RunConfig = plan.config.model_copy(update=changes)
    listed = list_sources(config.sources, "stat")
    return dataclasses.replace(
        plan, config=config, until=until, stages=told_stages(config, until), files=listed, benchmarks=[], addresses=[]
    )


def documents_in(folder: Path) -> Iterator[bytes]:
    """The lines of all records of a folder."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from path.read_bytes().splitlines(keepends=True)
