"""`ladm report`: the page says what the run record and the store say, and nothing from the data is more than text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl
from report_corpus import HOSTILE_DOMAIN, HOSTILE_TITLE, REPORTED, second_run

from ladm.flows.report.cells import shown, sortable
from ladm.flows.report.heatmaps import stored_heatmaps
from ladm.flows.report.sentences import duration
from ladm.flows.runs.settings import setting_changes
from ladm.tasks.redact import without_secrets
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]


class Page(HTMLParser):
    """What a browser would make of the page: its elements, and the cells of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[dict[str, str]]] = {}
        self.text: dict[str, list[str]] = {}
        self._table = ""
        self._row: list[str] = []
        self._columns: list[str] = []
        self._in_cell = False
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self._table = dict(attrs)["id"] or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self._row = []
        elif tag in ("th", "td"):
            self._row.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._in_cell = False
        elif tag == "thead":
            self._columns = self._row
        elif tag == "tr" and self._columns and len(self._row) == len(self._columns) and "tbody" in self._open:
            self.tables[self._table].append(dict(zip(self._columns, self._row, strict=True)))
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag == "table":
            self._columns = []

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._row[-1] += data
        self.text.setdefault(self._open[-1] if self._open else "", []).append(data)


def page_of(store: Path, run_id: str) -> Page:
    return Page((store / "runs" / run_id / "report.html").read_text(encoding="utf-8"))


def number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture
def reported(place: Path, corpus: Corpus, ladm: Cli) -> REPORTED:
    """Two runs, the second of other sources, and the second one's report with heatmaps (made once)."""
    if not (place / "made.json").exists():
        records = second_run(place, corpus, ladm)
        answer = ladm("report", "--store", place / "store", "--heatmaps", "1")
        assert answer.code == 0, answer.err
        path = place / "store" / "runs" / records[1]["run_id"] / "report.html"
        assert answer.out.strip() == str(path)
        (place / "made.json").write_text(json.dumps(records))
    first, second = json.loads((place / "made.json").read_text())
    return place / "store", first, second


def test_the_page_says_what_the_run_record_says(reported: REPORTED) -> None:
    store, _, record = reported
    page = page_of(store, record["run_id"])
    stages = record["stages"]
    assert [row["stage"] for row in page.tables["funnel-table"]] == list(stages)
    for row in page.tables["funnel-table"]:
        summary = stages[row["stage"]]
        assert number(row["in"]) == summary["in"]
        assert number(row["kept"]) == summary["kept"]
        assert number(row["dropped"]) == sum(summary["dropped"].values())
        assert number(row["quarantined"]) == summary["quarantined"]
        for reason, count in summary["dropped"].items():
            assert f"{count:,} {reason}" in row["dropped because"]
    by_stage = {row["stage"]: row for row in page.tables["funnel-table"]}
    assert number(by_stage["tokenize"]["passed on"]) == stages["tokenize"]["windows"]
    assert number(by_stage["tokenize"]["tokens out"]) == stages["tokenize"]["tokens"]
    assert by_stage["score"]["tokens in"] == by_stage["tokenize"]["tokens out"]
    assert number(by_stage["export"]["tokens out"]) == stages["rank"]["selected_tokens"]
    facts = "".join(page.text["dd"])
    assert f"{stages['rank']['selected_documents']} of {stages['rank']['documents']}" in facts
    for row in page.tables["work-table"]:
        assert number(row["jobs run"]) == stages[row["stage"]]["run"]
        assert number(row["found in the store"]) == stages[row["stage"]]["cached"]
    (entry,) = pq.read_table(store / "runs" / record["run_id"] / "quarantine.parquet").to_pylist()
    (row,) = page.tables["quarantine-table"]
    assert (row["reason"], row["records"]) == (entry["reason"], "1")
    assert row["first at"] == f"{entry['source']}:{entry['line']}"
    assert "<i>" in row["excerpt"]


