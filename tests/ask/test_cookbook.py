"""The questions of docs/guides/ask.md: each is answered on a real run, and some by what the test itself knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments

Cli = Callable[..., Answer]
PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "ask.md").read_text(encoding="utf-8")


def questions() -> dict[str, str]:
    """Question → query, of the page's SQL block."""
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    found = re.findall(r"^-- (.+)\n((?:(?!--).*\n?)+?.*;)$", block, re.MULTILINE)
    return {question: query.rstrip(";") for question, query in found}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cookbook") / "store"


@pytest.fixture
def filled(store: Path, corpus: Corpus, ladm: Cli) -> Path:
    """A run with a bad record, all letters twice and the worst left out: every question has an answer (made once)."""
    if not store.exists():
        letters = corpus.folder / "letters.jsonl"
        copies = letters.read_text(encoding="utf-8") + "{not json\n"
        (corpus.folder / "copies.jsonl").write_text(copies, encoding="utf-8")
        assert ladm(*run_arguments(corpus, store, "select.budget_tokens=null", "select.drop_bottom=0.25")).code == 0
    return store


def answer(ladm: Cli, store: Path, beginning: str) -> list[dict[str, Any]]:
    (query,) = [query for question, query in questions().items() if question.startswith(beginning)]
    rows: list[dict[str, Any]] = json.loads(ladm("sql", query, "--store", store, "--format", "json").out)
    return rows


def test_there_are_ten_and_nothing_else_in_the_block() -> None:
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert len(questions()) == 10
    assert block.count(";") == 10


@pytest.mark.parametrize("question", list(questions()))
def test_each_question_has_an_answer(filled: Path, ladm: Cli, question: str) -> None:
    found = ladm("sql", questions()[question], "--store", filled, "--format", "json")
    assert found.code == 0, found.err
    assert json.loads(found.out), question


def test_answers_are_right(filled: Path, ladm: Cli) -> None:
    run = (filled / "latest").read_text()
    record = json.loads((filled / "runs" / run / "run.json").read_text())
    ranking = pq.read_table(filled / "runs" / run / "ranking.parquet").to_pylist()
    for row in answer(ladm, filled, "How much of each domain"):
        scores = [one["score"] for one in ranking if one["domain"] == row["domain"] and one["selected"]]
        assert (row["selected"], row["cut"]) == (len(scores), pytest.approx(min(scores)))
    dropped = answer(ladm, filled, "What was dropped")
    expected = {(stage, reason): n for stage, s in record["stages"].items() for reason, n in s["dropped"].items()}
    assert {(row["stage"], row["reason"]): row["records"] for row in dropped if row["stage"] != "export"} == {
        key: records for key, records in expected.items() if key[0] != "export"
    }
    (bad,) = answer(ladm, filled, "What was quarantined")
    assert (Path(bad["source"]).name, bad["line"]) == ("copies.jsonl", 6)
    twice = answer(ladm, filled, "Which texts are in the selection more")
    assert len(twice) == 3
    for row in twice:
        copy, letter = sorted(Path(place).name for place in row["places"])
        assert copy.replace("copies", "letters") == letter
    assert {row["domain"] for row in answer(ladm, filled, "Which documents lie just below")} == {"Letters"}
    layers = answer(ladm, filled, "Which layers")
    assert [row["layer"] for row in layers] == [0, 1]
    assert sum(row["percent"] for row in answer(ladm, filled, "From which files")) == pytest.approx(100, abs=0.2)
