"""The quarantine as a run's user sees it: the view, the totals, and the limit that turns too much into a failed run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments

Cli = Callable[..., Answer]


def rows_of(ladm: Cli, store: Path, query: str, *more: str) -> list[dict[str, Any]]:
    answer = ladm("sql", query, "--store", store, "--format", "json", *more)
    assert answer.code == 0, answer.err
    rows: list[dict[str, Any]] = json.loads(answer.out)
    return rows


@pytest.fixture
def mixed(corpus: Corpus) -> Corpus:
    """The corpus of 9 good records, with 3 bad ones among them and 1 file that cannot be read: 4 of 13, 1 of 3."""
    with (corpus.folder / "poems.jsonl").open("a") as poems:
        poems.write('not JSON \x1b[31m\n{"text": 7}\n{"no": "text"}\n')
    (corpus.folder / "broken.jsonl").write_bytes(b"\xff\xfe" + "UTF-16".encode("utf-16-le"))
    return corpus


def test_the_view_and_the_totals(tmp_path: Path, mixed: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    record = ladm(*run_arguments(mixed, store)).record
    assert record["quarantined"] == {"records": 4, "files": 1}
    rows = rows_of(ladm, store, "from quarantine order by source, line")
    assert list(rows[0]) == ["stage", "source", "line", "reason", "excerpt", "records", "doc_id"]
    assert [(Path(row["source"]).name, row["line"], row["records"]) for row in rows] == [
        ("broken.jsonl", None, 1), ("poems.jsonl", 5, 1), ("poems.jsonl", 6, 1), ("poems.jsonl", 7, 1),
    ]  # fmt: skip
    assert rows[1]["excerpt"] == r"not JSON \x1b[31m"
    assert "'text' is a number" in rows[2]["reason"]


def test_a_window_without_a_score_has_its_documents_place_and_beginning(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.tasks.scorers import window_scores

    working = window_scores.score_windows

    def with_an_infinity(calculator: Any, config: Any, ids_BL: Any, *more: Any) -> Any:
        scores = working(calculator, config, ids_BL, *more)
        if len(scores) == 3:  # the poems
            scores[1].__dict__["cds"] = float("inf")
        return scores

    monkeypatch.setattr(window_scores, "score_windows", with_an_infinity)
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store)).record["quarantined"] == {"records": 1, "files": 0}
    (row,) = rows_of(ladm, store, "from quarantine")
    text = json.loads((corpus.folder / "poems.jsonl").read_text().splitlines()[1])["text"]
    assert (row["stage"], Path(row["source"]).name, row["line"]) == ("score", "poems.jsonl", 2)
    assert (row["reason"], row["excerpt"]) == (f"the score of window {row['doc_id']}:0 is inf", text[:200])


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ("0.3", "1 of 3 source files are quarantined, more than max_quarantined (0.3) allows"),
        ("0", "1 of 3 source files"),
        ("0.34", None),
        ("1", None),
    ],
)
def test_too_much_is_a_failed_run(tmp_path: Path, mixed: Corpus, ladm: Cli, share: str, said: str | None) -> None:
    store = tmp_path / "store"
    answer = ladm(*run_arguments(mixed, store), "--max-quarantined", share)
    assert answer.code == (1 if said else 0), answer.err
    record = answer.record
    assert record["config"]["max_quarantined"] == float(share)
    assert record["quarantined"] == {"records": 4, "files": 1}
    assert (store / "latest").exists() == (said is None)
    if said is None:
        return
    (failure,) = record["failures"]
    assert failure["stage"] == "ingest"
    assert failure["error"].startswith(said)
    assert sum(said in line for line in answer.err.splitlines()) == 1
    assert "Traceback" not in answer.err
    assert record["stages"]["score"]["kept"] == 7  # what was done is kept …
    assert record["stages"]["rank"]["run"] == 0  # … and nothing is ranked
    assert len(rows_of(ladm, store, "from quarantine", "--run", record["run_id"])) == 4
    assert record["run_id"] in failure["error"]


def test_records_are_counted_too(tmp_path: Path, mixed: Corpus, ladm: Cli) -> None:
    (mixed.folder / "broken.jsonl").unlink()
    answer = ladm(*run_arguments(mixed, tmp_path / "store", "max_quarantined=0.2"))
    assert answer.code == 1
    assert "3 of 12 records are quarantined" in answer.record["failures"][0]["error"]


@pytest.mark.parametrize("share", ["1.5", "-0.1", "many", "nan"])
def test_a_share_is_a_share(tmp_path: Path, corpus: Corpus, ladm: Cli, share: str) -> None:
    answer = ladm(*run_arguments(corpus, tmp_path / "store"), f"--max-quarantined={share}")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "max_quarantined" in answer.err
