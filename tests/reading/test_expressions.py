"""`domain` and `keep` of a source as SQL over the record: what they give, what they refuse, and the account of it."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments
from pydantic import ValidationError

from ladm.tasks.reading.expressions import DroppedRecord
from ladm.tasks.reading.readers import BadRecord, Record, SourceConfig, read_records

Cli = Callable[..., Answer]
URL = "split_part(meta.url, '/', 3)"


def read(records: Sequence[Any], **settings: Any) -> list[Any]:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    config = SourceConfig(uri="a.jsonl", **settings)
    return list(read_records(io.BytesIO(lines.encode()), "a.jsonl", config))


def domains(records: Sequence[Any], domain: Any) -> list[str]:
    return [record.domain if isinstance(record, Record) else record.reason for record in read(records, domain=domain)]


def test_a_domain_by_an_expression() -> None:
    records = [
        {"text": "a", "meta": {"url": "https://one.org/x"}},
        {"text": "b", "meta": {"url": "https://two.org/y"}},
        {"text": "c", "meta": {"url": None}},
        {"text": "d", "meta": {}},
        {"text": "e"},
        {"text": "f", "meta": "no object"},
        {"text": "g", "meta": {"url": "no address"}},
    ]
    assert domains(records, URL) == ["one.org", "two.org", *["unknown"] * 5]
    assert domains(records, {"sql": URL}) == domains(records, URL)
    assert domains(records[:2], "upper(text) || '-' || length(text)") == ["A-1", "B-1"]
    assert domains([{"text": "x", "n": 7}, {"text": "x", "n": "seven"}], "n::varchar || '!'") == ["7!", "seven!"]
    assert domains([{"text": "x", "deep": {"a": {"b": ["p", "q"]}}}], "lower(deep.a ->> '$.b[1]')") == ["q"]
    assert domains([{"text": "x", "odd name": "y"}], 'upper("odd name")') == ["Y"]
    assert domains([{"text": "x", "lang": "de"}], "case when lang = 'de' then 'German' else 'other' end") == ["German"]


def test_what_a_record_gives_depends_on_nothing_but_itself() -> None:
    """Records of other types, many of them, bad ones among them: each has what it has alone, in its place."""
    values: list[Any] = [1, "1", 1.5, True, None, {"a": 1}, [1], "text", -(2**63), 2**64, 2**200, ""]
    records = [{"text": f"text {number}", "value": values[number % len(values)]} for number in range(1500)]
    together = domains(records, "coalesce(typeof(value), 'none') || coalesce(value::varchar, '') || text")
    for number in (*range(24), 777, 1499):
        alone = domains([records[number]], "coalesce(typeof(value), 'none') || coalesce(value::varchar, '') || text")
        assert together[number] == alone[0]
    assert len(together) == 1500


def test_a_record_on_which_it_fails_is_quarantined_with_the_reason() -> None:
    records = [
        {"text": "a", "year": "1999"},
        {"text": "b", "year": "n. d."},
        "no object",
        {"text": "c", "year": "2001"},
    ]
    found = read(records, domain="(year::int // 10 * 10)::varchar")
    assert [record.domain for record in found if isinstance(record, Record)] == ["1990", "2000"]
    bad = [record for record in found if isinstance(record, BadRecord)]
    assert [record.line for record in bad] == [2, 3]
    assert bad[0].reason.startswith("sources[].domain fails: Conversion Error")
    assert "\n" not in bad[0].reason
    assert "n. d." in bad[0].excerpt
    assert "not a JSON object" in bad[1].reason
    assert domains(records[:2], "try_cast(year as int)::varchar") == ["1999", "unknown"]


def test_keep_drops_what_it_is_not_true_of() -> None:
    records = [{"text": "x" * size, "lang": lang} for size, lang in ((5, "en"), (5, "de"), (5, None), (1, "en"))]
    found = read(records, keep="lang = 'en' and length(text) > 2", domain="lang")
    assert [type(record) for record in found] == [Record, DroppedRecord, DroppedRecord, DroppedRecord]
    assert [record.reason.split()[-1] for record in found[1:]] == ["false", "null", "false"]
    assert found[0].domain == "en"
    failed = read([{"text": "a", "n": "x"}], keep="n::int > 3")
    assert isinstance(failed[0], BadRecord)
    assert failed[0].reason.startswith("sources[].keep fails")


def test_columns_of_tables_are_records_too(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "meta": [{"url": "x://one/"}, {"url": "x://two/"}], "n": [1, 2]})
    pq.write_table(table, tmp_path / "a.parquet")
    config = SourceConfig(uri="a.parquet", domain=URL, keep="n > 1")
    with (tmp_path / "a.parquet").open("rb") as file:
        found = list(read_records(file, "a.parquet", config))
    assert isinstance(found[0], DroppedRecord)
    assert found[1].domain == "two"


def test_numbers_of_tables_that_are_none_are_asked_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    q = [float("nan"), 1.0, float("-inf"), None]
    pq.write_table(pa.table({"text": ["a", "b", "c", "d"], "q": q, "d": ["x", "x", "NaN", "y"]}), path)

    def found(**settings: Any) -> list[Any]:
        with path.open("rb") as file:
            return list(read_records(file, path.name, SourceConfig(uri=str(path), **settings)))

    kept = found(keep="q > 0.5")
    assert [type(one) for one in kept] == [Record, Record, DroppedRecord, DroppedRecord]
    assert [one.meta for one in kept[:2]] == ['{"q":"NaN","d":"x"}', '{"q":1.0,"d":"x"}']
    assert [one.domain for one in found(domain="case when isnan(q) then 'none' else 'some' end")] == [
        *("none", "some", "some", "some")
    ]
    assert [one.domain for one in found(domain="q")] == ["unknown", "1.0", "-Infinity", "unknown"]
    (bad, *_) = found(keep="q.x > 0.5 and upper(text)")
    assert isinstance(bad, BadRecord)


def test_a_text_file_has_its_text() -> None:
    config = SourceConfig(uri="a.txt", domain="case when text ilike '%chapter%' then 'books' else 'notes' end")
    found = list(read_records(io.BytesIO(b"Chapter 1"), "a.txt", config))
    assert [record.domain for record in found if isinstance(record, Record)] == ["books"]


@pytest.mark.parametrize(
    ("setting", "sql", "said"),
    [
        ("domain", "split_part(meta.url, '/'", "cannot be read"),
        ("domain", "(select 'x')", "a subquery is not allowed"),
        ("domain", "random()::varchar || 'x'", "'random' is not allowed"),
        ("domain", "upper(domain) from t where ('x' = 'x')", "not one expression"),
        ("domain", "max(text)", "max is over many rows"),
        ("domain", "max(text) over ()", "a window function is not allowed"),
        ("domain", "no_such_function(text)", "there is no function 'no_such_function'"),
        ("domain", "read_text('/etc/passwd')", "not allowed"),
        ("domain", "upper(text, 'a', 3)", "it cannot be asked"),
        ("domain", "upper(Lang) || lower(lang)", "written in two ways"),
        ("keep", "length(text)", "it gives BIGINT, not true or false"),
        ("keep", "text", "it gives VARCHAR, not true or false"),
        ("keep", "true; drop table x", "cannot be read"),
    ],
)
def test_what_is_not_one_harmless_expression_is_refused(setting: str, sql: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SourceConfig(uri="a", **{setting: sql})


def test_a_path_is_still_a_path() -> None:
    for path in ("meta.pile_set_name", "domain", "set name", "a-b.c"):
        assert SourceConfig(uri="a", domain=path).domain == path


def test_a_run_accounts_for_every_record(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    records = [{"text": "word " * 300, "meta": {"url": f"https://{host}/x"}} for host in ("one", "two", "one", "three")]
    lines = [
        *(json.dumps(record) for record in records),
        json.dumps({"text": "bad", "meta": {"url": 5, "n": "x"}}),
        "{no",
    ]
    for name in ("a.jsonl", "b.jsonl"):
        (corpus.folder / name).write_text("\n".join(lines) + "\n")
    source = f"{{uri: '{corpus.folder}/[ab].jsonl', domain: {json.dumps(URL)}, keep: \"meta.url not like '%three%'\"}}"
    store = tmp_path / "store"
    arguments = run_arguments(corpus, store, f"sources=[{source}]")
    done = ladm(*arguments)
    assert done.code == 0, done.err
    stage = done.record["stages"]["ingest"]
    assert (stage["in"], stage["kept"], stage["quarantined"]) == (12, 8, 2)
    assert stage["dropped"] == {"sources[].keep is false": 2}
    rows = json.loads(ladm("sql", "select domain from documents", "--store", store, "--format", "json").out)
    assert Counter(row["domain"] for row in rows) == {"one": 4, "two": 2, "unknown": 2}
    again = ladm(*arguments).record
    assert all(one["run"] == 0 for one in again["stages"].values())
    other = ladm(*run_arguments(corpus, store, f"sources=[{source.replace('three', 'two')}]")).record
    assert other["stages"]["ingest"]["dropped"] == {"sources[].keep is false": 2}
    assert other["stages"]["ingest"]["run"] > 0


def test_fields_that_no_record_has_are_refused_before_any_work(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    source = f"{{uri: {corpus.folder}, domain: \"split_part(mata.url, '/', 3)\"}}"
    done = ladm(*run_arguments(corpus, tmp_path / "store", f"sources=[{source}]"))
    assert done.code == 2
    assert "sources[0].domain: 'mata' is in none of" in done.err
    assert "did you mean 'meta'" in done.err
