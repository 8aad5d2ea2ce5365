"""Runs that are going on: marked, left alone by `ladm gc`, and forgotten when their process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments
from test_collect import NOW, all_files, files_of_key, listing, run_record, swept

from ladm.flows.dag.scheduler import Dag
from ladm.flows.runs import marks
from ladm.flows.runs.collect import HOUR, collect, plan
from ladm.flows.runs.marks import STALE_SECONDS, Mark, in_use, is_mark, live_marks, mark_path, process_started
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
HOLDING = """
import sys, time
from ladm.flows.runs.marks import in_use

with in_use(sys.argv[1], sys.argv[2]):
    print("marked", flush=True)
    time.sleep(600)
"""


@contextmanager
def going_on(store: Path, run_id: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that keeps a run's mark, and is killed at the end."""
    command = [sys.executable, "-c", HOLDING, str(store), run_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "marked\n"
            yield process
        finally:
            process.kill()


def mark_of(**more: Any) -> Mark:
    here = {"machine": marks.this_machine(), "pid": os.getpid(), "process": process_started(os.getpid())}
    return Mark(**{"run_id": "r", "host": "h", "started": NOW, "renewed": NOW, **here, **more})


def live(store: Store, now: float | None = None) -> list[str]:
    found = live_marks(store, store.files("runs"), time.time() if now is None else now)
    return [mark.run_id for mark in found]


# -- whose process still runs --------------------------------------------------------------------------------------


def test_on_its_own_machine_a_mark_counts_while_its_process_runs() -> None:
    later = NOW + 1000 * HOUR
    assert mark_of().is_live(later)
    assert not mark_of(process="1").is_live(NOW), "another process has its number by now"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        mark = mark_of(pid=process.pid, process=process_started(process.pid))
        assert mark.is_live(later)
        process.kill()
        deadline = time.monotonic() + 60
        while mark.is_live(NOW):  # dead, though nobody has asked for how it ended
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not mark.is_live(NOW)


def test_elsewhere_a_mark_counts_while_it_is_renewed() -> None:
    for mark in (mark_of(machine="other"), mark_of(machine="other", pid=1), mark_of(process="")):
        assert mark.is_live(NOW + STALE_SECONDS - 1)
        assert mark.is_live(NOW - HOUR), "clocks differ"
        assert not mark.is_live(NOW + STALE_SECONDS)


@pytest.mark.parametrize("form", ["local", "memory"])
def test_a_mark_is_kept_renewed_and_taken_away(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path) if form == "local" else "memory://marks")
    monkeypatch.setattr(marks, "RENEWED_SECONDS", 0.02)

    def renewed() -> float:
        return Mark.model_validate_json(store.read_bytes(mark_path("one"))).renewed

    with in_use(store.uri, "one"):
        assert live(store) == ["one"]
        first = renewed()
        deadline = time.monotonic() + 60
        while renewed() == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    time.sleep(0.1)
    assert [file.path for file in store.files("runs")] == []
    assert store.names("runs") == []
    with pytest.raises(RuntimeError, match="failed"), in_use(store.uri, "one"):  # noqa: PT012
        assert live(store) == ["one"]
        raise RuntimeError("failed")
    assert live(store) == []


def test_a_run_goes_on_without_a_mark_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "RENEWED_SECONDS", 0.02)
    working, full = Store.write_bytes, [True]

    def writing(self: Store, path: str, content: bytes) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        working(self, path, content)

    monkeypatch.setattr(Store, "write_bytes", writing)
    store = Store(str(tmp_path))
    with in_use(store.uri, "one"):
        assert live(store) == []
        full[0] = False
        deadline = time.monotonic() + 60
        while not live(store):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert live(store) == []


