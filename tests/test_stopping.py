"""How what is under way hears that its run was told to stop: DuckDB, a long window in the model, batches, threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from ladm.tasks import stopping
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.stage import can_pass
from ladm.tasks.stopping import StoppedError, Stopping, stoppable
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store


def stopped_after(seconds: float, work: Callable[[], Any]) -> float:
    """How long work goes on that is told to stop after some seconds; it must end by hearing of it."""
    run = Stopping()
    with stoppable(run):
        threading.Timer(seconds, run.ask).start()
        began = time.monotonic()
        with pytest.raises((StoppedError, duckdb.InterruptException)):
            work()
        return time.monotonic() - began


def test_what_belongs_to_no_run_is_never_stopped() -> None:
    stopping.ask()
    stopping.check()
    run = Stopping()
    with stoppable(run):
        run.ask()
        with pytest.raises(StoppedError):
            stopping.check()
        other = threading.Thread(target=stopping.check)  # a context of its own
        other.start()
        other.join()
    stopping.check()  # the run is over, and so is what it was told


def test_a_stopped_job_is_not_tried_again() -> None:
    assert not can_pass(StoppedError("the run was stopped"))


def test_tasks_in_other_threads_hear_of_it() -> None:
    run = Stopping()
    with stoppable(run), ThreadPoolExecutor(1) as pool:
        run.ask()
        with pytest.raises(StoppedError):
            pool.submit(copy_context().run, stopping.check).result()


@pytest.mark.parametrize(
    "statement",
    ["select sum(a.range * b.range) from range(10_000_000) a, range(10_000_000) b", None],
    ids=["one statement", "many"],
)
def test_duckdb_is_interrupted(statement: str | None, tmp_path: Path) -> None:
    def work() -> None:
        with duck.connect(Store(str(tmp_path))) as connection:
            while True:
                connection.execute(statement or "select sum(range) from range(3_000_000)").fetchall()

    assert stopped_after(0.5, work) < 10


def test_a_connection_after_the_stop_is_not_made(tmp_path: Path) -> None:
    run = Stopping()
    with stoppable(run):
        run.ask()
        with pytest.raises(StoppedError), duck.connect(Store(str(tmp_path))):
            pass


@pytest.mark.parametrize("passes", [1, 2])
def test_a_window_in_the_model_is_left_between_two_layers(
    passes: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.tasks.scorers import span_mass
    from ladm.tasks.scorers.attention import one_pass  # noqa: F401
    from ladm.tasks.scorers.calculator import load_calculator
    from ladm.tasks.scorers.model_turns import Turns
    from ladm.tasks.scorers.window_scores import score_windows

    config = LadmConfig(model=str(tiny_model), span=16, d_afs=2, d_cds=2, layers="all", device="cpu")
    calculator = load_calculator(tiny_model, config)
    blocks, quick = [], span_mass._blocks

    def slow(cuts: list[int]) -> Any:
        for block in quick(cuts):
            blocks.append(block)
            time.sleep(0.3)
            yield block

    monkeypatch.setattr(span_mass, "_blocks", slow)
    windows = [np.ones((1, 2048), dtype=np.int64)] * 4
    turns = Turns(2, passes)
    took = stopped_after(1.0, lambda: turns.each(lambda ids: score_windows(calculator, config, ids), windows))
    assert took < 4
    assert len(blocks) < 20  # one layer of one window alone has more


def test_a_file_that_is_being_read_is_left(tmp_path: Path) -> None:
    from ladm.tasks.job import Job, run_job
    from ladm.tasks.reading.readers import SourceConfig
    from ladm.tasks.reading.sources import list_files
    from ladm.tasks.stages import ingest

    path = tmp_path / "many.jsonl"
    path.write_text('{"text": "a"}\n' * 300_000)
    source = SourceConfig(uri=str(path))
    (listed,) = list_files(source, "sources[0]", "size")
    settings = ingest.ingest_key_config(source, ingest.IngestConfig())
    job = Job(stage="ingest", label="many", store=str(tmp_path / "store"), source=listed, config=settings)
    assert stopped_after(0.3, lambda: run_job(ingest.STAGE, job)) < 5
