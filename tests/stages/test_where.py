"""`select.where`: what it keeps against plain loops, what is refused, and what a run tells of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments
from test_rank import score_shard
from test_select import made_up, shards_of

from ladm.flows.config import RunConfig
from ladm.flows.dag.stages import BY_NAME
from ladm.tasks.condition import check_condition, columns_read, known_columns
from ladm.tasks.errors import ConfigError, QueryError
from ladm.tasks.exporters.markdown import plain
from ladm.tasks.exporters.selection_text import selection_text
from ladm.tasks.job import Job, Outcome
from ladm.tasks.manifest import Shard
from ladm.tasks.schema import DOCUMENTS
from ladm.tasks.selection import SelectConfig
from ladm.tasks.stages.rank import STAGE, rank
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store, table_of

Cli = Callable[..., Answer]
Rows = list[dict[str, Any]]
OLMO3 = "percent_rank() over (partition by domain order by gzip) between 0.2 and 0.8"


# -- helpers -------------------------------------------------------------------------------------------------------


def measured(store: Store, name: str, values: dict[str, float]) -> Shard:
    """A shard of what one scorer measured: window_id → value."""
    columns = {"window_id": list(values), "doc_id": [one.split(":")[0] for one in values], name: list(values.values())}
    return store.write_shard("measure", name, pa.table(columns))


def texts(store: Store, documents: Rows) -> Shard:
    """A shard of documents."""
    rows = [{"text": "", "source": "s", "line": 1, "offset": 0, "sha256": "", "bytes": 1, **one} for one in documents]
    return store.write_shard(
        "length", "texts", table_of({name: [row.get(name) for row in rows] for name in DOCUMENTS.names}, DOCUMENTS)
    )


def outcome_of(store: Store, where: str, select: dict[str, Any] | None = None, **inputs: list[Shard]) -> Outcome:
    config = SelectConfig.model_validate({**(select or {}), "where": where}).model_dump()
    job = Job(stage="rank", label="x", store=store.uri, config=config, inputs=inputs)
    outcome = rank(job, store, "rankkey")
    outcome.counts.check("rank")
    return outcome


def ranked(store: Store, outcome: Outcome) -> Rows:
    rows: Rows = store.read_shard(outcome.shards[0]).to_pylist()
    return rows


def held_back(store: Store, outcome: Outcome) -> Rows:
    (file,) = (file for file in outcome.files if file.path.endswith("not_ranked.parquet"))
    rows: Rows = store.read_shard(file).to_pylist()
    return rows


def spread(seed: int = 1, documents: int = 200) -> tuple[Rows, dict[str, float]]:
    """Documents of one window in four domains, and their compressibility, with ties."""
    chance = random.Random(seed)
    found = made_up(seed, documents)
    return found, {f"{one['doc_id']}:0": chance.choice([0.1, 0.5, chance.random()]) for one in found}


def in_the_band(documents: Rows, gzip: dict[str, float], low: float, high: float) -> set[str]:
    """The documents whose percent rank by `gzip` in their domain lies between the two: a plain loop."""
    kept = set()
    for one in documents:
        own = [gzip[f"{other['doc_id']}:0"] for other in documents if other["domain"] == one["domain"]]
        below = sum(value < gzip[f"{one['doc_id']}:0"] for value in own)
        if low <= (below / (len(own) - 1) if len(own) > 1 else 0) <= high:
            kept.add(one["doc_id"])
    return kept


# -- what it keeps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_olmo_3s_recipe_equals_a_plain_loop(tmp_path: Path, seed: int) -> None:
    store = Store(str(tmp_path))
    documents, gzip = spread(seed)
    scores, _ = shards_of(store, documents)
    budget = sum(one["doc_tokens"] for one in documents) // 4
    outcome = outcome_of(
        store, OLMO3, {"budget_tokens": budget}, scores=[scores], measures=[measured(store, "gzip", gzip)]
    )
    kept = in_the_band(documents, gzip, 0.2, 0.8)
    rows = ranked(store, outcome)
    assert {row["doc_id"] for row in rows} == kept
    left = [one for one in documents if one["doc_id"] not in kept]
    assert {row["doc_id"] for row in held_back(store, outcome)} == {one["doc_id"] for one in left}
    assert outcome.counts.as_record() == {
        "in": 200, "kept": len(kept), "dropped": {"select.where": len(left)}, "quarantined": 0
    }  # fmt: skip
    # ranks, numbers and shares are of what is left
    for domain in {row["domain"] for row in rows}:
        own = [row for row in rows if row["domain"] == domain]
        best = sorted(
            (one for one in documents if one["domain"] == domain and one["doc_id"] in kept),
            key=lambda one: (-one["cds"], one["doc_id"]),
        )
        assert [(row["doc_id"], row["rank"], row["domain_documents"]) for row in own] == [
            (one["doc_id"], place, len(best)) for place, one in enumerate(best, 1)
        ]
        assert own[-1]["top_share"] == 1.0
    # and so is everything that is made of them
    alone = Store(str(tmp_path / "alone"))
    (of_kept, _) = shards_of(alone, [one for one in documents if one["doc_id"] in kept])
    job = Job(
        stage="rank", label="x", store=alone.uri, config=SelectConfig(budget_tokens=budget).model_dump(),
        inputs={"scores": [of_kept]},
    )  # fmt: skip
    assert ranked(alone, rank(job, alone, "rankkey")) == rows


def test_false_and_null_are_held_back_and_told(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    scores = score_shard(store, "one", [
        {"doc_id": "a", "domain": "x", "cds": 1.0, "doc_tokens": 5},
        {"doc_id": "b", "domain": "x", "cds": 3.0, "doc_tokens": 6},
        {"doc_id": "c", "domain": "y", "cds": 2.0, "doc_tokens": 7},
    ])  # fmt: skip
    outcome = outcome_of(store, "case domain when 'x' then score < 2 end", scores=[scores])
    assert [row["doc_id"] for row in ranked(store, outcome)] == ["a"]
    assert held_back(store, outcome) == [
        {"doc_id": "b", "domain": "x", "score": 3.0, "windows": 1, "doc_tokens": 6, "reason": "select.where",
         "distance": None},
        {"doc_id": "c", "domain": "y", "score": 2.0, "windows": 1, "doc_tokens": 7, "reason": "select.where",
         "distance": None},
    ]  # fmt: skip
    nothing = outcome_of(store, "score > 0", scores=[scores])
    assert (held_back(store, nothing), nothing.counts.dropped, nothing.measures["documents"]) == ([], {}, 3)


@pytest.mark.parametrize("document_score", ["max", "mean", "first"])
def test_of_several_windows_a_column_is_the_mean_and_the_score_is_the_documents(
    tmp_path: Path, document_score: str
) -> None:
    store, chance = Store(str(tmp_path)), random.Random(3)
    windows = [
        {"doc_id": f"{number:02}", "domain": "xy"[number % 2], "cds": chance.random(), "doc_tokens": 9,
         "window_index": place, "order_score": chance.random(), "dependency_score": chance.random()}
        for number in range(40)
        for place in range(1 + number % 3)
    ]  # fmt: skip
    chance.shuffle(windows)
    gzip = {f"{one['doc_id']}:{one['window_index']}": chance.random() for one in windows}
    del gzip["38:1"]  # could not be measured
    where = (
        "gzip > 0.5 or (cds < 0.4 and order_score > 0.3 and dependency_score < 0.6) or (score > 0.8 and windows = 3)"
    )
    outcome = outcome_of(
        store, where, {"document_score": document_score},
        scores=[score_shard(store, "one", windows)], measures=[measured(store, "gzip", gzip)],
    )  # fmt: skip
    kept = set()
    for doc_id in {one["doc_id"] for one in windows}:
        own = sorted((one for one in windows if one["doc_id"] == doc_id), key=lambda one: one["window_index"])
        means = {name: mean(one[name] for one in own) for name in ("cds", "order_score", "dependency_score")}
        compressed = mean(value for window, value in gzip.items() if window.startswith(f"{doc_id}:"))
        deep = [one["dependency_score"] for one in own]
        score = {"max": max(deep), "mean": mean(deep), "first": deep[0]}[document_score]
        low = means["cds"] < 0.4 and means["order_score"] > 0.3 and means["dependency_score"] < 0.6
        if compressed > 0.5 or low or (score > 0.8 and len(own) == 3):
            kept.add(doc_id)
    assert {row["doc_id"] for row in ranked(store, outcome)} == kept
    assert 5 < len(kept) < 35
    assert outcome.counts.dropped["select.where"] == sum(one["doc_id"] not in kept for one in windows)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("source like '%a.jsonl' and line > 1", "b"),
        ("bytes between 10 and 20", "ab"),
        ("meta ->> 'license' in ('CC0', 'MIT')", "ac"),
        ("meta ->> '$.inner.year' = '1999'", "b"),
        ("meta.license is null", "bd"),
        ("(meta ->> '$.inner.year')::int >= 1999", "bc"),
        ("bytes > 9 and (meta ->> 'license') = 'CC0'", "a"),
        ("meta ->> 'inner' ->> 'year' = '2024'", "c"),
        ("json_extract_string(meta, '$.license') = 'MIT'", "c"),
        ("row_number() over (partition by source order by bytes desc) = 1", "bd"),
        ("count(*) over (partition by meta ->> 'license') = 2 -- twice", "bd"),
        ("doc_tokens > avg(doc_tokens) over () AND DOMAIN = 'x'", "cd"),
        ("doc_tokens_exact and windows = 1 and doc_id <> 'a'", "bcd"),
        ("md5(doc_id) < 'a'", "abcd"),
        ("sum(doc_tokens) over (order by score desc, doc_id rows between 1 preceding and current row) <= 7", "ad"),
        ("lag(score) over (order by doc_id) is null", "a"),
        ("true\n", "abcd"),
    ],
)
def test_the_documents_own_columns(tmp_path: Path, where: str, kept: str) -> None:
    store = Store(str(tmp_path))
    both = '{"license": "MIT", "inner": {"year": "2024"}}'
    documents = [
        {"doc_id": "a", "source": "/d/a.jsonl", "line": 1, "bytes": 10, "meta": '{"license": "CC0"}'},
        {"doc_id": "b", "source": "/d/a.jsonl", "line": 2, "bytes": 20, "meta": '{"inner": {"year": 1999}}'},
        {"doc_id": "c", "source": "/d/b.jsonl", "line": 1, "bytes": 5, "meta": both},
        {"doc_id": "d", "source": "/d/b.jsonl", "line": 2, "bytes": 30, "meta": None},
    ]
    rows = [
        {"doc_id": name, "domain": "x", "cds": float(place), "doc_tokens": 3 + place}
        for place, name in enumerate("abcd")
    ]
    inputs = {
        "scores": [score_shard(store, "one", rows)],
        "documents": [texts(store, [{"domain": "x", **one} for one in documents])],
    }
    assert "".join(sorted(row["doc_id"] for row in ranked(store, outcome_of(store, where, **inputs)))) == kept


def test_a_condition_goes_with_another_score_and_with_a_limit_on_sources(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    documents, gzip = spread(5, 60)
    unmeasured = documents[0]["doc_id"]
    scores, texts_shard = shards_of(store, documents)
    del gzip[f"{unmeasured}:0"]
    outcome = outcome_of(
        store, "gzip < 0.6 and source <> '/data/3.jsonl'",
        {"rank_by": "gzip", "budget_tokens": 4000, "max_source_share": 0.4},
        scores=[scores], measures=[measured(store, "gzip", gzip)], documents=[texts_shard],
    )  # fmt: skip
    kept = {
        one["doc_id"] for one in documents
        if gzip.get(f"{one['doc_id']}:0", 1) < 0.6 and one["source"] != "/data/3.jsonl"
    }  # fmt: skip
    assert {row["doc_id"] for row in ranked(store, outcome)} == kept
    assert outcome.counts.dropped == {"not measured by gzip": 1, "select.where": 59 - len(kept)}
    assert unmeasured not in {row["doc_id"] for row in held_back(store, outcome)}


def test_ties_within_a_window_are_broken_alike_whatever_the_shards(tmp_path: Path) -> None:
    """As far as the condition leaves it open: `row_number` over ties goes by doc_id."""
    store = Store(str(tmp_path))
    documents, _ = spread(2, 3000)
    gzip = measured(store, "gzip", {f"{one['doc_id']}:0": 0.5 for one in documents})
    where = "row_number() over by_gzip <= 100 and sum(score / 7) over (partition by domain) > 0"
    where = where.replace("by_gzip", "(partition by domain order by gzip)")
    found = []
    for parts in (1, 7):
        shards = [score_shard(store, f"{parts}-{part}", documents[part::parts]) for part in range(parts)]
        found.append(ranked(store, outcome_of(store, where, scores=shards, measures=[gzip])))
    assert found[0] == found[1]
    for domain in "wxyz":
        first = sorted(one["doc_id"] for one in documents if one["domain"] == domain)[:100]
        assert sorted(row["doc_id"] for row in found[0] if row["domain"] == domain) == first


def test_what_another_reason_holds_back_is_not_asked(tmp_path: Path) -> None:
    """The table `not_ranked` takes any reason, with a distance; what comes later sees what is left."""
    from ladm.tasks.condition import hold_back

    store = Store(str(tmp_path))
    rows = [{"doc_id": name, "domain": "x", "cds": float(place), "doc_tokens": 1} for place, name in enumerate("abcd")]
    with duck.connect(store) as connection:
        duck.view_of_shards(connection, "scores", store, [score_shard(store, "one", rows)], pa.schema([]))
        duck.set_variables(connection, {"rank_by": "ladm"})
        for name in ("window_scores", "one_window", "not_ranked"):
            connection.execute(duck.statement(name))
        connection.execute(
            "insert into not_ranked select doc_id, domain, 'gate', 4.5 from documents_scored where doc_id = 'd'"
        )
        hold_back(connection, "score < max(score) over ()", one_window=True)
        connection.execute(duck.statement("rank"))
        told = connection.execute("from not_ranked order by doc_id").fetchall()
        assert told == [("c", "x", "select.where", None), ("d", "x", "gate", 4.5)]
        left = connection.execute("select doc_id, rank, domain_documents from ranked order by rank").fetchall()
        assert left == [("b", 1, 2), ("a", 2, 2)]


def test_nothing_left_and_data_that_do_not_fit_are_told_in_one_line(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    documents = [{"doc_id": "a", "domain": "x", "meta": '{"year": "about 1900"}'}]
    inputs = {
        "scores": [score_shard(store, "one", [{"doc_id": "a", "domain": "x", "cds": 1.0, "doc_tokens": 5}])],
        "documents": [texts(store, documents)],
    }
    with pytest.raises(ConfigError) as nothing:
        outcome_of(store, "domain = 'Bokos'", **inputs)
    assert "select.where: it is true for none of 1 documents, so that nothing is left to rank" in str(nothing.value)
    with pytest.raises(ConfigError) as unfit:
        outcome_of(store, "(meta ->> 'year')::int > 1800", **inputs)
    assert (
        "select.where: it cannot be told of every document (Conversion Error: Could not convert string 'about 1900'"
        in str(unfit.value)
    )
    assert "write try_cast" in str(unfit.value)
    assert "\n" not in str(unfit.value) + str(nothing.value)
    tried = outcome_of(store, "try_cast(meta ->> 'year' as int) is null", **inputs)
    assert len(ranked(store, tried)) == 1


# -- what is refused -------------------------------------------------------------------------------------------------

NOT_ONE = "it is not one expression; give one, without `;`, `from` or a name of its own"
ALONE = "its result must follow from the columns alone"
UNREADABLE = "it cannot be read"
REFUSED = [
    ("", "it is empty"),
    ("   \n", "it is empty"),
    ("score > 1;", NOT_ONE),
    ("score > 1; drop table ranking", UNREADABLE),
    ("score > 1; copy (select 1) to '/tmp/x'", UNREADABLE),
    ("score > 1, true", NOT_ONE),
    ("score > 1 as kept", NOT_ONE),
    ("score > 1 from documents", NOT_ONE),
    ("score > 1 from read_text('/etc/passwd')", NOT_ONE),
    ("score > 1 where true", NOT_ONE),
    ("score > 1 limit 1", NOT_ONE),
    ("score > 1 order by 1", NOT_ONE),
    ("score > 1 group by all", NOT_ONE),
    ("score > 1 using sample 10%", NOT_ONE),
    ("distinct score > 1", NOT_ONE),
    ("true union select false", NOT_ONE),
    ("true) from documents --", UNREADABLE),
    ("true) as a, (true", UNREADABLE),
    ("true /* and so on", UNREADABLE),
    ("'unfinished", UNREADABLE),
    ("attach 'x.db'", "DuckDB refuses it (Catalog Error: Type with name attach does not exist!)"),
    ("score > 1 and meta ->> 'a' = 'b'", "`->>` takes all that stands before it; write (meta ->> 'key') = …, with the"),
    ("not meta ->> 'a' = 'b'", "`->>` takes all that stands before it"),
    ("domain = meta ->> 'a'", "`->>` takes all that stands before it"),
    ("score in (1, 2) and meta ->> 'a' like 'b'", "`->>` takes all that stands before it"),
    ("domain || meta ->> 'a' = 'b'", "`->>` takes all that stands before it"),
    ("meta.license = 'CC0'", "Malformed JSON"),
    ("copy scores to 'x'", UNREADABLE),
    ("(select true)", "a subquery is not allowed"),
    ("exists (from read_text('/etc/passwd'))", "a subquery is not allowed"),
    ("doc_id in (select doc_id from documents)", "a subquery is not allowed"),
    ("score > all (select 1)", "a subquery is not allowed"),
    ("sum(score) over (order by score rows (select 1) preceding) > 1", "a subquery is not allowed"),
    ("*", "a star is not allowed"),
    ("columns('score') > 1", "a star is not allowed"),
    ("judged.*", "a star is not allowed"),
    ("score > $1", "a parameter is not allowed"),
    ("score > ?", "a parameter is not allowed"),
    ("#1 > 1", "a column's place is not allowed"),
    ("default", "`default` is not allowed"),
    ("len(list_filter([1], lambda x: x > 1)) > 0", "a lambda or `->`"),
    ("len([x for x in [1] if x > 1]) > 0", "a lambda or `->`"),
    ("meta -> 'a' is not null", "a lambda or `->` (`->>` and json_extract are) is not allowed"),
    ("random() < 0.5", f"the function 'random' is not allowed: {ALONE}"),
    ("uuid() > doc_id", f"the function 'uuid' is not allowed: {ALONE}"),
    ("now() > '2020-01-01'", f"the function 'now' is not allowed: {ALONE}"),
    ("today() > '2020-01-01'", ALONE),
    ("current_timestamp > '2020-01-01'", "there is no column 'current_timestamp'"),
    ("age(timestamp '2020-01-01') > interval 1 day", ALONE),
    ("ago(interval 1 day) > '2020-01-01'", ALONE),
    ("hash(doc_id) % 2 = 0", ALONE),
    ("setseed(0.5) is null", ALONE),
    ("getenv('HOME') = '/root'", "there is no function 'getenv'"),
    ("current_setting('threads') = '1'", ALONE),
    ("getvariable('budget_tokens') = 1", ALONE),
    ("system.main.getvariable('budget_tokens') = 1", ALONE),
    ("nextval('s') = 1", ALONE),
    ("version() = 'v1'", ALONE),
    ("current_user() = 'duckdb'", ALONE),
    ("pg_sleep(10) is null", ALONE),
    ("sleep_ms(10) is null", ALONE),
    ("write_log('x') is null", ALONE),
    ("error('x')", ALONE),
    ("json_serialize_plan('select 1') is null", ALONE),
    ("list_aggregate([1], 'reservoir_quantile', 0.5) = 1", ALONE),
    ("reservoir_quantile(score, 0.5) over () > 1", ALONE),
    ("length(repeat('x', 1000000000000)) > 1", ALONE),
    ("len(range(1000000000000)) > 1", ALONE),
    ("unnest([true])", "the function 'unnest' is not allowed: it gives a table, not a value"),
    ("read_text('/etc/passwd') is null", "it gives a table, not a value"),
    ("query('select 1') is null", "it gives a table, not a value"),
    ("enable_profiling() is null", "it gives a table, not a value"),
    ("lenght(domain) > 1", "there is no function 'lenght'; did you mean length?"),
    ("percent_rank() between 0.2 and 0.8", "percent_rank is over many rows; say which, e.g. percent_rank(…) over ("),
    ("sum(score) > 1", "sum is over many rows; say which, e.g. sum(…) over (partition by domain"),
    ("count(*) > 1", "count is over many rows"),
    ("sum(sum(score)) over () > 1", "sum is over many rows"),
    ("rank() over w > 1", 'window "w" does not exist'),
    ("sum(sum(score) over ()) over () > 1", "window function calls cannot be nested"),
    ("gzip_ratoi > 0.5", "there is no column 'gzip_ratoi'; did you mean gzip_ratio? There are doc_id, domain, score,"),
    ("scroe > 0.5", "there is no column 'scroe'; did you mean score?"),
    ("rowid > 5", "there is no column 'rowid'"),
    ("text like '%x%'", "there is no column 'text'"),
    ("documents.source = 'x'", "there is no column 'documents'"),
    ("score.x > 1", "Cannot extract field 'x'"),
    ("score", "it gives DOUBLE, not true or false; compare it with something"),
    ("domain", "it gives VARCHAR, not true or false"),
    ("1", "it gives INTEGER, not true or false"),
    ("null", "not true or false"),
    ("domain > 1", "Cannot compare values of type VARCHAR and type INTEGER_LITERAL"),
    ("score > 'high'", "Could not convert string 'high' to DOUBLE"),
    ("score > date '2020-01-01'", "Cannot compare values of type DOUBLE and type DATE"),
    ("domain ~ '('", "missing )"),
    ("score::strange > 1", "Type with name strange does not exist"),
    ("score > 1e999", "a number that is none"),
    ("not " * 2000 + "true", "nested more than 100 levels deep"),
    ("abs(" * 200 + "score" + ")" * 200 + " > 1", "nested more than 100 levels deep"),
    ("score" + " + 1" * 1500 + " > 1", "nested more than 100 levels deep"),
    ("case when true then " * 400 + "true" + " end" * 400, "nested too deeply"),
    ("[" * 4900 + "]" * 4900, "nested more than 100 levels deep"),
    ("meta" + ".a" * 4000 + " = 1", "depth limit"),
    ("true" + " and true" * 1111, "it has 10,003 characters; 10,000 are allowed"),
]


@pytest.mark.parametrize(("where", "message"), REFUSED)
def test_what_is_not_one_harmless_condition_is_refused_in_one_line(where: str, message: str) -> None:
    with pytest.raises(QueryError) as error:
        check_condition(where)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


def test_no_function_that_duckdb_does_not_vouch_for_is_allowed() -> None:
    """By name, whatever its arguments: nor any that gives a table, changes something or looks around."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            "select function_name, list(distinct function_type), bool_and(coalesce(stability, '') = 'CONSISTENT')"
            " from duckdb_functions() group by all order by all"
        ).fetchall()
    plain_names = [(name, kinds, vouched) for name, kinds, vouched in rows if str(name).isidentifier()]
    assert len(plain_names) > 500
    for name, kinds, vouched in plain_names:
        if vouched or not {"macro", "aggregate"}.isdisjoint(kinds):
            continue
        with pytest.raises(QueryError, match="is not allowed"):
            columns_read(f'"{name}"() is null')


