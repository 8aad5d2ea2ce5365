"""One document of a shard changes: the scores of the others are taken over, and are those of a run from nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl

Cli = Callable[..., Answer]
LENGTHS = [300, 320, 340, 360, 600, 380]
BESIDE = ("scorer.beside=[gzip, longattn, longfilter, random]",)
STAGES = ("tokenize", "score", "measure", "rank")


@pytest.fixture
def shard(corpus: Corpus) -> Corpus:
    """A file of six documents, in the place of the corpus's own."""
    for path in corpus.folder.iterdir():
        path.unlink()
    write_jsonl(corpus.folder / "a.jsonl", "D", 1, LENGTHS)
    write_jsonl(corpus.folder / "b.jsonl", "D", 2, [300])
    return corpus


def change(path: Path, number: int, seed: int) -> None:
    """Write one record of a file anew."""
    other = path.with_name("other")
    write_jsonl(other, "D", seed, [330])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = other.read_bytes()
    other.unlink()
    path.write_bytes(b"".join(lines))


def made(record: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Stage → key and checksum of its files."""
    found: dict[str, list[tuple[str, str]]] = {}
    for job in (one for one in record["shards"] if one["stage"] in STAGES):
        found.setdefault(job["stage"], []).extend((job["key"], shard["sha256"]) for shard in job["shards"])
    return {stage: sorted(files) for stage, files in found.items()}


def job_of(record: dict[str, Any], stage: str) -> dict[str, Any]:
    (job,) = (one for one in record["shards"] if one["stage"] == stage and not one["cached"])
    return job


def test_a_changed_document_alone_is_scored_and_all_is_as_from_nothing(
    tmp_path: Path, shard: Corpus, ladm: Cli
) -> None:
    store = tmp_path / "store"
    first = ladm(*run_arguments(shard, store, *BESIDE)).record
    windows = first["windows_scored"]
    assert windows == first["stages"]["score"]["windows"] > len(LENGTHS)
    assert "windows_reused" not in first["stages"]["score"]

    change(shard.folder / "a.jsonl", 2, 77)
    answer = ladm(*run_arguments(shard, store, *BESIDE))
    second = answer.record
    assert second["windows_scored"] == 1
    job = job_of(second, "score")
    assert (job["in"], job["kept"], job["windows_reused"]) == (job["windows"], job["windows"], job["windows"] - 1)
    assert f"{job['windows'] - 1} of them known from an earlier run" in answer.err
    fresh = ladm(*run_arguments(shard, tmp_path / "fresh", *BESIDE)).record
    assert fresh["windows_scored"] == windows
    assert made(second) == made(fresh)

    # a record in front of the others: their lines, and so their ids, are other ones, and their windows are not
    path = shard.folder / "a.jsonl"
    write_jsonl(shard.folder / "new", "D", 78, [310])
    path.write_bytes((shard.folder / "new").read_bytes() + path.read_bytes())
    (shard.folder / "new").unlink()
    third = ladm(*run_arguments(shard, store, *BESIDE)).record
    assert third["windows_scored"] == 1
    assert made(third) == made(ladm(*run_arguments(shard, tmp_path / "fresh3", *BESIDE)).record)

    # one less: nothing is scored
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    change(path, 5, 79)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    fourth = ladm(*run_arguments(shard, store, *BESIDE)).record
    assert fourth["windows_scored"] == 0
    assert job_of(fourth, "score")["windows_reused"] == job_of(fourth, "score")["windows"]


def test_nothing_is_taken_over_from_other_settings_or_from_what_is_not_whole(
    tmp_path: Path, shard: Corpus, ladm: Cli
) -> None:
    store, path = tmp_path / "store", shard.folder / "a.jsonl"
    first = ladm(*run_arguments(shard, store)).record
    change(path, 0, 80)
    other = ladm(*run_arguments(shard, store, "scorer.d_cds=3")).record
    assert other["windows_scored"] == first["windows_scored"]
    assert "windows_reused" not in other["stages"]["score"]
    # a scorer that the earlier run did not have: its pass is needed for all windows of the shard
    change(path, 1, 81)
    added = ladm(*run_arguments(shard, store, "scorer.d_cds=3", *BESIDE)).record
    assert "windows_reused" not in job_of(added, "score")
    # the earlier scores are damaged
    change(path, 3, 82)
    (scored,) = (one for one in added["shards"] if one["stage"] == "score" and one["source"].endswith("a.jsonl"))
    file = store / scored["shards"][0]["path"]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = ladm(*run_arguments(shard, store, "scorer.d_cds=3", *BESIDE)).record
    assert again["status"] == "completed"
    assert "windows_reused" not in job_of(again, "score")


def test_where_duplicates_are_left_out(tmp_path: Path, shard: Corpus, ladm: Cli) -> None:
    store, path = tmp_path / "store", shard.folder / "a.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1], lines[4]]))
    settings = ("deduplicate={}",)
    first = ladm(*run_arguments(shard, store, *settings)).record
    change(path, 2, 83)
    second = ladm(*run_arguments(shard, store, *settings)).record
    assert second["windows_scored"] == 1
    assert second["stages"]["score"]["in"] == first["stages"]["score"]["in"]
    fresh = ladm(*run_arguments(shard, tmp_path / "fresh", *settings)).record
    assert made(second) == made(fresh)
    # one that was left out is scored now, since its twin is gone
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[2:]))
    third = ladm(*run_arguments(shard, store, *settings)).record
    assert third["windows_scored"] == 0  # its text is the twin's, whose score is known
    for record in (second, third):
        for job in (one for one in record["shards"] if one["stage"] == "score"):
            for one in job["shards"]:
                ids = pq.read_table(store / one["path"])["window_id"].to_pylist()
                assert len(set(ids)) == len(ids) == one["rows"]
