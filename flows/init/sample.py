"""Some records of some files: enough to tell their fields, their domains and their lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.readers import UnreadableFile, refuse_one_value
from ladm.tasks.reading.rows import UnreadableValue, rows_of, told_apart
from ladm.tasks.reading.streams import blocks_of, lines_of, text_blocks
from ladm.tasks.storage.file_systems import io_errors, opened, reason_of

FILES = 12
"""Files of a kind that are looked into."""
RECORDS = 400
"""Records of a file that are looked at."""
BYTES = 16 * 2**20
"""Bytes of a file, decompressed, that are read for them."""


@dataclass
class Sample:
    """Records of some files of one kind."""

    records: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Of each record, the name of its file."""
    share: float = 1.0
    """Share of all bytes of the kind that was looked at, at least about."""
    reasons: list[str] = field(default_factory=list)
    """Of each file that could not be read, why."""


def sample_of(files: Sequence[SourceFile], kind: str) -> Sample:
    """Look into some of the files of a format.

    Args:
        files: All of the kind.
        kind: `jsonl`, `parquet` or `arrow`.
    """
    sample, seen = Sample(), 0.0
    for file in spread(files, FILES):
        before = len(sample.records)
        try:
            with opened(file.uri) as stream:
                reader = {"jsonl": _lines, "parquet": _parquet, "arrow": _arrow}[kind]
                share = yield_into(sample, reader(stream, file), file.name or file.uri)
        except io_errors(UnreadableFile, ValueError, pa.ArrowException) as error:
            sample.reasons.append(_why(error, kind))
            continue
        if len(sample.records) > before:
            seen += file.size * share
    total = sum(file.size for file in files)
    sample.share = min(1.0, max(seen, 1.0) / max(total, 1))
    return sample


def _why(error: Exception, kind: str) -> str:
    """Why a file could not be read: what is wrong with it, or with the way to it."""
    if isinstance(error, UnreadableFile):
        return error.reason
    decoding = isinstance(error, OSError) and error.errno is None  # what Arrow raises of some damaged files
    if isinstance(error, io_errors()) and not decoding:
        return f"cannot be read ({reason_of(error)})"
    return f"damaged {kind}"


def yield_into(sample: Sample, records: Iterator[tuple[dict[str, Any], float]], name: str) -> float:
    """Add records of a file to a sample; gives the share of the file that was read."""
    share = 1.0
    for number, (record, read) in enumerate(records, 1):
        sample.records.append(record)
        sample.files.append(name)
        share = read
        if number >= RECORDS:
            return share
    return 1.0


def spread(files: Sequence[SourceFile], most: int) -> list[SourceFile]:
    """So many files at most, spread over all that hold something."""
    whole = [file for file in files if file.size and not file.problem]
    step = max(1.0, len(whole) / most)
    return [whole[int(place * step)] for place in range(min(most, len(whole)))]


def _lines(stream: BinaryIO, file: SourceFile) -> Iterator[tuple[dict[str, Any], float]]:
    start, blocks = text_blocks(blocks_of(stream, file.uri))
    read = 0

    def bounded() -> Iterator[bytes]:
        nonlocal read
        for block in blocks:
            read += len(block)
            yield block
            if read >= BYTES:
                return

    for number, line in enumerate(lines_of(bounded(), BYTES, start)):
        if not number:
            refuse_one_value(line)
        with suppress(orjson.JSONDecodeError):
            fields = orjson.loads(line.content)
            if isinstance(fields, dict):
                # Blocks are read ahead, and may be compressed: of what was read of the file, the part up to this line.
                part = (line.offset + len(line.content) + 1) / max(read, 1)
                yield fields, min(1.0, part * stream.tell() / max(file.size, 1))


def _parquet(stream: BinaryIO, file: SourceFile) -> Iterator[tuple[dict[str, Any], float]]:
    source = pq.ParquetFile(stream, pre_buffer=False)
    rows = max(1, source.metadata.num_rows)
    yield from _of_batches(source.iter_batches(64, use_threads=False), rows)


def _arrow(stream: BinaryIO, file: SourceFile) -> Iterator[tuple[dict[str, Any], float]]:
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    source = pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)
    batches = map(source.get_batch, range(source.num_record_batches)) if is_file else iter(source)
    read = 0
    for batch in batches:
        read += batch.nbytes
        share = min(1.0, read / max(file.size, 1))
        for fields, part in _of_batches(iter([batch]), max(1, batch.num_rows)):
            yield fields, share * part


def _of_batches(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[tuple[dict[str, Any], float]]:
    done = 0
    for batch in batches:
        names = told_apart(batch.schema.names)
        for start in range(0, batch.num_rows, 64):
            for fields in rows_of(batch.slice(start, 64), names, -1):
                done += 1
                if not isinstance(fields, UnreadableValue):
                    yield fields, min(1.0, done / rows)
