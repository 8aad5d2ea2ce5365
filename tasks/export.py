"""Export: the selected documents with their text and provenance, as files that a trainer can open.

One job a format. Documents are streamed from DuckDB in the order of the ranking (`sql/export.sql`) and written
into parts of bounded size, so memory does not grow with the selection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import orjson
import pyarrow as pa
import zstandard

from tasks import duck
from tasks.job import Job, Outcome, Stage
from tasks.manifest import Counts, Shard
from tasks.schema import DOCUMENTS, RANKING
from tasks.settings import Settings
from tasks.store import Store

NOT_SELECTED = "not selected"
BATCH_DOCUMENTS = 256

EXPORTED = pa.schema(
    [
        *(RANKING.field(name) for name in ("doc_id", "domain", "rank", "score", "windows")),
        *(RANKING.field(name) for name in ("doc_tokens", "doc_tokens_exact")),
        *(DOCUMENTS.field(name) for name in ("text", "source", "line", "offset", "sha256", "bytes", "meta")),
    ]
)
"""One row a selected document."""


class ExportConfig(Settings):
    """One entry of the `export:` list."""

    format: Literal["parquet", "jsonl.zst"]
    part_bytes: int = 256 * 2**20
    """A part file holds about this many bytes of text."""


def export_key_config(config: ExportConfig) -> dict[str, Any]:
    """What an export computes with."""
    return config.model_dump()


def export(job: Job, store: Store, key: str) -> Outcome:
    """Write the selected documents in one format.

    The job's inputs are the ranking and, after it, the document shards that hold the ranked documents.
    """
    config = ExportConfig.model_validate(job.config)
    ranking, *documents = job.inputs
    write_part = {"parquet": _write_parquet, "jsonl.zst": _write_jsonl}[config.format]
    parts: list[Shard] = []
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "ranking", store, [ranking], RANKING)
        duck.view_of_shards(connection, "documents", store, documents, DOCUMENTS)
        rows = connection.execute(duck.statement("export")).to_arrow_reader(BATCH_DOCUMENTS)
        for number, tables in enumerate(_parts(rows, config.part_bytes)):
            path = f"export/{key[:2]}/{key}-{number:05d}.{config.format}"
            parts.append(write_part(store, path, key, tables))
        selected_row = connection.execute(
            "select count(*), coalesce(sum(copies), 0) from ranking where selected"
        ).fetchone()
    assert selected_row is not None
    selected, copies = map(int, selected_row)
    exported = sum(part.rows for part in parts)
    assert exported == copies, f"{copies} copies are selected but {exported} were found in the document shards"
    left = ranking.rows - selected
    return Outcome(
        counts=Counts(received=ranking.rows, kept=selected, dropped={NOT_SELECTED: left} if left else {}),
        files=parts,
        measures={"bytes": sum(part.bytes for part in parts), "files": len(parts)},
    )


def _parts(rows: pa.RecordBatchReader, part_bytes: int) -> Iterator[Iterator[pa.Table]]:
    """Batches grouped into parts of about `part_bytes`; every part must be consumed before the next is asked for."""
    batches = iter(rows)
    first = next(batches, None)
    while first is not None:
        following: list[pa.RecordBatch | None] = [None]

        def one_part(
            opening: pa.RecordBatch = first, following: list[pa.RecordBatch | None] = following
        ) -> Iterator[pa.Table]:
            size, batch = 0, opening
            while batch is not None and size < part_bytes:
                size += batch.nbytes
                yield pa.Table.from_batches([batch])
                batch = next(batches, None)
            following[0] = batch

        yield one_part()
        first = following[0]


def _write_parquet(store: Store, path: str, key: str, tables: Iterator[pa.Table]) -> Shard:
    with store.parquet_writer(path, key, EXPORTED) as writer:
        for table in tables:
            writer.write(table)
    return writer.shard()


def _write_jsonl(store: Store, path: str, key: str, tables: Iterator[pa.Table]) -> Shard:
    rows = 0
    with store.writing(path) as file:
        with zstandard.ZstdCompressor(level=6, write_checksum=True).stream_writer(file, closefd=False) as stream:
            for table in tables:
                for row in table.to_pylist():
                    stream.write(orjson.dumps(pile_record(row), option=orjson.OPT_APPEND_NEWLINE))
                rows += table.num_rows
        size = file.tell()
    return Shard(key=key, path=path, bytes=size, rows=rows)


def pile_record(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the export in the Pile's format, so that it can be ingested again.

    The document's own metadata is kept under `meta.original`.
    """
    meta = {name: value for name, value in row.items() if name not in ("text", "domain", "meta")}
    original = orjson.loads(row["meta"]) if row["meta"] else None
    return {"text": row["text"], "meta": {"pile_set_name": row["domain"], **meta, "original": original}}


STAGE = Stage(name="export", version="1", compute=export)
