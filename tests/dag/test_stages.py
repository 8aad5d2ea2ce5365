"""The table of stages: what it says of each stage holds, and optional stages are mended and counted like the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, gated_calibration, run_arguments, write_jsonl
from test_damage import flip_a_byte

from ladm.flows.dag.stages import BY_NAME, FOLDERS, NAMES, TABLE, UNTOLD
from ladm.flows.runs.read import record_files
from ladm.tasks.errors import AccountError
from ladm.tasks.manifest import Counts

Cli = Callable[..., Answer]
EVERYTHING = [
    "ingest.part_bytes=3000",
    "ingest.shard_bytes=3000",
    "select.budget_tokens=4000",
    "select.replay={share: 0.2, seed: 3}",
    "deduplicate={near: false}",
    "filters=[repetition, 'test_stages:is_welcome']",
    "scorer.beside=[gzip, longfilter, random]",
    "select.rank_by=longfilter",
    "export=[parquet, jsonl.zst]",
]
"""Settings that ask for every stage but the one that reads benchmark files and those that calibrate."""
CALIBRATING = {row.name for row in TABLE if "calibrate" in (row.name, row.serves)}
"""Rows that a run has which calibrates by itself; `tests/stages/test_calibrate.py` does to them what is done here."""


def is_welcome(text: str, meta: dict[str, Any]) -> bool:
    """The filter of `EVERYTHING`: drops one document that fills a window, and one that does not."""
    return len(text.split()) not in (400, 25)


def everything(corpus: Corpus, folder: Path, model: Path) -> list[str]:
    """Settings that ask for every stage, and short documents and a benchmark file for them to work on."""
    if not (corpus.folder / "notes.jsonl").exists():
        write_jsonl(corpus.folder / "notes.jsonl", "Poems", 5, [20, 30, 25, 15])
    against = folder / "benchmark.txt"
    against.write_text("a passage of a benchmark that no document of this corpus holds at all")
    calibration = folder / "calibration.json"
    calibration.write_text(gated_calibration(model, 256, 16).model_dump_json())
    calibrated = ["scorer.layers=calibrated", f"scorer.calibration={calibration}"]
    publish = f"publish={folder / 'published'}"
    return [*EVERYTHING, *calibrated, publish, f"decontaminate.against=[{against}]"]


def products(store: Path, record: dict[str, Any]) -> dict[str, bytes]:
    """What a run made for its user, byte for byte, but for its id."""
    folder = store / "runs" / record["run_id"]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(folder.name.encode(), b"<run>")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and f"runs/{folder.name}/{path.name}" not in record_files(folder.name)
    }


def ranked_ids(store: Path, record: dict[str, Any]) -> list[str]:
    """The documents of a run's ranking, sorted."""
    return sorted(pq.read_table(store / "runs" / record["run_id"] / "ranking.parquet")["doc_id"].to_pylist())


def test_what_a_row_takes_stands_above_it() -> None:
    seen: set[str] = set()
    for row in TABLE:
        for take in row.takes:
            assert take.of in seen, (row.name, take)
            roles = {role for group in row.stage.roles for role in ([group] if isinstance(group, str) else group)}
            assert take.role in {"", *roles, *row.stage.unkeyed}
        assert sum(take.how == "each" for take in row.takes) == (row.scope == "shard")
        assert set(row.receives) <= {BY_NAME[name].stage.name for name in seen}
        seen.add(row.name)
    assert len(BY_NAME) == len(TABLE)
    assert set(NAMES) <= set(FOLDERS) | {"export"}


