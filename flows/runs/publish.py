"""Lays out a finished run for its user under `runs/<run_id>/`, and only then makes it the store's `latest`.

The data itself is content-addressed in the store; here it gets the names that people and `ladm sql` use, by hard
links or server-side copies, so that an unchanged selection costs nothing to publish again.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.flows.dag.stages import TABLE
from ladm.flows.runs.read import name_latest, record_files, write_record
from ladm.flows.runs.record import RunRecord, quarantines_of
from ladm.flows.runs.stored_rows import jobs_of
from ladm.tasks.exporters.card_text import RUN_ID
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.schema import QUARANTINE
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.store import Store


def publish(record: RunRecord) -> None:
    """Publish ranking, allocation, drops, quarantine, exports and the record; `latest` names a complete run.

    Of a run that was cancelled, the quarantine and the record alone: it has seconds.
    """
    store = Store(record.plan.config.store)
    folder = f"runs/{record.run_id}"
    names: list[str] = []
    for row in () if record.cancelled else TABLE:
        for what, ending, name in row.published:
            made = [file for done in record.of(row.stage.name) for file in getattr(done.manifest, what)]
            names += [_link(store, file, f"{folder}/{name}") for file in made if file.path.endswith(ending)]
    for done in [] if record.cancelled else record.of("export"):
        names += [_link(store, part, f"{folder}/{name}") for part, name in export_names(done.manifest)]
    for done in [] if record.cancelled else record.of("card"):
        names += [_write_card(store, file, f"{folder}/export/README.md", record.run_id) for file in done.manifest.files]
    names.append(_write_quarantine(store, f"{folder}/quarantine.parquet", record))
    record.files = [*names, *record_files(record.run_id)]
    account = record.as_json()
    write_record(store, account)
    if record.status == "completed" and record.plan.until == "export":
        name_latest(store, record.run_id)
    record.account = account


def export_names(manifest: Manifest) -> list[tuple[Shard, str]]:
    """The files of one export and their names in the run's folder, e.g. `export/mds/train/index.json`."""
    return [(file, f"export/{manifest.label}/{file.path.split(f'/{manifest.key}/', 1)[1]}") for file in manifest.files]


def _link(store: Store, shard: Shard, name: str) -> str:
    store.publish(shard.path, name)
    return name


def _write_card(store: Store, card: Shard, name: str, run_id: str) -> str:
    """The card with the run's id in it, the one thing in it that another run would not have."""
    store.write_bytes(name, store.read_bytes(card.path).replace(RUN_ID.encode(), run_id.encode()))
    return name


def _write_quarantine(store: Store, path: str, record: RunRecord) -> str:
    """All of the run's quarantine in one file; it is there, with no row, when nothing was quarantined."""
    shards = [shard for stage in record.plan.stages for shard in quarantines_of(record.of(stage))]
    if content := _same_quarantine(store, shards, record):
        store.write_bytes(path, content)
        return path
    with store.parquet_writer(path, record.run_id, QUARANTINE) as writer:
        for shard in shards:
            table: pa.Table = store.read_shard(shard)
            writer.write(table)
    return path


def _same_quarantine(store: Store, shards: list[Shard], record: RunRecord) -> bytes | None:
    """The file that the previous run wrote, if it quarantined the very same: one file to read instead of many."""
    before = record.previous
    if not shards or before is None:
        return None
    there = [
        Shard.from_dict(job["quarantine"])
        for stage in record.plan.stages
        for job in jobs_of(before, stage)
        if job["quarantine"]
    ]
    if there != shards:
        return None
    try:
        content = store.read_bytes(f"runs/{before['run_id']}/quarantine.parquet")
        table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
    except io_errors(pa.ArrowException):
        return None
    is_whole = table.schema.equals(QUARANTINE) and table.num_rows == sum(shard.rows for shard in shards)
    return content if is_whole else None