def refused(config: dict[str, Any], where: str) -> str:
    with pytest.raises(ValueError, match=r"select\.where") as error:
        RunConfig.model_validate({"sources": "x", **config, "select": {"where": where}})
    return str(error.value)


def test_a_column_that_the_run_does_not_make_is_refused() -> None:
    message = "the column gzip is not measured in this run; add gzip to scorer.beside"
    assert message in refused({}, OLMO3)
    assert message in refused({"scorer": {"beside": {"random": {}}}}, "random < 0.5 and gzip > 0")
    assert "the column order_score comes with a calibration" in refused(
        {"scorer": {"layers": "all"}}, "order_score > 1"
    )
    for config, where in (
        ({"scorer": {"beside": {"gzip": {}}}}, OLMO3),
        ({"scorer": {"layers": "calibrated"}}, "order_score > 1 and dependency_score > 1"),
        ({}, "cds > 1 and score > 1"),
    ):
        RunConfig.model_validate({"sources": "x", **config, "select": {"where": where}})


def test_every_column_that_is_named_can_be_read(tmp_path: Path) -> None:
    where = " and ".join(f'"{name}" is null' for name in known_columns())
    check_condition(where)
    assert columns_read(where) == set(known_columns())


# -- keys and inputs -------------------------------------------------------------------------------------------------

