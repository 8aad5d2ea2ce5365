"""The run records of a store: the one place that writes them, and reads them back whole.

A record is one JSON object to whoever uses it (`ladm run --json`, the report, `ladm gc`). In the store, what grows with
the number of files is in tables beside it, in `runs/<run_id>/`: `jobs.parquet` (`shards`: one row a job),
`sources.parquet`, `changes.parquet` (the files that `refresh` names), `failures.parquet`, and `files.parquet` (what was
published and what was made again). `run.json` keeps the rest, with the size and checksum of each table; it is written
last, and a run without one has no record.

Records of ladm 0.1 before this had no `schema` and everything in `run.json`: they are read too, however large. What an
even older one lacks, and needs no more than a default, gets that; anything else is refused in one line.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.flows.config import RunConfig
from ladm.flows.dag.jobs import config_sha256
from ladm.flows.runs.stored_rows import StoredRows
from ladm.flows.runs.tables import LISTS, NEEDED_OF_JOBS, TABLES, WITH_URIS
from ladm.tasks.errors import RecordError
from ladm.tasks.manifest import SourceFile
from ladm.tasks.storage.store import Store, table_of

SCHEMA = 2
"""The form of the records that are written; 1 is the one without a `schema`."""
LATEST = "latest"
LOOKED_AT = 5
"""So many of the newest runs are asked by which names they knew the source files."""
FAILURES_SHOWN = 100
"""So many failures are in `run.json` as well, for the SQL view `runs`."""

NEEDED = (
    *("run_id", "status", "until", "started", "finished", "seconds", "store", "windows_scored", "stages", "failures"),
    *("files", "model", "config", "versions", "sources", "shards"),
)
"""What every record had from the first one on."""


class NewerRecordError(RecordError):
    """A record that a newer version wrote."""


def summary_path(run_id: str) -> str:
    """Where the part of a run's record lies that does not grow with the number of files."""
    return f"runs/{run_id}/run.json"


def has_record(store: Store, run_id: str) -> bool:
    """Whether a run has a record; one that was killed has none."""
    return store.size(summary_path(run_id)) is not None


def record_files(run_id: str) -> list[str]:
    """The files in the store that are a run's record."""
    return [*(f"runs/{run_id}/{name}.parquet" for name in TABLES), summary_path(run_id)]


def write_record(store: Store, record: Mapping[str, Any]) -> None:
    """Write a run's record: the tables first, and `run.json` when they are there."""
    run_id = record["run_id"]
    summary = {"schema": SCHEMA, **record, "tables": {}}
    for name, table in TABLES.items():
        rows = table.out(record)
        with store.parquet_writer(f"runs/{run_id}/{name}.parquet", run_id, table.schema) as writer:
            columns = {column: [row[column] for row in rows] for column in table.schema.names}
            writer.write(table_of(columns, table.schema))
        summary["tables"][name] = {"rows": writer.rows, "bytes": writer.bytes, "sha256": writer.sha256}
    for name in ("shards", "sources", *LISTS):
        del summary[name]
    summary["failures"] = record["failures"][:FAILURES_SHOWN]
    if record["refresh"]:
        counted = {change: {**record["refresh"][change]} for change in WITH_URIS}
        for counts in counted.values():
            del counts["uris"]
        summary["refresh"] = {**record["refresh"], **counted}
    store.write_bytes(summary_path(run_id), orjson.dumps(summary, option=orjson.OPT_INDENT_2))


def read_record(store: Store, run_id: str, *, stored: bool = False) -> dict[str, Any]:
    """The whole record of a run, as `ladm run --json` printed it.

    Args:
        store: The store.
        run_id: The run.
        stored: Whether its `shards` and `sources` stay as they are stored, and are read when they are gone through.

    Raises:
        RecordError: There is no such run, or its record is damaged, of a newer version, or lacks what is needed.
    """
    if not run_id or "/" in run_id or run_id.startswith("."):
        raise RecordError(f"--run: {run_id!r} is not a run id")
    path = summary_path(run_id)
    try:
        record = orjson.loads(store.read_bytes(path))
    except FileNotFoundError:
        raise RecordError(
            f"--run: there is no run {run_id!r} in {store.uri!r}; `select * from runs` lists them"
        ) from None
    except ValueError:
        raise RecordError(f"{path}: damaged, so the run's record cannot be read; choose another run") from None
    schema = record.pop("schema", 1) if isinstance(record, dict) else None
    if not isinstance(schema, int):
        raise RecordError(f"{path}: no run record; choose another run")
    if schema > SCHEMA:
        raise NewerRecordError(
            f"{path}: written by a newer ladm (schema {schema}; this one knows {SCHEMA}); use that one, or a newer one"
        )
    if schema > 1:
        _join(store, run_id, record, stored=stored)
    return _complete(path, record)


