"""Runs in processes of their own: what a warm run imports, a kill in the middle of scoring, an interrupt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Corpus, run_arguments, write_jsonl

RUN = """
import sys
{before}
from ladm.flows.cli import main
code = main(sys.argv[1:])
print("imported:", *(name for name in ("torch", "transformers") if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""
HANGING_SCORING = """
import time
from ladm.tasks.scorers import window_scores
quick, calls = window_scores.score_windows, []
def hanging(*arguments):
    calls.append(1)
    time.sleep(600 if len(calls) == {hang_at} else 0)
    return quick(*arguments)
window_scores.score_windows = hanging
"""

HANGING_SCAN = HANGING_SCORING.replace(
    "ladm.tasks.scorers import window_scores", "ladm.tasks.stages import scan"
).replace("window_scores.score_windows", "scan.measure")


def start(arguments: list[str], before: str = "") -> subprocess.Popen[str]:
    """A run in its own process group, as a terminal would start it."""
    command = [sys.executable, "-c", RUN.format(before=before), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ}
    )


def ranking_of(store: Path) -> bytes:
    run = (store / "latest").read_text()
    return (store / "runs" / run / "ranking.parquet").read_bytes()


def wait_for(condition: object, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def score_records(store: Path) -> list[Path]:
    return [path for path in store.glob("records/*/*.json") if '\\"stage\\": \\"score\\"' in path.read_text()]


def test_a_warm_run_imports_neither_torch_nor_transformers(tmp_path: Path, corpus: Corpus) -> None:
    arguments = run_arguments(corpus, tmp_path / "store")
    first = start(arguments)
    _, log = first.communicate(timeout=300)
    assert first.returncode == 0, log
    assert "imported: torch transformers" in log
    second = start(arguments)
    out, log = second.communicate(timeout=300)
    assert second.returncode == 0, log
    assert json.loads(out)["windows_scored"] == 0
    assert log.rstrip().endswith("imported:")


def test_killed_in_the_middle_of_scoring_then_finished(tmp_path: Path, corpus: Corpus) -> None:
    undisturbed, store = tmp_path / "undisturbed", tmp_path / "store"
    whole = start(run_arguments(corpus, undisturbed))
    whole.communicate(timeout=300)
    assert whole.returncode == 0

    killed = start(run_arguments(corpus, store), HANGING_SCORING.format(hang_at=2))
    wait_for(lambda: score_records(store))
    killed.kill()
    killed.communicate(timeout=60)  # which ends only when nothing holds the run's output open any more
    assert len(score_records(store)) == 1
    assert not (store / "latest").exists()

    again = start(run_arguments(corpus, store))
    out, log = again.communicate(timeout=300)
    assert again.returncode == 0, log
    scoring = json.loads(out)["stages"]["score"]
    assert (scoring["cached"], scoring["run"]) == (1, 1)
    assert ranking_of(store) == ranking_of(undisturbed)
    exports = [
        next((folder / "runs").glob("*/export/parquet/train-*.parquet")).read_bytes() for folder in (store, undisturbed)
    ]
    assert exports[0] == exports[1]


@pytest.mark.slow
def test_an_evaluation_killed_goes_on_and_gives_the_same_table(tmp_path: Path, corpus: Corpus) -> None:
    for seed, domain in enumerate(("letters", "poems")):
        write_jsonl(corpus.folder / f"{domain}.jsonl", domain, seed, list(range(400, 408)))
    settings = [argument for setting in corpus.settings for argument in ("--set", setting)]
    evaluate = ["evaluate", "--windows", "8", "--format", "json", "--out", str(tmp_path / "out"), *settings]
    undisturbed, store = ["--store", str(tmp_path / "undisturbed")], ["--store", str(tmp_path / "store")]
    table, log = (whole := start([*evaluate, *undisturbed])).communicate(timeout=300)
    assert whole.returncode == 0, log

    killed = start([*evaluate, *store], HANGING_SCAN.format(hang_at=20))
    wait_for(lambda: len(list((tmp_path / "store").glob("scan/*/*.parquet"))) == 3)  # of five or six windows each
    time.sleep(1)
    killed.kill()
    killed.communicate(timeout=60)
    again = start([*evaluate, *store])
    out, log = again.communicate(timeout=300)
    assert again.returncode == 0, log
    assert out == table
    assert sum(line.startswith("scan      cached") for line in log.splitlines()) == 3, log


def test_an_interrupt_ends_at_once_with_130_and_leaves_no_temporary_file(tmp_path: Path, corpus: Corpus) -> None:
    store = tmp_path / "store"
    interrupted = start(run_arguments(corpus, store), HANGING_SCORING.format(hang_at=1))
    wait_for(lambda: len(list(store.glob("tokenize/*/*.parquet"))) == 2)
    time.sleep(1)
    os.kill(interrupted.pid, signal.SIGINT)
    _, log = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, log
    assert "Traceback" not in log
    assert not list(store.rglob("*.tmp"))


def test_a_prefect_server_of_the_users_that_does_not_answer(tmp_path: Path, corpus: Corpus) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "ladm.flows.cli", *run_arguments(corpus, tmp_path / "store")],
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "PREFECT_API_URL: no Prefect server answers at 127.0.0.1:9" in refused.stderr