BEFORE = {
    "{}": "bc3da619b765fd6a71956aa0603def780b9c07d6720b805f03b2d478625f5e42",
    '{"budget_tokens": 1000, "max_source_share": 0.2}':
        "b1bbe0d645907ea3a34c4dd87a8f77790c898cb217430a11beff03e0b71153db",
    '{"allocation": "quotas", "quotas": [{"domain": "a", "tokens": 5}]}':
        "be8bad1bd033002a38e93ea41599ca4201b01a6058267d963167d314f0fd1bf8",
    '{"budget_tokens": 100, "replay": {"share": 0.1}}':
        "b789fe24ae5dadad50a6dc5f01353cfe081f8ac15aed8a49a8aba4af766c0a49",
}  # fmt: skip
"""Keys of rankings of one shard by the code before there were conditions (a6abf3d)."""


@pytest.mark.parametrize("select", BEFORE)
def test_without_a_condition_a_rankings_key_is_what_it_was(select: str) -> None:
    def key(**more: Any) -> str:
        config = SelectConfig.model_validate({**json.loads(select), **more}).model_dump()
        shard = Shard(key="k" * 64, path="score/kk/k.parquet", bytes=1, rows=1)
        return STAGE.key(Job(stage="rank", label="x", store="s", config=config, inputs={"scores": [shard]}))

    assert key() == key(where=None) == BEFORE[select]
    assert len({key(), key(where="score > 1"), key(where="score > 2")}) == 3
    assert key(where="score > 1") == key(where=" score > 1\n")


