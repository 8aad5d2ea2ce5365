"""A large file's shards go on while it is read, and nothing of that shows: accounts and results are the same."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from conftest import Answer, Corpus, run_arguments, sentence, write_jsonl
from test_stages import everything, products, ranked_ids

from ladm.flows.dag import early
from ladm.flows.dag.early import Early
from ladm.flows.dag.stages import BY_NAME
from ladm.tasks.reading import decoders
from ladm.tasks.reading.document_shards import DocumentShards
from ladm.tasks.reading.finished_shards import FinishedShards
from ladm.tasks.scorers import window_scores
from ladm.tasks.stages import benchmarks

Cli = Callable[..., Answer]
SHARDS = "ingest.shard_bytes=6000"
HELD_AFTER = 3
"""Shards, of which the first ones can go on while the file is still being read."""
PATIENCE = 60.0


def write_large(folder: Path, name: str = "large.jsonl.zst", documents: int = 24, cut: int = 0) -> Path:
    """A file in one frame that is large against `SHARDS`; in place of the files that were there."""
    for path in folder.iterdir():
        path.unlink()
    words = random.Random(7)
    rows = [
        {"text": sentence(words, words.choice([20, 320, 420])), "meta": {"pile_set_name": words.choice("AB")}}
        for _ in range(documents)
    ]
    lines = [json.dumps(row).encode() for row in rows]
    lines[5] = b"not JSON"
    stored = gzip.compress(b"\n".join(lines)) if name.endswith(".gz") else one_frame(lines)
    (folder / name).write_bytes(stored[: len(stored) - cut])
    return folder / name


def one_frame(lines: list[bytes]) -> bytes:
    """They in one frame, of which what stands before its end can be read without it."""
    packer = zstandard.ZstdCompressor().compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return b"".join(packer.compress(line + b"\n") + packer.flush(flush) for line in lines) + packer.flush()


def in_many_frames(path: Path, cut: int = 0) -> None:
    """Write a file again, so that it can be read in parts."""
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines()
    stored = b"".join(zstandard.compress(line + b"\n") for line in lines)
    path.write_bytes(stored[: len(stored) - cut])


IN_PARTS = "ingest.part_bytes=3000", "execution.workers=1"
"""Five parts of the large file, one after the other in this process."""


def settings(corpus: Corpus, *more: str) -> list[str]:
    return [SHARDS, f"sources={corpus.folder}/*", "select.budget_tokens=null", *more]


class Watched:
    """What is done early in a run, and a read that is held until enough of it is."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, str]] = []
        """Row, label and state of each early job that ended."""
        self.taken: list[str] = []
        """Row of each early job that the run took over while it was under way."""
        self.looks = 0
        self.in_time: list[bool] = []
        """Of the read that was held, whether what it waited for came about."""
        self.enough = threading.Event()
        self.wanted = "score"
        """The row of which one early job is enough."""
        self.is_enough: Callable[[Early, str], bool] = lambda _, row: row == self.wanted
        self.held_after = HELD_AFTER
        self.parts = 1
        """A file's reads; the last one is held."""
        self.reads: list[DocumentShards] = []

    def rows(self) -> set[str]:
        return {row for row, _, _ in self.done}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A read waits after some shards until a job of a row is done early; what is noted is looked for often."""
    found = Watched()
    take_in, takes, add, noted_from = Early.take_in, Early.takes, DocumentShards.add, FinishedShards.noted_from

    def taking_in(self: Early, future: Any, request: Any) -> Any:
        asked_for = take_in(self, future, request)
        found.done.append((request.row, request.job.label, future.state.name))
        if found.is_enough(self, request.row):
            found.enough.set()
        return asked_for

    def taking(self: Early, request: Any) -> bool:
        if is_taken := takes(self, request):
            found.taken.append(request.row)
        return is_taken

    def adding(self: DocumentShards, *given: Any) -> None:
        add(self, *given)
        if all(self is not one for one in found.reads):
            found.reads.append(self)
        enough = len(self.shards) == found.held_after if found.parts == 1 else len(found.reads) == found.parts
        if enough and not found.in_time:
            found.in_time.append(found.enough.wait(PATIENCE))

    def looking(self: FinishedShards, number: int) -> Iterator[Any]:
        found.looks += 1
        return noted_from(self, number)

    monkeypatch.setattr(early, "SECONDS", 0.02)
    monkeypatch.setattr(Early, "take_in", taking_in)
    monkeypatch.setattr(Early, "takes", taking)
    monkeypatch.setattr(DocumentShards, "add", adding)
    monkeypatch.setattr(FinishedShards, "noted_from", looking)
    return found


def plainly(ladm: Cli, arguments: list[str]) -> Answer:
    """A run in which nothing is done early."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Early, "watch", lambda self, request: None)
        patch.setattr(Early, "go_on", lambda self, request, part: None)
        return ladm(*arguments)


