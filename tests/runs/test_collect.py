"""`ladm gc`: exactly what no kept run refers to is deleted, and what is kept still works."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.runs.collect import DAY, HOUR, Sweep, plan
from ladm.tasks.storage.listing import StoredFile
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
NOW = 1_800_000_000.0


def run_record(
    name: str, hours_ago: float, keys: Sequence[str], status: str = "completed", until: str = "export"
) -> Any:
    """A `run.json` of score jobs alone, with a file and a quarantine in the first one."""
    shard = lambda folder, key: {"path": f"{folder}/{key}"}  # noqa: E731
    jobs = [
        {
            "key": key,
            "shards": [shard("score", key)],
            "files": [shard("export", key)],
            "quarantine": shard("quarantine", key),
        }
        for key in keys
    ]
    started = datetime.fromtimestamp(NOW - hours_ago * HOUR, UTC).isoformat(timespec="milliseconds")
    return {"run_id": name, "status": status, "until": until, "started": started, "shards": jobs}


def listing(records: Sequence[Any], more: Sequence[tuple[str, float]] = ()) -> list[StoredFile]:
    """The files of runs, old as the hills, and more files of some age in hours."""
    paths = {f"runs/{record['run_id']}/run.json" for record in records}
    for record in records:
        for job in record["shards"]:
            paths |= {
                f"records/{job['key'][:2]}/{job['key']}.json",
                *(f"{d}/{job['key']}" for d in ("score", "export")),
            }
            paths.add(f"quarantine/{job['key']}")
    return [
        *(StoredFile(path, 10, NOW - 1000 * HOUR) for path in sorted(paths)),
        *(StoredFile(path, 10, NOW - hours * HOUR) for path, hours in more),
    ]


def swept(sweep: Sweep) -> set[str]:
    return {file.path for file in sweep.files}


def files_of_key(key: str) -> set[str]:
    return {f"records/{key[:2]}/{key}.json", f"score/{key}", f"export/{key}", f"quarantine/{key}"}


def test_what_only_removed_runs_name_goes() -> None:
    records = [run_record("a", 72, ["aa", "common"]), run_record("b", 48, ["bb"]), run_record("c", 24, ["common"])]
    sweep = plan(listing(records), records, "c", 1, NOW)
    assert (sweep.kept_runs, sweep.removed_runs) == (["c"], ["a", "b"])
    assert swept(sweep) == {"runs/a/run.json", "runs/b/run.json", *files_of_key("aa"), *files_of_key("bb")}
    assert swept(plan(listing(records), records, "c", 2, NOW)) == {"runs/a/run.json", *files_of_key("aa")}
    assert swept(plan(listing(records), records, "c", 3, NOW)) == set()


def test_the_latest_run_is_kept_however_old() -> None:
    records = [run_record("a", 72, ["aa"]), run_record("b", 48, ["bb"]), run_record("c", 24, ["cc"])]
    sweep = plan(listing(records), records, "a", 1, NOW)
    assert (sweep.kept_runs, sweep.removed_runs) == (["a", "c"], ["b"])


def test_failed_and_partial_runs_are_kept_while_a_rerun_may_need_them() -> None:
    records = [
        run_record("early", 90, ["e"], status="failed"),
        run_record("a", 72, ["aa"]),
        run_record("failed", 48, ["f"], status="failed"),
        run_record("partial", 24, ["p"], until="tokenize"),
    ]
    sweep = plan(listing(records), records, "a", 1, NOW)
    assert sweep.removed_runs == ["early"]
    nothing_whole = [record for record in records if record["run_id"] != "a"]
    assert swept(plan(listing(nothing_whole, [("score/zz", 999)]), nothing_whole, None, 1, NOW)) == set()


def test_files_that_no_run_names() -> None:
    records = [run_record("a", 72, ["aa"]), run_record("b", 48, ["bb"])]
    old = {"score/killed-before", "records/ki/killed.json", "runs/killed/ranking.parquet", "score/x.parquet.0f.tmp"}
    old |= {"contrast/evaluated", "scan/evaluated"}
    young = {"score/killed-since", "records/ki/since.json", "runs/writing/ranking.parquet", "scan/evaluated-since"}
    more = [*((path, 49) for path in old), *((path, 47) for path in young), ("score/y.parquet.0f.tmp", 23)]
    assert swept(plan(listing(records, more), records, "b", 2, NOW)) == {"score/x.parquet.0f.tmp"}
    assert swept(plan(listing(records, more), records, "b", 1, NOW)) == {"runs/a/run.json", *files_of_key("aa"), *old}
    fresh = [run_record("now", 0, ["aa"])]
    more = [("score/just-written", 0.9), ("score/left", 1.1)]
    assert swept(plan(listing(fresh, more), fresh, "now", 1, NOW)) == {"score/left"}
    assert DAY == 24 * HOUR


def test_notes_on_the_parts_of_an_export_go_with_its_record() -> None:
    records = [run_record("a", 72, ["aa"]), run_record("b", 48, ["bb"])]
    notes = {key: f"records/{key[:2]}/{key}/train-00000-of-00002.json" for key in ("aa", "bb", "killed", "since")}
    more = [(notes["aa"], 1), (notes["bb"], 999), (notes["killed"], 49), (notes["since"], 47)]
    sweep = plan(listing(records, more), records, "b", 1, NOW)
    assert swept(sweep) == {"runs/a/run.json", *files_of_key("aa"), notes["aa"], notes["killed"]}


def test_order_of_deleting_and_bytes_freed() -> None:
    records = [run_record("a", 72, ["aa"]), run_record("b", 48, ["bb"])]
    files = [
        *(file for file in listing(records) if file.path.startswith("runs/") or file.path.startswith("records/")),
        StoredFile("export/aa", 100, 0, inode=1),
        StoredFile("runs/a/export/part", 100, 0, inode=1),
        StoredFile("runs/a/ranking.parquet", 7, 0, inode=2),
        StoredFile("score/bb", 7, 0, inode=2),
    ]
    sweep = plan(files, records, "b", 1, NOW)
    assert [file.path for file in sweep.files] == [
        "runs/a/run.json", "runs/a/export/part", "runs/a/ranking.parquet", "records/aa/aa.json", "export/aa",
    ]  # fmt: skip
    assert sweep.freed == 10 + 100 + 10  # the ranking stays as score/bb
    assert sweep.by_folder()["runs"] == (3, 117)


def all_files(store: Path) -> set[str]:
    """All but the index of manifests, which belongs to no run."""
    found = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    return found - {"records/index.parquet"}


def named(record: dict[str, Any]) -> set[str]:
    """Everything in the store that one run needs, from what `ladm run --json` printed."""
    paths = {f"records/{job['key'][:2]}/{job['key']}.json" for job in record["shards"]}
    for job in record["shards"]:
        paths |= {file["path"] for file in [*job["shards"], *job["files"], *filter(None, [job["quarantine"]])]}
    return paths | set(record["files"])


def test_three_runs_then_gc(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    arguments = run_arguments(corpus, store)
    records = [ladm(*arguments).record]
    poems = corpus.folder / "poems.jsonl"
    for word in ("ocean", "desert"):
        poems.write_text("{not json\n" + poems.read_text().replace("river", word))
        records.append(ladm(*arguments).record)
    (store / "notes.txt").write_text("mine")
    (store / "score" / "half.parquet.0f.tmp").write_bytes(b"half")
    os.utime(store / "score" / "half.parquet.0f.tmp", (time.time() - 2 * DAY,) * 2)
    before = all_files(store)
    assert before == set[str]().union(*map(named, records)) | {"latest", "notes.txt", "score/half.parquet.0f.tmp"}

    dry = ladm("gc", "--keep", 2, "--dry-run", "--store", store)
    assert dry.code == 0
    assert f"would delete runs: {records[0]['run_id']}\n" in dry.out
    assert all_files(store) == before

    answer = ladm("gc", "--keep", 2, "--store", store)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == dry.out.replace("would delete", "deleted").replace("would free", "freed")
    assert all_files(store) == named(records[1]) | named(records[2]) | {"latest", "notes.txt"}
    assert not (store / "runs" / records[0]["run_id"]).exists()
    assert "deleted 0 files in all" in ladm("gc", "--keep", 2, "--store", store).out

    # what is kept still works
    warm = ladm(*arguments).record
    assert {stage: summary["run"] for stage, summary in warm["stages"].items()} == dict.fromkeys(warm["stages"], 0)
    query = """select (select count(*) from documents) as n, (select count(*) from quarantine) as bad,
                      (select count(*) from runs) as runs"""
    kept = ladm("sql", query, "--run", records[1]["run_id"], "--store", store, "--format", "json")
    assert json.loads(kept.out) == [{"n": 9, "bad": 1, "runs": 3}]
    gone = ladm("sql", query, "--run", records[0]["run_id"], "--store", store)
    assert (gone.code, "there is no run" in gone.err) == (2, True)

    # the warm run named everything that the third did: of that one, only its folder goes
    ladm("gc", "--keep", 1, "--store", store)
    assert all_files(store) == named(warm) | {"latest", "notes.txt"}


def test_refused(tmp_path: Path, ladm: Cli) -> None:
    for arguments, message in {
        ("--keep", "0"): "--keep: 0 would delete every run",
        ("--keep", "-1"): "--keep: -1 would delete every run",
        ("--keep", "many"): "invalid int value: 'many'",
        (): "required: --keep",
        ("--keep", "1"): "there is no run in",
    }.items():
        answer = ladm("gc", *arguments, "--store", tmp_path / "none")
        assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
        assert message in answer.err
    assert not (tmp_path / "none").exists()
    answer = ladm("gc", "--keep", 1, "--store", "s4://bucket")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)


@pytest.mark.parametrize("content", ["{", "[]", '{"run_id": "x"}', '{"started": "noon"}'])
def test_a_run_record_that_cannot_be_read_stops_everything(tmp_path: Path, ladm: Cli, content: str) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "run.json").write_text(content)
    answer = ladm("gc", "--keep", 1, "--store", tmp_path)
    assert answer.code == 2
    assert "runs/x/run.json: no readable run record" in answer.err


def test_records_are_read_one_after_the_other_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large they are and however many, the paths that they name are held once, and the rest not at all."""
    import tracemalloc

    from ladm.flows.runs import collect as collecting

    keys = [f"{number:064x}" for number in range(2000)]

    def large(store: Store, run: str, **how: bool) -> Any:
        record = run_record(run, 1.0, [str(key) + "" for key in keys])
        return {**record, "config": ["x" * 1000 + str(number) for number in range(2000)]}

    monkeypatch.setattr(collecting, "read_record", large)
    tracemalloc.start()
    paths: dict[str, str] = {}
    found = [collecting._read(Store(str(tmp_path)), f"run-{number}", paths) for number in range(30)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {len(record["named"]) for record in found} == {8000}
    assert peak < 40e6  # thirty of them whole are more than 150 MB
    sweep = plan(listing([large(Store(str(tmp_path)), "run-0")]), found, "run-29", 1, NOW)
    assert not [path for path in swept(sweep) if path.startswith("score/")]


def test_the_index_stays() -> None:
    record = run_record("one", 1.0, ["aa"])
    assert swept(plan(listing([record], [("records/index.parquet", 5000.0)]), [record], "one", 1, NOW)) == set()
