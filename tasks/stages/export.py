"""Export: the selected documents with their text and provenance, as files that a trainer can open.

One job a format. `sql/export.sql` decides, on ids and sizes alone, which document goes where. Then every document
shard is read once, and each selected document is put into a temporary file of its part; then the parts are put in
order and written, one by one (`exporters/`). So memory holds one part at most, however large the selection is.

What a part holds follows from the job's key, so a part that an earlier, interrupted export finished is left as it is,
if it still is what was written (`exporters/finished.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ladm.tasks import stopping
from ladm.tasks.addresses import read_addresses, with_addresses
from ladm.tasks.errors import AccountError
from ladm.tasks.exporters.finished import FinishedParts
from ladm.tasks.exporters.formats import EXPORTERS, export_config
from ladm.tasks.exporters.interface import EXPORTED, ExportConfig, Exporter, Part
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard
from ladm.tasks.schema import RANKING
from ladm.tasks.storage import duck
from ladm.tasks.storage.file_systems import naming
from ladm.tasks.storage.store import Store

NOT_SELECTED = "not selected"
BATCH_DOCUMENTS = 256
BATCH_BYTES = 16 * 2**20
PARTS_AT_ONCE = 128
"""So many temporary files, of `part_bytes` each, lie on the local disk at most."""
MEMORY_LIMIT = "1GB"

FROM_PLAN = ("domain", "rank", "score", "windows", "doc_tokens", "doc_tokens_exact", "role", "copy")
SPILL = pa.schema(
    [
        pa.field("position", pa.int64()),
        *(field for field in EXPORTED if field.name != "export_key"),
    ]
)


@dataclass(frozen=True)
class _Texts:
    """Where the documents are, and where their source files lie."""

    store: Store
    documents: Sequence[Shard]
    addresses: pa.Table


def export(job: Job, store: Store, key: str) -> Outcome:
    """Write the selected documents in one format.

    The job's inputs are the ranking, the document shards that hold the ranked documents, and where the source files
    lie, if their names do not say it.
    """
    config = export_config(job.config)
    ranking, documents = job.one("ranking"), job.all("documents")
    folder = f"export/{key[:2]}/{key}"
    exporter_class = EXPORTERS[config.format]
    exporter = exporter_class(config, job, store, folder)
    with duck.connect(store, MEMORY_LIMIT) as connection:
        parts = _plan(connection, config, store, ranking, documents)
        finished = FinishedParts(exporter, key, parts)
        missing = finished.missing(parts)
        texts = _Texts(store, documents, read_addresses(store, job))
        for start in range(0, len(missing), PARTS_AT_ONCE):
            stopping.check()
            _write_parts(connection, exporter, finished, key, texts, missing[start : start + PARTS_AT_ONCE])
        selected_row = connection.execute(
            "select count(*), coalesce(sum(copies), 0) from ranking where selected"
        ).fetchone()
    assert selected_row is not None
    selected, copies = map(int, selected_row)
    exported = sum(part.documents for part in parts)
    if exported != copies:
        raise AccountError(f"{copies} copies are selected but {exported} were found in the document shards")
    names = [name for part in parts for name in exporter.names(part)] + exporter.finish(parts)
    files = [finished.written(name) for name in names]
    left = ranking.rows - selected
    return Outcome(
        counts=Counts(received=ranking.rows, kept=selected, dropped={NOT_SELECTED: left} if left else {}),
        files=files,
        measures={"bytes": sum(file.bytes for file in files), "files": len(files)},
    )


def _plan(
    connection: duckdb.DuckDBPyConnection,
    config: ExportConfig,
    store: Store,
    ranking: Shard,
    documents: Sequence[Shard],
) -> list[Part]:
    """Make the table `export_plan`, and say which parts it has."""
    duck.view_of_shards(connection, "ranking", store, [ranking], RANKING)
    duck.view_of_located_shards(connection, "documents", store, documents)
    duck.set_variables(connection, config.model_dump(include={"shuffle", "validation", "part_bytes"}))
    connection.execute(duck.statement("export"))
    rows = connection.execute("select part, split, count(*) from export_plan group by all order by part").fetchall()
    splits = [split for _, split, _ in rows]
    return [
        Part(index, split, index - splits.index(split), splits.count(split), documents)
        for index, split, documents in rows
    ]


def _write_parts(
    connection: duckdb.DuckDBPyConnection,
    exporter: Exporter[Any],
    finished: FinishedParts,
    key: str,
    texts: _Texts,
    parts: Sequence[Part],
) -> None:
    """Write some parts: their documents into a temporary file each, then each file in order."""
    with tempfile.TemporaryDirectory(prefix="ladm-export-") as spill:
        files = {part.index: Path(spill) / f"{part.index}.arrow" for part in parts}
        _distribute(connection, texts, files)
        for part in parts:
            exporter.write(part, _in_order(files[part.index], part, key))
            finished.note(part)
            files[part.index].unlink()


def _distribute(connection: duckdb.DuckDBPyConnection, texts: _Texts, files: dict[int, Path]) -> None:
    """Put every document of some parts into the file of its part, in the order of the shards."""
    writers = {part: pa.ipc.new_stream(str(path), SPILL) for part, path in files.items()}
    try:
        for index, shard in enumerate(texts.documents):
            places = connection.execute(
                f"select file_row_number, part, position, {', '.join(FROM_PLAN)} from export_plan"
                " where file_index = $index and part between $first and $last order by file_row_number",
                {"index": index, "first": min(files), "last": max(files)},
            ).to_arrow_table()
            places = places.filter(pc.is_in(places["part"], pa.array(list(files), places["part"].type)))
            if places.num_rows:
                _distribute_shard(texts, shard, places, writers)
    finally:
        for part, writer in writers.items():
            with naming(str(files[part])):
                writer.close()


def _distribute_shard(texts: _Texts, shard: Shard, places: pa.Table, writers: dict[int, Any]) -> None:
    """One shard's documents; `places` says of those that are wanted where they are and where they go."""
    row_numbers = places["file_row_number"].to_numpy()
    first = 0
    for batch in texts.store.shard_batches(shard, rows=BATCH_DOCUMENTS):
        low, high = np.searchsorted(row_numbers, [first, first + batch.num_rows])
        here = places.slice(int(low), int(high - low))
        wanted = pa.Table.from_batches([batch]).take(pa.array(row_numbers[low:high] - first))
        columns = [(here if name in ("position", *FROM_PLAN) else wanted)[name] for name in SPILL.names]
        rows = with_addresses(pa.table(columns, schema=SPILL), texts.addresses)
        for part in pc.unique(here["part"]).to_pylist():
            with naming(tempfile.gettempdir()):
                writers[part].write_table(rows.filter(pc.equal(here["part"], part)))
        first += batch.num_rows


def _in_order(file: Path, part: Part, key: str) -> Iterator[pa.Table]:
    """The rows of a part's temporary file (`EXPORTED`) in their order, in tables of some `BATCH_BYTES` of text."""
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        rows = stream.read_all().combine_chunks()
    if rows.num_rows != part.documents:
        raise AccountError(f"{rows.num_rows} of {part.documents} documents of {part.stem} were found")
    order = pc.sort_indices(rows["position"])
    before = np.cumsum(rows["bytes"].take(order).to_numpy()) // BATCH_BYTES
    ends = [*(np.flatnonzero(np.diff(before)) + 1).tolist(), rows.num_rows]
    start = 0
    for end in ends:
        table = rows.take(order.slice(start, end - start))
        table = table.append_column("export_key", pa.array([key] * table.num_rows, pa.string()))
        yield table.select(EXPORTED.names).cast(EXPORTED)
        start = end


STAGE = Stage(name="export", version="4", compute=export, roles=("ranking", "documents", "addresses"))