def both(ladm: Cli, corpus: Corpus, folder: Path, *asked: str) -> tuple[Answer, Path, Answer, Path]:
    """A run with early work and one without, each in a store of its own at the same place; the first one is moved."""
    store, moved = folder / "store", folder / "early"
    arguments = run_arguments(corpus, store, *asked)
    answer = ladm(*arguments)
    assert store.exists(), answer.err
    store.rename(moved)
    return answer, moved, plainly(ladm, arguments), store


def told(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record but for its id, its times, and the bytes of files that hold them."""
    found = {name: value for name, value in record.items() if name not in ("run_id", "started", "finished", "seconds")}
    found["files"] = [path.replace(record["run_id"], "<run>") for path in record["files"]]
    found["stages"] = {
        stage: {name: value for name, value in summary.items() if name != "seconds"}
        for stage, summary in record["stages"].items()
    }
    found["shards"] = [{name: value for name, value in job.items() if name != "seconds"} for job in record["shards"]]
    return found


def rows_in_sql(ladm: Cli, store: Path) -> list[Any]:
    found = []
    for table in ("documents", "windows", "scores", "quarantine", "ranking"):
        answer = ladm("sql", f"select count(*) as n from {table}", "--store", store, "--format", "json")
        assert answer.code == 0, answer.err
        found.append((table, json.loads(answer.out)))
    return found


def same(ladm: Cli, corpus: Corpus, folder: Path, *asked: str) -> Answer:
    """A run with early work: its accounts, results and rows are those of a run without, and it is cached afterwards."""
    answer, store, without, other = both(ladm, corpus, folder, *asked)
    assert (answer.code, without.code) == (0, 0), answer.err
    assert told(answer.record) == told(without.record)
    assert products(store, answer.record) == products(other, without.record)
    assert rows_in_sql(ladm, store) == rows_in_sql(ladm, other)
    again = ladm(*run_arguments(corpus, store, *asked))
    assert {stage for stage, summary in again.record["stages"].items() if summary["run"]} <= {"publish"}
    assert ranked_ids(store, again.record) == ranked_ids(other, without.record)
    return answer


@pytest.mark.parametrize("name", ["large.jsonl.zst", "large.jsonl.gz"])
def test_shards_go_on_while_their_file_is_read(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched, name: str
) -> None:
    write_large(corpus.folder, name)
    answer = same(ladm, corpus, tmp_path, *settings(corpus, "scorer.beside=[longattn, gzip]"))
    assert watched.in_time == [True]
    assert watched.rows() >= {"length", "tokenize", "score", "columns of the text", "measures"}
    assert {state for _, _, state in watched.done} == {"Completed"}
    assert answer.record["stages"]["score"]["cached"] == 0
    assert answer.record["windows_scored"] == answer.record["stages"]["score"]["windows"]
    assert answer.record["quarantined"] == {"records": 1, "files": 0}


def test_parts_go_on_while_others_are_read(tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched) -> None:
    path = write_large(corpus.folder)
    in_many_frames(path)
    watched.parts = 5
    answer = same(ladm, corpus, tmp_path, *settings(corpus, *IN_PARTS))
    assert watched.in_time == [True]
    assert len([job for job in answer.record["shards"] if job["stage"] == "ingest"]) == watched.parts
    early_labels = {label for row, label, _ in watched.done if row == "score"}
    assert early_labels
    assert early_labels <= {job["shard"] for job in answer.record["shards"] if job["stage"] == "score"}


def test_every_stage_gives_the_same(
    tmp_path: Path, tiny_model: Path, corpus: Corpus, ladm: Cli, watched: Watched
) -> None:
    """Scoring waits for all documents where duplicates are left out; what can go on does."""
    write_large(corpus.folder)
    watched.wanted = "signatures"
    asked = [*everything(corpus, tmp_path, tiny_model), *settings(corpus), "select.budget_tokens=4000"]
    same(ladm, corpus, tmp_path, *asked)
    assert watched.in_time == [True]
    assert watched.rows() >= {"length", "filter", "tokenize", "short", "signatures"}
    assert not any(BY_NAME[row].holds_model for row in watched.rows())


@pytest.mark.parametrize("harm", ["cut off", "a part cut off", "changed"])
def test_nothing_of_a_file_that_turns_out_bad_counts(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(decoders, "BLOCK_BYTES", 2048)  # or the end would be read before anything else
    asked = settings(corpus)
    name = "large.jsonl.gz" if harm == "cut off" else "large.jsonl.zst"
    large = write_large(corpus.folder, name, cut=40 if harm == "cut off" else 0)
    if harm == "a part cut off":
        in_many_frames(large, cut=20)
        watched.parts = 4
        asked += IN_PARTS
    write_jsonl(corpus.folder / "sound.jsonl", "A", 3, [300, 400])
    if harm == "changed":
        flush = DocumentShards.flush

        def flushing(self: DocumentShards) -> None:
            if len(self.shards) == HELD_AFTER:
                large.touch()
            flush(self)

        monkeypatch.setattr(DocumentShards, "flush", flushing)
    answer, store, without, other = both(ladm, corpus, tmp_path, *asked)
    assert watched.in_time == [True]
    assert "score" in watched.rows()
    assert answer.code == without.code
    assert told(answer.record)["stages"] == told(without.record)["stages"]
    assert [one["stage"] for one in answer.record["failures"]] == [one["stage"] for one in without.record["failures"]]
    assert [job["key"] for job in answer.record["shards"] if job["source"] == str(large)] == [
        job["key"] for job in without.record["shards"] if job["source"] == str(large)
    ]
    if harm == "changed":
        return
    assert answer.record["quarantined"]["files"] == 1
    assert len(ranked_ids(store, answer.record)) == 2
    assert products(store, answer.record) == products(other, without.record)
    assert rows_in_sql(ladm, store) == rows_in_sql(ladm, other)
    # what was made of it is no run's, and goes
    for path in store.rglob("*"):
        os.utime(path, (time.time() - 9e6,) * 2)
    scores = sorted((store / "score").rglob("*.parquet"))
    assert len(scores) > 1
    assert ladm("gc", "--store", store, "--keep", "1").code == 0
    assert len(sorted((store / "score").rglob("*.parquet"))) == 1
    assert ranked_ids(store, ladm(*run_arguments(corpus, store, *asked)).record) == ranked_ids(other, without.record)


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[], bool]) -> None:
    score_windows = window_scores.score_windows

    def scoring(*given: Any, **more: Any) -> Any:
        if fails():
            raise ArithmeticError("injected")
        return score_windows(*given, **more)

    monkeypatch.setattr(window_scores, "score_windows", scoring)


def test_an_early_job_that_fails_is_tried_again(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_large(corpus.folder)
    failing(monkeypatch, lambda: not watched.enough.is_set())
    same(ladm, corpus, tmp_path, *settings(corpus))
    assert ("score", "Failed") in {(row, state) for row, _, state in watched.done}


def test_what_fails_early_and_again_is_told_once(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_large(corpus.folder)
    failing(monkeypatch, lambda: True)
    watched.is_enough = lambda of_run, _: of_run.seconds is None  # it no longer looks for more
    answer, _, without, _ = both(ladm, corpus, tmp_path, *settings(corpus))
    assert watched.in_time == [True]
    assert [state for row, _, state in watched.done if row == "score"] == ["Failed"] * early.MOST_FAILURES
    failures = [failure["shard"] for failure in answer.record["failures"]]
    assert len(set(failures)) == len(failures)
    assert sorted(failures) == sorted(failure["shard"] for failure in without.record["failures"])
    assert [answer.err.count(f" failed  {shard} ") for shard in failures] == [1] * len(failures)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_under_way_when_the_file_is_read_is_not_done_twice(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A score that is begun early ends only when the run itself has asked for it."""
    write_large(corpus.folder)
    watched.wanted = ""
    taken, score_windows, calls = threading.Event(), window_scores.score_windows, []
    takes = Early.takes

    def taking(self: Early, request: Any) -> bool:
        if (is_taken := takes(self, request)) and request.row == "score":
            taken.set()
        return is_taken

    def scoring(*given: Any, **more: Any) -> Any:
        calls.append(watched.enough.is_set())
        watched.enough.set()
        if not taken.wait(PATIENCE):
            raise ArithmeticError("nobody asked")
        if fails and calls[0] is False:
            calls[0] = True
            raise ArithmeticError("injected")
        return score_windows(*given, **more)

    monkeypatch.setattr(Early, "takes", taking)
    monkeypatch.setattr(window_scores, "score_windows", scoring)
    answer, store, without, other = both(ladm, corpus, tmp_path, *settings(corpus))
    assert watched.in_time == [True]
    assert "score" in watched.taken
    assert told(answer.record) == told(without.record)
    assert products(store, answer.record) == products(other, without.record)
    assert {state for row, _, state in watched.done if row == "score"} == {"Completed", *["Failed"] * fails}
    jobs = answer.record["stages"]["score"]["run"]
    assert len(calls) == 2 * jobs + fails


def test_what_waits_when_a_file_turns_out_bad_is_not_begun(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "BLOCK_BYTES", 2048)
    write_large(corpus.folder, "large.jsonl.gz", cut=40)
    write_jsonl(corpus.folder / "sound.jsonl", "A", 3, [300, 400])
    watched.held_after, watched.wanted = 6, ""
    ended, score_windows = threading.Event(), window_scores.score_windows
    end, submit = Early.end, Early.submit

    def ending(self: Early, source: str) -> None:
        end(self, source)
        if "large" in source:
            ended.set()

    def submitting(self: Early, under_way: Any) -> None:
        submit(self, under_way)
        if self._ready["score"]:
            watched.enough.set()

    def scoring(windows: Any, *given: Any, **more: Any) -> Any:
        ended.wait(PATIENCE)
        return score_windows(windows, *given, **more)

    monkeypatch.setattr(Early, "end", ending)
    monkeypatch.setattr(Early, "submit", submitting)
    monkeypatch.setattr(window_scores, "score_windows", scoring)
    answer = ladm(*run_arguments(corpus, tmp_path / "store", *settings(corpus)))
    assert (answer.code, watched.in_time, ended.is_set()) == (0, [True], True)
    assert answer.record["stages"]["score"]["run"] == 1
    # with the one of the other file, as many as the model takes at once
    assert 2 <= [row for row, _, _ in watched.done].count("score") <= 3


def test_what_waits_for_a_benchmark_goes_on_when_it_is_read(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_large(corpus.folder)
    (tmp_path / "benchmark.txt").write_text("a passage of a benchmark that no document of this corpus holds at all")
    watched.wanted = "signatures"
    idle, submit, read = threading.Event(), Early.submit, benchmarks.read_records

    def submitting(self: Early, under_way: Any) -> None:
        submit(self, under_way)
        if len(self._lineages) == HELD_AFTER and "tokenize" in watched.rows() and not self._under_way:
            idle.set()

    def reading(*given: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # which looks at it before the run
            idle.wait(PATIENCE)
        return read(*given)

    monkeypatch.setattr(Early, "submit", submitting)
    monkeypatch.setattr(benchmarks, "read_records", reading)
    against = f"decontaminate.against=[{tmp_path / 'benchmark.txt'}]"
    assert ladm(*run_arguments(corpus, tmp_path / "store", *settings(corpus, against))).code == 0
    assert (idle.is_set(), watched.in_time) == (True, [True])


def test_a_run_says_once_and_before_that_it_scores_again(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched
) -> None:
    large, store = write_large(corpus.folder), tmp_path / "store"
    watched.enough.set()
    ladm(*run_arguments(corpus, store, *settings(corpus)))
    watched.enough.clear()
    watched.in_time.clear()
    os.utime(large, (1, 1))
    answer = ladm(*run_arguments(corpus, store, *settings(corpus, "scorer.span=8")))
    assert watched.in_time == [True]
    assert answer.err.count("is scored again") == 1
    lines = answer.err.splitlines()
    (notice,) = (number for number, line in enumerate(lines) if "is scored again" in line)
    assert notice < min(number for number, line in enumerate(lines) if line.startswith("ingest "))
    assert answer.record["stages"]["tokenize"]["run"] == 0  # of the same documents


def test_nothing_is_looked_for_where_no_file_is_large(
    tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "SECONDS", 0.0)
    waits: list[float | None] = []
    seconds = Early.seconds
    monkeypatch.setattr(Early, "seconds", property(lambda self: waits.append(seconds.fget(self)) or waits[-1]))  # type: ignore[attr-defined]
    assert ladm(*run_arguments(corpus, tmp_path / "store")).code == 0
    assert (watched.looks, set(waits)) == (0, {None})
    assert not watched.done


KILLED = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from ladm.flows.dag import early
from ladm.flows.dag.early import Early
from ladm.flows.cli import main
from ladm.tasks.reading.document_shards import DocumentShards
early.SECONDS = 0.02
scored, add, take_in = [], DocumentShards.add, Early.take_in
def taking_in(self, future, request):
    asked_for = take_in(self, future, request)
    if request.row == "score":
        print("scored", file=sys.stderr, flush=True)
    return asked_for
def adding(self, *given):
    add(self, *given)
    if len(self.shards) == 5:
        threading.Event().wait(60)
Early.take_in, DocumentShards.add = taking_in, adding
main(sys.argv[2:])
"""


def test_a_run_that_is_killed_is_gone_on_with(tmp_path: Path, corpus: Corpus, ladm: Cli, watched: Watched) -> None:
    write_large(corpus.folder)
    asked = settings(corpus)
    watched.enough.set()
    store = tmp_path / "store"
    without = plainly(ladm, run_arguments(corpus, store, *asked))
    store.rename(tmp_path / "without")
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), *run_arguments(corpus, store, *asked)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        for line in run.stderr:
            if line == "scored\n":
                break
        else:
            raise AssertionError("nothing was scored before the file was read")
        run.send_signal(signal.SIGKILL)
    answer = ladm(*run_arguments(corpus, store, *asked))
    assert answer.code == 0, answer.err
    found, expected = answer.record["stages"], without.record["stages"]
    assert found["score"]["cached"] >= 1
    for stage, summary in found.items():
        assert summary["run"] + summary["cached"] == expected[stage]["run"]
        assert [summary[name] for name in ("in", "kept", "dropped", "quarantined", "failed")] == [
            expected[stage][name] for name in ("in", "kept", "dropped", "quarantined", "failed")
        ]
    assert products(store, answer.record) == products(tmp_path / "without", without.record)
