"""The run records: split in the store, whole to whoever reads them, of any size, of this version and earlier ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.runs.read import (
    NEEDED,
    SCHEMA,
    latest_record,
    latest_run_id,
    name_latest,
    read_record,
    record_files,
    run_ids,
    write_record,
)
from ladm.tasks.errors import RecordError
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
MIB = 2**20
LATER = ("made_again", "refresh", "config_sha256", "quarantined")
"""What records did not have from the first one on."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "store"


@pytest.fixture
def filled(made: Path, corpus: Corpus, ladm: Cli, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A copy of a store with a run, another after a file changed, and a failed one; and what they printed."""
    if not made.exists():
        records = [ladm(*run_arguments(corpus, made)).record]
        (corpus.folder / "poems.jsonl").write_text((corpus.folder / "letters.jsonl").read_text() + "not JSON\n")
        records.append(ladm(*run_arguments(corpus, made)).record)
        (corpus.folder / "letters.jsonl").unlink()
        records.append(ladm(*run_arguments(corpus, made, "max_quarantined=0.0001")).record)
        (made / "records.json").write_text(json.dumps(records))
    store = tmp_path / "copy"
    shutil.copytree(made, store)
    return store, json.loads((store / "records.json").read_text())


def as_before(record: dict[str, Any], store: Path, **more: Any) -> Path:
    """Put a run's record into the form that it had before it was split."""
    folder = store / "runs" / record["run_id"]
    for path in record_files(record["run_id"]):
        (store / path).unlink()
    (folder / "run.json").write_bytes(orjson.dumps({**record, **more}, option=orjson.OPT_INDENT_2))
    return folder / "run.json"


def large(record: dict[str, Any], files: int, **more: Any) -> dict[str, Any]:
    """The record of a run over so many files more."""
    uris = [f"s3://bucket/a/prefix/of/some/length/part-{number:06d}.jsonl.zst" for number in range(files)]
    job = next(job for job in record["shards"] if job["stage"] == "ingest")
    sources = [{**record["sources"][0], "uri": uri, "size": 1, "version": "1"} for uri in uris]
    failures = [{"stage": "ingest", "shard": "x", "source": uri, "error": "OSError: gone"} for uri in uris]
    return {
        **record,
        "sources": [*record["sources"], *sources],
        "shards": [*record["shards"], *({**job, "source": uri, "shards": []} for uri in uris)],
        "failures": failures,
        "files": [*record["files"], *uris],
        "made_again": uris,
        "refresh": {
            "previous": "20200101T000000-00000000",
            **{
                change: {"files": files, "documents": 1, "windows": 1, "uris": uris}
                for change in ("added", "changed", "removed")
            },
            "unchanged": {"files": 1, "documents": 1, "windows": 1},
        },
        **more,
    }


def rows(answer: Answer) -> list[dict[str, Any]]:
    assert answer.code == 0, answer.err
    found: list[dict[str, Any]] = json.loads(answer.out)
    return found


def refused(answer: Answer, *said: str) -> None:
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert all(part in answer.err for part in said), answer.err


def test_what_is_stored_is_split_and_is_read_back_whole(filled: tuple[Path, list[dict[str, Any]]]) -> None:
    path, records = filled
    store = Store(str(path))
    assert [record["status"] for record in records] == ["completed", "completed", "failed"]
    assert records[1]["refresh"]["changed"]["uris"]
    assert run_ids(store) == [record["run_id"] for record in records]
    assert latest_run_id(store) == records[1]["run_id"]
    assert latest_record(store) == records[1]
    for record in records:
        assert read_record(store, record["run_id"]) == record
        assert set(record_files(record["run_id"])) <= set(record["files"])
        summary = json.loads((path / "runs" / record["run_id"] / "run.json").read_text())
        assert summary["schema"] == SCHEMA
        assert not {"shards", "sources", "files", "made_again"} & set(summary)
        assert "uris" not in json.dumps(summary)
        assert summary["stages"] == record["stages"]


@pytest.mark.parametrize("form", ["local", "memory"])
def test_the_summary_does_not_grow_with_the_number_of_files(
    filled: tuple[Path, list[dict[str, Any]]], form: str, ladm: Cli
) -> None:
    path, records = filled
    store = Store(str(path) if form == "local" else "memory://large-records")
    record = large(records[1], 20_000)
    write_record(store, record)
    name_latest(store, record["run_id"])
    summary = store.size(f"runs/{record['run_id']}/run.json")
    assert summary is not None
    assert summary < 100_000
    assert read_record(store, record["run_id"]) == record == latest_record(store)
    if form == "local":
        query = "select status, json_array_length(failures) as shown from runs order by run_id"
        assert [row["shown"] for row in rows(ladm("sql", query, "--store", path, "--format", "json"))] == [0, 100, 1]


def test_records_of_before_however_large_and_new_ones_in_one_store(
    filled: tuple[Path, list[dict[str, Any]]], ladm: Cli
) -> None:
    path, records = filled
    query = "select * from runs order by run_id"
    told = rows(ladm("sql", query, "--store", path, "--format", "json"))
    assert [row["run_id"] for row in told] == [record["run_id"] for record in records]

    old = as_before(large(records[1], 40_000, failures=[], made_again=[], refresh=None), path)
    assert old.stat().st_size > 20 * MIB
    as_before(records[0], path)
    assert rows(ladm("sql", query, "--store", path, "--format", "json")) == told
    for record in records[:2]:
        run = ("--run", record["run_id"], "--store", path)
        (row,) = rows(ladm("sql", "select count(*) as n from scores", *run, "--format", "json"))
        assert row["n"] == record["stages"]["score"]["kept"]
        assert ladm("report", *run).code == 0
    assert latest_record(Store(str(path))) == json.loads(old.read_text())
    assert ladm("gc", "--keep", 2, "--store", path).code == 0


def test_a_run_after_one_of_before(corpus: Corpus, tmp_path: Path, ladm: Cli) -> None:
    store = tmp_path / "store"
    first = ladm(*run_arguments(corpus, store)).record
    as_before(first, store)
    second = ladm(*run_arguments(corpus, store)).record
    assert second["windows_scored"] == 0
    assert second["refresh"]["previous"] == first["run_id"]
    assert second["refresh"]["unchanged"]["files"] == 2


def test_what_came_later_is_not_missed_in_an_older_record(filled: tuple[Path, list[dict[str, Any]]], ladm: Cli) -> None:
    """A record as the very first version wrote it, of a run with the settings that there were."""
    path, records = filled
    for record in (records[1], records[2]):
        old = {name: value for name, value in record.items() if name not in LATER}
        old["failures"] = [{name: one[name] for name in ("stage", "shard", "error")} for one in record["failures"]]
        select = record["config"]["select"]
        settings = {name: record["config"][name] for name in ("store", "sources", "window", "scorer", "export")}
        old["config"] = {**settings, "select": {"budget_tokens": select["budget_tokens"], "allocation": "proportional"}}
        del old["config"]["scorer"]["beside"]
        old["shards"] = [
            {**job, "shards": [{n: v for n, v in shard.items() if n != "sha256"} for shard in job["shards"]]}
            for job in record["shards"]
        ]
        as_before(old, path)
        for name in LATER:  # not with what `as_before` was given
            assert name not in json.loads((path / "runs" / record["run_id"] / "run.json").read_text())
        answer = ladm("report", "--run", record["run_id"], "--store", path)
        assert answer.code == 0, answer.err
        assert ladm("sql", "from scores", "--run", record["run_id"], "--store", path).code == 0
    whole = read_record(Store(str(path)), records[2]["run_id"])
    assert whole["failures"][0]["source"] == ""
    assert whole["quarantined"]["records"] == records[2]["quarantined"]["records"]
    assert whole["config"]["select"] == records[2]["config"]["select"] | {"budget_tokens": 2000}
    assert ladm("gc", "--keep", 1, "--store", path).code == 0


def test_what_is_newer_or_lacks_what_is_needed_is_refused_in_one_line(
    filled: tuple[Path, list[dict[str, Any]]], corpus: Corpus, ladm: Cli
) -> None:
    path, records = filled
    run = records[1]["run_id"]
    summary = path / "runs" / run / "run.json"
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps({**content, "schema": SCHEMA + 1}))
    for command in (("sql", "from scores"), ("report",), ("gc", "--keep", 1)):
        refused(ladm(*command, "--store", path), f"runs/{run}/run.json: written by a newer ladm")
    assert latest_record(Store(str(path))) is None
    for name in NEEDED:
        if name != "run_id":
            without = {key: value for key, value in records[1].items() if key != name}
            summary.write_text(json.dumps(without))
            refused(ladm("report", "--store", path), f"runs/{run}/run.json: no {name} in it")
    jobs = [{key: value for key, value in job.items() if key != "quarantine"} for job in records[1]["shards"]]
    summary.write_text(json.dumps({**records[1], "shards": jobs}))
    refused(ladm("sql", "from scores", "--store", path), "no shards[].quarantine in it")
    for broken in ("{", "[]", "7", '{"schema": "new"}'):
        summary.write_text(broken)
        refused(ladm("report", "--store", path), f"runs/{run}/run.json: ")
    # the next run tells of no difference, and goes on
    assert ladm(*run_arguments(corpus, path)).record["refresh"] is None


@pytest.mark.parametrize("table", ["jobs", "sources", "changes", "failures", "files"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_table_is_refused_in_one_line(
    filled: tuple[Path, list[dict[str, Any]]], ladm: Cli, table: str, damage: str
) -> None:
    path, records = filled
    file = path / "runs" / records[1]["run_id"] / f"{table}.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    if damage == "gone":
        file.unlink()
    refused(ladm("report", "--store", path), f"{table}.parquet: damaged or missing")
    refused(ladm("gc", "--keep", 1, "--store", path), "no readable run record")
    assert latest_record(Store(str(path))) is None


def test_no_such_run(filled: tuple[Path, list[dict[str, Any]]]) -> None:
    store = Store(str(filled[0]))
    for run in ("", "../x", ".hidden", "20200101T000000-00000000"):
        with pytest.raises(RecordError, match="--run: "):
            read_record(store, run)
    assert latest_run_id(Store("memory://nothing-here")) is None
    assert run_ids(Store("memory://nothing-here")) == []