def test_documents_scores_and_allocation_are_the_rankings(reported: REPORTED) -> None:
    store, _, record = reported
    page = page_of(store, record["run_id"])
    folder = store / "runs" / record["run_id"]
    ranking = pq.read_table(folder / "ranking.parquet").to_pylist()
    listed = [(row["domain"], number(row["rank"]), row["selected"]) for row in page.tables["documents-table"]]
    assert listed == [(row["domain"], row["rank"], "yes" if row["selected"] else "no") for row in ranking]
    for shown_row, row in zip(page.tables["documents-table"], ranking, strict=True):
        assert number(shown_row["score"]) == pytest.approx(row["score"], rel=1e-3)
    for row in page.tables["domains-table"]:
        scores = [one["score"] for one in ranking if one["domain"] == row["domain"] and one["selected"]]
        assert (number(row["cut"]) if scores else row["cut"]) == (
            pytest.approx(min(scores), rel=1e-3) if scores else "–"
        )
    targets = {row["domain"]: row for row in pq.read_table(folder / "allocation.parquet").to_pylist()}
    assert len(page.tables["allocation-table"]) == len(targets)
    for row in page.tables["allocation-table"]:
        assert number(row["target"]) == targets[row["domain"]]["target_tokens"]
        assert number(row["tokens selected"]) == targets[row["domain"]]["selected_tokens"]


def test_the_difference_from_the_previous_run(reported: REPORTED) -> None:
    store, first, second = reported
    page = page_of(store, second["run_id"])
    changed = {(row["change"], Path(row["file"]).name) for row in page.tables["changed-sources-table"]}
    assert changed == {("added", "hostile <b>.jsonl"), ("changed", "poems.jsonl"), ("removed", "letters.jsonl")}
    settings = {row["setting"]: (row["before"], row["now"]) for row in page.tables["changed-settings-table"]}
    assert settings == {"select.budget_tokens": ("2000", "6000")}

    def texts(record: dict[str, Any]) -> set[str]:
        exported = pq.read_table(
            store / "runs" / record["run_id"] / "export" / "parquet" / "train-00000-of-00001.parquet"
        )
        return {str(text) for text in exported["text"].to_pylist()}

    before, now = texts(first), texts(second)
    rows = page.tables["changed-domains-table"]
    counted = [sum(number(row[name]) for row in rows) for name in ("entered", "left", "stayed")]
    assert counted == [len(now - before), len(before - now), len(now & before)]
    assert min(counted) > 0
    documents = [row["change"] for row in page.tables["changed-documents-table"]]
    assert (documents.count("entered"), documents.count("left")) == (len(now - before), len(before - now))


