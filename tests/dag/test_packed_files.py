"""Many small files through the whole DAG: read in groups, each accounted for by itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl

from ladm.flows.runs.read import read_record
from ladm.tasks.job import Job, run_job
from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.sources import list_sources
from ladm.tasks.stages import ingest
from ladm.tasks.stages.ingest import IngestConfig, SourceConfig, ingest_key_config
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
FILES = 40
PACKED = ("ingest.pack_bytes=40000",)
"""Some ten files a group."""


@pytest.fixture
def many(corpus: Corpus) -> Corpus:
    """40 files of one document each, in the place of the corpus's two: every fifth is too short for a window."""
    for path in corpus.folder.iterdir():
        path.unlink()
    for number in range(FILES):
        words = [5] if number % 5 == 0 else [300 + number]
        write_jsonl(corpus.folder / f"{number:03d}.jsonl", f"D{number % 2}", number, words)
    return corpus


def did(record: dict[str, Any], stage: str) -> tuple[int, int]:
    return record["stages"][stage]["run"], record["stages"][stage]["cached"]


def test_a_run_of_packed_files_and_what_changes(tmp_path: Path, many: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    first = ladm(*run_arguments(many, store, *PACKED))
    assert first.code == 0, first.err
    record = first.record
    groups = did(record, "ingest")[0]
    assert 1 < groups < FILES / 2
    assert record["stages"]["ingest"]["files"] == FILES
    assert (record["stages"]["ingest"]["kept"], record["windows_scored"]) == (FILES, 32)
    files = {Path(one["uri"]).name: one for one in record["sources"]}
    assert (files["000.jsonl"]["documents"], files["000.jsonl"]["windows"]) == (1, 0)
    assert (files["001.jsonl"]["documents"], files["001.jsonl"]["windows"]) == (1, 1)
    assert len({one["group"] for one in files.values()}) == groups
    assert read_record(Store(str(store)), record["run_id"]) == record

    # one changed, one of them with another date only, one gone, one new: by file, not by group
    ends = {[one["uri"] for one in record["sources"] if one["group"] == group][-1] for group in group_keys(record)}
    long_ones = [path for path in sorted(many.folder.iterdir()) if path.stem[-1] not in "05"]
    gone = next(path for path in long_ones if str(path) not in ends and path.stem not in ("006", "007"))
    write_jsonl(many.folder / "006.jsonl", "D0", 1006, [300, 310])
    os.utime(many.folder / "007.jsonl", ns=(1, 1))
    gone.unlink()
    write_jsonl(many.folder / "020a.jsonl", "D0", 2000, [300])
    second = ladm(*run_arguments(many, store, *PACKED)).record
    refresh = second["refresh"]
    told = {change: (refresh[change]["files"], refresh[change]["documents"], refresh[change]["windows"])
            for change in ("added", "changed", "removed", "unchanged")}  # fmt: skip
    assert told == {"added": (1, 1, 1), "changed": (1, 2, 2), "removed": (1, 1, 1), "unchanged": (38, 38, 30)}
    assert (refresh["changed"]["documents_before"], refresh["changed"]["windows_before"]) == (1, 1)
    assert refresh["removed"]["uris"] == [str(gone)]
    assert refresh["changed"]["uris"] == [str(many.folder / "006.jsonl")]

    # one file changed: its group alone, and of that one window alone, as is told beforehand
    write_jsonl(many.folder / "031.jsonl", "D0", 1031, [333])
    told = json.loads(ladm("plan", *run_arguments(many, store, *PACKED)[1:]).out)
    third = ladm(*run_arguments(many, store, *PACKED)).record
    assert did(third, "ingest")[0] == did(third, "score")[0] == 1
    assert (told["windows"], third["windows_scored"]) == (1, 1)
    # nothing changed: nothing done, and the same is told of every file
    fourth = ladm(*run_arguments(many, store, *PACKED)).record
    assert did(fourth, "ingest")[0] == did(fourth, "score")[0] == 0
    assert fourth["sources"] == third["sources"]
    # read alone from now on: the same files
    apart = ladm(*run_arguments(many, store, "ingest.pack_bytes=0"), "--until", "tokenize").record
    assert did(apart, "ingest")[0] == FILES
    assert (apart["refresh"]["unchanged"]["files"], apart["refresh"]["unchanged"]["windows"]) == (FILES, 33)

    query = "select count(*) n, count(distinct source) s from documents where sha256 = sha256(text)"
    (found,) = json.loads(ladm("sql", query, "--store", store, "--format", "json").out)
    assert (found["n"], found["s"]) == (FILES + 1, FILES)


def group_keys(record: dict[str, Any]) -> set[str]:
    return {one["group"] for one in record["sources"]}


def test_bad_files_of_a_group_are_quarantined_by_themselves(tmp_path: Path, many: Corpus, ladm: Cli) -> None:
    (many.folder / "011.jsonl").write_bytes(b"\xff\xfe" + "UTF-16".encode("utf-16-le"))
    (many.folder / "012.jsonl").open("a").write("not JSON\n")
    (many.folder / "013.jsonl").unlink()
    (many.folder / "013.jsonl").symlink_to("nowhere")
    store = tmp_path / "store"
    run = ladm(*run_arguments(many, store, *PACKED))
    assert run.code == 0, run.err
    assert run.record["quarantined"] == {"records": 3, "files": 2}
    assert run.record["windows_scored"] == 30
    answer = ladm("sql", "from quarantine order by source", "--store", store, "--format", "json")
    rows = [(Path(row["source"]).name, row["line"]) for row in json.loads(answer.out)]
    assert rows == [("011.jsonl", None), ("012.jsonl", 2), ("013.jsonl", None)]
    limited = ladm(*run_arguments(many, store, *PACKED, "max_quarantined=0.04"))
    assert limited.code == 1
    assert "2 of 40 source files are quarantined" in limited.record["failures"][0]["error"]
    # mended, they are read; nothing is counted twice
    write_jsonl(many.folder / "011.jsonl", "D1", 11, [311])
    record = ladm(*run_arguments(many, store, *PACKED)).record
    assert record["quarantined"] == {"records": 2, "files": 1}
    assert record["refresh"]["changed"]["uris"] == [str(many.folder / "011.jsonl")]


def test_damage_and_collection(tmp_path: Path, many: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    record = ladm(*run_arguments(many, store, *PACKED)).record
    # documents and windows of one group are lost: that group is made again, for a ranking that needs its scores
    lost = next(job for job in record["shards"] if job["stage"] == "ingest")
    for job in record["shards"]:
        if job["source"] == lost["source"] and job["stage"] in ("ingest", "tokenize", "score"):
            (store / job["shards"][0]["path"]).unlink()
    again = ladm(*run_arguments(many, store, *PACKED)).record
    assert again["status"] == "completed"
    assert did(again, "ingest")[0] == did(again, "tokenize")[0] == did(again, "score")[0] == 1
    assert again["refresh"]["unchanged"]["files"] == FILES
    write_jsonl(many.folder / "031.jsonl", "D0", 1031, [333])
    ladm(*run_arguments(many, store, *PACKED))
    assert ladm("gc", "--keep", "1", "--store", store).code == 0
    kept = ladm(*run_arguments(many, store, *PACKED)).record
    assert did(kept, "ingest")[0] == did(kept, "score")[0] == 0


def job_of(store: Path, folder: Path, group: list[SourceFile], shard_bytes: int = 10_000) -> Job:
    config = ingest_key_config(SourceConfig(uri=str(folder)), IngestConfig(shard_bytes=shard_bytes))
    return Job(stage="ingest", label="x", store=str(store), config=config, group=group)


def test_a_file_that_is_bad_at_its_end_leaves_nothing_in_any_shard(tmp_path: Path) -> None:
    """Also where it fills shards by itself before the damage shows."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", "A", 1, [300] * 3)
    write_jsonl(folder / "b.jsonl", "B", 2, [400] * 20)
    write_jsonl(folder / "c.jsonl", "C", 3, [300] * 3)
    import gzip

    whole = gzip.compress((folder / "b.jsonl").read_bytes())
    (folder / "b.jsonl.gz").write_bytes(whole[:-9])
    (folder / "b.jsonl").unlink()
    files = [one.file for one in list_sources([SourceConfig(uri=str(folder))])]
    store = Store(str(tmp_path / "store"))
    manifest = run_job(ingest.STAGE, job_of(tmp_path / "store", folder, files))
    assert (manifest.counts.kept, manifest.measures["files_quarantined"]) == (6, 1)
    read = [row for shard in manifest.shards for row in store.read_shard(shard).to_pylist()]
    assert [(Path(row["source"]).name, row["line"]) for row in read] == [
        ("a.jsonl", 1), ("a.jsonl", 2), ("a.jsonl", 3), ("c.jsonl", 1), ("c.jsonl", 2), ("c.jsonl", 3),
    ]  # fmt: skip
    (folder / "b.jsonl.gz").write_bytes(whole)
    files = [one.file for one in list_sources([SourceConfig(uri=str(folder))])]
    mended = run_job(ingest.STAGE, job_of(tmp_path / "store", folder, files))
    assert [one.documents for one in mended.packed] == [3, 20, 3]
    read = [row for shard in mended.shards for row in store.read_shard(shard).to_pylist()]
    assert [(Path(row["source"]).name[0], row["line"]) for row in read] == [
        (name, line + 1) for name, lines in (("a", 3), ("b", 20), ("c", 3)) for line in range(lines)
    ]
    assert max(shard.rows for shard in mended.shards) < 10


def test_the_order_of_documents_is_that_of_files_whatever_their_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, words in enumerate([10, 900_000, 10, 10, 900_000, 10]):  # 5 MB: packed into tables meanwhile
        write_jsonl(folder / f"{number}.jsonl", "A", number, [words, 5])
    files = [one.file for one in list_sources([SourceConfig(uri=str(folder))])]
    store = Store(str(tmp_path / "store"))
    (shard,) = run_job(ingest.STAGE, job_of(tmp_path / "store", folder, files, 2**26)).shards
    read = store.read_shard(shard).select(["source", "line"]).to_pylist()
    assert [(Path(row["source"]).name, row["line"]) for row in read] == [
        (f"{number}.jsonl", line) for number in range(6) for line in (1, 2)
    ]
