"""`ladm gc`: deletes what no kept run refers to.

Kept are the newest N runs that went all the way through export, the one that `latest` names, and every run since the
oldest of these that failed or stopped early, since its shards are what a rerun starts from. A run that was killed, or
is still going, has no `run.json` yet: therefore a file that no run names is kept, too, if it is younger than the
oldest kept run, or than an hour. So is what `ladm evaluate` measured, which no run names either. Where no run went all
the way, nothing but old temporary files is deleted.

A run that is going on may come to reuse any shard of the store, of a run that is being removed too, and making it again
may cost GPU hours. So while the mark of such a run is there (`marks.py`), only the folders of removed runs are deleted;
their shards wait for a `ladm gc` at a time when no run is going on. Deleting is in an order that can be interrupted:
first the run's record, then its folder, then the records of shards, then their data; what is left is found by the next
`ladm gc`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from ladm.flows.dag.inventory import INDEX
from ladm.flows.dag.stages import STORE_FOLDERS
from ladm.flows.runs import marks
from ladm.flows.runs.read import NewerRecordError, latest_run_id, read_record, run_ids
from ladm.flows.runs.record import new_run_id
from ladm.tasks.errors import ConfigError, RecordError
from ladm.tasks.manifest import record_path
from ladm.tasks.storage.listing import StoredFile
from ladm.tasks.storage.store import Store

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True)
class Sweep:
    """What a collection keeps and deletes."""

    kept_runs: list[str]
    removed_runs: list[str]
    files: list[StoredFile]
    """To delete, in the order of deleting."""
    freed: int
    """Bytes that deleting them frees: a file with several hard links counts once, and only if all of them go."""
    going_on: list[str] = field(default_factory=list)
    """Runs for whose sake all shards are kept."""

    def by_folder(self) -> dict[str, tuple[int, int]]:
        """Folder → (files, bytes) to delete."""
        totals = dict.fromkeys(STORE_FOLDERS, (0, 0))
        for file in self.files:
            folder = file.path.split("/", 1)[0]
            files, size = totals[folder]
            totals[folder] = files + 1, size + file.bytes
        return totals


def collect(uri: str, keep: int, dry_run: bool = False) -> Sweep:
    """Find what no kept run of a store refers to, and delete it unless `dry_run`.

    Raises:
        ConfigError: `keep` is less than 1, there is no run in the store, or a run's record cannot be read.
    """
    if keep < 1:
        raise ConfigError(f"--keep: {keep} would delete every run; keep at least 1")
    store = Store(uri)
    if not run_ids(store):
        raise ConfigError(f"--store: there is no run in {uri!r}, so nothing tells what is needed; give another store")
    with contextlib.nullcontext() if dry_run else marks.collecting(store, new_run_id()):
        files = [file for folder in STORE_FOLDERS for file in store.files(folder)]
        live = marks.live_marks(store, files, time.time())
        # After the listing and the marks: a run that finished meanwhile is read, and what it names is kept.
        paths: dict[str, str] = {}
        records = [_read(store, name, paths) for name in run_ids(store)]
        sweep = plan(files, records, latest_run_id(store), keep, time.time(), [mark.run_id for mark in live])
        if not dry_run:
            store.remove_all([file.path for file in sweep.files])
            for run in {file.path.split("/")[1] for file in sweep.files if file.path.startswith("runs/")}:
                store.remove_empty_folders(f"runs/{run}")
    return sweep


def plan(
    files: Sequence[StoredFile],
    records: Sequence[dict[str, Any]],
    latest: str | None,
    keep: int,
    now: float,
    live: Collection[str] = (),
) -> Sweep:
    """What to delete, from a listing of `STORE_FOLDERS` and the records of all runs.

    Args:
        files: The listing.
        records: The records of all runs.
        latest: What the file `latest` holds.
        keep: So many of the newest whole runs are kept.
        now: Seconds since 1970.
        live: The runs, and collections, whose marks tell that they are going on.
    """
    going_on = sorted(run for run in live if not run.startswith(marks.COLLECTOR))
    kept_runs, oldest = _runs_to_keep(records, latest, keep)
    removed_runs = sorted(record["run_id"] for record in records if record["run_id"] not in kept_runs)
    kept, removed = set[str](), set[str]()
    for record in records:
        (kept if record["run_id"] in kept_runs else removed).update(_named_by(record))
    unnamed_before = min(now - HOUR, oldest)
    unfinished = _young_folders(files, unnamed_before)

    def is_needless(file: StoredFile) -> bool:
        if file.path.endswith(".tmp"):
            return file.modified < now - DAY
        path = _owner(file.path)
        if path in kept or path == INDEX:
            return False
        folder, _, rest = path.partition("/")
        if folder == "runs":
            run = rest.split("/", 1)[0]
            if run in live or marks.is_mark(path):
                return run not in live
            return run in removed_runs or (run not in kept_runs and run not in unfinished)
        if going_on:
            return False
        return path in removed or file.modified < unnamed_before

    needless = sorted(filter(is_needless, files), key=_order)
    gone = {file.path for file in needless}
    linked = {file.inode for file in files if file.path not in gone and file.inode is not None}
    freed = {file.inode or file.path: file.bytes for file in needless if file.inode not in linked}
    return Sweep(sorted(kept_runs), removed_runs, needless, sum(freed.values()), going_on)


def _runs_to_keep(records: Sequence[dict[str, Any]], latest: str | None, keep: int) -> tuple[Collection[str], float]:
    """The ids of the runs to keep, and when the oldest whole one among them started (seconds since 1970)."""
    newest_first = sorted(records, key=lambda record: (_started(record), record["run_id"]), reverse=True)
    whole = [record for record in newest_first if record["status"] == "completed" and record["until"] == "export"]
    kept = [record for number, record in enumerate(whole) if number < keep or record["run_id"] == latest]
    oldest = min((_started(record) for record in kept), default=float("-inf"))
    partial = [record for record in records if record not in whole and _started(record) >= oldest]
    return {record["run_id"] for record in [*kept, *partial]}, oldest


def _started(record: dict[str, Any]) -> float:
    return datetime.fromisoformat(record["started"]).timestamp()


def _named_by(record: dict[str, Any]) -> set[str]:
    """The paths of the data files and shard records that a run refers to."""
    if "named" in record:
        known: set[str] = record["named"]
        return known
    named = set()
    for job in record["shards"]:
        named.add(record_path(job["key"]))
        files = [*job["shards"], *job["files"], *([job["quarantine"]] if job["quarantine"] else [])]
        named.update(file["path"] for file in files)
    return named


def _owner(path: str) -> str:
    """The record that a note on a finished part of an export belongs to (`exporters/finished.py`); else the path."""
    parts = path.split("/")
    return f"{'/'.join(parts[:3])}.json" if parts[0] == "records" and len(parts) == 4 else path


def _young_folders(files: Sequence[StoredFile], before: float) -> set[str]:
    """Run folders that something was written to since: they may be under way."""
    parts = [(PurePosixPath(file.path).parts, file.modified) for file in files]
    return {path[1] for path, modified in parts if path[0] == "runs" and modified >= before}


def _order(file: StoredFile) -> tuple[int, bool, str]:
    folder, _, rest = file.path.partition("/")
    return STORE_FOLDERS.index(folder), not rest.endswith("/run.json"), file.path


def _read(store: Store, run: str, paths: dict[str, str]) -> dict[str, Any]:
    """What is needed of a run's record: the rest of it may be large, and is let go before the next one is read.

    Args:
        store: The store.
        run: The run.
        paths: Every path that a record named so far, so that it is held once, however many runs name it.
    """
    try:
        record = read_record(store, run, stored=True)
        _started(record)
        named = {paths.setdefault(path, path) for path in _named_by(record)}
    except NewerRecordError:
        raise
    except (RecordError, ValueError, KeyError, TypeError) as error:
        why = f" ({error})" if isinstance(error, RecordError) else ""
        raise ConfigError(
            f"runs/{run}/run.json: no readable run record{why}, so what it refers to is unknown; delete the folder "
            f"runs/{run} first"
        ) from None
    return {**{name: record[name] for name in ("started", "status", "until")}, "run_id": run, "named": named}


def summary(sweep: Sweep, dry_run: bool) -> str:
    """What was deleted, or would be, for people."""
    would = "would delete" if dry_run else "deleted"
    lines = [f"kept runs: {', '.join(sweep.kept_runs)}", f"{would} runs: {', '.join(sweep.removed_runs) or 'none'}"]
    for folder, (files, size) in sweep.by_folder().items():
        if files:
            lines.append(f"{would} {files:>7,} files, {readable(size):>9} in {folder}/")
    frees = "would free" if dry_run else "freed"
    lines.append(f"{would} {len(sweep.files):,} files in all and {frees} {readable(sweep.freed)}")
    if sweep.going_on:
        lines.append(
            f"all shards stay, since runs are going on: {', '.join(sweep.going_on)}; run this again after them"
        )
    return "\n".join(lines)


def readable(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
