"""`ladm sql`: it answers, in three formats, and it cannot write, look elsewhere or be talked out of that."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer, Corpus, run_arguments

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sql") / "store"


@pytest.fixture
def filled(store: Path, corpus: Corpus, ladm: Cli) -> Path:
    """A store with one completed run (made once)."""
    if not store.exists():
        assert ladm(*run_arguments(corpus, store)).code == 0
    return store


def test_answers(filled: Path, ladm: Cli) -> None:
    query = "select domain, count(*) as windows, avg(cds) as mean from scores group by 1 order by 1"
    table = ladm("sql", query, "--store", filled)
    assert table.code == 0
    assert "Letters" in table.out
    rows = json.loads(ladm("sql", query, "--store", filled, "--format", "json").out)
    assert [(row["domain"], row["windows"]) for row in rows] == [("Letters", 4), ("Poems", 3)]
    lines = list(csv.DictReader(io.StringIO(ladm("sql", query, "--store", filled, "--format", "csv").out)))
    assert [float(line["mean"]) for line in lines] == pytest.approx([row["mean"] for row in rows])


@pytest.mark.parametrize(
    ("view", "rows"),
    [("documents", 9), ("windows", 7), ("scores", 7), ("ranking", 7), ("quarantine", 0), ("stages", 14), ("runs", 1)],
)
def test_every_view_is_there(filled: Path, ladm: Cli, view: str, rows: int) -> None:
    for form in ("table", "csv", "json"):
        assert ladm("sql", f"from {view}", "--store", filled, "--format", form).code == 0
    (row,) = json.loads(ladm("sql", f"select count(*) as n from {view}", "--store", filled, "--format", "json").out)
    assert row["n"] == rows


def test_selected_is_the_ranking_above_the_cut(filled: Path, ladm: Cli) -> None:
    query = "select (select count(*) from selected) = (select count(*) from ranking where selected) as same"
    assert json.loads(ladm("sql", query, "--store", filled, "--format", "json").out) == [{"same": True}]


def test_the_allocation_is_there_and_adds_up(filled: Path, ladm: Cli) -> None:
    query = """select domain, target_tokens, selected_tokens = (
        select sum(doc_tokens) from selected where selected.domain = allocation.domain
    ) as same from allocation order by domain"""
    rows = json.loads(ladm("sql", query, "--store", filled, "--format", "json").out)
    assert [(row["domain"], row["same"]) for row in rows] == [("Letters", True), ("Poems", True)]
    assert sum(row["target_tokens"] for row in rows) == pytest.approx(2000, abs=1)


@pytest.mark.parametrize(
    "query",
    [
        "create table t as select 1",
        "copy (select 1) to '{store}/x.csv'",
        "copy scores to '/tmp/ladm-escape.csv'",
        "drop view scores",
        "insert into ranking select * from ranking",
        "attach '/tmp/x.db'",
        "install httpfs",
        "set enable_external_access = true",
        "pragma enable_profiling",
        "select * from read_text('{store}/../outside.txt')",
        "select 1; drop view scores",
        "explain analyze copy (select 1) to '{store}/x.csv'",
        "call pragma_version()",
        "select * from read_text('/etc/hostname')",
        "select * from '/etc/passwd'",
        "select * from glob('/etc/*')",
        "selekt 1",
        "select * from nowhere",
        "",
    ],
)
def test_refused_in_one_line(filled: Path, ladm: Cli, query: str) -> None:
    (filled.parent / "outside.txt").write_text("not for you")
    answer = ladm("sql", query.format(store=filled), "--store", filled)
    assert answer.code == 2, answer.out
    assert answer.out == ""
    assert answer.err.startswith("ladm: ")
    assert answer.err.count("\n") == 1
    assert not (filled / "x.csv").exists()
    assert not Path("/tmp/ladm-escape.csv").exists()


def test_no_store_and_no_run(tmp_path: Path, filled: Path, ladm: Cli) -> None:
    nothing = ladm("sql", "select 1", "--store", tmp_path / "nothing")
    assert nothing.code == 2
    assert "there is no run in" in nothing.err
    for run in ("20200101T000000-00000000", "../x", ""):
        assert ladm("sql", "select 1", "--store", filled, "--run", run).code == 2 or run == ""


def test_control_characters_do_not_reach_the_terminal(filled: Path, ladm: Cli) -> None:
    answer = ladm("sql", r"select chr(27) || '[31m[bold]red' as text", "--store", filled)
    assert "\x1b" not in answer.out
    assert r"\x1b[31m[bold]red" in answer.out


def test_a_store_may_be_called_anything(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    """Wildcards, quotes, and what would be a partition's column, in the store's own path."""
    store = tmp_path / "a[1]*? 'it\"s" / "domain=x, $ y %s" / "store"
    beside = tmp_path / "a1" / "domain=x, $ y %s"  # which the path, as a pattern, matches too
    beside.mkdir(parents=True)
    more = ("deduplicate=true", "select.replay={share: 0.1}", "select.max_source_share=0.9")
    for budget in (2000, 3000):
        answer = ladm(*run_arguments(corpus, store, *more, f"select.budget_tokens={budget}"))
        assert answer.code == 0, answer.err
    plain = ladm(*run_arguments(corpus, tmp_path / "plain", *more, "select.budget_tokens=3000"))
    assert plain.code == 0, plain.err
    for view in ("documents", "windows", "scores", "ranking", "allocation", "dropped", "quarantine"):
        answers = [ladm("sql", f"from {view} order by all", "--store", one) for one in (store, tmp_path / "plain")]
        assert answers[0].code == 0, answers[0].err
        assert answers[0].out == answers[1].out, view
    assert ladm("sql", "select count(*) from runs", "--store", store, "--format", "csv").out.split() == [
        "count_star()",
        "2",
    ]
    (beside / "secret.csv").write_text("a\n1\n")
    for path in (beside / "secret.csv", f"{store}/../secret.csv", f"{store}/../*.csv"):
        refused = ladm("sql", f"from read_text('{str(path).replace(chr(39), chr(39) * 2)}')", "--store", store)
        assert (refused.code, refused.out) == (2, ""), refused
    assert ladm("report", "--store", store).code == 0
    assert ladm("gc", "--keep", 1, "--store", store).code == 0
    assert ladm(*run_arguments(corpus, store, *more, "select.budget_tokens=3000")).record["windows_scored"] == 0
    # On an object store, where requests for many objects take patterns, it is refused.
    refused = ladm(*run_arguments(corpus, Path("x"), *more), "--store", "s3://bucket/a[1]")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "holds *, ? or [" in refused.err


ENDLESS = [
    "select count(*) from range(1000000000000) r(i) where i % 7 = 3",
    "with recursive t as (select 1 union all select 1 from t) select count(*) from t",
]


@pytest.mark.parametrize("query", ENDLESS)
def test_an_endless_query_is_ended(filled: Path, ladm: Cli, query: str) -> None:
    answer = ladm("sql", query, "--store", filled, "--timeout", "1")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert answer.err == "ladm: the query was ended after 1 s; --timeout gives it more\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_is_a_number_of_seconds(filled: Path, ladm: Cli, seconds: str) -> None:
    answer = ladm("sql", "select 1", "--store", filled, f"--timeout={seconds}")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert "--timeout" in answer.err
