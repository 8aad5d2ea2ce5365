"""Which run `ladm sql` and `ladm report` show after one that failed, was partial or was stopped, and what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.ask.shown import about_run, newest_run
from ladm.flows.runs.read import name_latest, summary_path
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
RUN = "select run_id from runs order by run_id"


def fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.tasks.scorers import window_scores

    def wrong(*_: Any) -> Any:
        raise ConnectionError("gone")

    monkeypatch.setattr(window_scores, "score_windows", wrong)


def test_after_a_failed_run(tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        fail(patch)
        failed = ladm(*run_arguments(corpus, store)).record["run_id"]
    alone = ladm("sql", "select count(*) as n from documents", "--store", store, "--format", "json")
    assert re.fullmatch(rf"this is run {failed}, which failed \(score \w+.jsonl\); no later run is there\n", alone.err)
    assert json.loads(alone.out) == [{"n": 9}]
    whole = ladm(*run_arguments(corpus, store)).record["run_id"]
    assert ladm("sql", RUN, "--store", store).err == ""
    with monkeypatch.context() as patch:
        fail(patch)
        again = ladm(*run_arguments(corpus, store, "scorer.span=8")).record["run_id"]
    shown = ladm("sql", "select count(*) as n from selected", "--store", store)
    assert shown.code == 0
    assert shown.err.startswith(f"this is run {whole}, the newest that went all the way; ")
    assert re.search(rf"; run {again} is newer and failed \(score \w+.jsonl\): ", shown.err)
    assert f"--run {again} shows it" in shown.err
    assert ladm("sql", RUN, "--store", store, "--run", again).err == ""
    reported = ladm("report", "--store", store, "--out", tmp_path / "r.html")
    assert f"this is run {whole}" in reported.err


@pytest.mark.parametrize("until", ["ingest", "tokenize"])
def test_after_a_partial_run(until: str, tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    partial = ladm(*run_arguments(corpus, store), "--until", until).record["run_id"]
    told = ladm("sql", RUN, "--store", store).err
    assert told == f"this is run {partial}, which went no further than {until}, as asked; no later run is there\n"
    whole = ladm(*run_arguments(corpus, store)).record["run_id"]
    later = ladm(*run_arguments(corpus, store), "--until", until).record["run_id"]
    told = ladm("sql", RUN, "--store", store).err
    assert told.startswith(f"this is run {whole}, the newest that went all the way; run {later} is newer and went no")


def written(store: Store, run_id: str, **record: Any) -> None:
    store.write_bytes(summary_path(run_id), json.dumps({"run_id": run_id, **record}).encode())


def test_of_any_records(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    written(store, "20260101T000000-a", status="completed", until="export", failures=[])
    name_latest(store, "20260101T000000-a")
    assert about_run(store, newest_run(store)) is None
    store.write_bytes("runs/20260102T000000-b/in-use.json", b"{}")  # killed: no record
    assert about_run(store, newest_run(store)) is None
    written(store, "20260103T000000-c", status="cancelled", until="export", failures=[])
    told = about_run(store, newest_run(store))
    assert told is not None
    assert "run 20260103T000000-c is newer and was cancelled" in told
    store.write_bytes(summary_path("20260104T000000-d"), b"not json")
    told = about_run(store, newest_run(store))
    assert told is not None
    assert "run 20260104T000000-d is newer" in told
