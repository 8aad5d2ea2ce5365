"""Two runs on one S3 store at once, and an S3 server that is gone in the middle of a run. Slow: real processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl
from test_processes import start, wait_for
from test_s3 import Place, S3Server, on_s3, place, place_of, reaching, server

__all__ = ["place", "server"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Cli = Callable[..., Answer]
GONE_SECONDS = 20
RANKING = "select domain, rank, score, selected, doc_tokens from ranking order by all"


@pytest.fixture
def corpus(corpus: Corpus) -> Corpus:
    """Ten files, so that there is a middle of a run."""
    for number in range(8):
        write_jsonl(corpus.folder / f"essays-{number}.jsonl", "Essays", 10 + number, [300, 60, 420, 340])
    return corpus


@pytest.fixture
def alone(corpus: Corpus, ladm: Cli, tmp_path: Path) -> list[dict[str, Any]]:
    """The ranking of an undisturbed run, on disk."""
    assert ladm(*run_arguments(corpus, tmp_path / "alone")).code == 0
    return ranking(ladm, str(tmp_path / "alone"))


def ranking(ladm: Cli, store: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ladm("sql", RANKING, "--store", store, "--format", "json").out)
    return rows


def check_store(ladm: Cli, place: Place, corpus: Corpus, alone: list[dict[str, Any]]) -> None:
    """The newest run ranks what an undisturbed one ranks, each window is scored once, and nothing is left to do."""
    assert ranking(ladm, place.store) == alone
    query = "select count(*) as rows, count(distinct window_id) as windows from scores"
    counted = json.loads(ladm("sql", query, "--store", place.store, "--format", "json").out)
    assert counted == [{"rows": len(alone), "windows": len(alone)}]
    again = ladm(*on_s3(place, corpus)).record
    assert {stage: summary["run"] for stage, summary in again["stages"].items()} == dict.fromkeys(again["stages"], 0)


def test_two_runs_at_once(
    place: Place,
    corpus: Corpus,
    alone: list[dict[str, Any]],
    ladm: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for file in corpus.folder.iterdir():
        place.upload(file)
    # As on a new machine: neither has started before, and both keep what they need in the same cache.
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PREFECT_API_DATABASE_CONNECTION_URL")
    both = [start(on_s3(place, corpus)) for _ in range(2)]
    records = []
    for process in both:
        out, log = process.communicate(timeout=600)
        assert process.returncode == 0, log
        records.append(json.loads(out))
    assert max(record["started"] for record in records) < min(record["finished"] for record in records)
    objects = place.objects()
    for name in ("ranking.parquet", "export/parquet/train-00000-of-00001.parquet"):
        one, other = (objects[f"{place.prefix}/store/runs/{record['run_id']}/{name}"] for record in records)
        assert one == other
    assert [record["stages"]["score"]["kept"] for record in records] == [len(alone)] * 2
    check_store(ladm, place, corpus, alone)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[S3Server]:
    """A server of the test's own, which it may stop, and the environment that reaches it."""
    folder = tmp_path / "s3"
    folder.mkdir()
    server = S3Server(folder)
    with reaching(server.environment, tmp_path / "none"):
        server.start()
        yield server
        server.stop()


@pytest.mark.parametrize("reached", ["ingest", "score", "rank"])
def test_the_server_is_gone_for_a_while(
    mortal: S3Server, corpus: Corpus, alone: list[dict[str, Any]], ladm: Cli, reached: str
) -> None:
    place = place_of("outage")
    for file in corpus.folder.iterdir():
        place.upload(file)
    defaults = ["execution.retries=3", "execution.retry_seconds=2"]
    run = start(on_s3(place, corpus, *defaults))
    wait_for(lambda: place.fs.find(f"{place.prefix}/store/{reached}"))
    mortal.stop()
    assert run.poll() is None
    time.sleep(GONE_SECONDS)
    assert run.poll() is None
    mortal.start()
    out, log = run.communicate(timeout=600)
    assert run.returncode == 0, log
    assert json.loads(out)["seconds"] > GONE_SECONDS
    assert "Traceback" not in log
    check_store(ladm, place, corpus, alone)
