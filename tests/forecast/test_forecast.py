"""`ladm plan`: what it tells of jobs and windows is what the run that follows does; time goes by past runs."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from conftest import Answer, Corpus, run_arguments, sentence, write_jsonl

from ladm.flows.config import load_config
from ladm.flows.dag.preflight import preflight
from ladm.flows.forecast import forecast as forecasting
from ladm.flows.forecast.sample import sample_of_files
from ladm.flows.forecast.speeds import speeds_of
from ladm.flows.forecast.survey import survey
from ladm.flows.forecast.words import size_of, time_of

Cli = Callable[..., Answer]


def plan_arguments(corpus: Corpus, store: Path, *more: str) -> list[str]:
    return ["plan", *run_arguments(corpus, store, *more)[1:]]


def agree(told: dict[str, Any], record: dict[str, Any]) -> None:
    """The jobs that were foretold are those that were done."""
    assert {one["stage"]: (one["todo"], one["cached"]) for one in told["stages"]} == {
        stage: (one["run"], one["cached"]) for stage, one in record["stages"].items()
    }
    assert told["windows"] == record["windows_scored"]


def test_a_plan_tells_what_the_next_run_does(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"

    def both(*settings: str) -> tuple[dict[str, Any], dict[str, Any]]:
        told = ladm(*plan_arguments(corpus, store, *settings))
        assert told.code == 0, told.err
        done = ladm(*run_arguments(corpus, store, *settings))
        assert done.code == 0, done.err
        return json.loads(told.out), done.record

    told, record = both()
    agree(told, record)
    assert (told["documents"], told["windows"], told["tokens"]) == (9, 7, 7 * 256)
    assert told["reasons"] == ["the store has no completed run"]
    assert told["speeds_from"] == "probe"
    assert told["seconds"] > 0
    assert (told["gpu_hours"], told["cost"]) == (None, None)

    told, record = both()
    agree(told, record)
    assert (told["windows"], told["bytes"], told["reasons"], told["seconds"]) == (0, 0, [], 0.0)

    told, record = both("scorer.span=8")
    agree(told, record)
    assert "setting changed: scorer.span is 8, was 16" in told["reasons"]
    assert told["speeds_from"] == "past runs"

    both()
    write_jsonl(corpus.folder / "poems.jsonl", "Poems", 5, [350, 450])
    write_jsonl(corpus.folder / "new.jsonl", "New", 6, [350])
    told, record = both()
    agree(told, record)
    assert [reason.rpartition(" since")[0] for reason in told["reasons"]] == ["sources changed: 1 added, 1 changed"]

    # what is gone from the store is told, too
    (lost,) = [job for job in record["shards"] if job["stage"] == "score" and job["source"].endswith("letters.jsonl")]
    (store / lost["shards"][0]["path"]).unlink()
    told = json.loads(ladm(*plan_arguments(corpus, store)).out)
    assert (told["windows"], told["reasons"]) == (4, ["results are missing from the store, or damaged"])


def test_of_a_changed_file_only_what_is_new_is_counted(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    """Whatever changed in it: a text, the order, what stands at its end, or all of it."""
    store, words = tmp_path / "store", random.Random(3)
    texts = [sentence(words, 400) for _ in range(12)]
    for path in corpus.folder.iterdir():
        path.unlink()

    def both(*settings: str) -> tuple[int, int]:
        rows = ({"text": text, "meta": {"pile_set_name": "A"}} for text in texts)
        (corpus.folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        told = ladm(*plan_arguments(corpus, store, *settings))
        assert told.code == 0, told.err
        done = ladm(*run_arguments(corpus, store, *settings))
        assert done.code == 0, done.err
        return json.loads(told.out)["windows"], done.record["windows_scored"]

    assert both() == (12, 12)
    texts[4] = sentence(words, 400)
    assert both() == (1, 1)
    texts[:] = [*texts[6:], *texts[:6], sentence(words, 400), sentence(words, 400)]
    assert both() == (2, 2)
    texts[0] = sentence(words, 400)
    assert both("scorer.span=8") == (14, 14)
    texts[:] = [sentence(words, 400) for _ in range(10)]
    assert both() == (10, 10)


def test_duplicates_are_looked_for_among_all_and_the_others_stay(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store, "deduplicate=true")).code == 0
    write_jsonl(corpus.folder / "poems.jsonl", "Poems", 5, [350, 450])
    told = json.loads(ladm(*plan_arguments(corpus, store, "deduplicate=true")).out)
    record = ladm(*run_arguments(corpus, store, "deduplicate=true")).record
    assert {one["stage"]: one["todo"] for one in told["stages"]} == {
        stage: one["run"] for stage, one in record["stages"].items()
    }
    assert told["windows"] == record["windows_scored"] == 2


def test_nothing_is_written_and_prefect_is_not_needed(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store)).code == 0
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    write_jsonl(corpus.folder / "poems.jsonl", "Poems", 5, [350, 450])
    script = (
        "import sys; from ladm.flows.cli import main; code = main(sys.argv[1:]);"
        "print('prefect' in sys.modules); sys.exit(code)"
    )
    arguments = [one for one in plan_arguments(corpus, store, "scorer.span=8") if one != "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--rate", "7200"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert "why: sources changed: 1 changed since run" in done.stdout
    assert "at the rate given" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == before
    answer = ladm("plan", "--rate", "dear")
    assert (answer.code, answer.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("form", ["small", "large", "large.gz", "large.zst", "large.frames.zst", "parquet"])
def test_a_sample_tells_the_windows_of_all(tmp_path: Path, corpus: Corpus, form: str) -> None:
    """Within 10 %: of files of many sizes, compressed or not, of which most hold a window."""
    for path in corpus.folder.iterdir():
        path.unlink()
    random_words = random.Random(5)
    files, documents = (600, 1) if form == "small" else (3, 1500)
    windows = 0
    for number in range(files):
        rows = []
        for _ in range(documents):
            length = random_words.choice([20, 200, 400, 400, 900])
            rows.append({"text": sentence(random_words, length), "meta": {"pile_set_name": "A"}})
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if form == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), corpus.folder / f"{number}.parquet", row_group_size=100)
        elif form == "large.gz":
            (corpus.folder / f"{number}.jsonl.gz").write_bytes(gzip.compress(lines))
        elif form.endswith("zst"):
            size = 200_000 if "frames" in form else len(lines)
            frames = [zstandard.compress(lines[at : at + size]) for at in range(0, len(lines), size)]
            (corpus.folder / f"{number}.jsonl.zst").write_bytes(b"".join(frames))
        else:
            (corpus.folder / f"{number}.jsonl").write_bytes(lines)
    settings = [setting for setting in corpus.settings if not setting.startswith("sources")]
    config = load_config(None, [f"sources={corpus.folder}/*", *settings], str(tmp_path / "store"))
    plan = preflight(config, "tokenize")
    found = sample_of_files(plan, survey(plan).unread)
    from ladm.flows.forecast.by_hand import done_by_hand

    done = done_by_hand(plan)
    windows = sum(one.manifest.measures["windows"] for one in done.of("tokenize"))
    kept = sum(one.manifest.counts.kept for one in done.of("ingest"))
    assert found.texts < 0.7 * sum(one.manifest.measures["bytes"] for one in done.of("ingest"))
    assert abs(found.amounts["windows"] / windows - 1) < 0.10
    assert abs(found.amounts["documents"] / kept - 1) < 0.10


def run_of(job_seconds: dict[str, float], records: int, wall: float) -> dict[str, Any]:
    jobs = [
        {"stage": stage, "cached": False, "seconds": seconds, "in": records, "files": [],
         "shards": [{"bytes": 10 * records}]}
        for stage, seconds in job_seconds.items()
    ]  # fmt: skip
    return {"seconds": wall, "shards": jobs}


def test_time_goes_by_past_runs(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of twice the work takes twice the time, on the machine that did the others; money goes by the hour."""
    speeds = speeds_of([
        run_of({"ingest": 1.0, "length": 1.0, "tokenize": 2.0, "score": 36.0, "measure": 0.0}, 100, 20.0),
        run_of({"ingest": 0.1}, 10, 5.0),
    ])  # fmt: skip
    assert speeds.wall == 0.5
    assert speeds.seconds["score"] == 0.36
    monkeypatch.setattr(forecasting, "past_speeds", lambda store, config: speeds)
    monkeypatch.setattr(forecasting, "probe", lambda plan, found: pytest.fail("a past run tells"))
    config = load_config(None, corpus.settings, str(tmp_path / "store"))
    told = forecasting.forecast(config, rate=3600.0)
    # 9 documents and 7 windows
    assert told.seconds == pytest.approx(0.5 * (9 * 0.01 + 9 * 0.01 + 9 * 0.02 + 7 * 0.36), rel=0.05)
    assert told.cost == pytest.approx(told.seconds, abs=0.05)  # seconds are told to a tenth
    (score,) = [one for one in told.stages if one.stage == "score"]
    assert (score.records, score.bytes) == (7, 70)