def run_ids(store: Store) -> list[str]:
    """The runs that have a record, in the order in which they started."""
    return [name for name in store.names("runs") if has_record(store, name)]


def latest_run_id(store: Store) -> str | None:
    """The newest run that went all the way; None if there is none."""
    try:
        return store.read_bytes(LATEST).decode().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def latest_record(store: Store) -> dict[str, Any] | None:
    """The record of the newest run that went all the way; None if there is none, or it cannot be read.

    Its `shards` and `sources` are read when they are gone through.
    """
    run_id = latest_run_id(store)
    try:
        return read_record(store, run_id, stored=True) if run_id else None
    except RecordError:
        return None


def known_files(store: Store, wanted: Collection[str]) -> list[SourceFile]:
    """The source files of the newest runs, as they knew them, the newest run's first.

    As many runs are looked at as it takes to find all addresses that are `wanted`, but no more than `LOOKED_AT`. A run
    that has no readable record is passed over: names are then made anew, and no harm is done.
    """
    found: list[SourceFile] = []
    left, known = set(wanted), set(SourceFile.names())
    looked_at = 0
    for run_id in reversed(store.names("runs")):
        if not left or looked_at == LOOKED_AT:
            break
        try:
            content = store.read_bytes(summary_path(run_id))
        except FileNotFoundError:
            continue  # it was killed, or is going on
        looked_at += 1
        try:
            record = orjson.loads(content)
            rows = record.get("sources")
            if rows is None:
                rows = pq.read_table(io.BytesIO(store.read_bytes(f"runs/{run_id}/sources.parquet"))).to_pylist()
            files = [SourceFile.from_dict({name: row[name] for name in known & row.keys()}) for row in rows]
        except (FileNotFoundError, ValueError, AttributeError, TypeError, pa.ArrowException):
            continue
        found += files
        left -= {file.uri for file in files}
    return found


def name_latest(store: Store, run_id: str) -> None:
    """Make a run, whose record is written, the newest one that went all the way."""
    store.write_bytes(LATEST, run_id.encode())


# -- reading ---------------------------------------------------------------------------------------------------


def _join(store: Store, run_id: str, record: dict[str, Any], *, stored: bool) -> None:
    """Put a record's tables back into it, each checked against what `run.json` says of it."""
    described = record.pop("tables", {})
    for name, table in TABLES.items():
        path = f"runs/{run_id}/{name}.parquet"
        try:
            content = store.read_bytes(path)
            sound = hashlib.sha256(content).hexdigest() == described[name]["sha256"]
        except (FileNotFoundError, KeyError, TypeError):
            sound = False
        if not sound:
            raise RecordError(f"{path}: damaged or missing, so the run's record cannot be read; choose another run")
        if stored and table.long:
            entries, told = table.long
            record[entries] = StoredRows(content, told)
        else:
            table.back(record, pq.read_table(io.BytesIO(content)).to_pylist())


def _complete(path: str, record: dict[str, Any]) -> dict[str, Any]:
    """The record with what came later than it, as far as a default will do.

    Raises:
        RecordError: It lacks what is needed.
    """
    missing = [name for name in NEEDED if name not in record]
    if not missing and not isinstance(record["shards"], StoredRows):
        missing = sorted({f"shards[].{name}" for job in record["shards"] for name in NEEDED_OF_JOBS - job.keys()})
    if missing:
        raise RecordError(f"{path}: no {missing[0]} in it, as in records of another ladm; run it again with this one")
    for name in ("made_again", "remedies", "notices", "shortfalls"):
        record.setdefault(name, [])
    record.setdefault("refresh", None)
    record.setdefault("config_sha256", config_sha256(record["config"]))
    quarantined = sum(stage.get("quarantined", 0) for stage in record["stages"].values())
    record.setdefault("quarantined", {"records": quarantined, "files": 0})
    record["failures"] = [{"source": "", **failure} for failure in record["failures"]]
    defaults = RunConfig.model_construct(sources=[]).model_dump(mode="json")
    record["config"] = _filled(record["config"], defaults)
    return record


def _filled(settings: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of those that they do not name, section by section."""
    filled = dict(settings)
    for name, default in defaults.items():
        if name not in filled:
            filled[name] = default
        elif isinstance(filled[name], dict) and isinstance(default, dict):
            filled[name] = _filled(filled[name], default)
    return filled
