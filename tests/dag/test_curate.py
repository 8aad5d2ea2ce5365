"""The whole DAG through the CLI, on a tiny corpus and a tiny random model: what runs, what is cached, what fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import Answer, Corpus, run_arguments, write_jsonl

Cli = Callable[..., Answer]


def did(record: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Stage → (jobs run, jobs cached)."""
    return {stage: (summary["run"], summary["cached"]) for stage, summary in record["stages"].items()}


def ranking_rows(store: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store / "runs" / record["run_id"] / "ranking.parquet").to_pylist()
    return rows


def changed(path: Path, change: Callable[[str], str]) -> None:
    """Change a source file so that its time differs too, however coarse the clock."""
    stamp = path.stat().st_mtime_ns
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    os.utime(path, ns=(stamp + 10**9, stamp + 10**9))


def test_first_run_then_second_then_changes(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    first = ladm(*run_arguments(corpus, store))
    assert first.code == 0, first.err
    record = first.record
    stages = record["stages"]
    assert record["status"] == "completed"
    assert did(record) == {
        "ingest": (2, 0), "length": (2, 0), "tokenize": (2, 0), "score": (2, 0), "measure": (2, 0),
        "rank": (1, 0), "export": (2, 0),
    }  # fmt: skip
    assert (stages["ingest"]["in"], stages["ingest"]["kept"]) == (9, 9)
    assert stages["length"]["dropped"] == {"fewer bytes than the window has tokens": 1}
    assert stages["tokenize"]["dropped"] == {"fewer tokens than one window": 1}
    assert (stages["score"]["in"], stages["score"]["kept"], record["windows_scored"]) == (7, 7, 7)
    assert stages["rank"]["documents"] == 7
    assert stages["rank"]["selected_tokens"] <= 2000
    on_disk = json.loads((store / "runs" / record["run_id"] / "run.json").read_text())
    assert on_disk["stages"] == stages
    assert (store / "latest").read_text() == record["run_id"]

    # nothing changed: nothing is done, and the result is there again
    second = ladm(*run_arguments(corpus, store)).record
    assert did(second) == {
        "ingest": (0, 2), "length": (0, 2), "tokenize": (0, 2), "score": (0, 2), "measure": (0, 2),
        "rank": (0, 1), "export": (0, 2),
    }  # fmt: skip
    assert second["windows_scored"] == 0
    assert ranking_rows(store, second) == ranking_rows(store, record)

    # another budget: only ranking and export
    other_budget = ladm(*run_arguments(corpus, store, "select.budget_tokens=4000")).record
    assert did(other_budget) == {
        "ingest": (0, 2), "length": (0, 2), "tokenize": (0, 2), "score": (0, 2), "measure": (0, 2),
        "rank": (1, 0), "export": (2, 0),
    }  # fmt: skip
    assert other_budget["stages"]["rank"]["selected_documents"] > stages["rank"]["selected_documents"]

    # another span: only scoring and what follows
    other_span = ladm(*run_arguments(corpus, store, "scorer.span=8")).record
    assert did(other_span)["tokenize"] == (0, 2)
    assert did(other_span)["score"] == (2, 0)

    # one file changed: only its shards
    changed(corpus.folder / "poems.jsonl", lambda text: text.replace("river", "ocean"))
    one_changed = ladm(*run_arguments(corpus, store)).record
    assert did(one_changed) == {
        "ingest": (1, 1), "length": (1, 1), "tokenize": (1, 1), "score": (1, 1), "measure": (1, 1),
        "rank": (1, 0), "export": (2, 0),
    }  # fmt: skip
    assert {job["source"][-12:] for job in one_changed["shards"] if job["stage"] == "score" and not job["cached"]} == {
        "/poems.jsonl"
    }

    # one file merely written again: it is read again, and nothing after that is done again
    changed(corpus.folder / "poems.jsonl", lambda text: text)
    only_dated = ladm(*run_arguments(corpus, store)).record
    assert did(only_dated) == {
        "ingest": (1, 1), "length": (0, 2), "tokenize": (0, 2), "score": (0, 2), "measure": (0, 2),
        "rank": (0, 1), "export": (0, 2),
    }  # fmt: skip

    # one score shard's data lost: only that shard is scored again, and the ranking comes out the same
    (lost,) = [
        job for job in one_changed["shards"] if job["stage"] == "score" and job["source"].endswith("letters.jsonl")
    ]
    (store / lost["shards"][0]["path"]).unlink()
    mended = ladm(*run_arguments(corpus, store)).record
    assert did(mended)["score"] == (1, 1)
    assert did(mended)["tokenize"] == (0, 2)
    assert mended["windows_scored"] == 4
    assert ranking_rows(store, mended) == ranking_rows(store, one_changed)

    # a file that vanished is gone from the ranking
    (corpus.folder / "poems.jsonl").unlink()
    fewer = ladm(*run_arguments(corpus, store)).record
    assert {row["domain"] for row in ranking_rows(store, fewer)} == {"Letters"}
    assert did(fewer)["score"] == (0, 1)


def test_exports_hold_the_selection_with_its_provenance(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    record = ladm(*run_arguments(corpus, store)).record
    folder = store / "runs" / record["run_id"]
    selected = [row for row in ranking_rows(store, record) if row["selected"]]
    exported = pq.read_table(folder / "export" / "parquet" / "train-00000-of-00001.parquet").to_pylist()
    key = lambda row: (row["doc_id"], row["domain"], row["rank"], row["score"])  # noqa: E731
    assert [key(row) for row in exported] == [key(row) for row in selected]

    for row in exported:
        line = Path(row["source"]).read_bytes()[row["offset"] :].split(b"\n", 1)[0]
        assert json.loads(line)["text"] == row["text"]
        assert json.loads(Path(row["source"]).read_text().splitlines()[row["line"] - 1])["text"] == row["text"]
        assert json.loads(row["meta"])["meta"]["license"] == "CC0"

    packed = (folder / "export" / "jsonl.zst" / "train-00000-of-00001.jsonl.zst").read_bytes()
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(packed).decode().splitlines()
    objects = [json.loads(line) for line in lines]
    assert [(o["meta"]["doc_id"], o["meta"]["pile_set_name"], o["text"]) for o in objects] == [
        (row["doc_id"], row["domain"], row["text"]) for row in exported
    ]
    card = (folder / "export" / "README.md").read_text()
    assert f"{len(selected):,} of 7 documents" in card
    assert "| CC0 |" in card
    assert record["model"]["digest"] in card
    assert f"Run `{record['run_id']}`, configuration sha256 `{record['config_sha256']}`" in card
    exports = {job["key"] for job in record["shards"] if (job["stage"], job["shard"]) == ("export", "parquet")}
    assert {row["export_key"] for row in exported} == exports

    # a later run that selects the same says so in its card, and its rows still name the run that wrote them
    again = ladm(*run_arguments(corpus, store, "execution.workers=1")).record
    assert did(again)["export"] == (0, 2)
    folder = store / "runs" / again["run_id"] / "export"
    assert again["run_id"] in (folder / "README.md").read_text()
    assert again["config_sha256"] != record["config_sha256"]
    assert pq.read_table(folder / "parquet" / "train-00000-of-00001.parquet").to_pylist() == exported


def test_until_stops_after_a_stage(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    answer = ladm(*run_arguments(corpus, tmp_path / "store"), "--until", "tokenize")
    assert answer.code == 0
    assert list(answer.record["stages"]) == ["ingest", "length", "tokenize"]
    assert answer.record["stages"]["tokenize"]["windows"] == 7
    assert not (tmp_path / "store" / "latest").exists()
    assert not (tmp_path / "store" / "score").exists()


def test_a_shard_that_fails_for_good(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.tasks.scorers import window_scores

    store = tmp_path / "store"
    undisturbed = ladm(*run_arguments(corpus, tmp_path / "undisturbed")).record
    working = window_scores.score_windows
    attempts: list[int] = []

    def failing(calculator: Any, config: Any, ids_BL: Any, *more: Any) -> Any:
        if len(ids_BL) == 3:  # the poems
            attempts.append(1)
            raise OSError("the disk under the poems is gone")
        return working(calculator, config, ids_BL, *more)

    monkeypatch.setattr(window_scores, "score_windows", failing)
    failed = ladm(*run_arguments(corpus, store, "execution.retries=2"))
    assert failed.code == 1
    record = failed.record
    assert record["status"] == "failed"
    assert len(attempts) == 3
    assert record["failures"] == [
        {
            "stage": "score",
            "shard": "poems.jsonl",
            "source": str(corpus.folder / "poems.jsonl"),
            "error": "OSError: the disk under the poems is gone",
        }
    ]
    assert (record["stages"]["score"]["run"], record["stages"]["score"]["failed"]) == (1, 1)
    assert record["stages"]["rank"]["run"] == 0
    assert not (store / "latest").exists()
    assert "Traceback" not in failed.err

    monkeypatch.setattr(window_scores, "score_windows", working)
    again = ladm(*run_arguments(corpus, store)).record
    assert did(again) == {
        "ingest": (0, 2), "length": (0, 2), "tokenize": (0, 2), "score": (1, 1), "measure": (0, 2),
        "rank": (1, 0), "export": (2, 0),
    }  # fmt: skip
    assert again["windows_scored"] == 3
    assert ranking_rows(store, again) == ranking_rows(tmp_path / "undisturbed", undisturbed)


def test_a_passing_fault_is_retried(tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.tasks.scorers import window_scores

    working, attempts = window_scores.score_windows, []

    def flaky(calculator: Any, config: Any, ids_BL: Any, *more: Any) -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("a passing fault")
        return working(calculator, config, ids_BL, *more)

    monkeypatch.setattr(window_scores, "score_windows", flaky)
    answer = ladm(*run_arguments(corpus, tmp_path / "store", "execution.retries=1"))
    assert answer.code == 0, answer.err
    assert answer.record["windows_scored"] == 7


@pytest.mark.parametrize("error", [KeyError("ours"), AttributeError("ours"), ValueError("ours"), RuntimeError("ours")])
def test_our_own_bug_is_not_retried(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from ladm.tasks.scorers import window_scores

    attempts = []

    def wrong(*_: Any) -> Any:
        attempts.append(1)
        raise error

    monkeypatch.setattr(window_scores, "score_windows", wrong)
    answer = ladm(*run_arguments(corpus, tmp_path / "store", "execution.retries=3"))
    assert answer.code == 1
    assert len(attempts) == 2  # each of the two shards, once
    assert all("ours" in failure["error"] for failure in answer.record["failures"])


def test_a_score_that_is_not_finite_is_quarantined_and_never_ranked(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.tasks.scorers import window_scores

    working = window_scores.score_windows

    def with_a_nan(calculator: Any, config: Any, ids_BL: Any, *more: Any) -> Any:
        scores = working(calculator, config, ids_BL, *more)
        if len(scores) == 3:
            scores[0].__dict__["cds"] = float("nan")
        return scores

    monkeypatch.setattr(window_scores, "score_windows", with_a_nan)
    record = ladm(*run_arguments(corpus, tmp_path / "store")).record
    assert record["stages"]["score"] | {"seconds": 0} == record["stages"]["score"] | {
        "in": 7, "kept": 6, "quarantined": 1, "seconds": 0,
    }  # fmt: skip
    assert record["stages"]["rank"]["documents"] == 6
    answer = ladm("sql", "select reason, doc_id from quarantine", "--store", tmp_path / "store", "--format", "json")
    (row,) = json.loads(answer.out)
    assert row["reason"] == f"the score of window {row['doc_id']}:0 is nan"


def test_bad_records_are_quarantined_and_the_rest_goes_on(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    changed(corpus.folder / "poems.jsonl", lambda text: "{not json\n" + text + '{"text": 7}\n')
    (corpus.folder / "broken.jsonl").write_bytes(b"\xff\xfe" + "UTF-16".encode("utf-16-le"))
    store = tmp_path / "store"
    record = ladm(*run_arguments(corpus, store)).record
    ingest = record["stages"]["ingest"]
    assert (ingest["in"], ingest["kept"], ingest["quarantined"]) == (12, 9, 3)
    rows = json.loads(ladm("sql", "from quarantine order by source, line", "--store", store, "--format", "json").out)
    assert [(Path(row["source"]).name, row["line"]) for row in rows] == [
        ("broken.jsonl", None),
        ("poems.jsonl", 1),
        ("poems.jsonl", 6),
    ]
    assert "UTF-16" in rows[0]["reason"]


def test_nothing_usable_is_a_failed_run(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    for file in corpus.folder.iterdir():
        file.unlink()
    write_jsonl(corpus.folder / "short.jsonl", "Letters", 3, [5, 6])
    answer = ladm(*run_arguments(corpus, tmp_path / "store"))
    assert answer.code == 1
    assert "no document was left" in answer.record["failures"][0]["error"]


def test_the_same_corpus_in_smaller_shards_ranks_the_same(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    whole = ladm(*run_arguments(corpus, tmp_path / "whole")).record
    split = ladm(*run_arguments(corpus, tmp_path / "split", "ingest.shard_bytes=3000")).record
    assert split["stages"]["length"]["run"] > whole["stages"]["length"]["run"]
    assert split["stages"]["ingest"]["in"] == whole["stages"]["ingest"]["in"]
    for one, other in zip(
        ranking_rows(tmp_path / "whole", whole), ranking_rows(tmp_path / "split", split), strict=True
    ):
        assert one | {"score": 0} == other | {"score": 0}
        assert one["score"] == pytest.approx(other["score"], rel=1e-5)


def test_summary_for_people(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    arguments = [argument for argument in run_arguments(corpus, tmp_path / "store") if argument != "--json"]
    answer = ladm(*arguments)
    assert answer.code == 0
    assert "windows scored in this run: 7" in answer.out
    assert "of 7 documents in 2 domains" in answer.out
    assert "score     done    letters.jsonl  4 in, 4 kept" in answer.err


def test_a_run_may_end_with_its_ranking(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    """Without a format nothing is exported, and nothing is to be published either."""
    answer = ladm(*run_arguments(corpus, tmp_path / "store"), "--set", "export=[]")
    assert answer.code == 0, answer.err
    assert answer.record["stages"]["rank"]["selected_documents"] > 0
    assert answer.record["stages"]["export"]["run"] == 0
    refused = ladm(
        *run_arguments(corpus, tmp_path / "store"), "--set", "export=[]", "--set", f"publish={tmp_path}/there"
    )
    assert refused.code == 2
    assert refused.err == (
        "ladm: export: names no format, so there is nothing to publish; name one, or leave publish out\n"
    )