def test_how_long_a_window_takes_is_told_by_runs_that_scored_alike() -> None:
    runs = [run_of({"ingest": 1.0, "score": 36.0}, 100, 20.0), run_of({"ingest": 3.0, "score": 2.0}, 100, 5.0)]
    speeds = speeds_of(runs, lambda record: record is runs[1])
    assert speeds.seconds == {"ingest": 0.02, "score": 0.02}
    assert "score" not in speeds_of(runs, lambda record: False).seconds


def test_windows_that_are_cut_and_were_never_scored_take_time(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store), "--until", "tokenize").code == 0
    told = json.loads(ladm(*plan_arguments(corpus, store)).out)
    assert (told["documents"], told["windows"], told["speeds_from"]) == (0, 7, "probe")
    assert told["seconds"] > 0
    assert ladm(*run_arguments(corpus, store)).code == 0
    for setting, speeds_from in (("select.budget_tokens=3000", "past runs"), ("scorer.layers=[0]", "probe")):
        assert json.loads(ladm(*plan_arguments(corpus, store, setting)).out)["speeds_from"] == speeds_from


def test_figures_for_people() -> None:
    assert [time_of(number) for number in (3.21, 120, 7200)] == ["3.2 s", "2.0 min", "2.0 h"]
    assert [size_of(number) for number in (12, 1200, 3.4e9, 5e12)] == ["12 B", "1.2 kB", "3.4 GB", "5.0 TB"]
