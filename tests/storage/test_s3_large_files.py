"""Large files on S3, with the store there too: read in parts, and from where a killed read had come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_killed_reads import job_of, killed_after
from test_large_files import CONTENTS, FORMS
from test_s3 import Place, place, server  # noqa: F401  (fixtures)

from ladm.flows.config import load_config
from ladm.flows.dag.preflight import preflight
from ladm.flows.forecast.by_hand import done_by_hand
from ladm.tasks.job import run_job
from ladm.tasks.manifest import notes_folder
from ladm.tasks.reading.finished_shards import FinishedShards
from ladm.tasks.stages import ingest
from ladm.tasks.storage.store import Store


def documents(store: str, shards: list[Any]) -> list[dict[str, Any]]:
    return [row for shard in shards for row in Store(store).read_shard(shard).to_pylist()]


def test_parts_come_to_the_same(place: Place, tmp_path: Path) -> None:  # noqa: F811
    name, content = FORMS["zstd"](CONTENTS["bad lines"])
    (tmp_path / name).write_bytes(content)
    place.upload(tmp_path / name)
    found = []
    for part_bytes in (1000, 0):
        settings = [f"sources=s3://{place.prefix}/raw/*", f"ingest.part_bytes={part_bytes}", "ingest.shard_bytes=4000"]
        store = f"{place.store}-{part_bytes}"
        record = done_by_hand(preflight(load_config(None, settings, store), "ingest"))
        found.append((documents(store, record.shards("ingest")), record._counts("ingest"), len(record.of("ingest"))))
    assert found[0][:2] == found[1][:2]
    assert found[0][2] > found[1][2] == 1


def test_a_killed_read_goes_on(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (tmp_path / "x.jsonl").write_bytes(CONTENTS["bad lines"])
    place.upload(tmp_path / "x.jsonl")
    job = job_of(Path("x"), None, tmp_path, uri=f"s3://{place.prefix}/raw/x.jsonl")
    job = job.replaced(store=place.store)
    killed_after(monkeypatch, job, 3)
    before = {file.path: file.modified for file in Store(place.store).files("ingest")}
    manifest = run_job(ingest.STAGE, job)
    after = {file.path: file.modified for file in Store(place.store).files("ingest")}
    assert len(before) == 3
    assert before.items() <= after.items()
    FinishedShards(Store(place.store), manifest.key).forget(len(manifest.shards))  # as once its record is written
    assert Store(place.store).files(notes_folder(manifest.key)) == []
    whole = run_job(ingest.STAGE, job.replaced(store=f"{place.store}-whole"))
    assert [shard.key for shard in manifest.shards] == [shard.key for shard in whole.shards]
    assert manifest.counts == whole.counts
