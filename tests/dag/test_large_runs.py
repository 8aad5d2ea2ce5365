"""Runs of one large file in processes of their own: who reads its parts, and what a kill in the middle repeats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import zstandard
from conftest import Answer, Corpus, run_arguments
from test_large_files import rows_of
from test_processes import start, wait_for

import ladm as package
from ladm.flows.config import load_config
from ladm.flows.dag.preflight import RUNNER_PACKAGES, preflight
from ladm.flows.orchestration import readers as readers_module
from ladm.flows.orchestration.readers import Readers, jobs_to_read, readers_ahead, started_ahead
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


@pytest.fixture
def part(tmp_path: Path, large: Corpus) -> Job:
    """A job that reads all of the file as one part."""
    config = SourceConfig(uri=str(large.folder / "large.jsonl.zst"))
    (listed,) = list_sources([config], "stat")
    cut = listed.file.size
    return Job(
        stage="ingest",
        label="x",
        store=str(tmp_path / "store"),
        config=ingest_key_config(config, IngestConfig()),
        source=listed.file,
        part=Part(begin=0, end=cut, bytes=cut),
        environment={ingest.PLACES: "records/ab/places"},
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets a word for each job that a reader does in this process."""
    said: list[str] = []

    def noted(*given: Any) -> Any:
        said.append("here")
        return [run_job(*given)]

    monkeypatch.setattr(readers_module, "run_jobs", noted)
    return said


def test_one_part_is_read_here_and_others_beside(part: Job, here: list[str]) -> None:
    readers = Readers(1)
    try:
        (first,) = readers.run_jobs(ingest.STAGE, part)
        assert here == ["here"]
        with readers._here:  # as while another part is read
            (second,) = readers.run_jobs(ingest.STAGE, part)
        assert here == ["here"]
    finally:
        readers.close()
    assert first.replaced(seconds=0.0) == second.replaced(seconds=0.0)
    assert first.counts.kept == 20_000


def test_processes_that_were_started_ahead_read_everything(part: Job, here: list[str]) -> None:
    readers = Readers(3, ahead=2)
    try:
        started = [process._now for process in readers._beside._processes]
        assert [one is not None for one in started] == [True, True, False]
        (done,) = readers.run_jobs(ingest.STAGE, part)
        assert [process._now for process in readers._beside._processes] == started  # no other was needed
    finally:
        readers.close()
    assert (here, done.counts.kept) == ([], 20_000)


def test_what_is_to_be_read_tells_how_many_are_started_ahead(
    tmp_path: Path, large: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    class Noted(Readers):
        def __init__(self, beside: int, ahead: int = 0) -> None:
            asked.append((beside, ahead))
            super().__init__(0)

    monkeypatch.setattr(readers_module, "Readers", Noted)
    monkeypatch.setitem(RUNNER_PACKAGES, "ray", ())  # it need not be installed to be asked for

    def ahead(*settings: str) -> tuple[int, int] | None:
        asked.clear()
        config = load_config(None, [*large.settings, "execution.workers=4", *settings], str(tmp_path / "store"))
        with started_ahead(preflight(config, "ingest")):
            assert (readers_ahead() is not None) == bool(asked)
        assert readers_ahead() is None
        return asked[0] if asked else None

    size = (large.folder / "large.jsonl.zst").stat().st_size
    assert ahead(f"ingest.part_bytes={size // 3}") == (4, 3)
    assert ahead(f"ingest.part_bytes={size // 9}") == (4, 4)
    assert ahead(f"ingest.part_bytes={size // 9}", "execution.workers=1") is None
    assert ahead(f"ingest.part_bytes={size // 9}", "execution.runner=ray") is None
    assert ahead("ingest.part_bytes=0") is None
    (large.folder / "large.jsonl.zst").unlink()
    for number in range(50):
        (large.folder / f"{number}.txt").write_text("One of many small files. " * 40)
    assert ahead() is None
    assert ahead("ingest.pack_bytes=20000") == (4, 2)
    config = load_config(None, [*large.settings, "ingest.pack_bytes=20000"], str(tmp_path / "store"))
    assert jobs_to_read(preflight(config, "ingest")) == 50_000 // 20_000


def test_nothing_is_started_ahead_where_a_run_has_been(
    tmp_path: Path, large: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left to read is not known there before the walk, and mostly is little."""
    asked: list[str] = []

    def noted(plan: Any) -> Any:
        asked.append(plan.config.store)
        return started_ahead(plan)

    monkeypatch.setattr(readers_module, "started_ahead", noted)
    store = tmp_path / "store"
    arguments = [*run_arguments(large, store, *PARTS), "--until", "ingest"]
    assert ladm(*arguments).record["stages"]["ingest"]["kept"] == 20_000
    assert asked == [str(store)]
    (large.folder / "more.jsonl").write_bytes(b"\n".join(rows_of(1, 10)))
    assert ladm(*arguments).record["stages"]["ingest"]["kept"] == 20_010
    assert asked == [str(store)]


@pytest.mark.parametrize("kind", ["a group", "a part"])
def test_what_only_this_process_reaches_is_read_in_it(tmp_path: Path, kind: str) -> None:
    memory = fsspec.filesystem("memory")
    lines = [json.dumps({"text": f"{number} words " * 300, "domain": "d"}) + "\n" for number in range(400)]
    if kind == "a group":
        for number, line in enumerate(lines):
            memory.pipe_file(f"/{tmp_path.name}/{number:03d}.jsonl", line.encode())
    else:
        packed = b"".join(zstandard.compress(line.encode()) for line in lines)
        memory.pipe_file(f"/{tmp_path.name}/all.jsonl.zst", packed)
    run = package.run(
        sources=[{"uri": f"memory://{tmp_path.name}/*", "domain": "domain"}],
        store=tmp_path / "store",
        until="ingest",
        progress=False,
        execution={"workers": 2},
        ingest={"pack_bytes": 2**17, "part_bytes": 2**12},
    )
    (record,) = (tmp_path / "store" / "runs").glob("*/run.json")
    assert json.loads(record.read_text())["stages"]["ingest"]["run"] > 2
    assert run.sql("select count(*) as documents from documents").to_pylist() == [{"documents": 400}]
    memory.rm(f"/{tmp_path.name}", recursive=True)
