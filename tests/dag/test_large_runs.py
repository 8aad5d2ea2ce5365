"""Runs of one large file in processes of their own: who reads its parts, and what a kill in the middle repeats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from conftest import Answer, Corpus, run_arguments
from test_large_files import rows_of
from test_processes import start, wait_for

from ladm.flows.orchestration import threads_runner
from ladm.flows.orchestration.threads_runner import Readers
from ladm.tasks.job import Job, run_job
from ladm.tasks.manifest import Part
from ladm.tasks.reading.sources import list_sources
from ladm.tasks.stages import ingest
from ladm.tasks.stages.ingest import IngestConfig, SourceConfig, ingest_key_config

Cli = Callable[..., Answer]
PARTS = ("ingest.part_bytes=150000", "ingest.shard_bytes=300000", "execution.workers=2")


@pytest.fixture
def large(corpus: Corpus) -> Corpus:
    """One file of some 12 MB in frames of 100 kB, in the place of the corpus's two."""
    for path in corpus.folder.iterdir():
        path.unlink()
    content = b"\n".join(rows_of(1, 20_000))
    frames = [zstandard.compress(content[at : at + 100_000]) for at in range(0, len(content), 100_000)]
    (corpus.folder / "large.jsonl.zst").write_bytes(b"".join(frames))
    settings = [setting for setting in corpus.settings if not setting.startswith("sources")]
    return Corpus(corpus.folder, [f"sources={corpus.folder}/*", *settings])


def shards_in(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.glob("ingest/*/*.parquet")}


def test_a_kill_in_the_middle_of_a_large_file_repeats_at_most_one_shard_a_task(
    tmp_path: Path, large: Corpus, ladm: Cli
) -> None:
    store = tmp_path / "store"
    arguments = [*run_arguments(large, store, *PARTS), "--until", "ingest"]
    killed = start(arguments)
    wait_for(lambda: len(shards_in(store)) > 5 or killed.poll() is not None)
    killed.kill()
    killed.communicate(timeout=60)  # which ends only when the processes that read have ended, too
    before = shards_in(store)
    assert not (store / "latest").exists()
    again = ladm(*arguments)
    assert again.code == 0, again.err
    record = again.record
    after = shards_in(store)
    assert len(after) > len(before) > 5
    rewritten = {path.stem for path, when in before.items() if after[path] != when}
    of_tasks = [{shard["key"] for shard in job["shards"]} for job in record["shards"] if job["stage"] == "ingest"]
    assert all(len(shards & rewritten) <= 1 for shards in of_tasks)
    assert rewritten <= set().union(*of_tasks)
    assert len(rewritten) <= 3, "two tasks were under way, and one may have ended that moment"
    done = record["stages"]["ingest"]
    assert done["cached"] > 0
    assert (done["in"], done["kept"], done["files"], record["quarantined"]["files"]) == (20_000, 20_000, 1, 0)
    assert "large.jsonl.zst, part 01 of" in again.err
    undisturbed = ladm(*run_arguments(large, tmp_path / "sound", *PARTS), "--until", "ingest").record
    assert undisturbed["stages"]["ingest"]["run"] > 3
    assert {path.name for path in shards_in(tmp_path / "sound")} == {path.name for path in after}
    query = "select count(*) n, count(distinct doc_id) ids, count(distinct line) lines from documents"
    (found,) = json.loads(ladm("sql", query, "--store", store, "--format", "json").out)
    assert set(found.values()) == {20_000}
    # nothing changed: nothing is read, and the records of a collected store are still there
    assert ladm("gc", "--keep", "1", "--store", store).code == 0
    warm = ladm(*arguments).record["stages"]["ingest"]
    assert (warm["run"], warm["cached"]) == (0, done["run"] + done["cached"])


def test_a_plan_counts_the_parts_that_are_left(tmp_path: Path, large: Corpus, ladm: Cli) -> None:
    settings = [argument for setting in [*large.settings, *PARTS] for argument in ("--set", setting)]

    def planned(store: Path) -> dict[str, Any]:
        answer = ladm("plan", "--json", "--until", "ingest", "--store", store, *settings)
        assert answer.code == 0, answer.err
        found: dict[str, Any] = json.loads(answer.out)
        return found

    store = tmp_path / "store"
    before = planned(store)
    record = ladm(*run_arguments(large, store, *PARTS), "--until", "ingest").record
    (told,) = before["stages"]
    parts = record["stages"]["ingest"]["run"]
    assert abs(told["todo"] - parts) <= 1
    assert abs(before["documents"] / 20_000 - 1) < 0.1
    for path in list(shards_in(store))[:2]:
        path.unlink()
    after = planned(store)
    (told,) = after["stages"]
    assert (told["todo"], told["cached"]) == (2, parts - 2)
    assert 0 < after["documents"] < 20_000 * 4 / parts


def test_one_part_is_read_here_and_others_beside(
    tmp_path: Path, large: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SourceConfig(uri=str(large.folder / "large.jsonl.zst"))
    (listed,) = list_sources([config], "stat")
    cut = listed.file.size
    job = Job(
        stage="ingest",
        label="x",
        store=str(tmp_path / "store"),
        config=ingest_key_config(config, IngestConfig()),
        source=listed.file,
        part=Part(begin=0, end=cut, bytes=cut),
        environment={ingest.PLACES: "records/ab/places"},
    )
    here: list[str] = []

    def noted(*given: Any) -> Any:
        here.append("here")
        return [run_job(*given)]

    monkeypatch.setattr(threads_runner, "run_jobs", noted)
    readers = Readers(1)
    try:
        (first,) = readers.run_jobs(ingest.STAGE, job)
        assert here == ["here"]
        with readers._here:  # as while another part is read
            (second,) = readers.run_jobs(ingest.STAGE, job)
        assert here == ["here"]
    finally:
        readers.close()
    assert first.replaced(seconds=0.0) == second.replaced(seconds=0.0)
    assert first.counts.kept == 20_000
