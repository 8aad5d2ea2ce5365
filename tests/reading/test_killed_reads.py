"""A read that is killed goes on from its last full shard, and comes to the same as one that was not disturbed."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import sentence

from ladm.tasks.job import Job, run_job
from ladm.tasks.manifest import Manifest, Part, notes_folder
from ladm.tasks.reading.document_shards import DocumentShards
from ladm.tasks.reading.finished_shards import FinishedShards
from ladm.tasks.reading.sources import list_sources
from ladm.tasks.stages import ingest
from ladm.tasks.stages.ingest import IngestConfig, SourceConfig, ingest_key_config
from ladm.tasks.storage.store import Store

SHARD_BYTES = 4000
FORMS = ["plain", "bom", "gzip", "zstd", "parquet", "arrow", "part"]


def rows(number: int = 60) -> list[dict[str, Any]]:
    words = random.Random(1)
    return [
        {"text": sentence(words, words.choice([5, 60, 200])), "meta": {"pile_set_name": "A", "n": n}}
        for n in range(number)
    ]


def written(folder: Path, form: str, documents: list[dict[str, Any]]) -> tuple[Path, Part | None]:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(row).encode() for row in documents]
    lines[7] = b"not JSON"
    lines[31] = b'{"text": 5}'
    content = b"\n".join([*lines[:20], b"", *lines[20:]]) + b"\n"
    match form:
        case "gzip":
            path, stored = folder / "x.jsonl.gz", gzip.compress(content)
        case "zstd":
            path, stored = folder / "x.jsonl.zst", zstandard.compress(content)
        case "parquet" | "arrow":
            path = folder / f"x.{form}"
            table = pa.table({"text": [row["text"] for row in documents], "meta": [row["meta"] for row in documents]})
            if form == "parquet":
                pq.write_table(table, path, row_group_size=13)
            else:
                with pa.ipc.new_file(path, table.schema) as writer:
                    writer.write_table(table, max_chunksize=13)
            return path, None
        case "part":
            before, after = zstandard.compress(content[:9_000]), zstandard.compress(content[40_000:])
            path, stored = folder / "x.jsonl.zst", before + zstandard.compress(content[9_000:40_000]) + after
            path.write_bytes(stored)
            return path, Part(begin=len(before), end=len(stored) - len(after), bytes=1)
        case "bom":
            path, stored = folder / "x.jsonl", b"\xef\xbb\xbf" + content
        case _:
            path, stored = folder / "x.jsonl", content
    path.write_bytes(stored)
    return path, None


def job_of(path: Path, part: Part | None, store: Path, **source: Any) -> Job:
    config = SourceConfig(**{"uri": str(path), **source})
    (listed,) = list_sources([config], "stat")
    return Job(
        stage="ingest",
        label="x",
        store=str(store),
        config=ingest_key_config(config, IngestConfig(shard_bytes=SHARD_BYTES)),
        source=listed.file,
        part=part,
        environment={ingest.PLACES: "records/ab/places"},
    )


class Killed(BaseException):
    """In the place of a signal that nobody can catch."""


def killed_after(monkeypatch: pytest.MonkeyPatch, job: Job, shards: int) -> None:
    """Do a job until it begins to write one shard more than so many."""
    flush = DocumentShards.flush

    def until(pending: DocumentShards) -> None:
        if len(pending.shards) == shards:
            raise Killed
        flush(pending)

    with monkeypatch.context() as patch:
        patch.setattr(DocumentShards, "flush", until)
        with pytest.raises(Killed):
            run_job(ingest.STAGE, job)


def told(manifest: Manifest, store: Path) -> tuple[Any, ...]:
    """All that a manifest says but the time, and the quarantine."""
    entries = Store(str(store)).read_shard(manifest.quarantine).to_pylist() if manifest.quarantine else []
    return manifest.replaced(seconds=0.0), entries


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("more", [{}, {"keep": "meta.n::int % 5 <> 0"}])
def test_a_killed_read_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, more: dict[str, str]
) -> None:
    path, part = written(tmp_path / "corpus", form, rows())
    undisturbed = run_job(ingest.STAGE, job_of(path, part, tmp_path / "sound", **more))
    assert len(undisturbed.shards) > 4
    store = tmp_path / "store"
    job = job_of(path, part, store, **more)
    for shards in (1, 3):  # killed twice
        killed_after(monkeypatch, job, shards)
    wrote = {file: file.stat().st_mtime_ns for file in (store / "ingest").rglob("*.parquet")}
    assert len(wrote) == 3
    manifest = run_job(ingest.STAGE, job)
    assert told(manifest, store) == told(undisturbed, tmp_path / "sound")
    assert all(file.stat().st_mtime_ns == when for file, when in wrote.items())  # not written again
    assert (store / notes_folder(manifest.key)).exists(), "until the record is written"
    FinishedShards(Store(str(store)), manifest.key).forget(len(manifest.shards))
    assert not (store / notes_folder(manifest.key)).exists()
    for shard in undisturbed.shards:
        assert (store / shard.path).read_bytes() == (tmp_path / "sound" / shard.path).read_bytes()


def test_a_shard_that_was_damaged_meanwhile_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = written(tmp_path / "corpus", "gzip", rows())
    undisturbed = run_job(ingest.STAGE, job_of(path, None, tmp_path / "sound"))
    store = tmp_path / "store"
    killed_after(monkeypatch, job_of(path, None, store), 3)
    damaged = store / undisturbed.shards[1].path
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"another..")
    manifest = run_job(ingest.STAGE, job_of(path, None, store))
    assert told(manifest, store) == told(undisturbed, tmp_path / "sound")
    assert damaged.read_bytes() == (tmp_path / "sound" / undisturbed.shards[1].path).read_bytes()


def test_damage_behind_the_shards_of_a_killed_read_quarantines_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = written(tmp_path / "corpus", "gzip", rows())
    path.write_bytes(path.read_bytes()[:-600])
    undisturbed = run_job(ingest.STAGE, job_of(path, None, tmp_path / "sound"))
    assert undisturbed.measures["files_quarantined"] == 1
    store = tmp_path / "store"
    killed_after(monkeypatch, job_of(path, None, store), 2)
    assert told(run_job(ingest.STAGE, job_of(path, None, store)), store) == told(undisturbed, tmp_path / "sound")


def test_another_version_of_the_file_or_of_the_settings_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = written(tmp_path / "corpus", "plain", rows())
    store = tmp_path / "store"
    killed_after(monkeypatch, job_of(path, None, store), 3)
    other = run_job(ingest.STAGE, job_of(path, None, store, keep="meta.n > 30"))
    assert told(other, store) == told(
        run_job(ingest.STAGE, job_of(path, None, tmp_path / "a", keep="meta.n > 30")), tmp_path / "a"
    )
    path, _ = written(tmp_path / "corpus", "plain", rows(70)[::-1])
    os.utime(path, ns=(1, 1))
    manifest = run_job(ingest.STAGE, job_of(path, None, store))
    assert told(manifest, store) == told(run_job(ingest.STAGE, job_of(path, None, tmp_path / "b")), tmp_path / "b")


@pytest.mark.parametrize("form", ["gzip", "plain"])
def test_a_read_that_sigkill_ends_repeats_at_most_one_shard(tmp_path: Path, form: str) -> None:
    path, _ = written(tmp_path / "corpus", form, rows(20_000))
    store = tmp_path / "store"
    job = job_of(path, None, store)
    job = job.replaced(config={**job.config, "shard_bytes": 400_000})
    (tmp_path / "job.json").write_bytes(job.as_json())
    command = (
        "import sys; from ladm.tasks.job import Job, run_job; from ladm.tasks.stages.ingest import STAGE;"
        f"run_job(STAGE, Job.from_json(open({str(tmp_path / 'job.json')!r}).read()))"
    )
    process = subprocess.Popen([sys.executable, "-c", command])
    late = time.monotonic() + 60
    while len(list((store / "ingest").rglob("*.parquet"))) < 5 and process.poll() is None:
        assert time.monotonic() < late
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
    before = {file: file.stat().st_mtime_ns for file in (store / "ingest").rglob("*.parquet")}
    manifest = run_job(ingest.STAGE, job)
    repeated = [file for file, when in before.items() if file.stat().st_mtime_ns != when]
    assert len(before) >= 5
    assert len(repeated) <= 1
    assert len(manifest.shards) > len(before)
    assert manifest.counts.received == 20_000
    sound = job.replaced(store=str(tmp_path / "sound"))
    assert told(manifest, store) == told(run_job(ingest.STAGE, sound), tmp_path / "sound")