def test_ranking_takes_what_its_condition_reads_and_no_more() -> None:
    def taken(where: str | None) -> set[str]:
        select = {"where": where, "rank_by": "ladm"}
        values = {"sources": "x", "scorer": {"beside": {"gzip": {}}, "layers": "calibrated"}, "select": select}
        config = RunConfig.model_validate(values)
        return {take.role for take in BY_NAME["rank"].takes if take.when(config)} - {"short", "drops", "gates"}

    assert taken(None) == {"scores"}
    assert taken("score > 1 and cds > 1 and order_score > 1 and domain = 'gzip' -- meta") == {"scores"}
    assert taken(OLMO3) == {"scores", "measures"}
    assert taken("Source like '%x' or LINE = 1") == {"scores", "documents"}
    assert taken("meta.gzip = '1'") == {"scores", "documents"}
    assert taken("meta ->> 'a' = 'b' or gzip > 1") == {"scores", "documents", "measures"}


# -- through the command ---------------------------------------------------------------------------------------------


def test_the_command_refuses_before_any_work(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    for where, message in (
        ("(select true)", "ladm: select.where: a subquery is not allowed"),
        ("scroe > 1", "ladm: select.where: there is no column 'scroe'; did you mean score?"),
        ("score", "ladm: select.where: it gives DOUBLE, not true or false"),
        ("gzip > 0.5", "select.where: the column gzip is not measured in this run; add gzip to scorer.beside"),
    ):
        answer = ladm(*run_arguments(corpus, tmp_path / "store", f"select.where={where}"))
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert message in answer.err
    assert not (tmp_path / "store").exists()


def test_a_run_by_olmo_3s_recipe(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"

    def query(text: str) -> Rows:
        rows: Rows = json.loads(ladm("sql", text, "--store", store, "--format", "json").out)
        return rows

    beside = "scorer.beside=[gzip]"
    plain = ladm(*run_arguments(corpus, store, beside)).record
    assert "where" not in plain["config"]["select"]
    assert query("from dropped") == []
    assert not any(name.endswith("not_ranked.parquet") for name in plain["files"])
    answer = ladm(*run_arguments(corpus, store, beside, f"select.where={OLMO3}"))
    assert answer.code == 0, answer.err
    record = answer.record
    assert (record["windows_scored"], record["config"]["select"]["where"]) == (0, OLMO3)
    # percent ranks of four letters: 0, 1/3, 2/3, 1; of three poems: 0, 1/2, 1
    kept = query("""select doc_id from (select doc_id, percent_rank() over (partition by domain order by gzip) as p
                    from scores) where p between 0.2 and 0.8 order by doc_id""")
    assert len(kept) == 3
    assert query("select doc_id from ranking order by doc_id") == kept
    assert record["stages"]["rank"]["dropped"] == {"select.where": 4}
    dropped = query("select d.*, t.source as s, t.line as l from dropped as d join documents as t using (doc_id)")
    assert len(dropped) == 4
    for row in dropped:
        assert (row["reason"], row["windows"], row["source"], row["line"]) == ("select.where", 1, row["s"], row["l"])
        assert (row["twin_id"], row["similarity"], row["distance"]) == (None, None, None)
    folder = store / "runs" / record["run_id"]
    published = pq.read_table(folder / "not_ranked.parquet").to_pylist()
    assert {row["doc_id"] for row in published} == {row["doc_id"] for row in dropped}
    assert f"runs/{record['run_id']}/not_ranked.parquet" in record["files"]
    assert pq.read_table(folder / "allocation.parquet").num_rows == 2
    assert len(query("from allocation")) == 2
    card = (folder / "export" / "README.md").read_text()
    assert "## Scored, and held back from the ranking" in card
    assert "of the documents for which `select.where` holds: percent" in card
    assert ladm("report", "--store", store).code == 0
    again = ladm(*run_arguments(corpus, store, beside, f"select.where={OLMO3}")).record
    assert all(stage["run"] == 0 for stage in again["stages"].values())
    # and back: nothing of the first run was lost
    back = ladm(*run_arguments(corpus, store, beside)).record
    assert all(stage["run"] == 0 for stage in back["stages"].values())


def test_where_and_deduplication_are_told_side_by_side(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store, poems = tmp_path / "store", corpus.folder / "poems.jsonl"
    poems.write_text(poems.read_text() + poems.read_text().splitlines()[0] + "\n")
    where = "source like '%letters%' and (meta ->> '$.meta.license') = 'CC0'"
    answer = ladm(*run_arguments(corpus, store, "deduplicate={near: false}", f"select.where={where}"))
    assert answer.code == 0, answer.err
    text = "select reason, domain, count(*) as n, count(twin_id) as twins from dropped group by all order by all"
    assert json.loads(ladm("sql", text, "--store", store, "--format", "json").out) == [
        {"reason": "exact duplicate", "domain": "Poems", "n": 1, "twins": 1},
        {"reason": "select.where", "domain": "Poems", "n": 3, "twins": 0},
    ]
    folder = store / "runs" / answer.record["run_id"]
    assert pq.read_table(folder / "dropped.parquet").num_rows == 1
    assert pq.read_table(folder / "not_ranked.parquet").num_rows == 3
    # a store that was filled before there were conditions names no such file
    assert ladm(*run_arguments(corpus, tmp_path / "other", "deduplicate={near: false}")).code == 0
    assert len(json.loads(ladm("sql", "from dropped", "--store", tmp_path / "other", "--format", "json").out)) == 1


def test_a_run_that_keeps_nothing_fails_in_one_line(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    answer = ladm(*run_arguments(corpus, tmp_path / "store", "select.where=domain = 'Lettres'"))
    assert answer.code == 1
    (failure,) = answer.record["failures"]
    assert failure["stage"] == "rank"
    assert "select.where: it is true for none of 7 documents, so that nothing is left to rank" in failure["error"]


def test_the_condition_in_words() -> None:
    text = selection_text(SelectConfig(where="score > 1 or domain = 'a_b'").model_dump(), plain)
    assert text.endswith(r"of the documents for which `select.where` holds: score \> 1 or domain = 'a\_b'")