def test_what_came_from_the_data_is_text(reported: REPORTED) -> None:
    store, _, record = reported
    html = (store / "runs" / record["run_id"] / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert {"b", "iframe", "object", "audio"}.isdisjoint(tags)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    hostile = [row for row in page.tables["documents-table"] if row["domain"] == HOSTILE_DOMAIN]
    assert hostile
    assert all(row["title"] == HOSTILE_TITLE for row in hostile)
    assert all(row["excerpt"].startswith("</script><script>") for row in hostile)
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_nothing_in_the_page_asks_for_anything_else(reported: REPORTED) -> None:
    store, _, record = reported
    page = page_of(store, record["run_id"])
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "data:")), (tag, name, address)
    css = "".join(page.text["style"])
    assert "url(" not in css
    assert "@import" not in css
    (policy,) = [a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    pictures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    domains = len(page.tables["domains-table"])
    assert len(pictures) == 3 + domains + len(stored_heatmaps(Store(str(store)), record["run_id"]))
    assert (
        re.search(r"fill: #0101|stroke: #0101", (store / "runs" / record["run_id"] / "report.html").read_text()) is None
    )


def test_heatmaps_are_the_models_attention_and_are_measured_once(
    reported: REPORTED, tiny_model: Path, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.flows.report import heatmaps
    from ladm.tasks.scorers.calculator import load_calculator
    from ladm.tasks.scorers.ladm import LadmConfig
    from ladm.tasks.scorers.window_scores import span_attention

    store, _, record = reported
    pictures = stored_heatmaps(Store(str(store)), record["run_id"])
    ranking = pq.read_table(store / "runs" / record["run_id"] / "ranking.parquet").to_pylist()
    ends = {row["doc_id"] for row in ranking if row["rank"] in (1, row["domain_documents"])}
    assert {one.window_id.split(":")[0] for one in pictures} == ends

    config = LadmConfig.model_validate({"span": 16, "d_afs": 2, "d_cds": 2, "device": "cpu", "dtype": "float32"})
    calculator = load_calculator(tiny_model, config)
    windows = {
        row["window_id"]: row["input_ids"]
        for path in store.glob("tokenize/*/*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    one = pictures[0]
    expected = span_attention(calculator, config, np.array(windows[one.window_id]))
    np.testing.assert_allclose(one.pfs, expected, rtol=1e-5)
    assert (one.span, one.layers) == (16, [0, 1])

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model is loaded again")

    monkeypatch.setattr(heatmaps, "calculator_for", refuse)
    assert ladm("report", "--store", store, "--heatmaps", "1").code == 0
    assert ladm("report", "--store", store).code == 0
    assert len([tag for tag, a in page_of(store, record["run_id"]).elements if tag == "svg"]) > len(pictures) + 3


def test_the_first_run_a_partial_and_a_failed_one(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    partial = ladm(*run_arguments(corpus, store), "--until", "tokenize").record
    out = tmp_path / "partial.html"
    answer = ladm("report", "--store", store, "--run", partial["run_id"], "--out", out)
    assert (answer.code, answer.out.strip()) == (0, str(out)), answer.err
    assert not (store / "runs" / partial["run_id"] / "report.html").exists()
    page = Page(out.read_text(encoding="utf-8"))
    assert [row["stage"] for row in page.tables["funnel-table"]] == ["ingest", "length", "tokenize"]
    assert "documents-table" not in page.tables
    assert "There is no earlier ranking" in "".join(page.text["p"])
    refused = ladm("report", "--store", store, "--run", partial["run_id"], "--heatmaps", "1")
    assert (refused.code, refused.err.count("\n")) == (2, 1)

    for file in corpus.folder.iterdir():
        file.unlink()
    write_jsonl(corpus.folder / "short.jsonl", "Letters", 3, [5, 6])
    failed = ladm(*run_arguments(corpus, store))
    assert failed.code == 1
    answer = ladm("report", "--store", store, "--run", failed.record["run_id"], "--out", out)
    assert answer.code == 0, answer.err
    (row,) = Page(out.read_text(encoding="utf-8")).tables["failures-table"]
    assert row["error"] == failed.record["failures"][0]["error"]


def test_refused_in_one_line(tmp_path: Path, reported: REPORTED, ladm: Cli) -> None:
    store, *_ = reported
    cases: list[tuple[list[object], str]] = [
        (["--store", tmp_path / "nothing"], "there is no run"),
        (["--store", store, "--run", "20200101T000000-00000000"], "--run"),
        (["--store", store, "--out", tmp_path / "no" / "such.html"], "--out"),
        (["--store", store, "--heatmaps", "11"], "--heatmaps"),
        (["--store", store, "--heatmaps", "-1"], "--heatmaps"),
    ]
    for arguments, line in cases:
        answer = ladm("report", *arguments)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), (arguments, answer)
        assert line in answer.err


def test_heatmaps_of_another_model_are_refused(tmp_path: Path, reported: REPORTED, ladm: Cli) -> None:
    import shutil

    store, _, record = reported
    copied = tmp_path / "store"
    shutil.copytree(store, copied)
    path = copied / "runs" / record["run_id"] / "run.json"
    other = json.loads(path.read_text())
    other["model"]["digest"] = "0" * 64
    path.write_text(json.dumps(other))
    answer = ladm("report", "--store", copied, "--heatmaps", "2")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert "another model" in answer.err


def test_documents_that_are_gone_are_told(tmp_path: Path, reported: REPORTED, ladm: Cli) -> None:
    import shutil

    store, first, second = reported
    copied = tmp_path / "store"
    shutil.copytree(store, copied)
    kept = {shard["path"] for job in second["shards"] for shard in job["shards"]}
    gone = [
        s["path"] for job in first["shards"] if job["stage"] == "ingest" for s in job["shards"] if s["path"] not in kept
    ]
    assert gone
    for path in gone:
        (copied / path).unlink()
    answer = ladm("report", "--store", copied)
    assert answer.code == 0, answer.err
    page = page_of(copied, second["run_id"])
    assert "gone from the store" in "".join(page.text["p"])
    assert "changed-domains-table" not in page.tables
    assert page.tables["changed-sources-table"]


@pytest.mark.parametrize("domains", [{"Letters"}, {"Letters", "Poems"}])
def test_documents_without_a_score_are_told(tmp_path: Path, corpus: Corpus, ladm: Cli, domains: set[str]) -> None:
    """As a store has them that was filled before this was refused."""
    record = ladm(*run_arguments(corpus, tmp_path)).record
    (ranking,) = (job["shards"][0]["path"] for job in record["shards"] if job["stage"] == "rank")
    table = pq.read_table(tmp_path / ranking)
    rows = [row | ({"score": None} if row["domain"] in domains else {}) for row in table.to_pylist()]
    (tmp_path / ranking).unlink()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / ranking)
    answer = ladm("report", "--store", tmp_path)
    assert (answer.code, answer.err) == (0, "")
    page = page_of(tmp_path, record["run_id"])
    assert {row["domain"] for row in page.tables["domains-table"] if row["median"] == "–"} == domains
    charts = [one["aria-label"] or "" for tag, one in page.elements if tag == "svg"]
    assert sum(": scores of " in one for one in charts) == 2 - len(domains)


def test_secrets_in_uris_are_left_out() -> None:
    given = {
        "sources": [{"uri": "https://user:hunter2@host/a.jsonl?X-Amz-Signature=abc&part=1&token=t0p"}],
        "store": "s3://bucket/prefix",
        "budget_tokens": 5,
    }
    text = json.dumps(without_secrets(given))
    for secret in ("hunter2", "abc", "t0p", "user"):
        assert secret not in text
    assert "part=1" in text
    assert without_secrets("s3://bucket/prefix/a@b.jsonl") == "s3://bucket/prefix/a@b.jsonl"
    assert without_secrets(given["store"]) == given["store"]


def test_differences_of_settings() -> None:
    before, now = {"a": {"b": 1, "c": [1]}, "d": None}, {"a": {"b": 2, "c": [1]}, "e": {}}
    assert setting_changes(before, now) == [["a.b", "1", "2"], ["d", "null", "not set"], ["e", "not set", "{}"]]


@pytest.mark.parametrize(
    ("cell", "text", "order"),
    [
        (None, "–", ""),
        (True, "yes", "yes"),
        (1234567, "1,234,567", "1234567"),
        (0.000123456, "0.0001235", "0.000123456"),
        (12345.6, "12,346", "12345.6"),
        (float("inf"), "inf", "inf"),
        ("a\x1b[31m\nb", "a\\x1b[31m\nb", "a\\x1b[31m\nb"),
    ],
)
def test_cells(cell: object, text: str, order: str) -> None:
    assert (shown(cell), sortable(cell)) == (text, order)


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.25, 61, 3720)] == ["0.2 s", "1 min 1 s", "1 h 2 min"]


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    record = ladm(*run_arguments(corpus, store), "--until", "ingest").record
    (store / "runs" / record["run_id"] / "report.html").mkdir()
    for more, field in (([], "--store"), (["--out", tmp_path], "--out"), (["--out", "/proc/x.html"], "--out")):
        answer = ladm("report", "--store", store, *more)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.splitlines()[-1].startswith(f"ladm: {field}: ")
        assert "cannot be written" in answer.err