def test_every_stage_is_asked_for_and_adds_up(tmp_path: Path, tiny_model: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    settings = everything(corpus, tmp_path, tiny_model)
    first = ladm(*run_arguments(corpus, store, *settings))
    assert first.code == 0, first.err
    stages = first.record["stages"]
    assert set(stages) == {row.stage.name for row in TABLE if row.name not in CALIBRATING} - set(UNTOLD)
    assert stages["measure"]["in"] == 5 * stages["score"]["in"]  # three scorers, the text, the attention
    assert stages["gate"]["kept"] == stages["score"]["in"]
    assert stages["short"]["in"] == stages["ingest"]["kept"] == 13
    assert stages["filter"]["dropped"] == {"is_welcome": 1}
    assert stages["short"]["dropped"]["is_welcome"] == 1
    second = ladm(*run_arguments(corpus, store, *settings)).record
    assert all(stage["run"] == 0 for stage in second["stages"].values())
    assert products(store, second) == products(store, first.record)


@pytest.mark.parametrize("row", [row.name for row in TABLE if row.name not in {*CALIBRATING, "cut"}])
def test_a_damaged_file_of_any_stage_is_made_again_and_nothing_twice(
    tmp_path: Path, tiny_model: Path, corpus: Corpus, ladm: Cli, row: str
) -> None:
    """Repaired jobs offer nothing that was offered before: no document is in the result twice, or missing."""
    store = tmp_path / "store"
    settings = everything(corpus, tmp_path, tiny_model)
    sound = ladm(*run_arguments(corpus, store, *settings)).record
    expected = ranked_ids(store, sound)
    stage = BY_NAME[row].stage.name
    jobs = [job for job in sound["shards"] if job["stage"] == stage]
    damaged = {file["path"] for job in jobs for file in [*job["shards"], *job["files"]] if file["bytes"]}
    assert damaged
    for path in sorted(damaged):
        flip_a_byte(store / path)
    # Another budget, so that ranking and what follows reads what was damaged.
    mended = ladm(*run_arguments(corpus, store, *settings, "select.budget_tokens=4001"))
    assert mended.code == 0, mended.err
    found = ranked_ids(store, mended.record)
    assert len(set(found)) == len(found)
    assert found == expected


def test_a_scorer_that_is_added_puts_no_window_through_the_model_again(
    tmp_path: Path, corpus: Corpus, ladm: Cli
) -> None:
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store)).record["windows_scored"] == 7
    added = ladm(*run_arguments(corpus, store, "scorer.beside=[gzip]"))
    assert added.code == 0, added.err
    assert added.record["windows_scored"] == 0
    assert (added.record["stages"]["measure"]["run"], added.record["stages"]["score"]["cached"]) == (2, 2)
    # together in one pass where nothing is there yet, and each by itself afterwards
    both = ladm(*run_arguments(corpus, tmp_path / "other", "scorer.beside=[longattn, longfilter]")).record
    assert both["stages"]["measure"]["run"] == 6  # the columns of the text, too
    one = ladm(*run_arguments(corpus, tmp_path / "other", "scorer.beside=[longattn]")).record
    assert (one["stages"]["measure"]["cached"], one["windows_scored"]) == (4, 0)
    query = "select window_id, longattn, longfilter, gzip from scores order by all"
    rows = json.loads(ladm("sql", query, "--store", tmp_path / "other", "--format", "json").out)
    assert len(rows) == 7
    assert all(row["longattn"] is not None and row["longfilter"] is None for row in rows)


def test_a_pass_that_is_shared_measures_what_a_pass_of_its_own_measures(
    tmp_path: Path, corpus: Corpus, ladm: Cli
) -> None:
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    asked = "scorer.beside=[longattn, longfilter, prolong]"
    ladm(*run_arguments(corpus, shared, asked))
    ladm(*run_arguments(corpus, alone))
    ladm(*run_arguments(corpus, alone, asked))
    query = "select window_id, cds, longattn, longfilter, prolong from scores order by window_id"
    found = [json.loads(ladm("sql", query, "--store", store, "--format", "json").out) for store in (shared, alone)]
    assert len(found[0]) == 7
    for one, other in zip(*found, strict=True):
        assert one == other  # to the last bit: which columns share a pass must not show in any result


@pytest.mark.parametrize("raised", [KeyError("our own"), AccountError("a record is lost"), MemoryError("all of it")])
def test_whatever_stops_a_run_leaves_its_record(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("ladm.flows.dag.scheduler.Dag.do_results", broken)
    store = tmp_path / "store"
    if isinstance(raised, MemoryError):  # which is the machine's, and no bug
        answer = ladm(*run_arguments(corpus, store))
        assert (answer.code, answer.err.splitlines()[-1].startswith("ladm: out of memory; ")) == (1, True)
    else:
        with pytest.raises(type(raised)):
            ladm(*run_arguments(corpus, store))
    (folder,) = (store / "runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["failures"][-1]["error"].startswith(type(raised).__name__)
    assert record["stages"]["score"]["kept"] == 7
    assert not (store / "latest").exists()


def test_a_lost_record_is_no_assertion() -> None:
    with pytest.raises(AccountError, match="2 records in, 1 accounted for"):
        Counts(received=2, kept=1).check("here")


def test_a_run_says_first_that_it_scores_again_what_was_scored(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    first = ladm(*run_arguments(corpus, store))
    assert "scored again" not in first.err
    assert "scored again" not in ladm(*run_arguments(corpus, store, "select.budget_tokens=3000")).err
    again = ladm(*run_arguments(corpus, store, "scorer.span=8"))
    lines = again.err.splitlines()
    (said,) = [number for number, line in enumerate(lines) if "scored again" in line]
    assert (
        f"what run {first.record['run_id']} scored is scored again, 7 windows" not in lines[said]
    )  # it was not the last
    assert "is scored again, 7 windows that took" in lines[said]
    assert "scorer.span is 8, was 16" in lines[said]
    assert all("score " not in line for line in lines[:said])
