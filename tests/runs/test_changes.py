"""What a run tells about its difference to the previous one: exact files, documents and windows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Answer, Corpus, run_arguments, write_jsonl

from ladm.flows.runs.changes import changed_files, difference, in_words, lost_more_than
from ladm.flows.runs.read import latest_run_id, read_record
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]


def job(stage: str, uri: str, keys: str, kept: int, quarantined: int = 0) -> dict[str, Any]:
    shards = [{"key": key} for key in keys.split()]
    return {"stage": stage, "source": uri, "shards": shards, "kept": kept, "quarantined": quarantined, "windows": kept}


def record(run_id: str, *files: tuple[str, str, str, int, int], stages: str = "ingest tokenize score") -> Any:
    """A `run.json` of files: name, version, keys of document shards ("-": not ingested), documents, windows."""
    jobs = []
    for uri, _, keys, documents, windows in files:
        if keys != "-":
            jobs.append(job("ingest", uri, keys, documents))
            jobs += [job(stage, uri, keys, windows) for stage in stages.split()[1:]]
    sources = [{"uri": uri, "size": 1, "version": version} for uri, version, *_ in files]
    return {"run_id": run_id, "stages": dict.fromkeys(stages.split()), "sources": sources, "shards": jobs}


BEFORE = record("one", ("a", "1", "k1 k2", 10, 7), ("b", "1", "k3", 4, 3), ("c", "1", "k4", 2, 1))


def counts(found: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    return {
        change: (found[change]["files"], found[change]["documents"], found[change]["windows"])
        for change in ("added", "changed", "removed", "unchanged")
    }


def test_each_kind_of_change() -> None:
    now = record("two", ("a", "1", "k1 k5", 11, 8), ("c", "2", "k4", 2, 1), ("d", "1", "k6", 5, 0))
    found = difference(BEFORE, now)
    assert counts(found) == {"added": (1, 5, 0), "changed": (1, 11, 8), "removed": (1, 4, 3), "unchanged": (1, 2, 1)}
    assert (found["changed"]["documents_before"], found["changed"]["windows_before"]) == (10, 7)
    assert {change: found[change]["uris"] for change in ("added", "changed", "removed")} == {
        "added": ["d"], "changed": ["a"], "removed": ["b"],
    }  # fmt: skip
    assert "uris" not in found["unchanged"]
    assert changed_files(BEFORE, now) == {change: found[change]["uris"] for change in ("added", "changed", "removed")}
    assert in_words(found) == (
        "files since run one: 1 added (5 documents, 0 windows), 1 changed (11 documents, 8 windows; before: 10 and 7), "
        "1 removed (4 documents, 3 windows), 1 unchanged (2 documents, 1 windows)"
    )


def test_a_new_date_is_no_change_and_another_quarantine_is() -> None:
    touched = record("two", ("a", "2", "k1 k2", 10, 7), ("b", "1", "k3", 4, 3), ("c", "1", "k4", 2, 1))
    assert counts(difference(BEFORE, touched))["unchanged"] == (3, 16, 11)
    next(one for one in touched["shards"] if one["source"] == "b")["quarantined"] = 1
    assert difference(BEFORE, touched)["changed"]["uris"] == ["b"]


def test_a_file_that_failed_goes_by_its_date() -> None:
    now = record("two", ("a", "1", "-", 0, 0), ("b", "2", "-", 0, 0), ("c", "1", "k4", 2, 1))
    found = difference(BEFORE, now)
    assert counts(found) == {"added": (0, 0, 0), "changed": (1, 0, 0), "removed": (0, 0, 0), "unchanged": (2, 2, 1)}
    assert found["changed"]["uris"] == ["b"]


def test_a_run_that_ends_before_scoring_counts_the_windows_that_were_cut() -> None:
    now = record("two", ("a", "1", "k1 k2", 10, 7), ("e", "1", "k9", 6, 9), stages="ingest tokenize")
    assert counts(difference(BEFORE, now))["added"] == (1, 6, 9)


def test_runs_of_changing_files_and_the_previous_one_stays_readable(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    write_jsonl(corpus.folder / "essays.jsonl", "Essays", 3, [320, 420])
    first = ladm(*run_arguments(corpus, store)).record
    assert first["refresh"] is None

    write_jsonl(corpus.folder / "notes.jsonl", "Notes", 4, [330, 7])
    write_jsonl(corpus.folder / "poems.jsonl", "Poems", 5, [350, 450])
    (corpus.folder / "letters.jsonl").unlink()
    os.utime(corpus.folder / "essays.jsonl", ns=(1, 1))
    second = ladm(*run_arguments(corpus, store)).record
    refresh = second["refresh"]
    assert refresh["previous"] == first["run_id"]
    assert counts(refresh) == {"added": (1, 2, 1), "changed": (1, 2, 2), "removed": (1, 5, 4), "unchanged": (1, 2, 2)}
    assert (refresh["changed"]["documents_before"], refresh["changed"]["windows_before"]) == (4, 3)
    assert second["windows_scored"] == refresh["added"]["windows"] + refresh["changed"]["windows"]
    assert read_record(Store(str(store)), second["run_id"]) == second

    # the report says the same of every file
    assert ladm("report", "--store", store).code == 0
    page = (store / "runs" / second["run_id"] / "report.html").read_text()
    table = page.split('id="changed-sources-table"')[1].split("</table>")[0]
    listed = {name: change for change, name in re.findall(r">(\w+)</td>\s*<td[^>]*>[^<]*?(\w+)\.jsonl</td>", table)}
    assert listed == {"notes": "added", "poems": "changed", "letters": "removed"}
    assert "Source files: 1 added, 1 changed, 1 removed." in page

    # the printed summary says it, too
    arguments = [argument for argument in run_arguments(corpus, store) if argument != "--json"]
    (corpus.folder / "essays.jsonl").unlink()
    told = ladm(*arguments).out
    assert f"files since run {second['run_id']}: 0 added, 0 changed, 1 removed (2 documents, 2 windows)" in told

    query = "select domain, count(*) as n from scores group by 1 order by 1"
    before = ladm("sql", query, "--store", store, "--run", first["run_id"], "--format", "json")
    assert json.loads(before.out) == [
        {"domain": "Essays", "n": 2}, {"domain": "Letters", "n": 4}, {"domain": "Poems", "n": 3},
    ]  # fmt: skip


def test_how_much_is_gone() -> None:
    gone = difference(BEFORE, record("two", ("c", "1", "k4", 2, 1), ("d", "1", "k6", 5, 0)))  # 2 of 3, 14 of 16
    assert lost_more_than(1, gone) is None
    assert lost_more_than(0.9, gone) is None
    by_documents = lost_more_than(0.7, gone)
    assert by_documents is not None
    assert by_documents.startswith(
        "14 of the 16 documents of run one are gone, more than max_removed (0.7) allows: a, b;"
    )
    by_files = lost_more_than(0.5, gone)
    assert by_files is not None
    assert by_files.startswith("2 of the 3 files of run one are gone, more than max_removed (0.5) allows: a, b; bring")
    emptied = difference(
        BEFORE, record("two", ("a", "2", "k9", 1, 0), *[("b", "1", "k3", 4, 3), ("c", "1", "k4", 2, 1)])
    )
    assert lost_more_than(0.6, emptied) is None
    assert "9 of the 16 documents of run one are gone" in str(lost_more_than(0.5, emptied))
    assert lost_more_than(0, difference(BEFORE, BEFORE)) is None


def test_a_run_whose_sources_vanished_fails_before_it_ranks(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    for number in range(4):
        write_jsonl(corpus.folder / f"more-{number}.jsonl", "More", number, [300])
    store = tmp_path / "store"
    limited = run_arguments(corpus, store, "max_removed=0.2")
    first = ladm(*limited)
    assert first.code == 0, first.err
    for path in sorted(corpus.folder.glob("*.jsonl"))[1:]:
        path.unlink()
    second = ladm(*limited)
    assert second.code == 1
    (failure,) = second.record["failures"]
    assert "5 of the 6 files of run" in failure["error"]
    assert "more than max_removed (0.2) allows" in failure["error"]
    assert second.record["stages"]["rank"]["run"] == 0
    assert latest_run_id(Store(str(store))) == first.record["run_id"]
    meant = ladm(*run_arguments(corpus, store, "max_removed=1"))
    assert meant.code == 0, meant.err
    assert "max_removed" not in ladm(*run_arguments(corpus, store)).record["config"]