def test_what_is_no_mark(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for run, content in {
        "a": b"",
        "b": b"{}",
        "c": b"[1]",
        "d": mark_of(pid=1).model_dump_json().encode()[:-9],
    }.items():
        store.write_bytes(mark_path(run), content)
    assert live(store) == []
    assert [is_mark(path) for path in ("runs/a/in-use.json", "runs/a/export/x/in-use.json", "in-use.json")] == [
        True, False, False,
    ]  # fmt: skip


# -- what a collection leaves ----------------------------------------------------------------------------------------


def test_while_a_run_is_going_on_no_shard_goes() -> None:
    records = [run_record("a", 72, ["aa", "common"]), run_record("b", 48, ["bb"]), run_record("c", 24, ["common"])]
    old = [(path, 999) for path in ("score/killed", "runs/dead/ranking.parquet", mark_path("dead"), mark_path("c"))]
    more = [*old, (mark_path("on"), 30), ("runs/on/ranking.parquet", 999), (mark_path("gc-now"), 0)]
    files = listing(records, more)
    dead = {"runs/dead/ranking.parquet", mark_path("dead"), mark_path("c")}
    folders = {"runs/a/run.json", "runs/b/run.json"}

    busy = plan(files, records, "c", 1, NOW, ["on", "gc-now"])
    assert swept(busy) == folders | dead
    assert (busy.removed_runs, busy.going_on) == (["a", "b"], ["on"])
    quiet = plan(files, records, "c", 1, NOW, ["gc-now"])
    everything = folders | dead | files_of_key("aa") | files_of_key("bb") | {"score/killed"}
    assert swept(quiet) == everything | {mark_path("on"), "runs/on/ranking.parquet"}
    assert quiet.going_on == []


def test_a_run_that_is_going_on_keeps_what_it_reuses(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an older run, that a newer one has made needless meanwhile."""
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store)).code == 0
    assert ladm(*run_arguments(corpus, store, "scorer.span=8")).code == 0
    working = Dag.do_results

    def collected_before(dag: Dag) -> None:
        collect(str(store), 1)
        working(dag)

    monkeypatch.setattr(Dag, "do_results", collected_before)
    answer = ladm(*run_arguments(corpus, store, "select.budget_tokens=3000"))
    assert answer.code == 0, answer.err
    assert (answer.record["windows_scored"], answer.record["made_again"]) == (0, [])
    assert not list(store.glob("runs/*/in-use.json"))
    assert len(list((store / "runs").iterdir())) == 2


def test_a_killed_run_ages_out(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    first = ladm(*run_arguments(corpus, store)).record
    ladm(*run_arguments(corpus, store, "scorer.span=8"))
    scores = {shard["path"] for job in first["shards"] if job["stage"] == "score" for shard in job["shards"]}
    with going_on(store, "20300101T000000-00000000") as process:
        answer = ladm("gc", "--keep", 1, "--store", store)
        assert answer.code == 0
        assert f"deleted runs: {first['run_id']}\n" in answer.out
        assert "all shards stay, since runs are going on: 20300101T000000-00000000; run this again" in answer.out
        assert scores < all_files(store)
        assert not (store / "runs" / first["run_id"]).exists()
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert (store / mark_path("20300101T000000-00000000")).exists()
    assert live(Store(str(store))) == []
    for path in store.rglob("*"):  # no run names them any more: they go by their age
        os.utime(path, (time.time() - 2 * HOUR,) * 2)
    answer = ladm("gc", "--keep", 1, "--store", store)
    assert "going on" not in answer.out
    assert not scores & all_files(store)
    assert not (store / "runs" / "20300101T000000-00000000").exists()


def test_a_run_that_begins_while_shards_are_deleted_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "PAUSE_SECONDS", 0.01)
    store, said, events = Store(str(tmp_path)), list[str](), list[str]()

    def run() -> None:
        with in_use(store.uri, "one", said.append):
            events.append("run")

    with marks.collecting(store, "x"):
        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + 60
        while not said:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert sorted(live(store)) == ["gc-x", "one"], "marked already: this collection would see it, too"
        events.append("collected")
    thread.join(60)
    assert events == ["collected", "run"]
    assert said == [f"waits for `ladm gc` on {os.uname().nodename} (process {os.getpid()}) to end"]
    # one whose process is gone is not waited for
    store.write_bytes(mark_path("gc-dead"), mark_of(run_id="gc-dead", process="1").model_dump_json().encode())
    with in_use(store.uri, "one"):
        events.append("at once")
    assert events[-1] == "at once"
