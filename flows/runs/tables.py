"""The parts of a run record that grow with the number of files, each a table: out of the record, and in again.

`publish.py` writes them, `read.py` reads them.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from ladm.tasks.frozen import Frozen
from ladm.tasks.manifest import Shard, SourceFile

Row = dict[str, Any]
_Entry = Callable[[Row], Row]

NEEDED_OF_JOBS = {
    *("stage", "shard", "source", "cached", "key", "in", "kept", "dropped", "quarantined", "seconds"),
    *("shards", "files", "quarantine"),
}
"""What every job of a record has; whatever else it has is a measure."""


def _columns(model: type[Frozen]) -> list[pa.Field]:
    """The fields of a small model as columns."""
    kinds: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), bool: pa.bool_(), float: pa.float64()}
    hints = typing.get_type_hints(model)
    return [pa.field(name, kinds[(typing.get_args(hints[name]) or (hints[name],))[0]]) for name in model.names()]


FILE = pa.struct(_columns(Shard))
JOBS = pa.schema(
    [
        *((name, pa.string()) for name in ("stage", "shard", "source")),
        ("cached", pa.bool_()),
        ("key", pa.string()),
        ("records_in", pa.int64()),
        ("kept", pa.int64()),
        ("dropped_reasons", pa.string()),  # JSON: reason → records
        ("quarantined", pa.int64()),
        ("measures", pa.string()),  # JSON: name → total
        ("seconds", pa.float64()),
        ("shards", pa.list_(FILE)),
        ("files", pa.list_(FILE)),
        ("quarantine", FILE),
    ]
)
SOURCES = pa.schema(
    [
        *_columns(SourceFile),
        ("group", pa.string()),
        *((name, pa.int64()) for name in ("documents", "quarantined", "windows")),
        ("content", pa.string()),
    ]
)
_OF_PACKED = {name for name in SOURCES.names if name not in SourceFile.names()}
CHANGES = pa.schema([("change", pa.string()), ("uri", pa.string())])
FAILURES = pa.schema([(name, pa.string()) for name in ("stage", "shard", "source", "error")])
FILES = pa.schema([("list", pa.string()), ("path", pa.string())])
LISTS = ("files", "made_again")
"""Lists of a record that are in `files.parquet`."""
WITH_URIS = ("added", "changed", "removed")
"""Changes of which `refresh` names the files."""


@dataclass(frozen=True)
class RecordTable:
    """A part of the record that is a table of its own: how it gets out of the record, and in again."""

    schema: pa.Schema
    out: Callable[[Mapping[str, Any]], list[Row]]
    back: Callable[[dict[str, Any], list[Row]], None]
    long: tuple[str, _Entry] | None = None
    """Where it alone is a list of the record: the list's name, and what makes an entry of a row."""


def _jobs_out(record: Mapping[str, Any]) -> list[Row]:
    return [
        {
            **job,
            "records_in": job["in"],
            "dropped_reasons": orjson.dumps(job["dropped"]).decode(),
            "measures": orjson.dumps(
                {name: value for name, value in job.items() if name not in NEEDED_OF_JOBS}
            ).decode(),
        }
        for job in record["shards"]
    ]


def _job_of(row: Row) -> Row:
    return {
        **{name: row[name] for name in ("stage", "shard", "source", "cached", "key")},
        "in": row["records_in"],
        "kept": row["kept"],
        "dropped": orjson.loads(row["dropped_reasons"]),
        "quarantined": row["quarantined"],
        **orjson.loads(row["measures"]),
        **{name: row[name] for name in ("seconds", "shards", "files", "quarantine")},
    }


def _changes_out(record: Mapping[str, Any]) -> list[Row]:
    refresh = record["refresh"] or {change: {"uris": []} for change in WITH_URIS}
    return [{"change": change, "uri": uri} for change in WITH_URIS for uri in refresh[change]["uris"]]


def _changes_back(record: dict[str, Any], rows: list[Row]) -> None:
    for change in WITH_URIS if record["refresh"] else ():
        record["refresh"][change]["uris"] = [row["uri"] for row in rows if row["change"] == change]


def _sources_out(record: Mapping[str, Any]) -> list[Row]:
    return [{name: source.get(name) for name in SOURCES.names} for source in record["sources"]]


def _source_of(row: Row) -> Row:
    return row if row.get("group") else {name: value for name, value in row.items() if name not in _OF_PACKED}


def _files_out(record: Mapping[str, Any]) -> list[Row]:
    return [{"list": name, "path": path} for name in LISTS for path in record[name]]


def _files_back(record: dict[str, Any], rows: list[Row]) -> None:
    record |= {name: [row["path"] for row in rows if row["list"] == name] for name in LISTS}


def _as_it_is(name: str, schema: pa.Schema) -> RecordTable:
    """A list of the record whose entries are rows already."""

    def out(record: Mapping[str, Any]) -> list[Row]:
        return list(record[name])

    def back(record: dict[str, Any], rows: list[Row]) -> None:
        record[name] = rows

    return RecordTable(schema, out, back)


def _long(schema: pa.Schema, out: Callable[[Mapping[str, Any]], list[Row]], name: str, of: _Entry) -> RecordTable:
    """A list of the record that may be long, each entry made of a row."""

    def back(record: dict[str, Any], rows: list[Row]) -> None:
        record[name] = list(map(of, rows))

    return RecordTable(schema, out, back, (name, of))


TABLES = {
    "jobs": _long(JOBS, _jobs_out, "shards", _job_of),
    "sources": _long(SOURCES, _sources_out, "sources", _source_of),
    "changes": RecordTable(CHANGES, _changes_out, _changes_back),
    "failures": _as_it_is("failures", FAILURES),
    "files": RecordTable(FILES, _files_out, _files_back),
}
"""Name → what is in `<name>.parquet`."""
